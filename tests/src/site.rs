//! A whole site for one test: a database, a simulated CTA, and the product's own code on top.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use common::cta::Cta;
use common::journey::{Mode, State};
use common::settings::{CtaAdmin, Settings};
use common::stages::{STAGES, Stage};
use common::store::{NewTape, Overview, Store};
use common::tape::Vid;
use cta_sim::World;
use producer::tick::{Context, LOST_LETTER, PAGE, TickReport, tick};
use tempfile::TempDir;
use tokio::sync::{Mutex, watch};
use worker::service::Shutdown;

use crate::services::{Services, TestDatabase};

/// The longest that a condition may take to come true: generous, for a machine under load. Only a failing test waits so long.
pub const PATIENCE: Duration = Duration::from_secs(180);

/// A site. Everything of it is gone when it is dropped.
pub struct Site {
    /// Its directory.
    pub dir: TempDir,
    /// Its database, migrated.
    pub database: TestDatabase,
    /// The settings; change them before the first use of [`Site::context`].
    pub settings: Settings,
    stop: watch::Sender<Shutdown>,
}

/// Where the built programs are.
pub fn programs() -> PathBuf {
    match std::env::var_os("REPACK_TEST_BIN") {
        Some(directory) => directory.into(),
        None => {
            // target/debug/deps/this-test, or target/debug/this-program
            let here = std::env::current_exe().expect("a test knows its own path");
            let directory = here.parent().expect("a program lies in a directory");
            let deps = directory.file_name().is_some_and(|name| name == "deps");
            if deps {
                directory.parent().expect("tests lie in target/PROFILE/deps").to_owned()
            } else {
                directory.to_owned()
            }
        }
    }
}

/// One of the built programs.
///
/// # Panics
/// When it is not built: `tests/run` builds all.
pub fn program(name: &str) -> PathBuf {
    let path = programs().join(name);
    assert!(path.is_file(), "{} is not there: run tests/run, or cargo build --workspace first", path.display());
    path
}

impl Site {
    /// A site with this world; quick settings, no broker.
    pub async fn new(world: World) -> Site {
        Site::on(Services::get().fresh_database(), world).await
    }

    /// The same on a database that is there already.
    pub async fn on(database: TestDatabase, world: World) -> Site {
        let dir = tempfile::tempdir().expect("a directory for the test");
        world.create(&dir.path().join("world")).expect("a new world");
        let split = world.frontends.len() > 1;
        let settings = quick_settings(dir.path(), &database, split);
        common::store::migrate::migrate(&settings).await.expect("the migration");
        let (stop, _) = watch::channel(Shutdown::No);
        Site { dir, database, settings, stop }
    }

    /// Directory of the world.
    pub fn world_dir(&self) -> PathBuf {
        self.dir.path().join("world")
    }

    /// The world as it is now.
    pub fn world(&self) -> World {
        World::load(&self.world_dir()).expect("the world")
    }

    /// Changes the world behind CTA's back.
    pub fn edit<R>(&self, change: impl FnOnce(&mut World) -> R) -> R {
        World::edit(&self.world_dir(), change).expect("the world")
    }

    /// Makes the next matching calls misbehave.
    pub fn order(&self, order: cta_sim::Order) {
        cta_sim::order(&self.world_dir(), order).expect("the orders");
    }

    /// What was called.
    pub fn journal(&self) -> Vec<cta_sim::Entry> {
        cta_sim::journal(&self.world_dir()).expect("the journal")
    }

    /// How often the orders struck, in the order in which they were given.
    pub fn fired(&self) -> Vec<u32> {
        cta_sim::orders(&self.world_dir()).expect("the orders").iter().map(|order| order.fired).collect()
    }

    /// Commands that changed something, by tape, as words without `--vid` and values that vary: `tape reclaim`,
    /// `tape ch --state REPACKING`.
    pub fn changes(&self) -> BTreeMap<String, Vec<String>> {
        by_tape(&self.journal(), |entry| entry.kind == cta_sim::Kind::Effect && entry.effect.changed())
    }

    /// The same for every changing command that was begun, whatever came of it.
    pub fn issued(&self) -> BTreeMap<String, Vec<String>> {
        by_tape(&self.journal(), |entry| entry.kind == cta_sim::Kind::Begin && entry.changing)
    }

    /// A client, running the simulated `cta-admin`, with the worker program as guard.
    pub fn cta(&self) -> Cta {
        Cta::new(&self.settings.cta_admin).with_guard(program("cta-ops-repack-worker"))
    }

    /// The database, as the test itself.
    pub fn store(&self) -> Store {
        Store::new(Arc::new(self.settings.clone()), "test@here").expect("a store")
    }

    /// What a tick works with.
    pub fn context(&self) -> Context {
        Context {
            store: self.store(),
            cta: self.cta(),
            settings: Arc::new(self.settings.clone()),
            host: "here".to_owned(),
            program: "test".to_owned(),
            lost_letter: LOST_LETTER,
            page: PAGE,
            stop: self.stop.subscribe(),
            publisher: Mutex::new(None),
        }
    }

    /// Enters tapes as prepare does, without its checks.
    pub async fn enter(&self, vids: &[&str]) {
        let store = self.store();
        let world = self.world();
        for vid in vids {
            let tape = &world.tapes[*vid];
            let new = NewTape {
                files: i64::try_from(tape.cached_files).expect("few files"),
                bytes: i64::try_from(tape.cached_bytes).expect("few bytes"),
                usage: 10,
                last_write: Some(1_726_000_000),
                priority: 10,
                mediatype: tape.media.clone(),
                tapepool: tape.pool.clone(),
                responsible: "test".to_owned(),
                source_state: tape.state.name().to_owned(),
                logical_library: tape.logical_library.clone(),
            };
            let entered = store.enter(&vid.parse().expect("a VID"), &new).await.expect("the database");
            assert_eq!(entered, common::store::Entered::Added, "{vid}");
        }
    }

    /// One tick of every stage, in this process.
    pub async fn tick(&self) -> TickReport {
        self.tick_of(&STAGES).await
    }

    /// One tick of some stages.
    pub async fn tick_of(&self, stages: &[&'static Stage]) -> TickReport {
        tick(&self.context(), stages, false).await.expect("a tick")
    }

    /// Ticks until `done` holds.
    ///
    /// # Panics
    /// When it does not within [`PATIENCE`].
    pub async fn tick_until(&self, what: &str, mut done: impl FnMut(&[Overview]) -> bool) -> Vec<Overview> {
        let context = self.context();
        let begun = Instant::now();
        loop {
            let report = tick(&context, &STAGES, false).await.expect("a tick");
            let rows = self.rows().await;
            if done(&rows) {
                return rows;
            }
            if begun.elapsed() > PATIENCE {
                panic!("{what}: not within {PATIENCE:?}; the last tick {report:#?}; the rows {rows:#?}");
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Every row with all that is known of it.
    pub async fn rows(&self) -> Vec<Overview> {
        self.store().overview(None, None, true).await.expect("the rows")
    }

    /// One row.
    pub async fn row(&self, vid: &str) -> Overview {
        let vid: Vid = vid.parse().expect("a VID");
        let rows = self.store().overview(Some(std::slice::from_ref(&vid)), None, true).await.expect("the row");
        rows.into_iter().next().unwrap_or_else(|| panic!("{vid} has no row"))
    }

    /// A tape's state and mode.
    pub async fn at(&self, vid: &str) -> (State, Mode) {
        let row = self.row(vid).await;
        let tape = row.row.expect("a lawful row");
        (tape.state(), tape.mode)
    }

    /// Why a tape waits or stopped: code and text.
    pub async fn why(&self, vid: &str) -> (String, String) {
        let kept = self.row(vid).await.task.expect("a task").reason;
        kept.map_or_else(Default::default, |kept| (kept.code, kept.text))
    }

    /// Runs SQL as an operator with `psql` would.
    pub async fn sql(&self, statement: &str) {
        self.database.client().await.batch_execute(statement).await.expect("the statement");
    }

    /// A program of ours with this site's configuration, its environment set; not started.
    pub fn command(&self, name: &str) -> Command {
        let mut command = Command::new(program(name));
        command.arg("-C").arg(self.configuration());
        command
    }

    /// The configuration file for this site, written from its settings.
    pub fn configuration(&self) -> PathBuf {
        let path = self.dir.path().join("config.yaml");
        // Renamed into place: a program of an earlier call may just be reading it.
        let fresh = path.with_extension("fresh");
        std::fs::write(&fresh, crate::configuration::text(&self.settings)).expect("the configuration file");
        let mut rights = std::fs::metadata(&fresh).expect("the configuration file").permissions();
        rights.set_mode(0o600);
        std::fs::set_permissions(&fresh, rights).expect("the configuration file");
        std::fs::rename(&fresh, &path).expect("the configuration file");
        path
    }
}

fn by_tape(journal: &[cta_sim::Entry], wanted: fn(&cta_sim::Entry) -> bool) -> BTreeMap<String, Vec<String>> {
    let mut commands: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for entry in journal.iter().filter(|entry| wanted(entry)) {
        let words = entry.words();
        let value =
            |name: &str| words.iter().position(|word| word == name).map(|at| format!(" {name} {}", words[at + 1]));
        let shown = [value("--state"), value("--tapepool")].into_iter().flatten().collect::<String>();
        let vid = entry.vid.clone().unwrap_or_default();
        commands.entry(vid).or_default().push(format!("{}{shown}", entry.command));
    }
    commands
}

/// Every tape finished, or stopped by mode.
pub fn all_at_rest(rows: &[Overview]) -> bool {
    rows.iter().all(|row| match &row.row {
        Ok(tape) => tape.state() == State::Finished || tape.mode != Mode::Auto,
        Err(_) => true,
    })
}

/// A script named `cta-admin` that runs the simulator with this world: the environment of the test process is shared by
/// all its tests.
fn wrapper(dir: &Path) -> PathBuf {
    let path = dir.join("cta-admin");
    let script = format!(
        "#!/bin/sh\nCTA_SIM_WORLD='{}' exec '{}' \"$@\"\n",
        dir.join("world").display(),
        program("cta-admin").display()
    );
    // Written by a child: a thread of ours that forks meanwhile would inherit the open file, and running it would be "text busy".
    let written = Command::new("/bin/sh")
        .args(["-c", "printf %s \"$1\" > \"$2\" && chmod 755 \"$2\"", "sh", &script])
        .arg(&path)
        .status()
        .expect("a shell");
    assert!(written.success());
    path
}

fn quick_settings(dir: &Path, database: &TestDatabase, split: bool) -> Settings {
    let world = dir.join("world");
    let config = |name: &str| Some(cta_sim::store::config_path(&world, name));
    let base = Settings::default();
    let suffixes = |library: &str| {
        [("LTO8", format!("_{library}L8")), ("LTO9", format!("_{library}L9"))]
            .map(|(media, suffix)| (media.to_owned(), suffix))
            .into()
    };
    Settings {
        database: database.settings(),
        logging: common::settings::Logging { log_dir: dir.join("log"), ..base.logging.clone() },
        quarantine: Duration::ZERO,
        listing: common::settings::Listing {
            existing_files_on_tape: dir.join("repack-tapefile-$DATE-$TAPE.txt").display().to_string(),
            ..base.listing.clone()
        },
        repack_end_json_path: dir.join("repack-end.json"),
        monitor_ls_out: dir.join("monitor.json"),
        cta_admin: CtaAdmin {
            program: wrapper(dir),
            user_config: config(if split { "user" } else { "all" }),
            repack_config: config(if split { "repack" } else { "all" }),
            timeout: Duration::from_secs(20),
            list_timeout: Duration::from_secs(60),
        },
        lib_to_pool_map: Some(["IBM1", "IBM2"].map(|library| (library.to_owned(), suffixes(library))).into()),
        retry: common::settings::Retry {
            max_attempts: 5,
            first_delay: Duration::from_millis(50),
            max_delay: Duration::from_millis(400),
        },
        settle: Duration::from_secs(2),
        lease: Duration::from_secs(30),
        redispatch_after: Duration::from_secs(2),
        max_active_repacks: 10,
        // All tests have one loopback address: whoever wants metrics asks for a port.
        producer: common::settings::Producer { metrics_listen: None, ..base.producer.clone() },
        worker: common::settings::Worker { metrics_listen: None, ..base.worker.clone() },
        ..base
    }
}
