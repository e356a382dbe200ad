# frozen_string_literal: true

class IndexPublicTimeline < ActiveRecord::Migration[6.1]
  def change
    add_index :statuses, [:visibility, :id]
  end
end
