# frozen_string_literal: true

class Api::V1::AccountsController < Api::BaseController
  before_action -> { require_scope('read') }

  def verify_credentials
    render json: Serializer.account(@account).merge(source: { privacy: 'public', sensitive: false, note: @account.note })
  end
end
