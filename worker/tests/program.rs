//! The worker as it is started: bad input and exit codes.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::path::Path;
use std::process::{Command, Stdio};

fn run(config: &Path, args: &[&str]) -> (Option<i32>, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_cta-ops-repack-worker"))
        .args(args)
        .env("CTA_OPS_CONFIG", config)
        .env_remove("RUST_LOG")
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert!(output.stdout.is_empty());
    (output.status.code(), String::from_utf8(output.stderr).unwrap())
}

#[test]
fn without_a_configuration_or_with_wrong_arguments_it_is_misuse() {
    let home = tempfile::tempdir().unwrap();
    let config = home.path().join("none.yaml");
    let (exit, stderr) = run(&config, &[]);
    assert_eq!(exit, Some(2));
    assert!(stderr.contains("none.yaml"), "{stderr}");
    let (exit, stderr) = run(&config, &["--stages", "begin"]);
    assert_eq!(exit, Some(2));
    assert!(stderr.contains("begin") && stderr.contains("quarantine"), "{stderr}");
}

#[test]
fn without_a_broker_section_there_is_no_worker_and_it_says_why() {
    let home = tempfile::tempdir().unwrap();
    let config = home.path().join("config.yaml");
    let log = home.path().join("log");
    let text = format!(
        "tools:\n  cta-ops-repack-automation:\n    logging: {{log_dir: {}}}\n    \
         database: {{username: u, password: geheim, name: n, host: 127.0.0.1, port: 1}}\n",
        log.display()
    );
    std::fs::write(&config, text).unwrap();
    let (exit, stderr) = run(&config, &[]);
    assert_eq!(exit, Some(2), "{stderr}");
    assert!(stderr.contains("broker") && !stderr.contains("geheim"), "{stderr}");
}
