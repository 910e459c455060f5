//! Scan: which tapes are worth a repack. The selection is pure; the listing around it is thin.
//!
//! A tape is selected if everything holds that `tape ls`, the configuration, the holds, the table and one `repack ls` can
//! say, and its usage (`masterDataInBytes / occupancy`) is *below* the threshold: what is nearly empty is cheap to move
//! and frees a whole cartridge. The comment on the threshold in ATRESYS's configuration file says the opposite.

use std::borrow::Cow;
use std::cmp::Ordering;
use std::collections::{BTreeMap, BinaryHeap, HashMap, HashSet};
use std::io::{BufReader, BufWriter, Read as _, Seek as _, Write};
use std::sync::{Arc, Mutex};

use anyhow::Context as _;
use common::cta::{Cta, Listed, Query, Trouble, reply};
use common::settings::Settings;
use common::stages::checks;
use common::store::Store;
use common::tape::Vid;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tracing::warn;
use worker::look;

/// Why a tape is left out. The names are those in JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// Its name is no VID.
    NotAVid,
    /// It is not full, not ACTIVE or DISABLED, or in a pool at the end of a journey.
    Unfit,
    /// Its pool is in `ignore_pools`.
    IgnoredPool,
    /// The configuration has no destination pool for it.
    NoDestination,
    /// Its usage is not below the threshold.
    Usage,
    /// There is a repack request.
    RepackRequest,
    /// An operator put it on hold.
    OnHold,
    /// It is in the table, on its way.
    InTable,
    /// Others have a lower usage, and there are enough of them.
    Enough,
}

impl Reason {
    /// All of them, in order.
    pub const ALL: [Reason; 9] = [
        Reason::NotAVid,
        Reason::Unfit,
        Reason::IgnoredPool,
        Reason::NoDestination,
        Reason::Usage,
        Reason::RepackRequest,
        Reason::OnHold,
        Reason::InTable,
        Reason::Enough,
    ];

    /// After a number of tapes: `12 are not full, ...`.
    pub fn about(self) -> &'static str {
        match self {
            Reason::NotAVid => "have a name that is no VID",
            Reason::Unfit => "are not full, not ACTIVE or DISABLED, or in a quarantine or destination pool",
            Reason::IgnoredPool => "are in a pool of ignore_pools",
            Reason::NoDestination => "have no destination pool in the configuration",
            Reason::Usage => "have a usage that is not below the threshold",
            Reason::RepackRequest => "have a repack request",
            Reason::OnHold => "are on hold",
            Reason::InTable => "are in the table and not finished",
            Reason::Enough => "were not needed: enough others have a lower usage",
        }
    }
}

/// What a scan knows before it looks at the first tape.
#[derive(Debug, Clone, Default)]
pub struct Known {
    /// VIDs that are on hold.
    pub on_hold: HashSet<String>,
    /// VIDs that are in the table and not finished.
    pub in_table: HashSet<String>,
    /// VIDs with a repack request, whatever its status.
    pub requests: HashSet<String>,
}

/// Live bytes of written bytes, exact; nothing written counts as nothing live.
#[derive(Debug, Clone, Copy)]
pub struct Usage {
    live: u64,
    written: u64,
}

impl Usage {
    /// The usage of a tape.
    pub fn of(tape: &reply::Tape) -> Usage {
        Usage::new(tape.master_data_in_bytes, tape.occupancy)
    }

    fn new(live: u64, written: u64) -> Usage {
        if written == 0 { Usage { live: 0, written: 1 } } else { Usage { live, written } }
    }

    /// As a fraction; more than 1 where CTA's cached figures are out of date.
    #[expect(clippy::cast_precision_loss, reason = "a quotient of two roundings is near enough for a threshold")]
    pub fn fraction(self) -> f64 {
        self.live as f64 / self.written as f64
    }

    /// In percent, rounded, at most 100: as it stands in the table.
    #[expect(clippy::cast_possible_truncation, reason = "clamped to 0..=100 before")]
    pub fn percent(self) -> i16 {
        (self.fraction() * 100.0).round().clamp(0.0, 100.0) as i16
    }
}

impl Ord for Usage {
    fn cmp(&self, other: &Usage) -> Ordering {
        let product = |live: u64, written: u64| u128::from(live) * u128::from(written);
        product(self.live, other.written).cmp(&product(other.live, self.written))
    }
}

impl PartialOrd for Usage {
    fn partial_cmp(&self, other: &Usage) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Usage {
    fn eq(&self, other: &Usage) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Usage {}

/// A selected tape. Ordered: the lower usage first, then the VID.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Candidate {
    /// Its usage.
    pub usage: Usage,
    /// The tape.
    pub vid: Vid,
    /// What CTA says of it.
    pub about: About,
}

/// What a scan tells of a selected tape beside its usage.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct About {
    /// Live files, cached by CTA.
    pub files: u64,
    /// Live bytes, cached by CTA.
    pub bytes: u64,
    /// Bytes written.
    pub occupancy: u64,
    /// CTA state: ACTIVE or DISABLED.
    pub state: String,
    /// Tape pool.
    pub tapepool: String,
    /// Logical library.
    pub logical_library: String,
    /// Media type.
    pub media_type: String,
    /// CTA's figures are out of date: fewer files may be live than it says.
    pub dirty: bool,
}

/// Why one tape is left out, in words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeftOut {
    /// The tape, as CTA names it.
    pub vid: String,
    /// Every reason, with its kind.
    pub why: Vec<(Reason, String)>,
}

/// What a scan reads of a tape in the list: most of a million are left out, so nothing is copied before one is not.
///
/// What decides is required: a missing number is not 0.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct InList<'a> {
    #[serde(borrow)]
    vid: Cow<'a, str>,
    #[serde(borrow)]
    media_type: Cow<'a, str>,
    #[serde(borrow)]
    logical_library: Cow<'a, str>,
    #[serde(borrow)]
    tapepool: Cow<'a, str>,
    #[serde(deserialize_with = "reply::integer")]
    occupancy: u64,
    full: bool,
    #[serde(borrow)]
    state: Cow<'a, str>,
    #[serde(deserialize_with = "reply::integer")]
    nb_master_files: u64,
    #[serde(deserialize_with = "reply::integer")]
    master_data_in_bytes: u64,
    #[serde(default)]
    dirty: bool,
}

impl InList<'_> {
    fn usage(&self) -> Usage {
        Usage::new(self.master_data_in_bytes, self.occupancy)
    }
}

/// The list of all tapes, as a scan reads it.
#[derive(Debug)]
pub struct Tapes;

impl Listed for Tapes {
    type Object<'a> = InList<'a>;
}

/// Why a tape is left out: the kinds always, the words only if they are told to somebody.
struct Why {
    kinds: [bool; Reason::ALL.len()],
    words: Option<Vec<(Reason, String)>>,
}

impl Why {
    fn add(&mut self, reason: Reason, words: impl FnOnce() -> String) {
        self.kinds[reason as usize] = true;
        if let Some(all) = &mut self.words {
            all.push((reason, words()));
        }
    }
}

/// The selection, fed tape by tape. It keeps no more than the candidates that are the best so far.
#[derive(Debug)]
pub struct Selection {
    settings: Arc<Settings>,
    known: Known,
    /// Whether anybody reads why tapes are left out.
    telling: bool,
    best: BinaryHeap<Candidate>,
    considered: u64,
    left_out: [u64; Reason::ALL.len()],
}

impl Selection {
    /// Nothing considered yet.
    pub fn new(settings: Arc<Settings>, known: Known, telling: bool) -> Selection {
        let left_out = [0; Reason::ALL.len()];
        Selection { settings, known, telling, best: BinaryHeap::new(), considered: 0, left_out }
    }

    /// Considers a tape. Some tape may be left out by that: this one, or one that it is better than. It is returned if
    /// somebody is to be told.
    pub fn consider(&mut self, tape: &InList<'_>) -> Option<LeftOut> {
        self.considered += 1;
        let mut why = Why { kinds: [false; _], words: self.telling.then(Vec::new) };
        self.judge(tape, &mut why);
        let vid = if why.kinds.contains(&true) { None } else { self.choose(tape, &mut why) };
        for (count, left) in self.left_out.iter_mut().zip(why.kinds) {
            *count += u64::from(left);
        }
        let why = why.words.filter(|words| !words.is_empty())?;
        Some(LeftOut { vid: vid.unwrap_or_else(|| tape.vid.clone().into_owned()), why })
    }

    /// Keeps a candidate if it is among the best. Some tape is too many then: this one, or the named.
    fn choose(&mut self, tape: &InList<'_>, why: &mut Why) -> Option<String> {
        let enough = self.settings.scan.number_of_tapes;
        let out = |why: &mut Why, usage: Usage| {
            why.add(Reason::Enough, || {
                format!("its usage is {:.4}, and {enough} tapes with a lower one are enough", usage.fraction())
            });
        };
        let usage = tape.usage();
        let worse = |worst: &Candidate| (worst.usage, worst.vid.as_str()) <= (usage, &*tape.vid);
        if enough == 0 || (self.best.len() >= enough && self.best.peek().is_some_and(worse)) {
            out(why, usage);
            return None;
        }
        let vid = tape.vid.parse().expect("judged to be a VID");
        self.best.push(Candidate { usage, vid, about: About::of(tape) });
        let worst = if self.best.len() > enough { self.best.pop()? } else { return None };
        out(why, worst.usage);
        Some(worst.vid.into())
    }

    fn judge(&self, tape: &InList<'_>, why: &mut Why) {
        let (settings, known) = (&self.settings, &self.known);
        let InList { vid, full, occupancy, state, tapepool, .. } = tape;
        let looked = checks::Looked { vid, full: *full, occupancy: *occupancy, state, tapepool };
        checks::each_unfit(&looked, settings, |words| why.add(Reason::Unfit, words));
        if settings.scan.ignore_pools.iter().any(|pool| *pool == tape.tapepool) {
            why.add(Reason::IgnoredPool, || format!("its pool {tapepool} is in ignore_pools"));
        }
        let of_pool = (settings.priorities.default, &*tape.logical_library, &*tape.media_type);
        if settings.destination(of_pool.0, of_pool.1, of_pool.2).is_err() {
            why.add(Reason::NoDestination, || {
                settings.destination_pool(of_pool.0, of_pool.1, of_pool.2).expect_err("asked just now")
            });
        }
        let usage = tape.usage();
        let threshold = settings.scan.tape_usage_threshold;
        if usage.fraction() >= threshold {
            why.add(Reason::Usage, || format!("its usage {:.4} is not below {threshold}", usage.fraction()));
        }
        if known.requests.contains(&**vid) {
            why.add(Reason::RepackRequest, || "it has a repack request".to_owned());
        }
        if known.on_hold.contains(&**vid) {
            why.add(Reason::OnHold, || "it is on hold".to_owned());
        }
        if known.in_table.contains(&**vid) {
            why.add(Reason::InTable, || "it is in the table and not finished".to_owned());
        }
        if let Err(error) = Vid::check(vid) {
            why.add(Reason::NotAVid, || error.to_string());
        }
    }

    /// Takes out a tape that turned out to have a repack request after all.
    pub fn drop_requested(&mut self, requested: &HashSet<Vid>) {
        let before = self.best.len();
        self.best.retain(|candidate| !requested.contains(&candidate.vid));
        let dropped = before - self.best.len();
        self.left_out[Reason::RepackRequest as usize] += dropped as u64;
    }

    /// The candidates so far, in no order.
    pub fn candidates(&self) -> impl Iterator<Item = &Vid> {
        self.best.iter().map(|candidate| &candidate.vid)
    }

    /// The end of the list: what was selected, the lowest usage first.
    pub fn finish(self) -> Selected {
        let left_out = Reason::ALL.into_iter().zip(self.left_out).filter(|(_, count)| *count > 0).collect();
        Selected { considered: self.considered, left_out, tapes: self.best.into_sorted_vec() }
    }
}

impl About {
    fn of(tape: &InList<'_>) -> About {
        About {
            files: tape.nb_master_files,
            bytes: tape.master_data_in_bytes,
            occupancy: tape.occupancy,
            state: tape.state.to_string(),
            tapepool: tape.tapepool.to_string(),
            logical_library: tape.logical_library.to_string(),
            media_type: tape.media_type.to_string(),
            dirty: tape.dirty,
        }
    }
}

/// What a scan found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Selected {
    /// Tapes looked at.
    pub considered: u64,
    /// How many were left out for each reason; a tape may have several.
    pub left_out: BTreeMap<Reason, u64>,
    /// The selected, the lowest usage first.
    pub tapes: Vec<Candidate>,
}

impl Selected {
    /// As printed without `--json`: the VIDs on one line; nothing if there are none.
    pub fn line(&self) -> String {
        let vids: Vec<&str> = self.tapes.iter().map(|tape| tape.vid.as_str()).collect();
        if vids.is_empty() { String::new() } else { vids.join(" ") + "\n" }
    }

    /// The object printed with `--json`.
    pub fn json(&self, settings: &Settings) -> Value {
        let selected: Vec<Value> = self
            .tapes
            .iter()
            .map(|tape| {
                let mut object = json!({"vid": tape.vid, "usage": tape.usage.fraction()});
                if let (Some(object), Value::Object(about)) = (object.as_object_mut(), json!(tape.about)) {
                    object.extend(about);
                }
                object
            })
            .collect();
        json!({
            "stage": "scan",
            "tape_usage_threshold": settings.scan.tape_usage_threshold,
            "number_of_tapes": settings.scan.number_of_tapes,
            "considered": self.considered,
            "selected": selected,
            "left_out": self.left_out,
        })
    }

    /// How many were left out for each reason, and how many were selected, for `--explain`.
    pub fn counts(&self) -> Vec<String> {
        let mut lines = Vec::new();
        if self.left_out.len() > 1 {
            lines.push("left out, by reason; a tape can have several, so these do not add up".to_owned());
        }
        lines.extend(self.left_out.iter().map(|(reason, count)| format!("left out: {count} {}", reason.about())));
        lines.push(format!("selected: {} of {}", self.tapes.len(), self.considered));
        lines
    }

    /// What an operator should know of the selected tapes.
    pub fn remarks(&self) -> Vec<String> {
        let named = |which: &dyn Fn(&About) -> bool| -> Option<String> {
            let vids: Vec<&str> =
                self.tapes.iter().filter(|tape| which(&tape.about)).map(|tape| tape.vid.as_str()).collect();
            (!vids.is_empty()).then(|| vids.join(" "))
        };
        let disabled = named(&|about| about.state == "DISABLED").map(|vids| {
            format!("these are DISABLED in CTA now, and will be again at the end of their journey: {vids}")
        });
        let dirty = named(&|about| about.dirty)
            .map(|vids| format!("with 'dirty' statistics, their usage may be lower than CTA says: {vids}"));
        disabled.into_iter().chain(dirty).collect()
    }
}

/// The rule in words, for `--explain`.
pub fn rule(settings: &Settings) -> Vec<String> {
    let scan = &settings.scan;
    let ignored = if scan.ignore_pools.is_empty() { "none".to_owned() } else { scan.ignore_pools.join(", ") };
    vec![
        format!(
            "a tape is selected if it is full, ACTIVE or DISABLED, in no quarantine or destination pool, in none of \
             ignore_pools ({ignored}), has a destination pool in the configuration, no repack request and no hold, is not \
             in the table unless finished, and its usage is below tape_usage_threshold = {}",
            scan.tape_usage_threshold
        ),
        "usage is masterDataInBytes / occupancy, and 0 where occupancy is 0".to_owned(),
        format!("the lowest usage first, then by VID, at most number_of_tapes = {}", scan.number_of_tapes),
        "the comment on tape_usage_threshold in ATRESYS's configuration file says the opposite: the low ones are meant"
            .to_owned(),
    ]
}

/// How left-out tapes are told while the list streams by.
pub trait Explain: Send + 'static {
    /// Whether it tells anything: if not, no words are made.
    fn tells(&self) -> bool {
        true
    }

    /// One tape, and why.
    ///
    /// # Errors
    /// When it cannot be written; the scan ends.
    fn left_out(&mut self, tape: &LeftOut) -> anyhow::Result<()>;
}

/// Tells nothing.
#[derive(Debug)]
pub struct Silent;

impl Explain for Silent {
    fn tells(&self) -> bool {
        false
    }

    fn left_out(&mut self, _: &LeftOut) -> anyhow::Result<()> {
        Ok(())
    }
}

/// A line for each tape.
#[derive(Debug)]
pub struct Lines<W>(pub W);

impl<W: Write + Send + 'static> Explain for Lines<W> {
    fn left_out(&mut self, tape: &LeftOut) -> anyhow::Result<()> {
        let why: Vec<&str> = tape.why.iter().map(|(_, text)| text.as_str()).collect();
        let line = format!("{}: left out: {}", tape.vid, why.join("; "));
        // Names come from CTA: nothing a terminal obeys.
        let line: String =
            line.chars().flat_map(|c| if c.is_control() { c.escape_default().collect() } else { vec![c] }).collect();
        writeln!(self.0, "{line}").context("writing why a tape was left out")
    }
}

/// JSON objects, kept in a file without a name until it is known that the scan went well.
#[derive(Debug)]
pub struct Spool {
    file: BufWriter<std::fs::File>,
    any: bool,
}

impl Spool {
    /// An empty one, in the directory for temporary files.
    ///
    /// # Errors
    /// When there can be no such file.
    pub fn new() -> anyhow::Result<Spool> {
        let file = tempfile::tempfile().context("a temporary file for why each tape was left out")?;
        Ok(Spool { file: BufWriter::new(file), any: false })
    }

    /// Puts the objects as the array `tapes_left_out` into the object `of`, and prints that.
    ///
    /// # Errors
    /// When the file or `out` fails.
    pub fn print(self, of: &Value, out: &mut impl Write) -> anyhow::Result<()> {
        let mut file = self.file.into_inner().context("the temporary file")?;
        file.rewind().context("the temporary file")?;
        let text = of.to_string();
        let open = text.strip_suffix('}').context("not an object")?;
        write!(out, "{open},\"tapes_left_out\":[")?;
        let mut from = BufReader::new(file);
        let mut piece = [0; 8192];
        loop {
            match from.read(&mut piece)? {
                0 => break,
                length => out.write_all(&piece[..length])?,
            }
        }
        out.write_all(b"]}\n")?;
        Ok(())
    }
}

impl Explain for Spool {
    fn left_out(&mut self, tape: &LeftOut) -> anyhow::Result<()> {
        if std::mem::replace(&mut self.any, true) {
            self.file.write_all(b",")?;
        }
        let reasons: Vec<Value> =
            tape.why.iter().map(|(reason, text)| json!({"reason": reason, "text": text})).collect();
        serde_json::to_writer(&mut self.file, &json!({"vid": tape.vid, "reasons": reasons}))?;
        Ok(())
    }
}

/// Asks the database and CTA, and selects. Without the database there is no scan: it alone knows holds and the table.
///
/// # Errors
/// When the database or CTA does not answer, or not completely.
pub async fn scan<E: Explain>(store: &Store, cta: &Cta, explain: E) -> anyhow::Result<(Selected, E)> {
    store.ready().await?;
    let on_hold = store.holds().await?.into_iter().collect();
    let in_table = in_table(store).await?;
    let all = look::requests(cta).await.context("asking CTA for all repack requests")?;
    let complete = all.is_some();
    let requests = all.into_iter().flatten().filter_map(|request| request["vid"].as_str().map(str::to_owned)).collect();
    let known = Known { on_hold, in_table, requests };
    let selection = Selection::new(Arc::clone(store.settings()), known, explain.tells());
    let (mut selection, explain) = stream(cta, selection, explain).await?;
    if !complete {
        warn!("the list of all repacks cannot be had: the selected tapes are asked for one by one, and may be fewer");
        let requested = requested(cta, &selection).await?;
        selection.drop_requested(&requested);
    }
    Ok((selection.finish(), explain))
}

/// VIDs of the rows that are not through: any stamp missing counts, so that an odd row is not proposed again and again.
async fn in_table(store: &Store) -> anyhow::Result<HashSet<String>> {
    let mut open = HashSet::new();
    let each = |line: &str| {
        open.extend(open_row(line)?);
        Ok(())
    };
    store.export(each).await.context("reading the table")?;
    Ok(open)
}

/// The VID of an exported row, unless all its stamps are set.
fn open_row(line: &str) -> anyhow::Result<Option<String>> {
    #[derive(Deserialize)]
    struct Row {
        tape: String,
        #[serde(flatten)]
        others: HashMap<String, Value>,
    }
    let row: Row = serde_json::from_str(line).context("a row of the table is no JSON object with a tape")?;
    let set = |column: &str| row.others.get(column).is_some_and(|value| !value.is_null());
    let through = common::journey::State::ALL.iter().all(|state| set(state.column()));
    Ok((!through).then_some(row.tape))
}

async fn stream<E: Explain>(cta: &Cta, selection: Selection, explain: E) -> anyhow::Result<(Selection, E)> {
    let both = Arc::new(Mutex::new(Some((selection, explain))));
    let feeding = Arc::clone(&both);
    let take = move |tape: InList<'_>| {
        let mut both = feeding.lock().expect("nobody panics while selecting");
        let (selection, explain) = both.as_mut().context("the scan is over")?;
        selection.consider(&tape).map_or(Ok(()), |left_out| explain.left_out(&left_out))
    };
    cta.each_borrowed::<Tapes, _>(&Query::Tapes, take).await.context("asking CTA for all tapes")?;
    let both = both.lock().expect("nobody panics while selecting").take();
    both.context("the selection is gone")
}

async fn requested(cta: &Cta, selection: &Selection) -> Result<HashSet<Vid>, Trouble> {
    let mut requested = HashSet::new();
    for vid in selection.candidates() {
        if look::request_among(cta, vid, None).await?.is_some() {
            requested.insert(vid.clone());
        }
    }
    Ok(requested)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn settings() -> Settings {
        let mut settings = Settings { lib_to_pool_map: None, ..Settings::default() };
        settings.scan.ignore_pools = vec!["ignored".to_owned()];
        settings
    }

    fn tape(vid: &str, live: u64, written: u64) -> reply::Tape {
        reply::Tape {
            vid: vid.to_owned(),
            media_type: "LTO9".to_owned(),
            logical_library: "LIB1".to_owned(),
            tapepool: "raw".to_owned(),
            occupancy: written,
            last_fseq: 10,
            full: true,
            state: "ACTIVE".to_owned(),
            state_reason: String::new(),
            nb_master_files: 4,
            master_data_in_bytes: live,
            dirty: false,
            label_log: None,
            last_written_log: None,
            storage_class_statistics: None,
        }
    }

    fn select(settings: Settings, known: Known, tapes: &[reply::Tape]) -> (Selected, Vec<LeftOut>) {
        let settings = Arc::new(settings);
        let consider = |telling: bool| {
            let mut selection = Selection::new(Arc::clone(&settings), known.clone(), telling);
            let left_out: Vec<LeftOut> =
                tapes.iter().filter_map(|tape| selection.consider(&listed(&json!(tape).to_string()))).collect();
            (selection.finish(), left_out)
        };
        let (silent, told) = consider(false);
        assert_eq!(told, []);
        let (selected, told) = consider(true);
        assert_eq!(silent, selected, "the same whether or not somebody is told");
        (selected, told)
    }

    fn listed(text: &str) -> InList<'_> {
        serde_json::from_str(text).unwrap()
    }

    fn names(selected: &Selected) -> Vec<&str> {
        selected.tapes.iter().map(|tape| tape.vid.as_str()).collect()
    }

    fn set(names: &[&str]) -> HashSet<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn the_lowest_usage_comes_first_and_ties_go_by_vid() {
        let tapes = [tape("C", 10, 100), tape("B", 1, 10), tape("A", 100, 1000), tape("D", 5, 100), tape("E", 20, 100)];
        let (selected, _) = select(settings(), Known::default(), &tapes);
        assert_eq!(names(&selected), ["D", "A", "B", "C", "E"]);
        assert_eq!(selected.line(), "D A B C E\n");
    }

    #[test]
    fn only_what_is_below_the_threshold_counts() {
        let tapes = [tape("AT", 400, 1000), tape("BELOW", 399, 1000), tape("ABOVE", 401, 1000), tape("OVER", 7, 1)];
        let (selected, left_out) = select(settings(), Known::default(), &tapes);
        assert_eq!(names(&selected), ["BELOW"]);
        assert!(left_out.iter().all(|tape| tape.why.iter().all(|(reason, _)| *reason == Reason::Usage)));
        assert_eq!(selected.left_out, BTreeMap::from([(Reason::Usage, 3)]));
    }

    #[test]
    fn a_tape_with_nothing_written_counts_as_unused() {
        let (selected, _) = select(settings(), Known::default(), &[tape("B", 9, 100), tape("A", 500, 0)]);
        assert_eq!(names(&selected), ["A", "B"]);
        assert_eq!(Usage::of(&tape("A", 500, 0)).percent(), 0);
    }

    #[test]
    fn percent_is_rounded_and_stays_within_bounds() {
        for (live, written, percent) in [
            (0, 1, 0),
            (4, 1000, 0),
            (5, 1000, 1),
            (1, 3, 33),
            (2, 3, 67),
            (999, 1000, 100),
            (7, 1, 100),
            (u64::MAX, 1, 100),
        ] {
            assert_eq!(Usage::of(&tape("A", live, written)).percent(), percent, "{live}/{written}");
        }
    }

    #[test]
    fn each_reason_alone_leaves_a_tape_out() {
        let good = tape("V00001", 1, 100);
        let mapped = Settings { lib_to_pool_map: Some([].into()), ..settings() };
        let on_hold = Known { on_hold: set(&["V00001"]), ..Known::default() };
        let in_table = Known { in_table: set(&["V00001"]), ..Known::default() };
        let requests = Known { requests: set(&["V00001"]), ..Known::default() };
        let with = |change: &dyn Fn(&mut reply::Tape)| {
            let mut tape = good.clone();
            change(&mut tape);
            tape
        };
        let rows = [
            (settings(), Known::default(), with(&|tape| tape.full = false), Reason::Unfit),
            (settings(), Known::default(), with(&|tape| tape.state = "REPACKING".to_owned()), Reason::Unfit),
            (settings(), Known::default(), with(&|tape| tape.state = "BROKEN".to_owned()), Reason::Unfit),
            (settings(), Known::default(), with(&|tape| tape.tapepool = "quarantine".to_owned()), Reason::Unfit),
            (settings(), Known::default(), with(&|tape| tape.tapepool = "tolabel_LTO9".to_owned()), Reason::Unfit),
            (settings(), Known::default(), with(&|tape| tape.tapepool = "ignored".to_owned()), Reason::IgnoredPool),
            (mapped, Known::default(), good.clone(), Reason::NoDestination),
            (settings(), Known::default(), with(&|tape| tape.master_data_in_bytes = 40), Reason::Usage),
            (settings(), requests, good.clone(), Reason::RepackRequest),
            (settings(), on_hold, good.clone(), Reason::OnHold),
            (settings(), in_table, good.clone(), Reason::InTable),
            (settings(), Known::default(), with(&|tape| tape.vid = "--all".to_owned()), Reason::NotAVid),
        ];
        for (settings, known, tape, expected) in rows {
            let (selected, left_out) = select(settings, known, &[tape]);
            assert_eq!(selected.tapes, [], "{expected:?}");
            let reasons: Vec<Reason> = left_out[0].why.iter().map(|(reason, _)| *reason).collect();
            assert_eq!(reasons, [expected]);
            assert_eq!(selected.left_out, BTreeMap::from([(expected, 1)]));
        }
        let (selected, left_out) = select(settings(), Known::default(), &[good]);
        assert_eq!((names(&selected), left_out), (vec!["V00001"], vec![]));
    }

    #[test]
    fn a_disabled_tape_is_selected_and_named_and_so_are_dirty_figures() {
        let disabled = reply::Tape { state: "DISABLED".to_owned(), ..tape("A", 1, 100) };
        let dirty = reply::Tape { dirty: true, ..tape("B", 2, 100) };
        let (selected, _) = select(settings(), Known::default(), &[disabled, dirty, tape("C", 3, 100)]);
        let remarks = selected.remarks();
        assert_eq!(names(&selected), ["A", "B", "C"]);
        assert!(remarks[0].contains("DISABLED") && remarks[0].ends_with(": A"), "{remarks:?}");
        assert!(remarks[1].contains("dirty") && remarks[1].ends_with(": B"), "{remarks:?}");
    }

    #[test]
    fn no_more_than_the_configured_number_is_kept_and_the_others_are_explained() {
        let mut settings = settings();
        settings.scan.number_of_tapes = 2;
        let tapes = [tape("A", 3, 100), tape("B", 2, 100), tape("C", 1, 100), tape("D", 4, 100)];
        let (selected, left_out) = select(settings.clone(), Known::default(), &tapes);
        assert_eq!(names(&selected), ["C", "B"]);
        let left: Vec<(&str, Reason)> = left_out.iter().map(|tape| (tape.vid.as_str(), tape.why[0].0)).collect();
        assert_eq!(left, [("A", Reason::Enough), ("D", Reason::Enough)]);
        settings.scan.number_of_tapes = 0;
        let (none, _) = select(settings, Known::default(), &tapes);
        assert_eq!((names(&none), none.line()), (vec![], String::new()));
    }

    #[test]
    fn a_candidate_that_has_a_request_after_all_is_dropped_and_counted() {
        let mut selection = Selection::new(Arc::new(settings()), Known::default(), false);
        for tape in [tape("A", 1, 100), tape("B", 2, 100)] {
            selection.consider(&listed(&json!(tape).to_string()));
        }
        selection.drop_requested(&HashSet::from(["A".parse().unwrap(), "Z".parse().unwrap()]));
        let selected = selection.finish();
        assert_eq!(names(&selected), ["B"]);
        assert_eq!(selected.left_out, BTreeMap::from([(Reason::RepackRequest, 1)]));
    }

    #[test]
    fn the_counts_of_several_reasons_are_not_said_to_add_up() {
        let settings = settings();
        let both = reply::Tape { full: false, ..tape("A", 9, 10) };
        let (two, left_out) = select(settings.clone(), Known::default(), &[both, tape("B", 1, 10)]);
        assert_eq!(left_out.len(), 1);
        assert_eq!(
            two.counts(),
            [
                "left out, by reason; a tape can have several, so these do not add up".to_owned(),
                format!("left out: 1 {}", Reason::Unfit.about()),
                format!("left out: 1 {}", Reason::Usage.about()),
                "selected: 1 of 2".to_owned(),
            ]
        );
        let (one, _) = select(settings.clone(), Known::default(), &[tape("A", 9, 10)]);
        assert_eq!(one.counts(), [format!("left out: 1 {}", Reason::Usage.about()), "selected: 0 of 1".to_owned()]);
        assert_eq!(select(settings, Known::default(), &[]).0.counts(), ["selected: 0 of 0"]);
    }

    #[test]
    fn a_row_is_open_until_its_last_stamp_and_what_is_no_row_is_an_error() {
        let all = r#""entered":"a","started":"a","repacked":"a","quarantined":"a","reclaimed":"a","finished":"a""#;
        let row = |stamps: &str| format!("{{\"tape\":\"V1\",{stamps},\"mode\":\"auto\"}}");
        assert_eq!(open_row(&row(all)).unwrap(), None);
        assert_eq!(open_row(&row(&all.replace("\"finished\":\"a\"", "\"finished\":null"))).unwrap().unwrap(), "V1");
        let hole = all.replace("\"started\":\"a\"", "\"started\":null");
        assert_eq!(open_row(&row(&hole)).unwrap().unwrap(), "V1");
        assert!(open_row("{}").is_err());
        assert!(open_row("nothing").is_err());
    }

    #[test]
    fn the_json_object_has_the_selected_the_counts_and_the_explanations() {
        let mut settings = settings();
        settings.scan.number_of_tapes = 1;
        let mut spool = Spool::new().unwrap();
        let (selected, left_out) =
            select(settings.clone(), Known::default(), &[tape("A", 1, 4), tape("B", 9, 10), tape("C", 3, 8)]);
        for tape in &left_out {
            spool.left_out(tape).unwrap();
        }
        let mut out = Vec::new();
        spool.print(&selected.json(&settings), &mut out).unwrap();
        let object: Value = serde_json::from_slice(&out).unwrap();
        assert_eq!(object["stage"], "scan");
        assert_eq!(object["considered"], 3);
        assert_eq!(object["selected"][0]["vid"], "A");
        assert_eq!(object["selected"][0]["usage"], 0.25);
        assert_eq!(object["selected"][0]["state"], "ACTIVE");
        assert_eq!(object["left_out"], json!({"usage": 1, "enough": 1}));
        let left: Vec<&str> =
            object["tapes_left_out"].as_array().unwrap().iter().map(|tape| tape["vid"].as_str().unwrap()).collect();
        assert_eq!(left, ["B", "C"]);
        assert_eq!(object["tapes_left_out"][0]["reasons"][0]["reason"], "usage");
    }

    #[test]
    fn explanations_hold_nothing_a_terminal_obeys() {
        let mut lines = Lines(Vec::new());
        let why = vec![(Reason::Unfit, "its CTA state is \x1b[2J".to_owned()), (Reason::Usage, "high".to_owned())];
        lines.left_out(&LeftOut { vid: "V\n1".to_owned(), why }).unwrap();
        assert_eq!(String::from_utf8(lines.0).unwrap(), "V\\n1: left out: its CTA state is \\u{1b}[2J; high\n");
    }

    #[test]
    fn the_rule_says_that_the_low_ones_are_meant() {
        let rule = rule(&settings()).join("\n");
        assert!(rule.contains("below tape_usage_threshold = 0.4") && rule.contains("says the opposite"), "{rule}");
    }

    fn any_tape() -> impl Strategy<Value = reply::Tape> {
        let states = prop::sample::select(vec!["ACTIVE", "DISABLED", "REPACKING", "BROKEN"]);
        let pools = prop::sample::select(vec!["raw", "raw", "ignored", "quarantine", "erase_LTO9"]);
        (0u32..60, 0u64..50, 0u64..50, prop::bool::weighted(0.8), states, pools).prop_map(
            |(vid, live, written, full, state, tapepool)| reply::Tape {
                full,
                state: state.to_owned(),
                tapepool: tapepool.to_owned(),
                ..tape(&format!("V{vid:05}"), live, written)
            },
        )
    }

    proptest! {
        /// The same rule said again, the slow way: everything in memory, in whole numbers, sorted, cut.
        #[test]
        fn the_selected_are_those_of_a_naive_selection(
            mut tapes in prop::collection::vec(any_tape(), 0..80),
            held in prop::collection::hash_set(0u32..60, 0..6),
            entered in prop::collection::hash_set(0u32..60, 0..6),
            requested in prop::collection::hash_set(0u32..60, 0..6),
            number_of_tapes in 0usize..12,
            quarter in 0u64..=5,
        ) {
            let mut seen = HashSet::new();
            tapes.retain(|tape| seen.insert(tape.vid.clone()));
            let name = |numbers: &HashSet<u32>| numbers.iter().map(|number| format!("V{number:05}")).collect::<HashSet<_>>();
            let known = Known { on_hold: name(&held), in_table: name(&entered), requests: name(&requested) };
            let mut settings = settings();
            settings.scan.number_of_tapes = number_of_tapes;
            settings.scan.tape_usage_threshold = quarter as f64 / 4.0;
            let mut expected: Vec<&reply::Tape> = tapes
                .iter()
                .filter(|tape| {
                    let low = if tape.occupancy == 0 {
                        quarter > 0
                    } else {
                        4 * tape.master_data_in_bytes < quarter * tape.occupancy
                    };
                    low && tape.full
                        && ["ACTIVE", "DISABLED"].contains(&tape.state.as_str())
                        && tape.tapepool == "raw"
                        && ![&known.on_hold, &known.in_table, &known.requests].iter().any(|set| set.contains(&tape.vid))
                })
                .collect();
            let per_million = |tape: &reply::Tape| match tape.occupancy {
                0 => 0,
                written => tape.master_data_in_bytes * 1_000_000 / written,
            };
            expected.sort_by_key(|tape| (per_million(tape), tape.vid.clone()));
            expected.truncate(number_of_tapes);
            let expected: Vec<&str> = expected.iter().map(|tape| tape.vid.as_str()).collect();
            let (selected, left_out) = select(settings, known, &tapes);
            prop_assert_eq!(names(&selected), expected);
            prop_assert_eq!(left_out.len() + selected.tapes.len(), tapes.len());
            prop_assert_eq!(selected.considered, tapes.len() as u64);
        }
    }
}
