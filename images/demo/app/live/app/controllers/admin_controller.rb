# frozen_string_literal: true

class AdminController < ApplicationController
  SETTINGS = %w(site_title site_description site_contact_email).freeze

  before_action { redirect_to(current_user ? root_path : new_session_path) unless current_user&.admin? }

  def edit; end

  def update
    SETTINGS.each { |name| Setting[name] = params[name].to_s }
    Setting['open_registrations'] = params[:open_registrations] == '1'
    redirect_to edit_admin_settings_path, notice: 'Changes successfully saved!'
  end
end
