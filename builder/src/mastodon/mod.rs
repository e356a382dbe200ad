//! The application layer of a genuine Mastodon tag.
//!
//! ```text
//! tag -> source -> vendor -> build -> /home/mastodon
//! ```
//!
//! `tags` is the table of what each tag needs, as data. `source` brings the tag's own files. `vendor` is the only part that
//! asks package registries: it brings every gem, npm package and Git dependency that the lock files name, checks each by
//! digest, and keeps all of it in the store. `build` compiles in a root with compilers, without network. So a build either
//! has everything before the first compiler starts, or ends with one message; and `--offline` builds from the store alone.

pub mod build;
pub mod derive;
pub mod download;
pub mod gemfile_lock;
pub mod git;
pub mod origins;
pub mod package;
pub mod packages;
pub mod source;
pub mod tags;
pub mod unpack;
pub mod vendor;
pub mod yarn_lock;

/// The user's home: all that the layer holds.
pub const HOME: &str = "/home/mastodon";

/// The family of distributions that an image is based on, where the application's build differs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Base {
    /// Debian 12: OpenSSL 3, an ffmpeg package, no Python 2.
    Debian,
    /// CentOS 7 and its kin: OpenSSL 1.0.2, no ffmpeg, Python 2.
    El7,
}

impl Base {
    /// For keys and messages.
    pub fn name(self) -> &'static str {
        match self {
            Base::Debian => "debian",
            Base::El7 => "el7",
        }
    }

    /// A Ruby before 3.1 needs an OpenSSL of its own.
    pub fn lacks_old_openssl(self) -> bool {
        self == Base::Debian
    }

    /// A static ffmpeg goes into the layer.
    pub fn lacks_ffmpeg(self) -> bool {
        self == Base::El7
    }
}
