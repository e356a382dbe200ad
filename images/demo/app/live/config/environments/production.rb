# frozen_string_literal: true

Rails.application.configure do
  config.cache_classes = true
  config.eager_load = true
  config.consider_all_requests_local = false

  # As with the original, a server does not start without its tables; rake tasks do, they make them.
  config.after_initialize { Account.columns_hash if config.eager_load }

  config.action_controller.perform_caching = false
  config.public_file_server.enabled = ENV['RAILS_SERVE_STATIC_FILES'].present?
  config.log_level = ENV.fetch('RAILS_LOG_LEVEL', 'info').to_sym
  config.log_tags = [:request_id]
  config.log_formatter = Logger::Formatter.new
  config.active_support.deprecation = :silence
  config.active_record.dump_schema_after_migration = false

  # Addresses and networks, separated by white space.
  if ENV['TRUSTED_PROXY_IP'].present?
    config.action_dispatch.trusted_proxies = ENV['TRUSTED_PROXY_IP'].split.map { |item| IPAddr.new(item) }
  end

  # Kept as at the tag, traps included: any non-blank string in SMTP_TLS or SMTP_ENABLE_STARTTLS_AUTO means yes,
  # and a blank SMTP_LOGIN is a login: leave the key out for a server without authentication.
  config.action_mailer.delivery_method = ENV.fetch('SMTP_DELIVERY_METHOD', 'smtp').to_sym
  config.action_mailer.smtp_settings = {
    address: ENV['SMTP_SERVER'],
    port: ENV['SMTP_PORT'],
    domain: ENV['SMTP_DOMAIN'] || ENV['LOCAL_DOMAIN'],
    user_name: ENV['SMTP_LOGIN'],
    password: ENV['SMTP_PASSWORD'],
    authentication: ENV['SMTP_AUTH_METHOD'] == 'none' ? nil : ENV['SMTP_AUTH_METHOD'] || :plain,
    ca_file: ENV['SMTP_CA_FILE'].presence,
    openssl_verify_mode: ENV['SMTP_OPENSSL_VERIFY_MODE'],
    enable_starttls_auto: ENV['SMTP_ENABLE_STARTTLS_AUTO'] || true,
    tls: ENV['SMTP_TLS'].presence,
  }
end
