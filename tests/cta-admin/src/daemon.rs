//! What happens by itself as time passes: the maintenance daemon, the drives, and commands that arrive late. There is no
//! daemon process; each invocation first does what would have happened since the last one, in the order of time.

use crate::frontend;
use crate::journal::{Effect, Entry, Kind, View};
use crate::world::{Destination, Mark, Recycled, Request, Run, Scheduler, Status, Tape, TapeState, World, push_run};

/// What an advance did.
#[derive(Debug, Default)]
pub struct Advance {
    /// Lines for the journal.
    pub entries: Vec<Entry>,
    /// The world must be written.
    pub changed: bool,
}

/// Lets the world catch up with a real time given in microseconds since the Unix epoch.
pub fn advance(world: &mut World, now_us: u64) -> Advance {
    let mut done = Advance::default();
    let target = world.clock_ms(now_us).max(world.last_ms);
    let clock = Clock { now_secs: now_us / 1_000_000, now_ms: target, speed: world.speed };
    loop {
        let next = world.late.iter().enumerate().min_by_key(|(_, late)| late.due_ms);
        let Some(index) = next.filter(|(_, late)| late.due_ms <= target).map(|(index, _)| index) else { break };
        let late = world.late.remove(index);
        run_until(world, late.due_ms.max(world.last_ms), &clock, &mut done);
        done.entries.push(apply_late(world, &late, &clock, now_us));
        done.changed = true;
    }
    run_until(world, target, &clock, &mut done);
    done
}

/// Translates the world's clock to seconds since the Unix epoch.
struct Clock {
    now_secs: u64,
    now_ms: u64,
    speed: f64,
}

impl Clock {
    fn secs(&self, ms: u64) -> u64 {
        if self.speed <= 0.0 {
            return self.now_secs;
        }
        #[expect(clippy::cast_precision_loss, reason = "a time stamp for display")]
        let ago = self.now_ms.saturating_sub(ms) as f64 / self.speed / 1000.0;
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "never negative, saturates")]
        let ago = ago as u64;
        self.now_secs.saturating_sub(ago)
    }
}

fn apply_late(world: &mut World, late: &crate::world::Late, clock: &Clock, now_us: u64) -> Entry {
    let mut entry = Entry {
        kind: Kind::Effect,
        at_us: now_us,
        id: late.id.clone(),
        pid: late.pid,
        argv: late.words.clone(),
        frontend: late.frontend.clone(),
        changing: true,
        ..Entry::default()
    };
    let Ok(call) = crate::cli::parse_words(&late.words, world.keyset) else {
        entry.note = "not a command".into();
        return entry;
    };
    entry.command = call.name();
    entry.vid = call.vid().map(str::to_owned);
    entry.before = entry.vid.as_deref().map(|vid| View::of(world, vid));
    let front = world.frontends.iter().find(|front| front.name == late.frontend).cloned();
    let (effect, note) = match front {
        Some(front) => {
            let at_us = clock.secs(late.due_ms) * 1_000_000;
            let outcome = frontend::handle(world, &call, &front, at_us);
            (outcome.effect, outcome.answer.message())
        }
        None => (Effect::Refused, "no such front end".to_owned()),
    };
    entry.effect = match effect {
        Effect::Refused => Effect::LateRefused,
        Effect::None => Effect::None,
        _ => Effect::LateApplied,
    };
    entry.note = note;
    entry.after = entry.vid.as_deref().map(|vid| View::of(world, vid));
    entry
}

fn run_until(world: &mut World, until: u64, clock: &Clock, done: &mut Advance) {
    if world.daemon_down {
        world.last_ms = until;
        return;
    }
    end_pending_states(world, until, clock, done);
    expand(world, until, clock, done);
    for i in 0..world.requests.len() {
        if world.requests[i].status == Status::Running {
            move_files(world, i, until, clock, done);
        }
    }
    world.last_ms = until;
}

fn end_pending_states(world: &mut World, until: u64, clock: &Clock, done: &mut Advance) {
    for tape in world.tapes.values_mut() {
        let Some(due) = tape.pending_until_ms.filter(|due| *due <= until) else { continue };
        let Some(next) = tape.state.pending_for().filter(|_| !tape.plan.pending_forever) else { continue };
        tape.state = next;
        tape.state_time = clock.secs(due);
        tape.state_by = "QueueCleanup".into();
        tape.pending_until_ms = None;
        done.changed = true;
    }
}

fn duration(world: &World, request: &Request) -> u64 {
    let plan = world.tapes.get(&request.vid).and_then(|tape| tape.plan.repack_ms);
    plan.unwrap_or(world.repack_ms)
}

/// Promotes, expands and starts requests, in the order of time.
fn expand(world: &mut World, until: u64, clock: &Clock, done: &mut Advance) {
    let mut cursor = world.last_ms;
    loop {
        let busy = |status| matches!(status, Status::ToExpand | Status::Starting);
        while world.requests.iter().filter(|request| busy(request.status)).count() < world.max_to_expand {
            let Some(request) = world.requests.iter_mut().find(|request| request.status == Status::Pending) else {
                break;
            };
            request.status = Status::ToExpand;
            request.since_ms = cursor.max(request.created_ms);
            done.changed = true;
        }
        let next = (0..world.requests.len())
            .filter_map(|i| Some((leaves_expansion(world, &world.requests[i])?.max(cursor), i)))
            .filter(|(at, _)| *at <= until)
            .min();
        let Some((at, i)) = next else { return };
        cursor = at;
        done.changed = true;
        if world.requests[i].status == Status::ToExpand {
            start(world, i, at, clock, done);
        } else {
            let request = &mut world.requests[i];
            request.status = Status::Running;
            request.since_ms = at;
            request.elapsed_ms = 0;
        }
    }
}

/// When a request leaves ToExpand or Starting by itself, if it does.
fn leaves_expansion(world: &World, request: &Request) -> Option<u64> {
    let tenth = duration(world, request) / 10;
    let mountable = world.tapes.get(&request.vid).is_some_and(|tape| tape.state == TapeState::Repacking);
    match request.status {
        Status::ToExpand => Some(request.since_ms + tenth),
        Status::Starting if mountable => Some(request.since_ms + tenth),
        _ => None,
    }
}

/// The pool to which a repack writes a class: type REPACK is preferred.
fn route<'a>(world: &'a World, class: &str, copy: u32) -> Option<&'a str> {
    let routes = || world.routes.iter().filter(|route| route.class == class && route.copy == copy);
    routes().find(|route| route.repack).or_else(|| routes().next()).map(|route| route.pool.as_str())
}

/// Expansion: selects the files; ends in Starting, Complete (nothing to do) or Failed.
fn start(world: &mut World, i: usize, at: u64, clock: &Clock, done: &mut Advance) {
    let vid = world.requests[i].vid.clone();
    let Some(mut tape) = world.tapes.remove(&vid) else {
        finish(world, i, Status::Failed, at, clock, done);
        return;
    };
    let planned_failure = tape.plan.fail_expansion > 0;
    tape.plan.fail_expansion = tape.plan.fail_expansion.saturating_sub(1);
    let unroutable = tape.files.iter().any(|run| route(world, &run.class, run.copy).is_none());
    let request = &mut world.requests[i];
    if planned_failure || unroutable || request.no_recall {
        world.tapes.insert(vid, tape);
        finish(world, i, Status::Failed, at, clock, done);
        return;
    }
    request.at_start_files = tape.live_files();
    request.at_start_bytes = tape.live_bytes();
    let wanted = if request.max_files == 0 { u64::MAX } else { request.max_files };
    let mut left = if request.just_add_copies { 0 } else { wanted.min(request.at_start_files) };
    request.all_selected = request.just_add_copies || left == request.at_start_files;
    request.to_retrieve = left;
    for run in &tape.files {
        let take = left.min(run.count);
        left -= take;
        request.to_retrieve_bytes += take * run.size;
        if take > 0 {
            request.last_fseq = run.fseq + take - 1;
        }
    }
    request.to_archive = request.to_retrieve;
    request.to_archive_bytes = request.to_retrieve_bytes;
    if tape.plan.fail_times > 0 {
        tape.plan.fail_times -= 1;
        request.will_fail_retrieve = tape.plan.fail_files.min(request.to_retrieve);
        request.will_fail_archive = tape.plan.fail_archive.min(request.to_retrieve - request.will_fail_retrieve);
    }
    request.status = Status::Starting;
    request.since_ms = at;
    let nothing_to_do = request.to_retrieve == 0;
    world.tapes.insert(vid, tape);
    if nothing_to_do {
        finish(world, i, Status::Complete, at, clock, done);
    }
}

fn finish(world: &mut World, i: usize, status: Status, at: u64, clock: &Clock, done: &mut Advance) {
    let request = &mut world.requests[i];
    request.status = status;
    request.since_ms = at;
    request.finished = clock.secs(at).max(request.created);
    let vid = request.vid.clone();
    if let Some(tape) = world.tapes.get_mut(&vid)
        && tape.plan.late_files > 0
        && let Some(class) = world.classes.keys().next()
    {
        let count = std::mem::take(&mut tape.plan.late_files);
        let archive_id = 9_000_000_000_000 + at;
        tape.append(&Run { fseq: 0, count, size: 1_000_000_000, archive_id, class: class.clone(), copy: 1 });
    }
    done.changed = true;
    done.entries.push(Entry {
        kind: Kind::Finished,
        at_us: clock.secs(at) * 1_000_000,
        vid: Some(vid),
        note: status.name().into(),
        ..Entry::default()
    });
}

/// Lets a running request go on to a moment of the world's clock.
fn move_files(world: &mut World, i: usize, until: u64, clock: &Clock, done: &mut Advance) {
    let mut request = std::mem::take(&mut world.requests[i]);
    let total = duration(world, &request);
    let running = total - total / 10 * 2;
    let from = world.last_ms.max(request.since_ms);
    let vid = request.vid.clone();
    let Some(mut tape) = world.tapes.remove(&vid) else {
        world.requests[i] = request;
        return;
    };
    let mut vanished = false;
    let mut finished_at = None;
    if tape.state == TapeState::Repacking {
        let elapsed_before = request.elapsed_ms;
        request.elapsed_ms = (elapsed_before + until.saturating_sub(from)).min(running);
        let movable = request.to_retrieve - request.will_fail_retrieve - request.will_fail_archive;
        let mut goal = share(movable, request.elapsed_ms, running);
        let limit =
            [tape.plan.stall_after, tape.plan.disable_after, tape.plan.vanish_after].into_iter().flatten().min();
        let limited = limit.is_some_and(|limit| goal >= limit.min(movable));
        goal = limit.map_or(goal, |limit| goal.min(limit));
        let at = |files: u64| (from + at_share(files, movable, running).saturating_sub(elapsed_before)).min(until);
        while request.archived < goal {
            let time = clock.secs(at(request.archived + 1)).max(request.created);
            if !move_one(world, &mut tape, &mut request, time) {
                break;
            }
            done.changed = true;
        }
        let ahead = (request.archived + movable.div_ceil(5)).min(movable);
        let retrieved = if request.elapsed_ms == running { movable } else { ahead };
        done.changed |= retrieved > request.retrieved;
        set_retrieved(&mut request, retrieved);
        if limited && request.archived == limit.unwrap_or(0).min(movable) {
            let stalled = tape.plan.stall_after.is_some();
            if tape.plan.disable_after.take().is_some() && !stalled {
                tape.state = TapeState::RepackingDisabled;
                tape.reason = "drive DRIVE1 could not unload the tape".into();
                tape.state_time = clock.secs(until);
                tape.state_by = "taped@tpsrv01".into();
                // what was not moved because of the limit is not lost: the elapsed time goes back to that point
                request.elapsed_ms = at_share(request.archived, movable, running).min(request.elapsed_ms);
                done.changed = true;
            }
            vanished = tape.plan.vanish_after.is_some() && !stalled;
        }
        let stopped = vanished || tape.plan.stall_after.is_some() || tape.state != TapeState::Repacking;
        if request.elapsed_ms == running && request.archived == movable && !tape.plan.never_final && !stopped {
            let left = running.saturating_sub(elapsed_before);
            finished_at = Some((from + left).min(until));
        }
    }
    if vanished {
        done.changed = true;
    } else {
        world.tapes.insert(vid, tape);
    }
    world.requests[i] = request;
    if let Some(at) = finished_at {
        let status = record_failures(world, i);
        finish(world, i, status, at, clock, done);
    }
}

/// Part of `files` that is done after `elapsed` of `running` milliseconds.
fn share(files: u64, elapsed: u64, running: u64) -> u64 {
    if elapsed >= running {
        return files;
    }
    u64::try_from(u128::from(files) * u128::from(elapsed) / u128::from(running)).unwrap_or(files)
}

/// Milliseconds after which `done` of `files` are done.
fn at_share(done: u64, files: u64, running: u64) -> u64 {
    if files == 0 {
        return 0;
    }
    u64::try_from((u128::from(done) * u128::from(running)).div_ceil(u128::from(files))).unwrap_or(running)
}

fn set_retrieved(request: &mut Request, files: u64) {
    let mean = request.to_retrieve_bytes / request.to_retrieve.max(1);
    request.retrieved = files.max(request.retrieved);
    request.retrieved_bytes = (request.retrieved * mean).max(request.archived_bytes);
}

/// Moves the first file of the tape to a writable destination; `false` if there is none.
fn move_one(world: &mut World, tape: &mut Tape, request: &mut Request, time: u64) -> bool {
    let Some(first) = tape.files.first().cloned() else { return false };
    let Some(pool) = route(world, &first.class, first.copy).map(str::to_owned) else { return false };
    let media = &world.media;
    let room = |target: &Tape| media.get(&target.media).copied().unwrap_or(0).saturating_sub(target.occupancy);
    let writable = |target: &Tape| {
        target.pool == pool && target.state == TapeState::Active && !target.full && room(target) >= first.size
    };
    let Some((target_vid, target)) = world.tapes.iter_mut().find(|(_, target)| writable(target)) else { return false };
    let file = Run { count: 1, ..first.clone() };
    target.append(&file);
    target.written = Some(Mark { drive: "DRIVE2".into(), time });
    if room(target) < first.size {
        target.full = true;
    }
    recycle(tape, file, time, "REPACK");
    tape.read = Some(Mark { drive: "DRIVE1".into(), time });
    request.archived += 1;
    request.archived_bytes += first.size;
    match request.destinations.iter_mut().find(|destination| destination.vid == *target_vid) {
        Some(destination) => {
            destination.files += 1;
            destination.bytes += first.size;
        }
        None => {
            request.destinations.push(Destination { vid: target_vid.clone(), files: 1, bytes: first.size });
        }
    }
    true
}

/// Takes the first file off the active ones and puts it into the recycle bin. The cached counters stay as they are.
fn recycle(tape: &mut Tape, file: Run, time: u64, reason: &str) {
    let first = &mut tape.files[0];
    first.fseq += 1;
    first.archive_id += 1;
    first.count -= 1;
    if first.count == 0 {
        tape.files.remove(0);
    }
    tape.dirty = true;
    if let Some(last) = tape.recycled.last_mut().filter(|last| last.time == time && last.reason == reason) {
        let mut joined = vec![last.run.clone()];
        push_run(&mut joined, file.clone());
        if joined.len() == 1 {
            last.run = joined.remove(0);
            return;
        }
    }
    tape.recycled.push(Recycled { run: file, time, reason: reason.into() });
}

/// All results are in: counts the failed files, which are the last ones selected.
fn record_failures(world: &mut World, i: usize) -> Status {
    let request = &mut world.requests[i];
    let (unread, unwritten) = (request.will_fail_retrieve, request.will_fail_archive);
    let left_bytes = request.to_retrieve_bytes - request.archived_bytes;
    let mean = left_bytes.checked_div(unread + unwritten).unwrap_or(0);
    request.failed_retrieve = unread;
    request.failed_retrieve_bytes = mean * unread;
    request.failed_archive = unwritten;
    request.failed_archive_bytes = mean * unwritten;
    request.retrieved = request.to_retrieve - unread;
    request.retrieved_bytes = request.to_retrieve_bytes - request.failed_retrieve_bytes;
    if unread + unwritten > 0 { Status::Failed } else { Status::Complete }
}

/// Whether a state change to `to` goes through a pending state.
pub(crate) fn goes_through_pending(world: &World, from: TapeState, to: TapeState) -> bool {
    let own = matches!(from, TapeState::Repacking | TapeState::RepackingDisabled);
    let target = matches!(to, TapeState::Repacking | TapeState::Broken | TapeState::Exported);
    world.scheduler == Scheduler::Objectstore && target && !own
}
