//! The program as it is started, under all its names: bad input, exit codes, what is on stdout and what on stderr. No
//! database and no CTA is needed, for nothing here may come as far as that.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

const PROGRAM: &str = env!("CARGO_BIN_EXE_cta-ops-repack-producer");

struct Site {
    home: tempfile::TempDir,
}

impl Site {
    fn new() -> Site {
        let site = Site { home: tempfile::tempdir().unwrap() };
        let home = site.home.path().display();
        // Nobody listens on port 1.
        site.configure(&format!(
            "tools:\n  cta-ops-repack-automation:\n    logging: {{log_dir: {home}/log}}\n    \
             database: {{username: u, password: geheim, name: n, host: 127.0.0.1, port: 1}}\n"
        ));
        site
    }

    fn configure(&self, text: &str) {
        std::fs::write(self.config(), text).unwrap();
    }

    fn config(&self) -> PathBuf {
        self.home.path().join("config.yaml")
    }

    fn file(&self, name: &str, text: &str) -> String {
        let path = self.home.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    }

    /// Called by this name.
    fn command(&self, name: &str, args: &[&str]) -> Command {
        let program = self.home.path().join(name);
        if !program.exists() {
            std::os::unix::fs::symlink(PROGRAM, &program).unwrap();
        }
        let mut command = Command::new(program);
        command.args(args).env("CTA_OPS_CONFIG", self.config()).env_remove("RUST_LOG").stdin(Stdio::null());
        command
    }

    fn run(&self, name: &str, args: &[&str]) -> Ran {
        Ran::of(self.command(name, args).output().unwrap())
    }

    fn run_with_stdin(&self, name: &str, args: &[&str], stdin: &str) -> Ran {
        let mut child = self
            .command(name, args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(stdin.as_bytes()).unwrap();
        Ran::of(child.wait_with_output().unwrap())
    }
}

struct Ran {
    exit: Option<i32>,
    stdout: String,
    stderr: String,
}

impl Ran {
    fn of(output: Output) -> Ran {
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        let ran = Ran { exit: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) };
        assert!(!ran.stderr.contains("panicked") && !ran.stderr.contains("geheim"), "{}", ran.stderr);
        ran
    }

    #[track_caller]
    fn ended(&self, exit: i32, on_stderr: &str) {
        assert_eq!(self.exit, Some(exit), "stderr: {}", self.stderr);
        assert!(self.stderr.contains(on_stderr), "'{on_stderr}' is not in: {}", self.stderr);
        assert_eq!(self.stdout, "");
    }
}

#[test]
fn without_a_configuration_every_command_is_misuse_and_says_where_it_looked() {
    let site = Site::new();
    std::fs::remove_file(site.config()).unwrap();
    for name in producer::cli::aliases() {
        let args: &[&str] = if name.ends_with("prepare") { &["V01007"] } else { &[] };
        site.run(&name, args).ended(2, &site.config().display().to_string());
    }
    for verb in ["tick", "run", "scan", "monitor"] {
        site.run("cta-ops-repack-producer", &[verb, "-C", "/no/such/file"]).ended(2, "/no/such/file");
    }
}

#[test]
fn a_configuration_that_is_no_file_or_no_text_is_misuse() {
    let site = Site::new();
    let home = site.home.path().display().to_string();
    site.run("cta-ops-repack-0-scan", &["-C", &home]).ended(2, &home);
    std::fs::write(site.config(), b"\xff\xfe").unwrap();
    site.run("cta-ops-repack-0-scan", &[]).ended(2, "UTF-8");
}

#[test]
fn every_problem_of_the_configuration_has_a_line() {
    let site = Site::new();
    site.configure(
        "tools:\n  cta-ops-repack-automation:\n    max_active_repacks: many\n    quarantine_dayz: 31\n    \
         database: {repack_table_name: \"x'; DROP\"}\n",
    );
    let ran = site.run("cta-ops-repack-2-start", &[]);
    ran.ended(2, "max_active_repacks");
    for key in ["max_active_repacks", "quarantine_dayz", "repack_table_name"] {
        assert_eq!(ran.stderr.lines().filter(|line| line.contains(key)).count(), 1, "{key}: {}", ran.stderr);
    }
}

#[test]
fn what_is_no_vid_is_misuse_and_named_before_anything_is_connected_to() {
    let site = Site::new();
    for (args, named) in [
        (&["V01007", "V01007;rm"][..], "'V01007;rm'"),
        (&["--", "--all"], "'--all'"),
        (&["--all"], "--all"),
        (&[""], "''"),
        (&["V01007 V01008"], "V01007 V01008"),
        (&["../etc"], "../etc"),
    ] {
        site.run("cta-ops-repack-1-prepare", args).ended(2, named);
    }
    let file = site.file("vids", "V01007\nV01008;rm V01009$x\n");
    let ran = site.run("cta-ops-repack-1-prepare", &["--vidfile", &file]);
    ran.ended(2, "V01008;rm");
    assert!(ran.stderr.contains("V01009$x"), "{}", ran.stderr);
    site.run_with_stdin("cta-ops-repack-1-prepare", &["-"], "V01007 --all").ended(2, "--all");
}

#[test]
fn a_lower_case_vid_is_a_vid() {
    // It comes as far as the database, which is away.
    Site::new().run("cta-ops-repack-1-prepare", &["v01007"]).ended(1, "PostgreSQL");
}

#[test]
fn no_tape_at_all_an_empty_vidfile_and_a_missing_one_are_misuse() {
    let site = Site::new();
    site.run("cta-ops-repack-1-prepare", &[]).ended(2, "VID");
    let empty = site.file("vids", "# later\n\n");
    site.run("cta-ops-repack-1-prepare", &["--vidfile", &empty]).ended(2, "names no tape");
    site.run("cta-ops-repack-1-prepare", &["--vidfile", "/no/such/file"]).ended(2, "/no/such/file");
}

#[test]
fn an_empty_scan_before_the_pipe_is_nothing_to_do() {
    let site = Site::new();
    site.run_with_stdin("cta-ops-repack-1-prepare", &["-"], "").ended(0, "nothing to do");
    let ran = site.run_with_stdin("cta-ops-repack-1-prepare", &["-", "--json"], "\n");
    assert_eq!(ran.exit, Some(0));
    let object: serde_json::Value = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!((&object["stage"], &object["considered"]), (&"prepare".into(), &0.into()));
}

#[test]
fn an_unknown_priority_is_misuse_and_the_known_ones_are_named() {
    let site = Site::new();
    let ran = site.run("cta-ops-repack-1-prepare", &["--priority", "77", "V01007"]);
    ran.ended(2, "priority 77");
    assert!(ran.stderr.contains("10, 11, 49, 50"), "{}", ran.stderr);
    site.run("cta-ops-repack-1-prepare", &["--priority", "-1", "V01007"]).ended(2, "priority -1");
}

#[test]
fn with_the_database_away_a_command_fails_and_prints_no_data() {
    let site = Site::new();
    for (name, args) in [
        ("cta-ops-repack-0-scan", &[][..]),
        ("cta-ops-repack-0-scan", &["--explain", "--json"]),
        ("cta-ops-repack-1-prepare", &["V01007", "--dry-run", "--json"]),
        ("cta-ops-repack-monitor", &["--stdout"]),
    ] {
        site.run(name, args).ended(1, "PostgreSQL at 127.0.0.1:1/n");
    }
    assert!(!site.home.path().join("log/cta-ops-repack-automation-json.log").exists());
}

#[test]
fn a_reader_of_stdout_that_has_gone_away_is_no_failure() {
    let site = Site::new();
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let output = site.command("cta-ops-repack-1-prepare", &["-", "--json"]).stdout(writer).output().unwrap();
    Ran::of(output).ended(0, "");
}

#[test]
fn a_full_device_behind_stdout_is_a_failure() {
    let site = Site::new();
    if !Path::new("/dev/full").exists() {
        panic!("this test needs /dev/full");
    }
    let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let output = site.command("cta-ops-repack-1-prepare", &["-", "--json"]).stdout(full).output().unwrap();
    Ran::of(output).ended(1, "stdout");
}

#[test]
fn help_is_data_and_misuse_is_a_remark() {
    let site = Site::new();
    let help = site.run("cta-ops-repack-5-reclaim", &["--help"]);
    assert_eq!((help.exit, help.stderr.as_str()), (Some(0), ""));
    assert!(help.stdout.contains("Usage: cta-ops-repack-5-reclaim"), "{}", help.stdout);
    site.run("cta-ops-repack-5-reclaim", &["V01007"]).ended(2, "V01007");
}
