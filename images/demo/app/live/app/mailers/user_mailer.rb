# frozen_string_literal: true

class UserMailer < ActionMailer::Base
  default from: -> { ENV.fetch('SMTP_FROM_ADDRESS', 'notifications@localhost') }
  layout false

  def confirmation_instructions(user)
    @user     = user
    @instance = Rails.configuration.x.local_domain

    mail to: user.email, subject: "Mastodon: Confirmation instructions for #{@instance}"
  end
end
