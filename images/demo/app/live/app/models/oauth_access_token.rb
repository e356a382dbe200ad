# frozen_string_literal: true

class OauthAccessToken < ApplicationRecord
  belongs_to :application, class_name: 'OauthApplication'
  belongs_to :resource_owner, class_name: 'User'

  before_create { self.token = SecureRandom.hex(32) }

  scope :valid, -> { where(revoked_at: nil) }
end
