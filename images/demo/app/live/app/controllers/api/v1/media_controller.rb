# frozen_string_literal: true

class Api::V1::MediaController < Api::BaseController
  before_action -> { require_scope('write') }

  def create
    upload = params.require(:file)
    raise MediaAttachment::Invalid, "Validation failed: File can't be blank" unless upload.respond_to?(:path)

    render json: Serializer.media(MediaAttachment.store!(@account, upload))
  end
end
