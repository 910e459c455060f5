//! The journal, many processes at once, and processes killed at the worst moment.

#![expect(clippy::unwrap_used, reason = "code shared by tests may fail as a test does")]

mod common;

use std::collections::BTreeSet;

use common::Site;
use cta_sim::{Action, Effect, Entry, Kind, Order, View, World};

fn world() -> World {
    World::new().with_full_tapes(8)
}

#[test]
fn every_invocation_leaves_a_begin_and_an_end_with_its_exit_code() {
    let site = Site::new(&world());
    for line in ["--json tape ls --all", "tape reclaim --vid V01001", "nonsense", "tape ch --vid V01002 --full true"] {
        site.go(line);
    }
    let journal = site.journal();
    let of = |kind: Kind| journal.iter().filter(|entry| entry.kind == kind).collect::<Vec<_>>();
    let ends: Vec<_> = of(Kind::End).iter().map(|entry| (entry.command.clone(), entry.changing, entry.exit)).collect();
    assert_eq!(
        ends,
        [
            ("tape ls".into(), false, Some(0)),
            ("tape reclaim".into(), true, Some(2)),
            (String::new(), false, Some(1)),
            ("tape ch".into(), true, Some(0)),
        ]
    );
    assert_eq!(
        of(Kind::Begin).iter().map(|e| &e.id).collect::<Vec<_>>(),
        of(Kind::End).iter().map(|e| &e.id).collect::<Vec<_>>()
    );
    assert_eq!(of(Kind::Begin)[0].words(), ["tape", "ls", "--all"]);
}

#[test]
fn an_effect_shows_the_tape_before_and_after() {
    let site = Site::new(&world());
    site.ok("tape ch --vid V01001 --state REPACKING --reason r");
    let journal = site.journal();
    let effect = cta_sim::effects(&journal)["V01001"][0];
    let (before, after) = (effect.before.clone().unwrap(), effect.after.clone().unwrap());
    assert_eq!((before.state.as_str(), after.state.as_str()), ("ACTIVE", "REPACKING_PENDING"));
    assert_eq!(View { state: before.state.clone(), ..after }, before, "nothing else changed");
}

#[test]
fn many_processes_at_once_lose_no_change_and_number_them_without_gaps() {
    let site = Site::new(&world());
    std::thread::scope(|scope| {
        for worker in 0..8 {
            let site = &site;
            scope.spawn(move || {
                for round in 0..10 {
                    site.ok(&format!("tape ch --vid V0100{} --comment w{worker}r{round}", worker + 1));
                    assert_eq!(site.rows("tape ls --all").len(), 11);
                }
            });
        }
    });
    let journal = site.journal();
    let effects: Vec<_> = journal.iter().filter(|entry| entry.kind == Kind::Effect).collect();
    assert_eq!(effects.len(), 80);
    assert_eq!(effects.iter().map(|entry| entry.seq).collect::<Vec<_>>(), (1..=80).collect::<Vec<_>>());
    assert!((1..=8).all(|i| site.world().tapes[&format!("V0100{i}")].comment == format!("w{}r9", i - 1)));
    assert_eq!(cta_sim::overlaps(&journal), Vec::<String>::new(), "different tapes do not overlap");
}

#[test]
fn two_changing_commands_of_one_tape_at_once_are_found_even_if_one_is_killed() {
    let site = Site::new(&world());
    cta_sim::order(&site.dir(), Order::once("tape ch", Action::Hang)).unwrap();
    let mut child = site.spawn("tape ch --vid V01001 --comment a");
    site.wait_for(|journal| journal.iter().any(|entry| entry.changing));
    site.ok("tape ls --vid V01001");
    site.ok("tape ch --vid V01002 --comment b");
    assert!(cta_sim::overlaps(&site.journal()).is_empty(), "queries and other tapes do not count");
    site.ok("tape ch --vid V01001 --comment b");
    let found = cta_sim::overlaps(&site.journal());
    assert_eq!(found.len(), 1);
    assert!(found[0].contains(&child.id().to_string()), "{found:?}");
    child.kill().unwrap();
    child.wait().unwrap();
    site.ok("tape ch --vid V01001 --comment c");
    assert_eq!(cta_sim::overlaps(&site.journal()).len(), 1, "a killed process holds nothing");
}

#[test]
fn overlapping_intervals_are_found_without_the_mark() {
    let entry = |kind, id: &str, at_us| Entry {
        kind,
        at_us,
        id: id.into(),
        changing: true,
        vid: Some("V".into()),
        ..Entry::default()
    };
    let overlapping =
        [entry(Kind::Begin, "a", 1), entry(Kind::Begin, "b", 3), entry(Kind::End, "a", 5), entry(Kind::End, "b", 7)];
    assert_eq!(cta_sim::overlaps(&overlapping).len(), 1);
    let apart =
        [entry(Kind::Begin, "a", 1), entry(Kind::End, "a", 3), entry(Kind::Begin, "b", 3), entry(Kind::End, "b", 7)];
    assert!(cta_sim::overlaps(&apart).is_empty());
}

#[test]
fn a_process_killed_between_journal_and_world_leaves_no_effect_behind() {
    use std::io::Write;
    let site = Site::new(&world());
    site.ok("tape ch --vid V01001 --comment a");
    // what such a process leaves: a line whose number the world never got
    let ghost =
        Entry { kind: Kind::Effect, seq: 2, effect: Effect::Applied, vid: Some("V01001".into()), ..Entry::default() };
    let mut file = std::fs::OpenOptions::new().append(true).open(site.dir().join("journal.jsonl")).unwrap();
    writeln!(file, "{}", serde_json::to_string(&ghost).unwrap()).unwrap();
    assert_eq!(cta_sim::effects(&site.journal())["V01001"].len(), 1, "beyond the world's number");
    site.ok("tape ch --vid V01002 --comment b");
    let journal = site.journal();
    let seen: BTreeSet<_> = cta_sim::effects(&journal).into_keys().collect();
    assert_eq!(seen, ["V01001".to_owned(), "V01002".to_owned()].into());
    assert_eq!(cta_sim::effects(&journal)["V01001"].len(), 1, "its number was used again");
}

#[test]
fn killing_processes_at_random_moments_keeps_world_and_journal_in_step() {
    let site = Site::new(&world());
    for round in 0..60_u64 {
        let mut child = site.spawn(&format!("tape ch --vid V01001 --comment r{round}"));
        let begin = std::time::Instant::now();
        while begin.elapsed().as_micros() < u128::from(round * 100) {
            std::hint::spin_loop();
        }
        let _gone = child.kill();
        child.wait().unwrap();
    }
    let journal = site.journal();
    let last = journal.iter().rfind(|entry| entry.kind == Kind::Effect);
    let comment = last.map_or("", |entry| entry.argv.last().unwrap().as_str()).to_owned();
    assert_eq!(site.world().tapes["V01001"].comment, comment, "the last effect is what the world shows");
}

#[test]
fn a_world_is_not_overwritten() {
    let site = Site::new(&world());
    assert!(world().create(&site.dir()).is_err());
    let reply = site.run(&["--sim-create", &site.dir().display().to_string()]);
    assert_eq!(reply.code, Some(1));
}

#[test]
fn without_a_world_the_program_says_so() {
    let site = Site::new(&world());
    let mut command = site.command(&["version"]);
    let output = command.env_remove("CTA_SIM_WORLD").output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8(output.stderr).unwrap().contains("CTA_SIM_WORLD is not set"));
}
