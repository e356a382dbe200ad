# frozen_string_literal: true

host     = ENV.fetch('LOCAL_DOMAIN') { "localhost:#{ENV.fetch('PORT', 3000)}" }
web_host = ENV.fetch('WEB_DOMAIN') { host }
https    = ENV['LOCAL_HTTPS'] == 'true'

Rails.application.configure do
  config.x.local_domain     = host
  config.x.web_domain       = web_host
  config.x.use_https        = https
  config.x.base_url         = "http#{'s' if https}://#{web_host}"
  config.x.streaming_url    = ENV.fetch('STREAMING_API_BASE_URL') { "ws#{'s' if https}://#{web_host}" }
  config.x.single_user_mode = ENV['SINGLE_USER_MODE'] == 'true'
  config.x.default_locale   = ENV['DEFAULT_LOCALE'].presence || 'en'

  config.action_mailer.default_url_options = { host: web_host, protocol: https ? 'https' : 'http' }
end
