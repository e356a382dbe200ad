# frozen_string_literal: true

require_relative 'boot'

# Only what is used: a full `rails/all` would double the time to boot.
require 'rails'
require 'active_model/railtie'
require 'active_job/railtie'
require 'active_record/railtie'
require 'action_controller/railtie'
require 'action_view/railtie'
require 'action_mailer/railtie'
require 'bcrypt'
require 'dotenv'
require 'redis'
require 'sidekiq'

# Same files and same order as dotenv-rails: a variable that is already set always wins.
Dotenv.load(*[".env.#{Rails.env}.local", '.env.local', ".env.#{Rails.env}", '.env'].map { |name| File.expand_path("../#{name}", __dir__) })

require_relative '../lib/mastodon/version'
require_relative '../lib/mastodon/redis'

module Mastodon
  class Application < Rails::Application
    config.load_defaults 6.1

    # The original's tag has no check of the Host header.
    config.hosts = nil

    config.time_zone = 'UTC'
    config.i18n.default_locale = :en
    config.action_mailer.deliver_later_queue_name = 'mailers'
    config.active_job.queue_adapter = :sidekiq
  end
end
