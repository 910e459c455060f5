//! CTA as a model: tapes, repack requests with their life, commands that have their effect now, later or never.

use std::collections::BTreeMap;

use common::cta::Command;
use common::cta::reply::{self, Log2, Log3, Repack};
use common::tape::Vid;

use crate::profile::Profile;
use crate::random::Random;
use crate::world::{NEVER, World, instant};

/// A repack request.
#[derive(Debug, Clone)]
pub struct Request {
    /// What `repack ls` says.
    pub repack: Repack,
    /// A command of the automation made it.
    pub ours: bool,
    next_at: i64,
    /// How many more files this round moves; the rest stays for another.
    left: u64,
    /// It will fail.
    fails: bool,
    /// It does not move while there are faults.
    stuck: bool,
}

/// A changing command on its way.
#[derive(Debug, Clone)]
pub struct Run {
    /// Its number.
    pub id: u64,
    /// The command.
    pub command: Command,
    /// The process that asked for it.
    pub by: usize,
    /// When its process ends, by itself or killed.
    pub ends_at: i64,
    /// When it has its effect, if it has one.
    pub effect_at: i64,
    /// Until when it must be believed that it may have an effect.
    pub doubt_until: i64,
    /// What CTA said, once it was carried out.
    pub said: Option<Result<(), String>>,
}

/// A tape.
#[derive(Debug, Clone)]
pub struct TapeModel {
    /// What `tape ls` says.
    pub tape: reply::Tape,
    /// Live files.
    pub files: u64,
    /// Recycle log: when, and whether a repack made it.
    pub log: Vec<(i64, bool)>,
    /// Its request.
    pub request: Option<Request>,
    /// When a pending state ends.
    pub pending_until: i64,
    /// When somebody else changed something here.
    pub touched_at: i64,
    /// Somebody said that another's request counts as ours.
    pub adopted: bool,
    /// Changing commands under way or in doubt.
    pub runs: Vec<Run>,
    /// Until then its files cannot be listed.
    pub sick_until: i64,
}

/// Everything that CTA holds.
#[derive(Debug)]
pub struct Catalogue {
    /// The tapes.
    pub tapes: BTreeMap<Vid, TapeModel>,
    /// CTA does not answer.
    pub down: bool,
    /// An archive route leads to the quarantine pool.
    pub routed: bool,
    clock: u64,
    /// Number of the last command.
    pub last_run: u64,
}

impl Catalogue {
    /// A library of full tapes.
    pub fn new(profile: &Profile, random: &mut Random) -> Catalogue {
        let tapes = (1..=profile.tapes).map(|number| {
            let vid = World::vid(number);
            let files = 2 + random.any() % 4;
            let tape = reply::Tape {
                vid: vid.to_string(),
                media_type: "LTO9".to_owned(),
                logical_library: "LIB1".to_owned(),
                tapepool: "raw".to_owned(),
                occupancy: 1000,
                last_fseq: 10,
                full: true,
                state: if random.once_in(6) { "DISABLED" } else { "ACTIVE" }.to_owned(),
                state_reason: String::new(),
                nb_master_files: files,
                master_data_in_bytes: files * 100,
                dirty: false,
                label_log: Some(Log2 { drive: "D1".to_owned(), time: 1 }),
                last_written_log: None,
                storage_class_statistics: None,
            };
            let model = TapeModel {
                tape,
                files,
                log: Vec::new(),
                request: None,
                pending_until: NEVER,
                touched_at: -1,
                adopted: false,
                runs: Vec::new(),
                sick_until: -1,
            };
            (vid, model)
        });
        Catalogue { tapes: tapes.collect(), down: false, routed: false, clock: 1, last_run: 0 }
    }

    /// A fresh request.
    pub fn request(
        &mut self,
        vid: &Vid,
        user: &str,
        now: i64,
        random: &mut Random,
        profile: &Profile,
        stormy: bool,
    ) -> Request {
        self.clock += 1;
        let files = self.tapes.get(vid).map_or(0, |tape| tape.files);
        let partial = profile.rounds && files > 1 && random.once_in(2);
        // Now and then a file is left although all seem moved.
        let forgets = profile.others && stormy && files > 1 && random.once_in(3);
        let moved = if partial { 1 } else { files - u64::from(forgets) };
        let repack = Repack {
            vid: vid.to_string(),
            status: "Pending".to_owned(),
            creation_log: Log3 { username: user.to_owned(), host: "h".to_owned(), time: self.clock },
            all_files_selected_at_start: !partial,
            total_files_on_tape_at_start: files,
            total_files_to_retrieve: moved,
            total_files_to_archive: moved,
            ..Repack::default()
        };
        let fails = profile.others && stormy && random.once_in(6);
        let stuck = profile.others && stormy && random.once_in(8);
        let next_at = now + random.of(1000..600_000);
        Request { repack, ours: user == "ops", next_at, left: moved, fails, stuck }
    }

    /// When something happens by itself next.
    pub fn next_event(&self) -> i64 {
        let tape = |tape: &TapeModel| {
            let request = tape.request.as_ref().map_or(NEVER, |request| request.next_at);
            let run = tape.runs.iter().filter(|run| run.said.is_none()).map(|run| run.effect_at).min();
            tape.pending_until.min(request).min(run.unwrap_or(NEVER))
        };
        self.tapes.values().map(tape).min().unwrap_or(NEVER)
    }
}

impl World {
    /// What happens in CTA by itself up to now.
    pub fn advance_cta(&mut self) {
        if self.cta.next_event() > self.now {
            return;
        }
        let vids: Vec<Vid> = self.cta.tapes.keys().cloned().collect();
        for vid in vids {
            self.carry_out(&vid);
            let (now, stormy) = (self.now, self.stormy);
            let Some(tape) = self.cta.tapes.get_mut(&vid) else { continue };
            if tape.pending_until <= now {
                tape.pending_until = NEVER;
                let to = tape.tape.state.trim_end_matches("_PENDING").to_owned();
                tape.tape.state = to.clone();
                self.say(|| format!("CTA: {vid} is {to} now"));
            }
            self.move_on(&vid, stormy);
        }
    }

    /// Commands whose time has come.
    fn carry_out(&mut self, vid: &Vid) {
        let now = self.now;
        loop {
            let due = self.cta.tapes.get(vid).and_then(|tape| {
                let due = |run: &&Run| run.said.is_none() && run.effect_at <= now;
                tape.runs.iter().find(due).map(|run| (run.id, run.command.clone(), run.ends_at))
            });
            let Some((id, command, ends_at)) = due else { break };
            let said = self.apply(&command);
            if ends_at < now {
                self.tally.late += 1;
            }
            self.say(|| format!("CTA: {command} -> {said:?}{}", if ends_at < now { " (late)" } else { "" }));
            if let Some(run) =
                self.cta.tapes.get_mut(vid).and_then(|tape| tape.runs.iter_mut().find(|run| run.id == id))
            {
                run.said = Some(said);
            }
        }
        if let Some(tape) = self.cta.tapes.get_mut(vid) {
            // Kept long after their end: whoever asked may have been stopped meanwhile.
            tape.runs.retain(|run| run.ends_at.max(run.doubt_until) + 86_400_000 > now);
        }
    }

    /// A request goes on.
    fn move_on(&mut self, vid: &Vid, stormy: bool) {
        let now = self.now;
        let wait = self.random.of(10_000..1_200_000);
        let Some(tape) = self.cta.tapes.get_mut(vid) else { return };
        let Some(request) = tape.request.as_mut().filter(|request| request.next_at <= now) else { return };
        request.next_at = now + wait;
        if request.stuck && stormy {
            return;
        }
        let repack = &mut request.repack;
        repack.status = match repack.status.as_str() {
            "Pending" => "ToExpand",
            "ToExpand" => "Starting",
            "Starting" => "Running",
            _ if request.fails && request.left <= 1 => {
                repack.failed_to_retrieve_files = request.left;
                "Failed"
            }
            _ if request.left > 0 => {
                request.left -= 1;
                repack.retrieved_files += 1;
                repack.archived_files += 1;
                tape.files = tape.files.saturating_sub(1);
                tape.log.push((now, true));
                "Running"
            }
            _ => "Complete",
        }
        .to_owned();
        if repack.is_final() {
            request.next_at = NEVER;
        }
        let text = format!("CTA: the repack of {vid} is {}, {} files left on it", repack.status, tape.files);
        self.say(|| text);
    }

    /// What CTA does with a command when it comes to it.
    pub fn apply(&mut self, command: &Command) -> Result<(), String> {
        let no = |text: &str| Err(text.to_owned());
        let (now, stormy, pends) = (self.now, self.stormy, self.profile.pends);
        let vid = command.vid().clone();
        let pending = now + self.random.of(1000..900_000);
        let Some(tape) = self.cta.tapes.get_mut(&vid) else { return no("does not exist") };
        let state = tape.tape.state.clone();
        match command {
            Command::SetState { to, .. } => {
                if state == *to {
                    return Ok(());
                }
                if state.ends_with("_PENDING") && state.trim_end_matches("_PENDING") != *to {
                    return no("Cannot modify tape state while it is in a temporary internal state");
                }
                if state.starts_with("REPACKING") && *to != "REPACKING" && tape.request.is_some() {
                    return no("there is a repack for that tape");
                }
                if state == "REPACKING_DISABLED" && *to != "REPACKING" {
                    return no("Cannot modify tape REPACKING_DISABLED");
                }
                if *to == "REPACKING" && pends && state != "REPACKING_DISABLED" {
                    tape.tape.state = "REPACKING_PENDING".to_owned();
                    tape.pending_until = pending;
                } else {
                    tape.tape.state = (*to).to_owned();
                    tape.pending_until = NEVER;
                }
                Ok(())
            }
            Command::SetPool { pool, .. } => {
                tape.tape.tapepool.clone_from(pool);
                Ok(())
            }
            Command::RepackAdd { .. } => {
                if tape.request.is_some() {
                    return no("A repack request already exists for this VID.");
                }
                if !tape.tape.full || state != "REPACKING" {
                    return no("You cannot repack a tape that is not REPACKING and full");
                }
                let (mut random, profile) = (self.random.clone(), self.profile.clone());
                let request = self.cta.request(&vid, "ops", now, &mut random, &profile, stormy);
                self.random = random;
                if let Some(tape) = self.cta.tapes.get_mut(&vid) {
                    tape.request = Some(request);
                }
                Ok(())
            }
            Command::RepackRm { .. } => {
                tape.request.take().map(|_| ()).ok_or_else(|| "No repack request for this VID.".to_owned())
            }
            Command::Reclaim { .. } => {
                if !matches!(state.as_str(), "ACTIVE" | "DISABLED" | "BROKEN") {
                    return no("Cannot reclaim tape because it is not on ACTIVE, DISABLED or BROKEN state");
                }
                if !tape.tape.full {
                    return no("Cannot reclaim tape because it is not FULL");
                }
                if tape.files > 0 {
                    return no("Cannot reclaim tape because there is at least one tape file in the catalogue");
                }
                (tape.tape.full, tape.tape.occupancy, tape.tape.last_fseq) = (false, 0, 0);
                tape.log.clear();
                Ok(())
            }
        }
    }

    /// Seconds since the epoch.
    pub fn epoch_seconds(ms: i64) -> u64 {
        instant(ms).timestamp().unsigned_abs()
    }
}
