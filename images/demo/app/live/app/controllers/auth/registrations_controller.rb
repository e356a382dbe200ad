# frozen_string_literal: true

class Auth::RegistrationsController < ApplicationController
  before_action { redirect_to root_path unless Setting.registrations_open? }

  def new
    @user = User.new(account: Account.new)
  end

  def create
    @user = User.new(params.require(:user).permit(:email, :password, account_attributes: [:username]))
    @user.locale = Rails.configuration.x.default_locale
    @user.account ||= Account.new

    if @user.save
      redirect_to new_session_path, notice: 'A message with a confirmation link has been sent to your email address.'
    else
      render :new
    end
  end
end
