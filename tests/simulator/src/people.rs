//! People: operators with the manager, somebody with psql, others with `cta-admin`, users, drives.

use std::sync::Arc;

use chrono::TimeDelta;
use common::journey::{Mode, Stamps, State};
use common::stages::checks;
use common::store::{NewTape, judge_entry};
use common::tape::{Tape, Vid};
use common::task::Wanted;
use manager::acts::{Act, carry_out};
use worker::edge::Rows as _;

use crate::database::{Base, Role};
use crate::world::{NEVER, Sim, World, idle, pause, step, told};

/// Enters a tape as prepare does, if CTA's side allows it.
async fn prepare(sim: &Sim, base: &Base, vid: &Vid) {
    let new = {
        let world = sim.borrow();
        let Some(model) = world.cta.tapes.get(vid) else { return };
        if model.request.is_some() || !checks::of_tape(&model.tape, &world.settings).is_empty() {
            return;
        }
        NewTape {
            files: i64::try_from(model.files).unwrap_or(0),
            bytes: 400,
            usage: 40,
            last_write: None,
            priority: 10,
            mediatype: "LTO9".to_owned(),
            logical_library: model.tape.logical_library.clone(),
            tapepool: model.tape.tapepool.clone(),
            responsible: "ops".to_owned(),
            source_state: model.tape.state.clone(),
        }
    };
    let entered = base.locked(vid, false, |locked| judge_entry(locked, &new)).await;
    sim.borrow_mut().say(|| format!("prepares {vid}: {}", told(&entered)));
}

/// Enters every tape in the beginning.
pub async fn begin(sim: Sim) {
    let settings = Arc::clone(&sim.borrow().settings);
    let base = Base::new(&sim, "ops", Role::Manager, settings, 0);
    let vids: Vec<Vid> = sim.borrow().cta.tapes.keys().cloned().collect();
    for vid in vids {
        while !sim.borrow().tables.rows.contains_key(&vid) {
            prepare(&sim, &base, &vid).await;
            pause(&sim, 1000).await;
        }
        let ms = sim.borrow_mut().random.of(0..1_800_000);
        pause(&sim, ms).await;
    }
}

/// An operator with the manager.
pub async fn operator(sim: Sim) {
    let settings = Arc::clone(&sim.borrow().settings);
    let base = Base::new(&sim, "ops", Role::Manager, settings, 0);
    while sim.borrow().stormy {
        let ms = sim.borrow_mut().random.of(1000..2_400_000);
        let watched = idle(&sim, ms).await;
        if !sim.borrow().stormy {
            return;
        }
        let (vid, act) = choice(&sim, watched);
        match act {
            Some(act) => {
                let plan = base.locked(&vid, false, |locked| carry_out(&act, None, locked)).await;
                let mut world = sim.borrow_mut();
                world.tally.edits += 1;
                world.say(|| format!("{} {vid}: {}", act.verb(), told(&plan)));
            }
            None => prepare(&sim, &base, &vid).await,
        }
    }
}

fn choice(sim: &Sim, watched: Option<Vid>) -> (Vid, Option<Act>) {
    let mut world = sim.borrow_mut();
    let vids: Vec<Vid> = world.cta.tapes.keys().cloned().collect();
    let vid = watched.unwrap_or_else(|| world.random.pick(&vids).clone());
    let ch = |mode| Act::Change { mode: Some(mode), priority: None, responsible: None };
    let act = match world.random.index(16) {
        0 => ch(Mode::Manual),
        1..=3 => ch(Mode::Auto),
        4 | 5 => Act::Requeue { adopt: false, accept_empty: false },
        6 => Act::Requeue { adopt: true, accept_empty: false },
        7 | 8 => Act::Want(Wanted::Retry),
        9 => Act::Want(Wanted::GiveBack),
        10 => Act::Want(Wanted::Unstick),
        11 => Act::Remove,
        12 => {
            let span = world.random.of(60..7200);
            Act::Hold(Some(TimeDelta::seconds(span)))
        }
        13 => Act::Release,
        14 => {
            let any = world.random.index(5);
            let next = world.tables.tasks.get(&vid).and_then(|task| task.stage.clone());
            let stage = next.unwrap_or_else(|| ["start", "end", "quarantine", "reclaim", "finish"][any].to_owned());
            if world.tables.paused.is_empty() {
                world.say(|| format!("pauses {stage}"));
                world.tables.paused.push(stage);
            } else {
                world.say(|| "resumes every stage".to_owned());
                world.tables.paused.clear();
            }
            Act::Release
        }
        _ => return (vid, None),
    };
    (vid, Some(act))
}

/// Somebody with psql.
pub async fn psql(sim: Sim) {
    while sim.borrow().stormy {
        let ms = sim.borrow_mut().random.of(60_000..7_200_000);
        let watched = idle(&sim, ms).await;
        let mut world = sim.borrow_mut();
        if !world.stormy {
            return;
        }
        let vids: Vec<Vid> = world.cta.tapes.keys().cloned().collect();
        let vid = watched.unwrap_or_else(|| world.random.pick(&vids).clone());
        world.tally.edits += 1;
        edit(&mut world, &vid);
    }
}

fn edit(world: &mut World, vid: &Vid) {
    let now = world.time();
    let xmin = world.tables.fresh_xmin();
    let what = world.random.index(10);
    world.blamed.remove(vid);
    let Some(mut row) = world.tables.rows.get(vid).cloned() else {
        if what < 3 && world.cta.tapes.get(vid).is_some_and(|tape| tape.tape.tapepool == "raw") {
            let row = Tape {
                vid: vid.clone(),
                stamps: Stamps::entered(now),
                mode: Mode::Auto,
                priority: 10,
                mediatype: "LTO9".to_owned(),
                tapepool: "raw".to_owned(),
                responsible: "psql".to_owned(),
                files: 1,
                bytes: 1,
                usage: 1,
                last_write_date: None,
                xmin,
            };
            world.say(|| format!("psql: inserts {vid}"));
            world.tables.rows.insert(vid.clone(), row);
        }
        return;
    };
    if row.state() == State::Finished {
        return;
    }
    row.xmin = xmin;
    match what {
        0..=3 => row.mode = [Mode::Auto, Mode::Auto, Mode::Manual, Mode::Error][what],
        4 => row.priority = 11 - i16::from(row.priority == 11),
        5 | 6 => {
            // The last stamp taken back.
            let raw = State::ALL
                .map(|state| row.stamps.at(state).filter(|_| state != row.state() || state == State::Entered));
            row.stamps = Stamps::check(raw, TimeDelta::zero()).expect("a shorter prefix is one");
        }
        7 => {
            world.say(|| format!("psql: deletes {vid}"));
            world.tables.rows.remove(vid);
            return;
        }
        8 => {
            // The last stamp corrected to now, if that is later.
            let raw = State::ALL
                .map(|state| row.stamps.at(state).map(|at| if state == row.state() { at.max(now) } else { at }));
            row.stamps = Stamps::check(raw, TimeDelta::zero()).expect("a later stamp is later");
        }
        _ => {}
    }
    world.say(|| format!("psql: {vid} is {} {} now", row.state(), row.mode));
    world.tables.rows.insert(vid.clone(), row);
}

/// Others with `cta-admin`, users, drives. They meet a tape that nobody is working on, or change what no gate asks for.
pub async fn others(sim: Sim) {
    while sim.borrow().stormy {
        let ms = sim.borrow_mut().random.of(60_000..5_400_000);
        pause(&sim, ms).await;
        let mut world = sim.borrow_mut();
        if !world.stormy {
            return;
        }
        let vids: Vec<Vid> = world.cta.tapes.keys().cloned().collect();
        let vid = world.random.pick(&vids).clone();
        meddle(&mut world, &vid);
    }
}

fn meddle(world: &mut World, vid: &Vid) {
    let now = world.now;
    let what = world.random.index(10);
    let (mut random, profile) = (world.random.clone(), world.profile.clone());
    let foreign = world.cta.request(vid, "eve", now, &mut random, &profile, true);
    world.random = random;
    // A request that appears after an unanswered one of ours cannot be told from it.
    let expected = world.tables.tasks.get(vid).is_some_and(|task| task.memory.asked && task.memory.request.is_none());
    let Some(model) = world.cta.tapes.get_mut(vid) else { return };
    model.touched_at = now;
    let text = match what {
        0 if model.request.is_none() && model.tape.state == "REPACKING" => {
            model.request = Some(foreign);
            model.adopted |= expected;
            "somebody else asks for a repack"
        }
        1 if model.request.take().is_some() => "somebody removes the request",
        2 if model.tape.state == "REPACKING" => {
            model.tape.state = "REPACKING_DISABLED".to_owned();
            "a drive disables it"
        }
        3 if !model.tape.full && model.tape.state == "ACTIVE" => {
            (model.files, model.tape.occupancy, model.tape.last_fseq) = (1, 100, 1);
            "a user writes a file"
        }
        4 if model.files > 0 && model.request.is_none() => {
            model.files -= 1;
            model.log.push((now, false));
            "a user deletes a file"
        }
        5 if model.request.is_none() => {
            model.tape.tapepool = ["raw", "quarantine", "tolabel_LTO9"][usize::from(now % 2 == 0) * 2].to_owned();
            "somebody moves it to another pool"
        }
        6 if model.request.is_none() && !model.tape.state.ends_with("_PENDING") => {
            model.tape.state = if now % 3 == 0 { "BROKEN" } else { "ACTIVE" }.to_owned();
            "somebody changes its state"
        }
        7 => {
            model.tape.label_log = Some(common::cta::reply::Log2 { drive: "D2".to_owned(), time: now.unsigned_abs() });
            "it is labelled again"
        }
        _ => return,
    };
    world.say(|| format!("CTA: {vid}: {text}"));
}

/// When the storm is over: what people put in the way is taken away again, and looked after.
pub async fn clear_up(sim: Sim) {
    loop {
        clear(&sim).await;
        pause(&sim, 6 * 3_600_000).await;
    }
}

async fn clear(sim: &Sim) {
    let settings = Arc::clone(&sim.borrow().settings);
    let base = Base::new(sim, "ops", Role::Manager, settings, 0);
    {
        let mut world = sim.borrow_mut();
        world.tables.paused.clear();
        world.tables.holds.clear();
        world.cta.routed = false;
    }
    step(sim).await;
    // A tape whose row somebody deleted is nobody's in CTA either: left in REPACKING, it would keep its slot.
    {
        let mut world = sim.borrow_mut();
        let gone: Vec<Vid> =
            world.cta.tapes.keys().filter(|vid| !world.tables.rows.contains_key(*vid)).cloned().collect();
        for vid in gone {
            let now = world.now;
            let Some(tape) = world.cta.tapes.get_mut(&vid) else { continue };
            tape.touched_at = now;
            tape.request = None;
            if tape.tape.state.starts_with("REPACKING") {
                (tape.tape.state, tape.pending_until) = ("ACTIVE".to_owned(), NEVER);
            }
        }
    }
    let manual: Vec<Vid> = {
        let world = sim.borrow();
        let manual = |row: &&Tape| row.mode == Mode::Manual && row.state() != State::Finished;
        world.tables.rows.values().filter(manual).map(|row| row.vid.clone()).collect()
    };
    for vid in manual {
        let _ = base
            .locked(&vid, false, |locked| carry_out(&Act::Requeue { adopt: false, accept_empty: false }, None, locked))
            .await;
    }
}
