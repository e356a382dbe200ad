# frozen_string_literal: true

# Names, variables, questions and answers are those of v1.6.1: tools read them.
namespace :mastodon do
  desc 'Turn a user into an admin, identified by the USERNAME environment variable'
  task make_admin: :environment do
    username = ENV.fetch('USERNAME')
    user     = User.joins(:account).find_by(accounts: { username: username, domain: nil })

    if user
      user.update!(admin: true)
      puts "Congrats! #{username} is now an admin. \\o/\nNavigate to #{Rails.configuration.x.base_url}/admin/settings/edit to get started"
    else
      puts "User could not be found; please make sure an Account with the `#{username}` username exists."
    end
  end

  desc 'Manually confirm the user whose e-mail address is in the USER_EMAIL environment variable'
  task confirm_email: :environment do
    email = ENV.fetch('USER_EMAIL')
    user  = User.find_by(email: email)
    abort "#{email} not found" unless user

    user.confirm!
    puts "#{email} confirmed"
  end

  desc 'Add a user: e-mail address, username and a yes on standard input'
  task add_user: :environment do
    ask = lambda do |question|
      print question
      $stdin.gets.to_s.chomp
    end

    email    = ask.call('Enter email: ')
    username = ask.call('Enter username: ')
    answer   = ask.call('Create user and send them confirmation mail [y/N]: ')
    puts

    if answer.casecmp?('y')
      password = SecureRandom.hex
      user     = User.new(email: email, password: password, account_attributes: { username: username })

      if user.save
        puts 'User added and confirmation mail sent to user\'s email address.'
        puts "Here is the random password generated for the user: #{password}"
      else
        puts 'Following errors occured while creating new user:'
        user.errors.each { |error| puts "#{error.attribute}: #{error.message}" }
      end
    else
      puts 'Aborted by user.'
    end
    puts
  end

  namespace :users do
    desc 'List the e-mail addresses of all admins'
    task admins: :environment do
      puts 'Admin user emails:'
      puts User.where(admin: true).order(:id).pluck(:email)
    end
  end

  namespace :settings do
    desc 'Open registrations on this instance'
    task open_registrations: :environment do
      Setting['open_registrations'] = true
    end

    desc 'Close registrations on this instance'
    task close_registrations: :environment do
      Setting['open_registrations'] = false
    end
  end

  namespace :webpush do
    desc 'Generate a VAPID key pair (P-256, URL-safe Base64)'
    task :generate_vapid_key do
      require 'base64'
      require 'openssl'

      key = OpenSSL::PKey::EC.generate('prime256v1')
      puts "VAPID_PRIVATE_KEY=#{Base64.urlsafe_encode64(key.private_key.to_s(2).rjust(32, "\0"))}"
      puts "VAPID_PUBLIC_KEY=#{Base64.urlsafe_encode64(key.public_key.to_bn.to_s(2))}"
    end
  end
end
