//! Lists.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use common::cta::reply::{Repack, Tape};
use common::cta::{Frontend, Query, Trouble};
use serde_json::Value;

use super::stand_in::{SHORT, StandIn, block_on, hold, line, lives, open, until_all_are_gone};
use crate::tests;

const TWO: &str = r#"[{"vid":"A1"},{"vid":"A2"}]"#;

fn list(stand_in: &StandIn) -> Result<Vec<Value>, Trouble> {
    block_on(stand_in.cta().list(&Query::Tapes))
}

fn trouble(stand_in: &StandIn) -> Trouble {
    list(stand_in).expect_err("there is no complete list")
}

fn a_complete_list_is_a_list() {
    assert_eq!(list(&StandIn::printing(TWO, "")).unwrap().len(), 2);
    assert_eq!(list(&StandIn::printing("\n[ {\"vid\":\"A1\"} ,\n {\"vid\":\"A2\"}\t]\n\n", "")).unwrap().len(), 2);
    assert!(list(&StandIn::printing("[]\n", "")).unwrap().is_empty());
}

fn an_empty_array_with_exit_2_is_a_refusal_and_no_empty_list() {
    let trouble = trouble(&StandIn::printing("[]\n", "echo 'Tape VID V01007 does not exist.' >&2; exit 2"));
    assert_eq!(trouble.refusal(), Some("Tape VID V01007 does not exist."));
    assert!(!trouble.is_site());
    assert_eq!(
        trouble.to_string(),
        "cta-admin refused: Tape VID V01007 does not exist. (command: cta-admin tape ls --all)"
    );
}

fn a_complete_list_with_exit_1_is_none() {
    match trouble(&StandIn::printing(TWO, "echo 'Not all tapes were found: A1' >&2; exit 1")) {
        Trouble::Failed { exit: Some(1), signal: None, text, .. } => assert_eq!(text, "Not all tapes were found: A1"),
        other => panic!("{other:?}"),
    }
}

fn any_other_exit_is_a_failure() {
    match trouble(&StandIn::printing(TWO, "exit 77")) {
        Trouble::Failed { exit: Some(77), text, .. } => assert_eq!(text, "no message"),
        other => panic!("{other:?}"),
    }
}

fn a_signal_is_a_failure_whatever_was_printed() {
    match trouble(&StandIn::printing(TWO, "kill -SEGV $$")) {
        Trouble::Failed { exit: None, signal: Some(11), .. } => {}
        other => panic!("{other:?}"),
    }
}

fn a_dead_front_end_is_the_sites_trouble() {
    let said = "echo 'Error from XRootD SSI Framework: [FATAL] Connection error' >&2; exit 1";
    assert!(trouble(&StandIn::script(said)).is_site());
}

fn the_grpc_build_refuses_with_exit_0() {
    let output = "gRPC call failed. Error code: 3 Error message: Tape VID V01007 does not exist.\n[]\n";
    assert_eq!(trouble(&StandIn::printing(output, "")).refusal(), Some("Tape VID V01007 does not exist."));
}

fn the_grpc_build_fails_with_exit_0_before_the_first_object_and_behind_one() {
    for before in ["", "[", r#"[{"vid":"A1"}"#, r#"[{"vid":"A1"},"#] {
        let output = format!("{before}gRPC call failed. Error code: 14 Error message: failed to connect\n]\n");
        let trouble = trouble(&StandIn::printing(&output, ""));
        assert!(trouble.is_site(), "{output}");
        match trouble {
            Trouble::Failed { exit: Some(0), text, .. } => {
                assert_eq!(text, "gRPC call failed. Error code: 14 Error message: failed to connect", "{output}");
            }
            other => panic!("{output}: {other:?}"),
        }
    }
}

fn an_exception_in_the_grpc_client_is_a_failure() {
    let output = "An exception was thrown in CtaAdminClientReactor: bad value\n";
    assert!(matches!(trouble(&StandIn::printing(output, "")), Trouble::Failed { exit: Some(0), .. }));
}

fn what_is_not_one_whole_array_is_garbage_with_exit_0() {
    let rows: &[(&str, &str)] = &[
        ("", "no output at all"),
        (" \n", "cut off after 0 whole objects"),
        ("[", "cut off after 0 whole objects"),
        (r#"[{"vid":"A1"}"#, "cut off after 1 whole objects"),
        (r#"[{"vid":"A1"},"#, "cut off after 1 whole objects"),
        (r#"[{"vid":"A1"},{"vid":"A"#, "cut off after 1 whole objects"),
        (r#"[{"vid":"A1"},]"#, "no list: byte 14 does not belong there: ']'"),
        (r#"[{"vid":"A1"}][]"#, "no list: byte 14 does not belong there: '[]'"),
        (r#"[{"vid":"A1"}{"vid":"A2"}]"#, r#"no list: byte 13 does not belong there: '{"vid":"A2"}]'"#),
        (r#"{"vid":"A1"}"#, r#"no list: byte 0 does not belong there: '{"vid":"A1"}'"#),
        ("Not implemented[]", "no list: byte 0 does not belong there: 'Not implemented[]'"),
        ("[] trailing", "no list: byte 3 does not belong there: 'trailing'"),
        ("[1,2]", "no list: byte 1 does not belong there: '1,2]'"),
        ("\u{1b}[2J", r"no list: byte 0 does not belong there: '\u{1b}[2J'"),
    ];
    for (output, expected) in rows {
        match trouble(&StandIn::printing(output, "")) {
            Trouble::Garbage { text, .. } => assert_eq!(&text, expected, "{output:?}"),
            other => panic!("{output:?}: {other:?}"),
        }
    }
}

fn an_object_that_lacks_what_we_need_is_garbage_and_named() {
    let stand_in = StandIn::printing(r#"[{"vid":"A1"}]"#, "");
    match block_on(stand_in.cta().list::<Tape>(&Query::Tapes)).unwrap_err() {
        Trouble::Garbage { text, .. } => {
            assert!(text.starts_with("object 1 cannot be read: missing field `mediaType`"), "{text}");
            assert!(text.ends_with(r#"'{"vid":"A1"}'"#), "{text}");
        }
        other => panic!("{other:?}"),
    }
}

fn bytes_that_are_no_text_in_a_comment_do_not_make_the_list_unreadable() {
    let stand_in = StandIn::printing(b"[{\"vid\":\"A1\",\"comment\":\"caf\xe9\"}]", "");
    assert_eq!(list(&stand_in).unwrap()[0]["comment"], "caf\u{fffd}");
}

fn bytes_that_are_no_text_outside_a_string_are_garbage() {
    assert!(matches!(trouble(&StandIn::printing(b"[\xff]", "")), Trouble::Garbage { .. }));
    assert!(matches!(trouble(&StandIn::printing(b"[{\xff}]", "")), Trouble::Garbage { .. }));
}

fn an_object_without_end_is_garbage_before_it_fills_the_memory() {
    let trouble = trouble(&StandIn::script("printf '[{\"vid\":\"'; cat /dev/zero | tr '\\0' x"));
    match trouble {
        Trouble::Garbage { text, .. } => assert_eq!(text, "object 1 is larger than 16 MiB"),
        other => panic!("{other:?}"),
    }
}

fn garbage_without_end_is_cut_off_and_the_program_killed() {
    let stand_in = StandIn::script("exec 3>\"$D/alive\"\nyes garbage");
    let alive = stand_in.fifo("alive");
    let watch = std::thread::spawn(move || until_all_are_gone(open(&alive)));
    assert!(matches!(trouble(&stand_in), Trouble::Garbage { .. }));
    watch.join().unwrap();
}

fn a_silent_program_is_killed_with_all_it_started() {
    let stand_in = StandIn::script("exec 3>\"$D/alive\"\nprintf '[{}'; sleep 1000 & sleep 1000").timeout(SHORT);
    let alive = stand_in.fifo("alive");
    let watch = std::thread::spawn(move || until_all_are_gone(open(&alive)));
    match trouble(&stand_in) {
        Trouble::Silent { secs, .. } => assert_eq!(secs, 0.3),
        other => panic!("{other:?}"),
    }
    watch.join().unwrap();
}

fn a_program_that_never_stops_talking_is_killed_at_the_limit_for_the_whole_list() {
    let stand_in = StandIn::script("printf '[{}'; while :; do printf ',{}'; done").list_timeout(SHORT);
    assert!(matches!(trouble(&stand_in), Trouble::TooLong { .. }));
}

fn the_limit_on_silence_does_not_limit_the_whole_list() {
    // Each line arrives in time, all of them together do not.
    let stand_in = StandIn::script("printf '[{}'; for i in 1 2 3 4 5 6; do sleep 0.2; printf ',{}'; done; printf ']'")
        .timeout(Duration::from_millis(1000));
    assert_eq!(list(&stand_in).unwrap().len(), 7);
}

fn a_program_that_closed_its_output_and_stays_is_bounded_too() {
    let stand_in = StandIn::script("printf '[]'; exec >&- 2>&-; sleep 1000").timeout(SHORT);
    assert!(matches!(trouble(&stand_in), Trouble::Silent { .. }));
}

fn a_grandchild_that_holds_the_output_open_is_bounded_too() {
    let stand_in = StandIn::script("printf '[]'; sleep 1000 & exit 0").timeout(SHORT);
    assert!(matches!(trouble(&stand_in), Trouble::Silent { .. }));
}

fn a_flood_of_error_text_neither_blocks_nor_fills_the_memory() {
    let stand_in = StandIn::script("head -c 3000000 /dev/zero | tr '\\0' 'e' >&2; exit 1");
    match trouble(&stand_in) {
        Trouble::Failed { exit: Some(1), text, .. } => assert_eq!(text, "e".repeat(500) + " ..."),
        other => panic!("{other:?}"),
    }
}

fn the_first_lines_of_the_error_text_are_kept_and_made_harmless() {
    let stand_in = StandIn::script("printf 'one\\n\\n\\033[31mtwo\\r\\nthree\\nfour\\nfive\\nsix\\n' >&2; exit 2");
    assert_eq!(trouble(&stand_in).refusal(), Some(r"one; \u{1b}[31mtwo; three; four; five ..."));
}

fn a_program_that_is_not_there_cannot_be_run() {
    let trouble = trouble(&StandIn::empty());
    assert!(trouble.is_site());
    assert!(trouble.to_string().ends_with("there is no such file"), "{trouble}");
}

fn a_program_without_permission_cannot_be_run() {
    let stand_in = StandIn::empty();
    stand_in.write("#!/bin/sh\necho '[]'\n", 0o644);
    let trouble = trouble(&stand_in);
    assert!(matches!(trouble, Trouble::NotRunnable { .. }), "{trouble}");
    assert!(trouble.to_string().ends_with("no permission to execute it"), "{trouble}");
}

fn a_directory_cannot_be_run() {
    let mut stand_in = StandIn::empty();
    stand_in.settings.program = stand_in.directory.path().to_owned();
    assert!(trouble(&stand_in).to_string().ends_with("it is not a file"));
}

fn a_text_without_an_interpreter_is_not_run_as_a_script() {
    let stand_in = StandIn::empty();
    stand_in.write("echo '[]'\n", 0o755);
    let trouble = trouble(&stand_in);
    assert!(trouble.to_string().ends_with("it is neither a program nor a script that begins with '#!'"), "{trouble}");
}

fn a_missing_interpreter_is_said() {
    let stand_in = StandIn::empty();
    stand_in.write("#!/nonexistent/interpreter\n", 0o755);
    assert!(trouble(&stand_in).to_string().contains("the interpreter in its first line is missing"));
}

fn a_name_without_a_slash_is_looked_for_in_the_path() {
    let mut stand_in = StandIn::empty();
    stand_in.settings.program = "no-such-program-anywhere".into();
    assert!(trouble(&stand_in).to_string().contains("no directory of PATH"));
    // Found, run, and its output judged.
    stand_in.settings.program = "true".into();
    assert!(matches!(trouble(&stand_in), Trouble::Garbage { .. }));
}

fn the_arguments_arrive_in_the_only_order_that_cta_understands() {
    let mut stand_in = StandIn::script("printf '%s\\n' \"$@\" >\"$D/args\"; echo '[]'");
    stand_in.settings.user_config = Some("/etc/cta/user one.conf".into());
    stand_in.settings.repack_config = Some("/etc/cta/repack.conf".into());
    block_on(stand_in.cta().list::<Value>(&Query::Tape("V01007".parse().unwrap()))).unwrap();
    assert_eq!(stand_in.read("args"), "--json\n--config\n/etc/cta/user one.conf\ntape\nls\n--vid\nV01007\n");
    block_on(stand_in.cta().list::<Value>(&Query::Repacks)).unwrap();
    assert_eq!(stand_in.read("args"), "--json\n--config\n/etc/cta/repack.conf\nrepack\nls\n");
    stand_in.settings.repack_config = None;
    block_on(stand_in.cta().list::<Value>(&Query::Repacks)).unwrap();
    assert_eq!(stand_in.read("args"), "--json\nrepack\nls\n");
}

fn the_client_is_told_to_give_up_just_before_we_do_and_reads_nothing() {
    for (limit, expected) in [(120_000, "119"), (2_500, "2"), (1_000, "1"), (900, "1")] {
        let stand_in = StandIn::script("cat >\"$D/stdin\"; echo \"$XRD_REQUESTTIMEOUT\" >\"$D/limit\"; echo '[]'");
        let stand_in = stand_in.timeout(Duration::from_millis(limit));
        list(&stand_in).unwrap();
        assert_eq!(stand_in.read("limit").trim(), expected);
        assert_eq!(stand_in.read("stdin"), "");
    }
}

fn nothing_of_ours_is_open_in_the_program() {
    let stand_in = StandIn::script("readlink /proc/$$/fd/* >\"$D/fds\"; echo '[]'");
    let _held = hold(stand_in.directory.path());
    list(&stand_in).unwrap();
    let (fds, held) = (stand_in.read("fds"), stand_in.read("held"));
    assert!(fds.contains("/cta-admin") && held.starts_with("socket:"), "{fds} {held}");
    assert!(!fds.contains(&held) && !fds.contains("/held"), "{fds} {held}");
}

fn dropping_the_future_ends_the_program_with_all_it_started_and_leaves_no_zombie() {
    let stand_in = StandIn::script("exec 3>\"$D/alive\"; echo $$ >&3; sleep 1000 & sleep 1000");
    let alive = stand_in.fifo("alive");
    let cta = stand_in.cta();
    block_on(async move {
        let (pid, rest) = {
            let running = tokio::spawn(async move { cta.list::<Value>(&Query::Tapes).await });
            let started = tokio::task::spawn_blocking(move || {
                let mut reader = open(&alive);
                (line(&mut reader), reader)
            });
            let started = started.await.unwrap();
            running.abort();
            assert!(running.await.unwrap_err().is_cancelled());
            started
        };
        tokio::task::spawn_blocking(move || until_all_are_gone(rest)).await.unwrap();
        let reaped = async {
            while std::path::Path::new(&format!("/proc/{pid}")).exists() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), reaped).await.expect("it stays a zombie");
    });
}

fn what_takes_the_objects_can_stop_the_list_and_the_program() {
    let stand_in = StandIn::script("exec 3>\"$D/alive\"; printf '[{\"n\":1},{\"n\":2}'; sleep 1000");
    let alive = stand_in.fifo("alive");
    let watch = std::thread::spawn(move || until_all_are_gone(open(&alive)));
    let seen = Arc::new(Mutex::new(0));
    let count = Arc::clone(&seen);
    let take = move |_: Value| {
        *count.lock().unwrap() += 1;
        anyhow::bail!("disk full")
    };
    let started = Instant::now();
    match block_on(stand_in.cta().each(&Query::Tapes, take)) {
        Err(Trouble::Stopped { cause, .. }) => assert_eq!(cause.to_string(), "disk full"),
        other => panic!("{other:?}"),
    }
    assert_eq!(*seen.lock().unwrap(), 1);
    assert!(started.elapsed() < Duration::from_secs(30), "the program was waited for");
    watch.join().unwrap();
}

fn a_long_list_is_counted_whole_whatever_the_size_of_the_pieces() {
    let stand_in = StandIn::script(
        "printf '['; i=0; while [ $i -lt 3000 ]; do [ $i -gt 0 ] && printf ','; printf '{\"n\":\"%s]}\\\\\"\"}' $i; i=$((i+1)); done; echo ']'",
    );
    let sum = Arc::new(Mutex::new(0_u64));
    let add = Arc::clone(&sum);
    let take = move |object: Value| {
        let n: u64 = object["n"].as_str().unwrap().trim_end_matches("]}\"").parse()?;
        *add.lock().unwrap() += n;
        Ok(())
    };
    assert_eq!(block_on(stand_in.cta().each(&Query::Tapes, take)).unwrap(), 3000);
    assert_eq!(*sum.lock().unwrap(), 2999 * 3000 / 2);
}

fn repacks_and_version_are_read_as_types() {
    let stand_in = StandIn::printing(include_str!("../../src/cta/fixtures/repack_ls.json"), "");
    assert!(!block_on(stand_in.cta().list::<Repack>(&Query::Repacks)).unwrap().is_empty());
    let version = include_str!("../../src/cta/fixtures/version.json");
    let stand_in = StandIn::printing(version, "");
    let version = block_on(stand_in.cta().version(Frontend::Repack)).unwrap();
    assert_eq!(version.server_version.cta_version, "5.11.20.0-1");
}

fn a_version_that_is_not_exactly_one_object_is_garbage() {
    let one = include_str!("../../src/cta/fixtures/version.json").trim().trim_matches(['[', ']']);
    for output in ["[]".to_owned(), format!("[{one},{one}]")] {
        let stand_in = StandIn::printing(&output, "");
        match block_on(stand_in.cta().version(Frontend::User)) {
            Err(Trouble::Garbage { .. }) => {}
            other => panic!("{other:?}"),
        }
    }
}

fn a_killed_program_is_gone_when_the_answer_is_there() {
    let stand_in = StandIn::script("echo $$ >\"$D/pid\"; exec sleep 1000").timeout(SHORT);
    assert!(matches!(trouble(&stand_in), Trouble::Silent { .. }));
    assert!(!lives(stand_in.read("pid").trim()));
}

tests! {
    a_complete_list_is_a_list,
    an_empty_array_with_exit_2_is_a_refusal_and_no_empty_list,
    a_complete_list_with_exit_1_is_none,
    any_other_exit_is_a_failure,
    a_signal_is_a_failure_whatever_was_printed,
    a_dead_front_end_is_the_sites_trouble,
    the_grpc_build_refuses_with_exit_0,
    the_grpc_build_fails_with_exit_0_before_the_first_object_and_behind_one,
    an_exception_in_the_grpc_client_is_a_failure,
    what_is_not_one_whole_array_is_garbage_with_exit_0,
    an_object_that_lacks_what_we_need_is_garbage_and_named,
    bytes_that_are_no_text_in_a_comment_do_not_make_the_list_unreadable,
    bytes_that_are_no_text_outside_a_string_are_garbage,
    an_object_without_end_is_garbage_before_it_fills_the_memory,
    garbage_without_end_is_cut_off_and_the_program_killed,
    a_silent_program_is_killed_with_all_it_started,
    a_program_that_never_stops_talking_is_killed_at_the_limit_for_the_whole_list,
    the_limit_on_silence_does_not_limit_the_whole_list,
    a_program_that_closed_its_output_and_stays_is_bounded_too,
    a_grandchild_that_holds_the_output_open_is_bounded_too,
    a_flood_of_error_text_neither_blocks_nor_fills_the_memory,
    the_first_lines_of_the_error_text_are_kept_and_made_harmless,
    a_program_that_is_not_there_cannot_be_run,
    a_program_without_permission_cannot_be_run,
    a_directory_cannot_be_run,
    a_text_without_an_interpreter_is_not_run_as_a_script,
    a_missing_interpreter_is_said,
    a_name_without_a_slash_is_looked_for_in_the_path,
    the_arguments_arrive_in_the_only_order_that_cta_understands,
    the_client_is_told_to_give_up_just_before_we_do_and_reads_nothing,
    nothing_of_ours_is_open_in_the_program,
    dropping_the_future_ends_the_program_with_all_it_started_and_leaves_no_zombie,
    what_takes_the_objects_can_stop_the_list_and_the_program,
    a_long_list_is_counted_whole_whatever_the_size_of_the_pieces,
    repacks_and_version_are_read_as_types,
    a_version_that_is_not_exactly_one_object_is_garbage,
    a_killed_program_is_gone_when_the_answer_is_there,
}
