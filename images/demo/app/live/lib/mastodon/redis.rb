# frozen_string_literal: true

# Debian's Sidekiq is older than its Redis library and would fill the journal with advice to itself.
Redis.silence_deprecations = true
Redis.sadd_returns_boolean = false

module Mastodon
  # REDIS_URL, or the four variables that make one; the streaming server reads the same.
  module Redis
    module_function

    def url
      ENV.fetch('REDIS_URL') do
        password = ENV['REDIS_PASSWORD'].presence
        auth     = password ? ":#{ERB::Util.url_encode(password)}@" : ''
        "redis://#{auth}#{ENV['REDIS_HOST'] || 'localhost'}:#{ENV['REDIS_PORT'] || 6379}/#{ENV['REDIS_DB'] || 0}"
      end
    end

    def options
      { url: url }
    end

    def publish(channel, message)
      Sidekiq.redis { |connection| connection.publish(channel, message) }
    end
  end
end
