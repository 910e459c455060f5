//! `cta-admin` as one process sees it: questions that fail, commands that end in every way.

use std::rc::Rc;
use std::time::Duration;

use chrono::NaiveDate;
use common::cta::reply::{Release, Version};
use common::cta::{Answer, Command, Frontend, Query, Trouble};
use common::journey::State;
use common::settings::Settings;
use common::tape::Vid;
use common::task::ListingMade;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use worker::edge::Admin;
use worker::listing::ListingError;

use crate::check;
use crate::cta::Run;
use crate::database::{Base, Role};
use crate::mutation::Mutation;
use crate::world::{NEVER, World, pause};

/// `cta-admin` for one process.
#[derive(Clone)]
pub struct Client {
    base: Base,
    /// What commands that exited 0 should have done; believed only by a mutation.
    believed: Rc<std::cell::RefCell<Vec<Command>>>,
}

impl Client {
    /// For the process that uses this database.
    pub fn new(base: &Base) -> Client {
        Client { base: base.clone(), believed: Rc::default() }
    }

    /// A new delivery begins.
    pub fn forget(&self) {
        self.believed.borrow_mut().clear();
    }

    async fn travel(&self) {
        let ms = self.base.sim.borrow_mut().moment();
        pause(&self.base.sim, ms).await;
    }

    async fn ask(&self, query: &Query) -> Result<Vec<Value>, Trouble> {
        self.travel().await;
        let answer = {
            let mut world = self.base.sim.borrow_mut();
            let rate = world.profile.query;
            let failed = |text: &str| Trouble::Failed {
                command: query.to_string(),
                exit: Some(1),
                signal: None,
                text: text.to_owned(),
            };
            if world.cta.down {
                Err(failed("cannot connect to the front end"))
            } else if !matches!(query, Query::Version(_)) && (world.fault(rate) || world.is_sick(query)) {
                let slow = world.random.once_in(4);
                world.say(|| format!("{query} fails"));
                Err(if slow { Trouble::Silent { command: query.to_string(), secs: 120.0 } } else { failed("a fault") })
            } else {
                self.answer(&mut world, query)
            }
        };
        let answer = match answer {
            Err(trouble) if matches!(trouble, Trouble::Silent { .. }) => {
                pause(&self.base.sim, 120_000).await;
                Err(trouble)
            }
            other => other,
        };
        // A long list is old when it is there.
        let long = matches!(query, Query::Repacks) && self.base.sim.borrow_mut().fault(4);
        if long {
            let ms = self.base.sim.borrow_mut().random.of(1000..180_000);
            pause(&self.base.sim, ms).await;
        }
        self.travel().await;
        self.misread(query, answer)
    }

    fn answer(&self, world: &mut World, query: &Query) -> Result<Vec<Value>, Trouble> {
        let refused = |text: &str| Err(Trouble::Refused { command: query.to_string(), text: text.to_owned() });
        let value = |object: &dyn erased::Serializable| object.value();
        Ok(match query {
            Query::Version(_) | Query::Tapes | Query::TapeStatistics(_) => Vec::new(),
            // What only an operator's checks ask.
            Query::ArchiveFile(_)
            | Query::MediaTypes
            | Query::LogicalLibraries
            | Query::StorageClasses
            | Query::WritableTapes(_) => Vec::new(),
            Query::Tape(vid) => match world.cta.tapes.get(vid) {
                None => return refused("the tape does not exist"),
                Some(model) => vec![value(&model.tape)],
            },
            Query::TapeFiles(vid) => {
                let files = world.cta.tapes.get(vid).map_or(0, |tape| tape.files);
                (0..files).map(|_| json!({"af": {"size": 100}})).collect()
            }
            Query::RecycleLog(vid) => {
                let Some(tape) = world.cta.tapes.get(vid) else { return refused("Tape VID does not exist.") };
                let entry = |(at, repack): &(i64, bool)| {
                    let reason = if *repack { "REPACK" } else { "deleted by a user" };
                    json!({"reasonLog": reason, "recycleLogTime": World::epoch_seconds(*at)})
                };
                tape.log.iter().map(entry).collect()
            }
            Query::Repacks => {
                let all = world.cta.tapes.values().filter_map(|tape| tape.request.as_ref());
                all.map(|request| value(&request.repack)).collect()
            }
            Query::Repack(vid) => match world.cta.tapes.get(vid).and_then(|tape| tape.request.as_ref()) {
                None => return refused("No repack request for this VID."),
                Some(request) => vec![value(&request.repack)],
            },
            Query::TapePools => {
                ["raw", "quarantine", "tolabel_LTO9", "erase_LTO9"].map(|name| json!({"name": name})).into()
            }
            Query::MountPolicies => {
                ["repack_low_priority", "repack_high_priority"].map(|name| json!({"name": name})).into()
            }
            Query::VirtualOrganizations => vec![json!({"name": "vo", "isRepackVo": true})],
            Query::ArchiveRoutes => {
                let routed = world.cta.routed.then(|| json!({"tapepool": "quarantine"}));
                [json!({"tapepool": "raw"})].into_iter().chain(routed).collect()
            }
        })
    }

    /// What a mutated program makes of an answer.
    fn misread(&self, query: &Query, mut answer: Result<Vec<Value>, Trouble>) -> Result<Vec<Value>, Trouble> {
        let world = self.base.sim.borrow();
        match (world.mutation, query) {
            (Some(Mutation::FailedListIsEmpty), Query::TapeFiles(_)) if answer.is_err() => return Ok(Vec::new()),
            (Some(Mutation::RequestNotLookedFor), Query::Repacks) if self.base.role == Role::Delivery => {
                return Ok(Vec::new());
            }
            (Some(Mutation::RequestNotLookedFor), Query::Repack(_)) if self.base.role == Role::Delivery => {
                return Err(Trouble::Refused { command: query.to_string(), text: "none".to_owned() });
            }
            (Some(Mutation::PoolNotLookedAt), Query::Tape(vid)) => {
                let quarantined = world.tables.rows.get(vid).is_some_and(|row| row.state() == State::Quarantined);
                if let (true, Ok([tape])) = (quarantined, answer.as_deref_mut()) {
                    tape["tapepool"] = json!("quarantine");
                }
            }
            (Some(Mutation::ExitZeroBelieved), Query::Tape(_)) => {
                if let Ok([tape]) = answer.as_deref_mut() {
                    self.believed.borrow().iter().for_each(|command| believe(command, tape));
                }
            }
            (Some(Mutation::SlotFreedWhileRunning), Query::Repacks) if self.base.role == Role::Tick => {
                for request in answer.iter_mut().flatten() {
                    request["status"] = json!("Complete");
                }
            }
            _ => {}
        }
        answer
    }
}

fn believe(command: &Command, tape: &mut Value) {
    match command {
        Command::SetState { to, .. } => tape["state"] = json!(to),
        Command::SetPool { pool, .. } => tape["tapepool"] = json!(pool),
        Command::Reclaim { .. } => {
            (tape["full"], tape["occupancy"], tape["lastFseq"]) = (json!(false), json!(0), json!(0));
        }
        Command::RepackAdd { .. } | Command::RepackRm { .. } => {}
    }
}

mod erased {
    /// Anything that becomes JSON.
    pub trait Serializable {
        fn value(&self) -> serde_json::Value;
    }

    impl<T: serde::Serialize> Serializable for T {
        fn value(&self) -> serde_json::Value {
            serde_json::to_value(self).expect("a reply is JSON")
        }
    }
}

/// How a command ends, by the dice.
enum Fate {
    Honest,
    /// It happened, and exit 1.
    EffectUnclear,
    /// It did not happen, and exit 1.
    NoEffectUnclear,
    /// Exit 1 or killed, and it happens later.
    Late,
    /// Exit 0, and nothing happens.
    Ignored,
    /// Exit 2 although it should work.
    Refused,
    /// Not started.
    NotRun,
}

fn fate(world: &mut World) -> Fate {
    let rate = world.profile.command;
    if world.cta.down {
        return Fate::NoEffectUnclear;
    }
    if !world.fault(rate) {
        return Fate::Honest;
    }
    match world.random.index(8) {
        0 | 1 => Fate::EffectUnclear,
        2 => Fate::NoEffectUnclear,
        3 | 4 => Fate::Late,
        5 => Fate::Ignored,
        6 => Fate::Refused,
        _ => Fate::NotRun,
    }
}

impl Admin for Client {
    /// On the clock of the simulation.
    type Deadline = i64;

    async fn list<T: DeserializeOwned + Send + 'static>(&self, query: &Query) -> Result<Vec<T>, Trouble> {
        let garbage =
            |error: serde_json::Error| Trouble::Garbage { command: query.to_string(), text: error.to_string() };
        self.ask(query).await?.into_iter().map(|value| serde_json::from_value(value).map_err(garbage)).collect()
    }

    async fn each<T, F>(&self, query: &Query, mut take: F) -> Result<u64, Trouble>
    where
        T: DeserializeOwned + Send + 'static,
        F: FnMut(T) -> anyhow::Result<()> + Send + 'static,
    {
        let list: Vec<T> = self.list(query).await?;
        let count = list.len() as u64;
        for object in list {
            take(object).map_err(|cause| Trouble::Stopped { command: query.to_string(), cause })?;
        }
        Ok(count)
    }

    async fn version(&self, frontend: Frontend) -> Result<Version, Trouble> {
        self.ask(&Query::Version(frontend)).await?;
        let release = || Release { cta_version: "5.11.20.0-1".to_owned() };
        Ok(Version {
            client_version: release(),
            server_version: release(),
            catalogue_version: String::new(),
            is_upgrading: false,
            scheduler_backend_name: String::new(),
            instance_name: String::new(),
        })
    }

    fn deadline(&self, within: Duration) -> i64 {
        self.base.sim.borrow().now + i64::try_from(within.as_millis()).unwrap_or(0)
    }

    async fn change(&self, command: &Command, deadline: i64) -> Answer {
        self.travel().await;
        let (id, ends_at, fate) = {
            let mut world = self.base.sim.borrow_mut();
            if world.now >= deadline && !world.has(Mutation::DeadlineNotTested) {
                world.tally.too_late += 1;
                world.say(|| format!("{command} is not started: the deadline is over"));
                return Answer::NotRun("the deadline is over".to_owned());
            }
            let fate = fate(&mut world);
            if matches!(fate, Fate::NotRun) {
                return Answer::NotRun("no more processes".to_owned());
            }
            check::started(&mut world, &self.base, command);
            let limit = i64::try_from(self.base.settings.cta_admin.timeout.as_millis()).unwrap_or(0);
            let settle = i64::try_from(self.base.settings.settle.as_millis()).unwrap_or(0);
            let now = world.now;
            let takes = if world.random.once_in(6) { world.random.of(1000..limit) } else { world.random.of(10..5000) };
            let ends_at = now + takes;
            let (effect_at, unclear) = match fate {
                Fate::Honest => (now + world.random.of(0..takes), false),
                Fate::EffectUnclear => (now + world.random.of(0..takes), true),
                Fate::Late => (ends_at + world.random.of(1..settle), true),
                Fate::NoEffectUnclear => (NEVER, true),
                Fate::Ignored | Fate::Refused | Fate::NotRun => (NEVER, false),
            };
            world.tally.commands += 1;
            world.tally.unclear += u64::from(unclear);
            world.cta.last_run += 1;
            let id = world.cta.last_run;
            let doubt_until = if unclear { ends_at + settle } else { ends_at };
            let by = world.current;
            let run = Run { id, command: command.clone(), by, ends_at, effect_at, doubt_until, said: None };
            if let Some(tape) = world.cta.tapes.get_mut(command.vid()) {
                tape.runs.push(run);
            }
            (id, ends_at, fate)
        };
        let wait = ends_at - self.base.sim.borrow().now;
        pause(&self.base.sim, wait).await;
        let answer = {
            let mut world = self.base.sim.borrow_mut();
            world.advance_cta();
            world.answer_of(command, id, &fate)
        };
        self.base.sim.borrow_mut().say(|| format!("{command}: {answer:?}"));
        if answer == Answer::Accepted {
            self.believed.borrow_mut().push(command.clone());
        }
        self.travel().await;
        answer
    }

    fn kill_all(&self) {
        let mut world = self.base.sim.borrow_mut();
        let settle = i64::try_from(self.base.settings.settle.as_millis()).unwrap_or(0);
        let (now, me) = (world.now, world.current);
        let runs = world.cta.tapes.values_mut().flat_map(|tape| tape.runs.iter_mut());
        for run in runs.filter(|run| run.by == me && run.ends_at > now) {
            run.ends_at = now;
            run.doubt_until = now + settle;
        }
    }

    async fn write_listing(
        &self,
        vid: &Vid,
        round: i32,
        _: NaiveDate,
        host: &str,
        _: &Settings,
    ) -> Result<ListingMade, ListingError> {
        let files = self.ask(&Query::TapeFiles(vid.clone())).await.map_err(ListingError::Cta)?;
        let failed = {
            let mut world = self.base.sim.borrow_mut();
            let rate = world.profile.site;
            world.fault(rate)
        };
        if failed {
            return Err(ListingError::Host(anyhow::anyhow!("no space left on device")));
        }
        Ok(ListingMade {
            host: host.to_owned(),
            path: "listing".to_owned(),
            files: files.len() as u64,
            bytes: files.len() as u64 * 100,
            sha256: String::new(),
            round,
        })
    }
}

impl World {
    /// The files of a tape cannot be listed, for a while.
    fn is_sick(&mut self, query: &Query) -> bool {
        let Query::TapeFiles(vid) = query else { return false };
        let rate = self.profile.query;
        let begins = self.fault(rate.div_ceil(5));
        let until = self.now + self.random.of(1000..900_000);
        let Some(tape) = self.cta.tapes.get_mut(vid) else { return false };
        if begins {
            tape.sick_until = until;
        }
        self.stormy && tape.sick_until > self.now
    }

    fn answer_of(&mut self, command: &Command, id: u64, fate: &Fate) -> Answer {
        let run = self.cta.tapes.get(command.vid()).and_then(|tape| tape.runs.iter().find(|run| run.id == id));
        let said = run.and_then(|run| run.said.clone());
        match fate {
            Fate::Honest => match said {
                Some(Err(why)) => Answer::Refused(why),
                _ => Answer::Accepted,
            },
            Fate::Ignored => Answer::Accepted,
            Fate::Refused => Answer::Refused("Tape VID does not exist.".to_owned()),
            Fate::EffectUnclear | Fate::NoEffectUnclear | Fate::Late | Fate::NotRun => {
                Answer::Unclear("exit 1".to_owned())
            }
        }
    }
}
