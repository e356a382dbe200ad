# frozen_string_literal: true

class User < ApplicationRecord
  belongs_to :account, inverse_of: :user
  accepts_nested_attributes_for :account

  attr_reader :password

  validates :email, presence: true, uniqueness: true, length: { maximum: 250 }, format: { with: /\A[^@\s]+@[^@\s]+\z/, allow_blank: true }
  validates :password, length: { in: 8..72 }, if: -> { new_record? || password }

  before_validation { self.email = email.to_s.strip.downcase }
  before_create     { self.confirmation_token = SecureRandom.urlsafe_base64(15) unless confirmed? }
  after_commit :send_confirmation, on: :create, unless: :confirmed?

  # As Devise has it.
  def valid_password?(password)
    BCrypt::Password.new(encrypted_password) == password.to_s
  end

  # The same answer, in the same time, for a wrong password and an unknown address.
  def self.authenticate(email, password)
    user = find_by(email: email.to_s.strip.downcase)
    hash = user&.encrypted_password || (@no_password ||= BCrypt::Password.create(SecureRandom.hex))
    right = BCrypt::Password.new(hash) == password.to_s
    user if right
  end

  def password=(value)
    @password = value.to_s
    self.encrypted_password = BCrypt::Password.create(@password) if @password.bytesize <= 72
  end

  def confirmed?
    confirmed_at.present?
  end

  def confirm!
    update!(confirmed_at: Time.now.utc)
  end

  def signed_in_from!(address)
    update!(sign_in_count: sign_in_count + 1, current_sign_in_at: Time.now.utc, current_sign_in_ip: address)
  end

  private

  def send_confirmation
    update_columns(confirmation_sent_at: Time.now.utc)
    UserMailer.confirmation_instructions(self).deliver_later
  end
end
