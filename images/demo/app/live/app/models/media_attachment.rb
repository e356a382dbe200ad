# frozen_string_literal: true

require 'open3'

# A picture and its thumbnail, stored where the original stores them: the front web server serves that folder itself.
class MediaAttachment < ApplicationRecord
  ROOT = Rails.root.join('public', 'system')

  # By the first bytes: what a client says about its file is not evidence.
  KINDS = { "\x89PNG\r\n\x1A\n".b => %w(png image/png), "\xFF\xD8\xFF".b => %w(jpg image/jpeg), 'GIF8'.b => %w(gif image/gif) }.freeze

  class Invalid < StandardError; end

  belongs_to :account, inverse_of: :media_attachments
  belongs_to :status, inverse_of: :media_attachments, optional: true

  scope :unattached, -> { where(status_id: nil) }

  def self.store!(account, upload)
    head = File.binread(upload.path, 8).to_s.b
    extension, type = KINDS.find { |magic, _| head.start_with?(magic) }&.last
    raise Invalid, 'Validation failed: File content type is invalid' unless extension

    transaction do
      create!(account: account, file_file_name: "#{SecureRandom.hex(8)}.#{extension}", file_content_type: type, file_file_size: upload.size)
        .tap { |media| media.write_files(upload.path, extension) }
    end
  end

  def write_files(source, extension)
    %i(original small).each { |style| path(style).dirname.mkpath }
    FileUtils.install(source, path(:original), mode: 0o644)
    output, status = Open3.capture2e('convert', "#{extension}:#{source}[0]", '-auto-orient', '-thumbnail', '400x400>', "#{extension}:#{path(:small)}")
    return if status.success?

    logger.error("convert: #{output}")
    path(:original).dirname.parent.rmtree
    raise Invalid, 'Validation failed: File is not a picture that can be read'
  end

  def path(style)
    ROOT.join(relative(style))
  end

  def url(style = :original)
    "#{Rails.configuration.x.base_url}/system/#{relative(style)}"
  end

  private

  def relative(style)
    "media_attachments/files/#{format('%09d', id).scan(/\d{3}/).join('/')}/#{style}/#{file_file_name}"
  end
end
