# frozen_string_literal: true

class Api::V1::TimelinesController < Api::BaseController
  def public
    limit = params.fetch(:limit, 20).to_i.clamp(1, 40)
    render json: Status.public_visibility.newest.limit(limit).map { |status| Serializer.status(status) }
  end
end
