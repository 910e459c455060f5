//! Runs `cta-admin`: lists as a stream under two limits, changing commands under the [guard](super::guard).

use std::collections::HashMap;
use std::ffi::OsString;
use std::marker::PhantomData;
use std::mem;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal};
use serde::de::DeserializeOwned;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::{Child, Command as Process};
use tokio::sync::mpsc::Sender;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::command::{Command, Frontend, Query, as_typed};
use super::guard::{self, Deadline, Report};
use super::reply::Version;
use super::stream::{self, Listed, Owned, Reading, Verdict};
use super::trouble::{Answer, Trouble, first_lines, how_it_ended};
use crate::metrics::Metrics;
use crate::settings;

/// Our own secrets: nothing that we start needs them.
pub const SECRETS: [&str; 2] = ["CTA_OPS_DATABASE_PASSWORD", "CTA_OPS_BROKER_PASSWORD"];

/// Bytes read at once, and how many such pieces may wait to be parsed.
const PIECE: usize = 64 << 10;
const WAITING: usize = 4;

/// Room for what most replies are: about one tape.
const REPLY: usize = 4 << 10;

/// Bytes that a pipe holds for whoever prints the list of all tapes: so much less often have both to wait for each other.
const PIPE: usize = 1 << 20;

/// How long the last words of a program that has exited may take, and a killed one to be gone.
const GRACE: Duration = Duration::from_secs(5);

/// `cta-admin`, ready to be asked. Clones are the same: they share what [`Cta::kill_all`] ends.
#[derive(Debug, Clone)]
pub struct Cta {
    settings: Arc<settings::CtaAdmin>,
    guard: Arc<Path>,
    in_flight: Arc<InFlight>,
    metrics: Option<Arc<Metrics>>,
}

impl Cta {
    /// With these settings. Changing commands are guarded by this very program, whose `main` therefore begins with
    /// [`guard::run_if_asked`].
    pub fn new(settings: &settings::CtaAdmin) -> Cta {
        Cta {
            settings: Arc::new(settings.clone()),
            // Not the path: after an upgrade that names another program, or none.
            guard: Path::new("/proc/self/exe").into(),
            in_flight: Arc::default(),
            metrics: None,
        }
    }

    /// With another program as the guard: one whose `main` begins with [`guard::run_if_asked`].
    pub fn with_guard(self, program: PathBuf) -> Cta {
        Cta { guard: program.into(), ..self }
    }

    /// The same; how long its calls take is told to `metrics`.
    pub fn measured(self, metrics: &Arc<Metrics>) -> Cta {
        Cta { metrics: Some(Arc::clone(metrics)), ..self }
    }

    fn took(&self, command: &'static str, outcome: &'static str, begun: Instant) {
        if let Some(metrics) = &self.metrics {
            metrics.cta_admin(command, outcome, begun.elapsed());
        }
    }

    /// A whole list in memory.
    ///
    /// # Errors
    /// When there is no complete list; never a part of it.
    pub async fn list<T: DeserializeOwned + Send + 'static>(&self, query: &Query) -> Result<Vec<T>, Trouble> {
        let (give, take) = std::sync::mpsc::channel();
        let keep = move |object: T| give.send(object).map_err(|_| anyhow::anyhow!("nobody collects the list"));
        self.measured_list::<Owned<T>, _>(query, keep, Where::Here).await?;
        Ok(take.into_iter().collect())
    }

    /// Hands over the objects of a list while they arrive and says how many there were. Memory stays flat.
    ///
    /// `take` runs on a thread where it may block, never after this returned or was dropped but for the object in hand.
    /// Only `Ok` says that the list was complete: until then no conclusion is to be drawn from what was handed over.
    ///
    /// # Errors
    /// When there is no complete list, or `take` failed.
    pub async fn each<T, F>(&self, query: &Query, take: F) -> Result<u64, Trouble>
    where
        T: DeserializeOwned + Send + 'static,
        F: FnMut(T) -> anyhow::Result<()> + Send + 'static,
    {
        self.each_borrowed::<Owned<T>, F>(query, take).await
    }

    /// As [`Cta::each`], with objects that may borrow from the text of the list: nothing is copied for those that `take`
    /// does not keep.
    ///
    /// # Errors
    /// As [`Cta::each`].
    pub async fn each_borrowed<L, F>(&self, query: &Query, take: F) -> Result<u64, Trouble>
    where
        L: Listed + 'static,
        F: for<'a> FnMut(L::Object<'a>) -> anyhow::Result<()> + Send + 'static,
    {
        self.measured_list::<L, F>(query, take, Where::Aside).await
    }

    async fn measured_list<L, F>(&self, query: &Query, take: F, place: Where) -> Result<u64, Trouble>
    where
        L: Listed + 'static,
        F: for<'a> FnMut(L::Object<'a>) -> anyhow::Result<()> + Send + 'static,
    {
        let begun = Instant::now();
        let listed = self.listed::<L, F>(query, take, place).await;
        let outcome = match &listed {
            Ok(_) => "ok",
            Err(Trouble::Refused { .. }) => "refused",
            Err(_) => "failed",
        };
        self.took(query.kind(), outcome, begun);
        listed
    }

    async fn listed<L, F>(&self, query: &Query, mut take: F, place: Where) -> Result<u64, Trouble>
    where
        L: Listed + 'static,
        F: for<'a> FnMut(L::Object<'a>) -> anyhow::Result<()> + Send + 'static,
    {
        let command = as_typed(self.config(query.frontend()), &query.args());
        let mut running = self.start(query)?;
        let stop = StopOnDrop::default();
        let stopped = Arc::clone(&stop.0);
        let take = move |object: L::Object<'_>| {
            anyhow::ensure!(!stopped.load(Ordering::Relaxed), "nobody waits for the list any more");
            take(object)
        };
        let mut output = Output::<L, _>::new(take, place);
        let ended = timeout(self.settings.list_timeout, running.finish(&mut output, self.settings.timeout)).await;
        running.kill().await;
        let verdict = output.verdict().await;
        let (status, stderr) = match (ended, verdict) {
            (_, Verdict::Stopped(cause)) => return Err(Trouble::Stopped { command, cause }),
            (Err(_), _) => return Err(Trouble::TooLong { command, secs: self.settings.list_timeout.as_secs_f64() }),
            (Ok(Err(Halt::Silent)), _) => {
                return Err(Trouble::Silent { command, secs: self.settings.timeout.as_secs_f64() });
            }
            (Ok(Err(Halt::Enough)), verdict) => return judge_output(command, verdict),
            (Ok(Err(Halt::Lost(error))), _) => {
                let text = format!("its output cannot be read: {error}");
                return Err(Trouble::Failed { command, exit: None, signal: None, text });
            }
            (Ok(Ok(ended)), verdict) if ended.status.success() => {
                if !ended.stderr.is_empty() {
                    let said = first_lines(&ended.stderr);
                    tracing::debug!(%command, said, "cta-admin succeeded and has something to say");
                }
                return judge_output(command, verdict);
            }
            (Ok(Ok(ended)), verdict) => {
                let found = match verdict {
                    Verdict::Garbage { found, .. } if ended.stderr.trim_ascii().is_empty() => found,
                    _ => ended.stderr,
                };
                (ended.status, found)
            }
        };
        let text = first_lines(&stderr);
        Err(match status.code() {
            Some(2) => Trouble::Refused { command, text },
            exit => Trouble::Failed { command, exit, signal: status.signal(), text },
        })
    }

    /// Which CTA this is, and whether it answers at all: the cheapest question there is.
    ///
    /// # Errors
    /// As for a list; also when the answer is not exactly one object.
    pub async fn version(&self, frontend: Frontend) -> Result<Version, Trouble> {
        let query = Query::Version(frontend);
        let mut versions = self.list(&query).await?;
        match (versions.pop(), versions.len()) {
            (Some(version), 0) => Ok(version),
            (_, others) => {
                let command = as_typed(self.config(frontend), &query.args());
                let text = if others == 0 { "no object" } else { "more than one object" }.to_owned();
                Err(Trouble::Garbage { command, text })
            }
        }
    }

    /// Runs a changing command under the guard, unless the deadline is over before it starts.
    ///
    /// The limit on the command is `cta_admin.timeout_secs`. Dropping this future does not end the command: it is in
    /// CTA's hands, and the guard goes on to its limit. Use [`Cta::kill_all`] to end it.
    pub async fn change(&self, command: &Command, deadline: Deadline) -> Answer {
        let begun = Instant::now();
        let answer = self.changed(command, deadline).await;
        let outcome = match &answer {
            Answer::Accepted => "accepted",
            Answer::Refused(_) => "refused",
            Answer::NotRun(_) => "not-run",
            Answer::Unclear(_) => "unclear",
        };
        self.took(command.kind(), outcome, begun);
        answer
    }

    async fn changed(&self, command: &Command, deadline: Deadline) -> Answer {
        if deadline.has_passed() {
            return Answer::NotRun("the deadline had passed".to_owned());
        }
        let limit = self.settings.timeout;
        let mut process = Process::new(&*self.guard);
        process
            .arg0("cta-ops-guard")
            .arg(guard::FLAG)
            .arg(deadline.nanos().to_string())
            .arg(limit.as_millis().to_string())
            .arg(&self.settings.program)
            .args(self.args(command.frontend(), command.args()));
        self.prepare(&mut process);
        process.stderr(Stdio::null());
        let child = match process.spawn() {
            Ok(child) => child,
            Err(error) => return Answer::NotRun(format!("cannot start the guard: {}", guard::cannot_start(&error))),
        };
        let ticket = InFlight::enter(&self.in_flight, &child);
        let patience = deadline.remaining().saturating_add(limit).saturating_add(GRACE);
        // On a task of its own: dropping the future must neither end the command nor make `kill_all` forget it.
        let waiting = tokio::spawn(await_guard(child, ticket, limit, patience));
        waiting.await.unwrap_or_else(|error| Answer::Unclear(format!("nobody waited for the guard: {error}")))
    }

    /// Has every changing command killed that was started from this value or its clones and still runs. They end
    /// unclear.
    pub fn kill_all(&self) {
        for (group, told) in self.in_flight.groups().iter_mut() {
            *told = true;
            let _ = rustix::process::kill_process_group(*group, Signal::KILL);
        }
    }

    fn config(&self, frontend: Frontend) -> Option<&Path> {
        match frontend {
            Frontend::User => self.settings.user_config.as_deref(),
            Frontend::Repack => self.settings.repack_config.as_deref(),
        }
    }

    /// Global options first, in the only order that CTA understands.
    fn args(&self, frontend: Frontend, args: Vec<String>) -> Vec<OsString> {
        let mut all: Vec<OsString> = vec!["--json".into()];
        if let Some(config) = self.config(frontend) {
            all.extend(["--config".into(), config.into()]);
        }
        all.extend(args.into_iter().map(OsString::from));
        all
    }

    /// What every program that we start has in common.
    fn prepare(&self, process: &mut Process) {
        process.process_group(0).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        process.env("XRD_REQUESTTIMEOUT", request_timeout(self.settings.timeout).to_string());
        for secret in SECRETS {
            process.env_remove(secret);
        }
    }

    fn start(&self, query: &Query) -> Result<Running, Trouble> {
        let cannot = |why| Trouble::NotRunnable { program: self.settings.program.clone(), why };
        let mut process = Process::new(guard::runnable(&self.settings.program).map_err(cannot)?);
        process.arg0(&self.settings.program).args(self.args(query.frontend(), query.args()));
        self.prepare(&mut process);
        let child = process.spawn().map_err(|error| cannot(guard::cannot_start(&error)))?;
        if *query == Query::Tapes
            && let Some(stdout) = &child.stdout
        {
            // Without the right to it, the pipe is as small as it was.
            let _ = rustix::pipe::fcntl_setpipe_size(stdout, PIPE);
        }
        Ok(Running(child))
    }
}

/// The most whole seconds below the limit, at least 1: the client should give up, and say why, before we do.
fn request_timeout(limit: Duration) -> u64 {
    let whole = if limit.subsec_nanos() == 0 { limit.as_secs().saturating_sub(1) } else { limit.as_secs() };
    whole.max(1)
}

/// After exit 0 only the output can tell.
fn judge_output(command: String, verdict: Verdict) -> Result<u64, Trouble> {
    const GRPC: &[u8] = b"gRPC call failed. Error code: ";
    const GRPC_CLIENT: &[u8] = b"An exception was thrown in CtaAdminClientReactor: ";
    const USER_ERROR: &str = "3 Error message: ";
    match verdict {
        Verdict::Complete(count) => Ok(count),
        Verdict::Stopped(cause) => Err(Trouble::Stopped { command, cause }),
        Verdict::Garbage { found, .. } if found.starts_with(GRPC) || found.starts_with(GRPC_CLIENT) => {
            let text = first_lines(without_closing(&found));
            let refusal = found.strip_prefix(GRPC).and_then(|rest| rest.strip_prefix(USER_ERROR.as_bytes()));
            Err(match refusal {
                Some(refusal) => Trouble::Refused { command, text: first_lines(without_closing(refusal)) },
                None => Trouble::Failed { command, exit: Some(0), signal: None, text },
            })
        }
        Verdict::Garbage { why, found } if found.is_empty() => Err(Trouble::Garbage { command, text: why }),
        Verdict::Garbage { why, found } => {
            Err(Trouble::Garbage { command, text: format!("{why}: '{}'", first_lines(&found)) })
        }
    }
}

/// Without the brackets that the gRPC build prints behind its error text.
fn without_closing(text: &[u8]) -> &[u8] {
    let text = text.trim_ascii_end();
    let text = text.strip_suffix(b"\n[]").or_else(|| text.strip_suffix(b"\n]")).unwrap_or(text);
    text.trim_ascii_end()
}

/// Tells the reader that nobody waits for it any more.
#[derive(Default)]
struct StopOnDrop(Arc<AtomicBool>);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Why a list was not read to its end.
enum Halt {
    Silent,
    /// The reader has seen enough of what is no list.
    Enough,
    Lost(std::io::Error),
}

/// A program that ended by itself.
struct Ended {
    status: ExitStatus,
    stderr: Vec<u8>,
}

/// On which thread a list is parsed, and its objects are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Where {
    /// Here, once all of it has come, unless it is longer than a [`PIECE`]: taking an object does not block.
    Here,
    /// On a thread where one may block, while it comes.
    Aside,
}

/// What a program printed: kept, or read along by a thread.
struct Output<L, F> {
    place: Where,
    first: Vec<u8>,
    rest: Option<(Sender<Vec<u8>>, JoinHandle<Verdict>)>,
    taker: Option<F>,
    as_what: PhantomData<L>,
}

impl<L, F> Output<L, F>
where
    L: Listed + 'static,
    F: for<'a> FnMut(L::Object<'a>) -> anyhow::Result<()> + Send + 'static,
{
    fn new(taker: F, place: Where) -> Output<L, F> {
        Output { place, first: Vec::new(), rest: None, taker: Some(taker), as_what: PhantomData }
    }

    /// Reads until the end of the output; `silence` is the longest pause.
    async fn pump(&mut self, mut stdout: impl AsyncRead + Unpin, silence: Duration) -> Result<(), Halt> {
        while self.place == Where::Here && self.first.len() < PIECE {
            self.first.reserve(REPLY);
            match timeout(silence, stdout.read_buf(&mut self.first)).await {
                Err(_) => return Err(Halt::Silent),
                Ok(Err(error)) => return Err(Halt::Lost(error)),
                Ok(Ok(0)) => return Ok(()),
                Ok(Ok(_)) => {}
            }
        }
        let give = self.aside().expect("nobody reads along yet");
        loop {
            let mut piece = Vec::with_capacity(PIECE);
            let read = tokio::select! {
                read = timeout(silence, stdout.read_buf(&mut piece)) => read,
                () = give.closed() => return Err(Halt::Enough),
            };
            match read {
                Err(_) => return Err(Halt::Silent),
                Ok(Err(error)) => return Err(Halt::Lost(error)),
                Ok(Ok(0)) => return Ok(()),
                Ok(Ok(_)) => give.send(piece).await.map_err(|_| Halt::Enough)?,
            }
        }
    }

    /// Has a thread read what there is and what will be sent, unless one does already.
    fn aside(&mut self) -> Option<Sender<Vec<u8>>> {
        let take = self.taker.take()?;
        let (give, pieces) = tokio::sync::mpsc::channel(WAITING);
        let first = mem::take(&mut self.first);
        if !first.is_empty() {
            give.try_send(first).expect("a new channel has room");
        }
        let reader = tokio::task::spawn_blocking(move || stream::read::<L, F>(pieces, take));
        self.rest = Some((give.clone(), reader));
        Some(give)
    }

    /// What it is, now that nothing more comes.
    async fn verdict(mut self) -> Verdict {
        if self.place == Where::Here
            && let Some(take) = self.taker.take()
        {
            let mut reading = Reading::<L, F>::new(take);
            return match reading.push(&self.first) {
                Ok(()) => reading.end(),
                Err(halted) => reading.halted(halted),
            };
        }
        drop(self.aside());
        let (give, reader) = self.rest.expect("a thread reads along");
        drop(give);
        match reader.await {
            Ok(verdict) => verdict,
            Err(error) => match error.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                Err(error) => Verdict::Stopped(error.into()),
            },
        }
    }
}

/// A program that prints a list. Killed with its process group when dropped before its end.
struct Running(Child);

impl Running {
    /// Moves the output on until the program has ended; `silence` is the longest pause.
    async fn finish<L, F>(&mut self, output: &mut Output<L, F>, silence: Duration) -> Result<Ended, Halt>
    where
        L: Listed + 'static,
        F: for<'a> FnMut(L::Object<'a>) -> anyhow::Result<()> + Send + 'static,
    {
        let stdout = self.0.stdout.take().expect("standard output is a pipe and was not taken before");
        let stderr = self.0.stderr.take().expect("standard error is a pipe and was not taken before");
        let mut said = Vec::new();
        let status = {
            let child = &mut self.0;
            let exit = async {
                output.pump(stdout, silence).await?;
                match timeout(silence, child.wait()).await {
                    Ok(Ok(status)) => Ok(status),
                    Ok(Err(error)) => Err(Halt::Lost(error)),
                    Err(_) => Err(Halt::Silent),
                }
            };
            let drain = keep_first(stderr, &mut said);
            tokio::pin!(exit, drain);
            let mut drained = false;
            let status = loop {
                tokio::select! {
                    () = &mut drain, if !drained => drained = true,
                    status = &mut exit => break status?,
                }
            };
            if !drained {
                // Something it left behind may hold the pipe open for ever.
                let _ = timeout(GRACE, drain).await;
            }
            status
        };
        Ok(Ended { status, stderr: said })
    }

    /// Ends it with its process group, if it has not ended, and waits for it to be gone.
    async fn kill(&mut self) {
        self.signal();
        let _ = timeout(GRACE, self.0.wait()).await;
    }

    fn signal(&self) {
        // There is an id only as long as it is not reaped, so the group cannot be anybody else's.
        if let Some(group) = group_of(&self.0) {
            let _ = rustix::process::kill_process_group(group, Signal::KILL);
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // The runtime reaps it.
        self.signal();
    }
}

/// Reads all, keeps the beginning.
async fn keep_first(mut pipe: impl AsyncRead + Unpin, kept: &mut Vec<u8>) {
    let mut piece = vec![0; stream::KEPT];
    while let Ok(length @ 1..) = pipe.read(&mut piece).await {
        let missing = stream::KEPT.saturating_sub(kept.len()).min(length);
        kept.extend_from_slice(&piece[..missing]);
    }
}

/// The process groups of the guards at work, and whether each was told to end.
#[derive(Debug, Default)]
struct InFlight(Mutex<HashMap<Pid, bool>>);

impl InFlight {
    fn groups(&self) -> MutexGuard<'_, HashMap<Pid, bool>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn enter(this: &Arc<InFlight>, guard: &Child) -> Ticket {
        let group = group_of(guard);
        this.groups().extend(group.map(|group| (group, false)));
        Ticket { group, of: Arc::clone(this) }
    }
}

/// A place among the guards at work, until dropped.
///
/// Invariant: given up before the guard is reaped, because then the number can become somebody else's.
struct Ticket {
    group: Option<Pid>,
    of: Arc<InFlight>,
}

impl Ticket {
    /// Gives the place up and says whether the guard was told to end.
    fn give_up(&mut self) -> bool {
        self.group.take().and_then(|group| self.of.groups().remove(&group)).unwrap_or(false)
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.give_up();
    }
}

/// Its process group, as long as it is not reaped.
fn group_of(child: &Child) -> Option<Pid> {
    child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw)
}

/// What became of the command, in the guard's words or, if it has none, in ours.
async fn await_guard(mut guard: Child, mut ticket: Ticket, limit: Duration, patience: Duration) -> Answer {
    let mut said = Vec::new();
    let stdout = guard.stdout.take().expect("the guard's standard output is a pipe and was not taken");
    let read = timeout(patience, stdout.take(64 << 10).read_to_end(&mut said)).await;
    let told = ticket.give_up();
    // It ended, or will not: nothing of it may go on.
    if let Some(group) = group_of(&guard) {
        let _ = rustix::process::kill_process_group(group, Signal::KILL);
    }
    let ended = timeout(GRACE, guard.wait()).await;
    let said = String::from_utf8_lossy(&said);
    if let Some(report) = said.lines().find_map(|line| serde_json::from_str::<Report>(line).ok()) {
        return answer(report, limit);
    }
    let started = said.lines().next() == Some(guard::STARTING);
    match (read, ended) {
        (Ok(Ok(_)), Ok(Ok(_))) if !started => {
            Answer::NotRun("the guard ended before it started the command".to_owned())
        }
        _ if told => Answer::Unclear("killed on request".to_owned()),
        (Err(_), _) => Answer::Unclear("no word from the guard in time, killed".to_owned()),
        (Ok(Err(error)), _) => Answer::Unclear(format!("no word from the guard: {error}")),
        (Ok(Ok(_)), _) => Answer::Unclear("the guard ended without a report".to_owned()),
    }
}

fn answer(report: Report, limit: Duration) -> Answer {
    let with = |how: String, text: &str| format!("{how}: {}", first_lines(text.as_bytes()));
    match report {
        Report::Exited { code: 0, .. } => Answer::Accepted,
        Report::Exited { code: 2, text } => Answer::Refused(first_lines(text.as_bytes())),
        Report::Exited { code, text } => Answer::Unclear(with(how_it_ended(Some(code), None), &text)),
        Report::Killed { signal, text } => Answer::Unclear(with(how_it_ended(None, Some(signal)), &text)),
        Report::Limit { text } => {
            Answer::Unclear(with(format!("not done after {} s, killed", limit.as_secs_f64()), &text))
        }
        Report::NotRun { why } => Answer::NotRun(why),
    }
}
