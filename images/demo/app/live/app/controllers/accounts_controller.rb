# frozen_string_literal: true

class AccountsController < ApplicationController
  def show
    @account  = Account.local.find_by!('lower(username) = ?', params[:username].downcase)
    @statuses = @account.statuses.public_visibility.newest.limit(20)
    @statuses = @statuses.where(id: params[:id]).tap { |found| found.load.first || raise(ActiveRecord::RecordNotFound) } if params[:id]
  end
end
