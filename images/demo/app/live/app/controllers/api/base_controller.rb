# frozen_string_literal: true

class Api::BaseController < ApplicationController
  skip_forgery_protection

  rescue_from ActiveRecord::RecordInvalid, ArgumentError, MediaAttachment::Invalid do |error|
    render json: { error: error.message }, status: :unprocessable_entity
  end

  rescue_from ActionController::ParameterMissing do |error|
    render json: { error: error.message }, status: :unprocessable_entity
  end

  rescue_from ActiveRecord::RecordNotFound do
    render json: { error: 'Record not found' }, status: :not_found
  end

  private

  # A `before_action` of whatever needs a user: `require_scope('write')` for what changes something.
  def require_scope(scope)
    bearer = request.authorization.to_s[/\ABearer (\S+)\z/i, 1] || params[:access_token].to_s
    token  = OauthAccessToken.valid.includes(resource_owner: :account).find_by(token: bearer)
    return render(json: { error: 'The access token is invalid' }, status: :unauthorized) unless token
    return render(json: { error: 'This action is outside the authorized scopes' }, status: :forbidden) unless token.scopes.split.include?(scope)

    @user    = token.resource_owner
    @account = @user.account
  end
end
