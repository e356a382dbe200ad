# frozen_string_literal: true

class HomeController < ApplicationController
  def index
    owner = Account.local.order(:id).first if Rails.configuration.x.single_user_mode
    return redirect_to account_path(owner.username) if owner && !current_user
    return redirect_to about_path unless current_user

    @statuses = Status.public_visibility.newest.limit(20)
  end
end
