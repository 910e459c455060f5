//! `cta-admin` as real child processes: shell scripts that play every way in which it can behave.
//!
//! This test has a `main` of its own (`harness = false`), because a changing command is guarded by the very program
//! that asks for it: the program under test is this one, re-executed as the guard or as a worker that a test kills.
//! Nothing else has to be built first.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod cta {
    pub mod changes;
    pub mod lists;
    pub mod stand_in;
}

use std::process::ExitCode;

/// Name and body of every test.
type Tests = &'static [(&'static str, fn())];

/// Makes the table from the names, so that none has a name of its own.
macro_rules! tests {
    ($($name:ident,)*) => {
        pub const TESTS: crate::Tests = &[$((concat!(module_path!(), "::", stringify!($name)), $name as fn())),*];
    };
}
pub(crate) use tests;

/// What cargo's runners expect of a test program: a list of the tests, one by its exact name, or all that match.
fn main() -> ExitCode {
    if let Some(code) = common::cta::guard::run_if_asked() {
        return code;
    }
    if let Some(code) = cta::stand_in::worker_if_asked() {
        return code;
    }
    let args: Vec<String> = std::env::args().skip(1).collect();
    let has = |flag: &str| args.iter().any(|arg| arg == flag);
    let words: Vec<&String> = args.iter().filter(|arg| !arg.starts_with('-')).collect();
    let wanted = |name: &str| match words.as_slice() {
        // `--format terse` and the like.
        _ if has("--list") => true,
        [] => true,
        words if has("--exact") => words.iter().any(|word| *word == name),
        words => words.iter().any(|word| name.contains(word.as_str())),
    };
    let all = [cta::lists::TESTS, cta::changes::TESTS].concat();
    if has("--ignored") {
        return ExitCode::SUCCESS;
    }
    // What waits for a process to end would wait for ever if it does not: that is a failure too.
    std::thread::spawn(|| {
        std::thread::sleep(std::time::Duration::from_secs(300));
        eprintln!("a test does not come to its end");
        std::process::exit(101);
    });
    let mut failed = 0;
    for (name, test) in all.into_iter().filter(|(name, _)| wanted(name)) {
        if has("--list") {
            println!("{name}: test");
        } else if std::panic::catch_unwind(test).is_ok() {
            println!("test {name} ... ok");
        } else {
            println!("test {name} ... FAILED");
            failed += 1;
        }
    }
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
