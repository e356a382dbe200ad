//! Each fault: what is said while it lasts, and that all is done when its cause has gone.

use crate::cluster::{Cluster, HBA};
use crate::machine::Machine;
use crate::rails::VERSION;

/// A test and its name.
type Test = (&'static str, fn());

pub const ALL: &[Test] = &[
    ("a_server_that_is_down_is_waited_for", down),
    ("a_wrong_password_and_a_role_without_login_are_named", password),
    ("what_the_server_does_not_let_in_is_named", refused),
    ("encryption_that_is_wanted_and_not_spoken_is_named", encryption),
    ("a_certificate_counts_when_it_must", certificate),
    ("an_empty_database_is_filled_although_loads_are_cut", given),
    ("a_database_is_made_by_a_role_that_may", made),
    ("a_role_that_may_make_no_tables_is_named", tables),
    ("two_machines_do_not_fill_one_database", two),
    ("data_that_is_gone_is_not_begun_anew", gone),
    ("tables_of_others_stay", foreign),
    ("users_of_others_are_taken_over_with_agreement_only", adopted),
    ("older_data_is_migrated_with_a_dump_before", older),
    ("newer_data_is_refused", newer),
    ("seeds_that_are_missing_are_made", seeds),
    ("scram_is_named_when_the_streaming_service_does_not_know_it", scram),
];

/// A server with an empty database that belongs to the role, and a machine.
fn scene() -> (Cluster, Machine) {
    let cluster = Cluster::start();
    cluster.sql("postgres", "CREATE DATABASE mastodon OWNER mastodon;");
    let machine = Machine::new(&cluster);
    (cluster, machine)
}

/// A scene in which all is done.
fn served() -> (Cluster, Machine) {
    let (cluster, machine) = scene();
    machine.is_done();
    (cluster, machine)
}

const SUPERAPPS: &str = "SELECT count(*) FROM oauth_applications WHERE superapp;";
const USER: &str = "INSERT INTO accounts (username) VALUES ('alice'); INSERT INTO users (email, account_id) VALUES ('a@example.net', 1);";

fn down() {
    let (mut cluster, machine) = scene();
    let sentence = "waiting: the database server `127.0.0.1:PORT` does not let role `mastodon` in: it says …; nobody listens there: start the server, let it listen on that address (`listen_addresses`), or correct `database.host` and `database.port`";
    cluster.down();
    machine.says("postgresql", sentence);
    cluster.up();
    machine.is_done();
    assert_eq!(cluster.sql("mastodon", SUPERAPPS), "1");
    assert_eq!(
        cluster.sql("mastodon", "SELECT * FROM appliance_instance;"),
        "v6don.example.net|this-machine|t"
    );
    cluster.down();
    machine.says("postgresql", sentence);
    cluster.up();
    machine.is_done();
    assert_eq!(cluster.sql("mastodon", SUPERAPPS), "1");
}

fn password() {
    let (cluster, machine) = scene();
    let hidden = cluster.sql("postgres", "SELECT rolpassword FROM pg_authid WHERE rolname = 'mastodon';");
    cluster.sql("postgres", "ALTER ROLE mastodon PASSWORD 'other';");
    machine.says(
        "postgresql",
        "waiting: the database server `127.0.0.1:PORT` does not let role `mastodon` in: it says …; correct `database.user` and `database.password`, or give the role this password there (`ALTER ROLE \"mastodon\" PASSWORD …`)",
    );
    cluster.sql("postgres", &format!("ALTER ROLE mastodon NOLOGIN PASSWORD '{hidden}';"));
    machine.says(
        "postgresql",
        "waiting: the database server `127.0.0.1:PORT` does not let role `mastodon` in: it says …; let it there (`ALTER ROLE \"mastodon\" LOGIN`)",
    );
    cluster.sql("postgres", "ALTER ROLE mastodon LOGIN;");
    machine.is_done();
}

fn refused() {
    let (cluster, machine) = scene();
    cluster.allow("host all all 127.0.0.1/32 reject\n");
    machine.says(
        "postgresql",
        "waiting: the database server `127.0.0.1:PORT` does not let role `mastodon` in: it says …; it may take encrypted connections only: write `database.sslmode = \"require\"`, or add a line to `pg_hba.conf` there",
    );
    // Into its own database alone.
    cluster.allow("host mastodon mastodon 127.0.0.1/32 md5\n");
    machine.is_done();
}

fn encryption() {
    let (cluster, mut machine) = scene();
    machine.configure("127.0.0.1", "sslmode = \"require\"");
    machine.says(
        "postgresql",
        "waiting: the database server `127.0.0.1:PORT` does not let role `mastodon` in: it says …; it has no encryption: switch `ssl` on there, or write `database.sslmode = \"disable\"`",
    );
    cluster.encrypt();
    machine.is_done();
    cluster.allow("hostssl all all 127.0.0.1/32 md5\n");
    machine.is_done();
    machine.configure("127.0.0.1", "");
    machine.says(
        "postgresql",
        "waiting: the streaming service cannot reach the database, because it uses no encryption with `prefer`: the database server `127.0.0.1:PORT` does not let role `mastodon` in: it says …; it may take encrypted connections only: write `database.sslmode = \"require\"`, or add a line to `pg_hba.conf` there",
    );
    machine.configure("127.0.0.1", "sslmode = \"require\"");
    machine.is_done();
}

fn certificate() {
    let (cluster, mut machine) = scene();
    let ca = cluster.encrypt();
    let (other, _) = firstboot::tls::selfsigned::make("localhost", 0, 4_000_000_000).unwrap();
    let lines = |ca: &str| format!("sslmode = \"verify-full\"\nca = \"\"\"\n{ca}\"\"\"");
    machine.configure("localhost", &lines(&other));
    machine.says(
        "postgresql",
        "waiting: the database server `localhost:PORT` does not let role `mastodon` in: it says …; its certificate is not the one that is wanted: correct `database.ca` and `database.host`, or write `database.sslmode = \"require\"`",
    );
    machine.configure("localhost", &lines(&ca));
    machine.is_done();
}

fn given() {
    let (cluster, machine) = scene();
    machine.put("stop-after-tables");
    let (step, said) = machine.pass();
    assert_eq!(step, "database");
    assert!(said.contains("the machine stops in the middle of the schema"), "{said}");
    assert_eq!(cluster.sql("mastodon", "SELECT is_ready FROM appliance_instance;"), "f");
    cluster.sql("mastodon", "CREATE VIEW left_over AS SELECT * FROM users; CREATE TABLE half (id serial);");
    machine.remove("stop-after-tables");
    machine.is_done();
    let tables =
        cluster.sql("mastodon", "SELECT tablename FROM pg_tables WHERE schemaname = 'public' ORDER BY 1;");
    assert_eq!(
        tables.lines().collect::<Vec<_>>(),
        ["accounts", "appliance_instance", "oauth_applications", "schema_migrations", "users"]
    );
    assert_eq!(cluster.sql("mastodon", SUPERAPPS), "1");

    // With a person in it, what was never finished is not taken away.
    cluster.sql("mastodon", USER);
    cluster
        .sql("mastodon", "UPDATE appliance_instance SET is_ready = false; DELETE FROM oauth_applications;");
    machine.says(
        "database",
        "broken: database `mastodon` was never made complete, but has users or accounts: restore a backup, or empty it by hand",
    );
    assert_eq!(cluster.sql("mastodon", "SELECT count(*) FROM users;"), "1");
}

fn made() {
    let cluster = Cluster::start();
    let machine = Machine::new(&cluster);
    machine.says(
        "postgresql",
        "waiting: the database server `127.0.0.1` has no database `mastodon`, and role `mastodon` may not make it: make it there (`CREATE DATABASE \"mastodon\" OWNER \"mastodon\" ENCODING 'UTF8'`), or let the role (`ALTER ROLE \"mastodon\" CREATEDB`)",
    );
    cluster.sql("postgres", "ALTER ROLE mastodon CREATEDB;");
    machine.is_done();
    assert_eq!(cluster.sql("mastodon", SUPERAPPS), "1");
}

fn tables() {
    let cluster = Cluster::start();
    let machine = Machine::new(&cluster);
    cluster.sql("postgres", "CREATE DATABASE mastodon ENCODING 'LATIN1' TEMPLATE template0;");
    machine.says(
        "postgresql",
        "waiting: database `mastodon` at `127.0.0.1` has the encoding LATIN1, and Mastodon needs UTF8: make it anew (`CREATE DATABASE \"mastodon\" OWNER \"mastodon\" ENCODING 'UTF8' TEMPLATE template0`)",
    );
    cluster.sql("postgres", "DROP DATABASE mastodon;");
    cluster.sql("postgres", "CREATE DATABASE mastodon;");
    cluster.sql("mastodon", "REVOKE CREATE ON SCHEMA public FROM public;");
    machine.says(
        "postgresql",
        "waiting: role `mastodon` may not make tables in database `mastodon` at `127.0.0.1`: let it there (`ALTER DATABASE \"mastodon\" OWNER TO \"mastodon\"`; before PostgreSQL 15 `GRANT CREATE ON SCHEMA public TO \"mastodon\"`)",
    );
    // Not even the database is the role's own.
    cluster.sql("mastodon", "GRANT CREATE ON SCHEMA public TO mastodon;");
    machine.is_done();
}

fn two() {
    let (cluster, mut machine) = scene();
    let mut other = Machine::new(&cluster);
    std::fs::write(other.state("instance-id"), "other-machine\n").unwrap();
    machine.put("stop-after-tables");
    assert_eq!(machine.pass().0, "database");
    other.says(
        "database",
        "waiting: another machine (instance-id `this-machine`) is filling database `mastodon`; if that one is gone for good: `UPDATE appliance_instance SET machine = 'other-machine'` there, and this one begins anew",
    );
    cluster.sql("mastodon", "UPDATE appliance_instance SET machine = 'other-machine'");
    other.is_done();
    assert_eq!(cluster.sql("mastodon", SUPERAPPS), "1");

    // The first one has secrets of its own.
    let sentence = "broken: database `mastodon` belongs to another machine (instance-id `NAME`), whose secrets are not this one's: stop that one for good, bring its `/var/lib/appliance/secrets` here, then write `database.adopt = true`";
    machine.remove("stop-after-tables");
    machine.says("database", &sentence.replace("NAME", "other-machine"));
    machine.configure("127.0.0.1", "adopt = true");
    machine.is_done();
    machine.configure("127.0.0.1", "");
    machine.is_done();
    other.says("database", &sentence.replace("NAME", "this-machine"));
    other.configure("127.0.0.1", "adopt = true");
    cluster.sql("mastodon", "UPDATE appliance_instance SET domain = 'b.example';");
    other.says(
        "database",
        "broken: database `mastodon` is the one of the instance `b.example`, and this is `v6don.example.net`: correct `database.name`, or `domain` if this machine has no data yet",
    );
}

fn gone() {
    let (cluster, mut machine) = served();
    let sentence = "broken: database `NAME` is not there or empty, but the instance has its data in database `mastodon` at `127.0.0.1`: correct the table `database` of the configuration, or bring the data there (`pg_dump`, `pg_restore`); to begin anew, remove `/var/lib/appliance/database-elsewhere`";
    cluster.sql("postgres", "CREATE DATABASE other OWNER mastodon;");
    // What the services wait for: they stop before another database is theirs, and stay where they were otherwise.
    let ready = machine.state("ready");
    std::fs::write(&ready, "").unwrap();
    machine.configure("127.0.0.1", "sslmode = \"disable\"");
    machine.is_done();
    assert!(ready.exists());
    machine.configure("127.0.0.1", "name = \"other\"");
    machine.says("database", &sentence.replace("NAME", "other"));
    assert!(!ready.exists());
    machine.configure("127.0.0.1", "");
    machine.is_done();
    // What is known only in the database becomes known here.
    std::fs::remove_file(machine.state("database-elsewhere")).unwrap();
    machine.is_done();
    // All that is left is whose it was.
    cluster.sql("mastodon", "DROP TABLE users, accounts, oauth_applications, schema_migrations;");
    machine.says("database", &sentence.replace("NAME", "mastodon"));
    std::fs::remove_file(machine.state("database-elsewhere")).unwrap();
    machine.is_done();
    assert_eq!(cluster.sql("mastodon", SUPERAPPS), "1");
    // As before a backup is played in.
    cluster.sql("mastodon", "DROP SCHEMA public CASCADE; CREATE SCHEMA public AUTHORIZATION mastodon;");
    machine.says("database", &sentence.replace("NAME", "mastodon"));
    std::fs::remove_file(machine.state("database-elsewhere")).unwrap();
    machine.is_done();
    assert_eq!(cluster.sql("mastodon", SUPERAPPS), "1");
}

fn foreign() {
    let (cluster, machine) = scene();
    cluster.sql(
        "mastodon",
        "CREATE SCHEMA shop; CREATE TABLE shop.orders (id int); INSERT INTO shop.orders VALUES (1);",
    );
    let sentence = "broken: database `mastodon` holds another program's tables: rename that database, and the appliance makes its own";
    machine.says("database", sentence);
    cluster.sql("mastodon", "CREATE TABLE users (name text); INSERT INTO users VALUES ('bob');");
    machine.says(
        "database",
        "broken: database `mastodon` has a table `users` that its role may not read: give the role what is there (`REASSIGN OWNED BY … TO …`), or rename that database",
    );
    assert_eq!(cluster.sql("mastodon", "SELECT count(*) FROM shop.orders, users;"), "1");
    cluster.sql("mastodon", "DROP SCHEMA shop CASCADE; DROP TABLE users;");
    machine.is_done();
}

fn adopted() {
    let (cluster, machine) = served();
    cluster.sql("mastodon", USER);
    machine.is_done();
    cluster.sql("mastodon", "DROP TABLE appliance_instance;");
    let mut other = Machine::new(&cluster);
    other.says(
        "database",
        "broken: database `mastodon` has users, and this appliance has not made it: write `database.adopt = true` to go on with it as this instance's, or rename it",
    );
    other.configure("127.0.0.1", "adopt = true");
    other.is_done();
    other.configure("127.0.0.1", "");
    other.is_done();
    assert_eq!(cluster.sql("mastodon", "SELECT count(*) FROM users;"), "1");
}

fn older() {
    let (cluster, machine) = served();
    cluster.sql("mastodon", USER);
    cluster.sql("mastodon", &format!("DELETE FROM schema_migrations WHERE version = '{VERSION}';"));
    machine.put("fail-migration");
    let dump = machine.state("database-before-migration.dump");
    let (step, said) = machine.pass();
    assert_eq!(step, "database");
    assert!(said.contains("a migration fails"), "{said}");
    let kept = std::fs::read(&dump).unwrap();
    assert!(kept.starts_with(b"PGDMP"));
    assert_eq!(machine.pass().0, "database");
    assert_eq!(std::fs::read(&dump).unwrap(), kept, "the dump is the one of before the first try");
    machine.remove("fail-migration");
    machine.is_done();
    assert!(!dump.exists());
    // As after a cut between the two last things that a migration does.
    std::fs::write(&dump, kept).unwrap();
    machine.is_done();
    assert!(!dump.exists());
    assert_eq!(cluster.sql("mastodon", "SELECT count(*) FROM users;"), "1");
}

fn newer() {
    let (cluster, machine) = served();
    cluster.sql("mastodon", "INSERT INTO schema_migrations VALUES ('20990101000000');");
    machine.says(
        "database",
        &format!("broken: database `mastodon` has version 20990101000000, this image knows {VERSION}: the image is older than the data; boot the newer image again"),
    );
    cluster.sql("mastodon", "DELETE FROM schema_migrations WHERE version = '20990101000000';");
    machine.is_done();
}

fn seeds() {
    let (cluster, machine) = served();
    cluster.sql("mastodon", "DELETE FROM oauth_applications;");
    machine.is_done();
    assert_eq!(cluster.sql("mastodon", SUPERAPPS), "1");
}

fn scram() {
    let (cluster, machine) = served();
    let hidden = cluster.sql("postgres", "SELECT rolpassword FROM pg_authid WHERE rolname = 'mastodon';");
    cluster.allow(HBA);
    cluster.sql(
        "postgres",
        &format!(
            "SET password_encryption = 'scram-sha-256'; ALTER ROLE mastodon PASSWORD '{}';",
            crate::cluster::PASSWORD
        ),
    );
    machine.is_done();
    machine.put("node_modules/pg/lib/client.js");
    machine.says(
        "postgresql",
        "waiting: the database server `127.0.0.1` wants role `mastodon`'s password by SCRAM, which this version's streaming service does not know: set `password_encryption = 'md5'` there, give the role its password again, and have `md5` in `pg_hba.conf`",
    );
    machine.put("node_modules/pg/lib/sasl.js");
    machine.is_done();
    machine.remove("node_modules/pg/lib/sasl.js");
    cluster.sql("postgres", &format!("ALTER ROLE mastodon PASSWORD '{hidden}';"));
    machine.is_done();
}
