//! `check-env` and `check-tape` against a site where all is well, and with one thing wrong at a time.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use common::broker::Topology;
use common::settings::{Secret, Settings};
use common::stages::STAGES;
use cta_sim::world::{Route, Run};
use cta_sim::{Action, Order, Tape, TapeState, World};
use journeys::proxy::Proxy;
use journeys::services::{Services, TestVhost};
use journeys::shell::{MANAGER, Ran, dump, of_site};
use journeys::site::Site;
use lapin::options::{BasicConsumeOptions, BasicPublishOptions, QueueDeclareOptions, QueueDeleteOptions};
use lapin::types::FieldTable;
use lapin::{BasicProperties, Channel, Connection, ConnectionProperties};
use serde_json::Value;

/// One thing that is wrong, and what must be said of it.
struct Wrong {
    /// What was done.
    name: &'static str,
    settings: fn(&mut Settings, &Path),
    world: fn(&mut World),
    /// The only checks that fail, each as `check subject`; the subject may be a part of the real one.
    fails: &'static [&'static str],
    /// The only checks that warn.
    warns: &'static [&'static str],
    /// The only checks that could not be asked.
    unknown: &'static [&'static str],
    /// Words of what is found.
    found: &'static str,
    /// Words of what mends it.
    mend: &'static str,
}

const NOTHING: Wrong = Wrong {
    name: "nothing",
    settings: |_, _| {},
    world: |_| {},
    fails: &[],
    warns: &[],
    unknown: &[],
    found: "",
    mend: "",
};

/// What depends on lists of the users' front end.
const LISTS: &[&str] = &[
    "repack-vo",
    "mount-policy repack_high_priority",
    "mount-policy repack_low_priority",
    "quarantine-pool",
    "destination-pool",
    "media-type",
    "logical-library",
    "ignored-pool",
];

/// A site at which there is nothing to say against anything.
async fn good() -> Site {
    let site = Site::new(World::new().with_full_tapes(3).split()).await;
    std::fs::create_dir(&site.settings.logging.log_dir).expect("a directory for logs");
    site
}

fn manager(site: &Site, words: &[&str]) -> Ran {
    Ran::of(of_site(site, MANAGER).args(words).env("PATH", path(site)))
}

/// The programs that a mending command may name.
fn path(site: &Site) -> String {
    let ours = journeys::site::programs();
    format!("{}:{}:{}", site.dir.path().display(), ours.display(), std::env::var("PATH").unwrap_or_default())
}

fn list(ran: &Ran) -> Vec<Value> {
    ran.json().as_array().expect("an array of checks").clone()
}

/// The checks with this result, as `check subject`. That root asks is warned of whatever else is wrong: it is not among them.
fn with(checks: &[Value], result: &str) -> BTreeSet<String> {
    let text = |check: &Value, key: &str| check[key].as_str().expect("text").to_owned();
    let root = rustix::process::geteuid().is_root();
    let those = checks.iter().filter(|check| check["result"] == result && !(root && check["check"] == "user"));
    those.map(|check| format!("{} {}", text(check, "check"), text(check, "subject"))).collect()
}

/// The checks are exactly these.
#[track_caller]
fn exactly(name: &str, result: &str, checks: &[Value], expected: &[&str]) {
    let is = with(checks, result);
    let met = |wanted: &&str, is: &String| is.starts_with(*wanted) || is.replacen(' ', " (", 1).contains(*wanted);
    let surplus: Vec<&String> = is.iter().filter(|is| !expected.iter().any(|wanted| met(wanted, is))).collect();
    let absent: Vec<&&str> = expected.iter().filter(|wanted| !is.iter().any(|is| met(wanted, is))).collect();
    assert!(
        surplus.is_empty() && absent.is_empty(),
        "{name}: {result} too many {surplus:?}, missing {absent:?}: {checks:#?}"
    );
}

/// Breaks one thing, looks, and puts it right again.
fn one_at_a_time(site: &mut Site, rows: &[Wrong], words: &[&str]) {
    let (settings, world) = (site.settings.clone(), site.world());
    for row in rows {
        (row.settings)(&mut site.settings, site.dir.path());
        site.edit(|world| (row.world)(world));
        judge(row, &manager(site, words));
        site.settings = settings.clone();
        site.edit(|now| {
            let (seq, last_ms) = (now.seq, now.last_ms);
            *now = World { seq, last_ms, ..world.clone() };
        });
    }
    // Had the world not been put right, or a check changed anything, this would say so.
    judge(&NOTHING, &manager(site, words));
}

#[track_caller]
fn judge(row: &Wrong, ran: &Ran) {
    assert_eq!(ran.exit, Some(i32::from(!row.fails.is_empty())), "{}: {ran:?}", row.name);
    let checks = list(ran);
    exactly(row.name, "fails", &checks, row.fails);
    exactly(row.name, "warning", &checks, row.warns);
    exactly(row.name, "not asked", &checks, row.unknown);
    let odd: Vec<&Value> =
        checks.iter().filter(|check| check["result"] == "fails" || check["result"] == "warning").collect();
    let says =
        |key: &str, words: &str| odd.iter().any(|check| check[key].as_str().is_some_and(|text| text.contains(words)));
    assert!(row.found.is_empty() || says("found", row.found), "{}: no '{}' in {odd:#?}", row.name, row.found);
    assert!(row.mend.is_empty() || says("do", row.mend), "{}: no '{}' in {odd:#?}", row.name, row.mend);
    for check in &checks {
        let mended = check["do"].is_string();
        let expected = check["result"] == "fails" || check["result"] == "warning";
        assert_eq!(mended, expected, "{}: what is wrong is mended, and nothing else: {check}", row.name);
    }
}

/// Does what a check says, in a shell, with the words in capitals filled in.
fn mend(site: &Site, checks: &[Value], check: &str, subject: &str) {
    let found = checks.iter().find(|found| found["check"] == check && found["subject"] == subject);
    let command =
        found.unwrap_or_else(|| panic!("no {check} {subject} in {checks:#?}"))["do"].as_str().expect("a command");
    let mut shell = Command::new("/bin/sh");
    let done = shell.args(["-c", command]).env("PATH", path(site)).output().expect("a shell");
    assert!(done.status.success(), "{command}: {done:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_configuration_and_every_directory_are_checked_and_a_good_site_passes() {
    let mut site = good().await;
    let before = dump(&site).await;
    let told = manager(&site, &["check-env"]);
    told.ended(0);
    let root = rustix::process::geteuid().is_root();
    let sum = if root { "0 fail, 1 warning, 0 not asked" } else { "0 fail, 0 warnings, 0 not asked" };
    for word in ["WHAT", "RESULT", "FOUND", "destination pool", "all 8 that there can be exist", sum] {
        assert!(told.stdout.contains(word), "no '{word}': {}", told.stdout);
    }
    assert_eq!(told.stdout.contains("you are root, the services run as"), root, "{}", told.stdout);
    one_at_a_time(
        &mut site,
        &[
            Wrong {
                name: "the logs' directory is below a file",
                settings: |settings, dir| settings.logging.log_dir = dir.join("config.yaml/log"),
                fails: &["directory log_dir"],
                mend: "install -d",
                ..NOTHING
            },
            Wrong {
                name: "the logs' directory is missing",
                settings: |settings, dir| settings.logging.log_dir = dir.join("none"),
                fails: &["directory log_dir"],
                found: "No such file",
                mend: "install -d",
                ..NOTHING
            },
            Wrong {
                name: "a directory for several things is missing",
                settings: |settings, dir| {
                    settings.logging.log_dir = dir.join("none");
                    settings.repack_end_json_path = dir.join("none/end.json");
                    settings.monitor_ls_out = dir.join("none/below/ls.json");
                },
                fails: &["directory log_dir, repack-end-json-path"],
                unknown: &["directory ls_out"],
                ..NOTHING
            },
            Wrong {
                name: "the producer's log is there and cannot be written to",
                settings: |settings, dir| {
                    settings.logging.log_dir = dir.join("logs");
                    let log = dir.join("logs/cta-ops-repack-producer.log");
                    std::fs::create_dir(&settings.logging.log_dir).expect("a directory");
                    // What not even root can write to.
                    std::os::unix::fs::symlink("/proc/sys/kernel/osrelease", log).expect("a link");
                },
                fails: &["directory log"],
                found: "cannot be written to",
                mend: "chown",
                ..NOTHING
            },
            Wrong {
                name: "listings go below a file",
                settings: |settings, dir| {
                    settings.listing.existing_files_on_tape = dir.join("config.yaml/$DATE-$TAPE").display().to_string();
                },
                fails: &["directory existing_files_on_tape"],
                ..NOTHING
            },
            Wrong {
                name: "statistics of the end go below a file",
                settings: |settings, dir| settings.repack_end_json_path = dir.join("config.yaml/end.json"),
                fails: &["directory repack-end-json-path"],
                ..NOTHING
            },
            Wrong {
                name: "the monitor's file is a directory",
                settings: |settings, dir| settings.monitor_ls_out = dir.join("log"),
                fails: &["directory ls_out"],
                found: "is a directory",
                ..NOTHING
            },
            Wrong {
                name: "a directory of the kernel, which takes no files even from root",
                settings: |settings, _| settings.monitor_ls_out = "/proc/sys/ls.json".into(),
                fails: &["directory ls_out"],
                ..NOTHING
            },
        ],
        &["check-env", "--json"],
    );
    assert_eq!(dump(&site).await, before, "a check changes nothing");
    assert!(site.issued().is_empty(), "{:?}", site.issued());
}

#[tokio::test]
async fn a_configuration_that_cannot_be_used_is_misuse_and_one_with_remarks_is_not() {
    let site = good().await;
    let config =
        journeys::shell::file(&site, "bad.yaml", "tools: {cta-ops-repack-automation: {max_active_repacks: many}}");
    let program = journeys::site::program(MANAGER);
    let ran = Ran::of(Command::new(&program).arg("-C").arg(&config).args(["check-env", "-j"]));
    let checks = list(ran.ended(2));
    exactly("many", "fails", &checks, &["configuration"]);
    exactly("many", "not asked", &checks, &["directory", "database", "broker", "cta-admin"]);
    assert!(ran.stdout.contains("max_active_repacks"), "{}", ran.stdout);
    let none = Ran::of(Command::new(&program).args(["-C", "/nowhere/x.yaml", "check-env"]));
    none.ended(2);
    assert!(none.stdout.contains("cannot be read"), "{none:?}");

    let text = std::fs::read_to_string(site.configuration()).expect("the configuration");
    let odd = text.replacen("\"time_zone\"", "\"no_such_key_of_ours\":1,\"time_zone\"", 1);
    let config = journeys::shell::file(&site, "odd.yaml", odd);
    let ran = Ran::of(Command::new(&program).arg("-C").arg(&config).args(["check-env", "-j"]));
    exactly("unknown key", "warning", &list(ran.ended(0)), &["configuration"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_database_is_checked() {
    let mut site = good().await;
    const ALL: &[&str] = &[
        "database-version",
        "database-writable",
        "tables",
        "table-definition",
        "edits-noted",
        "database-rights",
        "advisory-locks",
        "time-zone",
        "clock",
    ];
    one_at_a_time(
        &mut site,
        &[
            Wrong {
                name: "nobody listens",
                settings: |settings, _| settings.database.port = 1,
                fails: &["database 127"],
                unknown: ALL,
                mend: "start PostgreSQL",
                ..NOTHING
            },
            Wrong {
                name: "there is no such database",
                settings: |settings, _| settings.database.name = "no_such_database".into(),
                fails: &["database 127"],
                unknown: ALL,
                mend: "createdb",
                ..NOTHING
            },
            Wrong {
                name: "a time zone that is none",
                settings: |settings, _| settings.time_zone = "Europe/Nowhere".into(),
                fails: &["time-zone"],
                mend: "pg_timezone_names",
                ..NOTHING
            },
            Wrong {
                name: "another table",
                settings: |settings, _| settings.database.table.name = "other".into(),
                fails: &["tables other"],
                unknown: &["table-definition", "edits-noted", "database-rights"],
                mend: "cta-ops-repack-manager migrate",
                ..NOTHING
            },
        ],
        &["check-env", "--json"],
    );

    let wrong = Wrong {
        name: "a column is gone",
        fails: &["table-definition"],
        found: "column responsible is missing",
        mend: "ADD COLUMN responsible",
        ..NOTHING
    };
    site.sql("ALTER TABLE repack_status DROP COLUMN responsible").await;
    judge(&wrong, &manager(&site, &["check-env", "-j"]));
    site.sql("ALTER TABLE repack_status ADD COLUMN responsible varchar(40) NOT NULL").await;
    let wrong = Wrong {
        name: "a column is of another type",
        fails: &["table-definition"],
        found: "column finished is timestamp with time zone",
        mend: "ALTER COLUMN finished",
        ..NOTHING
    };
    site.sql("ALTER TABLE repack_status ALTER COLUMN finished TYPE timestamptz").await;
    judge(&wrong, &manager(&site, &["check-env", "-j"]));
    site.sql("ALTER TABLE repack_status ALTER COLUMN finished TYPE timestamp(0)").await;
    let wrong = Wrong {
        name: "one of our tables is gone",
        fails: &["tables"],
        found: "repack_status_event",
        unknown: &["edits-noted"],
        mend: "cta-ops-repack-manager migrate",
        ..NOTHING
    };
    site.sql("DROP TABLE repack_status_event").await;
    judge(&wrong, &manager(&site, &["check-env", "-j"]));
    // As told.
    site.sql("DELETE FROM repack_status_migration").await;
    manager(&site, &["migrate"]).ended(0);
    judge(&NOTHING, &manager(&site, &["check-env", "-j"]));
    // Gone, and calling a function that is in another schema.
    for change in [
        "DROP FUNCTION repack_status_edited() CASCADE",
        "CREATE SCHEMA elsewhere; ALTER FUNCTION repack_status_edited() SET SCHEMA elsewhere; \
         CREATE OR REPLACE FUNCTION elsewhere.repack_status_edited() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'",
    ] {
        site.sql(change).await;
        let wrong = Wrong {
            name: "triggers",
            warns: &["edits-noted"],
            found: "compares all rows",
            mend: "DELETE FROM repack_status_migration WHERE number = 3",
            ..NOTHING
        };
        judge(&wrong, &manager(&site, &["check-env", "-j"]));
        site.sql("DELETE FROM repack_status_migration WHERE number = 3").await;
        manager(&site, &["migrate"]).ended(0);
        judge(&NOTHING, &manager(&site, &["check-env", "-j"]));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_role_that_may_only_read_is_told_which_rights_it_lacks_and_these_are_all_it_needs() {
    let mut site = good().await;
    let role = format!("{}_reader", site.database.name());
    site.sql(&format!(
        "CREATE ROLE {role} LOGIN PASSWORD 'geheim'; GRANT SELECT ON ALL TABLES IN SCHEMA public TO {role}"
    ))
    .await;
    site.settings.database.username.clone_from(&role);
    site.settings.database.password = Some(Secret::new("geheim"));
    let checks = list(manager(&site, &["check-env", "-j"]).ended(1));
    exactly("reader", "fails", &checks, &["database-rights"]);
    exactly("reader", "not asked", &checks, &[]);
    let rights = checks.iter().find(|check| check["check"] == "database-rights").expect("it is there");
    let grants = rights["do"].as_str().expect("a command");
    for word in [
        "INSERT, UPDATE, DELETE ON repack_status TO",
        "USAGE ON SEQUENCE repack_status_epoch_seq",
        "INSERT ON repack_status_event",
    ] {
        assert!(grants.contains(word), "no '{word}' in {grants}");
    }
    site.sql(grants.split_once("the owner of the tables: ").expect("what the owner can do").1).await;
    judge(&Wrong { name: "rights given", ..NOTHING }, &manager(&site, &["check-env", "-j"]));
    // Not only what is asked for: a whole journey works with these rights.
    site.enter(&["V01001"]).await;
    site.tick_until("V01001 is finished", journeys::site::all_at_rest).await;
    assert_eq!(site.at("V01001").await.0, common::journey::State::Finished);
    site.enter(&["V01002"]).await;
    // Holds and pauses are set by operators, not by the programs.
    site.sql(&format!("GRANT INSERT, DELETE, UPDATE ON repack_status_control TO {role}")).await;
    for verb in ["hold", "release", "rm"] {
        manager(&site, &[verb, "V01002", "--reason", "audit", "--yes"]).ended(0);
    }
    manager(&site, &["pause", "reclaim", "--reason", "audit", "--yes"]).ended(0);
    site.sql(&format!("DROP OWNED BY {role}; DROP ROLE {role}")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn cta_is_checked() {
    let mut site = good().await;
    one_at_a_time(&mut site, &programs_and_front_ends(), &["check-env", "--json"]);
    one_at_a_time(&mut site, &what_must_exist(), &["check-env", "--json"]);
}

fn programs_and_front_ends() -> Vec<Wrong> {
    const NOBODY: &[&str] = &[
        "front-end for users",
        "front-end for repack",
        "repack-requests",
        "repack-vo",
        "mount-policy",
        "quarantine-pool",
        "destination-pool",
        "media-type",
        "logical-library",
        "ignored-pool",
    ];
    vec![
        Wrong {
            name: "no such program",
            settings: |settings, dir| settings.cta_admin.program = dir.join("cta-admin-9"),
            fails: &["cta-admin"],
            unknown: NOBODY,
            mend: "install cta-cli",
            ..NOTHING
        },
        Wrong {
            name: "a program that may not be executed",
            settings: |settings, dir| settings.cta_admin.program = dir.join("config.yaml"),
            fails: &["cta-admin"],
            found: "may not be executed",
            unknown: NOBODY,
            ..NOTHING
        },
        Wrong {
            name: "no right to ask",
            world: |world| world.unauthorized = true,
            fails: &["front-end for users", "front-end for repack"],
            found: "not authorized",
            mend: "cta-admin admin add",
            unknown: &NOBODY[2..],
            ..NOTHING
        },
        Wrong {
            name: "the front end for users is down",
            world: |world| world.frontends[0].down = true,
            fails: &["front-end for users"],
            mend: "user.conf version",
            unknown: LISTS,
            ..NOTHING
        },
        Wrong {
            name: "the front end for repack is down",
            world: |world| world.frontends[1].down = true,
            fails: &["front-end for repack"],
            mend: "repack.conf version",
            unknown: &["repack-requests"],
            ..NOTHING
        },
        Wrong {
            name: "repacks are asked for at the front end for users",
            settings: |settings, _| settings.cta_admin.repack_config.clone_from(&settings.cta_admin.user_config),
            fails: &["repack-requests"],
            mend: "cta_admin.repack_config",
            ..NOTHING
        },
        Wrong {
            name: "a client configuration that is not there",
            settings: |settings, dir| settings.cta_admin.repack_config = Some(dir.join("none.conf")),
            fails: &["cta-configuration cta_admin.repack_config", "front-end for repack"],
            unknown: &["repack-requests"],
            mend: "cta.endpoint HOST:PORT",
            ..NOTHING
        },
    ]
}

fn what_must_exist() -> Vec<Wrong> {
    vec![
        Wrong {
            name: "no repack VO",
            world: |world| world.vos.get_mut("vo_repack").expect("it is there").repack = false,
            fails: &["repack-vo"],
            mend: "virtualorganization add --virtualorganisation vo_repack",
            ..NOTHING
        },
        Wrong {
            name: "a mount policy is missing",
            world: |world| _ = world.policies.remove("repack_high_priority"),
            fails: &["mount-policy repack_high_priority"],
            found: "of priority 49, 50",
            mend: "mountpolicy add --name repack_high_priority",
            ..NOTHING
        },
        Wrong {
            name: "the quarantine pool is missing",
            world: |world| _ = world.pools.remove("quarantine"),
            fails: &["quarantine-pool quarantine"],
            warns: &["ignored-pool quarantine"],
            mend: "tapepool add --name quarantine --vo ops",
            ..NOTHING
        },
        Wrong {
            name: "files are written to the quarantine pool",
            world: |world| {
                world.routes.push(Route {
                    class: "alpha_raw".into(),
                    copy: 2,
                    repack: false,
                    pool: "quarantine".into(),
                })
            },
            fails: &["quarantine-pool quarantine"],
            found: "alpha_raw copy 2",
            mend: "archiveroute ls",
            ..NOTHING
        },
        Wrong {
            name: "files are written to a destination pool",
            world: |world| {
                world.routes.push(Route {
                    class: "alpha_raw".into(),
                    copy: 2,
                    repack: false,
                    pool: "erase_IBM1L8".into(),
                })
            },
            warns: &["destination-pool erase_IBM1L8"],
            ..NOTHING
        },
        Wrong {
            name: "every destination pool of a library is missing",
            world: |world| world.pools.retain(|name, _| !name.contains("IBM2")),
            fails: &[
                "destination-pool erase_IBM2L8",
                "destination-pool erase_IBM2L9",
                "destination-pool tolabel_IBM2L8",
                "destination-pool tolabel_IBM2L9",
            ],
            found: "LTO9 of IBM2",
            mend: "tapepool add --name tolabel_IBM2L9 --vo ops",
            ..NOTHING
        },
        Wrong {
            name: "a media type of the map is none of CTA's",
            world: |world| _ = world.media.remove("LTO8"),
            warns: &["media-type LTO8"],
            mend: "mediatype ls",
            ..NOTHING
        },
        Wrong {
            name: "a library of the map is none of CTA's",
            world: |world| _ = world.libraries.remove("IBM2"),
            warns: &["logical-library IBM2"],
            mend: "logicallibrary ls",
            ..NOTHING
        },
        Wrong {
            name: "a library is disabled",
            world: |world| _ = world.disabled_libraries.insert("IBM1".into(), "robot arm".into()),
            warns: &["logical-library IBM1"],
            found: "robot arm",
            ..NOTHING
        },
        Wrong {
            name: "an ignored pool is none",
            settings: |settings, _| settings.scan.ignore_pools.push("qarantine".into()),
            warns: &["ignored-pool qarantine"],
            mend: "ignore_pools",
            ..NOTHING
        },
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_told_to_be_done_for_pools_works_as_it_is_printed() {
    for old in [false, true] {
        let mut world = World::new().with_full_tapes(1);
        if old {
            world = world.with_keyset(cta_sim::Keyset::V5_10_7);
        }
        let site = Site::new(world).await;
        std::fs::create_dir(&site.settings.logging.log_dir).expect("a directory for logs");
        site.edit(|world| {
            world.pools.remove("quarantine");
            world.pools.remove("erase_IBM1L8");
        });
        let checks = list(manager(&site, &["check-env", "-j"]).ended(1));
        mend(&site, &checks, "quarantine-pool", "quarantine");
        mend(&site, &checks, "destination-pool", "erase_IBM1L8");
        judge(&Wrong { name: "mended", ..NOTHING }, &manager(&site, &["check-env", "-j"]));
    }
}

/// A plain client, with somebody at work on every queue but one.
async fn consumers(vhost: &TestVhost, but: &str) -> (Connection, Channel) {
    let broker = vhost.broker();
    let mut uri: lapin::uri::AMQPUri = broker.url.parse().expect("a url");
    uri.authority.userinfo.password = broker.password.expect("a password").reveal().to_owned();
    let connection = Connection::connect_uri(uri, ConnectionProperties::default()).await.expect("a connection");
    let channel = connection.create_channel().await.expect("a channel");
    let stages = STAGES.map(|stage| format!("test.v1.stage.{}", stage.name)).into_iter();
    for queue in stages.chain(["test.v1.dead".to_owned()]).filter(|queue| queue != but) {
        let consume = channel.basic_consume(
            queue.as_str().into(),
            "".into(),
            BasicConsumeOptions::default(),
            FieldTable::default(),
        );
        // A consumer lives as long as its channel.
        std::mem::forget(consume.await.expect("a consumer"));
    }
    (connection, channel)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_broker_is_checked() {
    let vhost = Services::get().fresh_vhost();
    let mut site = good().await;
    site.settings.broker = Some(vhost.broker());
    let topology = Topology::new("test", STAGES.map(|stage| stage.name)).expect("a topology");
    let look = |site: &Site| manager(site, &["check-env", "-j"]);
    let empty = Wrong {
        name: "nothing declared",
        warns: &["exchange", "queue"],
        unknown: &["broker-takes-messages"],
        found: "create it when they start",
        ..NOTHING
    };
    judge(&empty, &look(&site));
    judge(&Wrong { name: "and none was by looking", ..empty }, &look(&site));
    topology.declare(&vhost.broker(), "test").await.expect("the queues");

    let (connection, channel) = consumers(&vhost, "").await;
    judge(&NOTHING, &look(&site));
    let parked = channel.basic_publish(
        "".into(),
        "test.v1.parked".into(),
        BasicPublishOptions::default(),
        b"?",
        BasicProperties::default(),
    );
    parked.await.expect("published").await.expect("published");
    // The queue counts it a moment later.
    let begun = std::time::Instant::now();
    while !with(&list(&look(&site)), "warning").contains("parked test.v1.parked") {
        assert!(begun.elapsed() < journeys::site::PATIENCE, "the parked message is not seen");
    }
    judge(
        &Wrong { name: "a message is parked", warns: &["parked"], found: "holds 1", mend: "dead ls", ..NOTHING },
        &look(&site),
    );
    connection.close(200, "done".into()).await.ok();

    let (connection, channel) = consumers(&vhost, "test.v1.stage.reclaim").await;
    channel.queue_purge("test.v1.parked".into(), lapin::options::QueuePurgeOptions::default()).await.expect("purged");
    let idle = Wrong {
        name: "nobody reclaims",
        warns: &["queue test.v1.stage.reclaim"],
        found: "no worker serves reclaim",
        mend: "--stages reclaim",
        ..NOTHING
    };
    judge(&idle, &look(&site));
    channel.queue_delete("test.v1.stage.reclaim".into(), QueueDeleteOptions::default()).await.expect("deleted");
    let options = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
    channel.queue_declare("test.v1.stage.reclaim".into(), options, FieldTable::default()).await.expect("declared");
    judge(
        &Wrong {
            name: "a queue of another type",
            fails: &["queue test.v1.stage.reclaim"],
            found: "has another 'x-dead-letter-exchange'",
            mend: "rabbitmqctl -p test_",
            ..NOTHING
        },
        &look(&site),
    );
    connection.close(200, "done".into()).await.ok();

    let good = site.settings.broker.clone().expect("a broker");
    let gone: &[&str] = &["broker-version", "exchange", "queue", "parked", "broker-takes-messages"];
    site.settings.broker.as_mut().expect("a broker").password = Some(Secret::new("wrong"));
    let refused =
        Wrong { name: "a wrong password", fails: &["broker"], unknown: gone, mend: "broker.password_file", ..NOTHING };
    let ran = look(&site);
    judge(&refused, &ran);
    assert!(!ran.stdout.contains("wrong@"), "{}", ran.stdout);
    site.settings.broker = Some(common::settings::Broker { url: "amqp://guest@127.0.0.1:1/v".into(), ..good.clone() });
    judge(
        &Wrong { name: "nobody listens", fails: &["broker"], unknown: gone, mend: "start RabbitMQ", ..NOTHING },
        &look(&site),
    );
    // A user who may look, but not declare or publish.
    let user = vhost.user("geheim");
    vhost.allow(&user, "^$", "^$", ".*");
    let url = good.url.replace("guest@", &format!("{user}@"));
    site.settings.broker = Some(common::settings::Broker { url, password: Some(Secret::new("geheim")), ..good });
    let checks = list(look(&site).ended(1));
    assert!(with(&checks, "fails").contains("queue test.v1.stage.start"), "{checks:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_good_tape_passes_and_each_thing_wrong_with_it_is_found() {
    let mut site = good().await;
    let told = manager(&site, &["check-tape", "v01001"]);
    assert!(told.ended(0).stdout.contains("V01001 archive route alpha_raw copy 1"), "{}", told.stdout);
    assert!(
        told.stdout.contains(" bytes, 1 storage class") && !told.stdout.contains("1 storage classes"),
        "{}",
        told.stdout
    );
    // The mount policy of two tapes' priority is missing: what mends it is said once.
    let world = site.world();
    site.edit(|world| _ = world.policies.remove("repack_low_priority"));
    let told = manager(&site, &["check-tape", "V01001", "V01002"]);
    assert_eq!(told.ended(1).stdout.matches("  do: ").count(), 1, "{}", told.stdout);
    assert!(told.stdout.contains("\nfails: V01001 prepare\nfails: V01002 prepare\n  do: "), "{}", told.stdout);
    site.edit(|now| now.policies = world.policies);
    site.settings.repack_buffer_url = Some("root://buffer//repack".into());
    let words = ["check-tape", "V01001", "--json"];
    one_at_a_time(&mut site, &wrong_tapes(), &words);
    assert!(site.issued().is_empty(), "{:?}", site.issued());

    // On its way: prepare says so, and the rest is looked at.
    site.enter(&["V01001"]).await;
    site.edit(|world| world.routes.clear());
    judge(
        &Wrong { name: "on its way", fails: &["archive-route alpha_raw copy 1"], ..NOTHING },
        &manager(&site, &words),
    );
    // Several tapes, each with its own checks; one that is good does not hide one that is not.
    let several = list(manager(&site, &["check-tape", "V01001", "V09999", "-j"]).ended(1));
    let vids: BTreeSet<&str> = several.iter().map(|check| check["vid"].as_str().expect("a VID")).collect();
    assert_eq!(vids, ["V01001", "V09999"].into());
    site.settings.database.port = 1;
    let checks = list(manager(&site, &["check-tape", "V01002", "-j"]).ended(1));
    assert!(with(&checks, "fails").contains("prepare "), "{checks:#?}");
    assert!(
        with(&checks, "ok").iter().any(|check| check.starts_with("files")),
        "CTA is looked at nevertheless: {checks:#?}"
    );
    manager(&site, &["check-tape"]).ended(2);
    manager(&site, &["check-tape", "V0;rm"]).ended(2);
}

fn tape<'a>(world: &'a mut World, vid: &str) -> &'a mut Tape {
    world.tapes.get_mut(vid).expect("it is there")
}

fn wrong_tapes() -> Vec<Wrong> {
    vec![
        Wrong {
            name: "not full",
            world: |world| tape(world, "V01001").full = false,
            fails: &["prepare"],
            found: "it is not full",
            mend: "cta-admin tape ch --vid V01001 --full true",
            ..NOTHING
        },
        Wrong {
            name: "broken",
            world: |world| tape(world, "V01001").state = TapeState::Broken,
            fails: &["prepare"],
            found: "BROKEN",
            ..NOTHING
        },
        Wrong {
            name: "its priority's mount policy is missing",
            world: |world| _ = world.policies.remove("repack_low_priority"),
            fails: &["prepare"],
            found: "mount policy repack_low_priority",
            mend: "check-env",
            ..NOTHING
        },
        Wrong {
            name: "no repack VO",
            world: |world| world.vos.get_mut("vo_repack").expect("it is there").repack = false,
            fails: &["prepare"],
            found: "isRepackVo",
            ..NOTHING
        },
        Wrong {
            name: "its destination pool is missing",
            world: |world| _ = world.pools.remove("tolabel_IBM1L9"),
            fails: &["prepare"],
            found: "tolabel_IBM1L9",
            ..NOTHING
        },
        Wrong {
            name: "a copy without a route",
            world: |world| {
                let run = Run { fseq: 0, count: 3, size: 7, archive_id: 99, class: "alpha_raw".into(), copy: 2 };
                tape(world, "V01001").append(&run);
            },
            fails: &["archive-route alpha_raw copy 2"],
            mend: "archiveroute add",
            ..NOTHING
        },
        Wrong {
            name: "a storage class that CTA does not have",
            world: |world| {
                let run = Run { fseq: 0, count: 3, size: 7, archive_id: 99, class: "gone".into(), copy: 1 };
                tape(world, "V01001").append(&run);
            },
            fails: &["storage-class gone", "archive-route gone copy 1"],
            ..NOTHING
        },
        Wrong {
            name: "two copies for one pool",
            world: |world| {
                world.copies.insert("alpha_raw".into(), 2);
                world.routes.push(Route {
                    class: "alpha_raw".into(),
                    copy: 2,
                    repack: false,
                    pool: "pool_alpha_raw".into(),
                });
            },
            fails: &["archive-route alpha_raw copies 1 and 2"],
            ..NOTHING
        },
        Wrong {
            name: "missing copies are added, and have no route",
            settings: |settings, _| settings.repack_mode = common::settings::RepackMode::MoveAndAddCopies,
            world: |world| _ = world.copies.insert("alpha_raw".into(), 2),
            fails: &["archive-route alpha_raw copy 2"],
            ..NOTHING
        },
        Wrong {
            name: "no tape to write to",
            world: |world| tape(world, "D01001").full = true,
            fails: &["writable-tapes pool_alpha_raw"],
            mend: "tape ch --vid EMPTY_VID --tapepool pool_alpha_raw",
            ..NOTHING
        },
        Wrong {
            name: "no tape to write to, but a supply",
            world: |world| {
                tape(world, "D01001").state = TapeState::Disabled;
                world.pools.get_mut("pool_alpha_raw").expect("it is there").supply = vec!["pool_beta_raw".into()];
            },
            warns: &["writable-tapes pool_alpha_raw"],
            found: "supplied from pool_beta_raw",
            ..NOTHING
        },
        Wrong {
            name: "too little room",
            world: |world| tape(world, "D01001").occupancy = 17_999_999_999_999,
            warns: &["writable-tapes pool_alpha_raw"],
            ..NOTHING
        },
        Wrong {
            name: "the library is disabled, of the tape and of those to write to",
            world: |world| _ = world.disabled_libraries.insert("IBM1".into(), "robot arm".into()),
            fails: &["writable-tapes pool_alpha_raw"],
            warns: &["library IBM1"],
            found: "in a disabled library",
            ..NOTHING
        },
        Wrong {
            name: "a route of type REPACK leads to a pool that is not there",
            world: |world| {
                world.routes.push(Route { class: "alpha_raw".into(), copy: 1, repack: true, pool: "nowhere".into() });
            },
            fails: &["writable-tapes nowhere"],
            ..NOTHING
        },
        Wrong {
            name: "nobody gave a buffer",
            settings: |settings, _| settings.repack_buffer_url = None,
            unknown: &["buffer"],
            ..NOTHING
        },
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn the_files_of_a_tape_that_cannot_be_listed_are_not_taken_for_none() {
    let site = good().await;
    site.order(Order::always("tapefile ls", Action::Exit1("the catalogue is slow today".to_owned())));
    let checks = list(manager(&site, &["check-tape", "V01001", "-j"]).ended(1));
    exactly("no files", "fails", &checks, &["files"]);
    exactly("no files", "not asked", &checks, &["storage-class", "archive-route", "writable-tapes", "buffer"]);
}

/// The names between backticks in the first cells of the table below a heading.
fn documented(heading: &str, first: &str) -> BTreeSet<String> {
    let text = std::fs::read_to_string(format!("{}/../docs/json-manager.md", env!("CARGO_MANIFEST_DIR")))
        .expect("the document");
    let below = text.split_once(&format!("\n{heading}\n")).unwrap_or_else(|| panic!("no heading '{heading}'")).1;
    let section = below.split("\n## ").next().expect("some text");
    let lines: Vec<&str> = section.lines().collect();
    // A row that begins with the same word is no head.
    let head = |at: &usize| lines[*at].starts_with(&format!("| {first} | ")) && lines[at + 1].starts_with("|--");
    let head = (0..lines.len()).find(head).unwrap_or_else(|| panic!("no table of '{first}'"));
    let rows = lines[head + 2..].iter().take_while(|line| line.starts_with('|'));
    let cells = rows.map(|line| line.trim_start_matches('|').split(" | ").next().expect("a cell").to_owned());
    cells.flat_map(|cell| cell.split('`').skip(1).step_by(2).map(str::to_owned).collect::<Vec<_>>()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn json_has_exactly_the_keys_checks_and_results_that_are_documented() {
    let vhost = Services::get().fresh_vhost();
    let mut site = good().await;
    site.settings.broker = Some(vhost.broker());
    Topology::new("test", STAGES.map(|stage| stage.name))
        .expect("a topology")
        .declare(&vhost.broker(), "test")
        .await
        .expect("the queues");
    for (heading, words) in
        [("## `check-env`", &["check-env", "-j"][..]), ("## `check-tape VID...`", &["check-tape", "V01001", "-j"])]
    {
        let checks = list(manager(&site, words).ended(0));
        let named: BTreeSet<String> =
            checks.iter().map(|check| check["check"].as_str().expect("a word").to_owned()).collect();
        assert_eq!(named, documented(heading, "`check`"), "{heading}");
        for check in &checks {
            let mut keys: BTreeSet<String> = check.as_object().expect("an object").keys().cloned().collect();
            if words[0] == "check-tape" {
                assert!(keys.remove("vid"), "{check}");
            }
            assert_eq!(keys, documented("## `check-env`", "key"), "{check}");
            assert!(
                documented("## `check-env`", "`result`").contains(check["result"].as_str().expect("a word")),
                "{check}"
            );
        }
    }
}

#[test]
fn each_verb_has_an_example_and_its_exit_codes_in_its_help() {
    for verb in ["check-env", "check-tape"] {
        let help = Ran::of(Command::new(journeys::site::program(MANAGER)).args([verb, "--help"]));
        for word in ["Examples:", "Exit status: 0", "1 something fails", "misuse or a bad"] {
            assert!(help.ended(0).stdout.contains(word), "{verb}: no '{word}' in {}", help.stdout);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_accepts_and_never_answers_keeps_nothing_else_waiting() {
    let vhost = Services::get().fresh_vhost();
    let mut site = good().await;
    let database = site.settings.database.clone();
    let (to_database, to_broker) =
        (Proxy::to(&format!("{}:{}", database.host, database.port)).await, Proxy::to(&vhost.address()).await);
    to_database.freeze();
    to_broker.freeze();
    let (host, port) =
        to_database.address().rsplit_once(':').map(|(host, port)| (host.to_owned(), port.to_owned())).expect("a port");
    (site.settings.database.host, site.settings.database.port) = (host, port.parse().expect("a number"));
    let broker = vhost.broker();
    let url = broker.url.replace(&vhost.address(), &to_broker.address());
    site.settings.broker = Some(common::settings::Broker { url, ..broker });
    site.settings.cta_admin.timeout = Duration::from_secs(2);
    site.order(Order::always("", Action::Hang).on("user"));
    let checks = list(manager(&site, &["check-env", "-j"]).ended(1));
    exactly("nobody answers", "fails", &checks, &["database", "broker", "front-end for users"]);
    let silent =
        |check: &str| checks.iter().find(|found| found["check"] == check).expect("it is there")["found"].to_string();
    assert!(silent("database").contains("no answer within"), "{}", silent("database"));
    // Either we or the client library lost patience first.
    assert!(silent("broker").contains("connecting to RabbitMQ"), "{}", silent("broker"));
    assert!(silent("front-end").contains("printed nothing for 2 s"), "{}", silent("front-end"));
    assert!(with(&checks, "ok").contains("front-end for repack"), "{checks:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_build_and_release_of_cta_is_checked_alike() {
    for world in [
        World::new().with_transport(cta_sim::Transport::Grpc),
        World::new().with_keyset(cta_sim::Keyset::V5_10_7),
        World::new().with_scheduler(cta_sim::Scheduler::Postgres),
    ] {
        let mut site = Site::new(world.with_full_tapes(1)).await;
        std::fs::create_dir(&site.settings.logging.log_dir).expect("a directory for logs");
        site.settings.repack_buffer_url = Some("root://buffer//repack".into());
        judge(&NOTHING, &manager(&site, &["check-env", "-j"]));
        judge(&NOTHING, &manager(&site, &["check-tape", "V01001", "-j"]));
        site.edit(|world| world.unauthorized = true);
        let checks = list(manager(&site, &["check-env", "-j"]).ended(1));
        exactly("no right to ask", "fails", &checks, &["front-end for all"]);
        let checks = list(manager(&site, &["check-tape", "V01001", "-j"]).ended(1));
        assert!(with(&checks, "ok").iter().all(|check| check.starts_with("buffer")), "{checks:#?}");
    }
}
