# frozen_string_literal: true

module ApplicationHelper
  # Raises without public/packs/manifest.json, as the original does before `assets:precompile`.
  def pack_path(name)
    @packs ||= JSON.parse(Rails.public_path.join('packs', 'manifest.json').read)
    @packs.fetch(name)
  end
end
