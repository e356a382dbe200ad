# frozen_string_literal: true

# Tells the streaming server about a new status: the author's own stream, and the public ones.
class DistributionWorker
  include Sidekiq::Worker

  def perform(status_id)
    status   = Status.find(status_id)
    message  = { event: :update, payload: Serializer.status(status), queued_at: (Time.now.to_f * 1000).to_i }.to_json
    channels = ["timeline:#{status.account_id}"]
    channels += %w(timeline:public timeline:public:local) if status.public_visibility?

    channels.each { |channel| Mastodon::Redis.publish(channel, message) }
  rescue ActiveRecord::RecordNotFound
    true
  end
end
