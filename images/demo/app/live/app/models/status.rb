# frozen_string_literal: true

class Status < ApplicationRecord
  belongs_to :account, inverse_of: :statuses
  has_many :media_attachments, inverse_of: :status

  enum visibility: { public: 0, unlisted: 1, private: 2, direct: 3 }, _suffix: :visibility

  validates :text, length: { maximum: 500 }
  validates :text, presence: true, if: -> { media_attachments.empty? }

  scope :newest, -> { order(id: :desc).includes(:account, :media_attachments) }

  after_create_commit { DistributionWorker.perform_async(id) }

  def url
    "#{account.url}/#{id}"
  end
end
