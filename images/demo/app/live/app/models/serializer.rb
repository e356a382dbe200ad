# frozen_string_literal: true

# The JSON that clients get: the original's field names, as far as there is something to say.
module Serializer
  module_function

  def account(account)
    {
      id: account.id.to_s, username: account.username, acct: account.username, display_name: account.display_name, locked: account.locked,
      created_at: account.created_at, note: account.note, url: account.url, statuses_count: account.statuses.count
    }
  end

  def status(status)
    {
      id: status.id.to_s, created_at: status.created_at, visibility: status.visibility, uri: status.url, url: status.url,
      content: "<p>#{ERB::Util.html_escape(status.text)}</p>", account: account(status.account),
      media_attachments: status.media_attachments.map { |attachment| media(attachment) }
    }
  end

  def media(media)
    { id: media.id.to_s, type: 'image', url: media.url, preview_url: media.url(:small), remote_url: nil, text_url: nil }
  end

  def instance
    config = Rails.configuration.x
    {
      uri: config.local_domain, title: Setting['site_title'], description: Setting['site_description'], email: Setting['site_contact_email'],
      version: Mastodon::Version.to_s, urls: { streaming_api: config.streaming_url }, languages: [config.default_locale],
      stats: { user_count: User.where.not(confirmed_at: nil).count, status_count: Status.count, domain_count: Account.distinct.count(:domain) }
    }
  end
end
