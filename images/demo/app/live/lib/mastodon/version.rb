# frozen_string_literal: true

module Mastodon
  # The interface of v1.6.1, and a flag that says that nothing else of it is here.
  module Version
    module_function

    def major
      1
    end

    def minor
      6
    end

    def patch
      1
    end

    def flags
      ' stand-in'
    end

    def to_s
      [[major, minor, patch].join('.'), flags].join
    end
  end
end
