//! The guard: a changing command ends in time, whatever happens to the worker that asked for it.
//!
//! A limit that lives in the worker dies with the worker, and the kernel's parent-death signal belongs to a thread, so a
//! thread pool cannot use it. Therefore the worker starts its own program again in this hidden mode, and that small
//! process starts `cta-admin`, waits, and kills. It needs nothing from the worker any more.
//!
//! Guard and `cta-admin` are one process group, led by the guard, so both sides can end all of it at once: the guard,
//! by ending with its own group, after the limit or when `cta-admin` left something behind; the worker, when it must.
//!
//! On standard output the guard says `STARTING` before it starts anything, and one `Report` at the end. If nobody
//! listens any more, then before the start nothing is started, and after it the command goes on. `cta-admin` gets pipes
//! of the guard's own: nothing it prints can be taken for a report, and a worker's death does not reach it as SIGPIPE.
//! Signals that stop a service or a terminal session do not end the guard: whether a command in flight is killed is the
//! worker's decision.

use std::ffi::{OsStr, OsString};
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustix::io::Errno;
use rustix::process::Signal;
use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe::Receiver;
use tokio::signal::unix::{Signal as SignalStream, SignalKind, signal};
use tokio::task::JoinHandle;

/// The hidden first argument.
pub(super) const FLAG: &str = "--cta-guard";

/// Written before the program is started. A guard that ended without having said this has started nothing.
pub(super) const STARTING: &str = "cta-guard 1 starting";

/// How much of what the program says is kept.
pub(super) const KEPT: usize = 4 << 10;

/// How long the last words of a program that has exited may take: something it left behind may hold the pipe.
const LAST_WORDS: Duration = Duration::from_millis(200);

/// For people only: the worker reads the report. After a start the guard ends with its group, by SIGKILL.
const EXIT_NOT_RUN: u8 = 125;

/// An instant that also passes while the host sleeps (CLOCK_BOOTTIME): after it, a command is not started any more.
///
/// Take it *before* checking that the lease is still held. A worker that was paused between the check and the start
/// then starts nothing, however long it slept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Deadline(u64);

impl Deadline {
    /// This long from now.
    pub fn after(duration: Duration) -> Deadline {
        let nanos = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        Deadline(now().saturating_add(nanos))
    }

    /// Whether it is over.
    pub fn has_passed(self) -> bool {
        now() >= self.0
    }

    /// Time left; zero when it is over.
    pub fn remaining(self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(now()))
    }

    /// Nanoseconds of CLOCK_BOOTTIME.
    pub(super) fn nanos(self) -> u64 {
        self.0
    }
}

/// CLOCK_BOOTTIME in nanoseconds.
fn now() -> u64 {
    let time = clock_gettime(ClockId::Boottime);
    let part = |part: i64| u64::try_from(part).unwrap_or(0);
    part(time.tv_sec).saturating_mul(1_000_000_000).saturating_add(part(time.tv_nsec))
}

/// How it ended, as the guard saw it. One line of JSON.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Report {
    /// It exited.
    Exited { code: i32, text: String },
    /// A signal that was not ours ended it.
    Killed { signal: i32, text: String },
    /// Killed with its process group at the limit.
    Limit { text: String },
    /// Never started.
    NotRun { why: String },
}

/// Becomes the guard if the program was started as one, and never comes back from that: the exit code is the whole
/// answer. To be called first thing in every `main`.
pub fn run_if_asked() -> Option<ExitCode> {
    let mut args = std::env::args_os().skip(1);
    (args.next()? == FLAG).then(|| ExitCode::from(run(args)))
}

fn run(args: impl Iterator<Item = OsString>) -> u8 {
    let report = match Order::parse(args) {
        Some(order) => tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .and_then(|runtime| runtime.block_on(order.carry_out())),
        None => Ok(not_run("the guard was started with arguments it does not understand")),
    };
    let report = report.unwrap_or_else(|error| not_run(&format!("the guard cannot work: {error}")));
    // The worker may be gone; then nobody needs to know.
    let _ = say(&serde_json::to_string(&report).unwrap_or_default());
    if !matches!(report, Report::NotRun { .. }) {
        // At the limit that is the command; else what it left behind, which must not act later.
        let _ = rustix::process::kill_current_process_group(Signal::KILL);
    }
    EXIT_NOT_RUN
}

fn not_run(why: &str) -> Report {
    Report::NotRun { why: why.to_owned() }
}

fn say(line: &str) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    writeln!(stdout, "{line}")?;
    stdout.flush()
}

/// What the worker asked for.
struct Order {
    deadline: Deadline,
    limit: Duration,
    program: OsString,
    args: Vec<OsString>,
}

impl Order {
    /// From the arguments: deadline in nanoseconds of CLOCK_BOOTTIME, limit in milliseconds, program, its arguments.
    fn parse(mut args: impl Iterator<Item = OsString>) -> Option<Order> {
        let mut number = || args.next()?.to_str()?.parse::<u64>().ok();
        let deadline = Deadline(number()?);
        let limit = Duration::from_millis(number()?);
        Some(Order { deadline, limit, program: args.next()?, args: args.collect() })
    }

    /// Starts the program, watches it, reports. An error means that nothing was started.
    async fn carry_out(self) -> io::Result<Report> {
        // The worker started us so; who starts us by hand must not be killed with us.
        if rustix::process::getpgrp() != rustix::process::getpid() {
            rustix::process::setpgid(None, None)?;
        }
        let mut signals = Signals::take()?;
        let program = match runnable(Path::new(&self.program)) {
            Ok(program) => program,
            Err(why) => return Ok(Report::NotRun { why }),
        };
        say(STARTING)?;
        let mut child = match self.start(&program) {
            Ok(child) => child,
            Err(error) if error.raw_os_error() == Some(Errno::TIME.raw_os_error()) => {
                return Ok(not_run("the deadline had passed"));
            }
            Err(error) => return Ok(Report::NotRun { why: cannot_start(&error) }),
        };
        let end = Deadline::after(self.limit);
        let (said, drains) = listen(&mut child);
        let Some(status) = watch(&mut child, end, &mut signals).await else {
            return Ok(Report::Limit { text: said.text() });
        };
        let _ = tokio::time::timeout(LAST_WORDS, async {
            for drain in drains {
                let _ = drain.await;
            }
        })
        .await;
        let text = said.text();
        Ok(match status.code() {
            Some(code) => Report::Exited { code, text },
            None => Report::Killed { signal: status.signal().unwrap_or(0), text },
        })
    }

    fn start(&self, program: &Path) -> io::Result<Child> {
        let mut command = Command::new(program);
        command.args(&self.args).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let guard = rustix::process::getpid();
        let deadline = self.deadline;
        let last = move || {
            // Set by the guard's main thread, which lives as long as the guard.
            rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
            if rustix::process::getppid() != Some(guard) {
                return Err(Errno::SRCH.into());
            }
            // Invariant: the last thing before the exec.
            if deadline.has_passed() {
                return Err(Errno::TIME.into());
            }
            Ok(())
        };
        #[expect(
            unsafe_code,
            reason = "between fork and exec: only prctl, getppid, clock_gettime; no memory, no locks"
        )]
        unsafe {
            command.pre_exec(last);
        }
        command.spawn()
    }
}

/// How the program ended; none if the limit is over. If it cannot be watched, it is at its limit.
async fn watch(child: &mut Child, end: Deadline, signals: &mut Signals) -> Option<ExitStatus> {
    loop {
        match child.try_wait() {
            Ok(None) => {}
            Ok(status) => return status,
            Err(_) => return None,
        }
        if end.has_passed() {
            return None;
        }
        // Timers of the runtime stand still while the host sleeps, so the clock that does not is asked every second.
        let nap = end.remaining().min(Duration::from_secs(1));
        let _ = tokio::time::timeout(nap, signals.child.recv()).await;
    }
}

/// Handlers, so that none of these signals ends the guard. What it starts gets the usual actions back.
struct Signals {
    child: SignalStream,
    _ignored: [SignalStream; 4],
}

impl Signals {
    fn take() -> io::Result<Signals> {
        Ok(Signals {
            child: signal(SignalKind::child())?,
            _ignored: [
                signal(SignalKind::terminate())?,
                signal(SignalKind::interrupt())?,
                signal(SignalKind::hangup())?,
                signal(SignalKind::quit())?,
            ],
        })
    }
}

/// What the program says, as far as it is kept.
#[derive(Clone, Default)]
struct Said {
    stderr: Arc<Mutex<Vec<u8>>>,
    stdout: Arc<Mutex<Vec<u8>>>,
}

impl Said {
    /// Standard error, or if that is empty standard output.
    fn text(&self) -> String {
        let of = |kept: &Mutex<Vec<u8>>| {
            let kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
            String::from_utf8_lossy(&kept).trim().to_owned()
        };
        let stderr = of(&self.stderr);
        if stderr.is_empty() { of(&self.stdout) } else { stderr }
    }
}

/// Begins to read what it says. A pipe that cannot be read is left alone: the command matters more than its words.
fn listen(child: &mut Child) -> (Said, Vec<JoinHandle<()>>) {
    let said = Said::default();
    let pipes = [
        (child.stderr.take().map(OwnedFd::from), Arc::clone(&said.stderr)),
        (child.stdout.take().map(OwnedFd::from), Arc::clone(&said.stdout)),
    ];
    let readable = |(pipe, kept): (Option<OwnedFd>, _)| Some((Receiver::from_owned_fd(pipe?).ok()?, kept));
    let drains = pipes.into_iter().filter_map(readable).map(|(pipe, kept)| tokio::spawn(drain(pipe, kept))).collect();
    (said, drains)
}

async fn drain(mut pipe: Receiver, kept: Arc<Mutex<Vec<u8>>>) {
    let mut piece = vec![0; KEPT];
    while let Ok(length @ 1..) = pipe.read(&mut piece).await {
        let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
        let missing = KEPT.saturating_sub(kept.len()).min(length);
        kept.extend_from_slice(&piece[..missing]);
    }
}

/// The file that will be executed, if there is one and it can be.
///
/// Some C libraries hand a file without a known beginning to `/bin/sh`. A text that was put in the wrong place must not
/// run as a script, so such a file is refused here.
///
/// # Errors
/// In words, when there is no such program or it cannot be executed.
pub(super) fn runnable(program: &Path) -> Result<PathBuf, String> {
    let path = find(program)?;
    let executable = rustix::fs::access(&path, rustix::fs::Access::EXEC_OK);
    let metadata = std::fs::metadata(&path).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => "there is no such file".to_owned(),
        _ => cannot_start(&error),
    })?;
    if !metadata.is_file() {
        return Err("it is not a file".to_owned());
    }
    executable.map_err(|error| cannot_start(&error.into()))?;
    let mut start = Vec::new();
    // A program may be executable and not readable.
    if let Ok(file) = std::fs::File::open(&path) {
        file.take(4).read_to_end(&mut start).map_err(|error| cannot_start(&error))?;
        if !start.starts_with(b"#!") && start != b"\x7fELF" {
            return Err("it is neither a program nor a script that begins with '#!'".to_owned());
        }
    }
    Ok(path)
}

/// As a shell finds it: a name without a slash in the directories of PATH.
fn find(program: &Path) -> Result<PathBuf, String> {
    if program.as_os_str().is_empty() {
        return Err("no program is configured".to_owned());
    }
    if program.as_os_str().as_encoded_bytes().contains(&b'/') {
        return Ok(program.to_owned());
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let is_there = |directory: PathBuf| Some(directory.join(program)).filter(|path| path.is_file());
    std::env::split_paths(OsStr::new(&path))
        .find_map(is_there)
        .ok_or_else(|| "no directory of PATH has a program of this name".to_owned())
}

/// An error of the operating system when starting a program, with what it means here.
pub(super) fn cannot_start(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => "there is no such file, or the interpreter in its first line is missing".to_owned(),
        io::ErrorKind::PermissionDenied => "no permission to execute it".to_owned(),
        _ => error.to_string().to_lowercase(),
    }
}
