//! The whole small space of a claim and of a record, each against the rules stated once more in the plainest way.

use super::*;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Lease {
    None,
    Alive,
    Expired,
    ExpiredWithIntent,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Gate {
    NotLocked,
    Free,
    Full,
}

#[derive(Debug, Clone, Copy)]
struct ClaimCase {
    state: State,
    mode: Mode,
    held: bool,
    paused: bool,
    next: Next,
    outcome: Option<Outcome>,
    lease: Lease,
    generation_matches: bool,
    stage_matches: bool,
    slot: bool,
    gate: Gate,
    wanted: Option<Wanted>,
}

#[derive(Debug, PartialEq, Eq)]
enum Expected {
    Claimed,
    Busy,
    NeedsGate,
    Stale { cleared: bool },
    Stopped,
}

/// The rules of a claim as a list of questions.
fn expected(case: &ClaimCase) -> Expected {
    if !case.generation_matches || !case.stage_matches {
        return Expected::Stale { cleared: false };
    }
    if case.lease == Lease::Alive {
        return Expected::Busy;
    }
    if case.outcome == Some(Outcome::Failed) {
        return Expected::Stopped;
    }
    let due = match case.next {
        Next::Now => true,
        Next::At(when) => when <= at(0),
        Next::Never => false,
    };
    if case.mode != Mode::Auto || case.held || case.paused || !due {
        return Expected::Stale { cleared: true };
    }
    let takes_slot = case.wanted == Some(Wanted::Retry) || (case.wanted.is_none() && case.state == State::Entered);
    if takes_slot && !case.slot {
        match case.gate {
            Gate::NotLocked => return Expected::NeedsGate,
            Gate::Full => return Expected::Stale { cleared: true },
            Gate::Free => {}
        }
    }
    Expected::Claimed
}

fn claim_cases() -> Vec<ClaimCase> {
    let mut cases = Vec::new();
    let bools = [false, true];
    for state in [State::Entered, State::Started, State::Quarantined] {
        for mode in Mode::ALL {
            for (held, paused) in bools.into_iter().flat_map(|a| bools.map(|b| (a, b))) {
                for next in [Next::Now, Next::At(at(-1)), Next::At(at(0)), Next::At(at(1)), Next::Never] {
                    for outcome in [None, Some(Outcome::Waiting), Some(Outcome::Failed)] {
                        for lease in [Lease::None, Lease::Alive, Lease::Expired, Lease::ExpiredWithIntent] {
                            for (generation_matches, stage_matches) in [(true, true), (false, true), (true, false)] {
                                for (slot, gate) in bools
                                    .into_iter()
                                    .flat_map(|slot| [Gate::NotLocked, Gate::Free, Gate::Full].map(|gate| (slot, gate)))
                                {
                                    let wishes =
                                        [None, Some(Wanted::Retry), Some(Wanted::GiveBack), Some(Wanted::Unstick)];
                                    cases.extend(wishes.map(|wanted| ClaimCase {
                                        state,
                                        mode,
                                        held,
                                        paused,
                                        next,
                                        outcome,
                                        lease,
                                        generation_matches,
                                        stage_matches,
                                        slot,
                                        gate,
                                        wanted,
                                    }));
                                }
                            }
                        }
                    }
                }
            }
        }
    }
    cases
}

fn set_up(case: &ClaimCase, world: &mut World) -> (Task, Tape) {
    let row = tape(case.state, case.mode);
    let mut task = Task::made(&row, &world.ground());
    task.next = case.next;
    task.outcome = case.outcome;
    task.reason = case.outcome.map(|_| (&why(Code::FilesLeft)).into());
    task.wanted = case.wanted;
    task.slot_since = case.slot.then(|| at(-50));
    task.dispatched_at = Some(at(-20));
    if case.lease != Lease::None {
        task.owner = Some("other@host".to_owned());
        task.lease_until = Some(if case.lease == Lease::Alive { at(1) } else { at(0) });
    }
    if case.lease == Lease::ExpiredWithIntent {
        task.intent = Some(Intent {
            kind: "repack-rm".to_owned(),
            command: "cta-admin repack rm --vid V01007".to_owned(),
            at: at(-99),
            before: Before::default(),
        });
    }
    world.control.hold = case.held.then(|| Hold { who: "ops".to_owned(), why: "w".to_owned(), until: None });
    let stage = task.stage.clone().unwrap();
    world.control.paused = if case.paused { vec![stage] } else { vec!["another".to_owned()] };
    (task, row)
}

#[test]
fn every_claim_is_judged_as_the_rules_say() {
    let mut world = World::new();
    let cases = claim_cases();
    assert_eq!(cases.len(), 3 * 3 * 4 * 5 * 3 * 4 * 3 * 6 * 4);
    let mut verdicts = [0; 5];
    for case in cases {
        let (mut task, row) = set_up(&case, &mut world);
        let before = task.clone();
        let stage = if case.stage_matches { task.stage.clone().unwrap() } else { "finish".to_owned() };
        let generation = if case.generation_matches { task.generation } else { task.generation + 1 };
        let slots = match case.gate {
            Gate::NotLocked => None,
            Gate::Free => Some(world.settings.max_active_repacks - 1),
            Gate::Full => Some(world.settings.max_active_repacks),
        };
        let (verdict, _) = task.claim(&stage, generation, "me@host", &row, slots, &world.ground());
        let (number, got) = match &verdict {
            Verdict::Claimed(claim) => {
                assert_eq!((claim.epoch, claim.generation, claim.wanted), (task.epoch, before.generation, case.wanted));
                (0, Expected::Claimed)
            }
            Verdict::Busy(_) => (1, Expected::Busy),
            Verdict::NeedsGate => (2, Expected::NeedsGate),
            Verdict::Stale(_) => (3, Expected::Stale { cleared: task.dispatched_at.is_none() }),
            Verdict::Stopped(_) => (4, Expected::Stopped),
        };
        verdicts[number] += 1;
        let closed = matches!(case.lease, Lease::Expired | Lease::ExpiredWithIntent)
            && case.generation_matches
            && case.stage_matches;
        let mut wanted = expected(&case);
        if let Expected::Stale { cleared } = &mut wanted {
            *cleared |= closed;
        }
        assert_eq!(got, wanted, "{case:?}");

        // Whatever the verdict.
        assert_eq!((task.generation, &task.stage), (before.generation, &before.stage), "{case:?}");
        assert_eq!((task.outcome, &task.reason, task.next), (before.outcome, &before.reason, before.next));
        assert_eq!(task.wanted, before.wanted);
        if closed {
            assert!(task.epoch > before.epoch && task.intent.is_none(), "{case:?}");
            assert_eq!(task.crashes, 1);
            assert_eq!(task.settle_until.is_some(), case.lease == Lease::ExpiredWithIntent, "{case:?}");
        }
        if verdict_leaves_all(&verdict, closed, wanted == (Expected::Stale { cleared: false })) {
            assert_eq!(task, before, "{case:?}");
        }
        let took = task.slot_since != before.slot_since;
        assert!(!took || (before.slot_since.is_none() && got == Expected::Claimed && case.gate == Gate::Free));
        if got == Expected::Claimed {
            assert!(task.epoch > before.epoch && task.is_leased(world.now));
            assert_eq!(task.owner.as_deref(), Some("me@host"));
        } else if !closed {
            assert_eq!((task.epoch, &task.owner, task.lease_until), (before.epoch, &before.owner, before.lease_until));
        }
    }
    assert!(verdicts.iter().all(|count| *count > 0), "a verdict never occurred: {verdicts:?}");
}

/// Busy, and what is stale for its generation or stage, writes nothing.
fn verdict_leaves_all(verdict: &Verdict, closed: bool, not_cleared: bool) -> bool {
    !closed && (matches!(verdict, Verdict::Busy(_) | Verdict::Stopped(_) | Verdict::NeedsGate) || not_cleared)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Row {
    Same,
    ModeChanged,
    StampsChanged,
    Gone,
}

#[test]
fn every_record_leaves_what_the_rules_say() {
    let endings = [
        Ending::Done,
        wait(Code::RepackRunning, Some(at(40))),
        wait(Code::RepackRunning, None),
        Ending::Grace(why(Code::Refused)),
        Ending::NextRound(why(Code::NextRound)),
        Ending::Trouble(why(Code::LookFailed)),
        Ending::Site(why(Code::SiteTrouble)),
        Ending::Denied("x".to_owned()),
        Ending::Stop(why(Code::FilesLeft)),
    ];
    let mut checked = 0;
    for stage in stages::STAGES {
        for ending in &endings {
            for row in [Row::Same, Row::ModeChanged, Row::StampsChanged, Row::Gone] {
                for (fenced, wish_meanwhile) in [(false, false), (true, false), (false, true)] {
                    for settling in [false, true] {
                        for wanted in [None, Some(Wanted::Retry), Some(Wanted::GiveBack), Some(Wanted::Unstick)] {
                            for attempts in [0, 4] {
                                for look in [UNSEEN, FREE, RUNNING, FINAL] {
                                    let case = RecordCase {
                                        state: stage.from,
                                        row,
                                        fenced,
                                        wish_meanwhile,
                                        settling,
                                        wanted,
                                        attempts,
                                        look,
                                    };
                                    check_record(&case, ending);
                                    checked += 1;
                                }
                            }
                        }
                    }
                }
            }
        }
    }
    assert_eq!(checked, 5 * 9 * 4 * 3 * 2 * 4 * 2 * 4);
}

#[derive(Debug)]
struct RecordCase {
    state: State,
    row: Row,
    fenced: bool,
    wish_meanwhile: bool,
    settling: bool,
    wanted: Option<Wanted>,
    attempts: i32,
    look: SlotLook,
}

fn check_record(case: &RecordCase, ending: &Ending) {
    let world = World::new();
    let (mut task, row) = fresh(case.state, &world);
    if let Some(wanted) = case.wanted {
        task.want(wanted, &world.ground());
    }
    task.next = Next::Now;
    task.attempts = case.attempts;
    let claim = claimed(&mut task, &row, &world);
    task.slot_since = Some(at(-50));
    task.dispatched_at = Some(at(-20));
    task.settle_until = case.settling.then(|| at(70));
    if case.fenced {
        task.epoch += 1;
    }
    if case.wish_meanwhile {
        task.want(Wanted::Unstick, &world.ground());
    }
    let now_row = match case.row {
        Row::Same => Some(row.clone()),
        Row::ModeChanged => Some(edited(&row, |row| row.mode = Mode::Manual)),
        Row::StampsChanged => Some(edited(&row, |row| row.stamps = Stamps::entered(at(-77)))),
        Row::Gone => None,
    };
    let before = task.clone();
    let (recorded, notes) =
        task.record(&claim, now_row.as_ref(), ending.clone(), Learned::default(), case.look, &world.ground());
    let told = format!("{case:?} {ending:?} gave {recorded:?}");

    if case.fenced {
        assert_eq!((&recorded.row, &recorded.counted), (&RowChange::Keep, &Counted::Fenced), "{told}");
        assert_eq!(task, before, "{told}");
        assert_eq!(notes.len(), 1, "{told}");
        return;
    }
    assert_eq!((&task.owner, task.lease_until, &task.intent, task.dispatched_at), (&None, None, &None, None), "{told}");
    assert_eq!(task.epoch, before.epoch, "{told}");
    assert_eq!(task.settle_until, before.settle_until, "{told}");
    if matches!(case.row, Row::StampsChanged | Row::Gone) {
        assert_eq!(recorded.row, RowChange::Keep, "{told}");
        let closed = Task { owner: None, lease_until: None, dispatched_at: None, ..before };
        assert_eq!(task, closed, "{told}");
        return;
    }

    // Stamps and wishes.
    let done = *ending == Ending::Done && !case.settling;
    let stage = stages::after(case.state).unwrap();
    match (&recorded.row, claim.wanted) {
        (RowChange::Stamp(to), None) => assert!(done && *to == stage.to, "{told}"),
        (RowChange::GiveBack, Some(Wanted::GiveBack)) => assert!(done && !case.wish_meanwhile, "{told}"),
        (RowChange::Keep, _) => assert!(!done || claim.wanted.is_some(), "{told}"),
        _ => panic!("{told}"),
    }
    if case.wish_meanwhile {
        assert_eq!(task.wanted, Some(Wanted::Unstick), "{told}");
        assert!(!task.has_stop(), "an ending of before the wish does not stop it: {told}");
    } else if claim.wanted.is_some() {
        let round = matches!(ending, Ending::NextRound(_)) && !case.settling;
        let expected = if done {
            None
        } else if round {
            Some(Wanted::Retry)
        } else {
            claim.wanted
        };
        assert_eq!(task.wanted, expected, "{told}");
    }

    // Generations, Stops, and when it comes back.
    let new_generation = task.generation != before.generation;
    assert!(task.generation >= before.generation, "{told}");
    let stopped = matches!(ending, Ending::Stop(_)) || (matches!(ending, Ending::Trouble(_)) && case.attempts == 4);
    if !case.wish_meanwhile {
        assert_eq!(task.has_stop(), stopped, "{told}");
        assert_eq!(matches!(recorded.counted, Counted::Stopped(_)), stopped, "{told}");
        let advances = done || (matches!(ending, Ending::NextRound(_)) && !case.settling);
        assert_eq!(new_generation, advances, "{told}");
        if stopped {
            assert_eq!((task.next, task.memory.stopped_at.is_some()), (Next::Never, true), "{told}");
            assert!(task.reason.is_some(), "{told}");
        }
    }
    if !task.has_stop() && task.stage.is_some() {
        assert_ne!(task.next, Next::Never, "it would be forgotten: {told}");
    }
    assert_eq!(
        task.stage.is_none(),
        recorded.row == RowChange::GiveBack || recorded.row == RowChange::Stamp(State::Finished)
    );

    // Slots.
    let may = !case.settling
        && !case.wish_meanwhile
        && (stopped
            || matches!(ending, Ending::Denied(_))
            || recorded.row == RowChange::GiveBack
            || recorded.row == RowChange::Stamp(State::Repacked));
    let allowed = [FREE, FINAL].contains(&case.look);
    assert_eq!(task.slot_since.is_none(), may && allowed, "{told}");
}
