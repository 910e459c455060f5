//! The soak: tapes that keep coming, programs that are killed, stopped and ended, servers that restart, a CTA that hangs,
//! lies and dies, operators who edit; and at the end the checker.

use std::collections::BTreeMap;
use std::panic::AssertUnwindSafe;
use std::time::{Duration, Instant};

use common::journey::{Mode, State};
use common::settings::{CtaAdmin, Retry, Settings};
use common::store::Overview;
use cta_sim::{Action, Order, Plan, Tape, World};
use futures_util::FutureExt as _;
use rustix::process::Signal;

use crate::chance::Chance;
use crate::checker::{Violations, invariants};
use crate::crew::{Crew, signal};
use crate::private::{Postgres, Rabbit};
use crate::shell::{MANAGER, dump};
use crate::site::Site;

/// How long the tapes under way may take to come to an end once no more faults happen.
const LAST: Duration = Duration::from_secs(600);

/// Repacks at once.
const SLOTS: u32 = 10;

/// Classes of the simulated CTA, with their pools.
const CLASSES: [&str; 3] = ["alpha_raw", "alpha_user", "beta_raw"];

/// How long, from where, how many.
#[derive(Debug, Clone)]
pub struct Options {
    /// How long faults happen.
    pub minutes: f64,
    /// Where chance begins.
    pub seed: u64,
    /// Tapes under way at once.
    pub tapes: usize,
}

/// Everything of a soak.
struct Soak {
    // Before the servers: what it holds of them goes first.
    site: Site,
    workers: Crew,
    producers: Crew,
    rabbit: Rabbit,
    postgres: Postgres,
    chance: Chance,
    entered: usize,
    stopped: Vec<(u32, Instant)>,
    /// What is undone later.
    away: Vec<(Away, Instant)>,
    faults: BTreeMap<&'static str, usize>,
    stops: BTreeMap<String, usize>,
    given_back: usize,
}

/// What is away for a while.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Away {
    Broker,
    Cta,
    Pause,
}

/// Runs it. True: the checker found nothing.
pub async fn soak(options: &Options) -> bool {
    let mut soak = Soak::begin(options).await;
    let run = AssertUnwindSafe(soak.run(options)).catch_unwind().await;
    let found = match run {
        Ok(found) => found.0,
        Err(_) => vec!["the soak itself failed, see above".to_owned()],
    };
    soak.tell();
    for violation in &found {
        println!("soak: VIOLATION: {violation}");
    }
    println!("soak: {} violations (--minutes {} --seed {})", found.len(), options.minutes, options.seed);
    if !found.is_empty() {
        soak.keep().await;
    }
    found.is_empty()
}

fn quick(settings: &Settings, rabbit: &Rabbit) -> Settings {
    let settings = settings.clone();
    Settings {
        broker: Some(rabbit.broker(&rabbit.address())),
        lease: Duration::from_secs(8),
        settle: Duration::from_secs(2),
        cta_admin: CtaAdmin {
            timeout: Duration::from_secs(3),
            list_timeout: Duration::from_secs(20),
            ..settings.cta_admin
        },
        retry: Retry { max_attempts: 8, ..settings.retry },
        max_active_repacks: SLOTS,
        quarantine: Duration::from_secs(1),
        worker: common::settings::Worker { concurrency: 2, ..settings.worker },
        producer: common::settings::Producer { interval: Duration::from_millis(300), ..settings.producer },
        ..settings
    }
}

impl Soak {
    async fn begin(options: &Options) -> Soak {
        let postgres = Postgres::start();
        let rabbit = Rabbit::start();
        let mut world = World::new().with_full_tapes(0).with_durations(100, 800);
        world.max_to_expand = 10;
        let mut site = Site::on(postgres.database(), world).await;
        site.settings = quick(&site.settings, &rabbit);
        let mut worker = site.command(crate::crew::WORKER);
        worker.args(["--concurrency", "2"]);
        let workers = Crew::of(4, worker);
        let producers = Crew::producers(&site, 2, "");
        let chance = Chance::seeded(options.seed);
        Soak {
            site,
            workers,
            producers,
            rabbit,
            postgres,
            chance,
            entered: 0,
            stopped: Vec::new(),
            away: Vec::new(),
            faults: BTreeMap::new(),
            stops: BTreeMap::new(),
            given_back: 0,
        }
    }

    async fn run(&mut self, options: &Options) -> Violations {
        let end = Instant::now() + Duration::from_secs_f64(options.minutes * 60.0);
        let mut next_fault = Instant::now() + Duration::from_secs(2);
        while Instant::now() < end {
            self.keep_up();
            self.enter(options.tapes).await;
            if Instant::now() >= next_fault {
                self.fault().await;
                next_fault = Instant::now() + Duration::from_millis(300 + self.chance.number() % 2_000);
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        self.end().await
    }

    /// Starts who is missing, and brings back what was away for long enough.
    fn keep_up(&mut self) {
        let now = Instant::now();
        self.stopped.retain(|(pid, until)| {
            let over = *until <= now;
            if over {
                signal(*pid, Signal::CONT);
            }
            !over
        });
        let back: Vec<Away> = self.away.iter().filter(|(_, until)| *until <= now).map(|(away, _)| *away).collect();
        self.away.retain(|(_, until)| *until > now);
        for away in back {
            match away {
                Away::Broker => self.rabbit.resume(),
                Away::Cta => self.site.edit(|world| world.down = false),
                Away::Pause => self.manager(&["resume", "all"]),
            }
        }
        self.workers.keep();
        self.producers.keep();
    }

    fn is_away(&self, what: Away) -> bool {
        self.away.iter().any(|(away, _)| *away == what)
    }

    /// Rows that are under way.
    async fn open(&self) -> Vec<Overview> {
        let mut rows = self.site.store().overview(None, None, false).await.expect("the rows");
        rows.retain(|row| row.row.as_ref().is_ok_and(|tape| tape.state() != State::Finished));
        rows
    }

    /// So many tapes are under way at all times.
    async fn enter(&mut self, wanted: usize) {
        let missing = wanted.saturating_sub(self.open().await.len());
        if missing < 5 {
            return;
        }
        let vids: Vec<String> = (self.entered..self.entered + missing).map(|number| format!("S{number:05}")).collect();
        let plans: Vec<Plan> = vids.iter().map(|_| self.plan()).collect();
        let finished = self.finished().await;
        let first = self.entered as u64;
        self.site.edit(|world| {
            // What is done with would only make every call slower.
            world.tapes.retain(|vid, _| !finished.contains(vid));
            for (number, (vid, plan)) in (first..).zip(vids.iter().zip(plans)) {
                let class = CLASSES[usize::try_from(number).unwrap_or(0) % CLASSES.len()];
                let tape =
                    Tape::full(&format!("pool_{class}"), class, 4_294_967_296 + number * 1000, 10).with_plan(plan);
                world.tapes.insert(vid.clone(), tape);
            }
        });
        self.entered += missing;
        self.site.enter(&vids.iter().map(String::as_str).collect::<Vec<_>>()).await;
    }

    async fn finished(&self) -> Vec<String> {
        let rows = self.site.rows().await;
        let vid = |row: Overview| {
            row.row.ok().filter(|tape| tape.state() == State::Finished).map(|tape| tape.vid.to_string())
        };
        rows.into_iter().filter_map(vid).collect()
    }

    fn plan(&mut self) -> Plan {
        match self.chance.below(12) {
            0 => Plan { fail_files: 2, fail_times: 1, ..Plan::default() },
            1 => Plan { fail_archive: 1, fail_times: 1, ..Plan::default() },
            2 => Plan { disable_after: Some(3), ..Plan::default() },
            _ => Plan::default(),
        }
    }

    async fn fault(&mut self) {
        let name = match self.chance.below(20) {
            0..=3 => self.strike(Signal::KILL, "SIGKILL"),
            4..=5 => self.strike(Signal::STOP, "SIGSTOP"),
            6..=7 => self.strike(Signal::TERM, "SIGTERM"),
            8 if !self.is_away(Away::Broker) => {
                self.rabbit.kill();
                self.later(Away::Broker, 6_000);
                "broker killed"
            }
            9 => {
                self.postgres.crash();
                self.postgres.resume();
                "PostgreSQL restarted immediately"
            }
            10 if !self.is_away(Away::Cta) => {
                self.site.edit(|world| world.down = true);
                self.later(Away::Cta, 3_000);
                "CTA down"
            }
            11 if !self.is_away(Away::Pause) => {
                self.manager(&["pause", "all", "--yes", "--reason", "soak"]);
                self.later(Away::Pause, 2_000);
                "operator: pause"
            }
            12..=15 => self.mislead(),
            _ => self.operate().await,
        };
        *self.faults.entry(name).or_default() += 1;
    }

    fn later(&mut self, away: Away, most_ms: u64) {
        let after = Duration::from_millis(200 + self.chance.number() % most_ms);
        self.away.push((away, Instant::now() + after));
    }

    /// Sends a signal to one of our processes.
    fn strike(&mut self, with: Signal, name: &'static str) -> &'static str {
        let mut pids = self.workers.pids();
        pids.extend(self.producers.pids());
        if let Some(pid) = self.chance.one_of(&pids).copied() {
            signal(pid, with);
            if with == Signal::STOP {
                let long = Duration::from_millis(self.chance.number() % 14_000);
                self.stopped.push((pid, Instant::now() + long));
            }
        }
        name
    }

    /// The next such call of `cta-admin` misbehaves.
    fn mislead(&mut self) -> &'static str {
        let commands = [
            "tape ch",
            "repack add",
            "repack rm",
            "tape reclaim",
            "tape ls",
            "repack ls",
            "tapefile ls",
            "recycletf ls",
        ];
        let command = commands[self.chance.below(commands.len())];
        let changing = !command.ends_with("ls");
        let (name, action) = match self.chance.below(if changing { 9 } else { 5 }) {
            0 => ("cta-admin: hang", Action::Hang),
            1 => ("cta-admin: exit 1", Action::Exit1("connection lost".to_owned())),
            2 => ("cta-admin: exit 2", Action::Exit2("the front end has its reasons".to_owned())),
            3 => ("cta-admin: killed", Action::Die(11)),
            4 => ("cta-admin: garbage", Action::Garbage),
            5 => ("cta-admin: done, then exit 1", Action::ApplyThenExit1),
            6 => ("cta-admin: done, then killed", Action::ApplyThenDie(9)),
            7 => ("cta-admin: late", Action::LateExit1(700)),
            _ => ("cta-admin: hangs and late", Action::LateHang(3_500)),
        };
        self.site.order(Order::once(command, action));
        name
    }

    /// An operator does something to a tape, by the manager.
    async fn operate(&mut self) -> &'static str {
        let open = self.open().await;
        let Some(row) = self.chance.one_of(&open) else { return "operator: nothing to do" };
        let Ok(tape) = &row.row else { return "operator: nothing to do" };
        let vid = tape.vid.to_string();
        let stopped = tape.mode == Mode::Error;
        match self.chance.below(8) {
            0 => self.verb("operator: hold", &["hold", &vid, "--for", "3m"]),
            1 | 2 => self.verb("operator: release", &["release", &vid]),
            3 => self.verb("operator: manual", &["ch", &vid, "--mode", "manual"]),
            4 => self.verb("operator: auto", &["ch", &vid, "--mode", "auto"]),
            5 if stopped => self.verb("operator: retry-failed", &["retry-failed", &vid]),
            6 if self.chance.below(4) == 0 => self.verb("operator: abort", &["abort", &vid]),
            _ => self.verb("operator: requeue", &["requeue", &vid]),
        }
    }

    fn verb(&mut self, name: &'static str, arguments: &[&str]) -> &'static str {
        self.manager(&[arguments, &["--yes", "--reason", "soak"]].concat());
        name
    }

    /// Runs the manager; that it refuses, or finds no database, is its good right.
    fn manager(&self, arguments: &[&str]) {
        let mut command = self.site.command(MANAGER);
        command.args(arguments);
        if arguments[0] == "resume" {
            command.args(["--yes", "--reason", "soak"]);
        }
        let ran = crate::shell::Ran::of(&mut command);
        assert!(ran.exit.is_some_and(|exit| exit < 2), "{arguments:?}: {ran:?}");
    }

    /// No more faults: operators settle what was stopped, until every tape is finished or given back.
    async fn end(&mut self) -> Violations {
        let soon = Instant::now();
        self.stopped.iter_mut().for_each(|(_, until)| *until = soon);
        self.away.iter_mut().for_each(|(_, until)| *until = soon);
        cta_sim::forget_orders(&self.site.world_dir()).expect("the orders");
        let mut settled = Instant::now();
        loop {
            self.keep_up();
            let open = self.open().await;
            if open.is_empty() {
                break;
            }
            if soon.elapsed() > LAST {
                let mut found = Violations::default();
                found.0.extend(open.iter().map(|row| format!("not at its end within {LAST:?}: {row:?}")));
                return found;
            }
            if settled.elapsed() > Duration::from_secs(2) {
                self.settle(&open);
                settled = Instant::now();
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        self.given_back = usize::try_from(self.given_back().await).expect("few");
        let mut found = invariants(&self.site).await;
        self.effects(&mut found);
        let finished = self.finished().await.len();
        if finished + self.given_back != self.entered {
            found.0.push(format!("of {} tapes {finished} are finished, {} given back", self.entered, self.given_back));
        }
        found
    }

    async fn given_back(&self) -> i64 {
        self.site
            .number(&format!("SELECT count(*) FROM {} WHERE why = 'given back'", self.site.beside("_history")))
            .await
    }

    /// What an operator does with whatever does not go on by itself.
    fn settle(&mut self, open: &[Overview]) {
        for row in open {
            let Ok(tape) = &row.row else { continue };
            let vid = tape.vid.to_string();
            if row.hold.is_some() {
                self.verb("", &["release", &vid]);
            }
            let world = self.site.world();
            let disabled =
                world.tapes.get(&vid).is_some_and(|tape| tape.state == cta_sim::TapeState::RepackingDisabled);
            let code = row.task.as_ref().and_then(|task| task.reason.as_ref()).map(|kept| kept.code.clone());
            match tape.mode {
                Mode::Error => {
                    *self.stops.entry(code.clone().unwrap_or_default()).or_default() += 1;
                    let verb = if code.as_deref() == Some("repack-failed") { "retry-failed" } else { "requeue" };
                    self.verb("", &[verb, &vid]);
                }
                Mode::Manual => drop(self.verb("", &["ch", &vid, "--mode", "auto"])),
                Mode::Auto if disabled => drop(self.verb("", &["unstick", &vid])),
                Mode::Auto => {}
            }
        }
    }

    /// Each finished tape was reclaimed once and moved once, and each request that was made was removed.
    fn effects(&self, found: &mut Violations) {
        for (vid, made) in self.site.changes() {
            let times = |change: &str| made.iter().filter(|made| made.starts_with(change)).count();
            let (reclaims, moves) = (times("tape reclaim"), times("tape ch --tapepool tolabel_"));
            if reclaims > 1 || moves > 1 || reclaims != moves || times("repack add") != times("repack rm") {
                found.0.push(format!("{vid}: what changed in CTA: {made:?}"));
            }
        }
    }

    fn tell(&self) {
        println!("soak: {} tapes entered, {} given back", self.entered, self.given_back);
        println!("soak: {} workers and {} producers started", self.workers.started(), self.producers.started());
        for (fault, times) in &self.faults {
            println!("soak: {times:>5} x {fault}");
        }
        for (code, times) in &self.stops {
            println!("soak: {times:>5} x stopped at the end for {code}");
        }
    }

    /// Leaves everything there to be looked at.
    async fn keep(mut self) {
        let text = AssertUnwindSafe(dump(&self.site)).catch_unwind().await.unwrap_or_default();
        let _ = std::fs::write(self.site.dir.path().join("tables.txt"), text);
        self.site.dir.disable_cleanup(true);
        println!("soak: the world, the logs and the tables are kept in {}", self.site.dir.path().display());
    }
}
