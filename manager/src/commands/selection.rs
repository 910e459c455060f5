//! Which tapes a verb is to change: named, listed in a file, or chosen by a filter; and how they stand.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::{Path, PathBuf};

use common::journey::{Mode, Stamps};
use common::reason::Kept;
use common::store::{Overview, Store, StoreError};
use common::tape::{OddRow, Tape, Vid};
use common::task::{Control, Ground, Hold, Task, Wanted};

use crate::acts::{Act, Facts, Plan, judge, standing};
use crate::cli::On;
use crate::filter::{Filter, Name, vid_of};

/// Why nothing can be chosen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unchosen {
    /// The command line cannot be meant so.
    Misuse(String),
    /// It was meant, and there is nothing.
    Nothing(String),
}

/// The tapes, and everything that is known of them before anybody is asked.
#[derive(Debug)]
pub struct Selection {
    /// In the order of the command line, then of the VIDs.
    pub vids: Vec<Vid>,
    /// Tapes that were named and are not in the table.
    pub missing: HashSet<Vid>,
    /// Remarks on what was left out.
    pub remarks: Vec<String>,
    /// Something that was named or listed stands for nothing.
    pub unmatched: bool,
    /// There were conditions: what has no row cannot be said to fulfil them.
    conditions: bool,
    rows: HashMap<String, Overview>,
    holds: BTreeMap<String, Hold>,
    paused: Vec<String>,
    now: chrono::DateTime<chrono::Utc>,
}

/// The VIDs of the arguments, of a file, and of stdin where `-` says so; nothing is read twice.
///
/// # Errors
/// What cannot be read, or is no VID.
pub fn named(names: &[Name], vidfile: Option<&PathBuf>) -> Result<Vec<Name>, String> {
    let mut all = Vec::new();
    let mut read = HashSet::new();
    let mut from = |path: &Path, all: &mut Vec<Name>| -> Result<(), String> {
        if !read.insert(path.to_owned()) {
            return Ok(());
        }
        let text = producer::prepare::text_of(path).map_err(|error| format!("{error:#}"))?;
        let vids = producer::prepare::vids(producer::prepare::words(&text)).map_err(|bad| bad.join("; "))?;
        if vids.is_empty() {
            let what = if path == Path::new("-") { "stdin".to_owned() } else { format!("'{}'", path.display()) };
            return Err(format!("{} names no tape", crate::output::clean(&what)));
        }
        all.extend(vids.into_iter().map(Name::Vid));
        Ok(())
    };
    for name in names {
        match name {
            Name::Stdin => from(Path::new("-"), &mut all)?,
            other => all.push(other.clone()),
        }
    }
    if let Some(path) = vidfile {
        from(path, &mut all)?;
    }
    Ok(all)
}

/// The filter, with everything that the command line names read.
///
/// # Errors
/// Why nothing can be chosen.
pub fn filter(on: &On, verb: &str) -> Result<Filter, Unchosen> {
    let mut filter = on.filter.clone();
    filter.which.names = named(&filter.which.names, on.bulk.vidfile.as_ref()).map_err(Unchosen::Misuse)?;
    if filter.is_empty() && !on.bulk.all {
        return Err(Unchosen::Misuse(format!(
            "{verb} wants to know which tapes: name them, choose them with options, or say --all"
        )));
    }
    Ok(filter)
}

impl Selection {
    /// Looks up what is meant.
    ///
    /// # Errors
    /// What the database says.
    pub async fn look(store: &Store, filter: &Filter) -> Result<Selection, StoreError> {
        let selected = filter.select(store, false).await?;
        let controls = store.controls().await?;
        let now = store.now().await?;
        let mut remarks = Vec::new();
        for glob in &selected.unmatched {
            remarks.push(format!("error: {glob}: no such tape in the table"));
        }
        if selected.odd_left_out > 0 {
            let count = selected.odd_left_out;
            remarks.push(format!("odd rows left out: {count}; 'cta-ops-repack-manager ls' names them"));
        }
        let missing: HashSet<Vid> = selected.missing.into_iter().collect();
        let mut rows = HashMap::new();
        let mut others = Vec::new();
        let typed = filter.vids();
        let first: HashSet<&Vid> = typed.iter().collect();
        for overview in selected.overviews {
            let name = vid_of(&overview).to_owned();
            match name.parse::<Vid>() {
                Ok(vid) => {
                    if !first.contains(&vid) {
                        others.push(vid);
                    }
                    rows.insert(name, overview);
                }
                Err(why) => remarks.push(format!("error: left out: {why}")),
            }
        }
        let vids = typed.iter().filter(|vid| missing.contains(vid) || rows.contains_key(vid.as_str())).cloned();
        let vids: Vec<Vid> = vids.chain(others).collect();
        let paused = controls.iter().filter(|line| line.kind == "pause").map(|line| line.name.clone()).collect();
        let holds: BTreeMap<String, Hold> =
            controls.into_iter().filter(|line| line.kind == "hold").map(|line| (line.name, line.hold)).collect();
        let unmatched = !selected.unmatched.is_empty();
        let conditions = filter.has_conditions();
        Ok(Selection { vids, missing, remarks, unmatched, conditions, rows, holds, paused, now })
    }

    /// How a tape stands, in a few words.
    pub fn standing(&self, vid: &Vid) -> String {
        standing(self.rows.get(vid.as_str()).map(|overview| &overview.row), self.now)
    }

    /// What a tape looked like.
    pub fn shown(&self, vid: &Vid) -> Shown {
        let overview = self.rows.get(vid.as_str());
        Shown::of(
            overview.map(|overview| &overview.row),
            overview.and_then(|overview| overview.task.as_ref()),
            self.holds.get(vid.as_str()),
        )
    }

    /// What an act would do to a tape.
    pub fn plan(&self, store: &Store, act: &Act, reason: Option<&str>, vid: &Vid) -> Plan {
        if self.conditions && self.missing.contains(vid) {
            return Plan::Missing;
        }
        let overview = self.rows.get(vid.as_str());
        let control = Control { hold: self.holds.get(vid.as_str()).cloned(), paused: self.paused.clone() };
        let ground = Ground {
            settings: store.settings(),
            control: &control,
            now: self.now,
            fresh_generation: 0,
            fresh_epoch: 0,
            jitter: 0.0,
        };
        let facts = Facts {
            vid,
            row: overview.map(|overview| &overview.row),
            task: overview.and_then(|overview| overview.task.as_ref()),
        };
        judge(act, reason, facts, &ground).plan
    }
}

/// What of a tape an operator decided on; if it differs under the lock, the decision was another tape's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shown {
    row: Option<(Mode, Stamps)>,
    /// The reason of its Stop, if it has one.
    stopped: Option<Option<Kept>>,
    wanted: Option<Wanted>,
    hold: Option<(String, String)>,
}

impl Shown {
    /// The rows as they are.
    pub fn of(row: Option<&Result<Tape, OddRow>>, task: Option<&Task>, hold: Option<&Hold>) -> Shown {
        Shown {
            row: row.and_then(|row| row.as_ref().ok()).map(|tape| (tape.mode, tape.stamps)),
            stopped: task.filter(|task| task.has_stop()).map(|task| task.reason.clone()),
            wanted: task.and_then(|task| task.wanted),
            hold: hold.map(|hold| (hold.who.clone(), hold.why.clone())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_of_vids_is_read_once_however_often_it_is_named_and_an_empty_one_is_no_filter() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("vids");
        std::fs::write(&path, "v01008 V01009 # later: V01010\n").unwrap();
        let first = Name::Vid("V01007".parse().unwrap());
        let names = named(std::slice::from_ref(&first), Some(&path)).unwrap();
        assert_eq!(names.len(), 3);
        assert_eq!(names[0], first);
        std::fs::write(&path, "# none\n").unwrap();
        assert!(named(std::slice::from_ref(&first), Some(&path)).unwrap_err().contains("names no tape"));
        std::fs::write(&path, "V1;rm").unwrap();
        assert!(named(&[first], Some(&path)).unwrap_err().contains("V1;rm"));
    }

    #[test]
    fn nothing_said_is_not_everything_meant() {
        let on = |all| On { filter: Filter::default(), bulk: crate::cli::Bulk { all, ..crate::cli::Bulk::default() } };
        let Err(Unchosen::Misuse(why)) = filter(&on(false), "rm") else { panic!() };
        assert!(why.contains("--all"), "{why}");
        assert!(filter(&on(true), "rm").unwrap().is_empty());
    }
}
