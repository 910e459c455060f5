//! Prepare: enters tapes into the table, after every check; nothing is entered before all were checked.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::sync::Arc;

use anyhow::Context as _;
use common::cta::{Cta, Query, Trouble, reply};
use common::journey::State;
use common::rights;
use common::settings::Settings;
use common::stages::checks::{self, Site};
use common::stages::moment;
use common::store::{Entered, NewTape, Overview, Store, StoreError};
use common::tape::Vid;
use common::task::Hold;
use futures_util::{StreamExt as _, TryStreamExt as _};
use serde::Serialize;
use serde_json::{Value, json};
use tokio::sync::watch;
use tracing::{info, warn};
use worker::look;
use worker::service::Shutdown;

use crate::scan::Usage;

/// Tapes that CTA is asked about at the same time.
const AT_ONCE: usize = 4;

/// Of more tapes than this, what was entered is told as a number only.
const TOLD: usize = 20;

/// More than a list of every tape of the largest site; anything longer is another file.
const LONGEST: u64 = 16 << 20;

/// What to enter, and how.
#[derive(Debug, Clone)]
pub struct Order {
    /// The tapes, each once.
    pub vids: Vec<Vid>,
    /// Priority, a key of the configuration.
    pub priority: i16,
    /// Who asks for it.
    pub responsible: String,
    /// Why, for the history.
    pub reason: Option<String>,
    /// Check only.
    pub dry_run: bool,
}

/// What became of it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Prepared {
    /// Always `prepare`.
    pub stage: &'static str,
    /// Nothing was entered, this is what would have been.
    pub dry_run: bool,
    /// Tapes named.
    pub considered: usize,
    /// Tapes entered.
    pub added: Vec<Vid>,
    /// Tapes that are in the table, on their way.
    pub already_there: Vec<Vid>,
    /// Tapes not entered.
    pub refused: Vec<Refused>,
}

/// A tape that was not entered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Refused {
    /// The tape.
    pub vid: Vid,
    /// Everything that speaks against it.
    pub reasons: Vec<String>,
}

/// VIDs as typed, made upper case, each once and in their order.
///
/// # Errors
/// The words that are no VIDs, all of them.
pub fn vids<'a>(words: impl IntoIterator<Item = &'a str>) -> Result<Vec<Vid>, Vec<String>> {
    let (mut vids, mut bad) = (Vec::new(), Vec::new());
    let mut seen = BTreeSet::new();
    for word in words {
        match Vid::typed(word) {
            Ok(vid) if seen.insert(vid.clone()) => vids.push(vid),
            Ok(_) => {}
            // As it was typed, not as it was made upper case.
            Err(error) => bad.push(word.parse::<Vid>().err().unwrap_or(error).to_string()),
        }
    }
    if bad.is_empty() { Ok(vids) } else { Err(bad) }
}

/// The words of a file of VIDs: separated by white space, `#` begins a comment.
pub fn words(text: &str) -> Vec<&str> {
    text.lines().flat_map(|line| line.split('#').next().unwrap_or_default().split_whitespace()).collect()
}

/// The text of a file of VIDs; `-` is stdin.
///
/// # Errors
/// When it cannot be read, or is too long or no text to be one.
pub fn text_of(path: &Path) -> anyhow::Result<String> {
    let shown = path.display().to_string().escape_debug().to_string();
    let read = |from: &mut dyn Read| -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        from.take(LONGEST + 1).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    let bytes = if path == Path::new("-") {
        read(&mut io::stdin().lock()).context("reading VIDs from stdin")?
    } else {
        File::open(path)
            .and_then(|mut file| read(&mut file))
            .with_context(|| format!("the file of VIDs '{shown}' cannot be read"))?
    };
    anyhow::ensure!(bytes.len() as u64 <= LONGEST, "'{shown}' is longer than {LONGEST} bytes: is it a file of VIDs?");
    String::from_utf8(bytes).ok().with_context(|| format!("'{shown}' is not UTF-8 text: is it a file of VIDs?"))
}

/// The row of a tape to be entered.
pub fn new_tape(tape: &reply::Tape, order: &Order) -> NewTape {
    let number = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
    NewTape {
        files: number(tape.nb_master_files),
        bytes: number(tape.master_data_in_bytes),
        usage: Usage::of(tape).percent(),
        last_write: tape.last_written_log.as_ref().map(|log| log.time).filter(|time| *time > 0),
        priority: order.priority,
        mediatype: tape.media_type.clone(),
        tapepool: tape.tapepool.clone(),
        responsible: order.responsible.clone(),
        source_state: tape.state.clone(),
        logical_library: tape.logical_library.clone(),
    }
}

/// What the site has, asked for once.
struct Reference {
    pools: Vec<String>,
    mount_policies: Vec<String>,
    repack_vo: Option<bool>,
    requests: Option<Vec<Value>>,
    holds: BTreeMap<String, Hold>,
}

impl Reference {
    async fn ask(store: &Store, cta: &Cta) -> anyhow::Result<Reference> {
        let holds = store.controls().await?;
        Ok(Reference {
            pools: look::names(cta, &Query::TapePools).await.context("asking CTA for its tape pools")?,
            mount_policies: look::names(cta, &Query::MountPolicies)
                .await
                .context("asking CTA for its mount policies")?,
            repack_vo: look::repack_vo(cta).await.context("asking CTA for its virtual organizations")?,
            requests: look::requests(cta).await.context("asking CTA for all repack requests")?,
            holds: holds.into_iter().filter(|line| line.kind == "hold").map(|line| (line.name, line.hold)).collect(),
        })
    }

    fn site(&self) -> Site<'_> {
        Site { pools: &self.pools, mount_policies: &self.mount_policies, repack_vo: self.repack_vo }
    }
}

/// What is known of one tape.
struct Facts<'a> {
    vid: &'a Vid,
    /// As CTA has it; none if it has none.
    tape: Option<&'a reply::Tape>,
    /// When its repack request was made.
    request: Option<u64>,
    hold: Option<&'a Hold>,
    /// Its row in the table is odd.
    odd: Option<String>,
}

/// Everything that speaks against a tape.
fn against(facts: &Facts<'_>, order: &Order, settings: &Settings, site: &Site<'_>) -> Vec<String> {
    let mut reasons = Vec::new();
    match facts.tape {
        None => reasons.push("CTA has no tape of this VID".to_owned()),
        Some(tape) => {
            reasons.extend(checks::of_tape(tape, settings));
            reasons.extend(checks::of_way(tape, order.priority, settings, site));
        }
    }
    if let Some(made) = facts.request {
        reasons.push(format!(
            "it has a repack request of {}: 'cta-admin repack rm --vid {}' removes it, when it is final",
            moment(made),
            facts.vid
        ));
    }
    if let Some(hold) = facts.hold {
        reasons.push(format!("{} put it on hold: {}", hold.who, hold.why));
    }
    reasons.extend(facts.odd.clone());
    reasons
}

/// What a look at one tape came to.
enum Checked {
    Good(Box<NewTape>),
    Bad(Vec<String>),
}

/// Where a tape stands in the table.
enum InTable {
    OnItsWay,
    Odd(String),
}

fn in_table(rows: Vec<Overview>) -> HashMap<String, InTable> {
    rows.into_iter()
        .filter_map(|overview| match overview.row {
            Ok(tape) if tape.state() == State::Finished => None,
            Ok(tape) => Some((tape.vid.to_string(), InTable::OnItsWay)),
            Err(odd) => Some((odd.tape.clone(), InTable::Odd(odd.to_string()))),
        })
        .collect()
}

/// Checks all tapes, then enters the good ones. `stop`: told to end, it enters no further tape.
///
/// # Errors
/// When database or CTA do not answer while tapes are checked: nothing was entered.
pub async fn prepare(
    store: &Store,
    cta: &Cta,
    order: &Order,
    stop: &watch::Receiver<Shutdown>,
) -> anyhow::Result<Prepared> {
    let mut prepared =
        Prepared { stage: "prepare", dry_run: order.dry_run, considered: order.vids.len(), ..Prepared::default() };
    let mut stopping = stop.clone();
    let checked = tokio::select! {
        checked = check_all(store, cta, order, &mut prepared) => checked.context("nothing was entered")?,
        () = worker::service::reached(&mut stopping, Shutdown::Finish) => anyhow::bail!("told to end: nothing was entered"),
    };
    for (vid, checked) in checked {
        match checked {
            Checked::Bad(reasons) => prepared.refuse(vid, reasons),
            Checked::Good(new) if order.dry_run => {
                info!(%vid, "{vid} would be entered from pool {}", new.tapepool);
                prepared.added.push(vid);
            }
            Checked::Good(_) if *stop.borrow() != Shutdown::No => {
                prepared.refuse(vid, vec!["not entered: told to end".to_owned()]);
            }
            Checked::Good(new) => enter(store, vid, &new, order, &mut prepared).await,
        }
    }
    Ok(prepared)
}

/// All checks of all tapes; those on their way already are set aside.
async fn check_all(
    store: &Store,
    cta: &Cta,
    order: &Order,
    prepared: &mut Prepared,
) -> anyhow::Result<Vec<(Vid, Checked)>> {
    store.ready().await?;
    let rows = store.overview(Some(&order.vids), None, true).await?;
    let mut table = in_table(rows);
    let mut left = Vec::new();
    for vid in &order.vids {
        match table.remove(vid.as_str()) {
            Some(InTable::OnItsWay) => prepared.there(vid.clone()),
            Some(InTable::Odd(why)) => left.push((vid.clone(), Some(why))),
            None => left.push((vid.clone(), None)),
        }
    }
    if left.is_empty() {
        return Ok(Vec::new());
    }
    let reference = Arc::new(Reference::ask(store, cta).await?);
    futures_util::stream::iter(left)
        .map(|(vid, odd)| {
            let reference = Arc::clone(&reference);
            async move {
                let checked = check(store, cta, &vid, odd, order, &reference).await?;
                anyhow::Ok((vid, checked))
            }
        })
        .buffered(AT_ONCE)
        .try_collect()
        .await
}

/// All checks of one tape. Trouble that is the site's ends the run, trouble with this tape alone refuses it.
async fn check(
    store: &Store,
    cta: &Cta,
    vid: &Vid,
    odd: Option<String>,
    order: &Order,
    reference: &Reference,
) -> anyhow::Result<Checked> {
    let looked = async {
        let tape = look::tape(cta, vid).await?;
        let request = match tape {
            Some(_) => look::request_among(cta, vid, reference.requests.as_deref()).await?,
            None => None,
        };
        Ok::<_, Trouble>((tape, request))
    };
    let (tape, request) = match looked.await {
        Ok(seen) => seen,
        Err(trouble) if trouble.is_site() => return Err(trouble.into()),
        Err(trouble) => return Ok(Checked::Bad(vec![format!("it cannot be looked at: {trouble}")])),
    };
    let facts = Facts {
        vid,
        tape: tape.as_ref(),
        request: request.map(|request| request.repack.creation_log.time),
        hold: reference.holds.get(vid.as_str()),
        odd,
    };
    let mut reasons = against(&facts, order, store.settings(), &reference.site());
    let Some(tape) = tape else { return Ok(Checked::Bad(reasons)) };
    let new = new_tape(&tape, order);
    reasons.extend(store.too_wide(&new).await?);
    Ok(if reasons.is_empty() { Checked::Good(Box::new(new)) } else { Checked::Bad(reasons) })
}

async fn enter(store: &Store, vid: Vid, new: &NewTape, order: &Order, prepared: &mut Prepared) {
    match store.enter(&vid, new).await {
        Ok(Entered::Added) => {
            if let Some(reason) = &order.reason
                && let Err(error) = give_reason(store, &vid, reason).await
            {
                warn!(%vid, "{vid} is entered, but the reason given for it could not be kept: {error}");
            }
            info!(%vid, priority = order.priority, "{vid} is entered, from pool {}, by {}", new.tapepool, order.responsible);
            if new.source_state == "DISABLED" {
                warn!(%vid, "{vid} is DISABLED, and will be so again when it is finished");
            }
            prepared.added.push(vid);
        }
        Ok(Entered::AlreadyThere) => prepared.there(vid),
        Ok(Entered::Refused(why)) => prepared.refuse(vid, vec![why]),
        Err(StoreError::Busy(why)) => prepared.refuse(vid, vec![format!("its row is locked by somebody: {why}")]),
        Err(error) => {
            let error = error.to_string();
            let why = match rights::advice(&error, rights::WORKER) {
                Some(advice) => format!("it is not entered: {error}; {advice}"),
                None => format!("it may or may not be entered: {error}"),
            };
            prepared.refuse(vid, vec![why]);
        }
    }
}

async fn give_reason(store: &Store, vid: &Vid, reason: &str) -> Result<(), StoreError> {
    store.locked(vid, false, |locked| locked.note("prepare-reason", json!({"reason": reason}))).await
}

impl Prepared {
    /// `3 entered, 1 there already, 2 refused`; what there is none of is left out, but for the first.
    pub fn summary(&self) -> String {
        let entered = if self.dry_run { "would be entered" } else { "entered" };
        let others = [(self.already_there.len(), "there already"), (self.refused.len(), "refused")];
        let others =
            others.into_iter().filter(|(count, _)| *count > 0).map(|(count, what)| format!(", {count} {what}"));
        format!("{} {entered}{}", self.added.len(), others.collect::<String>())
    }

    /// A line for each tape that was entered or is there; none of a dry run, whose lines are data, or if there are many.
    pub fn news(&self) -> Vec<String> {
        if self.dry_run || self.added.len() + self.already_there.len() > TOLD {
            return Vec::new();
        }
        let added = self.added.iter().map(|vid| format!("{vid}: entered"));
        added.chain(self.already_there.iter().map(|vid| format!("{vid}: is there already"))).collect()
    }

    fn there(&mut self, vid: Vid) {
        info!(%vid, "{vid} is in the table already, on its way");
        self.already_there.push(vid);
    }

    fn refuse(&mut self, vid: Vid, reasons: Vec<String>) {
        warn!(%vid, "{vid} is refused: {}", reasons.join("; "));
        self.refused.push(Refused { vid, reasons });
    }
}

#[cfg(test)]
mod tests {
    use common::cta::reply::Log2;

    use super::*;

    fn vid(name: &str) -> Vid {
        name.parse().unwrap()
    }

    fn cta_tape() -> reply::Tape {
        reply::Tape {
            vid: "V01007".to_owned(),
            media_type: "LTO9".to_owned(),
            logical_library: "LIB1".to_owned(),
            tapepool: "raw".to_owned(),
            occupancy: 1000,
            last_fseq: 10,
            full: true,
            state: "DISABLED".to_owned(),
            state_reason: String::new(),
            nb_master_files: 4,
            master_data_in_bytes: 405,
            dirty: false,
            label_log: None,
            last_written_log: Some(Log2 { drive: "D1".to_owned(), time: 1_700_000_000 }),
            storage_class_statistics: None,
        }
    }

    fn order() -> Order {
        Order { vids: vec![vid("V01007")], priority: 10, responsible: "maria".to_owned(), reason: None, dry_run: false }
    }

    fn strings(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn what_became_of_the_tapes_is_told_in_one_line_and_each_of_a_few_by_name() {
        let vids = |count: usize| (0..count).map(|n| vid(&format!("V{n:05}"))).collect::<Vec<_>>();
        let mut prepared = Prepared { added: vids(1), already_there: vec![vid("V7")], ..Prepared::default() };
        assert_eq!(prepared.summary(), "1 entered, 1 there already");
        assert_eq!(prepared.news(), ["V00000: entered", "V7: is there already"]);
        prepared.refused.push(Refused { vid: vid("V8"), reasons: strings(&["it is not full"]) });
        prepared.already_there.clear();
        assert_eq!(prepared.summary(), "1 entered, 1 refused");
        let dry = Prepared { dry_run: true, ..prepared.clone() };
        assert_eq!((dry.summary(), dry.news()), ("1 would be entered, 1 refused".to_owned(), vec![]));
        prepared.added = vids(TOLD);
        assert_eq!(prepared.news().len(), TOLD);
        prepared.added = vids(TOLD + 1);
        assert_eq!((prepared.summary(), prepared.news()), ("21 entered, 1 refused".to_owned(), vec![]));
        assert_eq!(Prepared::default().summary(), "0 entered");
    }

    #[test]
    fn vids_are_made_upper_case_and_each_counts_once_in_its_order() {
        assert_eq!(vids(["v01008", "V01007", "V01008", "v01007"]), Ok(vec![vid("V01008"), vid("V01007")]));
        assert_eq!(vids([]), Ok(vec![]));
    }

    #[test]
    fn all_words_that_are_no_vids_are_named_and_none_is_taken() {
        let bad = vids(["V01007", "--all", "V01007;rm", "", "V\x1b[2J"]).unwrap_err();
        assert_eq!(bad.len(), 4);
        assert!(bad[0].contains("--all") && bad[1].contains("V01007;rm"), "{bad:?}");
        assert!(!bad[3].contains('\x1b'));
    }

    #[test]
    fn a_file_of_vids_has_words_and_comments() {
        let text = "# a campaign\nV01 V02\t V03 # the rest later\n\n  V04\r\n#V05\nV06#V07";
        assert_eq!(words(text), ["V01", "V02", "V03", "V04", "V06"]);
        assert_eq!(words("# nothing\n \n"), Vec::<&str>::new());
    }

    #[test]
    fn a_file_of_vids_that_is_none_is_an_error_that_names_it() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("vids\n");
        let error = |path: &Path| format!("{:#}", text_of(path).unwrap_err());
        assert!(error(&path).contains("vids\\n") && error(&path).contains("No such file"), "{}", error(&path));
        std::fs::write(&path, b"V01\xff").unwrap();
        assert!(error(&path).contains("UTF-8"));
        File::create(&path).unwrap().set_len(LONGEST + 1).unwrap();
        assert!(error(&path).contains("longer"));
        assert!(error(home.path()).contains("directory"), "{}", error(home.path()));
        std::fs::write(&path, "V01\n").unwrap();
        assert_eq!(text_of(&path).unwrap(), "V01\n");
    }

    #[test]
    fn the_row_has_what_cta_says_of_the_tape() {
        let expected = NewTape {
            files: 4,
            bytes: 405,
            usage: 41,
            last_write: Some(1_700_000_000),
            priority: 10,
            mediatype: "LTO9".to_owned(),
            tapepool: "raw".to_owned(),
            responsible: "maria".to_owned(),
            source_state: "DISABLED".to_owned(),
            logical_library: "LIB1".to_owned(),
        };
        assert_eq!(new_tape(&cta_tape(), &order()), expected);
    }

    #[test]
    fn a_tape_that_was_never_written_has_no_last_write_and_no_usage() {
        let never = Some(Log2 { drive: String::new(), time: 0 });
        for last_written_log in [None, never] {
            let tape = reply::Tape { occupancy: 0, last_written_log, ..cta_tape() };
            let new = new_tape(&tape, &order());
            assert_eq!((new.last_write, new.usage), (None, 0));
        }
        let huge = reply::Tape { nb_master_files: u64::MAX, master_data_in_bytes: u64::MAX, ..cta_tape() };
        let new = new_tape(&huge, &order());
        assert_eq!((new.files, new.bytes, new.usage), (i64::MAX, i64::MAX, 100));
    }

    #[test]
    fn a_good_tape_has_nothing_against_it_and_a_bad_one_everything_at_once() {
        let settings = Settings { lib_to_pool_map: None, ..Settings::default() };
        let (pools, policies) = (strings(&["quarantine", "tolabel_LTO9"]), strings(&["repack_low_priority"]));
        let site = Site { pools: &pools, mount_policies: &policies, repack_vo: Some(true) };
        let (name, tape) = (vid("V01007"), cta_tape());
        let good = Facts { vid: &name, tape: Some(&tape), request: None, hold: None, odd: None };
        assert_eq!(against(&good, &order(), &settings, &site), Vec::<String>::new());
        let tape =
            reply::Tape { full: false, state: "BROKEN".to_owned(), tapepool: "erase_X".to_owned(), ..cta_tape() };
        let hold = Hold { who: "boss".to_owned(), why: "audit".to_owned(), until: None };
        let bad = Facts {
            vid: &name,
            tape: Some(&tape),
            request: Some(1_700_000_000),
            hold: Some(&hold),
            odd: Some("its row is odd".to_owned()),
        };
        let nothing = Site { pools: &[], mount_policies: &[], repack_vo: Some(false) };
        let reasons = against(&bad, &order(), &settings, &nothing);
        for expected in [
            "not full",
            "BROKEN",
            "erase_X",
            "mount policy",
            "tolabel_LTO9",
            "quarantine pool",
            "isRepackVo",
            "repack rm --vid V01007",
            "boss put it on hold: audit",
            "its row is odd",
        ] {
            assert_eq!(reasons.iter().filter(|why| why.contains(expected)).count(), 1, "{expected}: {reasons:?}");
        }
        let unknown = Facts { vid: &name, tape: None, request: None, hold: Some(&hold), odd: None };
        assert_eq!(against(&unknown, &order(), &settings, &nothing).len(), 2);
    }

    #[test]
    fn a_finished_row_is_no_obstacle_an_open_one_is_on_its_way_and_an_odd_one_is_named() {
        use chrono::{DateTime, TimeDelta};
        use common::journey::{Mode, Stamps};
        use common::tape::{OddRow, Tape};
        let begun = DateTime::from_timestamp(1_700_000_000, 0).unwrap();
        let row = |name: &str, stamps: usize| {
            let mut raw = [None; 6];
            raw[..stamps].fill(Some(begun));
            let tape = Tape {
                vid: vid(name),
                stamps: Stamps::check(raw, TimeDelta::zero()).unwrap(),
                mode: Mode::Error,
                priority: 10,
                mediatype: String::new(),
                tapepool: String::new(),
                responsible: String::new(),
                files: 0,
                bytes: 0,
                usage: 0,
                last_write_date: None,
                xmin: 1,
            };
            Overview { row: Ok(tape), task: None, hold: None, now: begun }
        };
        let odd = OddRow { tape: "ODD".to_owned(), problems: vec!["mode is not set".to_owned()] };
        let odd = Overview { row: Err(odd), task: None, hold: None, now: begun };
        let table = in_table(vec![row("THROUGH", 6), row("NEARLY", 5), row("NEW", 1), odd]);
        assert!(!table.contains_key("THROUGH"));
        assert!(matches!(table["NEARLY"], InTable::OnItsWay));
        assert!(matches!(table["NEW"], InTable::OnItsWay));
        assert!(matches!(&table["ODD"], InTable::Odd(why) if why.contains("mode is not set")));
    }
}
