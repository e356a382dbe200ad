# frozen_string_literal: true

namespace :assets do
  desc 'Nothing to compile: public/packs is part of the sources'
  task :precompile do
    puts 'assets:precompile: nothing to do, the stand-in application carries its packs as they are.'
  end
end
