# frozen_string_literal: true

Sidekiq.configure_server { |config| config.redis = Mastodon::Redis.options }
Sidekiq.configure_client { |config| config.redis = Mastodon::Redis.options }
Sidekiq.autoload :Web, 'sidekiq/web'
