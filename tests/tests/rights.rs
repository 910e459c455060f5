//! What the roles of `deploy/postgresql/roles.sql` and the users of `deploy/rabbitmq/definitions.json` may do: everything that their
//! programs need, and nothing that they do not.

#![expect(clippy::unwrap_used, reason = "a helper of a test that cannot go on fails the test")]

use std::process::Command;
use std::time::Duration;

use common::broker::{Link, Topology};
use common::journey::{Mode, State};
use common::settings::{Broker, Secret};
use common::store::MAIL;
use cta_sim::World;
use journeys::fleet::Fleet;
use journeys::services::{Services, TestVhost};
use journeys::shell::{MANAGER, PRODUCER, Ran};
use journeys::site::{Site, all_at_rest};
use journeys::steps::until;
use serde_json::Value;

/// The roles of one test: roles belong to the server, not to the database.
struct Roles {
    viewer: String,
    worker: String,
    operator: String,
}

impl Roles {
    /// Makes them, and a login of the same name with `_login` for each.
    async fn new(site: &Site) -> Roles {
        let name = site.database.name().to_owned();
        let roles = Roles {
            viewer: format!("{name}_viewer"),
            worker: format!("{name}_worker"),
            operator: format!("{name}_operator"),
        };
        roles.run_script(site);
        // Running it again is what an upgrade does.
        roles.run_script(site);
        let client = site.database.client().await;
        for role in roles.all() {
            client
                .batch_execute(&format!("CREATE ROLE {role}_login LOGIN; GRANT {role} TO {role}_login"))
                .await
                .unwrap();
        }
        roles
    }

    fn all(&self) -> [&String; 3] {
        [&self.viewer, &self.worker, &self.operator]
    }

    fn run_script(&self, site: &Site) {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/postgresql/roles.sql");
        let database = &site.settings.database;
        let ran = Command::new("psql")
            .args(["-X", "-q", "-h", &database.host, "-p", &database.port.to_string(), "-U", &database.username])
            .args(["-d", site.database.name(), "-v", "table=repack_status", "-f", script])
            .args(["-v", &format!("viewer={}", self.viewer), "-v", &format!("worker={}", self.worker)])
            .args(["-v", &format!("operator={}", self.operator)])
            .output()
            .expect("psql, which comes with the package of the server");
        assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
    }

    async fn drop(self, site: &Site) {
        let client = site.database.client().await;
        for role in self.all() {
            client
                .batch_execute(&format!("DROP OWNED BY {role}; DROP ROLE {role}_login; DROP ROLE {role}"))
                .await
                .unwrap();
        }
    }
}

/// Whether a login may run a statement; nothing of it stays.
async fn may(site: &Site, role: &str, statement: &str) -> bool {
    let connection = site.database.connection_string().replace("user=postgres", &format!("user={role}_login"));
    let (client, driver) = tokio_postgres::connect(&connection, tokio_postgres::NoTls).await.unwrap();
    tokio::spawn(driver);
    client.batch_execute("BEGIN").await.unwrap();
    match client.batch_execute(statement).await {
        Ok(()) => true,
        Err(error) => {
            let code = error.code().map(|code| code.code().to_owned());
            assert_eq!(code.as_deref(), Some("42501"), "{role}: {statement}: {error:?}");
            false
        }
    }
}

#[tokio::test]
async fn a_viewer_looks_a_worker_cannot_drop_and_nobody_rewrites_the_history() {
    let site = Site::new(World::new().with_full_tapes(1)).await;
    let roles = Roles::new(&site).await;
    // viewer, worker, operator
    let rows = [
        ("SELECT * FROM repack_status", [true, true, true]),
        ("SELECT * FROM repack_status_task", [true, true, true]),
        ("SELECT * FROM repack_status_event", [true, true, true]),
        ("SELECT 1 FROM repack_status FOR UPDATE", [false, true, true]),
        ("SELECT 1 FROM repack_status_control WHERE kind = 'gate' FOR UPDATE", [false, true, true]),
        ("UPDATE repack_status SET mode = 'error'", [false, true, true]),
        ("UPDATE repack_status SET started = now()", [false, true, false]),
        ("UPDATE repack_status SET priority = 1", [false, false, true]),
        ("UPDATE repack_status SET entered = now()", [false, false, false]),
        ("UPDATE repack_status SET tape = 'X'", [false, false, false]),
        ("DELETE FROM repack_status", [false, true, true]),
        // The line of the trigger needs no right of theirs.
        (
            "INSERT INTO repack_status VALUES ('X', now(), NULL, NULL, NULL, NULL, NULL, 1, 1, 1, NULL, 'auto', 1, 'm', 'p', 'r'); \
             SELECT 1 / count(*) FROM repack_status_edited WHERE tape = 'X'",
            [false, true, true],
        ),
        ("INSERT INTO repack_status_edited (tape) VALUES ('X')", [false, true, false]),
        ("DELETE FROM repack_status_edited", [false, true, false]),
        ("UPDATE repack_status_task SET attempts = 0", [false, true, true]),
        ("DELETE FROM repack_status_task", [false, false, false]),
        ("UPDATE repack_status_event SET kind = 'x'", [false, false, false]),
        ("DELETE FROM repack_status_event", [false, false, false]),
        ("DELETE FROM repack_status_history", [false, false, false]),
        ("INSERT INTO repack_status_control VALUES ('hold', 'X', 'me', 'why')", [false, false, true]),
        ("DELETE FROM repack_status_control WHERE kind = 'hold'", [false, false, true]),
        ("SELECT nextval('repack_status_epoch_seq')", [false, true, true]),
        ("DROP TABLE repack_status", [false, false, false]),
        ("TRUNCATE repack_status", [false, false, false]),
        ("ALTER TABLE repack_status ADD COLUMN x int", [false, false, false]),
        ("DROP TABLE repack_status_event", [false, false, false]),
        ("CREATE TABLE mine (x int)", [false, false, false]),
    ];
    for (statement, expected) in rows {
        for (role, expected) in roles.all().into_iter().zip(expected) {
            assert_eq!(may(&site, role, statement).await, expected, "{role}: {statement}");
        }
    }
    roles.drop(&site).await;
}

/// A site whose programs log in with one of the roles.
fn as_role(site: &mut Site, role: &str) {
    site.settings.database.username = format!("{role}_login");
}

#[tokio::test(flavor = "multi_thread")]
async fn tapes_go_all_the_way_and_are_given_back_with_the_rights_of_a_worker_and_an_operator() {
    let mut site = Site::new(World::new().with_full_tapes(3)).await;
    let roles = Roles::new(&site).await;
    let owner = site.settings.clone();

    as_role(&mut site, &roles.worker);
    site.enter(&["V01001", "V01002"]).await;
    site.bring(&["V01001", "V01002"], State::Started).await;
    site.enter(&["V01003"]).await;

    for role in [&roles.worker, &roles.operator] {
        as_role(&mut site, role);
        let checked = Ran::of(site.command(MANAGER).args(["check-env", "--json"])).json();
        let rights = checked.as_array().unwrap().iter().find(|check| check["check"] == "database-rights").unwrap();
        assert_eq!(rights["result"], "ok", "{role}: {rights}");
        Ran::of(site.command(MANAGER).args(["import", "--dry-run"])).ended(0);
    }

    as_role(&mut site, &roles.operator);
    let manager = |site: &Site, words: &[&str]| Ran::of(site.command(MANAGER).args(words));
    for words in [
        &["ls"][..],
        &["show", "V01001"],
        &["ch", "--priority", "49", "--yes", "V01001"],
        &["hold", "--yes", "--reason", "audit", "V01003"],
        &["release", "--yes", "V01003"],
        &["pause", "finish", "--yes"],
        &["resume", "finish", "--yes"],
        &["abort", "--yes", "--reason", "not now", "V01002"],
        &["rm", "--yes", "--reason", "entered by mistake", "V01003"],
    ] {
        manager(&site, words).ended(0);
    }

    as_role(&mut site, &roles.worker);
    site.tick_until("V01001 finished, V01002 given back", |rows| rows.len() == 1 && all_at_rest(rows)).await;
    assert_eq!(site.at("V01001").await, (State::Finished, Mode::Auto));
    assert_eq!(site.world().tapes["V01002"].state.name(), "ACTIVE", "given back");
    // The digest by mail needs no further right.
    site.sql("UPDATE repack_status SET finished = NULL, mode = 'error'").await;
    let store = site.store();
    store.ticked(&[MAIL], None).await.expect("the attempt is written down");
    let mut new = store.concerns(10).await.expect("the tapes that need a person").new;
    store.date_concerns(&mut new).await.expect("since when");
    store.mark_mailed(&[(&new[0].tape, &new[0].what)]).await.expect("the tape is marked");
    assert_eq!(store.concerns(10).await.expect("the others").new, []);
    site.sql("UPDATE repack_status SET finished = now(), mode = 'auto'").await;

    as_role(&mut site, &roles.viewer);
    manager(&site, &["ls", "--all"]).ended(0);
    manager(&site, &["show", "V01001"]).ended(0);
    for words in [&["hold", "--yes", "--reason", "r", "V01001"][..], &["pause", "start", "--yes"]] {
        let told = manager(&site, words);
        told.ended(1).saying(&["permission denied", "the role cta_repack_operator of roles.sql"]);
        assert_eq!(told.stderr.matches("'GRANT cta_repack_operator TO login'").count(), 1, "{told:?}");
    }
    let prepare = |site: &Site| Ran::of(site.command(PRODUCER).args(["prepare", "V01002"]));
    prepare(&site).ended(1).saying(&["it is not entered: ", "'GRANT cta_repack_worker TO login'"]);
    site.sql(&format!("REVOKE SELECT ON repack_status FROM {}", roles.viewer)).await;
    prepare(&site).ended(1).saying(&["error: nothing was entered", "'GRANT cta_repack_worker TO login'"]);
    // Tables are their owner's; to look at what a migration would do takes the same rights.
    site.sql("DELETE FROM repack_status_migration").await;
    manager(&site, &["migrate"]).ended(1).saying(&["permission denied", "database.migrate_username"]);
    site.settings = owner;
    let holds = site.store().controls().await.unwrap();
    assert!(holds.is_empty(), "{holds:?}");
    roles.drop(&site).await;
}

/// The definitions of `deploy/`, for a virtual host and users of this test's own.
fn import(vhost: &TestVhost) -> [String; 2] {
    let names = ["atresys", "atresys-viewer"].map(|name| format!("{}-{name}", vhost.name()));
    let text = include_str!("../../deploy/rabbitmq/definitions.json")
        .replace("\"name\": \"atresys-viewer\"", &format!("\"name\": \"{}\"", names[1]))
        .replace("\"user\": \"atresys-viewer\"", &format!("\"user\": \"{}\"", names[1]))
        .replace("\"vhost\": \"atresys\"", &format!("\"vhost\": \"{}\"", vhost.name()))
        .replace(
            "\"vhosts\": [{ \"name\": \"atresys\" }]",
            &format!("\"vhosts\": [{{ \"name\": \"{}\" }}]", vhost.name()),
        )
        .replace("\"name\": \"atresys\"", &format!("\"name\": \"{}\"", names[0]))
        .replace("\"user\": \"atresys\"", &format!("\"user\": \"{}\"", names[0]));
    let definitions: serde_json::Value = serde_json::from_str(&text).unwrap();
    vhost.must("POST", "/api/definitions", Some(&definitions));
    names
}

fn broker_of(vhost: &TestVhost, user: &str) -> Broker {
    let broker = vhost.broker();
    let (_, place) = broker.url.split_once('@').unwrap();
    Broker {
        url: format!("amqp://{user}@{place}"),
        password: Some(Secret::new("geheim")),
        prefix: "atresys".to_owned(),
        tls: broker.tls.clone(),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_users_of_the_broker_have_the_rights_they_need_and_no_more() {
    let vhost = Services::get().fresh_vhost();
    let [programs, viewer] = import(&vhost);
    for user in [&programs, &viewer] {
        assert!(
            Link::connect(&broker_of(&vhost, user), "test").await.is_err(),
            "{user} has no password yet, and must not get in with any"
        );
        let tags = if user == &viewer { "monitoring" } else { "" };
        let secret = serde_json::json!({"password": "geheim", "tags": tags});
        vhost.must("PUT", &format!("/api/users/{user}"), Some(&secret));
    }

    let mut site = Site::new(World::new().with_full_tapes(1)).await;
    site.settings.broker = Some(broker_of(&vhost, &programs));
    site.settings.producer.interval = Duration::from_millis(100);
    site.enter(&["V01001"]).await;
    let mut fleet = Fleet::of(&site, 1, 1);
    fleet.until(&site, "V01001 at rest", all_at_rest).await;
    assert_eq!(site.at("V01001").await, (State::Finished, Mode::Auto));
    fleet.stop().await;

    let elsewhere = Topology::new("other", ["start"]).unwrap();
    let error = elsewhere.declare(&broker_of(&vhost, &programs), "test").await.unwrap_err();
    assert!(error.is_refusal() && error.to_string().contains("other.v1"), "{error}");

    let topology = Topology::new("atresys", ["start"]).unwrap();
    let error = topology.declare(&broker_of(&vhost, &viewer), "test").await.unwrap_err();
    assert!(error.is_refusal(), "{error}");
    // The management plugin tells what it learned seconds ago.
    let queues = || vhost.must("GET", &format!("/api/queues/{}", vhost.name()), None);
    let bounded = |queue: &&Value| queue["policy"] == "atresys-stages";
    until("the policy finds the five queues of the stages", || {
        queues().as_array().is_some_and(|queues| queues.iter().filter(bounded).count() == 5)
    })
    .await;
    for user in [programs, viewer] {
        vhost.must("DELETE", &format!("/api/users/{user}"), None);
    }
}
