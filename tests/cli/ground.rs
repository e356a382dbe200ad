//! A project whose packages come from the tiny stand-in repository: everything up to a verified package, in a second and without network.
//!
//! The repository is made once for all tests that run at the same time; each has a copy to spoil.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use assert_cmd::Command;
use fs_err as fs;
use tempfile::TempDir;
use testkit::sandbox::Sandbox;
use testkit::standin::Repository;

use crate::{imgbuild, project, transcript};

/// The name of the project's one recipe.
pub(crate) const IMAGE: &str = "centos7-stand-in";
/// Of its packages, the two that come in two builds, and what needs everything essential.
const BOOTSTRAP: &str = r#"["yum", "bash"]"#;
const PACKAGES: &str = r#"["stand-in-core", "centos7-stand-in-release", "stand-in-data", "kernel", "yum"]"#;

/// Not in a static for good: its folder and its key are to be gone when the last test that uses them ends.
static SHARED: Mutex<Weak<Shared>> = Mutex::new(Weak::new());

struct Shared {
    repository: Repository,
    _folder: TempDir,
}

fn shared() -> Arc<Shared> {
    let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
    shared.upgrade().unwrap_or_else(|| {
        let folder = tempfile::tempdir().unwrap();
        let repository = Repository::tiny(&folder.path().join("repository")).unwrap();
        let made = Arc::new(Shared { repository, _folder: folder });
        *shared = Arc::downgrade(&made);
        made
    })
}

/// A sandbox with a project in `home` and a repository in `home/mirror`.
pub(crate) struct Ground {
    pub(crate) sandbox: Sandbox,
    pub(crate) repository: Repository,
    _shared: Arc<Shared>,
    _filters: insta::internals::SettingsBindDropGuard,
}

impl Ground {
    /// The stand-in's recipe with few packages.
    pub(crate) fn new() -> Ground {
        let shared = shared();
        let sandbox = Sandbox::new().unwrap();
        let repository = shared.repository.copy(&sandbox.home().join("mirror")).unwrap();
        let ground = Ground { sandbox, repository, _shared: shared, _filters: filters() };
        let from = project().join("images").join(IMAGE);
        let recipe = fs::read_to_string(from.join("image.toml")).unwrap();
        let recipe =
            replace_list(&replace_list(&recipe, "\nstand-in = ", PACKAGES), "\nbootstrap = ", BOOTSTRAP);
        ground.sandbox.write(&format!("images/{IMAGE}/image.toml"), &recipe).unwrap();
        let link = |from: PathBuf, to: &str| {
            std::os::unix::fs::symlink(from, ground.sandbox.home().join(to)).unwrap();
        };
        link(from.join("app"), &format!("images/{IMAGE}/app"));
        link(project().join("images/mastodon"), "images/mastodon");
        link(project().join("overlays"), "overlays");
        ground
    }

    /// A file of the project.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.sandbox.home().join(name)
    }

    /// The folder of the recipe.
    pub(crate) fn image(&self) -> PathBuf {
        self.path("images").join(IMAGE)
    }

    /// Changes the recipe.
    pub(crate) fn edit(&self, from: &str, to: &str) {
        edit(&self.image().join("image.toml"), from, to);
    }

    /// `imgbuild VERB`, quiet, with the image and its repository.
    pub(crate) fn command(&self, verb: &[&str]) -> Command {
        let mut command = self.without_key(verb);
        command.arg("--key").arg(format!("stand-in={}", self.repository.key.display()));
        command
    }

    /// The same for a user who does not know the repository's key.
    pub(crate) fn without_key(&self, verb: &[&str]) -> Command {
        let mut command = self.bare(verb);
        command.arg("--mirror").arg(format!("stand-in=file://{}", self.repository.folder.display()));
        command
    }

    /// The same for a user who knows nothing but the image's name.
    pub(crate) fn bare(&self, verb: &[&str]) -> Command {
        let mut command = imgbuild(&self.sandbox);
        command.current_dir(self.sandbox.home()).args(verb).args(["--quiet", "--image", IMAGE]);
        command
    }

    /// What a command says.
    pub(crate) fn text(&self, command: &mut Command) -> String {
        transcript(&self.sandbox, command)
    }

    /// What `VERB` says, which must end well.
    pub(crate) fn done(&self, verb: &[&str]) -> String {
        let text = self.text(&mut self.command(verb));
        assert!(text.starts_with("exit code 0\n"), "{text}");
        text
    }

    /// The store may have what was fetched, each file the one that its name says, and what the mirrors said last; nothing else.
    pub(crate) fn assert_only_fetched(&self) {
        let store = self.sandbox.store();
        for path in self.sandbox.leftovers().unwrap().iter().filter(|path| path.is_file()) {
            let below = path.strip_prefix(&store).ok().and_then(Path::to_str).unwrap_or_default();
            let allowed = match below.split_once('/') {
                Some(("logs", _)) => true,
                Some(("locks", name)) => name == format!("{IMAGE}.json"),
                Some(("files-v1", name)) => imgbuild::digest::file(path).unwrap() == name,
                _ => false,
            };
            assert!(allowed, "left behind: {}", path.display());
        }
    }
}

/// Replaces a text in a file, which must be there.
pub(crate) fn edit(file: &Path, from: &str, to: &str) {
    let text = fs::read_to_string(file).unwrap();
    assert!(text.contains(from), "`{}` has no `{from}`", file.display());
    fs::write(file, text.replacen(from, to, 1)).unwrap();
}

fn replace_list(recipe: &str, key: &str, list: &str) -> String {
    let start = recipe.find(key).expect("the recipe has the list") + key.len();
    let end = start + recipe[start..].find(']').expect("the list ends") + 1;
    format!("{}{list}{}", &recipe[..start], &recipe[end..])
}

/// What differs from one repository to the next.
fn filters() -> insta::internals::SettingsBindDropGuard {
    let mut settings = insta::Settings::clone_current();
    for (pattern, word) in [
        (r"\b[0-9a-f]{64}\b", "[SHA-256]"),
        (r"\b[0-9A-F]{40}\b", "[FINGERPRINT]"),
        (r"\b[0-9A-F]{16}\b", "[KEY ID]"),
        (r"\b\d+ of \d+ bytes\b", "[SIZE] of [SIZE]"),
        (r"\b\d+ bytes\b", "[SIZE]"),
        (r"\b\d+(\.\d+)? [kMG]B\b", "[SIZE]"),
    ] {
        settings.add_filter(pattern, word);
    }
    settings.bind_to_scope()
}
