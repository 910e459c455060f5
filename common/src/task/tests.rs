use std::cell::Cell;

use super::*;
use crate::stages::fixtures;

mod enumeration;
mod sequences;

/// A moment; the tapes of these tests came to their states before 0.
fn at(second: i64) -> DateTime<Utc> {
    DateTime::from_timestamp(1_700_000_000 + second, 0).unwrap()
}

fn vid() -> Vid {
    "V01007".parse().unwrap()
}

/// What varies around a task.
struct World {
    settings: Settings,
    control: Control,
    now: DateTime<Utc>,
    fresh: Cell<i64>,
}

impl World {
    fn new() -> World {
        World { settings: fixtures::settings(), control: Control::default(), now: at(0), fresh: Cell::new(1000) }
    }

    fn ground(&self) -> Ground<'_> {
        let fresh = self.fresh.get() + 1;
        self.fresh.set(fresh);
        Ground {
            settings: &self.settings,
            control: &self.control,
            now: self.now,
            fresh_generation: fresh,
            fresh_epoch: fresh,
            jitter: 1.0,
        }
    }
}

fn stamps(state: State) -> Stamps {
    let mut stamps = Stamps::entered(at(-10_000));
    for (number, to) in State::ALL.into_iter().enumerate().skip(1).take(state as usize) {
        stamps = stamps.stamped(to, at(-10_000 + 100 * i64::try_from(number).unwrap())).unwrap();
    }
    stamps
}

fn tape(state: State, mode: Mode) -> Tape {
    Tape {
        vid: vid(),
        stamps: stamps(state),
        mode,
        priority: 10,
        mediatype: "LTO9".to_owned(),
        tapepool: "raw".to_owned(),
        responsible: "ops".to_owned(),
        files: 4,
        bytes: 400,
        usage: 40,
        last_write_date: None,
        xmin: 7,
    }
}

/// The row after somebody else wrote it.
fn edited(tape: &Tape, edit: impl FnOnce(&mut Tape)) -> Tape {
    let mut tape = tape.clone();
    edit(&mut tape);
    tape.xmin += 1;
    tape
}

fn why(code: Code) -> Why {
    Why::new(code, "as the test wants it")
}

fn claim(task: &mut Task, tape: &Tape, world: &World) -> Verdict {
    let (stage, generation) = (task.stage.clone().unwrap(), task.generation);
    task.claim(&stage, generation, "worker@host", tape, Some(0), &world.ground()).0
}

fn claimed(task: &mut Task, tape: &Tape, world: &World) -> Claim {
    match claim(task, tape, world) {
        Verdict::Claimed(claim) => claim,
        other => panic!("not claimed: {other:?}"),
    }
}

/// A fresh task of a tape in this state, and the tape.
fn fresh(state: State, world: &World) -> (Task, Tape) {
    let tape = tape(state, Mode::Auto);
    (Task::made(&tape, &world.ground()), tape)
}

fn end_with(task: &mut Task, claim: &Claim, tape: &Tape, ending: Ending, look: SlotLook, world: &World) -> Recorded {
    task.record(claim, Some(tape), ending, Learned::default(), look, &world.ground()).0
}

/// Nothing was looked at.
const UNSEEN: SlotLook = SlotLook { request_active: None, request_final: false, repacking: None };
/// No request, and not in REPACKING.
const FREE: SlotLook = SlotLook { request_active: Some(false), request_final: false, repacking: Some(false) };
/// A running request.
const RUNNING: SlotLook = SlotLook { request_active: Some(true), request_final: false, repacking: Some(true) };
/// A final request.
const FINAL: SlotLook = SlotLook { request_active: Some(false), request_final: true, repacking: Some(true) };

fn wait(code: Code, until: Option<DateTime<Utc>>) -> Ending {
    Ending::NotYet(Wait { why: why(code), until, stalled: false })
}

fn repack_rm() -> Command {
    Command::RepackRm { vid: vid() }
}

fn repack_add() -> Command {
    Command::RepackAdd { vid: vid(), mount_policy: "m".to_owned(), just_move: true, buffer_url: None, max_files: None }
}

fn log(time: u64) -> Log3 {
    Log3 { username: "ops".to_owned(), host: "h".to_owned(), time }
}

// The rows of the table in the head of the module.

#[test]
fn a_row_made_is_due_now_with_all_counters_at_nought() {
    let world = World::new();
    let (task, tape) = fresh(State::Entered, &world);
    assert_eq!(task.stage.as_deref(), Some("start"));
    assert_eq!((task.attempts, task.crashes, task.next, task.dispatched_at), (0, 0, Next::Now, None));
    assert_eq!((task.slot_since, task.owner, task.outcome), (None, None, None));
    assert_eq!(task.seen, Some(SeenRow::of(&tape)));
}

#[test]
fn requeue_want_and_a_foreign_edit_begin_again_under_a_new_generation_and_leave_slot_lease_and_settling() {
    type Change = fn(&mut Task, &Tape, &World);
    let changes: [(&str, Change); 3] = [
        ("requeue", |task, tape, world| task.requeue(tape, &world.ground())),
        ("want", |task, _, world| task.want(Wanted::Unstick, &world.ground())),
        ("edit", |task, tape, world| {
            let other = edited(tape, |tape| tape.mode = Mode::Manual);
            assert!(task.notice(&other, &world.ground()).is_some());
        }),
    ];
    for (name, change) in changes {
        let world = World::new();
        let (mut task, tape) = fresh(State::Started, &world);
        claimed(&mut task, &tape, &world);
        task.slot_since = Some(at(-5));
        task.settle_until = Some(at(50));
        task.dispatched_at = Some(at(-1));
        (task.attempts, task.crashes, task.memory.waits) = (3, 2, 9);
        let before = task.clone();
        change(&mut task, &tape, &world);
        assert!(task.generation > before.generation, "{name}");
        assert_eq!((task.attempts, task.crashes, task.memory.waits), (0, 0, 0), "{name}");
        assert_eq!((task.next, task.dispatched_at), (Next::Now, None), "{name}");
        assert_eq!((task.slot_since, task.settle_until), (before.slot_since, before.settle_until), "{name}");
        assert_eq!((&task.owner, task.lease_until, task.epoch), (&before.owner, before.lease_until, before.epoch));
    }
}

#[test]
fn a_claim_takes_a_slot_for_start_and_for_a_retry_and_keeps_the_one_that_is_held() {
    let world = World::new();
    let (mut task, tape) = fresh(State::Entered, &world);
    let epoch = task.epoch;
    let claim = claimed(&mut task, &tape, &world);
    assert_eq!(task.slot_since, Some(at(0)));
    assert!(claim.epoch > epoch && task.epoch == claim.epoch);
    assert_eq!(task.lease_until, Some(at(300)));

    let (mut task, tape) = fresh(State::Started, &world);
    claimed(&mut task, &tape, &world);
    assert_eq!(task.slot_since, None, "end takes none");

    let (mut task, tape) = fresh(State::Started, &world);
    task.want(Wanted::Retry, &world.ground());
    task.slot_since = Some(at(-9));
    claimed(&mut task, &tape, &world);
    assert_eq!(task.slot_since, Some(at(-9)));
}

#[test]
fn a_retry_away_from_start_and_end_asks_for_the_gate_instead_of_waiting_for_ever() {
    let world = World::new();
    let (mut task, tape) = fresh(State::Repacked, &world);
    task.want(Wanted::Retry, &world.ground());
    let generation = task.generation;
    let (verdict, _) = task.claim("quarantine", generation, "w", &tape, None, &world.ground());
    assert_eq!(verdict, Verdict::NeedsGate);
    assert_eq!((task.owner.as_ref(), task.slot_since), (None, None));
}

#[test]
fn an_expired_lease_is_closed_before_the_claim_and_its_open_command_gets_time_to_settle() {
    let mut world = World::new();
    let (mut task, tape) = fresh(State::Started, &world);
    let first = claimed(&mut task, &tape, &world);
    task.intend(&repack_rm(), &Value::Null, None, &world.ground());
    world.now = at(301);
    let second = claimed(&mut task, &tape, &world);
    assert!(second.epoch > first.epoch);
    assert_eq!((task.crashes, task.intent.as_ref()), (1, None));
    assert_eq!(task.settle_until, Some(at(301 + 1800)));
    assert!(task.may_act(&second, Some(&tape), &world.ground()).is_err(), "an effect may still come");
    assert!(task.may_act(&first, Some(&tape), &world.ground()).is_err(), "the first is fenced");
}

#[test]
fn abandoned_leases_end_in_a_stop_at_the_maximum_and_the_stop_is_told_to_the_claimer() {
    let mut world = World::new();
    let (mut task, tape) = fresh(State::Started, &world);
    for crash in 1..=5 {
        claimed(&mut task, &tape, &world);
        world.now += TimeDelta::seconds(301);
        assert_eq!(task.crashes, crash - 1);
    }
    let Verdict::Stopped(kept) = claim(&mut task, &tape, &world) else { panic!("no Stop after five crashes") };
    assert_eq!(kept.code, "crashed");
    assert_eq!((task.crashes, task.next, task.outcome), (5, Next::Never, Some(Outcome::Failed)));
}

#[test]
fn done_stamps_leads_to_the_next_stage_and_begins_its_counters() {
    let world = World::new();
    let (mut task, tape) = fresh(State::Repacked, &world);
    (task.attempts, task.crashes, task.memory.waits) = (2, 1, 3);
    task.dispatched_at = Some(at(-1));
    let claim = claimed(&mut task, &tape, &world);
    let recorded = end_with(&mut task, &claim, &tape, Ending::Done, FREE, &world);
    assert_eq!(recorded, Recorded { row: RowChange::Stamp(State::Quarantined), counted: Counted::Done });
    assert_eq!(task.stage.as_deref(), Some("reclaim"));
    assert_eq!(task.next, Next::At(later(at(0), world.settings.quarantine)), "when the next stage is due");
    assert!(task.generation > claim.generation);
    assert_eq!((task.attempts, task.crashes, task.memory.waits), (0, 0, 0));
    assert_eq!((task.owner.as_ref(), task.lease_until, task.dispatched_at), (None, None, None));
}

#[test]
fn done_of_finish_ends_the_journey() {
    let world = World::new();
    let (mut task, tape) = fresh(State::Reclaimed, &world);
    let claim = claimed(&mut task, &tape, &world);
    let recorded = end_with(&mut task, &claim, &tape, Ending::Done, FREE, &world);
    assert_eq!(recorded.row, RowChange::Stamp(State::Finished));
    assert_eq!((task.stage.as_ref(), task.next), (None, Next::Never));
}

#[test]
fn not_yet_waits_until_the_moment_named_or_backs_off_and_counts_no_failure() {
    let world = World::new();
    let (mut task, tape) = fresh(State::Started, &world);
    task.slot_since = Some(at(-9));
    (task.attempts, task.crashes) = (2, 1);
    let claim = claimed(&mut task, &tape, &world);
    end_with(&mut task, &claim, &tape, wait(Code::RepackRunning, Some(at(500))), FREE, &world);
    assert_eq!((task.attempts, task.crashes, task.next), (0, 0, Next::At(at(500))));
    assert_eq!((task.generation, task.slot_since), (claim.generation, Some(at(-9))));
    assert_eq!((task.outcome, task.owner.as_ref()), (Some(Outcome::Waiting), None));

    for (round, delay) in [30, 60, 120].into_iter().enumerate() {
        let (mut task, tape) = fresh(State::Started, &world);
        task.memory.waits = u32::try_from(round).unwrap();
        let claim = claimed(&mut task, &tape, &world);
        end_with(&mut task, &claim, &tape, wait(Code::RepackRunning, None), FREE, &world);
        assert_eq!(task.next, Next::At(at(delay)));
    }
}

#[test]
fn a_wait_is_told_in_the_history_once_and_again_when_its_reason_changes() {
    let mut world = World::new();
    let (mut task, tape) = fresh(State::Started, &world);
    let mut told = Vec::new();
    for code in [Code::RepackRunning, Code::RepackRunning, Code::TapePending, Code::RepackRunning] {
        let claim = claimed(&mut task, &tape, &world);
        let ending = wait(code, Some(world.now));
        let (_, notes) = task.record(&claim, Some(&tape), ending, Learned::default(), UNSEEN, &world.ground());
        told.push(notes.len());
        world.now += TimeDelta::seconds(1);
    }
    assert_eq!(told, [1, 0, 1, 1]);
}

#[test]
fn tape_trouble_counts_and_backs_off_and_stops_at_the_maximum() {
    let mut world = World::new();
    let (mut task, tape) = fresh(State::Started, &world);
    for (attempt, delay) in [(1, 30), (2, 60), (3, 120), (4, 240)] {
        let claim = claimed(&mut task, &tape, &world);
        let recorded = end_with(&mut task, &claim, &tape, Ending::Trouble(why(Code::LookFailed)), UNSEEN, &world);
        assert!(matches!(recorded.counted, Counted::Retrying(_)));
        assert_eq!((task.attempts, task.next), (attempt, Next::At(world.now + TimeDelta::seconds(delay))));
        assert_eq!(task.outcome, Some(Outcome::Retrying));
        world.now += TimeDelta::seconds(delay);
    }
    let claim = claimed(&mut task, &tape, &world);
    let recorded = end_with(&mut task, &claim, &tape, Ending::Trouble(why(Code::LookFailed)), UNSEEN, &world);
    let Counted::Stopped(reason) = recorded.counted else { panic!("not stopped: {recorded:?}") };
    assert!(reason.text.contains("attempt 5 of 5"), "{}", reason.text);
    assert!(task.has_stop() && task.generation == claim.generation);
}

#[test]
fn waiting_for_a_command_to_settle_forgets_neither_failures_nor_crashes() {
    let world = World::new();
    let (mut task, tape) = fresh(State::Started, &world);
    (task.attempts, task.crashes) = (2, 1);
    let claim = claimed(&mut task, &tape, &world);
    end_with(&mut task, &claim, &tape, wait(Code::Settling, Some(at(500))), FREE, &world);
    assert_eq!((task.attempts, task.crashes, task.next), (2, 1, Next::At(at(500))));
}

#[test]
fn trouble_does_not_come_back_before_the_command_has_settled() {
    let world = World::new();
    let (mut task, tape) = fresh(State::Started, &world);
    let claim = claimed(&mut task, &tape, &world);
    task.intend(&repack_rm(), &Value::Null, None, &world.ground());
    task.answered(Effect::Unclear, Value::Null, &world.ground());
    end_with(&mut task, &claim, &tape, Ending::Trouble(why(Code::CommandFailed)), FREE, &world);
    assert_eq!(task.next, Next::At(at(1800)));
}

#[test]
fn site_trouble_gives_the_tape_back_as_it_was() {
    let world = World::new();
    let (mut task, tape) = fresh(State::Started, &world);
    (task.attempts, task.crashes, task.next) = (2, 1, Next::At(at(-3)));
    let claim = claimed(&mut task, &tape, &world);
    end_with(&mut task, &claim, &tape, Ending::Site(why(Code::SiteTrouble)), FREE, &world);
    assert_eq!((task.attempts, task.crashes, task.next), (2, 1, Next::At(at(-3))));
    assert_eq!((task.generation, task.owner.as_ref(), task.dispatched_at), (claim.generation, None, None));
}

#[test]
fn a_stop_keeps_generation_and_counters_and_is_never_due() {
    let world = World::new();
    let (mut task, tape) = fresh(State::Started, &world);
    (task.attempts, task.crashes) = (2, 1);
    let claim = claimed(&mut task, &tape, &world);
    let recorded = end_with(&mut task, &claim, &tape, Ending::Stop(why(Code::FilesLeft)), UNSEEN, &world);
    assert_eq!(recorded, Recorded { row: RowChange::Keep, counted: Counted::Stopped(why(Code::FilesLeft)) });
    assert_eq!((task.attempts, task.crashes, task.next), (2, 1, Next::Never));
    assert_eq!((task.generation, task.outcome), (claim.generation, Some(Outcome::Failed)));
    assert_eq!(task.reason.as_ref().unwrap().code, "files-left");
    assert!(task.stopped_at("end", claim.generation));
    assert!(!task.stopped_at("start", claim.generation) && !task.stopped_at("end", claim.generation + 1));
    // A duplicate of the message is turned into a dead letter again, not worked on.
    assert!(matches!(self::claim(&mut task, &tape, &world), Verdict::Stopped(_)));
}

#[test]
fn a_denied_command_closes_the_lease_and_changes_no_counter() {
    let world = World::new();
    let (mut task, tape) = fresh(State::Entered, &world);
    (task.attempts, task.crashes) = (2, 1);
    let claim = claimed(&mut task, &tape, &world);
    end_with(&mut task, &claim, &tape, Ending::Denied("held".to_owned()), FREE, &world);
    assert_eq!((task.attempts, task.crashes, task.next, task.slot_since), (2, 1, Next::Now, None));
    assert_eq!((task.owner.as_ref(), task.dispatched_at), (None, None));
}

// Slots.

#[test]
fn a_slot_is_freed_only_by_the_endings_and_looks_that_allow_it() {
    let endings: [(&str, Ending, bool); 7] = [
        ("done of end", Ending::Done, true),
        ("stop", Ending::Stop(why(Code::FilesLeft)), true),
        ("denied", Ending::Denied("x".to_owned()), true),
        ("wait", wait(Code::RepackRunning, None), false),
        ("trouble", Ending::Trouble(why(Code::LookFailed)), false),
        ("site", Ending::Site(why(Code::SiteTrouble)), false),
        ("next round", Ending::NextRound(why(Code::NextRound)), false),
    ];
    let repacking = SlotLook { repacking: Some(true), ..FREE };
    let half = SlotLook { repacking: None, ..FREE };
    for (name, ending, may) in endings {
        for (look, allows) in
            [(FREE, true), (FINAL, true), (UNSEEN, false), (RUNNING, false), (repacking, false), (half, false)]
        {
            let world = World::new();
            let (mut task, tape) = fresh(State::Started, &world);
            task.slot_since = Some(at(-9));
            let claim = claimed(&mut task, &tape, &world);
            end_with(&mut task, &claim, &tape, ending.clone(), look, &world);
            assert_eq!(task.slot_since.is_none(), may && allows, "{name}, {look:?}");
        }
    }
}

#[test]
fn an_open_or_unclear_command_keeps_the_slot() {
    for unclear in [false, true] {
        let world = World::new();
        let (mut task, tape) = fresh(State::Entered, &world);
        let claim = claimed(&mut task, &tape, &world);
        task.intend(&repack_add(), &Value::Null, None, &world.ground());
        if unclear {
            task.answered(Effect::Unclear, Value::Null, &world.ground());
        }
        end_with(&mut task, &claim, &tape, Ending::Stop(why(Code::ChecksFailed)), FREE, &world);
        assert_eq!(task.slot_since, Some(at(0)), "unclear: {unclear}");
        assert_eq!(task.settle_until, Some(at(1800)));
    }
}

#[test]
fn in_mode_error_a_slot_goes_even_while_the_tape_is_in_repacking() {
    let seen = SlotLook { repacking: Some(true), ..FREE };
    assert!(seen.allows_release(Mode::Error));
    assert!(!seen.allows_release(Mode::Auto) && !seen.allows_release(Mode::Manual));
    assert!(!RUNNING.allows_release(Mode::Error));
}

// In doubt.

#[test]
fn nothing_is_stamped_while_a_command_may_still_take_effect() {
    let world = World::new();
    let (mut task, tape) = fresh(State::Repacked, &world);
    task.settle_until = Some(at(60));
    let claim = claimed(&mut task, &tape, &world);
    let recorded = end_with(&mut task, &claim, &tape, Ending::Done, FREE, &world);
    assert_eq!(recorded.row, RowChange::Keep);
    assert!(matches!(recorded.counted, Counted::NotYet(why) if why.code == Code::Settling));
    assert_eq!((task.next, task.generation), (Next::At(at(60)), claim.generation));
    // At the very end of the time it may.
    let mut world = world;
    world.now = at(60);
    let claim = claimed(&mut task, &tape, &world);
    assert_eq!(end_with(&mut task, &claim, &tape, Ending::Done, FREE, &world).counted, Counted::Done);
}

#[test]
fn an_intent_without_an_answer_settles_at_the_record() {
    let world = World::new();
    let (mut task, tape) = fresh(State::Repacked, &world);
    let claim = claimed(&mut task, &tape, &world);
    task.intend(&repack_rm(), &Value::Null, None, &world.ground());
    let recorded = end_with(&mut task, &claim, &tape, Ending::Done, FREE, &world);
    assert_eq!(recorded.row, RowChange::Keep, "the answer is missing, so Done is not believed");
    assert_eq!((task.intent.as_ref(), task.settle_until), (None, Some(at(1800))));
}

#[test]
fn settling_is_never_shortened() {
    let world = World::new();
    let (mut task, tape) = fresh(State::Repacked, &world);
    task.settle_until = Some(at(99_999));
    claimed(&mut task, &tape, &world);
    task.intend(&repack_rm(), &Value::Null, None, &world.ground());
    task.answered(Effect::Unclear, Value::Null, &world.ground());
    assert_eq!(task.settle_until, Some(at(99_999)));
}

#[test]
fn an_endless_settle_time_is_no_overflow() {
    let mut world = World::new();
    world.settings.settle = Duration::MAX;
    world.settings.lease = Duration::MAX;
    world.settings.retry.max_delay = Duration::MAX;
    world.settings.retry.first_delay = Duration::MAX;
    let (mut task, tape) = fresh(State::Repacked, &world);
    let claim = claimed(&mut task, &tape, &world);
    task.intend(&repack_rm(), &Value::Null, None, &world.ground());
    task.answered(Effect::Unclear, Value::Null, &world.ground());
    end_with(&mut task, &claim, &tape, Ending::Trouble(why(Code::LookFailed)), FREE, &world);
    assert_eq!(task.settle_until, Some(DateTime::<Utc>::MAX_UTC));
}

// Whose request, and what a command without effect leaves behind.

#[test]
fn a_refused_or_never_run_repack_add_leaves_no_claim_to_a_request() {
    let world = World::new();
    let (mut task, tape) = fresh(State::Entered, &world);
    claimed(&mut task, &tape, &world);
    task.intend(&repack_add(), &Value::Null, None, &world.ground());
    assert!(task.memory.asked && task.round == 1);
    task.answered(Effect::None, Value::Null, &world.ground());
    assert!(!task.memory.asked, "a request seen now is somebody else's");
    assert_eq!((task.round, task.round_to_be()), (0, 1), "and the round has not begun");
    assert!(task.memory.in_vain.contains("repack-add"));
}

#[test]
fn a_refusal_after_an_unclear_repack_add_does_not_disown_what_may_have_come_of_the_first() {
    let world = World::new();
    let (mut task, tape) = fresh(State::Entered, &world);
    claimed(&mut task, &tape, &world);
    for effect in [Effect::Unclear, Effect::None] {
        task.intend(&repack_add(), &Value::Null, None, &world.ground());
        assert_eq!(task.round, 1, "the same round until its request was seen");
        task.answered(effect, Value::Null, &world.ground());
    }
    assert!(task.memory.asked && task.round == 1);
    assert!(!task.memory.in_vain.contains("repack-add"));
}

#[test]
fn a_removal_without_effect_leaves_the_request_ours() {
    let world = World::new();
    let (mut task, tape) = fresh(State::Started, &world);
    assert!(task.memory.adopt, "a row that somebody else started takes what is there");
    claimed(&mut task, &tape, &world);
    let proof = json!({"request": {"vid": "V01007", "creationLog": {"username": "ops", "host": "h", "time": "5"}}});
    task.intend(&repack_rm(), &proof, None, &world.ground());
    task.answered(Effect::Likely, Value::Null, &world.ground());
    assert_eq!(task.memory.request, Some(log(5)));
    assert!(!task.memory.adopt && !task.memory.asked, "another request is not ours");
}

#[test]
fn rounds_count_requests_that_were_seen_not_tries() {
    let world = World::new();
    let (mut task, tape) = fresh(State::Entered, &world);
    for round in 1..=3 {
        task.want(Wanted::Retry, &world.ground());
        for _ in 0..2 {
            let claim = claimed(&mut task, &tape, &world);
            task.intend(&repack_add(), &Value::Null, None, &world.ground());
            task.answered(Effect::Likely, Value::Null, &world.ground());
            assert_eq!(task.round, round);
            end_with(&mut task, &claim, &tape, Ending::Site(why(Code::SiteTrouble)), UNSEEN, &world);
        }
        let claim = claimed(&mut task, &tape, &world);
        let learned = Learned { request: Some(log(u64::try_from(round).unwrap())), ..Learned::default() };
        task.record(&claim, Some(&tape), Ending::Done, learned, RUNNING, &world.ground());
        assert_eq!((task.wanted, task.round), (None, round));
    }
}

#[test]
fn a_retry_seen_done_while_settling_is_not_done_over_again_afterwards() {
    let mut world = World::new();
    let (mut task, tape) = fresh(State::Started, &world);
    task.memory.request = Some(log(1));
    task.want(Wanted::Retry, &world.ground());
    let claim = claimed(&mut task, &tape, &world);
    task.intend(&repack_add(), &Value::Null, None, &world.ground());
    task.answered(Effect::Unclear, Value::Null, &world.ground());
    let learned = Learned { request: Some(log(2)), ..Learned::default() };
    task.record(&claim, Some(&tape), Ending::Done, learned.clone(), RUNNING, &world.ground());
    assert_eq!(task.wanted, Some(Wanted::Retry));
    assert!(task.memory.asked && task.memory.request.is_none(), "else the retry would remove the new request");
    world.now = at(1800);
    let claim = claimed(&mut task, &tape, &world);
    task.record(&claim, Some(&tape), Ending::Done, learned, RUNNING, &world.ground());
    assert_eq!((task.wanted, task.memory.request.clone()), (None, Some(log(2))));
}

#[test]
fn an_edit_after_our_own_rounds_adopts_nobodys_request() {
    let world = World::new();
    let (mut task, tape) = fresh(State::Entered, &world);
    task.round = 1;
    let other = edited(&tape, |tape| tape.stamps = stamps(State::Started));
    task.notice(&other, &world.ground());
    assert!(!task.memory.adopt);
}

// Edits elsewhere.

#[test]
fn an_edit_of_anything_else_only_moves_the_mark() {
    let world = World::new();
    let (mut task, tape) = fresh(State::Started, &world);
    task.dispatched_at = Some(at(-1));
    let other = edited(&tape, |tape| tape.priority = 50);
    let before = task.clone();
    assert_eq!(task.notice(&other, &world.ground()), None);
    assert_eq!(task, Task { seen: Some(SeenRow::of(&other)), ..before });
}

#[test]
fn every_edit_of_mode_and_stamps_is_followed_by_stage_generation_and_time() {
    let world = World::new();
    for from in State::ALL {
        for to in State::ALL {
            for (mode_before, mode_after) in Mode::ALL.into_iter().flat_map(|a| Mode::ALL.map(|b| (a, b))) {
                let before = tape(from, mode_before);
                let mut task = Task::made(&before, &world.ground());
                task.dispatched_at = Some(at(-1));
                task.stop(&why(Code::FilesLeft), at(-2));
                let generation = task.generation;
                let after = edited(&before, |tape| {
                    tape.mode = mode_after;
                    tape.stamps = stamps(to);
                });
                let note = task.notice(&after, &world.ground());
                assert_eq!(note.is_some(), (from, mode_before) != (to, mode_after), "{from} {mode_before} {to}");
                assert_eq!(task.stage.as_deref(), stages::after(to).map(|stage| stage.name));
                let freed = mode_before != Mode::Auto && mode_after == Mode::Auto;
                assert_eq!(task.has_stop(), !freed, "only a change of mode to auto clears a Stop");
                assert_eq!(task.reason.is_some(), task.has_stop());
                if note.is_some() {
                    assert!(task.generation > generation);
                    assert_eq!(task.dispatched_at, None);
                } else {
                    assert_eq!(task.generation, generation);
                }
                let expected = match (task.has_stop(), stages::after(to)) {
                    (true, _) | (_, None) => Next::Never,
                    (false, Some(stage)) => stage.next(&after, &world.settings, world.now),
                };
                assert_eq!(task.next, expected);
            }
        }
    }
}

#[test]
fn another_entered_is_another_journey_that_inherits_what_belongs_to_the_tape() {
    let world = World::new();
    let (mut task, tape) = fresh(State::Started, &world);
    claimed(&mut task, &tape, &world);
    task.intend(&repack_rm(), &Value::Null, None, &world.ground());
    task.slot_since = Some(at(-9));
    task.settle_until = Some(at(77));
    task.round = 2;
    task.wanted = Some(Wanted::Retry);
    let before = task.clone();
    let other = edited(&tape, |tape| tape.stamps = Stamps::entered(at(-5)));
    task.notice(&other, &world.ground()).unwrap();
    assert_eq!((task.wanted, task.round, &task.memory), (None, 0, &Memory::default()));
    assert_eq!(task.stage.as_deref(), Some("start"));
    assert_eq!(
        (&task.owner, task.lease_until, &task.intent, task.epoch, task.settle_until, task.slot_since),
        (&before.owner, before.lease_until, &before.intent, before.epoch, before.settle_until, before.slot_since)
    );
}

#[test]
fn correcting_entered_of_a_tape_in_mode_error_does_not_lose_its_reason() {
    let world = World::new();
    for mode in Mode::ALL {
        let before = tape(State::Started, mode);
        let mut task = Task::made(&before, &world.ground());
        task.stop(&why(Code::FilesLeft), at(-2));
        let other = edited(&before, |tape| tape.stamps = Stamps::entered(at(-5)));
        task.notice(&other, &world.ground()).unwrap();
        assert_eq!(task.has_stop(), mode != Mode::Auto, "{mode}");
        assert_eq!(task.reason.is_some(), mode != Mode::Auto, "{mode}");
        assert_eq!(task.next == Next::Never, mode != Mode::Auto, "{mode}");
    }
}

#[test]
fn a_row_edited_to_wait_long_while_a_worker_has_it_is_looked_at_when_the_lease_ends() {
    let world = World::new();
    let (mut task, tape) = fresh(State::Repacked, &world);
    claimed(&mut task, &tape, &world);
    let other = edited(&tape, |tape| tape.stamps = stamps(State::Quarantined));
    task.notice(&other, &world.ground()).unwrap();
    assert_eq!(task.stage.as_deref(), Some("reclaim"));
    assert_eq!(task.next, Next::Now, "else the lease and its slot would stay open for the whole quarantine");
}

#[test]
fn an_edit_keeps_a_wish_due_at_once_even_where_the_stage_has_to_wait() {
    let world = World::new();
    let (mut task, tape) = fresh(State::Quarantined, &world);
    assert!(matches!(task.next, Next::At(_)));
    task.want(Wanted::GiveBack, &world.ground());
    let manual = edited(&tape, |tape| tape.mode = Mode::Manual);
    task.notice(&manual, &world.ground());
    assert_eq!((task.wanted, task.next), (Some(Wanted::GiveBack), Next::Now));
}

#[test]
fn a_record_after_the_stamps_or_the_row_changed_closes_its_lease_and_nothing_else() {
    for gone in [false, true] {
        let world = World::new();
        let (mut task, tape) = fresh(State::Started, &world);
        task.slot_since = Some(at(-9));
        let claim = claimed(&mut task, &tape, &world);
        let before = task.clone();
        let other = edited(&tape, |tape| tape.stamps = stamps(State::Repacked));
        let row = (!gone).then_some(&other);
        let learned = Learned { request: Some(log(1)), ..Learned::default() };
        let (recorded, _) = task.record(&claim, row, Ending::Done, learned, FREE, &world.ground());
        assert_eq!(recorded.row, RowChange::Keep);
        assert_eq!(task, Task { owner: None, lease_until: None, dispatched_at: None, ..before });
    }
}

#[test]
fn a_proven_stamp_is_written_although_the_mode_changed_meanwhile_and_its_marks_are_kept() {
    for noticed in [false, true] {
        let world = World::new();
        let (mut task, tape) = fresh(State::Repacked, &world);
        let claim = claimed(&mut task, &tape, &world);
        let manual = edited(&tape, |tape| tape.mode = Mode::Manual);
        if noticed {
            task.notice(&manual, &world.ground()).unwrap();
        }
        let marks = Marks { last_fseq: 3, occupancy: 5, label_log: None };
        let learned = Learned { marks: Some(marks.clone()), ..Learned::default() };
        let (recorded, _) = task.record(&claim, Some(&manual), Ending::Done, learned, FREE, &world.ground());
        assert_eq!(recorded.row, RowChange::Stamp(State::Quarantined), "noticed: {noticed}");
        assert_eq!(task.stage.as_deref(), Some("reclaim"));
        assert_eq!(task.memory.marks, Some(marks), "else the reclaim gate has nothing to compare with");
        assert!(task.generation > claim.generation);
    }
}

#[test]
fn a_wish_set_while_a_worker_is_at_it_survives_its_record() {
    for ending in [Ending::Done, Ending::Stop(why(Code::FilesLeft)), wait(Code::RepackRunning, None)] {
        let world = World::new();
        let (mut task, tape) = fresh(State::Started, &world);
        let claim = claimed(&mut task, &tape, &world);
        task.want(Wanted::GiveBack, &world.ground());
        assert!(task.may_act(&claim, Some(&tape), &world.ground()).is_err(), "the worker is held back");
        end_with(&mut task, &claim, &tape, ending, FREE, &world);
        assert_eq!((task.wanted, task.next, task.has_stop()), (Some(Wanted::GiveBack), Next::Now, false));
    }
}

#[test]
fn a_task_row_at_another_stage_than_its_main_row_is_mended_not_obeyed() {
    let world = World::new();
    let (mut task, tape) = fresh(State::Quarantined, &world);
    task.stage = Some("finish".to_owned());
    task.next = Next::Now;
    assert!(matches!(claim(&mut task, &tape, &world), Verdict::Stale(_)));
    assert_eq!(task.stage.as_deref(), Some("reclaim"));
    assert!(matches!(task.next, Next::At(_)));
}

// Records that come twice, or too late.

#[test]
fn a_record_made_twice_counts_once() {
    for ending in [
        Ending::Trouble(why(Code::LookFailed)),
        wait(Code::RepackRunning, None),
        Ending::Site(why(Code::SiteTrouble)),
        Ending::Done,
    ] {
        let world = World::new();
        let (mut task, tape) = fresh(State::Started, &world);
        let claim = claimed(&mut task, &tape, &world);
        end_with(&mut task, &claim, &tape, ending.clone(), FREE, &world);
        let once = task.clone();
        end_with(&mut task, &claim, &tape, ending, FREE, &world);
        assert_eq!(task, once);
    }
    let world = World::new();
    let (mut task, tape) = fresh(State::Started, &world);
    let claim = claimed(&mut task, &tape, &world);
    let stop = Ending::Stop(why(Code::FilesLeft));
    let first = end_with(&mut task, &claim, &tape, stop.clone(), FREE, &world);
    assert_eq!(end_with(&mut task, &claim, &tape, stop, FREE, &world), first, "its dead letter is still owed");
}

#[test]
fn who_was_fenced_out_writes_nothing() {
    let mut world = World::new();
    let (mut task, tape) = fresh(State::Started, &world);
    let old = claimed(&mut task, &tape, &world);
    world.now = at(300);
    claimed(&mut task, &tape, &world);
    let before = task.clone();
    let recorded = end_with(&mut task, &old, &tape, Ending::Done, FREE, &world);
    assert_eq!(recorded, Recorded { row: RowChange::Keep, counted: Counted::Fenced });
    assert_eq!(task, before);
}

// Refusals that contradict what is seen.

#[test]
fn a_contradiction_is_waited_out_for_ten_minutes_and_then_stops() {
    let mut world = World::new();
    let (mut task, tape) = fresh(State::Started, &world);
    let mut last = Counted::Done;
    let begun = world.now;
    while !matches!(last, Counted::Stopped(_)) {
        if let Next::At(next) = task.next {
            world.now = next;
        }
        assert!(world.now - begun < TimeDelta::hours(1));
        let claim = claimed(&mut task, &tape, &world);
        last = end_with(&mut task, &claim, &tape, Ending::Grace(why(Code::Refused)), UNSEEN, &world).counted;
    }
    assert!(world.now - begun >= REFUSAL_GRACE);
}

#[test]
fn an_outage_between_two_refusals_does_not_count_as_refusal() {
    for other in [Ending::Site(why(Code::SiteTrouble)), Ending::Trouble(why(Code::LookFailed))] {
        let mut world = World::new();
        let (mut task, tape) = fresh(State::Started, &world);
        for (ending, second) in
            [(Ending::Grace(why(Code::Refused)), 0), (other, 100), (Ending::Grace(why(Code::Refused)), 9000)]
        {
            world.now = at(second);
            let claim = claimed(&mut task, &tape, &world);
            end_with(&mut task, &claim, &tape, ending, UNSEEN, &world);
        }
        assert!(!task.has_stop());
    }
}

// Nudges.

#[test]
fn a_nudge_wakes_a_waiting_tape_but_no_stopped_settling_or_failing_one() {
    let world = World::new();
    let (waiting, _) = fresh(State::Started, &world);
    let waiting = Task { next: Next::At(at(900)), outcome: Some(Outcome::Waiting), ..waiting };
    let nudged = |mut task: Task| {
        let before = task.next;
        task.nudge(at(0));
        task.next != before
    };
    assert!(nudged(waiting.clone()));
    assert!(nudged(Task { outcome: Some(Outcome::Stalled), ..waiting.clone() }));
    assert!(!nudged(Task { outcome: Some(Outcome::Retrying), ..waiting.clone() }));
    assert!(!nudged(Task { settle_until: Some(at(1)), ..waiting.clone() }));
    assert!(!nudged(Task { outcome: Some(Outcome::Failed), next: Next::Never, ..waiting.clone() }));
    assert!(!nudged(Task { stage: None, next: Next::Never, ..waiting }));
}

#[test]
fn waking_cuts_a_wait_short_and_forgets_neither_failures_nor_the_reason() {
    let world = World::new();
    let (mut task, tape) = fresh(State::Started, &world);
    let claim = claimed(&mut task, &tape, &world);
    end_with(&mut task, &claim, &tape, Ending::Trouble(why(Code::LookFailed)), SlotLook::default(), &world);
    task.crashes = 2;
    task.slot_since = Some(at(-5));
    assert!(matches!(task.next, Next::At(when) if when > world.now));
    let before = task.clone();
    assert!(task.wake(&tape, &world.ground()));
    assert!(task.generation > before.generation, "what is under way for the old generation is stale");
    let expected = Task { next: Next::Now, generation: task.generation, ..before };
    assert_eq!(task, expected, "nothing else changed");
    assert!(!task.wake(&tape, &world.ground()), "there is nothing left to cut short");
    assert_eq!(task, expected);
}

#[test]
fn nothing_wakes_before_its_command_has_settled_or_before_its_stage_may_be_tried_by_todays_settings() {
    let mut world = World::new();
    let (mut task, tape) = fresh(State::Quarantined, &world);
    let Next::At(over) = task.next else { panic!("{:?}", task.next) };
    assert!(!task.wake(&tape, &world.ground()), "its quarantine is not over");
    // A shorter quarantine takes effect, and no earlier than it is over.
    world.settings.quarantine = Duration::from_secs(20_000);
    assert!(task.wake(&tape, &world.ground()));
    let sooner = later(tape.stamps.at(State::Quarantined).unwrap(), world.settings.quarantine);
    assert_eq!(task.next, Next::At(sooner));
    assert!(sooner < over && sooner > world.now);
    // A longer one puts nothing off.
    world.settings.quarantine = Duration::from_secs(90_000);
    assert!(!task.wake(&tape, &world.ground()));
    assert_eq!(task.next, Next::At(sooner));
    // With no quarantine left a command that may still take effect keeps it.
    world.settings.quarantine = Duration::ZERO;
    task.settle_until = Some(at(50));
    assert!(task.wake(&tape, &world.ground()));
    assert_eq!(task.next, Next::At(at(50)));
    assert!(!task.wake(&tape, &world.ground()));
}

#[test]
fn nothing_wakes_that_is_stopped_or_in_somebodys_hands_or_due_or_over() {
    let world = World::new();
    let waiting = |state| {
        let (mut task, tape) = fresh(state, &world);
        task.next = Next::At(at(100));
        (task, tape)
    };
    type Change = fn(&mut Task);
    let rows: [(&str, State, Change); 5] = [
        ("stopped", State::Started, |task| task.stop(&why(Code::FilesLeft), at(0))),
        ("leased", State::Started, |task| task.owner = Some("w@h".to_owned())),
        ("due", State::Started, |task| task.next = Next::Now),
        ("wait over", State::Started, |task| task.next = Next::At(at(0))),
        ("finished", State::Finished, |_| ()),
    ];
    for (name, state, change) in rows {
        let (mut task, tape) = waiting(state);
        change(&mut task);
        let before = task.clone();
        assert!(!task.wake(&tape, &world.ground()), "{name}");
        assert_eq!(task, before, "{name}");
    }
    let (mut task, tape) = waiting(State::Started);
    assert!(task.wake(&tape, &world.ground()));
}

#[test]
fn memory_is_written_without_what_is_as_at_the_beginning_and_read_with_it() {
    assert_eq!(serde_json::to_string(&Memory::default()).unwrap(), "{}");
    let written_before = json!({
        "adopt": true, "asked": false, "marks": null, "waits": 0, "issued": {}, "in_vain": [], "listing": null, "request": null,
        "stopped_at": null, "accept_empty": false, "source_state": null, "refused_since": null, "logical_library": null
    });
    let memory: Memory = serde_json::from_value(written_before).unwrap();
    assert_eq!(memory, Memory { adopt: true, ..Memory::default() });
    assert_eq!(serde_json::to_value(&memory).unwrap(), json!({"adopt": true}));
    let memory = Memory {
        asked: true,
        waits: 3,
        issued: [("reclaim".to_owned(), at(1))].into(),
        in_vain: ["reclaim".to_owned()].into(),
        refused_since: Some(at(2)),
        ..memory
    };
    assert_eq!(serde_json::from_value::<Memory>(serde_json::to_value(&memory).unwrap()).unwrap(), memory);
}
