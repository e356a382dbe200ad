# frozen_string_literal: true

class Auth::SessionsController < ApplicationController
  def new; end

  def create
    user = User.authenticate(params.dig(:user, :email), params.dig(:user, :password))

    if user.nil?
      flash.now[:alert] = 'Invalid email or password.'
      render :new
    elsif !user.confirmed?
      flash.now[:alert] = 'You have to confirm your email address before continuing.'
      render :new
    else
      reset_session
      session[:user_id] = user.id
      user.signed_in_from!(request.remote_ip)
      redirect_to root_path
    end
  end

  def destroy
    reset_session
    redirect_to new_session_path
  end
end
