//! A real Prometheus beside programs that really run: its numbers are those of the database, and the shipped rules fire.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use common::journey::{Mode, State};
use common::settings::Settings;
use cta_sim::World;
use cta_sim::world::Plan;
use journeys::crew::Crew;
use journeys::prometheus::{Prometheus, addresses, without_patience};
use journeys::services::Services;
use journeys::site::Site;

const RULES: &str = include_str!("../../deploy/prometheus/alerts.yaml");

/// Labels and number, as the database has them.
async fn database(site: &Site, statement: &str) -> BTreeMap<String, f64> {
    let client = site.database.client().await;
    let rows = client.query(statement, &[]).await.unwrap_or_else(|error| panic!("{statement}: {error:?}"));
    #[expect(clippy::cast_precision_loss, reason = "a small site")]
    let pairs = rows.iter().map(|row| (row.get::<_, String>(0), row.get::<_, i64>(1) as f64));
    pairs.filter(|(_, count)| *count > 0.0).collect()
}

/// Prometheus comes to say what the database says, which does not change meanwhile.
async fn assert_agree(prometheus: &Prometheus, site: &Site, expression: &str, statement: &str) {
    let expected = database(site, statement).await;
    assert!(!expected.is_empty(), "{statement}");
    let some = |answer: &BTreeMap<String, f64>| {
        answer.iter().filter(|(_, value)| **value != 0.0).map(|(labels, value)| (labels.clone(), *value)).collect()
    };
    let seen = prometheus.until(expression, |answer| {
        let some: BTreeMap<String, f64> = some(answer);
        some == expected
    });
    assert_eq!(expected, some(&seen));
    assert_eq!(expected, database(site, statement).await, "the site does not stand still: {statement}");
}

const STATE: &str = "CASE WHEN reclaimed IS NOT NULL THEN 'reclaimed' WHEN quarantined IS NOT NULL THEN 'quarantined' \
     WHEN repacked IS NOT NULL THEN 'repacked' WHEN started IS NOT NULL THEN 'started' ELSE 'entered' END";

/// Of the shipped rules only the time that an alert is pending is shortened, from minutes to a second; what they look for,
/// and from when on, is as it is shipped.
#[tokio::test(flavor = "multi_thread")]
async fn the_shipped_rules_fire_for_an_injected_stall_and_the_numbers_are_those_of_the_database() {
    let (rules, shortened) = without_patience(RULES);
    assert!(shortened > 10 && shortened == RULES.matches(" for: ").count());
    // Two go all the way, one will fail, one will not advance, and one is in a person's hands.
    let mut world = World::new().with_full_tapes(5).with_durations(0, 100);
    let mut plan = |vid: &str, plan| world.tapes.get_mut(vid).expect("a tape").plan = plan;
    plan("V01003", Plan { fail_files: 1, fail_times: 1, ..Plan::default() });
    plan("V01004", Plan { stall_after: Some(1), ..Plan::default() });
    let vhost = Services::get().fresh_vhost();
    let mut site = Site::new(world).await;
    let [of_producer, of_worker] = addresses();
    site.settings = Settings { broker: Some(vhost.broker()), stall: Duration::from_secs(2), ..site.settings };
    site.settings.producer.interval = Duration::from_millis(200);
    site.settings.producer.metrics_listen = Some(of_producer);
    site.settings.worker.metrics_listen = Some(of_worker);
    site.enter(&["V01001", "V01002", "V01005"]).await;
    site.sql("UPDATE repack_status SET mode = 'manual' WHERE tape = 'V01005'").await;
    let worker = Crew::workers(&site, 1, "");
    let producer = Crew::producers(&site, 1, "");
    let prometheus = Prometheus::start(&rules, &[("producer", of_producer), ("worker", of_worker)]);

    // All is well: both are scraped, the tapes go on, and no rule fires or is about to.
    prometheus.until("up", |up| up.len() == 2 && up.values().all(|up| *up == 1.0));
    prometheus.until("max(cta_repack_finished_tapes)", |finished| finished.get("") == Some(&2.0));
    prometheus.until("count by (alertname) (ALERTS)", |alerts| alerts.is_empty());

    // One repack fails, and one does not advance.
    site.enter(&["V01003", "V01004"]).await;
    let firing = ["CtaRepackStalled", "CtaRepackTapeInError", "CtaRepackSlotsStuck"];
    firing.iter().for_each(|alert| prometheus.until_firing(alert, true));
    assert_eq!(site.at("V01003").await, (State::Started, Mode::Error));
    assert_eq!((site.at("V01004").await.1, site.why("V01004").await.0), (Mode::Auto, "repack-stalled".to_owned()));
    assert_eq!(prometheus.alerts().into_iter().collect::<BTreeSet<_>>(), firing.map(str::to_owned).into());

    let by_state =
        format!("SELECT mode || ' ' || {STATE}, count(*) FROM repack_status WHERE finished IS NULL GROUP BY 1");
    for (expression, statement) in [
        ("max by (mode, state) (cta_repack_tapes)", by_state.as_str()),
        (
            "sum(max by (state) (cta_repack_tapes{mode=\"error\"}))",
            "SELECT '', count(*) FROM repack_status WHERE mode = 'error'",
        ),
        ("max(cta_repack_finished_tapes)", "SELECT '', count(*) FROM repack_status WHERE finished IS NOT NULL"),
        ("max(cta_repack_slots_taken)", "SELECT '', count(*) FROM repack_status_task WHERE slot_since IS NOT NULL"),
        (
            "max by (code, stage) (cta_repack_reason_tapes)",
            "SELECT reason_code || ' ' || stage, count(*) FROM repack_status_task WHERE outcome IS NOT NULL GROUP BY 1",
        ),
        (
            "sum by (stage) (cta_repack_tasks_total{outcome=\"done\"})",
            "SELECT stage, count(*) FROM repack_status_event WHERE kind = 'done' GROUP BY 1",
        ),
        (
            "sum by (code) (cta_repack_stops_total)",
            "SELECT detail->>'code', count(*) FROM repack_status_event WHERE kind = 'stopped' GROUP BY 1",
        ),
    ] {
        assert_agree(&prometheus, &site, expression, statement).await;
    }

    // It goes on, and so the alert ends.
    site.edit(|world| world.tapes.get_mut("V01004").expect("a tape").plan.stall_after = None);
    prometheus.until_firing("CtaRepackStalled", false);
    prometheus.until("max(cta_repack_finished_tapes)", |finished| finished.get("") == Some(&3.0));
    prometheus.until_firing("CtaRepackTapeInError", true);
    assert_eq!((worker.failed(), producer.failed()), (0, 0));
}
