//! The site as the database and the broker have it, taken by the producer once per tick; scrapes ask nobody.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;

use super::{Labels, code, gauges, labels};
use crate::journey::{Mode, State};
use crate::reason::Code;
use crate::stages::{self, STAGES};

/// Unfinished rows that are alike.
#[derive(Debug, Clone, PartialEq)]
pub struct Group {
    /// How far they are.
    pub state: State,
    /// Their mode.
    pub mode: Mode,
    /// What they wait for: one of the classes of the table.
    pub class: String,
    /// The reason code that the rows name; empty: none.
    pub code: String,
    /// How many.
    pub tapes: i64,
    /// The longest of their waits, in seconds.
    pub oldest: f64,
}

/// A queue, as the broker has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Queue {
    /// The stage, `dead` or `parked`.
    pub name: String,
    /// Messages ready.
    pub messages: u32,
    /// Consumers.
    pub consumers: u32,
}

/// The last recorded tick of a stage, whoever ticked.
#[derive(Debug, Clone, PartialEq)]
pub struct TickSeen {
    /// The stage.
    pub stage: String,
    /// When, in seconds since 1970.
    pub at: f64,
    /// It could not do all of its work.
    pub trouble: bool,
}

/// The site at one moment.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Picture {
    /// When it was taken, in seconds since 1970.
    pub at: f64,
    /// Unfinished rows.
    pub groups: Vec<Group>,
    /// Rows whose journey is over; of a large table an estimate.
    pub finished: i64,
    /// Slots that there are.
    pub slots: u32,
    /// Slots taken.
    pub slots_taken: u32,
    /// Slots whose holder does not move by itself.
    pub slots_stuck: u32,
    /// Bytes that running repacks have written.
    pub running_bytes_done: u64,
    /// Bytes that running repacks have to write in all.
    pub running_bytes: u64,
    /// Files that running repacks could not read or write.
    pub running_failed_files: u64,
    /// Stages that are paused.
    pub paused: Vec<String>,
    /// Tapes on hold, with or without a row.
    pub held: u32,
    /// Last ticks.
    pub ticks: Vec<TickSeen>,
    /// The last digest could not be mailed.
    pub mail_failed: bool,
    /// Queues; empty without a broker, and where it could not be asked.
    pub queues: Vec<Queue>,
    /// How long the tick took that took this picture, in seconds.
    pub tick_secs: f64,
}

/// Writes the newest picture.
#[derive(Debug)]
pub(super) struct Shown(pub Arc<Mutex<Option<Picture>>>);

/// Reasons that the rules watch: always there, so that none of them is not the same as nobody asked.
const WATCHED: [(&str, Code); 5] = [
    ("start", Code::PendingTooLong),
    ("start", Code::SiteTrouble),
    ("end", Code::RepackStalled),
    ("end", Code::DisabledByDrive),
    ("reclaim", Code::TapeChanged),
];

/// The classes that are always there, so that a graph of them does not begin in the air.
const CLASSES: [&str; 4] = ["due", "waiting", "retrying", "stalled"];

impl Picture {
    /// Sums of tapes, or the longest wait, by labels.
    fn by<V: Copy>(
        &self,
        of: impl Fn(&Group) -> Option<Labels>,
        value: impl Fn(&Group) -> V,
        join: impl Fn(V, V) -> V,
        mut begun: BTreeMap<Labels, V>,
    ) -> BTreeMap<Labels, V> {
        for group in &self.groups {
            let Some(labels) = of(group) else { continue };
            let value = value(group);
            begun.entry(labels).and_modify(|sum| *sum = join(*sum, value)).or_insert(value);
        }
        begun
    }

    fn tapes(&self) -> BTreeMap<Labels, i64> {
        let of = |state: State, mode: Mode| labels([("state", state.column()), ("mode", mode.label())]);
        let states = State::ALL.into_iter().filter(|state| *state != State::Finished);
        let zero = states.flat_map(|state| Mode::ALL.map(|mode| (of(state, mode), 0))).collect();
        self.by(|group| Some(of(group.state, group.mode)), |group| group.tapes, |a, b| a + b, zero)
    }

    fn waits<V: Copy>(&self, zero: V, value: impl Fn(&Group) -> V, join: impl Fn(V, V) -> V) -> BTreeMap<Labels, V> {
        let of = |stage: &str, class: &str| labels([("stage", stage), ("class", class)]);
        let begun = STAGES.iter().flat_map(|stage| CLASSES.map(|class| (of(stage.name, class), zero))).collect();
        self.by(|group| Some(of(stages::after(group.state)?.name, &group.class)), value, join, begun)
    }

    fn reasons(&self) -> BTreeMap<Labels, i64> {
        let of = |group: &Group| {
            let stage = stages::after(group.state)?.name;
            (!group.code.is_empty()).then(|| labels([("stage", stage), ("code", code(&group.code))]))
        };
        let watched = WATCHED.map(|(stage, code)| (labels([("stage", stage), ("code", code.name())]), 0));
        self.by(of, |group| group.tapes, |a, b| a + b, watched.into())
    }
}

impl Collector for Shown {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> std::fmt::Result {
        let Some(picture) = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone() else { return Ok(()) };
        let out = &mut encoder;
        let one = |value: f64| [(Labels::new(), value)];
        gauges(out, "cta_repack_picture_timestamp_seconds", one(picture.at))?;
        gauges(out, "cta_repack_tapes", picture.tapes())?;
        gauges(out, "cta_repack_finished_tapes", [(Labels::new(), picture.finished)])?;
        gauges(out, "cta_repack_waiting_tapes", picture.waits(0, |group| group.tapes, |a, b| a + b))?;
        gauges(out, "cta_repack_oldest_wait_seconds", picture.waits(0.0, |group| group.oldest, f64::max))?;
        gauges(out, "cta_repack_reason_tapes", picture.reasons())?;
        gauges(out, "cta_repack_slots", one(picture.slots.into()))?;
        gauges(out, "cta_repack_slots_taken", one(picture.slots_taken.into()))?;
        gauges(out, "cta_repack_slots_stuck", one(picture.slots_stuck.into()))?;
        #[expect(clippy::cast_precision_loss, reason = "bytes beyond 2^53 lose less than a block")]
        let bytes = |bytes: u64| bytes as f64;
        gauges(out, "cta_repack_running_repacked_bytes", one(bytes(picture.running_bytes_done)))?;
        gauges(out, "cta_repack_running_selected_bytes", one(bytes(picture.running_bytes)))?;
        gauges(out, "cta_repack_running_failed_files", one(bytes(picture.running_failed_files)))?;
        let paused = STAGES.map(|stage| {
            (labels([("stage", stage.name)]), i64::from(picture.paused.iter().any(|name| name == stage.name)))
        });
        gauges(out, "cta_repack_stage_paused", paused)?;
        gauges(out, "cta_repack_held_tapes", one(picture.held.into()))?;
        let of_tick = |tick: &TickSeen| labels([("stage", super::stage(&tick.stage))]);
        gauges(
            out,
            "cta_repack_last_tick_timestamp_seconds",
            picture.ticks.iter().map(|tick| (of_tick(tick), tick.at)),
        )?;
        gauges(
            out,
            "cta_repack_last_tick_trouble",
            picture.ticks.iter().map(|tick| (of_tick(tick), i64::from(tick.trouble))),
        )?;
        gauges(out, "cta_repack_mail_failed", one(picture.mail_failed.into()))?;
        gauges(out, "cta_repack_last_tick_duration_seconds", one(picture.tick_secs))?;
        let of_queue = |queue: &Queue| labels([("queue", &queue.name)]);
        gauges(
            out,
            "cta_repack_queue_messages",
            picture.queues.iter().map(|queue| (of_queue(queue), i64::from(queue.messages))),
        )?;
        gauges(
            out,
            "cta_repack_queue_consumers",
            picture.queues.iter().map(|queue| (of_queue(queue), i64::from(queue.consumers))),
        )
    }
}
