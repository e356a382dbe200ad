//! The tree of a blank machine: what an image of Debian has, as far as the steps look at it.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::Path;

use anyhow::{Context as _, Result};
use firstboot::facts::{
    ApplicationFacts, FirewallBackend, ImageFacts, NetworkBackend, NginxFacts, PostgresqlFacts, RedisFacts,
    SystemFacts,
};

use crate::world;

/// The instance's name.
pub const DOMAIN: &str = "v6don.example.net";

/// Users: name, number of user and group, home.
const USERS: [(&str, u32, &str); 6] = [
    ("root", 0, "/root"),
    ("www-data", 33, "/var/www"),
    ("postgres", 101, "/var/lib/postgresql"),
    ("redis", 102, "/var/lib/redis"),
    ("mastodon", 1000, "/home/mastodon"),
    ("nobody", 65534, "/nonexistent"),
];

/// What a channel gives.
const CONFIG: &str = "\
schema = 1
domain = \"v6don.example.net\"

[ssh]
authorized-keys = [\"ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIHtX4Ql5QZbZr0cF3vE2uGzS1b0wq1mWQp2ZsVw3lTqA alice@example.net\"]

[owner]
username = \"alice\"
email = \"alice@example.net\"

[mail]
relay = \"{relay}\"
from = \"words@example.net\"

[acme]
email = \"admin@example.net\"
directory = \"{directory}\"
ca = '''
{ca}'''
";

const NGINX: &str = "\
user www-data;
worker_processes 1;
pid /run/nginx.pid;
error_log /run/units/nginx-error.log;
events {}
http {
    access_log off;
    include /etc/nginx/mime.types;
    include /etc/nginx/conf.d/*.conf;
}
";

/// What the image says about itself.
pub fn facts() -> Result<ImageFacts> {
    let (bin, version) = crate::rails::postgresql()?;
    let text = |text: &str| text.to_owned();
    Ok(ImageFacts {
        schema: 1,
        image: text("crash"),
        title: text("Crash matrix"),
        epoch: 1_700_000_000,
        tag: text("v1.6.1"),
        postgresql: PostgresqlFacts {
            unit: text("postgresql.service"),
            bin,
            data: format!("/var/lib/postgresql/{version}/main"),
            state: text("/var/lib/postgresql"),
            hba: format!("/etc/postgresql/{version}/main/pg_hba.conf"),
            conf: format!("/etc/postgresql/{version}/main/conf.d/appliance.conf"),
            socket: text("/var/run/postgresql"),
        },
        redis: RedisFacts {
            unit: text("redis-server.service"),
            conf: text("/etc/redis/redis.conf"),
            state: text("/var/lib/redis"),
        },
        nginx: NginxFacts { unit: text("nginx.service"), site: text("/etc/nginx/conf.d/mstdn.conf") },
        application: ApplicationFacts {
            root: text("/home/mastodon/live"),
            user: text("mastodon"),
            bundle: text("/home/mastodon/.rbenv/shims/bundle"),
            node: text("/usr/bin/node"),
            schema_version: text("20170913000752"),
            local_https: true,
            paperclip_secret: true,
        },
        system: SystemFacts {
            ssh_unit: text("ssh.service"),
            network: NetworkBackend::Keyfile,
            firewall: FirewallBackend::Nftables,
        },
    })
}

/// The operator of a machine that runs wants one more address.
pub fn change_network(root: &Path) -> Result<()> {
    let path = root.join("etc/appliance/config.toml");
    let text = fs::read_to_string(&path)?;
    Ok(fs::write(path, format!("{text}\n[network.ipv6]\naddresses = [\"{}\"]\n", world::SECOND))?)
}

/// Where a data disk keeps itself while no machine runs: the device's bytes, and the files of its file system.
pub const DISK: &str = "disk";

/// Attaches a blank data disk. A tree has no kernel that could mount its file system, so the files lie beside it; see `mount` among
/// the stand-ins.
pub fn attach_disk(root: &Path) -> Result<()> {
    const BYTES: u64 = 1 << 30;
    fs::create_dir_all(root.join(DISK).join("files"))?;
    fs::File::create(root.join(DISK).join("device"))?.set_len(BYTES)?;
    let about = root.join("sys/block/vdb");
    fs::create_dir_all(about.join("device"))?;
    for (name, value) in [("removable", 0), ("ro", 0), ("size", BYTES / 512)] {
        fs::write(about.join(name), format!("{value}\n"))?;
    }
    Ok(())
}

/// Makes the tree of a machine that trusts this authority (PEM).
pub fn make(root: &Path, ca: &str) -> Result<()> {
    let facts = facts()?;
    let postgresql = Path::new(&facts.postgresql.hba).parent().context("no folder")?.to_owned();
    let below = |path: &str| root.join(path.trim_start_matches('/'));
    for folder in [
        "dev",
        "proc",
        "run",
        "tmp",
        "usr",
        "sys/block",
        "sys/class/dmi/id",
        "sys/firmware/qemu_fw_cfg/by_name/opt/org.mastodon/config",
        "etc/ssh",
        "etc/appliance/tls",
        "etc/redis",
        "etc/nginx/conf.d",
        "etc/systemd/system/multi-user.target.wants",
        "root",
        "srv",
        "var/log",
        "var/lib/postgresql",
        "var/lib/redis",
        "var/lib/nginx",
        "home/mastodon/live/public",
        "home/mastodon/.rbenv/shims",
    ] {
        fs::create_dir_all(root.join(folder))?;
    }
    fs::create_dir_all(below(&format!("{}/conf.d", postgresql.display())))?;
    fs::set_permissions(root.join("root"), fs::Permissions::from_mode(0o700))?;
    for link in ["bin", "sbin", "lib", "lib64"] {
        symlink(format!("usr/{link}"), root.join(link))?;
    }
    symlink("/run", root.join("var/run"))?;
    symlink("/usr/local/sbin/bundle", root.join("home/mastodon/.rbenv/shims/bundle"))?;
    for unit in ["ssh.service", "nftables.service"] {
        let link = root.join("etc/systemd/system/multi-user.target.wants").join(unit);
        symlink(format!("/lib/systemd/system/{unit}"), link)?;
    }
    // Its rules name the application's user by another number than this tree, so first boot has something to add.
    fs::write(
        root.join("etc/nftables.conf"),
        include_str!("../../../overlays/debian/root/etc/nftables.conf"),
    )?;
    fs::write(root.join("sys/class/dmi/id/product_uuid"), "4c4c4544-0042-3510-8054-b4c04f4a3232\n")?;
    // Left open, for the step that looks at modes.
    fs::write(root.join("etc/appliance/tls/privkey.pem"), "a key of the operator's\n")?;

    let line = |(name, id, home): &(&str, u32, &str)| format!("{name}:x:{id}:{id}::{home}:/bin/sh\n");
    fs::write(root.join("etc/passwd"), USERS.iter().map(line).collect::<String>())?;
    let groups = USERS.map(|(name, id, _)| format!("{name}:x:{id}:\n")).concat();
    // nginx, without a word about it in the file that it is to check.
    fs::write(root.join("etc/group"), groups.replace("nobody:", "nogroup:"))?;
    // What `runuser` asks.
    fs::create_dir(root.join("etc/pam.d"))?;
    let pam =
        "auth sufficient pam_rootok.so\naccount sufficient pam_permit.so\nsession required pam_permit.so\n";
    fs::write(root.join("etc/pam.d/runuser"), pam)?;
    fs::write(root.join("etc/machine-id"), "uninitialized\n")?;
    fs::write(root.join("etc/hosts"), "127.0.0.1 localhost\n192.0.2.7 printer\n")?;
    fs::write(root.join("etc/hostname"), "localhost\n")?;
    fs::write(
        root.join("etc/redis/redis.conf"),
        "bind 127.0.0.1 -::1\nport 6379\ndir /var/lib/redis\nsave \"\"\n",
    )?;
    fs::write(root.join("etc/nginx/nginx.conf"), NGINX)?;
    fs::write(root.join("etc/nginx/mime.types"), "types { text/html html; }\n")?;
    let config = "sys/firmware/qemu_fw_cfg/by_name/opt/org.mastodon/config/raw";
    let text = [("{directory}", world::DIRECTORY), ("{ca}", ca), ("{relay}", world::RELAY)]
        .iter()
        .fold(CONFIG.to_owned(), |text, (name, value)| text.replace(name, value));
    fs::write(root.join(config), text)?;
    let adapter = root.join("sys/class/net").join(world::INTERFACE);
    fs::create_dir_all(adapter.join("device"))?;
    for (file, text) in [("type", "1"), ("ifindex", "2"), ("address", "52:54:00:12:34:56"), ("carrier", "1")]
    {
        fs::write(adapter.join(file), text)?;
    }
    fs::write(root.join("etc/resolv.conf"), "nameserver 127.0.0.1\n")?;
    let conf = format!(
        "data_directory = '{}'\nhba_file = '{}'\nident_file = '{}/pg_ident.conf'\nlisten_addresses = ''\n\
        unix_socket_directories = '/var/run/postgresql'\ninclude_dir = 'conf.d'\n",
        facts.postgresql.data,
        facts.postgresql.hba,
        postgresql.display()
    );
    fs::write(below(&format!("{}/postgresql.conf", postgresql.display())), conf)?;
    fs::write(below(&format!("{}/pg_ident.conf", postgresql.display())), "")?;
    for (path, user) in [
        ("var/lib/postgresql", 101),
        ("var/lib/redis", 102),
        ("home/mastodon", 1000),
        ("home/mastodon/live", 1000),
        ("home/mastodon/live/public", 1000),
    ] {
        chown(root.join(path), Some(user), Some(user))?;
    }
    chown(root.join("etc/redis/redis.conf"), Some(102), Some(102))?;
    fs::set_permissions(root.join("etc/redis/redis.conf"), fs::Permissions::from_mode(0o640))?;
    Ok(())
}
