//! Orders: each fault fires as asked for, as often as asked for, and the journal tells what it did to the world.

#![expect(clippy::unwrap_used, reason = "code shared by tests may fail as a test does")]

mod common;

use std::os::unix::process::ExitStatusExt;

use common::Site;
use cta_sim::{Action, Effect, Kind, Order, TapeState, Transport, World};

const RECLAIM: &str = "tape reclaim --vid V01001";

/// Two empty full tapes, ready to be reclaimed.
fn world() -> World {
    let mut world = World::new().with_full_tapes(2);
    for tape in world.tapes.values_mut() {
        tape.files.clear();
    }
    world
}

fn site(order: Order) -> Site {
    let site = Site::new(&world());
    cta_sim::order(&site.dir(), order).unwrap();
    site
}

fn reclaimed(site: &Site) -> bool {
    !site.world().tapes["V01001"].full
}

fn effects(site: &Site) -> Vec<Effect> {
    site.journal().iter().filter(|entry| entry.kind == Kind::Effect).map(|entry| entry.effect).collect()
}

fn fired(site: &Site) -> u32 {
    cta_sim::orders(&site.dir()).unwrap()[0].fired
}

#[test]
fn answers_instead_of_work_leave_the_world_alone() {
    let text = || "some text".to_owned();
    for (action, code, stdout, stderr) in [
        (Action::Exit1(text()), 1, &b""[..], "some text\n"),
        (Action::Exit2(text()), 2, &b"[]\n"[..], "some text\n"),
        (Action::Text(text()), 0, &b"some text"[..], ""),
        (Action::EmptyStdout, 0, &b""[..], ""),
    ] {
        let site = site(Order::once("tape reclaim", action.clone()));
        let reply = site.go(&format!("--json {RECLAIM}"));
        assert_eq!(
            (reply.code, reply.stdout.as_slice(), reply.stderr.as_str()),
            (Some(code), stdout, stderr),
            "{action:?}"
        );
        assert!(!reclaimed(&site) && effects(&site).is_empty(), "{action:?}");
        site.ok(RECLAIM);
        assert!(reclaimed(&site), "once only: {action:?}");
        assert_eq!(fired(&site), 1);
    }
}

#[test]
fn garbage_is_neither_json_nor_utf_8_and_huge_output_is_as_long_as_asked_for() {
    let site = site(Order::once("tape ls", Action::Garbage));
    let reply = site.go("--json tape ls --all");
    assert_eq!(reply.code, Some(0));
    assert!(std::str::from_utf8(&reply.stdout).is_err());
    cta_sim::order(&site.dir(), Order::once("tape ls", Action::Huge(3_000_000))).unwrap();
    let reply = site.go("--json tape ls --all");
    assert_eq!(reply.stdout.len(), 3_000_000 + "[{\"vid\":\"".len());
    assert!(serde_json::from_slice::<serde_json::Value>(&reply.stdout).is_err());
}

#[test]
fn a_cut_list_is_the_beginning_of_the_whole_one() {
    let site = site(Order::once("tape ls", Action::Cut(0)));
    let (cut, whole) = (site.go("--json tape ls --all"), site.go("--json tape ls --all"));
    assert_eq!((cut.code, cut.stdout.len()), (Some(0), whole.stdout.len() / 2));
    assert!(whole.stdout.starts_with(&cut.stdout));
    assert!(serde_json::from_slice::<serde_json::Value>(&cut.stdout).is_err());
}

#[test]
fn a_change_can_be_done_although_the_answer_says_it_was_not() {
    let site = site(Order::once("tape reclaim", Action::ApplyThenExit1));
    let reply = site.go(&format!("--json {RECLAIM}"));
    assert_eq!((reply.code, reply.text().as_str()), (Some(1), ""));
    assert!(reply.stderr.starts_with("Error from XRootD SSI Framework:"));
    assert!(reclaimed(&site));
    assert_eq!(effects(&site), [Effect::Applied]);
}

#[test]
fn a_refusal_can_come_after_the_change_was_made() {
    let site = site(Order::once("tape reclaim", Action::ApplyThenExit2("because it is not FULL".into())));
    let reply = site.go(&format!("--json {RECLAIM}"));
    assert_eq!(
        (reply.code, reply.text().as_str(), reply.stderr.as_str()),
        (Some(2), "[]\n", "because it is not FULL\n")
    );
    assert!(reclaimed(&site));
}

#[test]
fn a_list_can_stop_half_way_and_hang() {
    use std::io::Read;
    let site = site(Order::once("tape ls", Action::CutThenHang));
    let mut child = site.spawn("--json tape ls --all");
    site.wait_for(|journal| !journal.is_empty());
    let whole = site.go("--json tape ls --all").stdout;
    let mut half = vec![0; whole.len() / 2];
    child.stdout.as_mut().unwrap().read_exact(&mut half).unwrap();
    assert!(whole.starts_with(&half));
    assert!(child.try_wait().unwrap().is_none());
    child.kill().unwrap();
    child.wait().unwrap();
    let mut rest = Vec::new();
    child.stdout.unwrap().read_to_end(&mut rest).unwrap();
    assert!(rest.is_empty());
}

#[test]
fn a_trickling_list_is_whole_in_the_end_and_an_exit_code_can_be_any() {
    let site = site(Order::once("tape ls", Action::Trickle(1)));
    assert_eq!(site.rows("tape ls --all"), site.rows("tape ls --all"));
    cta_sim::order(&site.dir(), Order::once("tape reclaim", Action::Exit(77))).unwrap();
    assert_eq!(site.go(RECLAIM).code, Some(77));
    assert!(!reclaimed(&site));
}

#[test]
fn a_hang_lasts_until_the_process_is_killed_before_or_after_the_change() {
    for (action, done) in [(Action::Hang, false), (Action::ApplyThenHang, true)] {
        let site = site(Order::once("tape reclaim", action));
        let mut child = site.spawn(RECLAIM);
        site.wait_for(|journal| journal.iter().any(|entry| entry.changing));
        if done {
            site.wait_for(|journal| journal.iter().any(|entry| entry.kind == Kind::Effect));
        }
        assert!(child.try_wait().unwrap().is_none(), "it still runs");
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(reclaimed(&site), done);
        assert!(site.journal().iter().all(|entry| entry.kind != Kind::End), "it was killed before its end");
    }
}

#[test]
fn a_hang_ends_by_itself_when_the_world_is_gone() {
    let site = site(Order::once("version", Action::Hang));
    let mut child = site.spawn("version");
    site.wait_for(|journal| !journal.is_empty());
    drop(site);
    assert_eq!(child.wait().unwrap().code(), Some(1));
}

#[test]
fn a_process_dies_by_the_signal_asked_for_before_or_after_the_change() {
    for (action, signal, done) in [(Action::Die(9), 9, false), (Action::ApplyThenDie(15), 15, true)] {
        let site = site(Order::once("tape reclaim", action));
        let reply = site.go(RECLAIM);
        assert_eq!((reply.code, reply.signal), (None, Some(signal)));
        assert_eq!(reclaimed(&site), done);
    }
}

#[test]
fn a_late_reclaim_hits_the_tape_when_its_time_comes() {
    let site = site(Order::once("tape reclaim", Action::LateExit1(60_000)));
    assert_eq!(site.go(RECLAIM).code, Some(1));
    assert!(!reclaimed(&site));
    site.edit(|world| world.skip(59_000));
    assert!(!reclaimed(&site), "not yet");
    site.edit(|world| world.skip(1000));
    assert!(reclaimed(&site));
    let journal = site.journal();
    let by_tape = cta_sim::effects(&journal);
    let seen: Vec<_> =
        by_tape["V01001"].iter().map(|entry| (entry.effect, entry.after.as_ref().unwrap().full)).collect();
    assert_eq!(seen, [(Effect::LateScheduled, true), (Effect::LateApplied, false)]);
}

#[test]
fn a_late_reclaim_is_checked_when_it_arrives_not_when_it_was_sent() {
    let site = site(Order::once("tape reclaim", Action::LateExit1(60_000)));
    assert_eq!(site.go(RECLAIM).code, Some(1));
    site.ok(RECLAIM);
    site.edit(|world| world.skip(60_000));
    let journal = site.journal();
    let last = journal.iter().rfind(|entry| entry.kind == Kind::Effect).unwrap();
    assert_eq!(last.effect, Effect::LateRefused);
    assert_eq!(last.note, "Cannot reclaim tape V01001 because it is not FULL");
}

#[test]
fn a_late_repack_rm_removes_the_request_that_exists_by_then() {
    let mut world = World::new().with_full_tapes(1).with_durations(0, 1_000_000);
    world.tapes.get_mut("V01001").unwrap().state = TapeState::Repacking;
    let site = Site::new(&world);
    let add = "repack add --mountpolicy repack_low_priority --vid V01001";
    site.ok(add);
    cta_sim::order(&site.dir(), Order::once("repack rm", Action::LateExit1(60_000))).unwrap();
    assert_eq!(site.go("repack rm --vid V01001").code, Some(1));
    site.ok("repack rm --vid V01001");
    site.ok(add);
    site.edit(|world| world.skip(60_000));
    assert!(site.rows("repack ls").is_empty(), "the newer request was hit: that is what the client must prevent");
    assert_eq!(*effects(&site).last().unwrap(), Effect::LateApplied);
}

#[test]
fn a_late_effect_is_late_in_real_time_whatever_the_speed() {
    let mut world = world();
    world.speed = 100_000.0;
    let site = Site::new(&world);
    cta_sim::order(&site.dir(), Order::once("tape reclaim", Action::LateExit1(3_600_000))).unwrap();
    assert_eq!(site.go(RECLAIM).code, Some(1));
    site.edit(|world| world.skip(3_600_000));
    assert!(!reclaimed(&site), "an hour of the fast clock is 36 real milliseconds");
    site.edit(|world| world.skip(3_600_000 * 100_000));
    assert!(reclaimed(&site));
}

#[test]
fn a_late_effect_can_follow_a_hang() {
    let site = site(Order::once("tape reclaim", Action::LateHang(60_000)));
    let mut child = site.spawn(RECLAIM);
    site.wait_for(|journal| journal.iter().any(|entry| entry.effect == Effect::LateScheduled));
    child.kill().unwrap();
    child.wait().unwrap();
    site.edit(|world| world.skip(60_000));
    assert!(reclaimed(&site));
}

#[test]
fn orders_match_by_command_tape_front_end_and_argument_and_can_let_some_pass() {
    let fail = || Action::Exit1("x".into());
    let hits = |order: Order, lines: &[&str]| -> Vec<bool> {
        let site = site(order);
        lines.iter().map(|line| site.go(line).stderr == "x\n").collect()
    };
    let lists = ["tape ls --vid V01001", "tape ls --vid V01002", "ta ls -v V01001", "repack ls"];
    assert_eq!(hits(Order::always("tape ls", fail()), &lists), [true, true, true, false]);
    assert_eq!(hits(Order::always("tape", fail()), &lists), [true, true, true, false]);
    assert_eq!(hits(Order::always("", fail()), &lists), [true; 4]);
    assert_eq!(hits(Order::always("tape ls", fail()).for_vid("V01001"), &lists), [true, false, true, false]);
    assert_eq!(hits(Order::always("", fail()).on("all"), &lists), [true; 4]);
    assert_eq!(hits(Order::always("", fail()).on("user"), &lists), [false; 4]);
    assert_eq!(hits(Order::always("", fail()).with_argument("-v"), &lists), [false, false, true, false]);
    assert_eq!(hits(Order::once("tape ls", fail()).after(1).times(2), &lists), [false, true, true, false]);
}

#[test]
fn a_grandchild_keeps_stdout_open_and_is_in_the_same_process_group() {
    use std::io::Read;
    use std::os::unix::process::CommandExt;
    let site = site(Order::once("version", Action::Grandchild(600_000)));
    let mut child = site.command(&["version"]).stdout(std::process::Stdio::piped()).process_group(0).spawn().unwrap();
    let group = rustix::process::Pid::from_child(&child);
    assert_eq!(child.wait().unwrap().code(), Some(0), "the program itself has ended");
    let note = site.journal().into_iter().find_map(|e| e.note.strip_prefix("grandchild ").map(str::to_owned)).unwrap();
    let grandchild = rustix::process::Pid::from_raw(note.parse().unwrap()).unwrap();
    assert!(rustix::process::test_kill_process(grandchild).is_ok(), "the grandchild lives");
    rustix::process::kill_process_group(group, rustix::process::Signal::KILL).unwrap();
    let mut rest = String::new();
    // ends only when the last holder of the pipe is gone
    child.stdout.take().unwrap().read_to_string(&mut rest).unwrap();
    assert!(rest.contains("ctaVersion"));
}

#[test]
fn sleeping_delays_the_work_but_not_that_of_others() {
    let site = site(Order::once("tape reclaim", Action::Proceed).sleeping(600_000).for_vid("V01001"));
    let mut child = site.spawn(RECLAIM);
    site.wait_for(|journal| journal.iter().any(|entry| entry.changing));
    site.ok("tape reclaim --vid V01002");
    assert!(child.try_wait().unwrap().is_none());
    child.kill().unwrap();
    assert_eq!(child.wait().unwrap().signal(), Some(9));
    assert!(!reclaimed(&site));
}

#[test]
fn an_order_for_exit_2_prints_no_array_on_grpc() {
    let site = Site::new(&world().with_transport(Transport::Grpc));
    cta_sim::order(&site.dir(), Order::once("tape reclaim", Action::Exit2("no".into()))).unwrap();
    let reply = site.go(&format!("--json {RECLAIM}"));
    assert_eq!((reply.code, reply.text().as_str(), reply.stderr.as_str()), (Some(2), "", "no\n"));
}

#[test]
fn an_order_can_be_given_as_json() {
    let site = Site::new(&world());
    let dir = site.dir().display().to_string();
    let json = r#"{"command": "tape reclaim", "vid": "V01001", "action": {"exit1": "lost"}, "remaining": 2}"#;
    site.run(&["--sim-order", &dir, json]);
    assert_eq!([site.go(RECLAIM).stderr, site.go(RECLAIM).stderr], ["lost\n", "lost\n"]);
    site.ok(RECLAIM);
    let bad = site.run(&["--sim-order", &dir, r#"{"action": "explode"}"#]);
    assert_eq!(bad.code, Some(1));
}
