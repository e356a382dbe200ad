# frozen_string_literal: true

# Read before .env.production is: PORT, SOCKET, WEB_CONCURRENCY and MAX_THREADS work only as variables of the unit,
# as with the original.
threads_count = ENV.fetch('MAX_THREADS', 5).to_i
threads threads_count, threads_count

if ENV['SOCKET']
  bind "unix://#{ENV['SOCKET']}"
else
  port ENV.fetch('PORT', 3000)
end

environment ENV.fetch('RAILS_ENV', 'production')
workers ENV.fetch('WEB_CONCURRENCY', 2).to_i
preload_app!

before_fork { ActiveRecord::Base.connection_pool.disconnect! if defined?(ActiveRecord) }
on_worker_boot { ActiveRecord::Base.establish_connection if defined?(ActiveRecord) }

plugin :tmp_restart
