//! The part of a machine that the steps about the database look at, in a folder.

use std::fs;
use std::sync::LazyLock;

use firstboot::context::Context;
use firstboot::engine::{Observation, Step, converge};
use firstboot::facts::{
    ApplicationFacts, FirewallBackend, ImageFacts, NetworkBackend, NginxFacts, PostgresqlFacts, RedisFacts,
    SystemFacts,
};
use firstboot::settings::Settings;
use firstboot::steps::{database, environment, postgresql, secrets};
use regex::Regex;

use crate::cluster::{Cluster, PASSWORD, bundle, open_folder};
use crate::rails;

/// User and group of the application: `nobody`, which every system has.
const APPLICATION: u32 = 65534;

static PROGRAMS: LazyLock<(tempfile::TempDir, String)> = LazyLock::new(|| {
    let folder = open_folder();
    let bundle = bundle(folder.path());
    (folder, bundle)
});

/// The server's words, which differ from version to version.
static WORDS: LazyLock<Regex> = LazyLock::new(|| Regex::new("it says `[^`]*`").unwrap());

/// A machine whose configuration names a server.
pub struct Machine {
    folder: tempfile::TempDir,
    context: Context,
    port: u16,
}

impl Machine {
    /// One that was never booted.
    pub fn new(cluster: &Cluster) -> Machine {
        let folder = open_folder();
        let root = folder.path();
        for path in ["etc", "var/lib/appliance", "home/live"] {
            fs::create_dir_all(root.join(path)).unwrap();
        }
        fs::write(root.join("etc/passwd"), format!("nobody:x:{APPLICATION}:{APPLICATION}::/:/bin/sh\n"))
            .unwrap();
        fs::write(root.join("var/lib/appliance/instance-id"), "this-machine\n").unwrap();
        let mut machine = Machine {
            context: Context { root: root.to_owned(), facts: facts(), settings: None },
            folder,
            port: cluster.port,
        };
        machine.configure("127.0.0.1", "");
        machine
    }

    /// Another configuration: the host, and further lines of the table.
    pub fn configure(&mut self, host: &str, lines: &str) {
        let text = format!(
            "schema = 1\ndomain = \"v6don.example.net\"\n[database]\nhost = \"{host}\"\nport = {}\npassword = \"{PASSWORD}\"\n{lines}\n",
            self.port
        );
        self.context.settings = Some(Settings::parse("test", &text).unwrap());
    }

    /// Puts a file into the application's folder.
    pub fn put(&self, name: &str) {
        let path = self.folder.path().join("home/live").join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, "").unwrap();
    }

    pub fn remove(&self, name: &str) {
        fs::remove_file(self.folder.path().join("home/live").join(name)).unwrap();
    }

    /// A file of the appliance's own state.
    pub fn state(&self, name: &str) -> std::path::PathBuf {
        self.context.state().join(name)
    }

    /// One pass: the step that is not done, and what it says, with the server's words and port masked.
    pub fn pass(&self) -> (&'static str, String) {
        let steps: [&Step; 4] = [&secrets::STEP, &postgresql::STEP, &environment::STEP, &database::STEP];
        for step in steps {
            let observation = converge(step, &self.context, |_| true).observation;
            let (kind, text) = match &observation {
                Observation::Done => continue,
                Observation::Waiting(text) => ("waiting", text),
                Observation::Broken(text) => ("broken", text),
                Observation::Todo(text) => ("todo", text),
            };
            assert!(!text.contains(PASSWORD), "{text}");
            let text = WORDS.replace(text, "it says …").replace(&self.port.to_string(), "PORT");
            return (
                step.name,
                format!("{kind}: {}", text.replace(&self.folder.path().display().to_string(), "")),
            );
        }
        ("", "done".to_owned())
    }

    /// Asserts what the pass says.
    #[track_caller]
    pub fn says(&self, step: &str, text: &str) {
        let (found, said) = self.pass();
        assert_eq!((found, said.as_str()), (step, text));
    }

    /// Asserts that all is done.
    #[track_caller]
    pub fn is_done(&self) {
        assert_eq!(self.pass(), ("", "done".to_owned()));
    }
}

fn facts() -> ImageFacts {
    let text = |text: &str| text.to_owned();
    ImageFacts {
        schema: 1,
        image: text("database"),
        title: text("Tests of the database"),
        epoch: 1_700_000_000,
        tag: text("v1.6.1"),
        postgresql: PostgresqlFacts {
            unit: text("no-such-unit-of-the-tests.service"),
            bin: rails::postgresql().unwrap().0,
            data: text("/var/lib/postgresql/main"),
            state: text("/var/lib/postgresql"),
            hba: text("/etc/postgresql/pg_hba.conf"),
            conf: text("/etc/postgresql/appliance.conf"),
            socket: text("/var/run/postgresql"),
        },
        redis: RedisFacts {
            unit: text("redis-server.service"),
            conf: text("/etc/redis/redis.conf"),
            state: text("/var/lib/redis"),
        },
        nginx: NginxFacts { unit: text("nginx.service"), site: text("/etc/nginx/conf.d/mstdn.conf") },
        application: ApplicationFacts {
            root: text("/home/live"),
            user: text("nobody"),
            bundle: PROGRAMS.1.clone(),
            node: text("/usr/bin/node"),
            schema_version: text(rails::VERSION),
            local_https: true,
            paperclip_secret: true,
        },
        system: SystemFacts {
            ssh_unit: text("ssh.service"),
            network: NetworkBackend::Keyfile,
            firewall: FirewallBackend::Nftables,
        },
    }
}
