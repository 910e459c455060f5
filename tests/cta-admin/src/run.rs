//! One invocation of the simulated program, and the control options the quickstart uses.

use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use rustix::fs::{FlockOperation, flock};
use rustix::process::{Signal, getpid, kill_process};

use crate::cli::{self, Format, Line};
use crate::frontend::{self, Answer, TapeFilter};
use crate::journal::{self, Effect, Entry, Kind, View};
use crate::orders::{self, Action, Matched, Order};
use crate::profile;
use crate::store::{Session, now_us};
use crate::world::{Frontend, Keyset, Late, Scheduler, Transport, World};

/// Environment variable that names the world's directory.
pub const WORLD: &str = "CTA_SIM_WORLD";

/// A hang ends by itself after this long, so that a test that forgot it leaves nothing behind.
const LONGEST_HANG: Duration = Duration::from_secs(15 * 60);

const LOST: &str = "Error from XRootD SSI Framework: [ERROR] Operation expired";
const UNREACHABLE: &str = "Error from XRootD SSI Framework: [FATAL] Connection error";

/// The whole program: `args` without the program name.
pub fn main(args: Vec<OsString>) -> ExitCode {
    let args: Vec<String> = args.into_iter().map(|arg| arg.to_string_lossy().into_owned()).collect();
    let result = match args.first().map(String::as_str) {
        Some(first) if first.starts_with("--sim-") => control(&args).map(|()| 0),
        _ => match std::env::var_os(WORLD) {
            Some(dir) => invocation(Path::new(&dir), &args),
            None => Err(anyhow!("{WORLD} is not set; this is a simulated cta-admin and needs a world")),
        },
    };
    match result {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            let _closed = writeln!(std::io::stderr(), "simulated cta-admin: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Path of the program `cta-admin`, for the tests of other crates: next to the directory of the running test.
///
/// # Errors
/// If it is not built; the error says how to.
pub fn program() -> Result<PathBuf> {
    let own = std::env::current_exe().context("finding our own program")?;
    let found = own.ancestors().skip(1).take(3).map(|dir| dir.join("cta-admin")).find(|path| path.is_file());
    found.context("no cta-admin near this program; build it with 'cargo build -p cta-sim'")
}

/// What one invocation knows about itself.
struct Invocation<'a> {
    dir: &'a Path,
    argv: &'a [String],
    line: Line,
    front: Frontend,
    start: Entry,
}

fn invocation(dir: &Path, argv: &[String]) -> Result<u8> {
    let started = now_us();
    let pid = std::process::id();
    let mut start =
        Entry { at_us: started, id: format!("{started}-{pid}"), pid, argv: argv.to_vec(), ..Entry::default() };
    let mut session = Session::open(dir)?;
    let line = match cli::parse(argv, session.world.keyset) {
        Ok(line) => line,
        Err(text) => return usage(dir, start, &text),
    };
    start.command = line.call.name();
    start.changing = line.call.changing;
    start.vid = line.call.vids().first().map(|vid| (*vid).to_owned());
    let front = match front_end(&session.world, line.config.as_deref()) {
        Ok(front) => front,
        Err(text) => return usage(dir, start, &text),
    };
    start.frontend.clone_from(&front.name);
    let (_held, overlaps) = hold_tapes(dir, &line)?;
    let order = take_order(&session, &start, argv)?;
    start.overlaps = overlaps;
    start.note = order.as_ref().map(|order| format!("order: {:?}", order.action)).unwrap_or_default();
    journal::append(dir, std::slice::from_ref(&start))?;
    let order = order.unwrap_or_default();
    if order.sleep_ms > 0 {
        session.commit()?;
        std::thread::sleep(Duration::from_millis(order.sleep_ms));
        session = Session::open(dir)?;
    }
    let this = Invocation { dir, argv, line, front, start };
    this.act(session, &order.action)
}

fn usage(dir: &Path, start: Entry, text: &str) -> Result<u8> {
    let end = Entry { kind: Kind::End, exit: Some(1), at_us: now_us(), ..start.clone() };
    journal::append(dir, &[start, end])?;
    let _closed = std::io::stderr().write_all(text.as_bytes());
    Ok(1)
}

fn take_order(session: &Session, start: &Entry, argv: &[String]) -> Result<Option<Order>> {
    let mut list = session.orders()?;
    let before = list.clone();
    let call = Matched { command: &start.command, vid: start.vid.as_deref(), frontend: &start.frontend, argv };
    let taken = orders::take(&mut list, &call);
    if list != before {
        session.set_orders(&list)?;
    }
    Ok(taken)
}

/// The front end that the configuration file leads to. The error is for stderr, exit 1.
fn front_end(world: &World, config: Option<&Path>) -> Result<Frontend, String> {
    let home = std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cta/cta-cli.conf"));
    let path = match config {
        Some(path) => path.to_owned(),
        None => match home.filter(|path| path.exists()) {
            Some(path) => path,
            None => PathBuf::from("/etc/cta/cta-cli.conf"),
        },
    };
    if config.is_none() && !path.exists() && world.default_config_ok {
        return world.frontends.first().cloned().ok_or_else(|| "the world has no front end\n".to_owned());
    }
    let Ok(text) = std::fs::read_to_string(&path) else {
        return Err(format!("Configuration error: unable to open {}\n", path.display()));
    };
    let endpoint = text.lines().find_map(|line| {
        let mut words = line.split('#').next().unwrap_or("").split_whitespace();
        (words.next() == Some("cta.endpoint")).then(|| words.next()).flatten()
    });
    let Some(endpoint) = endpoint else {
        return Err(format!("Configuration error: cta.endpoint missing from {}\n", path.display()));
    };
    let known = world.frontends.iter().find(|front| front.endpoint == endpoint);
    known.cloned().ok_or_else(|| format!("{UNREACHABLE} ({endpoint})\n"))
}

/// Locks that last as long as this process, one per tape it will change, and the process that had one already.
fn hold_tapes(dir: &Path, line: &Line) -> Result<(Vec<File>, Option<u32>)> {
    let mut held = Vec::new();
    let mut other = None;
    if !line.call.changing {
        return Ok((held, other));
    }
    let locks = dir.join("locks");
    std::fs::create_dir_all(&locks).with_context(|| format!("creating {}", locks.display()))?;
    for vid in line.call.vids() {
        let name: String = vid.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect();
        let path = locks.join(format!("tape-{name}"));
        let mut file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .open(&path)
            .with_context(|| format!("opening {}", path.display()))?;
        if flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok() {
            file.set_len(0)?;
            file.rewind()?;
            file.write_all(std::process::id().to_string().as_bytes())?;
            held.push(file);
        } else {
            let mut text = String::new();
            file.read_to_string(&mut text)?;
            other = Some(text.trim().parse().unwrap_or(0));
        }
    }
    Ok((held, other))
}

impl Invocation<'_> {
    fn act(&self, mut session: Session, action: &Action) -> Result<u8> {
        match action {
            Action::Proceed => self.work(session),
            Action::Hang => {
                session.commit()?;
                self.hang()
            }
            Action::Exit1(text) => {
                session.commit()?;
                self.end(1, b"", text, Effect::None)
            }
            Action::Exit2(text) => {
                let world = session.commit()?;
                self.end(2, self.empty_array(&world), text, Effect::None)
            }
            Action::Exit(code) => {
                session.commit()?;
                self.end(*code, b"", "", Effect::None)
            }
            Action::ApplyThenExit2(text) => {
                let (world, _, effect) = self.apply(session)?;
                self.end(2, self.empty_array(&world), text, effect)
            }
            Action::CutThenHang => {
                let (whole, _) = self.whole(session)?;
                let mut out = Sink::new();
                let _closed = out.write_all(&whole[..whole.len() / 2]);
                out.flush();
                self.hang()
            }
            Action::Trickle(ms) => {
                let (whole, effect) = self.whole(session)?;
                let mut out = Sink::new();
                for part in whole.chunks(whole.len() / 10 + 1) {
                    std::thread::sleep(Duration::from_millis(*ms));
                    let _closed = out.write_all(part);
                    out.flush();
                }
                self.end(0, b"", "", effect)
            }
            Action::Text(text) => {
                session.commit()?;
                self.end(0, text.as_bytes(), "", Effect::None)
            }
            Action::EmptyStdout => {
                session.commit()?;
                self.end(0, b"", "", Effect::None)
            }
            Action::Garbage => {
                session.commit()?;
                self.end(0, b"\xff\xfe\x00 [{\"vid\":\x80 garbage }{][\n", "", Effect::None)
            }
            Action::Huge(bytes) => {
                session.commit()?;
                self.huge(*bytes)
            }
            Action::Cut(code) => self.cut(session, *code),
            Action::ApplyThenExit1 => {
                let (_, _, effect) = self.apply(session)?;
                self.end(1, b"", LOST, effect)
            }
            Action::ApplyThenHang => {
                self.apply(session)?;
                self.hang()
            }
            Action::LateExit1(ms) => {
                self.schedule(&mut session, *ms);
                session.commit()?;
                self.end(1, b"", LOST, Effect::LateScheduled)
            }
            Action::LateHang(ms) => {
                self.schedule(&mut session, *ms);
                session.commit()?;
                self.hang()
            }
            Action::Die(signal) => {
                session.commit()?;
                die(*signal)
            }
            Action::ApplyThenDie(signal) => {
                self.apply(session)?;
                die(*signal)
            }
            Action::Grandchild(ms) => {
                self.grandchild(*ms)?;
                self.work(session)
            }
            Action::GrandchildThenHang(ms) => {
                session.commit()?;
                self.grandchild(*ms)?;
                self.hang()
            }
        }
    }

    /// Does the command, writes the world, and answers; the lock is released before anything is printed.
    fn apply(&self, mut session: Session) -> Result<(World, Answer, Effect)> {
        let call = &self.line.call;
        let before = call.vid().filter(|_| call.changing).map(|vid| View::of(&session.world, vid));
        let outcome = frontend::handle(&mut session.world, call, &self.front, session.now_us);
        if call.changing {
            let entry = Entry {
                kind: Kind::Effect,
                at_us: session.now_us,
                effect: outcome.effect,
                before,
                after: call.vid().map(|vid| View::of(&session.world, vid)),
                note: outcome.answer.message(),
                overlaps: None,
                ..self.start.clone()
            };
            self.record_each(&mut session, entry);
        }
        let world = session.commit()?;
        Ok((world, outcome.answer, outcome.effect))
    }

    /// One line per tape where several were named.
    fn record_each(&self, session: &mut Session, entry: Entry) {
        let vids: Vec<String> = self.line.call.vids().into_iter().map(str::to_owned).collect();
        if vids.len() < 2 {
            session.record(entry);
            return;
        }
        for vid in vids {
            let after = Some(View::of(&session.world, &vid));
            session.record(Entry { vid: Some(vid), before: None, after, ..entry.clone() });
        }
    }

    fn work(&self, session: Session) -> Result<u8> {
        if session.world.down || self.front.down {
            session.commit()?;
            return self.unreachable();
        }
        let (world, answer, effect) = self.apply(session)?;
        let mut out = Sink::new();
        let (code, message) = self.print(&mut out, &world, &answer);
        out.flush();
        self.end(code, b"", &message, effect)
    }

    fn is_grpc_list(&self, world: &World) -> bool {
        world.transport == Transport::Grpc && self.line.call.list
    }

    fn unreachable(&self) -> Result<u8> {
        let world = crate::store::read_world(self.dir)?;
        match world.transport {
            Transport::Xrootd => self.end(1, b"", UNREACHABLE, Effect::None),
            Transport::Grpc if self.line.call.list => {
                let text = self.failed_stream(14, "failed to connect to all addresses");
                self.end(0, text.as_bytes(), "", Effect::None)
            }
            Transport::Grpc => self.end(1, b"", "failed to connect to all addresses", Effect::None),
        }
    }

    /// A failed list of the gRPC build: exit 0, a line of text, and the array is closed.
    fn failed_stream(&self, code: u32, message: &str) -> String {
        let close = if self.line.format == Format::Json { "[]\n" } else { "" };
        format!("gRPC call failed. Error code: {code} Error message: {message}\n{close}")
    }

    /// Prints an answer; returns the exit code and the text for stderr.
    fn print(&self, out: &mut impl Write, world: &World, answer: &Answer) -> (u8, String) {
        let json = self.line.format == Format::Json;
        match answer {
            Answer::Rows(rows) => {
                let mut framed = Framed::new(out, self.line.format, &self.start.command);
                rows.iter().for_each(|row| framed.row(row));
                framed.close();
                (0, String::new())
            }
            Answer::Tapes(filter) => {
                let mut framed = Framed::new(out, self.line.format, &self.start.command);
                print_tapes(&mut framed, world, filter);
                framed.close();
                (0, String::new())
            }
            Answer::Done(_) if world.transport == Transport::Grpc => (0, String::new()),
            Answer::Done(text) => {
                let _closed = write!(out, "{text}{}", if json { "[]\n" } else { "" });
                (0, String::new())
            }
            Answer::User(message) | Answer::Cta(message) if self.is_grpc_list(world) => {
                let code = if matches!(answer, Answer::User(_)) { 3 } else { 13 };
                let _closed = out.write_all(self.failed_stream(code, message).as_bytes());
                (0, String::new())
            }
            Answer::User(message) => {
                let _closed = out.write_all(self.empty_array(world));
                (2, message.clone())
            }
            Answer::Cta(message) => (1, message.clone()),
        }
    }

    /// Does the command; what it would print.
    fn whole(&self, session: Session) -> Result<(Vec<u8>, Effect)> {
        let (world, answer, effect) = self.apply(session)?;
        let mut whole = Vec::new();
        self.print(&mut whole, &world, &answer);
        Ok((whole, effect))
    }

    fn cut(&self, session: Session, code: i32) -> Result<u8> {
        let (mut whole, effect) = self.whole(session)?;
        whole.truncate(whole.len() / 2);
        self.end(u8::try_from(code).unwrap_or(1), &whole, "", effect)
    }

    /// What goes with a user error.
    fn empty_array(&self, world: &World) -> &'static [u8] {
        let json = self.line.format == Format::Json && world.transport == Transport::Xrootd;
        if json { b"[]\n" } else { b"" }
    }

    fn huge(&self, bytes: u64) -> Result<u8> {
        let mut out = Sink::new();
        let _closed = out.write_all(b"[{\"vid\":\"");
        let block = [b'a'; 65_536];
        let mut left = bytes;
        while left > 0 && !out.closed {
            let part = usize::try_from(left).unwrap_or(usize::MAX).min(block.len());
            let _closed = out.write_all(&block[..part]);
            left -= part as u64;
        }
        out.flush();
        self.end(0, b"", "", Effect::None)
    }

    fn schedule(&self, session: &mut Session, ms: u64) {
        if !self.line.call.changing {
            return;
        }
        #[expect(clippy::cast_precision_loss, reason = "milliseconds of a test")]
        let on_world_clock = ms as f64 * session.world.speed;
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "saturates, never negative")]
        let on_world_clock = on_world_clock as u64;
        let due_ms = session.world.last_ms + on_world_clock;
        session.world.late.push(Late {
            due_ms,
            words: self.line.call.words.clone(),
            frontend: self.front.name.clone(),
            id: self.start.id.clone(),
            pid: self.start.pid,
        });
        let view = self.line.call.vid().map(|vid| View::of(&session.world, vid));
        session.record(Entry {
            kind: Kind::Effect,
            at_us: session.now_us,
            effect: Effect::LateScheduled,
            before: view.clone(),
            after: view,
            overlaps: None,
            ..self.start.clone()
        });
    }

    /// Leaves a child behind that has our stdout and stderr and belongs to our process group.
    fn grandchild(&self, ms: u64) -> Result<()> {
        let program = std::env::current_exe().context("finding our own program")?;
        let child = Command::new(program)
            .args(["--sim-wait", &ms.to_string()])
            .stdin(Stdio::null())
            .spawn()
            .context("starting a grandchild")?;
        let note = format!("grandchild {}", child.id());
        journal::append(self.dir, &[Entry { note, kind: Kind::Begin, changing: false, ..self.start.clone() }])
    }

    fn hang(&self) -> Result<u8> {
        wait(self.dir, LONGEST_HANG);
        self.end(1, b"", LOST, Effect::None)
    }

    fn end(&self, code: u8, stdout: &[u8], stderr: &str, effect: Effect) -> Result<u8> {
        let mut out = Sink::new();
        let _closed = out.write_all(stdout);
        out.flush();
        if !stderr.is_empty() {
            let _closed = writeln!(std::io::stderr(), "{stderr}");
        }
        if self.dir.exists() {
            let end = Entry {
                kind: Kind::End,
                at_us: now_us(),
                exit: Some(i32::from(code)),
                effect,
                overlaps: None,
                argv: self.argv.to_vec(),
                ..self.start.clone()
            };
            journal::append(self.dir, &[end])?;
        }
        Ok(code)
    }
}

/// Waits until the time is over or the world is gone.
fn wait(dir: &Path, limit: Duration) {
    let begin = Instant::now();
    while begin.elapsed() < limit && dir.join("world.json").exists() {
        std::thread::sleep(Duration::from_millis(50).min(limit));
    }
}

fn die(signal: i32) -> Result<u8> {
    let signal = Signal::from_named_raw(signal).with_context(|| format!("{signal} is not a signal"))?;
    kill_process(getpid(), signal).context("killing ourselves")?;
    std::thread::sleep(Duration::from_secs(5));
    bail!("still alive after the signal")
}

/// stdout with a large buffer; a reader that went away is not an error.
struct Sink {
    out: std::io::StdoutLock<'static>,
    buffer: Vec<u8>,
    closed: bool,
}

impl Sink {
    fn new() -> Sink {
        Sink { out: std::io::stdout().lock(), buffer: Vec::with_capacity(65_536), closed: false }
    }

    fn flush(&mut self) {
        if !self.closed {
            self.closed = self.out.write_all(&self.buffer).and_then(|()| self.out.flush()).is_err();
        }
        self.buffer.clear();
    }
}

impl Write for Sink {
    fn write(&mut self, data: &[u8]) -> std::io::Result<usize> {
        self.buffer.extend_from_slice(data);
        if self.buffer.len() >= 65_000 {
            self.flush();
        }
        Ok(data.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Sink::flush(self);
        Ok(())
    }
}

/// Rows in one of the three framings.
struct Framed<'a, W: Write> {
    out: &'a mut W,
    format: Format,
    rows: u64,
}

impl<'a, W: Write> Framed<'a, W> {
    fn new(out: &'a mut W, format: Format, command: &str) -> Framed<'a, W> {
        let _closed = match format {
            Format::Json => out.write_all(b"["),
            Format::JsonLines => Ok(()),
            Format::Table => writeln!(out, "{command}"),
        };
        Framed { out, format, rows: 0 }
    }

    fn row(&mut self, row: &str) {
        let _closed = match self.format {
            Format::Json => {
                let comma = if self.rows > 0 { "," } else { "" };
                write!(self.out, "{comma}{row}")
            }
            Format::JsonLines | Format::Table => writeln!(self.out, "{row}"),
        };
        self.rows += 1;
    }

    fn close(&mut self) {
        if self.format == Format::Json {
            let _closed = self.out.write_all(b"]\n");
        }
    }
}

/// One tape at a time: a long list is never in memory.
fn print_tapes<W: Write>(framed: &mut Framed<'_, W>, world: &World, filter: &TapeFilter) {
    let mut text = String::new();
    let mut one = |vid: &str, tape: &crate::world::Tape| {
        if filter.wants(world, vid, tape) {
            text.clear();
            crate::render::tape(&mut text, world, vid, tape, filter.statistics);
            framed.row(&text);
        }
    };
    match &filter.vid {
        Some(vid) => {
            if let Some(tape) = world.find(vid) {
                one(vid, &tape);
            }
        }
        None => crate::render::each_tape(world, one),
    }
}

// --- control options ---------------------------------------------------------------------------------------------

const CONTROL: &str = "usage:
  cta-admin --sim-create DIR [--profile quickstart|full|empty] [--tapes N] [--seed N] [--speed X] [--transport xrootd|grpc]
            [--scheduler objectstore|postgres] [--keyset head|v5_10_7] [--split] [--generated N]
  cta-admin --sim-order DIR JSON
  cta-admin --sim-set DIR KEY JSON
  cta-admin --sim-summary DIR";

fn control(args: &[String]) -> Result<()> {
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    match args.as_slice() {
        ["--sim-wait", ms] => {
            let limit = Duration::from_millis(ms.parse().context("reading milliseconds")?);
            match std::env::var_os(WORLD) {
                Some(dir) => wait(Path::new(&dir), limit),
                None => std::thread::sleep(limit),
            }
            Ok(())
        }
        ["--sim-create", dir, rest @ ..] => create(Path::new(dir), rest),
        ["--sim-order", dir, json] => {
            orders::order(Path::new(dir), serde_json::from_str(json).context("reading the order")?)
        }
        ["--sim-set", dir, key, json] => set(Path::new(dir), key, json),
        ["--sim-summary", dir] => summary(Path::new(dir)),
        _ => bail!("{CONTROL}"),
    }
}

fn create(dir: &Path, mut rest: &[&str]) -> Result<()> {
    let (mut profile, mut tapes, mut seed, mut generated) = ("full", 40_u64, 1_u64, 0_u64);
    let mut options = World::default();
    let mut split = false;
    while let Some(option) = rest.first() {
        if *option == "--split" {
            split = true;
            rest = &rest[1..];
            continue;
        }
        let value = *rest.get(1).with_context(|| format!("{option} expects a value\n{CONTROL}"))?;
        match *option {
            "--profile" => profile = value,
            "--tapes" => tapes = value.parse().context("reading --tapes")?,
            "--seed" => seed = value.parse().context("reading --seed")?,
            "--generated" => generated = value.parse().context("reading --generated")?,
            "--speed" => options.speed = value.parse().context("reading --speed")?,
            "--transport" => options.transport = word(value).context("reading --transport")?,
            "--scheduler" => options.scheduler = word::<Scheduler>(value).context("reading --scheduler")?,
            "--keyset" => options.keyset = word::<Keyset>(value).context("reading --keyset")?,
            other => bail!("unknown option {other}\n{CONTROL}"),
        }
        rest = &rest[2..];
    }
    let mut world = match profile {
        "quickstart" => profile::quickstart(tapes, seed),
        "full" => World::new().with_full_tapes(tapes),
        "empty" => World::new(),
        other => bail!("unknown profile {other}\n{CONTROL}"),
    };
    world.speed = options.speed;
    world = world.with_transport(options.transport).with_scheduler(options.scheduler).with_keyset(options.keyset);
    if split {
        world = world.split();
    }
    if generated > 0 {
        world = world.with_generated(generated, seed);
    }
    world.create(dir)
}

fn word<T: serde::de::DeserializeOwned>(text: &str) -> Result<T> {
    Ok(serde_json::from_value(text.into())?)
}

/// Sets one top-level value of the world (`down`, `daemon_down`, `pending_ms` ...).
fn set(dir: &Path, key: &str, json: &str) -> Result<()> {
    let value: serde_json::Value = serde_json::from_str(json).context("reading the value")?;
    World::edit(dir, |world| -> Result<()> {
        let mut object = serde_json::to_value(&*world)?;
        let slot = object.get_mut(key).with_context(|| format!("the world has no '{key}'"))?;
        *slot = value;
        *world = serde_json::from_value(object)?;
        Ok(())
    })?
}

fn summary(dir: &Path) -> Result<()> {
    let world = World::load(dir)?;
    let entries = journal::journal(dir)?;
    let begun =
        |changing: bool| entries.iter().filter(|entry| entry.kind == Kind::Begin && entry.changing == changing).count();
    let text = serde_json::json!({
        "tapes": world.tapes.len(), "requests": world.requests.len(), "activeRequests": world.active_requests(),
        "mostActiveRequests": world.max_active, "changingCommands": begun(true), "queries": begun(false),
        "overlaps": journal::overlaps(&entries),
    });
    let mut out = Sink::new();
    let _closed = writeln!(out, "{text}");
    out.flush();
    Ok(())
}
