//! A world in a temporary directory and the program under test.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use cta_sim::{Entry, World};
use serde_json::Value;

/// A world that is removed at the end, whatever still hangs in it ends then.
pub struct Site {
    root: tempfile::TempDir,
}

/// What one invocation did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    pub code: Option<i32>,
    pub signal: Option<i32>,
    pub stdout: Vec<u8>,
    pub stderr: String,
}

impl Reply {
    #[allow(dead_code, reason = "each test file uses some of it")]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    /// The rows of a successful `--json` list.
    pub fn rows(&self) -> Vec<Value> {
        assert_eq!(self.code, Some(0), "{self:?}");
        serde_json::from_slice(&self.stdout).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

#[expect(dead_code, reason = "each test file uses some of it")]
impl Site {
    pub fn new(world: &World) -> Site {
        let root = tempfile::tempdir().unwrap();
        world.create(&root.path().join("world")).unwrap();
        Site { root }
    }

    pub fn dir(&self) -> PathBuf {
        self.root.path().join("world")
    }

    pub fn file(&self, name: &str, content: &str) -> PathBuf {
        let path = self.root.path().join(name);
        std::fs::write(&path, content).unwrap();
        path
    }

    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_cta-admin"));
        command.args(args).env("CTA_SIM_WORLD", self.dir()).env("HOME", self.root.path()).stdin(Stdio::null());
        command
    }

    pub fn run(&self, args: &[&str]) -> Reply {
        let output = self.command(args).output().unwrap();
        Reply {
            code: output.status.code(),
            signal: std::os::unix::process::ExitStatusExt::signal(&output.status),
            stdout: output.stdout,
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }

    /// Words separated by spaces.
    pub fn go(&self, line: &str) -> Reply {
        self.run(&line.split(' ').collect::<Vec<_>>())
    }

    /// A command that must succeed.
    pub fn ok(&self, line: &str) -> Reply {
        let reply = self.go(line);
        assert_eq!((reply.code, reply.stderr.as_str()), (Some(0), ""), "{line}: {reply:?}");
        reply
    }

    /// Runs a command in the background.
    pub fn spawn(&self, line: &str) -> Child {
        self.command(&line.split(' ').collect::<Vec<_>>())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap()
    }

    pub fn rows(&self, line: &str) -> Vec<Value> {
        self.go(&format!("--json {line}")).rows()
    }

    pub fn row(&self, line: &str) -> Value {
        let mut rows = self.rows(line);
        assert_eq!(rows.len(), 1, "{line}");
        rows.remove(0)
    }

    pub fn journal(&self) -> Vec<Entry> {
        cta_sim::journal(&self.dir()).unwrap()
    }

    pub fn world(&self) -> World {
        World::load(&self.dir()).unwrap()
    }

    pub fn edit(&self, change: impl FnOnce(&mut World)) {
        World::edit(&self.dir(), change).unwrap();
    }

    /// Until the journal shows what is looked for.
    pub fn wait_for(&self, seen: impl Fn(&[Entry]) -> bool) {
        let begin = std::time::Instant::now();
        while !seen(&self.journal()) {
            assert!(begin.elapsed().as_secs() < 30, "never seen in the journal");
            std::thread::yield_now();
        }
    }
}
