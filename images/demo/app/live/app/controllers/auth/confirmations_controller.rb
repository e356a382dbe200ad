# frozen_string_literal: true

class Auth::ConfirmationsController < ApplicationController
  def show
    user = User.find_by(confirmation_token: params[:confirmation_token].presence)

    if user.nil?
      redirect_to new_session_path, alert: 'Confirmation token is invalid'
    elsif user.confirmed?
      redirect_to new_session_path, alert: 'Email was already confirmed, please try signing in'
    else
      user.confirm!
      redirect_to new_session_path, notice: 'Your email address has been successfully confirmed.'
    end
  end
end
