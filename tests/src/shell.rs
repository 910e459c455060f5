//! Our programs run to their end, as from a shell.

use std::io::Write as _;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::Value;

use crate::site::{Site, program};

/// The producer's own name.
pub const PRODUCER: &str = "cta-ops-repack-producer";
/// The manager's name.
pub const MANAGER: &str = "cta-ops-repack-manager";

/// How a program ended, and what it said.
#[derive(Debug)]
pub struct Ran {
    /// Exit code; none if a signal ended it.
    pub exit: Option<i32>,
    /// Data.
    pub stdout: String,
    /// Remarks.
    pub stderr: String,
}

impl Ran {
    /// Runs a command to its end, with nothing on stdin.
    ///
    /// # Panics
    /// When it cannot be started, panicked, or printed what is no text.
    pub fn of(command: &mut Command) -> Ran {
        Ran::told(command.stdin(Stdio::null()).output().expect("the program is started"))
    }

    /// Runs a command to its end, with this text on stdin.
    ///
    /// # Panics
    /// As [`Ran::of`].
    pub fn reading(command: &mut Command, stdin: &str) -> Ran {
        let piped = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = piped.spawn().expect("the program is started");
        // One that ends without reading is judged by what it says.
        child.stdin.take().expect("it is piped").write_all(stdin.as_bytes()).ok();
        Ran::told(child.wait_with_output().expect("the program ends"))
    }

    fn told(output: Output) -> Ran {
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("programs print UTF-8");
        let ran = Ran { exit: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) };
        assert!(!ran.stderr.contains("panicked"), "{}", ran.stderr);
        ran
    }

    /// It ended with this code.
    ///
    /// # Panics
    /// Otherwise.
    #[track_caller]
    pub fn ended(&self, exit: i32) -> &Ran {
        assert_eq!(self.exit, Some(exit), "{self:?}");
        self
    }

    /// All of these words are on stderr.
    ///
    /// # Panics
    /// Otherwise.
    #[track_caller]
    pub fn saying(&self, words: &[&str]) -> &Ran {
        for word in words {
            assert!(self.stderr.contains(word), "'{word}' is not on stderr: {self:?}");
        }
        self
    }

    /// The one JSON value on stdout.
    ///
    /// # Panics
    /// When there is none, or more.
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

/// The producer under one of its names, with this configuration; no environment of ours but what the test gives it.
///
/// # Panics
/// When the link to it cannot be made.
pub fn called(directory: &Path, name: &str, configuration: &Path) -> Command {
    let mut path = program(if name.starts_with(MANAGER) { MANAGER } else { PRODUCER });
    if name != MANAGER && name != PRODUCER {
        let link = directory.join(name);
        if !link.exists() {
            symlink(&path, &link).expect("a link to the producer");
        }
        path = link;
    }
    let mut command = Command::new(path);
    command.arg("-C").arg(configuration);
    for variable in ["CTA_OPS_CONFIG", "CTA_OPS_DATABASE_PASSWORD", "CTA_OPS_BROKER_PASSWORD", "RUST_LOG"] {
        command.env_remove(variable);
    }
    command
}

/// A program of the site: the manager, the producer, or the producer under one of ATRESYS's names.
pub fn of_site(site: &Site, name: &str) -> Command {
    called(site.dir.path(), name, &site.configuration())
}

/// Every row of every table, with the transaction that wrote it: the same text before and after means that nothing was
/// written.
///
/// # Panics
/// When the database does not answer.
pub async fn dump(site: &Site) -> String {
    let client = site.database.client().await;
    let tables = "SELECT c.oid::regclass::text FROM pg_class c WHERE c.relkind IN ('r', 'p') AND c.relnamespace = 'public'::regnamespace ORDER BY 1";
    let mut dump = String::new();
    for table in client.query(tables, &[]).await.expect("the tables") {
        let table: String = table.get(0);
        let rows = format!("SELECT t.xmin::text || ' ' || to_jsonb(t)::text FROM {table} t ORDER BY 1");
        for row in client.query(&rows, &[]).await.expect("the rows") {
            dump += &format!("{table} {}\n", row.get::<_, String>(0));
        }
    }
    dump
}

/// A file in the directory of the site.
///
/// # Panics
/// When it cannot be written.
pub fn file(site: &Site, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
    let path = site.dir.path().join(name);
    std::fs::write(&path, content).expect("a file for the test");
    path
}
