# frozen_string_literal: true

Rails.application.config.session_store :cookie_store, key: '_mastodon_session', secure: Rails.application.config.x.use_https

# `password` alone is in Rails' own list for new applications, which this one was not made from.
Rails.application.config.filter_parameters += [:password, :client_secret, :access_token, :confirmation_token]
