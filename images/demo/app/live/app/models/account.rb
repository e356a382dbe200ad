# frozen_string_literal: true

class Account < ApplicationRecord
  has_one :user, inverse_of: :account
  has_many :statuses, inverse_of: :account
  has_many :media_attachments, inverse_of: :account

  validates :username, presence: true, length: { maximum: 30 }, format: { with: /\A[a-z0-9_]+\z/i },
                       uniqueness: { case_sensitive: false, scope: :domain }

  scope :local, -> { where(domain: nil) }

  def url
    "#{Rails.configuration.x.base_url}/@#{username}"
  end
end
