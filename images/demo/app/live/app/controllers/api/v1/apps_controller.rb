# frozen_string_literal: true

class Api::V1::AppsController < Api::BaseController
  def create
    application = OauthApplication.create!(name: params.require(:client_name), redirect_uri: params.require(:redirect_uris),
                                           scopes: params[:scopes].presence || 'read', website: params[:website])
    render json: { id: application.id, name: application.name, redirect_uri: application.redirect_uri,
                   client_id: application.uid, client_secret: application.secret }
  end
end
