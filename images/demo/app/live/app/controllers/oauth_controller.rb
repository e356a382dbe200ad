# frozen_string_literal: true

# The password grant and nothing else.
class OauthController < ApplicationController
  skip_forgery_protection

  def token
    application = OauthApplication.find_by(uid: params[:client_id].to_s, secret: params[:client_secret].to_s)
    return fail_token('invalid_client', 'Client authentication failed due to unknown client, no client authentication included, or unsupported authentication method.') unless application
    return fail_token('unsupported_grant_type', 'The authorization grant type is not supported by the authorization server.') unless params[:grant_type] == 'password'

    user = User.authenticate(params[:username], params[:password])
    return fail_token('invalid_grant', 'The provided authorization grant is invalid, expired, revoked, does not match the redirection URI used in the authorization request, or was issued to another client.') unless user&.confirmed?

    user.signed_in_from!(request.remote_ip)
    token = OauthAccessToken.create!(application: application, resource_owner: user, scopes: params[:scope].presence || 'read')
    render json: { access_token: token.token, token_type: 'bearer', scope: token.scopes, created_at: token.created_at.to_i }
  end

  private

  def fail_token(error, description)
    render json: { error: error, error_description: description }, status: :unauthorized
  end
end
