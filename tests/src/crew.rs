//! Our programs as processes of their own, kept running like a service manager does, while a test kills, stops and ends them.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Instant;

use rustix::process::{Pid, Signal, kill_process};

use crate::site::{PATIENCE, Site};

/// The worker's name.
pub const WORKER: &str = "cta-ops-repack-worker";

/// As many processes of a kind as may be there at once, those that are stopped included.
const MOST: usize = 24;

/// Bytes of what the programs said that a test that fails shows.
const SHOWN: usize = 16 * 1024;

/// Processes of one kind: as many as wanted are always running; one that ended is started again, and beside one that is
/// stopped runs another. All end when this is dropped, also with the test; what they said last is shown if it failed.
#[derive(Debug)]
pub struct Crew {
    wanted: usize,
    command: Command,
    members: Vec<Child>,
    started: usize,
    said: File,
    /// How those ended that ended.
    pub ended: Vec<ExitStatus>,
}

impl Crew {
    /// As many processes of this command.
    ///
    /// # Panics
    /// When it cannot be started.
    pub fn of(wanted: usize, command: Command) -> Crew {
        let mut command = mortal(&command);
        let said = tempfile::tempfile().expect("a file for what they say");
        command.stdin(Stdio::null()).stdout(Stdio::null());
        let mut crew = Crew { wanted, command, members: Vec::new(), started: 0, said, ended: Vec::new() };
        crew.keep();
        crew
    }

    /// As many worker processes of a site, each with one tape in hand, with these fail points.
    ///
    /// # Panics
    /// As [`Crew::of`].
    pub fn workers(site: &Site, wanted: usize, armed: &str) -> Crew {
        let mut command = site.command(WORKER);
        command.args(["--concurrency", "1"]).env("CTA_OPS_FAILPOINT", armed);
        Crew::of(wanted, command)
    }

    /// As many producer processes of a site, ticking for ever, with these fail points.
    ///
    /// # Panics
    /// As [`Crew::of`].
    pub fn producers(site: &Site, wanted: usize, armed: &str) -> Crew {
        let mut command = site.command(crate::shell::PRODUCER);
        command.arg("run").env("CTA_OPS_FAILPOINT", armed);
        Crew::of(wanted, command)
    }

    /// Buries the dead and starts who is missing.
    ///
    /// # Panics
    /// When none can be started.
    pub fn keep(&mut self) {
        let ended = &mut self.ended;
        self.members.retain_mut(|child| match child.try_wait().expect("a child") {
            Some(status) => {
                ended.push(status);
                false
            }
            None => true,
        });
        let mut running = self.members.iter().filter(|child| !is_stopped(child.id())).count();
        while running < self.wanted && self.members.len() < MOST {
            self.command.stderr(self.said.try_clone().expect("a file"));
            self.members.push(self.command.spawn().expect("the program is started"));
            self.started += 1;
            running += 1;
        }
    }

    /// Numbers of the processes.
    pub fn pids(&self) -> Vec<u32> {
        self.members.iter().map(Child::id).collect()
    }

    /// How many were started in all.
    pub fn started(&self) -> usize {
        self.started
    }

    /// How many ended by this signal.
    pub fn ended_by(&self, signal: Signal) -> usize {
        self.ended.iter().filter(|status| status.signal() == Some(signal.as_raw())).count()
    }

    /// How many ended by themselves with another exit code than 0.
    pub fn failed(&self) -> usize {
        self.ended.iter().filter(|status| status.code().is_some_and(|code| code != 0)).count()
    }

    /// What they wrote to standard error so far.
    pub fn said(&self) -> String {
        let mut said = Vec::new();
        let mut at = 0;
        let mut part = [0; 8192];
        // The place where they write is theirs.
        while let Ok(read @ 1..) = self.said.read_at(&mut part, at) {
            said.extend_from_slice(&part[..read]);
            at += read as u64;
        }
        String::from_utf8_lossy(&said).into_owned()
    }

    /// Tells all to end, and waits until they have finished what they had in hand.
    ///
    /// # Panics
    /// When one does not, or fails.
    pub fn end(mut self) {
        for child in &self.members {
            signal(child.id(), Signal::TERM);
            signal(child.id(), Signal::CONT);
        }
        let begun = Instant::now();
        for mut child in std::mem::take(&mut self.members) {
            loop {
                if let Some(status) = child.try_wait().expect("a child") {
                    assert_eq!(status.code(), Some(0), "told to end, it ended otherwise");
                    break;
                }
                if begun.elapsed() > PATIENCE {
                    let _ = child.kill();
                    panic!("a program does not end when told to");
                }
                std::thread::sleep(std::time::Duration::from_millis(20));
            }
        }
    }
}

impl Drop for Crew {
    fn drop(&mut self) {
        for child in &mut self.members {
            let _ = child.kill();
            let _ = child.wait();
        }
        if std::thread::panicking() {
            let mut said = self.said();
            let from = (0..said.len()).find(|at| said.len() - at <= SHOWN && said.is_char_boundary(*at));
            eprintln!("{:?} said last:\n{}", self.command, said.split_off(from.unwrap_or_default()));
        }
    }
}

/// The same program, which dies with the thread that starts it: a test that is killed leaves nobody behind.
fn mortal(command: &Command) -> Command {
    let mut mortal = Command::new("setpriv");
    mortal.args(["--pdeathsig", "KILL"]).arg(command.get_program()).args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => mortal.env(name, value),
            None => mortal.env_remove(name),
        };
    }
    if let Some(directory) = command.get_current_dir() {
        mortal.current_dir(directory);
    }
    mortal
}

/// Sends a signal to a process that we started; one that is gone is no failure.
///
/// # Panics
/// When the number is none.
pub fn signal(pid: u32, signal: Signal) {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).expect("a process number");
    let _ = kill_process(pid, signal);
}

/// Whether a process is stopped now.
pub fn is_stopped(pid: u32) -> bool {
    field(pid, 0).is_some_and(|state| state == "T")
}

/// Processor time that a process has used so far, in seconds, with that of its children that have ended; 0 if it is gone.
pub fn cpu_secs(pid: u32) -> f64 {
    let ticks = |at| field(pid, at).and_then(|ticks| ticks.parse::<f64>().ok()).unwrap_or_default();
    // utime, stime, cutime, cstime, in hundredths of a second on every Linux of ours.
    (11..=14).map(ticks).sum::<f64>() / 100.0
}

/// A field of /proc/PID/stat, counted from the state.
fn field(pid: u32, at: usize) -> Option<String> {
    let text = std::fs::read_to_string(Path::new("/proc").join(pid.to_string()).join("stat")).ok()?;
    // The name, in parentheses, may hold anything.
    let rest = text.rsplit_once(')')?.1;
    rest.split_ascii_whitespace().nth(at).map(str::to_owned)
}
