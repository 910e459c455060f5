//! Every metric in one table: the help texts and `docs/metrics.md` are made of it.

use std::fmt::Write as _;

/// Type of a metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Only grows, while the process lives.
    Counter,
    /// A value now.
    Gauge,
    /// How often values fell into ranges.
    Histogram,
}

impl Kind {
    /// The word of the exposition format.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
        }
    }
}

/// Who serves a metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Served {
    /// The worker and `producer run`.
    Both,
    /// The worker.
    Worker,
    /// `producer run`, and the textfile.
    Producer,
    /// The same, with a broker.
    ProducerWithBroker,
}

impl Served {
    fn words(self) -> &'static str {
        match self {
            Served::Both => "worker, producer",
            Served::Worker => "worker",
            Served::Producer => "producer, textfile",
            Served::ProducerWithBroker => "producer, textfile, with a broker",
        }
    }
}

/// A metric.
#[derive(Debug, Clone, Copy)]
pub struct Described {
    /// Its name.
    pub name: &'static str,
    /// Its type.
    pub kind: Kind,
    /// Its labels.
    pub labels: &'static [&'static str],
    /// Its unit; empty where it counts things.
    pub unit: &'static str,
    /// What it means.
    pub about: &'static str,
    /// Who serves it.
    pub served: Served,
}

const fn metric(
    name: &'static str,
    kind: Kind,
    labels: &'static [&'static str],
    unit: &'static str,
    served: Served,
    about: &'static str,
) -> Described {
    Described { name, kind, labels, unit, about, served }
}

use Kind::{Counter, Gauge, Histogram};
use Served::{Both, Producer, ProducerWithBroker, Worker};

/// Every metric, in the order of the documentation.
pub const ALL: &[Described] = &[
    metric(
        "cta_repack_tapes",
        Gauge,
        &["state", "mode"],
        "",
        Producer,
        "Tapes on their way, by how far they are and by mode",
    ),
    metric(
        "cta_repack_finished_tapes",
        Gauge,
        &[],
        "",
        Producer,
        "Tapes whose journey is over; of a table larger than 16 MB the estimate of the database's statistics",
    ),
    metric(
        "cta_repack_waiting_tapes",
        Gauge,
        &["stage", "class"],
        "",
        Producer,
        "Tapes before a stage, by what they wait for",
    ),
    metric(
        "cta_repack_oldest_wait_seconds",
        Gauge,
        &["stage", "class"],
        "seconds",
        Producer,
        "The longest wait of these tapes: since their last stamp; class due: since they were due",
    ),
    metric(
        "cta_repack_reason_tapes",
        Gauge,
        &["stage", "code"],
        "",
        Producer,
        "Tapes before a stage whose row names this reason code; codes that the rules do not watch have a series only where there is such a tape",
    ),
    metric("cta_repack_slots", Gauge, &[], "", Producer, "The cap on active repacks (max_active_repacks)"),
    metric("cta_repack_slots_taken", Gauge, &[], "", Producer, "Active repacks: tapes that hold a slot"),
    metric(
        "cta_repack_slots_stuck",
        Gauge,
        &[],
        "",
        Producer,
        "Slots whose holder does not move by itself: in mode error or manual, on hold, stopped, stalled",
    ),
    metric(
        "cta_repack_running_repacked_bytes",
        Gauge,
        &[],
        "bytes",
        Producer,
        "What the repacks that hold a slot have written, as last seen",
    ),
    metric(
        "cta_repack_running_selected_bytes",
        Gauge,
        &[],
        "bytes",
        Producer,
        "What the repacks that hold a slot have to write in all, as last seen",
    ),
    metric(
        "cta_repack_running_failed_files",
        Gauge,
        &[],
        "",
        Producer,
        "Files that the repacks that hold a slot could not read or write, as last seen",
    ),
    metric("cta_repack_stage_paused", Gauge, &["stage"], "", Producer, "1: an operator paused the stage"),
    metric("cta_repack_held_tapes", Gauge, &[], "", Producer, "Tapes on hold, in the table or not"),
    metric(
        "cta_repack_last_tick_timestamp_seconds",
        Gauge,
        &["stage"],
        "seconds since 1970",
        Producer,
        "When the stage was last ticked, by whatever producer",
    ),
    metric(
        "cta_repack_last_tick_trouble",
        Gauge,
        &["stage"],
        "",
        Producer,
        "1: the last tick of the stage could not do all of its work",
    ),
    metric(
        "cta_repack_mail_failed",
        Gauge,
        &[],
        "",
        Producer,
        "1: the last digest could not be mailed, and is tried again; also 0 where none is wanted",
    ),
    metric(
        "cta_repack_last_tick_duration_seconds",
        Gauge,
        &[],
        "seconds",
        Producer,
        "How long the last tick of this producer took",
    ),
    metric(
        "cta_repack_picture_timestamp_seconds",
        Gauge,
        &[],
        "seconds since 1970",
        Producer,
        "When the database was last asked for what the producer serves",
    ),
    metric(
        "cta_repack_queue_messages",
        Gauge,
        &["queue"],
        "",
        ProducerWithBroker,
        "Messages ready in a queue: of a stage, dead letters, parked",
    ),
    metric("cta_repack_queue_consumers", Gauge, &["queue"], "", ProducerWithBroker, "Consumers of a queue"),
    metric(
        "cta_repack_tasks_total",
        Counter,
        &["stage", "outcome"],
        "",
        Both,
        "Claimed tasks that came to their end, by outcome",
    ),
    metric(
        "cta_repack_task_duration_seconds",
        Histogram,
        &["stage", "outcome"],
        "seconds",
        Both,
        "How long a claimed task took, from claim to record",
    ),
    metric(
        "cta_repack_cta_admin_duration_seconds",
        Histogram,
        &["command", "outcome"],
        "seconds",
        Both,
        "How long a call of cta-admin took",
    ),
    metric("cta_repack_retries_total", Counter, &["stage"], "", Both, "Attempts that failed and will be repeated"),
    metric(
        "cta_repack_stops_total",
        Counter,
        &["stage", "code"],
        "",
        Both,
        "Stops that were recorded, by reason code; mode error follows",
    ),
    metric(
        "cta_repack_leases_abandoned_total",
        Counter,
        &["stage"],
        "",
        Both,
        "Leases that ran out or ended in a panic, and were taken over or closed",
    ),
    metric(
        "cta_repack_dead_letters_total",
        Counter,
        &["result"],
        "",
        Both,
        "Dead letters handled, and Stops followed without one: the tape is in mode error now, no Stop was behind it, or it names no tape and was parked",
    ),
    metric(
        "cta_repack_reclaim_gate_refusals_total",
        Counter,
        &["code"],
        "",
        Both,
        "How often the reclaim gate did not let a tape through, by reason code",
    ),
    metric("cta_repack_repacked_bytes_total", Counter, &[], "bytes", Both, "What repacks wrote that came to their end"),
    metric("cta_repack_repacked_files_total", Counter, &[], "", Both, "Copies of files that these repacks wrote"),
    metric("cta_repack_tasks_in_hand", Gauge, &[], "", Both, "Deliveries that this process has in hand"),
    metric(
        "cta_repack_stage_left",
        Gauge,
        &["stage"],
        "",
        Worker,
        "1: this worker leaves the stage alone because of trouble of the site",
    ),
    metric(
        "cta_repack_connected",
        Gauge,
        &["to"],
        "",
        Both,
        "1: the last attempt to reach the database, or the broker, succeeded",
    ),
    metric(
        "cta_repack_build_info",
        Gauge,
        &["version", "program"],
        "",
        Both,
        "Always 1; the labels say which program and version it is",
    ),
    metric(
        "process_cpu_seconds_total",
        Counter,
        &[],
        "seconds",
        Both,
        "Processor time of this process, without cta-admin",
    ),
    metric("process_start_time_seconds", Gauge, &[], "seconds since 1970", Both, "When this process began"),
    metric("process_resident_memory_bytes", Gauge, &[], "bytes", Both, "Memory of this process"),
    metric("process_threads", Gauge, &[], "", Both, "Threads of this process"),
    metric("process_open_fds", Gauge, &[], "", Both, "Open files and connections of this process"),
];

/// The sentence of a metric; for the exposition, which ends it with a full stop itself.
pub(super) fn about(name: &str) -> &'static str {
    ALL.iter().find(|metric| metric.name == name).map_or("Not described", |metric| metric.about)
}

/// The table as `docs/metrics.md` has it.
pub fn table() -> String {
    let mut out = String::from("| name | type | labels | unit | meaning | served by |\n|---|---|---|---|---|---|\n");
    for metric in ALL {
        let labels = metric.labels.join(", ");
        // Writing to a string cannot fail.
        let _ = writeln!(
            out,
            "| `{}` | {} | {labels} | {} | {} | {} |",
            metric.name,
            metric.kind.name(),
            metric.unit,
            metric.about,
            metric.served.words()
        );
    }
    out
}
