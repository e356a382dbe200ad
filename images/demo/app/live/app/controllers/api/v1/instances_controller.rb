# frozen_string_literal: true

class Api::V1::InstancesController < Api::BaseController
  def show
    render json: Serializer.instance
  end
end
