# frozen_string_literal: true

class Api::V1::StatusesController < Api::BaseController
  before_action -> { require_scope('write') }, only: :create

  def create
    media  = @account.media_attachments.unattached.where(id: Array(params[:media_ids]).first(4))
    status = @account.statuses.create!(text: params[:status].to_s, visibility: params[:visibility].presence || 'public', media_attachments: media)
    render json: Serializer.status(status)
  end

  def show
    render json: Serializer.status(Status.public_visibility.find(params[:id]))
  end
end
