# frozen_string_literal: true

class OauthApplication < ApplicationRecord
  validates :name, :redirect_uri, presence: true

  before_create { assign_attributes(uid: SecureRandom.hex(32), secret: SecureRandom.hex(32)) }
end
