# frozen_string_literal: true

class AboutController < ApplicationController
  def show
    @instance = Serializer.instance
  end
end
