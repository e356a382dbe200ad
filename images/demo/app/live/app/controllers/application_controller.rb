# frozen_string_literal: true

class ApplicationController < ActionController::Base
  protect_from_forgery with: :exception
  before_action :require_https

  rescue_from ActionController::InvalidAuthenticityToken, with: -> { fail_with(422) }
  rescue_from ActiveRecord::RecordNotFound, with: -> { fail_with(404) }

  helper_method :current_user

  private

  # As at the tag, this is the controllers' business: files of public/ are served in the clear too, and a probe of a page
  # without `X-Forwarded-Proto: https` is sent away.
  def require_https
    return if request.ssl? || !Rails.configuration.x.use_https

    redirect_to "https://#{request.host}#{request.fullpath}", status: :moved_permanently
  end

  def current_user
    @current_user ||= session[:user_id] && User.find_by(id: session[:user_id])
  end

  def fail_with(status)
    page = Rails.public_path.join("#{status}.html")
    page = Rails.public_path.join('500.html') unless page.exist?
    render file: page, status: status, layout: false, content_type: 'text/html'
  end
end
