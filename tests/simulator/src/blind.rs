//! What a mutated program does not see when a transaction reads the rows, and what it leaves as it was.

use common::journey::Mode;
use common::store::Locked;
use common::task::{Next, Outcome, Task, later};

use crate::database::{Base, Role};
use crate::mutation::Mutation;

/// Changes what the law is shown.
pub fn blind(mutation: Mutation, base: &Base, locked: &mut Locked<'_>) {
    let hands = base.hands.borrow();
    let claimed = hands.claimed.get(locked.vid).map(|(epoch, _)| *epoch);
    let now = locked.now();
    let letters = base.role == Role::Letters;
    let message = hands.message.as_ref().filter(|(vid, ..)| vid == locked.vid).cloned();
    if base.role == Role::Delivery {
        match mutation {
            Mutation::HoldNotChecked if claimed.is_some() => locked.control.hold = None,
            Mutation::PauseNotChecked if claimed.is_some() => locked.control.paused.clear(),
            Mutation::ModeNotChecked if claimed.is_some() => {
                if let Some(Ok(tape)) = &mut locked.row {
                    tape.mode = Mode::Auto;
                }
            }
            _ => {}
        }
    }
    let Some(task) = &mut locked.task else { return };
    match mutation {
        Mutation::NoEpochCheck if base.role == Role::Delivery => {
            if let Some(epoch) = claimed.filter(|epoch| *epoch != task.epoch) {
                task.epoch = epoch;
                task.owner = Some(base.actor.to_string());
                task.lease_until = Some(later(now, base.settings.lease));
                task.settle_until = None;
                task.intent = None;
                if let Some((_, _, generation)) = message {
                    task.generation = generation;
                }
            }
        }
        Mutation::LeaseIgnored if base.role == Role::Delivery && claimed.is_none() => {
            (task.owner, task.lease_until) = (None, None);
        }
        Mutation::CrashNotClosed if base.role == Role::Delivery && claimed.is_none() && !task.is_leased(now) => {
            (task.owner, task.lease_until, task.intent) = (None, None, None);
        }
        Mutation::SettleIgnored if base.role == Role::Delivery => task.settle_until = None,
        Mutation::MessageTrusted if base.role == Role::Delivery && claimed.is_none() => {
            if let Some((_, stage, generation)) = message
                && task.stage.as_deref() == Some(&stage)
            {
                task.generation = generation;
            }
        }
        Mutation::ReconcileWithoutRecheck if base.role == Role::Tick => {
            if let Some((epoch, slot_since)) = hands.held.get(locked.vid) {
                (task.epoch, task.slot_since) = (*epoch, Some(*slot_since));
                (task.owner, task.lease_until, task.intent, task.settle_until) = (None, None, None, None);
            }
        }
        Mutation::LetterWithoutStop if letters => {
            if let Some((_, stage, generation)) = message {
                (task.stage, task.generation) = (Some(stage), generation);
                (task.outcome, task.next) = (Some(Outcome::Failed), Next::Never);
            }
        }
        Mutation::LetterGenerationIgnored if letters && task.has_stop() => {
            if let Some((_, stage, generation)) = message {
                (task.stage, task.generation) = (Some(stage), generation);
            }
        }
        _ => {}
    }
}

/// What the law did not change is written back as it was.
pub fn restore(mutation: Option<Mutation>, base: &Base, before: Option<&Task>, locked: &mut Locked<'_>) {
    let (Some(task), Some(before)) = (&mut locked.task, before) else { return };
    match mutation {
        Some(Mutation::SettleIgnored) if task.settle_until.is_none() => task.settle_until = before.settle_until,
        Some(Mutation::LetterWithoutStop) if base.role == Role::Letters => {
            (task.outcome, task.next) = (before.outcome, before.next);
            (task.generation, task.stage) = (before.generation, before.stage.clone());
        }
        Some(Mutation::LetterGenerationIgnored) if base.role == Role::Letters => {
            (task.generation, task.stage) = (before.generation, before.stage.clone());
        }
        Some(Mutation::NoEpochCheck | Mutation::MessageTrusted) => {
            task.epoch = task.epoch.max(before.epoch);
            task.generation = task.generation.max(before.generation);
        }
        Some(Mutation::ReconcileWithoutRecheck)
            if base.role == Role::Tick && base.hands.borrow().held.contains_key(locked.vid) =>
        {
            task.epoch = before.epoch;
            (task.owner, task.lease_until) = (before.owner.clone(), before.lease_until);
            (task.intent, task.settle_until) = (before.intent.clone(), before.settle_until);
        }
        _ => {}
    }
}
