//! What exists in the simulated CTA and how it behaves. Serialised compactly: values equal to their default are left
//! out and files are kept as runs, so that a world of some hundred tapes is read in a few milliseconds.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::generated::Generated;

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// User name of everything done through `cta-admin`.
pub const USER: &str = "opsadmin";
/// Client host of everything done through `cta-admin`.
pub const HOST: &str = "ctaops01";

/// How the client talks to the front end; decides exit codes and streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Transport {
    /// `cta-admin`.
    #[default]
    Xrootd,
    /// `cta-admin-grpc`: a failed list exits 0.
    Grpc,
}

/// The scheduler back end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Scheduler {
    /// Classic: pending states last until the daemon has cleaned up.
    #[default]
    Objectstore,
    /// New: state changes are final at once; other messages.
    Postgres,
}

/// The version whose JSON keys, options and messages are used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Keyset {
    /// 5.11.20 and later.
    #[default]
    Head,
    /// 5.10.7: before `allFilesSelectedAtStart`, `storageClassStatistics`, `instanceName`, the reclaim delay, `--jsonl`.
    V5_10_7,
}

/// What a front end allows (`cta.operation_mode`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// Everything.
    #[default]
    AdminAll,
    /// The repack front end of a split site.
    AdminRepack,
    /// The user front end of a split site.
    AdminNoRepack,
}

/// One front end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Frontend {
    /// `all`, `user` or `repack`; `<name>.conf` in the world's directory leads to it.
    pub name: String,
    /// `HOST:PORT` as in a client configuration.
    pub endpoint: String,
    /// What it allows.
    pub mode: Mode,
    /// Name of its scheduler; a request is seen only through front ends of the same one.
    pub scheduler: String,
    /// It does not answer.
    #[serde(default)]
    pub down: bool,
}

/// State of a tape.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
#[expect(missing_docs, reason = "CTA's own words")]
pub enum TapeState {
    #[default]
    Active,
    Disabled,
    Repacking,
    RepackingPending,
    RepackingDisabled,
    Broken,
    BrokenPending,
    Exported,
    ExportedPending,
}

impl TapeState {
    /// All nine.
    pub const ALL: [TapeState; 9] = [
        TapeState::Active,
        TapeState::Disabled,
        TapeState::Repacking,
        TapeState::RepackingPending,
        TapeState::RepackingDisabled,
        TapeState::Broken,
        TapeState::BrokenPending,
        TapeState::Exported,
        TapeState::ExportedPending,
    ];

    /// CTA's word.
    pub fn name(self) -> &'static str {
        match self {
            TapeState::Active => "ACTIVE",
            TapeState::Disabled => "DISABLED",
            TapeState::Repacking => "REPACKING",
            TapeState::RepackingPending => "REPACKING_PENDING",
            TapeState::RepackingDisabled => "REPACKING_DISABLED",
            TapeState::Broken => "BROKEN",
            TapeState::BrokenPending => "BROKEN_PENDING",
            TapeState::Exported => "EXPORTED",
            TapeState::ExportedPending => "EXPORTED_PENDING",
        }
    }

    /// From CTA's word in any case.
    pub fn parse(word: &str) -> Option<TapeState> {
        TapeState::ALL.into_iter().find(|state| state.name().eq_ignore_ascii_case(word))
    }

    /// The state a pending one leads to; `None` for the others.
    pub fn pending_for(self) -> Option<TapeState> {
        match self {
            TapeState::RepackingPending => Some(TapeState::Repacking),
            TapeState::BrokenPending => Some(TapeState::Broken),
            TapeState::ExportedPending => Some(TapeState::Exported),
            _ => None,
        }
    }
}

/// Consecutive tape files alike but for their numbers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Run {
    /// Sequence number of the first.
    pub fseq: u64,
    /// How many, at least 1.
    pub count: u64,
    /// Bytes of each.
    pub size: u64,
    /// Archive file ID of the first.
    pub archive_id: u64,
    /// Storage class.
    pub class: String,
    /// Copy number, from 1.
    pub copy: u32,
}

/// A run that is in the recycle bin.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recycled {
    /// Which files.
    #[serde(flatten)]
    pub run: Run,
    /// Seconds since the Unix epoch.
    pub time: u64,
    /// `REPACK`, or who deleted them.
    pub reason: String,
}

/// A drive and a time.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Mark {
    /// Drive name.
    pub drive: String,
    /// Seconds since the Unix epoch.
    pub time: u64,
}

/// What goes wrong with a tape, decided beforehand.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Plan {
    /// So many files fail to be read ...
    #[serde(skip_serializing_if = "is_default")]
    pub fail_files: u64,
    /// So many files are read but fail to be written ...
    #[serde(skip_serializing_if = "is_default")]
    pub fail_archive: u64,
    /// ... in so many requests; then they succeed.
    #[serde(skip_serializing_if = "is_default")]
    pub fail_times: u32,
    /// The expansion of so many requests fails.
    #[serde(skip_serializing_if = "is_default")]
    pub fail_expansion: u32,
    /// Nothing moves any more after so many files of a request, without an error.
    #[serde(skip_serializing_if = "is_default")]
    pub stall_after: Option<u64>,
    /// All files move but the request stays Running for ever.
    #[serde(skip_serializing_if = "is_default")]
    pub never_final: bool,
    /// The drive disables the tape after so many files, once.
    #[serde(skip_serializing_if = "is_default")]
    pub disable_after: Option<u64>,
    /// The tape disappears from the catalogue after so many files.
    #[serde(skip_serializing_if = "is_default")]
    pub vanish_after: Option<u64>,
    /// So many files are still written to the tape when its request becomes final, once.
    #[serde(skip_serializing_if = "is_default")]
    pub late_files: u64,
    /// A pending state never ends.
    #[serde(skip_serializing_if = "is_default")]
    pub pending_forever: bool,
    /// Instead of the world's `repack_ms`.
    #[serde(skip_serializing_if = "is_default")]
    pub repack_ms: Option<u64>,
}

/// One tape.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Tape {
    /// Media type name.
    pub media: String,
    /// Vendor.
    #[serde(skip_serializing_if = "is_default")]
    pub vendor: String,
    /// Logical library name.
    #[serde(rename = "library")]
    pub logical_library: String,
    /// Tape pool name.
    pub pool: String,
    /// Encryption key name.
    #[serde(skip_serializing_if = "is_default")]
    pub key: String,
    /// Bytes ever written since the last reclaim.
    #[serde(skip_serializing_if = "is_default")]
    pub occupancy: u64,
    /// Last file sequence number.
    #[serde(skip_serializing_if = "is_default")]
    pub last_fseq: u64,
    /// No more writing.
    #[serde(skip_serializing_if = "is_default")]
    pub full: bool,
    /// The cached counters are out of date.
    #[serde(skip_serializing_if = "is_default")]
    pub dirty: bool,
    /// Came from CASTOR.
    #[serde(skip_serializing_if = "is_default")]
    pub from_castor: bool,
    /// State.
    #[serde(skip_serializing_if = "is_default")]
    pub state: TapeState,
    /// Reason of the state.
    #[serde(skip_serializing_if = "is_default")]
    pub reason: String,
    /// When the state was set, seconds since the Unix epoch.
    #[serde(skip_serializing_if = "is_default")]
    pub state_time: u64,
    /// Who set the state.
    #[serde(skip_serializing_if = "is_default")]
    pub state_by: String,
    /// Cached number of active files.
    #[serde(skip_serializing_if = "is_default")]
    pub cached_files: u64,
    /// Cached bytes of active files.
    #[serde(skip_serializing_if = "is_default")]
    pub cached_bytes: u64,
    /// Labelled.
    #[serde(skip_serializing_if = "is_default")]
    pub label: Option<Mark>,
    /// Last written.
    #[serde(skip_serializing_if = "is_default")]
    pub written: Option<Mark>,
    /// Last read.
    #[serde(skip_serializing_if = "is_default")]
    pub read: Option<Mark>,
    /// Created, seconds since the Unix epoch.
    #[serde(skip_serializing_if = "is_default")]
    pub created: u64,
    /// Modified, seconds since the Unix epoch.
    #[serde(skip_serializing_if = "is_default")]
    pub modified: u64,
    /// Comment.
    #[serde(skip_serializing_if = "is_default")]
    pub comment: String,
    /// Mounts for reading.
    #[serde(skip_serializing_if = "is_default")]
    pub reads: u64,
    /// Mounts for writing.
    #[serde(skip_serializing_if = "is_default")]
    pub writes: u64,
    /// Purchase order.
    #[serde(skip_serializing_if = "is_default")]
    pub purchase_order: String,
    /// Verification status.
    #[serde(skip_serializing_if = "is_default")]
    pub verification: String,
    /// Active files, ordered by sequence number.
    #[serde(skip_serializing_if = "is_default")]
    pub files: Vec<Run>,
    /// Recycle bin.
    #[serde(skip_serializing_if = "is_default")]
    pub recycled: Vec<Recycled>,
    /// When a pending state ends, in milliseconds of the world's clock.
    #[serde(skip_serializing_if = "is_default")]
    pub pending_until_ms: Option<u64>,
    /// What goes wrong.
    #[serde(skip_serializing_if = "is_default")]
    pub plan: Plan,
}

impl Tape {
    /// An empty, writable ACTIVE tape in library `IBM1`, media type `LTO9`.
    pub fn new(pool: &str) -> Tape {
        Tape {
            media: "LTO9".into(),
            vendor: "FUJIFILM".into(),
            logical_library: "IBM1".into(),
            pool: pool.into(),
            label: Some(Mark { drive: "DRIVE1".into(), time: 1_696_000_000 }),
            state_by: format!("{USER}@{HOST}"),
            state_time: 1_695_000_000,
            created: 1_695_000_000,
            modified: 1_695_000_000,
            ..Tape::default()
        }
    }

    /// A full ACTIVE tape with `count` active files of 2 GB in class `class`, after nine times as many that are gone
    /// from the catalogue: its usage is 0.1.
    pub fn full(pool: &str, class: &str, first_archive_id: u64, count: u64) -> Tape {
        let mut tape = Tape::new(pool);
        tape.full = true;
        tape.last_fseq = count * 9;
        tape.occupancy = count * 9 * 2_000_000_000;
        tape.written = Some(Mark { drive: "DRIVE1".into(), time: 1_726_000_000 });
        tape.append(&Run {
            fseq: 0,
            count,
            size: 2_000_000_000,
            archive_id: first_archive_id,
            class: class.into(),
            copy: 1,
        });
        tape
    }

    /// Sets the state without any of CTA's checks.
    pub fn in_state(mut self, state: TapeState) -> Tape {
        self.state = state;
        self
    }

    /// Sets what goes wrong.
    pub fn with_plan(mut self, plan: Plan) -> Tape {
        self.plan = plan;
        self
    }

    /// Sets library and media type.
    pub fn made_of(mut self, library: &str, media: &str) -> Tape {
        self.logical_library = library.into();
        self.media = media.into();
        self
    }

    /// Number of active files, counted.
    pub fn live_files(&self) -> u64 {
        self.files.iter().map(|run| run.count).sum()
    }

    /// Bytes of active files, counted.
    pub fn live_bytes(&self) -> u64 {
        self.files.iter().map(|run| run.count * run.size).sum()
    }

    /// Writes files at the end of the tape, as a drive does: `run.fseq` is ignored.
    pub fn append(&mut self, run: &Run) {
        let mut run = run.clone();
        run.fseq = self.last_fseq + 1;
        self.last_fseq += run.count;
        self.occupancy += run.count * run.size;
        self.cached_files += run.count;
        self.cached_bytes += run.count * run.size;
        push_run(&mut self.files, run);
    }
}

/// Appends a run, joined with the last one if it continues it.
pub(crate) fn push_run(runs: &mut Vec<Run>, run: Run) {
    if let Some(last) = runs.last_mut()
        && last.fseq + last.count == run.fseq
        && last.archive_id + last.count == run.archive_id
        && (last.size, &last.class, last.copy) == (run.size, &run.class, run.copy)
    {
        last.count += run.count;
        return;
    }
    runs.push(run);
}

/// A tape pool.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Pool {
    /// Virtual organisation.
    pub vo: String,
    /// Configured number of partial tapes.
    pub partial: u64,
    /// Comment.
    pub comment: String,
    /// Encryption key name.
    pub key: String,
    /// Pools it is supplied from.
    pub supply: Vec<String>,
}

/// A mount policy.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct MountPolicy {
    /// Priority of archive and retrieve.
    pub priority: u64,
    /// Minimum request age in seconds.
    pub min_age: u64,
}

/// A virtual organisation.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Vo {
    /// Drives for reading and for writing.
    pub drives: u64,
    /// Disk instance.
    pub instance: String,
    /// The one that repacks run for.
    pub repack: bool,
}

/// An archive route.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Route {
    /// Storage class.
    pub class: String,
    /// Copy number.
    pub copy: u32,
    /// Type `REPACK`; otherwise `DEFAULT`.
    pub repack: bool,
    /// Target pool.
    pub pool: String,
}

/// Status of a repack request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[expect(missing_docs, reason = "CTA's own words")]
pub enum Status {
    #[default]
    Pending,
    ToExpand,
    Starting,
    Running,
    Complete,
    Failed,
}

impl Status {
    /// Nothing more happens.
    pub fn is_final(self) -> bool {
        matches!(self, Status::Complete | Status::Failed)
    }

    /// CTA's word.
    pub fn name(self) -> &'static str {
        match self {
            Status::Pending => "Pending",
            Status::ToExpand => "ToExpand",
            Status::Starting => "Starting",
            Status::Running => "Running",
            Status::Complete => "Complete",
            Status::Failed => "Failed",
        }
    }
}

/// Where archived copies went.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Destination {
    /// Tape.
    pub vid: String,
    /// Copies.
    pub files: u64,
    /// Bytes.
    pub bytes: u64,
}

/// One repack request.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Request {
    /// Source tape.
    pub vid: String,
    /// Scheduler it is in.
    pub scheduler: String,
    /// `--bufferurl`.
    pub buffer_url: String,
    /// `--mountpolicy`.
    pub mount_policy: String,
    /// 0: all.
    pub max_files: u64,
    /// `--justaddcopies`.
    pub just_add_copies: bool,
    /// `--no-recall`.
    pub no_recall: bool,
    /// Creation, seconds since the Unix epoch.
    pub created: u64,
    /// Creation on the world's clock.
    pub created_ms: u64,
    /// Status.
    pub status: Status,
    /// When the status was entered, on the world's clock.
    pub since_ms: u64,
    /// Milliseconds of work done while Running.
    pub elapsed_ms: u64,
    /// End, seconds since the Unix epoch; 0: not finished.
    pub finished: u64,
    /// Active files at expansion.
    pub at_start_files: u64,
    /// Active bytes at expansion.
    pub at_start_bytes: u64,
    /// Whether all were selected.
    pub all_selected: bool,
    /// Files to retrieve.
    pub to_retrieve: u64,
    /// Bytes to retrieve.
    pub to_retrieve_bytes: u64,
    /// Copies to write.
    pub to_archive: u64,
    /// Bytes to write.
    pub to_archive_bytes: u64,
    /// Files read.
    pub retrieved: u64,
    /// Bytes read.
    pub retrieved_bytes: u64,
    /// Copies written.
    pub archived: u64,
    /// Bytes written.
    pub archived_bytes: u64,
    /// Of these, files that will fail to be read.
    pub will_fail_retrieve: u64,
    /// Of these, files that will fail to be written.
    pub will_fail_archive: u64,
    /// Files that failed to be read.
    pub failed_retrieve: u64,
    /// Bytes of files that failed to be read.
    pub failed_retrieve_bytes: u64,
    /// Files that failed to be written.
    pub failed_archive: u64,
    /// Bytes of files that failed to be written.
    pub failed_archive_bytes: u64,
    /// Last sequence number expanded.
    pub last_fseq: u64,
    /// Where copies went.
    pub destinations: Vec<Destination>,
}

/// A command that the server carries out later than it was answered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Late {
    /// When, on the world's clock.
    pub due_ms: u64,
    /// Arguments after the global options.
    pub words: Vec<String>,
    /// Front end name.
    pub frontend: String,
    /// Invocation that asked for it.
    pub id: String,
    /// Its process.
    pub pid: u32,
}

/// The world.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct World {
    /// When it was created, microseconds since the Unix epoch.
    pub created_us: u64,
    /// Added to the world's clock by [`World::skip`].
    pub skipped_ms: u64,
    /// Time up to which it has been advanced, on the world's clock.
    pub last_ms: u64,
    /// Number of the last journal line that belongs to it.
    pub seq: u64,
    /// Milliseconds of the world's clock per real millisecond.
    pub speed: f64,
    /// Transport.
    pub transport: Transport,
    /// Scheduler back end.
    pub scheduler: Scheduler,
    /// Version.
    pub keyset: Keyset,
    /// Front ends.
    pub frontends: Vec<Frontend>,
    /// Without `--config` and without a configuration file, talk to the first front end.
    pub default_config_ok: bool,
    /// Name of the CTA instance.
    pub instance: String,
    /// How long a pending state lasts (object store), on the world's clock.
    pub pending_ms: u64,
    /// How long a repack takes once it has a slot, on the world's clock: a fifth of it until the first file moves.
    pub repack_ms: u64,
    /// Requests in ToExpand and Starting at once.
    pub max_to_expand: usize,
    /// `cta.repack.repack_max_files_to_select`; 0: all.
    pub max_files_to_select: u64,
    /// `cta.repack.repack_buffer_url`.
    pub buffer_url: Option<String>,
    /// `cta.catalogue.recycle_log_quarantine_secs`; 0: off. Not in [`Keyset::V5_10_7`].
    pub recycle_log_quarantine_secs: u64,
    /// No front end answers.
    pub down: bool,
    /// The caller is not in the admin list.
    pub unauthorized: bool,
    /// `Repack requests are disabled.`
    pub repack_disabled: bool,
    /// The maintenance daemon is stopped: nothing pending ends, nothing moves.
    pub daemon_down: bool,
    /// Tapes computed on the fly.
    pub generated: Option<Generated>,
    /// Tapes by VID.
    pub tapes: BTreeMap<String, Tape>,
    /// Pools by name.
    pub pools: BTreeMap<String, Pool>,
    /// Mount policies by name.
    pub policies: BTreeMap<String, MountPolicy>,
    /// Virtual organisations by name.
    pub vos: BTreeMap<String, Vo>,
    /// Capacity in bytes by media type name.
    pub media: BTreeMap<String, u64>,
    /// Physical library by logical library.
    pub libraries: BTreeMap<String, String>,
    /// Logical libraries that are disabled, and why.
    pub disabled_libraries: BTreeMap<String, String>,
    /// Virtual organisation by storage class.
    pub classes: BTreeMap<String, String>,
    /// Copies by storage class, where it is not one. Only `storageclass ls` knows: no further copies are made.
    pub copies: BTreeMap<String, u32>,
    /// Archive routes.
    pub routes: Vec<Route>,
    /// Requests, oldest first.
    pub requests: Vec<Request>,
    /// Effects to come.
    pub late: Vec<Late>,
    /// The most non-final requests there ever were at once.
    pub max_active: u64,
}

impl Default for World {
    fn default() -> World {
        World {
            created_us: 0,
            skipped_ms: 0,
            last_ms: 0,
            seq: 0,
            speed: 1.0,
            transport: Transport::Xrootd,
            scheduler: Scheduler::Objectstore,
            keyset: Keyset::Head,
            frontends: vec![frontend("all", 10955, Mode::AdminAll, "cta")],
            default_config_ok: true,
            instance: "production".into(),
            pending_ms: 0,
            repack_ms: 0,
            max_to_expand: 2,
            max_files_to_select: 0,
            buffer_url: Some("root://eosrepack//eos/repack/buffer".into()),
            recycle_log_quarantine_secs: 0,
            down: false,
            unauthorized: false,
            repack_disabled: false,
            daemon_down: false,
            generated: None,
            tapes: BTreeMap::new(),
            pools: BTreeMap::new(),
            policies: BTreeMap::new(),
            vos: BTreeMap::new(),
            media: BTreeMap::new(),
            libraries: BTreeMap::new(),
            disabled_libraries: BTreeMap::new(),
            classes: BTreeMap::new(),
            copies: BTreeMap::new(),
            routes: Vec::new(),
            requests: Vec::new(),
            late: Vec::new(),
            max_active: 0,
        }
    }
}

fn frontend(name: &str, port: u16, mode: Mode, scheduler: &str) -> Frontend {
    Frontend {
        name: name.into(),
        endpoint: format!("localhost:{port}"),
        mode,
        scheduler: scheduler.into(),
        down: false,
    }
}

impl World {
    /// A world without tapes but with all they need: libraries `IBM1`, `IBM2`; media `LTO8`, `LTO9`; pools
    /// `pool_alpha_raw`, `pool_alpha_user`, `pool_beta_raw`, each the route of a class (`alpha_raw` ...), `quarantine`, and
    /// `tolabel_` and `erase_` with `IBM1L8`, `IBM1L9`, `IBM2L8`, `IBM2L9`; policies `repack_low_priority`,
    /// `repack_high_priority`; the repack VO `vo_repack`. Repacks and pending states take no time.
    pub fn new() -> World {
        let mut world = World::default();
        for (name, repack) in [("alpha", false), ("beta", false), ("ops", false), ("vo_repack", true)] {
            world.vos.insert(name.into(), Vo { drives: 4, instance: format!("eos{name}"), repack });
        }
        world.media.insert("LTO8".into(), 12_000_000_000_000);
        world.media.insert("LTO9".into(), 18_000_000_000_000);
        world.libraries.insert("IBM1".into(), "TOWER1".into());
        world.libraries.insert("IBM2".into(), "TOWER2".into());
        for (vo, class) in [("alpha", "alpha_raw"), ("alpha", "alpha_user"), ("beta", "beta_raw")] {
            world = world.with_pool(&format!("pool_{class}"), vo);
            world.classes.insert(class.into(), vo.into());
            world.routes.push(Route { class: class.into(), copy: 1, repack: false, pool: format!("pool_{class}") });
        }
        for suffix in ["IBM1L8", "IBM1L9", "IBM2L8", "IBM2L9"] {
            world = world.with_pool(&format!("tolabel_{suffix}"), "ops").with_pool(&format!("erase_{suffix}"), "ops");
        }
        world = world.with_pool("quarantine", "ops");
        world.policies.insert("repack_low_priority".into(), MountPolicy { priority: 1, min_age: 3600 });
        world.policies.insert("repack_high_priority".into(), MountPolicy { priority: 5, min_age: 60 });
        world
    }

    /// Adds a pool.
    pub fn with_pool(mut self, name: &str, vo: &str) -> World {
        self.pools.insert(name.into(), Pool { vo: vo.into(), ..Pool::default() });
        self
    }

    /// Adds a tape.
    pub fn with_tape(mut self, vid: &str, tape: Tape) -> World {
        self.tapes.insert(vid.into(), tape);
        self
    }

    /// Adds `count` full tapes `V01001`, `V01002` ... with ten active files each in turn in the three pools, and in each
    /// pool a writable tape `D01001` ... `D01003`.
    pub fn with_full_tapes(mut self, count: u64) -> World {
        let classes: Vec<String> = self.classes.keys().cloned().collect();
        for (i, class) in classes.iter().enumerate() {
            self.tapes.insert(format!("D{:05}", 1001 + i), Tape::new(&format!("pool_{class}")));
        }
        for i in 0..count {
            let class = &classes[usize::try_from(i).unwrap_or(0) % classes.len()];
            let first = 4_294_967_296 + i * 1000;
            self.tapes.insert(format!("V{:05}", 1001 + i), Tape::full(&format!("pool_{class}"), class, first, 10));
        }
        self
    }

    /// Sets the transport.
    pub fn with_transport(mut self, transport: Transport) -> World {
        self.transport = transport;
        self
    }

    /// Sets the scheduler back end.
    pub fn with_scheduler(mut self, scheduler: Scheduler) -> World {
        self.scheduler = scheduler;
        self
    }

    /// Sets the version.
    pub fn with_keyset(mut self, keyset: Keyset) -> World {
        self.keyset = keyset;
        self
    }

    /// Two front ends, `user` and `repack`, each with a scheduler of its own; no default configuration.
    pub fn split(mut self) -> World {
        self.frontends = vec![
            frontend("user", 10955, Mode::AdminNoRepack, "ctaUser"),
            frontend("repack", 10956, Mode::AdminRepack, "ctaRepack"),
        ];
        self.default_config_ok = false;
        self
    }

    /// Sets how long pending states and repacks last, in milliseconds of the world's clock.
    pub fn with_durations(mut self, pending_ms: u64, repack_ms: u64) -> World {
        self.pending_ms = pending_ms;
        self.repack_ms = repack_ms;
        self
    }

    /// Adds `count` computed tapes.
    pub fn with_generated(mut self, count: u64, seed: u64) -> World {
        self.generated = Some(Generated { count, seed });
        self.vos.entry(crate::generated::VO.into()).or_default().drives = 10;
        for pool in 0..crate::generated::POOLS {
            self = self.with_pool(&crate::generated::pool_name(pool), crate::generated::VO);
        }
        self
    }

    /// Milliseconds of the world's clock at a real time given in microseconds since the Unix epoch.
    pub fn clock_ms(&self, now_us: u64) -> u64 {
        #[expect(clippy::cast_precision_loss, reason = "hours in milliseconds are far below 2^52")]
        let real_ms = now_us.saturating_sub(self.created_us) as f64 / 1000.0;
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "never negative, far below 2^63")]
        let ms = (real_ms * self.speed) as u64;
        ms + self.skipped_ms
    }

    /// Lets the world's clock jump ahead: pending states end, repacks go on, without waiting.
    pub fn skip(&mut self, ms: u64) {
        self.skipped_ms += ms;
    }

    /// Makes all recycle-bin entries of a tape older.
    pub fn age_recycle_log(&mut self, vid: &str, secs: u64) {
        if let Some(tape) = self.tapes.get_mut(vid) {
            for entry in &mut tape.recycled {
                entry.time = entry.time.saturating_sub(secs);
            }
        }
    }

    /// A tape, also a computed one.
    pub fn find(&self, vid: &str) -> Option<Tape> {
        self.tapes.get(vid).cloned().or_else(|| self.generated.as_ref()?.find(vid))
    }

    /// A tape to change; a computed one is kept from now on.
    pub fn find_mut(&mut self, vid: &str) -> Option<&mut Tape> {
        if !self.tapes.contains_key(vid) {
            let tape = self.generated.as_ref()?.find(vid)?;
            self.tapes.insert(vid.to_owned(), tape);
        }
        self.tapes.get_mut(vid)
    }

    /// The request for a tape in any scheduler.
    pub fn request(&self, vid: &str) -> Option<&Request> {
        self.requests.iter().find(|request| request.vid == vid)
    }

    /// Number of requests that are not final.
    pub fn active_requests(&self) -> u64 {
        self.requests.iter().filter(|request| !request.status.is_final()).count() as u64
    }
}
