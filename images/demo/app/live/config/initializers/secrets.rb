# frozen_string_literal: true

# Nothing may ever be encrypted or signed with a value that is not this machine's own.
missing = %w(SECRET_KEY_BASE PAPERCLIP_SECRET OTP_SECRET).select { |name| ENV[name].blank? }

abort "These variables are not set: #{missing.join(', ')}. Make a value for each with `rake secret`." if Rails.env.production? && missing.any?
