//! Every verb with nothing but the database: the broker refuses connections and `cta-admin` fails. What needs neither does its
//! work; what looks prints what it can and says what it could not ask; what needs one says so, and changes nothing.

use common::settings::{Broker, Secret};
use cta_sim::World;
use journeys::shell::{MANAGER, Ran, dump};
use journeys::site::Site;

/// Words, exit code, what is said.
type Row = (&'static str, i32, &'static [&'static str]);

/// Those that need neither: they change what they should, and a second time say that it is so.
const ALONE: [Row; 14] = [
    ("ls", 0, &["V01001"]),
    ("hold V01001 --reason audit --yes", 0, &["V01001"]),
    ("release V01001 --yes", 0, &["V01001"]),
    ("release V01001 --yes", 0, &["already"]),
    ("pause start --reason audit --yes", 0, &["start"]),
    ("resume start --yes", 0, &["start"]),
    ("resume start --yes", 0, &["already"]),
    ("ch V01001 --mode manual --yes --reason looking", 0, &["manual"]),
    ("ch V01001 --mode manual --yes --reason looking", 0, &["already"]),
    ("requeue V01001 --yes", 0, &["auto"]),
    ("history V01001 --limit 5", 0, &["V01001"]),
    ("stats", 0, &["entered"]),
    ("requeue V09999 --yes", 1, &["V09999", "not in the table"]),
    ("rm V01002 --yes --reason mistake", 0, &["V01002"]),
];

/// Those that look at one of the two, too.
const LOOKING: [Row; 4] = [
    ("show V01001", 0, &["the row says", "CTA could not be asked", "could not be asked"]),
    ("queues", 1, &["RabbitMQ"]),
    ("check-env", 1, &["fails", "do:"]),
    ("check-tape V01001", 1, &["V01001"]),
];

/// Those that cannot do their work at all.
const IN_VAIN: [Row; 4] = [
    ("failed-files V01001", 1, &["error"]),
    ("dead ls", 1, &["RabbitMQ"]),
    ("dead drop 0123456789ab --yes", 1, &["RabbitMQ"]),
    ("add V01003 --yes", 1, &["error"]),
];

async fn alone() -> Site {
    let mut site = Site::new(World::new().with_full_tapes(3)).await;
    site.enter(&["V01001", "V01002"]).await;
    site.settings.broker = Some(Broker {
        url: "amqp://user@127.0.0.1:1/v".to_owned(),
        password: Some(Secret::new("geheim")),
        prefix: "test".to_owned(),
        tls: Default::default(),
    });
    let failing = site.dir.path().join("failing-cta-admin");
    std::fs::write(&failing, "#!/bin/sh\necho 'cannot connect to the front end' >&2\nexit 1\n").expect("a program");
    let rights = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(&failing, rights).expect("its rights");
    site.settings.cta_admin.program = failing;
    site
}

fn typed(site: &Site, (words, exit, said): Row) {
    let ran = Ran::of(site.command(MANAGER).args(words.split_whitespace()));
    assert_eq!(ran.exit, Some(exit), "{words}: {ran:?}");
    for word in said {
        assert!(ran.stdout.contains(word) || ran.stderr.contains(word), "{words} does not say '{word}': {ran:?}");
    }
    assert!(!ran.stdout.contains("geheim") && !ran.stderr.contains("geheim"), "{words}");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_broker_and_cta_the_verbs_that_need_neither_do_their_work() {
    let site = alone().await;
    for row in ALONE {
        typed(&site, row);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_broker_and_cta_looking_says_what_could_not_be_asked_and_nothing_is_changed() {
    let site = alone().await;
    let before = dump(&site).await;
    for row in LOOKING.into_iter().chain(IN_VAIN) {
        typed(&site, row);
        assert_eq!(dump(&site).await, before, "{}", row.0);
    }
}
