//! Producers and workers of a site, in this process: started, watched, and stopped by the test.

use std::sync::Arc;
use std::time::{Duration, Instant};

use common::stages::STAGES;
use common::store::{Overview, Store};
use producer::tick::Context;
use tokio::sync::watch;
use tokio::task::JoinSet;
use worker::service::{Options, Shutdown};

use crate::site::{PATIENCE, Site};

/// Producers and workers, each a task of this process with a name and connections of its own.
#[derive(Debug)]
pub struct Fleet {
    shutdown: watch::Sender<Shutdown>,
    members: JoinSet<(String, anyhow::Result<()>)>,
}

impl Default for Fleet {
    fn default() -> Fleet {
        Fleet { shutdown: watch::channel(Shutdown::No).0, members: JoinSet::new() }
    }
}

impl Fleet {
    /// Nobody yet.
    pub fn new() -> Fleet {
        Fleet::default()
    }

    /// As many workers for all stages, on a host each, and a producer.
    pub fn of(site: &Site, workers: usize, concurrency: usize) -> Fleet {
        let mut fleet = Fleet::new();
        for number in 1..=workers {
            fleet.worker(site, &format!("host{number}"), concurrency, &STAGES.map(|stage| stage.name));
        }
        fleet.producer(site, "timer");
        fleet
    }

    /// Starts a worker.
    ///
    /// # Panics
    /// When the settings are not good for a database.
    pub fn worker(&mut self, site: &Site, host: &str, concurrency: usize, stages: &[&str]) {
        let actor = format!("worker@{host}");
        let settings = Arc::new(site.settings.clone());
        // One connection is for the dead letters: the test server has some hundreds for all tests.
        let store = Store::sized(settings, &actor, concurrency.min(7) + 1).expect("a store");
        let options = Options {
            stages: stages.iter().map(|stage| (*stage).to_owned()).collect(),
            concurrency,
            name: actor.clone(),
            host: host.to_owned(),
        };
        let running = worker::service::run(store, site.cta(), options, self.shutdown.subscribe());
        self.members.spawn(async move { (actor, running.await) });
    }

    /// Starts a worker for all stages, if there is a broker for it.
    ///
    /// # Panics
    /// As [`Fleet::worker`].
    pub fn worker_if(&mut self, broker: bool, site: &Site) {
        if broker {
            self.worker(site, "host1", 2, &STAGES.map(|stage| stage.name));
        }
    }

    /// Starts a producer that ticks all stages again and again.
    pub fn producer(&mut self, site: &Site, host: &str) {
        let actor = format!("producer@{host}");
        let context = Context {
            store: site.store().acting(&actor),
            host: host.to_owned(),
            program: actor.clone(),
            stop: self.shutdown.subscribe(),
            ..site.context()
        };
        self.members.spawn(async move { (actor, producer::tick::run(&context).await) });
    }

    /// Watches until `done` holds.
    ///
    /// # Panics
    /// When nothing moves for [`PATIENCE`], or somebody of the fleet ends by himself.
    pub async fn until(&mut self, site: &Site, what: &str, mut done: impl FnMut(&[Overview]) -> bool) -> Vec<Overview> {
        let mut last = (String::new(), Instant::now());
        loop {
            let rows = site.rows().await;
            if done(&rows) {
                return rows;
            }
            if let Some(ended) = self.members.try_join_next() {
                panic!("{what}: somebody ended by himself: {ended:?}; the rows {rows:#?}");
            }
            let now = standing(&rows);
            if now != last.0 {
                last = (now, Instant::now());
            } else if last.1.elapsed() > PATIENCE {
                panic!("{what}: nothing has moved for {PATIENCE:?}; the rows {rows:#?}");
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Lets all finish what they have in hand, and waits for them.
    ///
    /// # Panics
    /// When one fails, or does not end.
    pub async fn stop(mut self) {
        self.shutdown.send_replace(Shutdown::Finish);
        while let Some(ended) =
            tokio::time::timeout(PATIENCE, self.members.join_next()).await.expect("they end when told to")
        {
            let (name, result) = ended.expect("nobody panics");
            result.unwrap_or_else(|error| panic!("{name} failed: {error:#}"));
        }
    }
}

/// What of the rows moves when anything does; polling moves nothing.
fn standing(rows: &[Overview]) -> String {
    let row = |row: &Overview| {
        let of_row = row.row.as_ref().ok().map(|tape| (tape.vid.clone(), tape.state(), tape.mode));
        let of_task = row.task.as_ref().map(|task| (task.generation, task.round, task.progress.clone()));
        format!("{of_row:?} {of_task:?}\n")
    };
    rows.iter().map(row).collect()
}
