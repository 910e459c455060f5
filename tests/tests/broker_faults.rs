//! A broker that dies, hangs, fills up, forgets, refuses and is cut off, under real programs that are never restarted: every
//! tape goes all the way and nothing is done twice. One broker of the test's own, one fault after the other.

use std::time::{Duration, Instant};

use common::broker::{Consumer, Source, Topology};
use common::journey::{Mode, State};
use common::stages::STAGES;
use cta_sim::{Action, Kind, Order, World};
use journeys::checker::all_finished;
use journeys::crew::Crew;
use journeys::private::Rabbit;
use journeys::proxy::Proxy;
use journeys::site::{PATIENCE, Site};
use journeys::steps::until;
use serde_json::{Value, json};

/// Programs of a site, a broker behind a proxy, and tapes that have not been used.
struct Ground {
    rabbit: Rabbit,
    proxy: Proxy,
    site: Site,
    workers: Crew,
    producers: Crew,
    used: usize,
}

impl Ground {
    async fn new() -> Ground {
        let rabbit = Rabbit::start();
        let proxy = Proxy::to(&rabbit.address()).await;
        let mut site = Site::new(World::new().with_full_tapes(60).with_durations(20, 100)).await;
        site.settings.broker = Some(rabbit.broker(&proxy.address()));
        site.settings.lease = Duration::from_secs(15);
        site.settings.cta_admin.timeout = Duration::from_secs(10);
        site.settings.producer.interval = Duration::from_millis(200);
        site.settings.worker.concurrency = 4;
        let mut command = site.command(journeys::crew::WORKER);
        command.args(["--concurrency", "4"]);
        let workers = Crew::of(2, command);
        let producers = Crew::producers(&site, 1, "");
        Ground { rabbit, proxy, site, workers, producers, used: 0 }
    }

    /// As many fresh tapes, entered.
    async fn enter(&mut self, count: usize) -> Vec<String> {
        let vids: Vec<String> = (self.used..self.used + count).map(|number| format!("V{:05}", 1001 + number)).collect();
        self.used += count;
        self.site.enter(&vids.iter().map(String::as_str).collect::<Vec<_>>()).await;
        vids
    }

    /// Waits until this tape's call of this command has begun.
    async fn begun(&self, vid: &str, command: &str) {
        until(&format!("{command} of {vid}"), || self.site.begun(vid).iter().any(|entry| entry.command == command))
            .await;
    }

    /// All of these go all the way, by the programs that were there from the beginning; nobody is blamed.
    async fn finish(&mut self, what: &str, vids: &[String]) {
        let begun = Instant::now();
        loop {
            let mut missing = Vec::new();
            for vid in vids {
                match self.site.at(vid).await {
                    (State::Finished, _) => {}
                    (state, Mode::Auto) => missing.push(format!("{vid} {state} {:?}", self.site.why(vid).await)),
                    stopped => panic!("{what}: {vid} was stopped: {stopped:?}: {:?}", self.site.why(vid).await),
                }
            }
            if missing.is_empty() {
                break;
            }
            assert!(begun.elapsed() < PATIENCE, "{what}: {missing:#?}");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        self.nobody_ended(what);
        for vid in vids {
            let task = self.site.row(vid).await.task.expect("a task");
            assert_eq!((task.attempts, task.crashes), (0, 0), "{what}: {vid}");
            for kind in ["retrying", "abandoned", "dead-letter"] {
                assert_eq!(
                    self.site.events_of(vid, kind).await,
                    [],
                    "{what}: {vid}: no attempt is burned by an outage"
                );
            }
        }
        eprintln!("{what}: {} tapes in {:.1} s", vids.len(), begun.elapsed().as_secs_f64());
    }

    fn nobody_ended(&mut self, what: &str) {
        self.workers.keep();
        self.producers.keep();
        let ended = (&self.workers.ended, &self.producers.ended);
        assert!(ended.0.is_empty() && ended.1.is_empty(), "{what}: a program ended by itself: {ended:?}");
    }

    fn queue(stage: &str) -> String {
        format!("test.v1.stage.{stage}")
    }

    /// Everything is as it should be.
    async fn end(mut self) {
        let vids: Vec<String> = (0..self.used).map(|number| format!("V{:05}", 1001 + number)).collect();
        self.nobody_ended("at the end");
        let Ground { site, workers, producers, .. } = self;
        workers.end();
        producers.end();
        all_finished(&site, &vids).await.none();
    }

    /// Consumers of the stages' queues.
    fn consumers(&self) -> usize {
        let all = self.rabbit.api("GET", "/api/consumers/%2F", None);
        let of_stage = |consumer: &&Value| {
            consumer["queue"]["name"].as_str().is_some_and(|queue| queue.starts_with("test.v1.stage."))
        };
        all.as_array().into_iter().flatten().filter(of_stage).count()
    }

    /// Waits until both workers consume from all stages.
    async fn all_consume(&self, what: &str) {
        until(&format!("{what}: all workers consume again"), || self.consumers() == 2 * STAGES.len()).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_is_killed_hangs_or_is_cut_off_delays_the_tapes_and_nothing_else() {
    let mut ground = Ground::new().await;
    ground.all_consume("at first").await;
    let vids = ground.enter(2).await;
    ground.finish("with nothing wrong", &vids).await;
    killed_while_idle(&mut ground).await;
    killed_while_a_command_runs(&mut ground).await;
    hung(&mut ground).await;
    for one_way in [false, true] {
        cut_off_while_a_command_runs(&mut ground, one_way).await;
    }
    ground.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_fills_up_loses_patience_forgets_or_refuses_delays_the_tapes_and_nothing_else() {
    let mut ground = Ground::new().await;
    full(&mut ground).await;
    slower_than_the_ack_timeout(&mut ground).await;
    queues_deleted_and_purged(&mut ground).await;
    rights_revoked(&mut ground).await;
    vhost_deleted(&mut ground).await;
    wiped(&mut ground).await;
    ground.end().await;
}

/// A broker that is killed just after it made a quorum queue may not know afterwards that it leads it: the queue is there, and
/// answers nobody.
#[tokio::test(flavor = "multi_thread")]
async fn a_queue_without_a_leader_holds_up_its_own_stage_and_nothing_else() {
    let mut rabbit = Rabbit::start();
    let broker = rabbit.broker(&rabbit.address());
    let topology = Topology::new(&broker.prefix, STAGES.map(|stage| stage.name)).unwrap();
    let queue = Ground::queue("finish");
    // The last queue that was made.
    topology.declare(&broker, "a test").await.unwrap();
    rabbit.kill();
    rabbit.resume();
    topology.declare(&broker, "a test").await.unwrap();
    let consumer = Consumer::connect(&broker, &topology, &STAGES.map(|stage| stage.name.to_owned()), 1, "a test").await;
    let consumer = consumer.unwrap();
    assert_eq!(consumer.silent(), [Source::Stage("finish".to_owned())], "the fault did not happen");
    consumer.close().await;

    let mut site = Site::new(World::new().with_full_tapes(2).with_durations(20, 100)).await;
    site.settings.broker = Some(broker);
    site.settings.producer.interval = Duration::from_millis(200);
    let mut workers = Crew::workers(&site, 1, "");
    let mut producers = Crew::producers(&site, 1, "");
    site.enter(&["V01001", "V01002"]).await;
    for vid in ["V01001", "V01002"] {
        reaches(&site, vid, State::Reclaimed).await;
    }

    // As the worker says.
    rabbit.ctl(&["delete_queue", &queue]);
    for vid in ["V01001", "V01002"] {
        reaches(&site, vid, State::Finished).await;
    }
    workers.keep();
    producers.keep();
    assert!(workers.ended.is_empty() && producers.ended.is_empty());
    let said = workers.said();
    assert!(said.contains("no tasks of stage finish are taken, the others go on"), "{said}");
    assert!(said.contains(&format!("rabbitmqctl delete_queue '{queue}'")), "{said}");
    workers.end();
    producers.end();
    all_finished(&site, &["V01001".to_owned(), "V01002".to_owned()]).await.none();
}

async fn reaches(site: &Site, vid: &str, state: State) {
    let begun = Instant::now();
    while site.at(vid).await != (state, Mode::Auto) {
        assert!(begun.elapsed() < PATIENCE, "{vid}: {:?}, {:?}", site.at(vid).await, site.why(vid).await);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn killed_while_idle(ground: &mut Ground) {
    ground.rabbit.kill();
    let vids = ground.enter(2).await;
    ground.rabbit.resume();
    ground.all_consume("killed while idle").await;
    ground.finish("killed while idle", &vids).await;
}

/// A tape whose `repack add` takes a while.
async fn slow_add(ground: &mut Ground, ms: u64) -> String {
    let vid = format!("V{:05}", 1001 + ground.used);
    ground.site.order(Order::once("repack add", Action::Proceed).for_vid(&vid).sleeping(ms));
    assert_eq!(ground.enter(1).await, std::slice::from_ref(&vid));
    ground.begun(&vid, "repack add").await;
    vid
}

async fn killed_while_a_command_runs(ground: &mut Ground) {
    let vid = slow_add(ground, 3000).await;
    ground.rabbit.kill();
    let at_work =
        ground.site.journal().iter().any(|entry| {
            entry.kind == Kind::Effect && entry.command == "repack add" && entry.vid.as_deref() == Some(&vid)
        });
    assert!(!at_work, "the command was over when the broker died");
    // Recorded although there is no broker.
    until_recorded(ground, &vid).await;
    ground.rabbit.resume();
    ground.finish("killed while a command runs", std::slice::from_ref(&vid)).await;
    assert_eq!(ground.site.tries(&vid, "repack add"), 1);
}

async fn until_recorded(ground: &Ground, vid: &str) {
    let begun = Instant::now();
    while ground.site.at(vid).await.0 != State::Started {
        assert!(begun.elapsed() < PATIENCE, "{vid}: {:?}", ground.site.why(vid).await);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn hung(ground: &mut Ground) {
    let tried = ground.proxy.tried();
    ground.rabbit.hang(true);
    let vids = ground.enter(2).await;
    // They notice the silence by themselves, and try anew.
    ground.proxy.until_tried(tried + 2).await;
    ground.rabbit.hang(false);
    ground.finish("hung", &vids).await;
}

async fn cut_off_while_a_command_runs(ground: &mut Ground, one_way: bool) {
    let what = if one_way { "cut off one way" } else { "cut off both ways" };
    let vid = slow_add(ground, 3000).await;
    let tried = ground.proxy.tried();
    if one_way {
        ground.proxy.freeze_answers()
    } else {
        ground.proxy.freeze()
    }
    until_recorded(ground, &vid).await;
    ground.proxy.until_tried(tried + 2).await;
    ground.proxy.thaw();
    ground.finish(what, std::slice::from_ref(&vid)).await;
    assert_eq!(ground.site.tries(&vid, "repack add"), 1, "{what}");
}

/// The alarm: who publishes is not read from any more, who consumes goes on.
async fn full(ground: &mut Ground) {
    let running = slow_add(ground, 3000).await;
    ground.rabbit.ctl(&["set_disk_free_limit", "100000GB"]);
    until_recorded(ground, &running).await;
    let unacked = || {
        let queue = ground.rabbit.api("GET", &format!("/api/queues/%2F/{}", Ground::queue("start")), None);
        queue["messages_unacknowledged"].as_u64().unwrap_or(1)
    };
    until("the acknowledgement goes through during the alarm", || unacked() == 0).await;
    let vids = ground.enter(2).await;
    // Published, not confirmed: perhaps it arrives later, so the row says that it was not.
    let marked = format!(
        "SELECT count(*) FROM repack_status_task WHERE tape IN ('{}', '{}') AND dispatched_at IS NOT NULL",
        vids[0], vids[1]
    );
    let begun = Instant::now();
    let mut seen = 0;
    while seen == 0 || ground.site.number(&marked).await > 0 {
        seen = seen.max(ground.site.number(&marked).await);
        assert!(begun.elapsed() < PATIENCE, "a publish that is not confirmed is given up: marked {seen}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(ground.site.begun(&vids[0]), [], "the alarm kept it back");
    ground.rabbit.ctl(&["set_disk_free_limit", "50MB"]);
    ground.finish("disk alarm", &[vec![running], vids].concat()).await;
}

async fn slower_than_the_ack_timeout(ground: &mut Ground) {
    let vid = slow_add(ground, 8000).await;
    let tried = ground.proxy.tried();
    ground.proxy.until_tried(tried + 1).await;
    ground.finish("slower than the ack timeout", std::slice::from_ref(&vid)).await;
    assert_eq!(ground.site.tries(&vid, "repack add"), 1);
}

async fn queues_deleted_and_purged(ground: &mut Ground) {
    for stage in STAGES {
        ground.rabbit.api("DELETE", &format!("/api/queues/%2F/{}", Ground::queue(stage.name)), None);
    }
    let vids = ground.enter(2).await;
    ground.finish("queues deleted", &vids).await;
    ground.all_consume("queues deleted").await;
    let vids = ground.enter(3).await;
    for _ in 0..20 {
        for stage in STAGES {
            ground.rabbit.api("DELETE", &format!("/api/queues/%2F/{}/contents", Ground::queue(stage.name)), None);
        }
    }
    ground.finish("queues purged", &vids).await;
}

async fn rights_revoked(ground: &mut Ground) {
    let tried = ground.proxy.tried();
    ground.rabbit.allow("^$");
    ground.rabbit.cut_all();
    let vids = ground.enter(2).await;
    ground.proxy.until_tried(tried + 4).await;
    assert_eq!(ground.site.begun(&vids[0]), []);
    ground.rabbit.allow(".*");
    ground.finish("rights revoked", &vids).await;
}

async fn vhost_deleted(ground: &mut Ground) {
    let tried = ground.proxy.tried();
    ground.rabbit.api("DELETE", "/api/vhosts/%2F", None);
    let vids = ground.enter(2).await;
    ground.proxy.until_tried(tried + 4).await;
    ground.rabbit.api("PUT", "/api/vhosts/%2F", Some(&json!({})));
    ground.rabbit.allow(".*");
    ground.finish("virtual host deleted", &vids).await;
}

async fn wiped(ground: &mut Ground) {
    let vids = ground.enter(3).await;
    ground.rabbit.kill();
    ground.rabbit.wipe();
    ground.rabbit.resume();
    ground.finish("wiped", &vids).await;
}
