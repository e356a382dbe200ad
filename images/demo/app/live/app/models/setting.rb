# frozen_string_literal: true

# Site settings, a YAML text each, in the table and with the names of the original.
class Setting < ApplicationRecord
  DEFAULTS = { 'site_title' => 'Mastodon stand-in', 'site_description' => '', 'site_contact_email' => '', 'open_registrations' => true }.freeze

  def self.[](name)
    row = find_by(var: name, thing_type: nil)
    row ? YAML.safe_load(row.value) : DEFAULTS.fetch(name)
  end

  def self.[]=(name, value)
    DEFAULTS.fetch(name)
    find_or_initialize_by(var: name, thing_type: nil).update!(value: value.to_yaml)
  end

  def self.registrations_open?
    self['open_registrations'] && !Rails.configuration.x.single_user_mode
  end
end
