//! Servers that are away for long, under load: nothing is blamed for it, nobody spins, and all goes on by itself.
//!
//! Seconds by default; `REPACK_TEST_FULL=1` makes it ten minutes without the broker and five without the database, and
//! `REPACK_TEST_OUTAGE_SECS` any time for both.

use std::time::{Duration, Instant};

use common::journey::{Mode, State};
use common::stages::STAGES;
use common::store::Overview;
use cta_sim::World;
use journeys::chance::everything;
use journeys::checker::all_finished;
use journeys::crew::{Crew, WORKER, cpu_secs};
use journeys::private::{Postgres, Rabbit};
use journeys::shots::tell;
use journeys::site::{PATIENCE, Site, all_at_rest};
use journeys::steps::until;

/// Tapes for each outage, some of them in the middle of something when it begins.
const TAPES: usize = 6;

/// Part of one processor that a program may use while it waits for a server, measured generously: a loop would use all of it.
const BUSY: f64 = 0.15;

struct Load {
    site: Site,
    workers: Crew,
    producers: Crew,
    rabbit: Rabbit,
    postgres: Postgres,
    said: String,
}

fn seconds(minutes: u64, quick: u64) -> Duration {
    let set = std::env::var("REPACK_TEST_OUTAGE_SECS").ok().and_then(|secs| secs.parse().ok());
    Duration::from_secs(set.unwrap_or(if everything() { minutes * 60 } else { quick }))
}

impl Load {
    async fn new() -> Load {
        let (postgres, rabbit) = (Postgres::start(), Rabbit::start());
        let tapes = u64::try_from(2 * TAPES).expect("few");
        let mut site =
            Site::on(postgres.database(), World::new().with_full_tapes(tapes).with_durations(100, 1000)).await;
        site.settings.broker = Some(rabbit.broker(&rabbit.address()));
        site.settings.producer.interval = Duration::from_millis(500);
        // As by default: longer than the outages that are waited out.
        site.settings.lease = Duration::from_secs(600);
        let mut command = site.command(WORKER);
        command.args(["--concurrency", "2"]);
        let workers = Crew::of(3, command);
        let producers = Crew::producers(&site, 1, "");
        // A queue that was made this moment may not survive the broker's death: that is another fault.
        until("all workers consume", || {
            let queues = rabbit.api("GET", "/api/queues/%2F", None);
            let stages = queues.as_array().into_iter().flatten().filter(|queue| {
                let of_stage = queue["name"].as_str().is_some_and(|name| name.contains(".stage."));
                of_stage && queue["consumers"] == 3
            });
            stages.count() == STAGES.len()
        })
        .await;
        Load { site, workers, producers, rabbit, postgres, said: String::new() }
    }

    /// Enters the tapes of this outage, and waits until some of them are under way.
    async fn begin(&self, from: usize) -> Vec<String> {
        let vids: Vec<String> = (from..from + TAPES).map(|number| format!("V{:05}", 1001 + number)).collect();
        self.site.enter(&vids.iter().map(String::as_str).collect::<Vec<_>>()).await;
        let begun = Instant::now();
        while !vids.iter().any(|vid| !self.site.begun(vid).is_empty()) {
            assert!(begun.elapsed() < PATIENCE, "nobody begins");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        vids
    }

    fn deliveries(&self) -> u64 {
        let queues = self.rabbit.api("GET", "/api/queues/%2F", None);
        let of = |queue: &serde_json::Value| queue["message_stats"]["deliver_get"].as_u64().unwrap_or(0);
        queues.as_array().into_iter().flatten().map(of).sum()
    }

    /// Waits, and measures what the programs use of the processor meanwhile.
    async fn wait(&mut self, what: &str, long: Duration) {
        // What was in hand when it began is over by then.
        tokio::time::sleep(long / 4).await;
        let pids = [self.workers.pids(), self.producers.pids()].concat();
        let used = |pids: &[u32]| pids.iter().map(|pid| cpu_secs(*pid)).collect::<Vec<f64>>();
        let (before, begun) = (used(&pids), Instant::now());
        tokio::time::sleep(long - long / 4).await;
        let elapsed = begun.elapsed().as_secs_f64();
        for (pid, (after, before)) in pids.iter().zip(used(&pids).into_iter().zip(before)) {
            let part = (after - before) / elapsed;
            self.said +=
                &format!("{what}: process {pid} used {:.2} % of a processor over {elapsed:.0} s\n", part * 100.0);
            assert!(part < BUSY, "{what}: process {pid} is busy: {part}");
        }
    }

    /// All of these go all the way, without anybody being started again or blamed.
    async fn finish(&mut self, what: &str, vids: &[String]) {
        let begun = Instant::now();
        loop {
            let rows = self.site.rows().await;
            if all_at_rest(&rows) {
                break;
            }
            assert!(begun.elapsed() < PATIENCE, "{what}: {rows:#?}");
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        self.said +=
            &format!("{what}: {} tapes finished {:.1} s after it\n", vids.len(), begun.elapsed().as_secs_f64());
        self.workers.keep();
        self.producers.keep();
        assert_eq!((self.workers.started(), self.producers.started()), (3, 1), "{what}: somebody was started again");
        for vid in vids {
            let Overview { row, task, .. } = self.site.row(vid).await;
            let (tape, task) = (row.expect("a lawful row"), task.expect("a task"));
            assert_eq!((tape.state(), tape.mode), (State::Finished, Mode::Auto), "{what}: {vid}");
            assert_eq!((task.attempts, task.crashes), (0, 0), "{what}: {vid}");
            for kind in ["retrying", "abandoned", "stopped", "dead-letter"] {
                assert_eq!(self.site.events_of(vid, kind).await, [], "{what}: {vid}");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn outages_of_broker_and_database_under_load_burn_no_attempt_and_no_processor() {
    let mut load = Load::new().await;
    let without_broker = load.begin(0).await;
    load.rabbit.kill();
    load.wait("broker away", seconds(10, 8)).await;
    load.rabbit.resume();
    load.finish("broker away", &without_broker).await;

    let without_database = load.begin(TAPES).await;
    let before = load.deliveries();
    load.postgres.crash();
    load.wait("PostgreSQL away", seconds(5, 8)).await;
    let delivered = load.deliveries() - before;
    load.said += &format!("PostgreSQL away: {delivered} deliveries\n");
    // Each worker may have had some in hand; what comes back again and again would be hundreds.
    assert!(delivered < 100, "a storm: {delivered} deliveries");
    load.postgres.resume();
    load.finish("PostgreSQL away", &without_database).await;

    let Load { site, workers, producers, said, .. } = load;
    workers.end();
    producers.end();
    tell("outages", &said);
    all_finished(&site, &[without_broker, without_database].concat()).await.none();
}
