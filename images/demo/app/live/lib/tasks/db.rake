# frozen_string_literal: true

namespace :db do
  namespace :migrate do
    desc 'Set the database up, or migrate it if it is there'
    task setup: :environment do
      fresh = begin
        ActiveRecord::Base.connection.migration_context.current_version.zero?
      rescue ActiveRecord::NoDatabaseError
        true
      end

      Rake::Task[fresh ? 'db:setup' : 'db:migrate'].invoke
    end
  end
end
