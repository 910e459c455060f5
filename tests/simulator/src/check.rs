//! What must hold: checked at every commit, at every start of a command, at every acknowledgement, and at the end.

use common::cta::Command;
use common::journey::{Mode, State};
use common::tape::{Tape, Vid};
use common::task::{Control, Next, Note, Task, later};

use crate::database::{Base, Role, stage_of};
use crate::world::{World, instant};

/// Somebody else had a hand in CTA's side of this tape since `since`: what was seen before may not be true any more.
fn touched(world: &World, vid: &Vid, since: i64) -> bool {
    world.cta.tapes.get(vid).is_none_or(|tape| tape.touched_at >= since)
}

/// After every transaction under the locks of a tape.
pub fn committed(
    world: &mut World,
    base: &Base,
    vid: &Vid,
    (row_before, before): (Option<&Tape>, Option<&Task>),
    control: &Control,
    notes: &[Note],
) {
    for note in notes {
        world.say(|| {
            let mut detail = note.detail.to_string();
            detail.truncate(detail.char_indices().nth(300).map_or(detail.len(), |(at, _)| at));
            format!("{vid}: {} {detail}", note.kind)
        });
        match note.kind {
            "abandoned" => world.tally.abandoned += 1,
            "fenced" => world.tally.fenced += 1,
            _ => {}
        }
    }
    let row_after = world.tables.rows.get(vid).cloned();
    let Some(after) = world.tables.tasks.get(vid).cloned() else { return };
    let unchanged = before == Some(&after) && row_before == row_after.as_ref();
    if unchanged {
        return;
    }
    let change = Change { base, vid, row_before, before, row: row_after.as_ref(), task: &after, control };
    let adopts = after.memory.adopt && before.is_none_or(|before| !before.memory.adopt);
    if adopts
        && base.role == Role::Manager
        && let Some(tape) = world.cta.tapes.get_mut(vid)
    {
        tape.adopted = true;
    }
    // Somebody's request that came after the look and before the intent cannot be told from ours either, if the answer
    // to our own is lost.
    let asks = after.memory.asked && before.is_none_or(|before| !before.memory.asked);
    let since = base.hands.borrow().claimed.get(vid).map(|(_, at)| *at);
    if asks
        && let (Some(since), Some(tape)) = (since, world.cta.tapes.get_mut(vid))
        && tape.touched_at >= since
    {
        tape.adopted |= tape.request.as_ref().is_some_and(|request| !request.ours);
    }
    change.describe(world);
    change.task_row(world);
    change.lease(world);
    change.intent(world);
    change.slot(world);
    change.main_row(world);
    change.doubt(world);
}

struct Change<'a> {
    base: &'a Base,
    vid: &'a Vid,
    row_before: Option<&'a Tape>,
    before: Option<&'a Task>,
    row: Option<&'a Tape>,
    task: &'a Task,
    control: &'a Control,
}

impl Change<'_> {
    fn works(&self) -> bool {
        matches!(self.base.role, Role::Delivery | Role::Tick)
    }

    /// The epoch that the process was given for this tape, and when.
    fn claimed(&self) -> Option<(i64, i64)> {
        self.base.hands.borrow().claimed.get(self.vid).copied()
    }

    fn describe(&self, world: &mut World) {
        world.say(|| {
            let task = self.task;
            let row = self.row.map_or("no row".to_owned(), |row| format!("{} {}", row.state(), row.mode));
            format!(
                "{}: committed: {row}; {} g{} e{} {} next {:?} settle {:?} slot {} wanted {:?} {:?}",
                self.vid,
                task.stage.as_deref().unwrap_or("-"),
                task.generation,
                task.epoch,
                task.owner.as_deref().unwrap_or("free"),
                task.next,
                task.settle_until.map(|at| at.time()),
                task.slot_since.is_some(),
                task.wanted,
                task.outcome,
            )
        });
    }

    fn task_row(&self, world: &mut World) {
        let task = self.task;
        if let Some(before) = self.before {
            if task.generation < before.generation || task.epoch < before.epoch {
                world.violate(1, format!("{}: generation or epoch went back", self.vid));
            }
            let newly = task.has_stop() && !before.has_stop();
            if newly && world.profile.outages_only {
                world.violate(7, format!("{}: stopped by an outage: {:?}", self.vid, task.reason));
            }
        }
        if task.has_stop() && task.reason.as_ref().is_none_or(|reason| reason.text.is_empty()) {
            world.violate(7, format!("{}: a Stop without a reason", self.vid));
        }
        if task.owner.is_some() != task.lease_until.is_some() {
            world.violate(1, format!("{}: half a lease", self.vid));
        }
    }

    /// Claims, and writes of those who hold no claim.
    fn lease(&self, world: &mut World) {
        let (vid, task, now) = (self.vid, self.task, world.time());
        let epoch_before = self.before.map_or(0, |before| before.epoch);
        let claims = task.owner.is_some() && task.epoch != epoch_before;
        if claims && self.works() {
            world.tally.claims += 1;
            self.claim(world);
            let at = world.now;
            self.base.hands.borrow_mut().claimed.insert(vid.clone(), (task.epoch, at));
            return;
        }
        let Some((epoch, _)) = self.claimed().filter(|_| self.base.role == Role::Delivery) else { return };
        let fenced = self.before.is_some_and(|before| before.epoch != epoch);
        if fenced {
            world.violate(1, format!("{vid}: a worker that was fenced out (epoch {epoch}) wrote"));
        }
        let _ = now;
    }

    fn claim(&self, world: &mut World) {
        let (vid, task, now) = (self.vid, self.task, world.time());
        if self.before.is_some_and(|before| before.is_leased(now)) {
            world.violate(1, format!("{vid}: claimed while somebody else's lease is alive"));
        }
        if self.before.is_some_and(|before| before.owner.is_some()) && task.crashes == 0 {
            world.violate(1, format!("{vid}: an open lease was taken over and not closed"));
        }
        if let (true, Role::Delivery) = (world.fault(10), self.base.role) {
            world.watch(vid);
        }
        let Some(row) = self.row else { return world.violate(8, format!("{vid}: claimed without a row")) };
        if row.mode != Mode::Auto {
            world.violate(5, format!("{vid}: claimed in mode {}", row.mode));
        }
        if self.control.hold.is_some() || task.stage.as_ref().is_some_and(|stage| self.control.paused.contains(stage)) {
            world.violate(5, format!("{vid}: claimed although held or paused"));
        }
        if task.stage.as_deref() != stage_of(row).map(|stage| stage.name) {
            world.violate(8, format!("{vid}: claimed for {:?}, but the row is {}", task.stage, row.state()));
        }
        let message = self.base.hands.borrow().message.clone();
        if let Some((_, stage, generation)) = message.filter(|(tape, ..)| tape == vid) {
            let current = self.before.map_or(task.generation, |before| before.generation);
            let fits = task.stage.as_deref() == Some(&stage) && generation == current;
            if !fits {
                world.violate(8, format!("{vid}: a message of generation {generation} was obeyed at {current}"));
            }
        }
        match self.before.map(|before| before.next) {
            Some(Next::At(at))
                if at > now && task.next != Next::Now && task.seen == self.before.and_then(|b| b.seen.clone()) =>
            {
                world.violate(8, format!("{vid}: claimed before its time"));
            }
            _ => {}
        }
    }

    fn intent(&self, world: &mut World) {
        let (vid, now) = (self.vid, world.time());
        let had = self.before.is_some_and(|before| before.intent.is_some());
        if had && self.task.intent.is_none() {
            let holder = self.claimed().map(|(epoch, _)| epoch);
            let by_holder =
                self.base.role != Role::Manager && holder.is_some() && holder == self.before.map(|before| before.epoch);
            let settles = self.task.settle_until.is_some_and(|until| until >= later(now, world.settings.settle));
            if !by_holder && !settles {
                world.violate(1, format!("{vid}: an unanswered command was forgotten without time to settle"));
            }
        }
        let Some(intent) = self.task.intent.as_ref().filter(|_| !had) else { return };
        if self.claimed().is_none_or(|(epoch, _)| Some(epoch) != self.before.map(|before| before.epoch)) {
            world.violate(1, format!("{vid}: a command was allowed to somebody who does not hold the tape"));
        }
        if self.before.is_some_and(|before| !before.is_leased(now)) {
            world.violate(1, format!("{vid}: a command was allowed after the lease had run out"));
        }
        let Some(row) = self.row else {
            return world.violate(1, format!("{vid}: a command was allowed without a row"));
        };
        if row.mode != Mode::Auto {
            world.violate(5, format!("{vid}: {} was allowed in mode {}", intent.kind, row.mode));
        }
        if self.control.hold.is_some() {
            world.violate(3, format!("{vid}: {} was allowed on hold", intent.kind));
        }
        if self.task.stage.as_ref().is_some_and(|stage| self.control.paused.contains(stage)) {
            world.violate(5, format!("{vid}: {} was allowed in a paused stage", intent.kind));
        }
        if intent.kind == "reclaim" {
            let over = row.stamps.at(State::Quarantined).map(|at| later(at, world.settings.quarantine));
            if row.state() != State::Quarantined || over.is_none_or(|over| over > now) {
                world.violate(3, format!("{vid}: a reclaim was allowed before its quarantine is over ({over:?})"));
            }
        }
    }

    fn slot(&self, world: &mut World) {
        let vid = self.vid;
        let had = self.before.is_some_and(|before| before.slot_since.is_some());
        let has = self.task.slot_since.is_some();
        if has && !had && self.task.owner.is_some() {
            let others = world.tables.other_slots(vid);
            if others >= world.settings.max_active_repacks {
                world.violate(4, format!("{vid}: took a slot where {others} others hold one"));
            }
        }
        if !had || has {
            return;
        }
        let now = world.now;
        let since = self.claimed().map_or(now - 7_200_000, |(_, at)| at);
        if touched(world, vid, since) {
            return;
        }
        let Some(tape) = world.cta.tapes.get(vid) else { return };
        let running = tape.request.as_ref().is_some_and(|request| !request.repack.is_final());
        let finals = tape.request.as_ref().is_some_and(|request| request.repack.is_final());
        let repacking = tape.tape.state.starts_with("REPACKING");
        let error = self.row_before.is_some_and(|row| row.mode == Mode::Error);
        let doubt = tape.runs.iter().any(|run| run.doubt_until > now);
        if running || (repacking && !finals && !error) || doubt {
            let text = format!(
                "{vid}: its slot was freed while CTA has {:?}, state {}, command in doubt: {doubt}",
                tape.request.as_ref().map(|request| &request.repack.status),
                tape.tape.state
            );
            world.violate(4, text);
        }
    }

    fn main_row(&self, world: &mut World) {
        let (Some(before), Some(row)) = (self.row_before, self.row) else {
            if self.row_before.is_some() && self.works() {
                world.tally.given_back += 1;
            }
            return;
        };
        let vid = self.vid;
        if before.stamps != row.stamps && self.works() {
            self.stamp(world, before, row);
        }
        if before.mode != row.mode && row.mode == Mode::Error {
            world.tally.errors += 1;
            world.blamed.insert(vid.clone());
            let stopped = self.before.is_some_and(Task::has_stop);
            if before.mode != Mode::Auto || !stopped {
                world.violate(7, format!("{vid}: put into mode error from {} with no committed Stop", before.mode));
            }
            let message = self.base.hands.borrow().message.clone();
            let current = self.before.map(|task| (task.stage.clone(), task.generation));
            if let (Role::Letters, Some((tape, stage, generation))) = (self.base.role, message)
                && (&tape != vid || current != Some((Some(stage), generation)))
            {
                world.violate(8, format!("{vid}: a dead letter of generation {generation} counted at {current:?}"));
            }
        } else if before.mode != row.mode && self.base.role != Role::Manager {
            world.violate(5, format!("{vid}: mode {} became {} by itself", before.mode, row.mode));
        }
    }

    /// A stamp is one step on, by whom holds the tape, with nothing in doubt, and CTA agrees.
    fn stamp(&self, world: &mut World, before: &Tape, row: &Tape) {
        let (vid, to) = (self.vid, row.state());
        world.tally.stamps += 1;
        world.tally.finished += u64::from(to == State::Finished);
        let kept = State::ALL
            .iter()
            .filter(|state| **state != to)
            .all(|state| before.stamps.at(*state) == row.stamps.at(*state));
        if before.state().next() != Some(to) || !kept {
            world.violate(2, format!("{vid}: from {} to {to} in one step", before.state()));
        }
        let Some((epoch, since)) = self.claimed() else {
            return world.violate(2, format!("{vid}: {to} was stamped by somebody without a claim"));
        };
        if self.before.is_none_or(|task| task.epoch != epoch) {
            world.violate(2, format!("{vid}: {to} was stamped by a worker that was fenced out"));
        }
        let now = world.now;
        let Some(tape) = world.cta.tapes.get(vid) else { return };
        if tape.runs.iter().any(|run| run.ends_at > now || run.doubt_until > now) {
            return world.violate(2, format!("{vid}: {to} was stamped while a command is in doubt"));
        }
        if touched(world, vid, since) {
            return;
        }
        let empty = !tape.tape.full && tape.tape.occupancy == 0 && tape.tape.last_fseq == 0;
        let request = tape.request.as_ref();
        let proven = match to {
            State::Entered => false,
            State::Started => request.is_some_and(|request| request.ours || tape.adopted),
            State::Repacked => tape.files == 0 && request.is_none_or(|request| request.repack.status == "Complete"),
            State::Quarantined => {
                request.is_none() && !tape.tape.state.starts_with("REPACKING") && tape.tape.tapepool == "quarantine"
            }
            State::Reclaimed => empty && tape.log.is_empty() && tape.files == 0,
            State::Finished => {
                empty && tape.files == 0 && matches!(tape.tape.tapepool.as_str(), "tolabel_LTO9" | "erase_LTO9")
            }
        };
        if !proven {
            let text = format!(
                "{vid}: {to} was stamped, but CTA has {} in {}, full {}, {} files, request {:?}",
                tape.tape.state,
                tape.tape.tapepool,
                tape.tape.full,
                tape.files,
                request.map(|request| &request.repack.status)
            );
            world.violate(2, text);
        }
    }

    /// A command that may still have its effect is remembered: by its intent, or by the time it has to settle.
    fn doubt(&self, world: &mut World) {
        let now = world.now;
        let Some(tape) = world.cta.tapes.get(self.vid) else { return };
        let until = tape.runs.iter().map(|run| run.doubt_until).filter(|until| *until > now).max();
        let Some(until) = until else { return };
        let remembered =
            self.task.intent.is_some() || self.task.settle_until.is_some_and(|settle| settle >= instant(until));
        if !remembered {
            let text = format!(
                "{}: a command may have its effect until {}, but the row settles at {:?}",
                self.vid,
                instant(until),
                self.task.settle_until
            );
            world.violate(1, text);
        }
    }
}

/// When a changing command is started.
pub fn started(world: &mut World, base: &Base, command: &Command) {
    let (vid, now) = (command.vid().clone(), world.now);
    let claimed = base.hands.borrow().claimed.get(&vid).copied();
    world.say(|| format!("{command} starts"));
    let other = world.cta.tapes.get(&vid).and_then(|tape| {
        tape.runs.iter().find(|run| run.ends_at > now || run.doubt_until > now).map(|run| run.command.to_string())
    });
    if let Some(other) = other {
        world.violate(1, format!("{command} starts while {other} runs or is in doubt"));
    }
    let task = world.tables.tasks.get(&vid);
    let holds = task.is_some_and(|task| {
        claimed.is_some_and(|(epoch, _)| epoch == task.epoch)
            && task.is_leased(world.time())
            && task.intent.as_ref().is_some_and(|intent| intent.command == command.to_string())
    });
    if !holds {
        world.violate(1, format!("{command} starts without a lease and an intent of its own"));
    }
    if touched(world, &vid, claimed.map_or(now, |(_, at)| at)) {
        return;
    }
    let quarantine = i64::try_from(world.settings.quarantine.as_millis()).unwrap_or(0);
    let Some(tape) = world.cta.tapes.get(&vid) else { return };
    let young = tape.log.iter().any(|(at, _)| at / 1000 * 1000 + quarantine > now);
    let empty = !tape.tape.full && tape.tape.occupancy == 0 && tape.tape.last_fseq == 0 && tape.files == 0;
    let quarantined = tape.tape.tapepool == "quarantine";
    let wrong = match command {
        Command::Reclaim { .. } => {
            let state = matches!(tape.tape.state.as_str(), "ACTIVE" | "DISABLED" | "BROKEN");
            !(quarantined && tape.tape.full && state && tape.request.is_none() && tape.files == 0 && !young)
                || world.cta.routed
        }
        Command::SetPool { pool, .. } if pool.ends_with("_LTO9") => !(quarantined && empty && tape.request.is_none()),
        Command::SetPool { pool, .. } if pool == "quarantine" => tape.request.is_some() || tape.files > 0,
        Command::RepackRm { .. } => tape.request.as_ref().is_some_and(|request| !request.ours && !tape.adopted),
        Command::SetPool { .. } | Command::SetState { .. } | Command::RepackAdd { .. } => false,
    };
    if wrong {
        let text = format!(
            "{command} starts on a tape in {}, {}, full {}, {} files, request {:?}, recycle log {:?}",
            tape.tape.tapepool,
            tape.tape.state,
            tape.tape.full,
            tape.files,
            tape.request.as_ref().map(|request| (&request.repack.status, request.ours)),
            tape.log
        );
        world.violate(3, text);
    }
}

/// When a message is acknowledged: what it asked for is recorded, or is not wanted any more.
pub fn acknowledged(world: &mut World, base: &Base, me: usize) {
    let hands = base.hands.borrow();
    let Some((vid, stage, generation)) = hands.message.clone().filter(|_| !hands.busy) else { return };
    let taken_at = instant(hands.taken_at);
    drop(hands);
    let now = world.time();
    let (Some(task), Some(row)) = (world.tables.tasks.get(&vid), world.tables.rows.get(&vid)) else { return };
    let waits = task.generation == generation
        && task.stage.as_deref() == Some(&stage)
        && task.owner.is_none()
        && task.dispatched_at.is_some_and(|at| at <= taken_at)
        && !task.has_stop()
        && row.mode == Mode::Auto
        && task.seen.as_ref().is_some_and(|seen| seen.xmin == row.xmin)
        && match task.next {
            Next::Now => true,
            Next::At(at) => at <= now,
            Next::Never => false,
        };
    let copy = world.broker.letters.iter().any(|letter| {
        letter.holder != Some(me) && letter.message.tape == vid && letter.message.generation == generation
    });
    if waits && !copy {
        world.violate(
            6,
            format!("{vid}: the message of generation {generation} is gone, and nothing of it is recorded"),
        );
    }
}

/// Whether everything has come to its end: finished, stopped with a reason, or in somebody's hands.
pub fn at_rest(world: &World) -> bool {
    world.tables.tasks.values().all(|task| {
        let row = world.tables.rows.get(&task.vid);
        task.owner.is_none()
            && (task.slot_since.is_none() || repacking(world, &task.vid))
            && row.is_none_or(|row| match row.mode {
                Mode::Error | Mode::Manual => true,
                Mode::Auto => row.state() == State::Finished,
            })
    }) && world.tables.rows.keys().all(|vid| world.tables.tasks.contains_key(vid))
}

/// CTA is at it, or keeps users from it.
fn repacking(world: &World, vid: &Vid) -> bool {
    world.cta.tapes.get(vid).is_some_and(|tape| {
        let running = tape.request.as_ref().is_some_and(|request| !request.repack.is_final());
        tape.tape.state.starts_with("REPACKING") || running
    })
}

/// At the end: what was forgotten.
pub fn forgotten(world: &mut World) {
    let mut found = Vec::new();
    for row in world.tables.rows.values() {
        let task = world.tables.tasks.get(&row.vid);
        if row.mode == Mode::Auto && row.state() != State::Finished {
            let cta = world.cta.tapes.get(&row.vid).map(|tape| (&tape.tape.state, &tape.tape.tapepool, tape.files));
            found.push((6, format!("{} is {} for ever: {task:?}; CTA: {cta:?}", row.vid, row.state())));
        }
        if row.mode == Mode::Error && world.blamed.contains(&row.vid) && task.is_none_or(|task| task.reason.is_none()) {
            found.push((7, format!("{} is in mode error without a reason", row.vid)));
        }
    }
    for task in world.tables.tasks.values() {
        if task.owner.is_some() {
            found.push((6, format!("{}: a lease that nobody closes: {:?}", task.vid, task.owner)));
        }
        if task.slot_since.is_some() && !repacking(world, &task.vid) {
            found.push((4, format!("{}: a slot that nobody frees", task.vid)));
        }
    }
    for (invariant, text) in found {
        world.violate(invariant, text);
    }
}
