//! Several actors, one tape, any order of events: what must hold after every step.

use proptest::prelude::*;

use super::*;

/// What one of the actors, or somebody outside, does next.
#[derive(Debug, Clone)]
enum Step {
    Claim(usize),
    StaleMessage(usize),
    Act(usize, u8),
    Answer(usize, u8),
    Record(usize, u8, u8),
    Tick,
    Nudge,
    Requeue,
    Want(u8),
    TakeOver,
    Foreign(u8, u8),
    Replace,
    Hold(bool),
    Pass(u32),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let actor = || 0usize..3;
    let step = prop_oneof![
        6 => actor().prop_map(Step::Claim),
        1 => actor().prop_map(Step::StaleMessage),
        5 => (actor(), 0u8..5).prop_map(|(actor, command)| Step::Act(actor, command)),
        4 => (actor(), 0u8..3).prop_map(|(actor, effect)| Step::Answer(actor, effect)),
        6 => (actor(), 0u8..9, 0u8..4).prop_map(|(actor, ending, look)| Step::Record(actor, ending, look)),
        2 => Just(Step::Tick),
        1 => Just(Step::Nudge),
        1 => Just(Step::Requeue),
        1 => (0u8..3).prop_map(Step::Want),
        1 => Just(Step::TakeOver),
        2 => (0u8..3, 0u8..6).prop_map(|(mode, state)| Step::Foreign(mode, state)),
        1 => Just(Step::Replace),
        1 => any::<bool>().prop_map(Step::Hold),
        3 => prop_oneof![1u32..400, 1u32..10_000, 1u32..4_000_000].prop_map(Step::Pass),
    ];
    proptest::collection::vec(step, 1..60)
}

struct Scene {
    world: World,
    tape: Tape,
    task: Task,
    /// What each actor holds: its claim, and whether it believes that a command of its own is open.
    actors: [Option<(Claim, bool)>; 3],
    /// Commands that were allowed to run: until when their effect may come, none while unanswered.
    effects: Vec<Option<DateTime<Utc>>>,
    entered: i64,
}

impl Scene {
    fn new() -> Scene {
        let world = World::new();
        let (task, tape) = fresh(State::Entered, &world);
        Scene { world, tape, task, actors: [None, None, None], effects: Vec::new(), entered: 0 }
    }

    /// A law under the locks: the edit is noticed first, the mark follows what we write ourselves.
    fn noticed<R>(&mut self, law: impl FnOnce(&mut Task, &Tape, &Ground<'_>) -> R) -> R {
        let ground = self.world.ground();
        self.task.notice(&self.tape, &ground);
        law(&mut self.task, &self.tape, &ground)
    }

    fn own_write(&mut self, change: impl FnOnce(&mut Tape)) {
        let unseen = self.task.seen.as_ref().is_some_and(|seen| seen.xmin != self.tape.xmin);
        self.tape = edited(&self.tape, change);
        if !unseen {
            self.task.seen = Some(SeenRow::of(&self.tape));
        }
    }

    fn step(&mut self, step: &Step) -> Result<(), TestCaseError> {
        let before = self.task.clone();
        match step {
            Step::Claim(actor) => {
                let Some(stage) = self.task.stage.clone() else { return Ok(()) };
                let generation = self.task.generation;
                let ground = self.world.ground();
                let (verdict, _) = self.task.claim(&stage, generation, "w", &self.tape, Some(0), &ground);
                // A claim closes an expired lease first, unless the message is stale.
                if self.task.crashes > before.crashes {
                    self.close_effects();
                }
                if let Verdict::Claimed(claim) = verdict {
                    prop_assert_eq!(self.tape.mode, Mode::Auto);
                    prop_assert!(self.world.control.hold.is_none());
                    prop_assert!(!before.is_leased(self.world.now), "two holders at once");
                    prop_assert!(claim.epoch > before.epoch);
                    self.actors[*actor] = Some((claim, false));
                }
            }
            Step::StaleMessage(actor) => {
                let generation = self.task.generation - 1;
                let ground = self.world.ground();
                let (verdict, _) = self.task.claim("start", generation, "w", &self.tape, Some(0), &ground);
                let _ = actor;
                prop_assert!(matches!(verdict, Verdict::Stale(_)));
                prop_assert_eq!(&self.task.owner, &before.owner);
            }
            Step::Act(actor, command) => self.act(*actor, *command)?,
            Step::Answer(actor, effect) => self.answer(*actor, *effect),
            Step::Record(actor, ending, look) => self.record(*actor, *ending, *look)?,
            Step::Tick => {
                if self.task.owner.is_some() && !self.task.is_leased(self.world.now) {
                    self.close_effects();
                    let ground = self.world.ground();
                    self.task.abandon("its lease ran out", &ground);
                    prop_assert!(self.task.epoch > before.epoch);
                }
                self.noticed(|_, _, _| ());
            }
            Step::Nudge => self.task.nudge(self.world.now),
            Step::Requeue => {
                if self.tape.mode != Mode::Auto && self.tape.state() != State::Finished {
                    self.noticed(|task, tape, ground| task.requeue(tape, ground));
                    self.own_write(|tape| tape.mode = Mode::Auto);
                }
            }
            Step::Want(wanted) => {
                if self.tape.state() != State::Finished {
                    let wanted = [Wanted::Retry, Wanted::GiveBack, Wanted::Unstick][usize::from(*wanted)];
                    self.noticed(|task, _, ground| task.want(wanted, ground));
                    self.own_write(|tape| tape.mode = Mode::Auto);
                }
            }
            Step::TakeOver => {
                self.noticed(|task, _, ground| task.taken_over(ground));
                self.own_write(|tape| tape.mode = Mode::Manual);
            }
            Step::Foreign(mode, state) => {
                self.tape = edited(&self.tape, |tape| {
                    tape.mode = Mode::ALL[usize::from(*mode)];
                    tape.stamps = stamps(State::ALL[usize::from(*state)]);
                });
            }
            Step::Replace => {
                self.entered += 1;
                let begun = at(-5000 + self.entered);
                self.tape = edited(&self.tape, |tape| tape.stamps = Stamps::entered(begun));
            }
            Step::Hold(held) => {
                self.world.control.hold =
                    held.then(|| Hold { who: "ops".to_owned(), why: "w".to_owned(), until: None });
            }
            Step::Pass(seconds) => self.world.now += TimeDelta::seconds(i64::from(*seconds)),
        }
        self.always(&before, step)
    }

    /// The settle time of commands whose holder is gone begins when its lease is closed.
    fn close_effects(&mut self) {
        let until = later(self.world.now, self.world.settings.settle);
        for effect in &mut self.effects {
            effect.get_or_insert(until);
        }
    }

    fn act(&mut self, actor: usize, command: u8) -> Result<(), TestCaseError> {
        let Some((claim, _)) = self.actors[actor].clone() else { return Ok(()) };
        let allowed = self.task.may_act(&claim, Some(&self.tape), &self.world.ground());
        for (other, held) in self.actors.iter().enumerate() {
            if let (true, Some((held, _))) = (allowed.is_ok() && other != actor, held) {
                let also = held.epoch != claim.epoch
                    && self.task.may_act(held, Some(&self.tape), &self.world.ground()).is_ok();
                prop_assert!(!also, "two epochs may act");
            }
        }
        if allowed.is_err() {
            return Ok(());
        }
        prop_assert_eq!(self.tape.mode, Mode::Auto);
        prop_assert!(self.world.control.hold.is_none() && !self.task.has_stop());
        prop_assert!(self.task.is_leased(self.world.now));
        for effect in &self.effects {
            prop_assert!(
                effect.is_some_and(|until| until <= self.world.now),
                "an earlier command may still have its effect"
            );
        }
        let command = match command {
            0 => repack_add(),
            1 => repack_rm(),
            2 => Command::Reclaim { vid: vid() },
            3 => Command::SetPool { vid: vid(), pool: "p".to_owned() },
            _ => Command::SetPool { vid: vid(), pool: "q".to_owned() },
        };
        let ground = self.world.ground();
        self.task.intend(&command, &Value::Null, Some("ACTIVE"), &ground);
        prop_assert!(self.task.may_act(&claim, Some(&self.tape), &self.world.ground()).is_err(), "while one is open");
        self.effects.push(None);
        self.actors[actor] = Some((claim, true));
        Ok(())
    }

    fn answer(&mut self, actor: usize, effect: u8) {
        let Some((claim, open)) = &mut self.actors[actor] else { return };
        if !*open || self.task.epoch != claim.epoch {
            return;
        }
        *open = false;
        let effect = [Effect::Likely, Effect::None, Effect::Unclear][usize::from(effect)];
        let until = match effect {
            Effect::Unclear => later(self.world.now, self.world.settings.settle),
            Effect::Likely | Effect::None => self.world.now,
        };
        for open in &mut self.effects {
            open.get_or_insert(until);
        }
        let ground = self.world.ground();
        self.task.answered(effect, Value::Null, &ground);
    }

    fn record(&mut self, actor: usize, ending: u8, look: u8) -> Result<(), TestCaseError> {
        let Some((claim, _)) = self.actors[actor].take() else { return Ok(()) };
        let ending = match ending {
            0 | 1 => Ending::Done,
            2 => wait(Code::RepackRunning, None),
            3 => wait(Code::RepackRunning, Some(self.world.now + TimeDelta::days(3))),
            4 => Ending::Grace(why(Code::Refused)),
            5 => Ending::Trouble(why(Code::LookFailed)),
            6 => Ending::Site(why(Code::SiteTrouble)),
            7 => Ending::Denied("x".to_owned()),
            _ => Ending::Stop(why(Code::FilesLeft)),
        };
        let look = [UNSEEN, FREE, RUNNING, FINAL][usize::from(look)];
        let before = self.task.clone();
        let live = before.epoch == claim.epoch;
        let settling = before.is_settling(self.world.now) || before.intent.is_some();
        if live {
            self.close_effects();
        }
        let ground = self.world.ground();
        let (recorded, _) =
            self.task.record(&claim, Some(&self.tape), ending.clone(), Learned::default(), look, &ground);
        if !live {
            prop_assert_eq!(&recorded.counted, &Counted::Fenced);
            prop_assert_eq!(&self.task, &before);
        }
        match recorded.row {
            RowChange::Keep => {}
            RowChange::Remove => prop_assert!(false, "no delivery removes a row"),
            RowChange::Stamp(to) => {
                prop_assert!(live && !settling && ending == Ending::Done && claim.wanted.is_none());
                prop_assert_eq!(self.tape.state().next(), Some(to));
                let now = self.world.now;
                self.own_write(|tape| tape.stamps = tape.stamps.stamped(to, now).unwrap());
            }
            RowChange::GiveBack => {
                prop_assert!(live && !settling && claim.wanted == Some(Wanted::GiveBack));
                // And somebody prepares it again.
                self.task.seen = None;
                self.entered += 1;
                let begun = at(-5000 + self.entered);
                self.tape = edited(&self.tape, |tape| {
                    tape.stamps = Stamps::entered(begun);
                    tape.mode = Mode::Auto;
                });
            }
        }
        Ok(())
    }

    fn always(&self, before: &Task, step: &Step) -> Result<(), TestCaseError> {
        let task = &self.task;
        prop_assert!(task.attempts >= 0 && task.crashes >= 0 && task.round >= 0, "{:?}", step);
        prop_assert!(task.generation >= before.generation && task.epoch >= before.epoch);
        prop_assert_eq!(task.owner.is_some(), task.lease_until.is_some(), "half a lease after {:?}", step);
        if before.settle_until.is_some_and(|until| until > self.world.now) {
            prop_assert!(task.settle_until >= before.settle_until, "settling was cut short by {:?}", step);
        }
        if task.has_stop() {
            prop_assert!(task.reason.is_some() && task.memory.stopped_at.is_some());
            prop_assert_eq!(task.next, Next::Never);
        }
        if before.has_stop() && !task.has_stop() {
            let unseen = before.seen.as_ref().is_none_or(|seen| seen.xmin != self.tape.xmin);
            let decided = match step {
                Step::Requeue | Step::Want(_) => true,
                // They follow an edit: to mode auto, or of another journey.
                Step::Claim(_) | Step::StaleMessage(_) | Step::Tick | Step::TakeOver => unseen,
                _ => false,
            };
            prop_assert!(decided, "a Stop was lost by {:?}", step);
        }
        // Followed or not: the tick follows an edit before it looks for what is due.
        let mut followed = task.clone();
        followed.notice(&self.tape, &self.world.ground());
        let open = self.tape.mode == Mode::Auto && self.tape.state() != State::Finished;
        if open && !followed.has_stop() {
            prop_assert!(followed.next != Next::Never && followed.stage.is_some(), "forgotten after {:?}", step);
            prop_assert_eq!(followed.stage.as_deref(), stages::after(self.tape.state()).map(|stage| stage.name));
        }
        if task.generation != before.generation {
            prop_assert_eq!(task.dispatched_at, None, "published for another generation");
        }
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: ProptestConfig::default().cases.max(400), failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_in_whatever_order_one_actor_acts_and_no_tape_is_forgotten(steps in steps()) {
        let mut scene = Scene::new();
        for step in &steps {
            scene.step(step)?;
        }
    }
}
