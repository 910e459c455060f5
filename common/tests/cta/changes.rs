//! Changing commands, under the guard.

use std::fs;
use std::process::Stdio;
use std::time::{Duration, Instant};

use common::cta::{Answer, Command, Deadline, Frontend};
use rustix::process::{Pid, Signal};

use super::stand_in::{
    LONG, SHORT, StandIn, answer_of, block_on, line, lives, open, reclaim, soon, until_all_are_gone,
};
use crate::tests;

fn change(stand_in: &StandIn) -> Answer {
    block_on(stand_in.cta().change(&reclaim(), soon()))
}

fn signal(pid: &str, signal: Signal) {
    rustix::process::kill_process(Pid::from_raw(pid.parse().unwrap()).unwrap(), signal).unwrap();
}

/// Says its pid and the guard's through the pipe `alive`, and holds it open, as does a grandchild; then sleeps.
const HANGS: &str = "exec 3>\"$D/alive\"; echo $$ >&3; echo $PPID >&3; sleep 1000 & sleep 1000";

fn exit_0_is_accepted_whatever_was_printed() {
    assert_eq!(change(&StandIn::script("exit 0")), Answer::Accepted);
    assert_eq!(change(&StandIn::script("echo 'Not implemented[]'; echo warning >&2")), Answer::Accepted);
}

fn exit_2_is_a_refusal_with_what_was_said() {
    let stand_in = StandIn::script("echo 'Cannot reclaim tape V01007 because it is not FULL' >&2; echo '[]'; exit 2");
    assert_eq!(change(&stand_in), Answer::Refused("Cannot reclaim tape V01007 because it is not FULL".to_owned()));
    assert_eq!(change(&StandIn::script("exit 2")), Answer::Refused("no message".to_owned()));
}

fn exit_1_and_any_other_exit_are_unclear() {
    let stand_in = StandIn::script("echo 'Error from XRootD SSI Framework: timeout' >&2; exit 1");
    assert_eq!(change(&stand_in), Answer::Unclear("exit 1: Error from XRootD SSI Framework: timeout".to_owned()));
    for code in [3, 77, 124, 125, 126, 127, 137, 255] {
        let unclear = Answer::Unclear(format!("exit {code}: no message"));
        assert_eq!(change(&StandIn::script(&format!("exit {code}"))), unclear);
    }
}

fn a_signal_is_unclear() {
    let unclear = Answer::Unclear("signal 11: no message".to_owned());
    assert_eq!(change(&StandIn::script("kill -SEGV $$")), unclear);
}

fn a_command_that_prints_what_a_guard_would_is_not_believed() {
    let stand_in = StandIn::script(
        "echo 'cta-guard 1 starting'; echo '{\"exited\":{\"code\":0,\"text\":\"\"}}'; echo '{\"not_run\":{\"why\":\"\"}}'; exit 7",
    );
    assert!(matches!(change(&stand_in), Answer::Unclear(text) if text.starts_with("exit 7")));
}

fn a_program_that_cannot_be_started_was_surely_not_run() {
    let missing = StandIn::empty();
    assert_eq!(change(&missing), Answer::NotRun("there is no such file".to_owned()));
    let forbidden = StandIn::empty();
    forbidden.write("#!/bin/sh\n", 0o644);
    assert_eq!(change(&forbidden), Answer::NotRun("no permission to execute it".to_owned()));
    let mut directory = StandIn::empty();
    directory.settings.program = directory.directory.path().to_owned();
    assert_eq!(change(&directory), Answer::NotRun("it is not a file".to_owned()));
    let interpreter = StandIn::empty();
    interpreter.write("#!/nonexistent/interpreter\n", 0o755);
    assert!(matches!(change(&interpreter), Answer::NotRun(why) if why.contains("interpreter")));
}

fn a_text_without_an_interpreter_is_not_run_as_a_script() {
    let stand_in = StandIn::empty();
    let marker = stand_in.path("ran");
    stand_in.write(&format!("echo >'{}'\n", marker.display()), 0o755);
    assert!(matches!(change(&stand_in), Answer::NotRun(why) if why.contains("#!")));
    assert!(!marker.exists());
}

fn after_the_deadline_nothing_is_started() {
    let stand_in = StandIn::script("echo >\"$D/ran\"");
    let deadline = Deadline::after(Duration::ZERO);
    let answer = block_on(stand_in.cta().change(&reclaim(), deadline));
    assert_eq!(answer, Answer::NotRun("the deadline had passed".to_owned()));
    assert!(!stand_in.path("ran").exists());
}

fn the_guard_itself_starts_nothing_after_the_deadline() {
    // As if the worker had slept between its own look at the clock and the start.
    let stand_in = StandIn::script("echo >\"$D/ran\"");
    for (deadline, runs) in [("1", false), ("18446744073709551615", true)] {
        let output = guard(&stand_in, deadline).stdout(Stdio::piped()).output().unwrap();
        let said = String::from_utf8(output.stdout).unwrap();
        assert_eq!(stand_in.path("ran").exists(), runs, "{said}");
        assert_eq!(said.contains("the deadline had passed"), !runs, "{said}");
    }
}

fn a_guard_whose_worker_is_gone_starts_nothing() {
    let stand_in = StandIn::script("echo >\"$D/ran\"");
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let status = guard(&stand_in, "18446744073709551615").stdout(writer).status().unwrap();
    assert_eq!(status.code(), Some(125));
    assert!(!stand_in.path("ran").exists());
}

/// The guard alone, with a deadline in nanoseconds.
fn guard(stand_in: &StandIn, deadline: &str) -> std::process::Command {
    let mut guard = std::process::Command::new(std::env::current_exe().unwrap());
    guard.args(["--cta-guard", deadline, "60000"]).arg(&stand_in.settings.program).stdin(Stdio::null());
    guard
}

fn a_program_that_does_not_know_the_guards_mode_runs_nothing() {
    let stand_in = StandIn::script("echo >\"$D/ran\"");
    for other in ["/bin/true", "/bin/false", "/bin/cat"] {
        let cta = stand_in.cta().with_guard(other.into());
        let answer = block_on(cta.change(&reclaim(), soon()));
        assert!(matches!(&answer, Answer::NotRun(why) if why.starts_with("the guard ended before")), "{answer:?}");
    }
    let cta = stand_in.cta().with_guard("/nonexistent/guard".into());
    assert!(matches!(block_on(cta.change(&reclaim(), soon())), Answer::NotRun(_)));
    assert!(!stand_in.path("ran").exists());
}

fn a_command_that_hangs_is_killed_at_the_limit_with_all_it_started() {
    let stand_in = StandIn::script(&format!("echo 'still trying' >&2; {HANGS}")).timeout(SHORT);
    let alive = stand_in.fifo("alive");
    let watch = std::thread::spawn(move || until_all_are_gone(open(&alive)));
    assert_eq!(change(&stand_in), Answer::Unclear("not done after 0.3 s, killed: still trying".to_owned()));
    watch.join().unwrap();
}

fn what_a_wrapper_leaves_behind_is_killed_when_it_ends() {
    let stand_in = StandIn::script("exec 3>\"$D/alive\"; sleep 1000 & exit 0");
    let alive = stand_in.fifo("alive");
    let watch = std::thread::spawn(move || until_all_are_gone(open(&alive)));
    let started = Instant::now();
    assert_eq!(change(&stand_in), Answer::Accepted);
    watch.join().unwrap();
    assert!(started.elapsed() < LONG, "it was waited for");
}

fn the_limit_holds_although_the_worker_was_killed() {
    let stand_in = StandIn::script(HANGS).timeout(SHORT);
    let alive = stand_in.fifo("alive");
    let mut worker = stand_in.worker().spawn().unwrap();
    let mut reader = open(&alive);
    let (pid, guard) = (line(&mut reader), line(&mut reader));
    worker.kill().unwrap();
    worker.wait().unwrap();
    until_all_are_gone(reader);
    until_gone(&pid);
    until_gone(&guard);
}

fn the_limit_holds_although_the_worker_was_stopped_and_it_learns_so_later() {
    let stand_in = StandIn::script(HANGS).timeout(SHORT);
    let alive = stand_in.fifo("alive");
    let worker = stand_in.worker().spawn().unwrap();
    let mut reader = open(&alive);
    line(&mut reader);
    signal(&worker.id().to_string(), Signal::STOP);
    until_all_are_gone(reader);
    signal(&worker.id().to_string(), Signal::CONT);
    assert_eq!(answer_of(worker), "Unclear(\"not done after 0.3 s, killed: no message\")");
}

fn a_command_goes_on_to_its_end_although_the_worker_was_killed() {
    let stand_in =
        StandIn::script("exec 3>\"$D/alive\"; echo $$ >&3; cat \"$D/go\"; echo late; echo late >&2; echo >\"$D/done\"");
    let (alive, go) = (stand_in.fifo("alive"), stand_in.fifo("go"));
    let mut worker = stand_in.worker().spawn().unwrap();
    let mut reader = open(&alive);
    line(&mut reader);
    worker.kill().unwrap();
    worker.wait().unwrap();
    fs::write(go, "go").unwrap();
    until_all_are_gone(reader);
    assert!(stand_in.path("done").exists());
}

fn signals_that_stop_a_service_or_a_terminal_do_not_break_a_command() {
    let stand_in = StandIn::script("exec 3>\"$D/alive\"; echo $PPID >&3; cat \"$D/go\"; exit 0");
    let (alive, go) = (stand_in.fifo("alive"), stand_in.fifo("go"));
    let worker = stand_in.worker().spawn().unwrap();
    let mut reader = open(&alive);
    let guard = line(&mut reader);
    for number in [Signal::TERM, Signal::INT, Signal::HUP, Signal::QUIT] {
        signal(&guard, number);
    }
    fs::write(go, "go").unwrap();
    assert_eq!(answer_of(worker), "Accepted");
}

fn ctrl_c_reaches_neither_the_guard_nor_the_command() {
    let stand_in =
        StandIn::script("exec 3>\"$D/alive\"; cut -d' ' -f5 /proc/$$/stat >&3; cut -d' ' -f5 /proc/$PPID/stat >&3");
    let alive = stand_in.fifo("alive");
    let worker = stand_in.worker().spawn().unwrap();
    let mut reader = open(&alive);
    // A terminal signals a process group: the worker's, and theirs is another.
    let (command, guard, us) = (line(&mut reader), line(&mut reader), worker.id().to_string());
    assert_eq!(command, guard);
    assert_ne!(guard, us);
    assert_eq!(answer_of(worker), "Accepted");
}

fn if_the_guard_is_killed_the_command_dies_and_the_worker_ends_the_rest() {
    let stand_in = StandIn::script(HANGS);
    let alive = stand_in.fifo("alive");
    let worker = stand_in.worker().spawn().unwrap();
    let mut reader = open(&alive);
    let (_, guard) = (line(&mut reader), line(&mut reader));
    signal(&guard, Signal::KILL);
    until_all_are_gone(reader);
    assert_eq!(answer_of(worker), "Unclear(\"the guard ended without a report\")");
}

fn if_worker_and_guard_are_killed_the_command_dies() {
    let stand_in = StandIn::script("exec 3>\"$D/alive\"; echo $$ >&3; echo $PPID >&3; exec sleep 1000");
    let alive = stand_in.fifo("alive");
    let mut worker = stand_in.worker().spawn().unwrap();
    let mut reader = open(&alive);
    let (_, guard) = (line(&mut reader), line(&mut reader));
    worker.kill().unwrap();
    worker.wait().unwrap();
    signal(&guard, Signal::KILL);
    until_all_are_gone(reader);
}

fn dropping_the_future_does_not_end_the_command_but_kill_all_still_does() {
    let stand_in = StandIn::script(HANGS);
    let alive = stand_in.fifo("alive");
    let cta = stand_in.cta();
    block_on(async move {
        let asked = cta.clone();
        let running = tokio::spawn(async move { asked.change(&reclaim(), soon()).await });
        let started = tokio::task::spawn_blocking(move || {
            let mut reader = open(&alive);
            (line(&mut reader), reader)
        });
        let (pid, rest) = started.await.unwrap();
        running.abort();
        assert!(running.await.unwrap_err().is_cancelled());
        assert!(lives(&pid));
        cta.kill_all();
        tokio::task::spawn_blocking(move || until_all_are_gone(rest)).await.unwrap();
    });
}

fn kill_all_ends_every_command_in_flight_and_they_are_unclear() {
    let stand_in = StandIn::script("exec 3>\"$D/alive$7\"; echo $$ >&3; sleep 1000 & sleep 1000");
    let cta = stand_in.cta();
    // The seventh argument is the state.
    let pipes = [stand_in.fifo("aliveACTIVE"), stand_in.fifo("aliveDISABLED")];
    block_on(async move {
        let running: Vec<_> = ["ACTIVE", "DISABLED"]
            .map(|to| {
                let vid = "V01007".parse().unwrap();
                let command = Command::SetState { vid, to, reason: "r".into(), frontend: Frontend::User };
                let cta = cta.clone();
                tokio::spawn(async move { cta.change(&command, soon()).await })
            })
            .into();
        let started = tokio::task::spawn_blocking(move || {
            pipes.map(|pipe| {
                let mut reader = open(&pipe);
                line(&mut reader);
                reader
            })
        });
        let alive = started.await.unwrap();
        cta.kill_all();
        for running in running {
            assert_eq!(running.await.unwrap(), Answer::Unclear("killed on request".to_owned()));
        }
        tokio::task::spawn_blocking(move || alive.map(until_all_are_gone)).await.unwrap();
    });
}

fn neither_the_guard_nor_the_command_sees_our_secrets_and_all_else_is_inherited() {
    let stand_in = StandIn::script("cat /proc/$$/environ /proc/$PPID/environ | tr '\\0' '\\n' >\"$D/env\"");
    let mut worker = stand_in.worker();
    worker
        .env("CTA_OPS_DATABASE_PASSWORD", "SECRET1")
        .env("CTA_OPS_BROKER_PASSWORD", "SECRET2")
        .env("KRB5CCNAME", "kept");
    assert_eq!(answer_of(worker.spawn().unwrap()), "Accepted");
    let env = stand_in.read("env");
    assert!(!env.contains("SECRET") && !env.contains("CTA_OPS_"), "{env}");
    assert_eq!(env.matches("KRB5CCNAME=kept").count(), 2, "{env}");
    assert!(env.contains("XRD_REQUESTTIMEOUT=59"), "{env}");
}

fn arguments_arrive_as_they_are() {
    let stand_in = StandIn::script("for arg; do printf '<%s>' \"$arg\"; done >\"$D/args\"");
    let reason = "two  words; 'quoted' \"twice\" $HOME `id` \\ *\nsecond line\t--json é";
    let vid = "V01007".parse().unwrap();
    let command = Command::SetState { vid, to: "ACTIVE", reason: reason.into(), frontend: Frontend::Repack };
    let mut stand_in = stand_in;
    stand_in.settings.user_config = Some("/wrong.conf".into());
    stand_in.settings.repack_config = Some("/etc/cta/repack one.conf".into());
    assert_eq!(block_on(stand_in.cta().change(&command, soon())), Answer::Accepted);
    let expected = format!(
        "<--json><--config></etc/cta/repack one.conf><tape><ch><--vid><V01007><--state><ACTIVE><--reason><{reason}>"
    );
    assert_eq!(stand_in.read("args"), expected);
}

fn nothing_of_the_workers_is_open_in_the_guard_or_in_the_command() {
    let stand_in = StandIn::script("readlink /proc/$PPID/fd/* /proc/$$/fd/* >\"$D/fds\"; exit 0");
    assert_eq!(answer_of(stand_in.worker().spawn().unwrap()), "Accepted");
    let (fds, held) = (stand_in.read("fds"), stand_in.read("held"));
    assert!(fds.contains("/cta-admin") && held.starts_with("socket:"), "{fds} {held}");
    assert!(!fds.contains(&held) && !fds.contains("/held"), "{fds} {held}");
}

fn the_command_reads_nothing() {
    let stand_in = StandIn::script("cat >\"$D/stdin\"");
    assert_eq!(change(&stand_in), Answer::Accepted);
    assert_eq!(stand_in.read("stdin"), "");
}

fn a_flood_of_output_neither_blocks_nor_fills_the_memory() {
    let flood = "head -c 3000000 /dev/zero | tr '\\0' 'e'";
    let stand_in = StandIn::script(&format!("{flood} >&2; {flood}; exit 2"));
    assert_eq!(change(&stand_in), Answer::Refused("e".repeat(500) + " ..."));
}

fn an_error_that_is_no_text_is_shown_harmless() {
    let stand_in = StandIn::script("printf 'caf\\351 \\033[2J' >&2; exit 2");
    assert_eq!(change(&stand_in), Answer::Refused("caf\u{fffd} \\u{1b}[2J".to_owned()));
}

/// Waits for a process that is not our child to be gone.
fn until_gone(pid: &str) {
    let started = Instant::now();
    while lives(pid) {
        assert!(started.elapsed() < LONG, "process {pid} does not end");
        std::thread::yield_now();
    }
}

tests! {
    exit_0_is_accepted_whatever_was_printed,
    exit_2_is_a_refusal_with_what_was_said,
    exit_1_and_any_other_exit_are_unclear,
    a_signal_is_unclear,
    a_command_that_prints_what_a_guard_would_is_not_believed,
    a_program_that_cannot_be_started_was_surely_not_run,
    a_text_without_an_interpreter_is_not_run_as_a_script,
    after_the_deadline_nothing_is_started,
    the_guard_itself_starts_nothing_after_the_deadline,
    a_guard_whose_worker_is_gone_starts_nothing,
    a_program_that_does_not_know_the_guards_mode_runs_nothing,
    a_command_that_hangs_is_killed_at_the_limit_with_all_it_started,
    what_a_wrapper_leaves_behind_is_killed_when_it_ends,
    the_limit_holds_although_the_worker_was_killed,
    the_limit_holds_although_the_worker_was_stopped_and_it_learns_so_later,
    a_command_goes_on_to_its_end_although_the_worker_was_killed,
    signals_that_stop_a_service_or_a_terminal_do_not_break_a_command,
    ctrl_c_reaches_neither_the_guard_nor_the_command,
    if_the_guard_is_killed_the_command_dies_and_the_worker_ends_the_rest,
    if_worker_and_guard_are_killed_the_command_dies,
    dropping_the_future_does_not_end_the_command_but_kill_all_still_does,
    kill_all_ends_every_command_in_flight_and_they_are_unclear,
    neither_the_guard_nor_the_command_sees_our_secrets_and_all_else_is_inherited,
    arguments_arrive_as_they_are,
    nothing_of_the_workers_is_open_in_the_guard_or_in_the_command,
    the_command_reads_nothing,
    a_flood_of_output_neither_blocks_nor_fills_the_memory,
    an_error_that_is_no_text_is_shown_harmless,
}
