//! `ls`: how far tapes are, and why they wait or failed.

use chrono::{DateTime, Utc};
use common::explain::{Explained, Slots, explain};
use common::journey::{Mode, State};
use common::settings::Settings;
use common::store::{Line, Overview, SiteView, Store, StoreError};
use common::tape::{Tape, Vid};
use common::task::{Next, Outcome, Progress, Wanted};
use serde::Serialize;
use serde_json::Value;

use super::told;
use crate::cli::Ls;
use crate::filter::{Selected, vid_of};
use crate::heading::{Remark, heading};
use crate::output::{Desk, Exit, iso};
use table::Form;

pub mod sort;
pub mod table;
mod watch;

/// What an explanation needs beside the row, and what concerns the whole site.
pub struct Around {
    /// The slots.
    pub slots: Slots,
    /// Paused stages.
    pub paused: Vec<Line>,
    /// Ticks, errors, trouble.
    pub site: SiteView,
}

impl Around {
    /// Asks the database.
    ///
    /// # Errors
    /// What it says.
    pub async fn look(store: &Store) -> Result<Around, StoreError> {
        let holding = store.holding().await?;
        let vids: Vec<Vid> = holding.iter().map(|holder| holder.vid.clone()).collect();
        let overviews = store.overview(Some(&vids), None, true).await?;
        let paused = store.controls().await?.into_iter().filter(|line| line.kind == "pause").collect();
        let slots = Slots::of(store.settings().max_active_repacks, &holding, &overviews);
        Ok(Around { slots, paused, site: store.site().await? })
    }

    /// Why a tape is not further.
    pub fn explain(&self, overview: &Overview, settings: &Settings) -> Explained {
        explain(overview, &self.slots, &self.paused, settings, overview.now)
    }

    /// What concerns the whole site, a line each.
    pub fn heading(&self, settings: &Settings) -> Vec<Remark> {
        heading(&self.site, &self.slots, &self.paused, settings)
    }
}

/// What is listed: the tapes that are meant, why each is not further, and what surrounds them.
pub struct Listed {
    /// The tapes, and what was not found.
    pub selected: Selected,
    /// Why, in the same order.
    pub whys: Vec<Explained>,
    /// The site.
    pub around: Around,
    /// Finished tapes in the table; asked for only where nothing else is there to be listed.
    pub finished: Option<i64>,
}

impl Listed {
    /// Asks the database.
    ///
    /// # Errors
    /// What it says.
    pub async fn look(store: &Store, ls: &Ls) -> Result<Listed, StoreError> {
        let by_vid = ls.sort.first().is_none_or(|key| key.is_the_order_of_the_database());
        let first = ls.limit.filter(|_| by_vid).map(|limit| limit.saturating_add(1));
        let selected = ls.filter.select_first(store, ls.all, first).await?;
        let around = Around::look(store).await?;
        let finished = match selected.overviews.is_empty() && ls.filter.is_empty() {
            true => Some(store.count_finished().await?),
            false => None,
        };
        let whys = selected.overviews.iter().map(|overview| around.explain(overview, store.settings())).collect();
        Ok(Listed { selected, whys, around, finished })
    }

    /// The rows in the order that was asked for, as many as were asked for; and how many were left out.
    pub fn rows(&self, ls: &Ls) -> (Vec<Row<'_>>, usize) {
        let mut rows: Vec<Row<'_>> = self.selected.overviews.iter().zip(&self.whys).collect();
        sort::sort(&mut rows, &ls.sort);
        let limit = ls.limit.and_then(|limit| usize::try_from(limit).ok()).unwrap_or(usize::MAX);
        let left = rows.len().saturating_sub(limit);
        rows.truncate(limit);
        (rows, left)
    }
}

/// A tape and why it is not further.
pub type Row<'a> = (&'a Overview, &'a Explained);

/// Lists tapes; a reason that is too long for its line is cut at a terminal, unless `verbose`.
///
/// # Errors
/// What the database says.
pub async fn run(store: &Store, ls: &Ls, verbose: bool, json: bool, desk: &mut Desk<'_>) -> anyhow::Result<Exit> {
    if let Some(every) = ls.watch {
        return watch::run(store, ls, every, json, desk).await;
    }
    let listed = Listed::look(store, ls).await.map_err(told)?;
    let (rows, left) = listed.rows(ls);
    if json || ls.jsonl {
        machines(&rows, ls.jsonl, desk)?;
    } else {
        let heading = listed.around.heading(store.settings());
        let form = Form { long: ls.long, whole: verbose };
        table::people(&rows, &heading, &listed, form, desk)?;
    }
    if left > 0 {
        desk.remark(&match rows.len() {
            1 => "there are more than this one: --limit".to_owned(),
            shown => format!("there are more than these {shown}: --limit"),
        });
    }
    for vid in &listed.selected.missing {
        desk.remark(&format!("error: {vid}: not in the table"));
    }
    for glob in &listed.selected.unmatched {
        desk.remark(&format!("error: {glob}: no such tape on its way; --all looks at finished ones too"));
    }
    if listed.selected.odd_left_out > 0 {
        let count = listed.selected.odd_left_out;
        desk.remark(&format!(
            "odd rows left out, for they are in no state: {count}; 'ls' without conditions names them"
        ));
    }
    let found = listed.selected.missing.is_empty() && listed.selected.unmatched.is_empty();
    Ok(if found { Exit::Done } else { Exit::Failed })
}

fn machines(rows: &[Row<'_>], lines: bool, desk: &mut Desk<'_>) -> anyhow::Result<()> {
    let mut text = Vec::new();
    let (open, between, close): (&[u8], u8, &[u8]) = if lines { (b"", b'\n', b"") } else { (b"[", b',', b"]\n") };
    text.extend_from_slice(open);
    for (overview, why) in rows {
        serde_json::to_writer(&mut text, &Object::of(overview, why))?;
        text.push(between);
    }
    if !lines && !rows.is_empty() {
        text.pop();
    }
    text.extend_from_slice(close);
    desk.text(&String::from_utf8(text)?)
}

/// One tape for machines, key by key.
#[derive(Serialize)]
struct Object<'a> {
    vid: &'a str,
    state: Option<State>,
    mode: Option<Mode>,
    entered: Option<String>,
    started: Option<String>,
    repacked: Option<String>,
    quarantined: Option<String>,
    reclaimed: Option<String>,
    finished: Option<String>,
    pool: Option<&'a str>,
    mediatype: Option<&'a str>,
    priority: Option<i16>,
    responsible: Option<&'a str>,
    files: Option<i64>,
    bytes: Option<i64>,
    usage: Option<i16>,
    last_write_date: Option<String>,
    stage: Option<&'a str>,
    generation: Option<i64>,
    outcome: Option<Outcome>,
    reason_code: Option<&'a str>,
    reason: Option<&'a str>,
    next_attempt_at: Option<String>,
    dispatched_at: Option<String>,
    attempts: Option<i32>,
    crashes: Option<i32>,
    owner: Option<&'a str>,
    lease_until: Option<String>,
    settle_until: Option<String>,
    slot_since: Option<String>,
    wanted: Option<Wanted>,
    round: Option<i32>,
    progress: Option<&'a Progress>,
    progress_at: Option<String>,
    hold: Option<HoldObject<'a>>,
    waits: Waits<'a>,
    odd: Option<&'a [String]>,
}

#[derive(Serialize)]
struct HoldObject<'a> {
    who: &'a str,
    why: &'a str,
    until: Option<String>,
}

#[derive(Serialize)]
struct Waits<'a> {
    code: &'a str,
    text: &'a str,
    until: Option<String>,
    next: &'a str,
}

impl<'a> Object<'a> {
    fn of(overview: &'a Overview, why: &'a Explained) -> Object<'a> {
        let tape = overview.row.as_ref().ok();
        let task = overview.task.as_ref();
        let time = |at: Option<DateTime<Utc>>| at.map(iso);
        let stamp = |state: State| time(tape.and_then(|tape| tape.stamps.at(state)));
        let reason = task.and_then(|task| task.reason.as_ref());
        Object {
            vid: vid_of(overview),
            state: tape.map(Tape::state),
            mode: tape.map(|tape| tape.mode),
            entered: stamp(State::Entered),
            started: stamp(State::Started),
            repacked: stamp(State::Repacked),
            quarantined: stamp(State::Quarantined),
            reclaimed: stamp(State::Reclaimed),
            finished: stamp(State::Finished),
            pool: tape.map(|tape| tape.tapepool.as_str()),
            mediatype: tape.map(|tape| tape.mediatype.as_str()),
            priority: tape.map(|tape| tape.priority),
            responsible: tape.map(|tape| tape.responsible.as_str()),
            files: tape.map(|tape| tape.files),
            bytes: tape.map(|tape| tape.bytes),
            usage: tape.map(|tape| tape.usage),
            last_write_date: time(tape.and_then(|tape| tape.last_write_date)),
            stage: task.and_then(|task| task.stage.as_deref()),
            generation: task.map(|task| task.generation),
            outcome: task.and_then(|task| task.outcome),
            reason_code: reason.map(|reason| reason.code.as_str()),
            reason: reason.map(|reason| reason.text.as_str()),
            next_attempt_at: task.and_then(|task| match task.next {
                Next::Now => None,
                Next::At(at) => Some(iso(at)),
                Next::Never => Some("never".to_owned()),
            }),
            dispatched_at: time(task.and_then(|task| task.dispatched_at)),
            attempts: task.map(|task| task.attempts),
            crashes: task.map(|task| task.crashes),
            owner: task.and_then(|task| task.owner.as_deref()),
            lease_until: time(task.and_then(|task| task.lease_until)),
            settle_until: time(task.and_then(|task| task.settle_until)),
            slot_since: time(task.and_then(|task| task.slot_since)),
            wanted: task.and_then(|task| task.wanted),
            round: task.map(|task| task.round),
            progress: task.and_then(|task| task.progress.as_ref()),
            progress_at: time(task.and_then(|task| task.progress_at)),
            hold: overview.hold.as_ref().map(|hold| HoldObject {
                who: &hold.who,
                why: &hold.why,
                until: time(hold.until),
            }),
            waits: Waits { code: &why.code, text: &why.text, until: time(why.until), next: &why.next },
            odd: overview.row.as_ref().err().map(|odd| odd.problems.as_slice()),
        }
    }
}

/// One tape for machines.
pub fn object(overview: &Overview, why: &Explained) -> Value {
    serde_json::to_value(Object::of(overview, why)).expect("its keys are texts")
}

#[cfg(test)]
mod tests {
    use chrono::TimeDelta;
    use common::explain::followed;
    use common::journey::Stamps;
    use common::tape::OddRow;
    use common::task::Hold;

    use super::*;

    const DOCUMENTATION: &str = include_str!("../../../docs/json-manager.md");

    fn overview() -> Overview {
        let now = DateTime::from_timestamp(1_800_000_000, 0).unwrap();
        let tape = Tape {
            vid: "V01007".parse().unwrap(),
            stamps: Stamps::entered(now - TimeDelta::hours(26)),
            mode: Mode::Auto,
            priority: 1,
            mediatype: "LTO9".to_owned(),
            tapepool: "raw\x1b[31m".to_owned(),
            responsible: "bob".to_owned(),
            files: 4,
            bytes: 4_000_000,
            usage: 40,
            last_write_date: None,
            xmin: 7,
        };
        let mut task = followed(&tape, None, &Settings::default(), now).0.into_owned();
        task.progress = Some(Progress::default());
        task.next = Next::Never;
        let hold = Some(Hold { who: "alice@desk".to_owned(), why: "audit".to_owned(), until: None });
        Overview { row: Ok(tape), task: Some(task), hold, now }
    }

    fn around() -> Around {
        let site = SiteView { ticks: None, mail: None, errors: 0, site_tapes: 0, site_text: None, now: overview().now };
        Around { slots: Slots { taken: 0, max: 1, stuck: Vec::new() }, paused: Vec::new(), site }
    }

    fn keys(value: &Value) -> Vec<&String> {
        value.as_object().unwrap().keys().collect()
    }

    #[test]
    fn every_key_is_documented_and_every_documented_key_is_there() {
        let overview = overview();
        let why = around().explain(&overview, &Settings::default());
        let object = object(&overview, &why);
        let section = DOCUMENTATION.split("## A tape").nth(1).unwrap().split("`waits.code`").next().unwrap();
        let names = |cell: &str| -> Vec<String> { cell.split('`').skip(1).step_by(2).map(str::to_owned).collect() };
        let rows: Vec<Vec<&str>> =
            section.lines().filter(|line| line.starts_with("| `")).map(|line| line.split('|').collect()).collect();
        let documented: Vec<String> = rows.iter().flat_map(|row| names(row[1])).collect();
        assert_eq!(keys(&object), documented.iter().collect::<Vec<_>>());
        for inner in ["progress", "hold", "waits"] {
            let row = rows.iter().find(|row| names(row[1]) == [inner]).unwrap();
            let documented = names(row[2]);
            assert_eq!(keys(&object[inner]), documented.iter().collect::<Vec<_>>(), "{inner}");
        }
        assert_eq!(object["entered"], "2027-01-14T06:00:00Z");
        assert_eq!(object["next_attempt_at"], "never");
    }

    #[test]
    fn an_odd_row_has_the_same_keys_and_comes_last_for_people() {
        let good = overview();
        let odd = Overview {
            row: Err(OddRow { tape: "A\\n1".to_owned(), problems: vec!["entered is not set".to_owned()] }),
            task: None,
            hold: None,
            now: good.now,
        };
        let settings = Settings::default();
        let around = around();
        let whys = [&odd, &good].map(|overview| around.explain(overview, &settings)).to_vec();
        let selected = Selected { overviews: vec![odd, good], ..Selected::default() };
        let listed = Listed { selected, whys, around, finished: None };
        let rows: Vec<Row<'_>> = listed.selected.overviews.iter().zip(&listed.whys).collect();
        assert_eq!(keys(&object(rows[0].0, rows[0].1)), keys(&object(rows[1].0, rows[1].1)));
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let mut desk = Desk { out: &mut out, err: &mut err, ask: None, width: None, colour: false };
        for long in [false, true] {
            table::people(&rows, &[], &listed, Form { long, whole: false }, &mut desk).unwrap();
        }
        let text = String::from_utf8(out).unwrap();
        assert!(text.find("V01007").unwrap() < text.find("odd rows").unwrap(), "{text}");
        assert!(text.contains("1d2h") && text.contains("4.0M") && text.contains("audit"), "{text}");
        assert!(!text.contains('\x1b'), "the pool's name must not steer the terminal: {text:?}");
    }

    #[test]
    fn at_a_terminal_each_tape_has_a_line_and_the_reason_is_cut_to_it() {
        let mut overview = overview();
        let long =
            "a reason that goes on and on until no terminal of this world is wide enough for all of it".to_owned();
        overview.hold = Some(Hold { who: "alice@desk".to_owned(), why: long.clone(), until: None });
        let around = around();
        let whys = vec![around.explain(&overview, &Settings::default())];
        let selected = Selected { overviews: vec![overview], ..Selected::default() };
        let listed = Listed { selected, whys, around, finished: None };
        let rows: Vec<Row<'_>> = listed.selected.overviews.iter().zip(&listed.whys).collect();
        let shown = |width, whole| {
            let (mut out, mut err) = (Vec::new(), Vec::new());
            let mut desk = Desk { out: &mut out, err: &mut err, ask: None, width, colour: false };
            table::people(&rows, &[], &listed, Form { long: false, whole }, &mut desk).unwrap();
            String::from_utf8(out).unwrap()
        };
        for width in 90..200 {
            let text = shown(Some(width), false);
            assert!(text.lines().all(|line| line.chars().count() <= usize::from(width)), "{width}: {text}");
            assert_eq!(text.lines().count(), 2, "{width}: {text}");
            let whole = text.contains(&long);
            assert!(whole != text.trim_end().ends_with('…'), "{width}: {text}");
        }
        assert!(shown(Some(100), false).contains('…'));
        assert!(shown(Some(100), true).lines().count() > 2 && !shown(Some(100), true).contains('…'));
        assert!(shown(None, false).contains(&long), "into a pipe goes all of it");
        let narrow = shown(Some(50), false);
        assert!(!narrow.contains('…'), "too narrow for anything but wrapping: {narrow}");
    }
}
