//! What the front end does with a command: CTA's checks in CTA's order, its messages, its effects.

use crate::cli::Call;
use crate::daemon::goes_through_pending;
use crate::journal::Effect;
use crate::render;
use crate::world::{
    Frontend, HOST, Keyset, Mode, Pool, Request, Scheduler, Status, Tape, TapeState, Transport, USER, World,
};

/// What the front end says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// Success of a list other than `tape ls`.
    Rows(Vec<String>),
    /// Success of `tape ls`; the rows are made while they are printed.
    Tapes(Box<TapeFilter>),
    /// Success with a message, mostly empty.
    Done(&'static str),
    /// User error.
    User(String),
    /// Internal exception.
    Cta(String),
}

impl Answer {
    /// The message of an error; empty otherwise.
    pub fn message(&self) -> String {
        match self {
            Answer::User(message) | Answer::Cta(message) => message.clone(),
            Answer::Rows(_) | Answer::Tapes(_) | Answer::Done(_) => String::new(),
        }
    }
}

/// What the front end says and has done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// The answer.
    pub answer: Answer,
    /// What was done, for changing commands.
    pub effect: Effect,
}

/// An error, and whether something was done before it.
struct Refusal {
    answer: Answer,
    partial: bool,
}

fn user(message: impl Into<String>) -> Refusal {
    Refusal { answer: Answer::User(message.into()), partial: false }
}

fn internal(message: impl Into<String>) -> Refusal {
    Refusal { answer: Answer::Cta(message.into()), partial: false }
}

/// `Ok(true)`: something was done. `Ok(false)`: accepted, but nothing to do.
type Change = Result<bool, Refusal>;
type List = Result<Answer, Refusal>;

struct Desk<'a> {
    world: &'a mut World,
    call: &'a Call,
    front: &'a Frontend,
    now: u64,
}

/// Handles a command at a time given in microseconds since the Unix epoch.
pub fn handle(world: &mut World, call: &Call, front: &Frontend, now_us: u64) -> Outcome {
    let mut desk = Desk { world, call, front, now: now_us / 1_000_000 };
    if let Err(refusal) = desk.admission() {
        return Outcome { answer: refusal.answer, effect: if call.changing { Effect::Refused } else { Effect::None } };
    }
    if !call.changing {
        let answer = desk.list().unwrap_or_else(|refusal| refusal.answer);
        return Outcome { answer, effect: Effect::None };
    }
    match desk.change() {
        Ok(applied) => {
            Outcome { answer: Answer::Done(""), effect: if applied { Effect::Applied } else { Effect::None } }
        }
        Err(refusal) => {
            Outcome { answer: refusal.answer, effect: if refusal.partial { Effect::Partial } else { Effect::Refused } }
        }
    }
}

impl Desk<'_> {
    /// What is refused whatever the command's own arguments are.
    fn admission(&self) -> Result<(), Refusal> {
        if self.world.unauthorized {
            return Err(user(format!("User: {USER} on host: {HOST} is not authorized to execute CTA admin commands")));
        }
        if self.call.command == "repack" {
            let unchecked = self.world.transport == Transport::Grpc && self.call.list;
            if self.front.mode == Mode::AdminNoRepack && !unchecked {
                return Err(user("Admin command disabled on this frontend."));
            }
            if self.world.repack_disabled && !self.call.list {
                return Err(user("Repack requests are disabled."));
            }
        }
        Ok(())
    }

    fn change(&mut self) -> Change {
        match (self.call.command, self.call.sub) {
            ("tape", "ch") => self.tape_ch(),
            ("tape", "reclaim") => self.tape_reclaim(),
            ("tape", "add") => self.tape_add(),
            ("tape", "rm") => self.tape_rm(),
            ("tapepool", "add") => self.tapepool_add(),
            ("repack", "add") => self.repack_add(),
            ("repack", "rm") => self.repack_rm(),
            (command, sub) => Err(internal(format!("the simulated CTA cannot change anything by {command} {sub}"))),
        }
    }

    fn list(&mut self) -> List {
        let rows = match self.call.command {
            "tape" => return self.tape_ls(),
            "tapefile" => self.tapefile_ls()?,
            "recycletf" => self.recycletf_ls()?,
            "repack" if self.call.sub == "err" => return Ok(Answer::Done("Not implemented")),
            "repack" => self.repack_ls()?,
            "tapepool" => self.tapepool_ls()?,
            "failedrequest" => self.failedrequest_ls()?,
            "storageclass" => self.storageclass_ls()?,
            "mountpolicy" => render::mount_policies(self.world),
            "virtualorganization" => render::virtual_organizations(self.world),
            "mediatype" => render::media_types(self.world),
            "logicallibrary" => render::logical_libraries(self.world, self.call.truth("--disabled")),
            "archiveroute" => render::archive_routes(self.world),
            "showqueues" => render::queues(self.world, &self.front.scheduler, self.now),
            "version" => vec![render::version(self.world, &self.front.scheduler)],
            other => return Err(internal(format!("the simulated CTA cannot list {other}"))),
        };
        Ok(Answer::Rows(rows))
    }

    fn vid(&self) -> String {
        self.call.vid().unwrap_or_default().to_owned()
    }

    /// Whether a request exists in the scheduler of this front end, in any status.
    fn has_request(&self, vid: &str) -> bool {
        self.world.requests.iter().any(|request| request.vid == vid && request.scheduler == self.front.scheduler)
    }

    // --- tape ----------------------------------------------------------------------------------------------------

    fn tape_ls(&mut self) -> List {
        let filter = TapeFilter::new(self.call)?;
        if let Some(vid) = &filter.vid
            && self.world.keyset == Keyset::Head
            && self.world.find(vid).is_none()
        {
            return Err(user(format!("Tape VID {vid} does not exist.")));
        }
        if let Some(pool) = &filter.pool
            && self.world.keyset == Keyset::V5_10_7
            && !self.world.pools.contains_key(pool)
        {
            return Err(user(format!("Cannot list tapes because tape pool {pool} does not exist")));
        }
        Ok(Answer::Tapes(Box::new(filter)))
    }

    /// The options are applied one by one; what was done before a failure stays.
    fn tape_ch(&mut self) -> Change {
        const STEPS: [&str; 11] = [
            "--mediatype",
            "--vendor",
            "--logicallibrary",
            "--tapepool",
            "--comment",
            "--encryptionkeyname",
            "--purchaseorder",
            "--full",
            "--state",
            "--dirtybit",
            "--verificationstatus",
        ];
        let vid = self.vid();
        if vid.is_empty() {
            return Err(user("VID cannot be an empty string"));
        }
        let mut done = false;
        for step in STEPS {
            let Some(value) = self.call.get(step).map(str::to_owned) else { continue };
            let result = match step {
                "--state" => self.set_state(&vid, &value),
                _ => self.set_property(&vid, step, &value).map(|()| true),
            };
            match result {
                Ok(changed) => done |= changed,
                Err(refusal) => return Err(Refusal { partial: done, ..refusal }),
            }
        }
        Ok(done)
    }

    fn set_property(&mut self, vid: &str, option: &str, value: &str) -> Result<(), Refusal> {
        let cannot = |why: String| user(format!("Cannot modify tape {vid} because {why}"));
        match option {
            "--mediatype" if !self.world.media.contains_key(value) => {
                return Err(cannot(format!("the media type {value} does not exist")));
            }
            "--logicallibrary" if !self.world.libraries.contains_key(value) => {
                return Err(cannot(format!("the logical library {value} does not exist")));
            }
            "--tapepool" if !self.world.pools.contains_key(value) => {
                return Err(cannot(format!("the tape pool {value} does not exist")));
            }
            _ => {}
        }
        let (now, keyset) = (self.now, self.world.keyset);
        let Some(tape) = self.world.find_mut(vid) else { return Err(cannot("it does not exist".into())) };
        match option {
            "--mediatype" if keyset == Keyset::Head && !tape.files.is_empty() => {
                return Err(user(format!("Unable to modify media type of tape {vid} because it contains files")));
            }
            "--encryptionkeyname" if keyset == Keyset::Head && !(tape.files.is_empty() && tape.recycled.is_empty()) => {
                return Err(user("ERROR: forbidden to set an encryption key on a non empty tape."));
            }
            "--mediatype" => tape.media = value.into(),
            "--vendor" => tape.vendor = value.into(),
            "--logicallibrary" => tape.logical_library = value.into(),
            "--tapepool" => tape.pool = value.into(),
            "--comment" => tape.comment = cut(value),
            "--encryptionkeyname" => tape.key = value.into(),
            "--purchaseorder" => tape.purchase_order = value.into(),
            "--full" => tape.full = value == "true",
            "--dirtybit" => tape.dirty = value == "true",
            _ => tape.verification = value.into(),
        }
        tape.modified = now;
        Ok(())
    }

    /// The checks in CTA's order; the first that applies decides.
    fn set_state(&mut self, vid: &str, word: &str) -> Change {
        let to = known_state(word)?;
        let Some(tape) = self.world.find(vid) else { return Err(user(format!("The VID {vid} does not exist"))) };
        if to.pending_for().is_some() {
            return Err(user("Internal states cannot be set directly by the user"));
        }
        let (from, reason) = (tape.state, cut(self.call.get("--reason").unwrap_or_default()));
        if from == to {
            return Ok(self.change_reason(vid, &tape, reason));
        }
        self.may_change_state(vid, from, to)?;
        if to != TapeState::Active && reason.is_empty() {
            return Err(user(format!(
                "Cannot modify the state of the tape {vid} to {} because the reason has not been provided.",
                to.name()
            )));
        }
        let pending = goes_through_pending(self.world, from, to).then(|| pending_of(to));
        let due = self.world.last_ms + self.world.pending_ms;
        let now = self.now;
        let tape = self.world.find_mut(vid).expect("found above");
        tape.state = pending.unwrap_or(to);
        tape.pending_until_ms = pending.map(|_| tape.pending_until_ms.unwrap_or(due));
        tape.reason = reason;
        tape.state_time = now;
        tape.state_by = format!("{USER}@{HOST}");
        tape.modified = now;
        Ok(true)
    }

    fn change_reason(&mut self, vid: &str, tape: &Tape, reason: String) -> bool {
        if reason.is_empty() || reason == tape.reason {
            return false;
        }
        let now = self.now;
        let tape = self.world.find_mut(vid).expect("found above");
        tape.reason = reason;
        tape.state_time = now;
        true
    }

    fn may_change_state(&self, vid: &str, from: TapeState, to: TapeState) -> Result<(), Refusal> {
        use TapeState::{
            Active, Broken, BrokenPending, Disabled, Exported, ExportedPending, Repacking, RepackingDisabled,
            RepackingPending,
        };
        let change = format!("tape {vid} state from {} to {}", from.name(), to.name());
        let forbidden = match self.front.mode {
            Mode::AdminAll => false,
            Mode::AdminRepack => {
                matches!(from, Active | Disabled | RepackingPending | BrokenPending | ExportedPending)
                    && matches!(to, Repacking | Broken | Exported)
            }
            Mode::AdminNoRepack => {
                matches!(from, Repacking | RepackingDisabled)
                    && matches!(to, Active | Disabled | Repacking | Broken | Exported)
            }
        };
        if forbidden {
            return Err(user(format!("Not allowed to modify {change} on this frontend")));
        }
        if from.pending_for().is_some_and(|next| next != to) {
            return Err(user(format!("Cannot modify tape {vid} state while it is in a temporary internal state")));
        }
        let own = |state| matches!(state, Repacking | RepackingDisabled);
        if own(from) && !own(to) && self.has_request(vid) {
            return Err(user(format!("Cannot modify tape {vid} state because there is a repack for that tape")));
        }
        if to == RepackingDisabled && from != Repacking {
            return Err(user(format!("Cannot modify {change}")));
        }
        if from == RepackingDisabled && !matches!(to, Repacking | Broken | Exported) {
            return Err(user(format!("Cannot modify {change}")));
        }
        Ok(())
    }

    fn tape_reclaim(&mut self) -> Change {
        let vid = self.vid();
        let old = self.world.keyset == Keyset::V5_10_7;
        let cannot = |why: &str| user(format!("Cannot reclaim tape {vid} because {why}"));
        let Some(tape) = self.world.find(&vid) else {
            return Err(if old { cannot("it does not exist") } else { internal(format!("Cannot find tape {vid}")) });
        };
        let broken = tape.state == TapeState::Broken && !old;
        if !matches!(tape.state, TapeState::Active | TapeState::Disabled) && !broken {
            let states = if old { "ACTIVE or DISABLED" } else { "ACTIVE, DISABLED or BROKEN" };
            return Err(cannot(&format!("it is not on {states} state")));
        }
        if !tape.full {
            return Err(cannot("it is not FULL"));
        }
        if tape.live_files() > 0 {
            return Err(cannot("there is at least one tape file in the catalogue that is on the tape"));
        }
        self.recycle_log_is_old_enough(&tape)?;
        let now = self.now;
        let tape = self.world.find_mut(&vid).expect("found above");
        tape.recycled.clear();
        (tape.occupancy, tape.last_fseq, tape.cached_files, tape.cached_bytes) = (0, 0, 0, 0);
        (tape.full, tape.from_castor, tape.dirty) = (false, false, false);
        tape.verification.clear();
        tape.modified = now;
        Ok(true)
    }

    fn recycle_log_is_old_enough(&self, tape: &Tape) -> Result<(), Refusal> {
        let quarantine = match self.world.keyset {
            Keyset::Head => self.world.recycle_log_quarantine_secs,
            Keyset::V5_10_7 => 0,
        };
        let Some(newest) = tape.recycled.iter().map(|entry| entry.time).max() else { return Ok(()) };
        let age = self.now.saturating_sub(newest);
        if age < quarantine {
            return Err(user(format!(
                "This tape contains files deleted {age} seconds ago while recycle_log_quarantine_secs is configured at \
                 {quarantine}. Please reclaim this tape later."
            )));
        }
        Ok(())
    }

    fn tape_add(&mut self) -> Change {
        let vid = self.vid();
        let text = |option| self.call.get(option).unwrap_or_default().to_owned();
        let (media, library, pool) = (text("--mediatype"), text("--logicallibrary"), text("--tapepool"));
        if vid.bytes().any(|b| b.is_ascii_lowercase()) {
            return Err(user("Cannot create tape because the VID has non uppercase characters"));
        }
        let state = self.call.get("--state").map_or(Ok(TapeState::Active), known_state)?;
        let reason = cut(&text("--reason"));
        if state != TapeState::Active && reason.is_empty() {
            let why = "no reason has been provided for the state";
            return Err(user(format!("Cannot create tape because {why} {}", state.name())));
        }
        let cannot = |why: String| user(format!("Cannot create tape {vid} because {why}"));
        if self.world.find(&vid).is_some() {
            return Err(cannot("a tape with the same volume identifier already exists".into()));
        }
        if !self.world.libraries.contains_key(&library) {
            return Err(cannot(format!("logical library {library} does not exist")));
        }
        if !self.world.pools.contains_key(&pool) {
            return Err(cannot(format!("tape pool {pool} does not exist")));
        }
        if !self.world.media.contains_key(&media) {
            return Err(cannot(format!("media type {media} does not exist")));
        }
        let mut tape = Tape::new(&pool).made_of(&library, &media).in_state(state);
        tape.label = None;
        tape.vendor = text("--vendor");
        tape.purchase_order = text("--purchaseorder");
        tape.comment = text("--comment");
        tape.full = self.call.truth("--full") == Some(true);
        tape.reason = reason;
        tape.dirty = true;
        (tape.created, tape.modified, tape.state_time) = (self.now, self.now, self.now);
        self.world.tapes.insert(vid, tape);
        Ok(true)
    }

    fn tape_rm(&mut self) -> Change {
        let vid = self.vid();
        let cannot = |why: &str| user(format!("Cannot delete tape {vid} because {why}"));
        if self.has_request(&vid) {
            return Err(cannot("there is a repack for that tape"));
        }
        let Some(tape) = self.world.find(&vid) else { return Err(cannot("it does not exist")) };
        if !(tape.files.is_empty() && tape.recycled.is_empty()) {
            return Err(cannot(
                "either it contains one or more files or the files that were in it are in the file recycle log.",
            ));
        }
        if self.world.tapes.remove(&vid).is_none() {
            return Err(internal("the simulated CTA cannot delete a computed tape"));
        }
        Ok(true)
    }

    // --- files ---------------------------------------------------------------------------------------------------

    fn known_tape(&self, vid: &str) -> Result<Tape, Refusal> {
        if vid.is_empty() {
            return Err(user("VID cannot be an empty string"));
        }
        self.world.find(vid).ok_or_else(|| user(format!("Tape VID {vid} does not exist.")))
    }

    fn tapefile_ls(&mut self) -> Result<Vec<String>, Refusal> {
        if self.call.count() == 0 {
            return Err(user("Must specify at least one search option: vid, id or disk file"));
        }
        let id = self.call.number("--id");
        let tapes = match self.call.vid() {
            Some(vid) => vec![(vid.to_owned(), self.known_tape(vid)?)],
            None => self.world.tapes.clone().into_iter().collect(),
        };
        let disk_ids = disk_ids(self.call);
        let mut rows = Vec::new();
        for (vid, tape) in &tapes {
            render::files(&tape.files, |file| {
                let wanted = id.is_none_or(|id| id == file.archive_id)
                    && disk_ids.as_ref().is_none_or(|ids| ids.contains(&file.archive_id));
                if wanted {
                    rows.push(render::tape_file(self.world, vid, &file));
                }
            });
        }
        match id {
            Some(id) if rows.is_empty() && self.call.vid().is_none() => {
                Err(user(format!("Archive file with ID {id} does not exist")))
            }
            _ => Ok(rows),
        }
    }

    fn recycletf_ls(&mut self) -> Result<Vec<String>, Refusal> {
        let filters = self.call.count() - usize::from(self.call.has("--copynb"));
        if filters == 0 {
            return Err(user("Must specify at least one search option"));
        }
        let tapes = match self.call.vid() {
            Some(vid) => vec![(vid.to_owned(), self.known_tape(vid)?)],
            None => self.world.tapes.clone().into_iter().collect(),
        };
        let (id, copy) = (self.call.number("--id"), self.call.number("--copynb"));
        let (from, to) = (self.call.number("--logunixtimemin"), self.call.number("--logunixtimemax"));
        let (vo, disk_ids) = (self.call.get("--virtualorganisation"), disk_ids(self.call));
        let mut rows = Vec::new();
        for (vid, tape) in &tapes {
            for entry in &tape.recycled {
                let entry_wanted = from.is_none_or(|from| entry.time >= from)
                    && to.is_none_or(|to| entry.time <= to)
                    && copy.is_none_or(|copy| copy == u64::from(entry.run.copy))
                    && vo.is_none_or(|vo| render::vo_of_class(self.world, &entry.run.class) == vo);
                if !entry_wanted {
                    continue;
                }
                render::files(std::slice::from_ref(&entry.run), |file| {
                    let wanted = id.is_none_or(|id| id == file.archive_id)
                        && disk_ids.as_ref().is_none_or(|ids| ids.contains(&file.archive_id));
                    if wanted {
                        rows.push(render::recycled(self.world, vid, entry, &file));
                    }
                });
            }
        }
        Ok(rows)
    }

    // --- repack --------------------------------------------------------------------------------------------------

    fn repack_ls(&mut self) -> Result<Vec<String>, Refusal> {
        let mut requests: Vec<&Request> =
            self.world.requests.iter().filter(|request| request.scheduler == self.front.scheduler).collect();
        if let Some(vid) = self.call.vid() {
            if vid.is_empty() {
                return Err(user("VID cannot be an empty string"));
            }
            requests.retain(|request| request.vid == vid);
            if requests.is_empty() {
                return Err(self.no_request(vid));
            }
        }
        if let Some(lost) = requests.iter().find(|request| self.world.find(&request.vid).is_none()) {
            return Err(internal(format!("Not all tapes were found: {}", lost.vid)));
        }
        Ok(requests.into_iter().map(|request| render::repack(self.world, request, self.now)).collect())
    }

    fn no_request(&self, vid: &str) -> Refusal {
        match self.world.scheduler {
            Scheduler::Postgres => user(format!("No repack request found for VID: {vid}")),
            Scheduler::Objectstore if self.world.max_active == 0 => {
                user("No repack request for this VID (index not present).")
            }
            Scheduler::Objectstore => user("No repack request for this VID."),
        }
    }

    fn repack_add(&mut self) -> Change {
        let vids: Vec<String> = self.call.vids().into_iter().map(str::to_owned).collect();
        if vids.is_empty() {
            return Err(user("Must specify at least one vid, using --vid or --vidfile options"));
        }
        if !self.world.vos.values().any(|vo| vo.repack) {
            return Err(user("There is no default virtual organization for repack."));
        }
        let policy = self.call.get("--mountpolicy").unwrap_or_default().to_owned();
        if !self.world.policies.contains_key(&policy) {
            return Err(user("The mount policy name provided does not match any existing mount policy."));
        }
        let buffer = self.call.get("--bufferurl").map(str::to_owned).or_else(|| self.world.buffer_url.clone());
        let Some(buffer) = buffer else {
            return Err(user(
                "Must specify the buffer URL using --bufferurl option or using the frontend configuration file.",
            ));
        };
        if self.call.has("--justaddcopies") && self.call.has("--justmove") {
            return Err(user("--justaddcopies and --justmove are mutually exclusive"));
        }
        let mut done = false;
        for vid in vids {
            self.queue_repack(&vid, &policy, &buffer).map_err(|refusal| Refusal { partial: done, ..refusal })?;
            done = true;
        }
        Ok(true)
    }

    fn queue_repack(&mut self, vid: &str, policy: &str, buffer: &str) -> Result<(), Refusal> {
        if vid.is_empty() {
            return Err(user("Empty VID name."));
        }
        if buffer.is_empty() {
            return Err(user("Empty buffer URL."));
        }
        let Some(tape) = self.world.find(vid) else {
            return Err(user("The VID provided for repacking does not exist"));
        };
        if !tape.full {
            return Err(user("You must set the tape as full before repacking it."));
        }
        let cannot = format!("You cannot repack a tape that is {}.", tape.state.name());
        match tape.state {
            TapeState::Repacking | TapeState::RepackingDisabled => {}
            TapeState::Active | TapeState::Disabled => {
                return Err(user(format!("{cannot} You must first change its state to REPACKING.")));
            }
            TapeState::RepackingPending => {
                let wait = "You must wait for its state to complete the transition to REPACKING.";
                return Err(user(format!("{cannot} {wait}")));
            }
            _ => return Err(user(cannot)),
        }
        if self.has_request(vid) {
            return Err(match self.world.scheduler {
                Scheduler::Objectstore => user("A repack request already exists for this VID."),
                Scheduler::Postgres => internal(
                    "executeNonQuery failed: ERROR: duplicate key value violates unique constraint \
                     \"repack_job_vid_un\"",
                ),
            });
        }
        // a computed tape is kept from now on: the daemon works on kept ones only
        let _kept = self.world.find_mut(vid);
        self.world.requests.push(Request {
            vid: vid.into(),
            scheduler: self.front.scheduler.clone(),
            buffer_url: buffer.into(),
            mount_policy: policy.into(),
            max_files: self.call.number("--maxfilestoselect").unwrap_or(self.world.max_files_to_select),
            just_add_copies: self.call.has("--justaddcopies"),
            no_recall: self.call.has("--no-recall"),
            created: self.now,
            created_ms: self.world.last_ms,
            status: Status::Pending,
            all_selected: true,
            ..Request::default()
        });
        self.world.max_active = self.world.max_active.max(self.world.active_requests());
        Ok(())
    }

    fn repack_rm(&mut self) -> Change {
        let vid = self.vid();
        let scheduler = &self.front.scheduler;
        let before = self.world.requests.len();
        self.world.requests.retain(|request| request.vid != vid || request.scheduler != *scheduler);
        match (self.world.requests.len() < before, self.world.scheduler) {
            (true, _) => Ok(true),
            (false, Scheduler::Postgres) => Ok(false),
            (false, Scheduler::Objectstore) => Err(user("No repack request for this VID.")),
        }
    }

    // --- the rest ------------------------------------------------------------------------------------------------

    fn tapepool_ls(&mut self) -> Result<Vec<String>, Refusal> {
        if self.call.has("--encrypted") && self.call.has("--encryptionkeyname") {
            return Err(user("--encrypted and --encryptionkeyname are mutually exclusive"));
        }
        let name = self.call.get("--name");
        if let Some(name) = name.filter(|name| !self.world.pools.contains_key(*name)) {
            return Err(user(format!("Cannot list tape pools because tape pool '{name}' does not exist")));
        }
        let (vo, key) = (self.call.get("--virtualorganisation"), self.call.get("--encryptionkeyname"));
        let encrypted = self.call.truth("--encrypted");
        let wanted = |pool_name: &str, pool: &Pool| {
            name.is_none_or(|name| name == pool_name)
                && vo.is_none_or(|vo| vo == pool.vo)
                && key.is_none_or(|key| key == pool.key)
                && encrypted.is_none_or(|encrypted| encrypted != pool.key.is_empty())
        };
        Ok(render::tape_pools(self.world, wanted))
    }

    fn tapepool_add(&mut self) -> Change {
        let text = |option| self.call.get(option).unwrap_or_default().to_owned();
        let (name, vo) = (text("--name"), text("--virtualorganisation"));
        let cannot = |why: String| user(format!("Cannot create tape pool '{name}' because {why}"));
        if self.world.pools.contains_key(&name) {
            return Err(cannot("a tape pool with the same name already exists".into()));
        }
        if !self.world.vos.contains_key(&vo) {
            return Err(cannot(format!("vo '{vo}' does not exist.")));
        }
        let supply: Vec<String> =
            text("--supply").split(',').filter(|name| !name.is_empty()).map(str::to_owned).collect();
        if let Some(unknown) = supply.iter().find(|name| !self.world.pools.contains_key(*name)) {
            return Err(cannot(format!("the supply tape pool '{unknown}' does not exist")));
        }
        let pool = Pool {
            vo,
            partial: self.call.number("--partialtapesnumber").unwrap_or(0),
            comment: text("--comment"),
            key: text("--encryptionkeyname"),
            supply,
        };
        self.world.pools.insert(name, pool);
        Ok(true)
    }

    fn failedrequest_ls(&mut self) -> Result<Vec<String>, Refusal> {
        if self.call.has("--log") && self.call.has("--summary") {
            return Err(user("--log and --summary are mutually exclusive"));
        }
        match self.world.scheduler {
            Scheduler::Postgres => Err(internal("RetrieveJobFailedQueueItor: not implemented")),
            Scheduler::Objectstore => Ok(Vec::new()),
        }
    }

    fn storageclass_ls(&mut self) -> Result<Vec<String>, Refusal> {
        let (name, vid) = (self.call.get("--name"), self.call.vid());
        if name.is_some() && vid.is_some() {
            return Err(user("--name and --vid are mutually exclusive"));
        }
        let on_tape = vid.map(|vid| self.known_tape(vid)).transpose()?;
        let wanted = |class: &str| {
            name.is_none_or(|name| name == class)
                && on_tape.as_ref().is_none_or(|tape| tape.files.iter().any(|run| run.class == class))
        };
        Ok(render::storage_classes(self.world, wanted))
    }
}

/// A text column of the catalogue holds 1000 characters; more is cut off silently.
fn cut(text: &str) -> String {
    text.chars().take(1000).collect()
}

fn pending_of(state: TapeState) -> TapeState {
    match state {
        TapeState::Repacking => TapeState::RepackingPending,
        TapeState::Broken => TapeState::BrokenPending,
        TapeState::Exported => TapeState::ExportedPending,
        other => other,
    }
}

fn known_state(word: &str) -> Result<TapeState, Refusal> {
    TapeState::parse(word).ok_or_else(|| {
        user(format!(
            "The state given ({word}) does not exist. Possible values are ACTIVE BROKEN DISABLED EXPORTED REPACKING \
             REPACKING_DISABLED"
        ))
    })
}

/// Disk file IDs asked for by `--fxid` and `--fxidfile` (hexadecimal) or `--diskfileid`; `None`: no such filter. In this
/// world the disk file ID of a file is its archive file ID.
fn disk_ids(call: &Call) -> Option<Vec<u64>> {
    let hex = |text: &str| u64::from_str_radix(text, 16).ok();
    let mut ids: Vec<Option<u64>> = Vec::new();
    let mut asked = false;
    if let Some(id) = call.get("--fxid") {
        asked = true;
        ids.push(hex(id));
    }
    if let Some(id) = call.get("--diskfileid") {
        asked = true;
        ids.push(id.parse().ok());
    }
    if let Some(words) = call.file("--fxidfile") {
        asked = true;
        ids.extend(words.iter().map(|word| hex(word.trim_start_matches("fid="))));
    }
    asked.then(|| ids.into_iter().flatten().collect())
}

/// What `tape ls` was asked for.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TapeFilter {
    /// `--vid`.
    pub vid: Option<String>,
    /// `--tapepool`.
    pub pool: Option<String>,
    /// `--get-storage-class-stats`.
    pub statistics: bool,
    media: Option<String>,
    vendor: Option<String>,
    logical: Option<String>,
    physical: Option<String>,
    vo: Option<String>,
    capacity: Option<u64>,
    full: Option<bool>,
    state: Option<TapeState>,
    from_castor: Option<bool>,
    purchase_order: Option<String>,
    missing_copies: bool,
    disk_ids: Option<Vec<u64>>,
}

impl TapeFilter {
    fn new(call: &Call) -> Result<TapeFilter, Refusal> {
        let filters =
            call.count() - usize::from(call.has("--all")) - usize::from(call.has("--get-storage-class-stats"));
        if filters == 0 && !call.has("--all") {
            return Err(user("Must specify at least one search option, or --all"));
        }
        if filters > 0 && call.has("--all") {
            return Err(user("Cannot specify --all together with other search options"));
        }
        let named = |option: &str, what: &str| match call.get(option) {
            Some("") => Err(user(format!("{what} cannot be an empty string"))),
            value => Ok(value.map(str::to_owned)),
        };
        Ok(TapeFilter {
            vid: named("--vid", "VID")?,
            media: named("--mediatype", "Media type")?,
            vendor: named("--vendor", "Vendor")?,
            logical: named("--logicallibrary", "Logical library")?,
            physical: named("--physicallibrary", "Physical library")?,
            pool: named("--tapepool", "Tape pool")?,
            vo: named("--virtualorganisation", "Virtual organisation")?,
            purchase_order: named("--purchaseorder", "Purchase order")?,
            capacity: call.number("--capacity"),
            full: call.truth("--full"),
            state: call.get("--state").map(known_state).transpose()?,
            from_castor: call.truth("--fromcastor"),
            missing_copies: call.has("--missingfilecopies"),
            disk_ids: disk_ids(call),
            statistics: call.has("--get-storage-class-stats"),
        })
    }

    /// Whether a tape is asked for.
    pub fn wants(&self, world: &World, vid: &str, tape: &Tape) -> bool {
        fn is(filter: Option<&String>, value: &str) -> bool {
            filter.is_none_or(|filter| filter == value)
        }
        let holds = |ids: &Vec<u64>| {
            let in_run =
                |id: &u64| tape.files.iter().any(|run| (run.archive_id..run.archive_id + run.count).contains(id));
            ids.iter().any(in_run)
        };
        is(self.vid.as_ref(), vid)
            && is(self.media.as_ref(), &tape.media)
            && is(self.vendor.as_ref(), &tape.vendor)
            && is(self.logical.as_ref(), &tape.logical_library)
            && is(self.physical.as_ref(), world.libraries.get(&tape.logical_library).map_or("", String::as_str))
            && is(self.pool.as_ref(), &tape.pool)
            && is(self.vo.as_ref(), world.pools.get(&tape.pool).map_or("", |pool| pool.vo.as_str()))
            && is(self.purchase_order.as_ref(), &tape.purchase_order)
            && self.capacity.is_none_or(|capacity| world.media.get(&tape.media) == Some(&capacity))
            && self.full.is_none_or(|full| full == tape.full)
            && self.state.is_none_or(|state| state == tape.state)
            && self.from_castor.is_none_or(|from_castor| from_castor == tape.from_castor)
            && self.disk_ids.as_ref().is_none_or(holds)
            // no storage class of this world asks for a second copy, so none is missing
            && !self.missing_copies
    }
}
