//! What Prometheus is told: counters and durations of this process, and a picture of the site that the producer takes
//! once per tick.
//!
//! A [`Store`](crate::store::Store) owns the metrics of its program, so whatever has the database can count; two programs
//! in one process (as tests have them) do not mix.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Metric, Registry};
use serde_json::Value;

use crate::reason::{Code, Kept, NO_GATE_REFUSAL};
use crate::stages::STAGES;

mod picture;
mod process;
pub mod serve;
mod table;

pub use picture::{Group, Picture, Queue, TickSeen};
pub use table::{ALL, Described, Kind, Served, table};

/// Labels of one series. Only words of ours stand in them, never a VID: their number stays small.
type Labels = Vec<(&'static str, String)>;
type Counters = Family<Labels, Counter>;
type Durations = Family<Labels, Histogram, fn() -> Histogram>;

/// Outcomes of a task, as `outcome` has them.
pub const OUTCOMES: [&str; 6] = ["done", "waiting", "retrying", "site-trouble", "stopped", "nothing"];

/// What a dead letter did, as `result` has it.
const DEAD_LETTERS: [&str; 3] = ["mode-error", "no-stop", "parked"];

/// From a tenth of a second to the two hours that a list of a large tape may take.
fn durations() -> Histogram {
    Histogram::new([0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0, 3600.0, 7200.0])
}

/// The metrics of one program.
#[derive(Debug)]
pub struct Metrics {
    tasks: Counters,
    task_durations: Durations,
    cta_durations: Durations,
    retries: Counters,
    abandoned: Counters,
    dead_letters: Counters,
    stops: Counters,
    gate_refusals: Counters,
    repacked_bytes: Counter,
    repacked_files: Counter,
    in_hand: Gauge,
    state: State,
    picture: Arc<Mutex<Option<Picture>>>,
    born: Instant,
    turned: AtomicU64,
    served: AtomicBool,
}

/// What keeps the program from its work, by what it is about.
#[derive(Debug, Clone, Default)]
struct State(Arc<Mutex<BTreeMap<String, Option<String>>>>);

impl State {
    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, Option<String>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Collector for State {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> std::fmt::Result {
        let state = self.lock().clone();
        let up = |name: &str| state.get(name).map(|why| i64::from(why.is_none()));
        let connections =
            ["database", "broker"].iter().filter_map(|to| Some((vec![("to", (*to).to_owned())], up(to)?)));
        gauges(&mut encoder, "cta_repack_connected", connections)?;
        let left = STAGES.iter().filter_map(|stage| {
            let up = up(&format!("stage {}", stage.name))?;
            Some((vec![("stage", stage.name.to_owned())], 1 - up))
        });
        gauges(&mut encoder, "cta_repack_stage_left", left)
    }
}

/// Writes a gauge with its series; nothing at all where there is none.
fn gauges<V: prometheus_client::encoding::EncodeGaugeValue>(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    series: impl IntoIterator<Item = (Labels, V)>,
) -> std::fmt::Result {
    let mut series = series.into_iter().peekable();
    if series.peek().is_none() {
        return Ok(());
    }
    let mut metric =
        encoder.encode_descriptor(name, table::about(name), None, prometheus_client::metrics::MetricType::Gauge)?;
    for (labels, value) in series {
        if labels.is_empty() {
            metric.encode_gauge(&value)?;
        } else {
            metric.encode_family(&labels)?.encode_gauge(&value)?;
        }
    }
    Ok(())
}

impl Default for Metrics {
    fn default() -> Metrics {
        let metrics = Metrics {
            tasks: Counters::default(),
            task_durations: Durations::new_with_constructor(durations),
            cta_durations: Durations::new_with_constructor(durations),
            retries: Counters::default(),
            abandoned: Counters::default(),
            dead_letters: Counters::default(),
            stops: Counters::default(),
            gate_refusals: Counters::default(),
            repacked_bytes: Counter::default(),
            repacked_files: Counter::default(),
            in_hand: Gauge::default(),
            state: State::default(),
            picture: Arc::default(),
            born: Instant::now(),
            turned: AtomicU64::new(0),
            served: AtomicBool::new(false),
        };
        // A series that is there from the beginning shows its first increase.
        for stage in STAGES {
            for outcome in OUTCOMES {
                let _ = metrics.tasks.get_or_create(&labels([("stage", stage.name), ("outcome", outcome)]));
            }
            let _ = metrics.task_durations.get_or_create(&labels([("stage", stage.name), ("outcome", "done")]));
            for family in [&metrics.retries, &metrics.abandoned] {
                let _ = family.get_or_create(&labels([("stage", stage.name)]));
            }
            let code = if stage.name == "reclaim" { Code::TapeChanged } else { Code::Refused };
            let _ = metrics.stops.get_or_create(&labels([("stage", stage.name), ("code", code.name())]));
        }
        for result in DEAD_LETTERS {
            let _ = metrics.dead_letters.get_or_create(&labels([("result", result)]));
        }
        for code in [Code::RecycleLogYoung, Code::FilesLeft, Code::TapeChanged, Code::PoolIsRouted] {
            let _ = metrics.gate_refusals.get_or_create(&labels([("code", code.name())]));
        }
        metrics
    }
}

fn labels<const N: usize>(pairs: [(&'static str, &str); N]) -> Labels {
    pairs.map(|(name, value)| (name, value.to_owned())).into()
}

/// A stage of ours, or `other`: whatever a row or a message names, the number of series stays small.
fn stage(name: &str) -> &str {
    crate::stages::named(name).map_or("other", |stage| stage.name)
}

/// A reason code of ours, or `other`.
fn code(name: &str) -> &'static str {
    Code::ALL.iter().map(|code| code.name()).find(|known| *known == name).unwrap_or("other")
}

impl Metrics {
    /// A claimed task came to its end: how, why if it is not done, and how long it took.
    pub fn task(&self, of: &str, outcome: &'static str, why: Option<&Kept>, took: Duration) {
        let of = stage(of);
        let labels_of = labels([("stage", of), ("outcome", outcome)]);
        self.tasks.get_or_create(&labels_of).inc();
        self.task_durations.get_or_create(&labels_of).observe(took.as_secs_f64());
        let refusal = |why: &&Kept| !NO_GATE_REFUSAL.iter().any(|code| code.name() == why.code);
        if let Some(why) = why.filter(|why| of == "reclaim" && refusal(why)) {
            self.gate_refusals.get_or_create(&labels([("code", code(&why.code))])).inc();
        }
    }

    /// A call of `cta-admin` ended.
    pub fn cta_admin(&self, command: &'static str, outcome: &'static str, took: Duration) {
        self.cta_durations
            .get_or_create(&labels([("command", command), ("outcome", outcome)]))
            .observe(took.as_secs_f64());
    }

    /// A line of the history was committed.
    pub fn noted(&self, kind: &str, of: Option<&str>, detail: &Value) {
        let of = stage(of.unwrap_or_default());
        match kind {
            "retrying" => self.retries.get_or_create(&labels([("stage", of)])).inc(),
            "abandoned" => self.abandoned.get_or_create(&labels([("stage", of)])).inc(),
            "stopped" => {
                let why = code(detail["code"].as_str().unwrap_or_default());
                self.stops.get_or_create(&labels([("stage", of), ("code", why)])).inc()
            }
            "error" => self.dead_letter("mode-error"),
            "dead-letter" => self.dead_letter("no-stop"),
            _ => return,
        };
    }

    /// A dead letter was parked: it names no tape.
    pub fn parked(&self) {
        self.dead_letter("parked");
    }

    fn dead_letter(&self, result: &'static str) -> u64 {
        self.dead_letters.get_or_create(&labels([("result", result)])).inc()
    }

    /// A repack came to its good end; `request` is CTA's object.
    pub fn repacked(&self, request: &Value) {
        let number = |key: &str| match &request[key] {
            Value::String(text) => text.parse().unwrap_or(0),
            other => other.as_u64().unwrap_or(0),
        };
        self.repacked_bytes.inc_by(number("archivedBytes"));
        self.repacked_files.inc_by(number("archivedFiles"));
    }

    /// Deliveries in hand.
    pub fn in_hand(&self, count: usize) {
        self.in_hand.set(i64::try_from(count).unwrap_or(i64::MAX));
    }

    /// How something that the program needs is: `database`, `broker`, `tick`, `stage start`. Err: why not.
    pub fn set(&self, what: &str, how: Result<(), &str>) {
        self.state.lock().insert(what.to_owned(), how.err().map(str::to_owned));
    }

    /// Why the program cannot do all of its work, a line each; empty: it can.
    pub fn not_ready(&self) -> Vec<String> {
        let state = self.state.lock();
        state.iter().filter_map(|(what, why)| Some(format!("{what}: {}", why.as_ref()?))).collect()
    }

    /// The program's loop went round.
    pub fn turned(&self) {
        let since = u64::try_from(self.born.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.turned.store(since, Ordering::Relaxed);
    }

    /// How long ago the loop last went round.
    pub fn still_for(&self) -> Duration {
        self.born.elapsed().saturating_sub(Duration::from_millis(self.turned.load(Ordering::Relaxed)))
    }

    /// Whether anybody can ask for the metrics.
    pub fn is_served(&self) -> bool {
        self.served.load(Ordering::Relaxed)
    }

    /// The newest picture of the site.
    pub fn show(&self, picture: Picture) {
        *self.picture.lock().unwrap_or_else(PoisonError::into_inner) = Some(picture);
    }

    /// Everything, in the OpenMetrics text format.
    pub fn text(&self, program: &str) -> String {
        let mut registry = Registry::default();
        process::register(&mut registry, program);
        put(&mut registry, "cta_repack_tasks_total", self.tasks.clone());
        put(&mut registry, "cta_repack_task_duration_seconds", self.task_durations.clone());
        put(&mut registry, "cta_repack_cta_admin_duration_seconds", self.cta_durations.clone());
        put(&mut registry, "cta_repack_retries_total", self.retries.clone());
        put(&mut registry, "cta_repack_leases_abandoned_total", self.abandoned.clone());
        put(&mut registry, "cta_repack_dead_letters_total", self.dead_letters.clone());
        put(&mut registry, "cta_repack_stops_total", self.stops.clone());
        put(&mut registry, "cta_repack_reclaim_gate_refusals_total", self.gate_refusals.clone());
        put(&mut registry, "cta_repack_repacked_bytes_total", self.repacked_bytes.clone());
        put(&mut registry, "cta_repack_repacked_files_total", self.repacked_files.clone());
        put(&mut registry, "cta_repack_tasks_in_hand", self.in_hand.clone());
        registry.register_collector(Box::new(self.state.clone()));
        registry.register_collector(Box::new(picture::Shown(Arc::clone(&self.picture))));
        encoded(&registry)
    }

    /// The picture of the site alone: what a run that ends can leave in a file for the textfile collector of
    /// `node_exporter`. It has gauges only, so the format is that of Prometheus too.
    pub fn textfile(&self) -> String {
        let mut registry = Registry::default();
        registry.register_collector(Box::new(picture::Shown(Arc::clone(&self.picture))));
        encoded(&registry)
    }
}

/// Registers under the name of the table, whose sentence becomes the help.
fn put(registry: &mut Registry, name: &'static str, metric: impl Metric) {
    // The encoder adds what a counter's name ends in.
    registry.register(name.trim_end_matches("_total"), table::about(name), metric);
}

fn encoded(registry: &Registry) -> String {
    let mut out = String::new();
    if text::encode(&mut out, registry).is_err() {
        // Writing to a string cannot fail.
        let _ = write!(out, "\n# broken\n");
    }
    out
}

#[cfg(test)]
mod tests;
