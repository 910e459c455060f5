//! Which tapes are meant: the same words for looking and for acting.

use std::collections::HashSet;

use chrono::TimeDelta;
use clap::Args;
use common::explain::CODES;
use common::journey::{Mode, State};
use common::reason::Code;
use common::store::{Glob, Overview, OverviewFilter, Store, StoreError};
use common::tape::Vid;
use common::task::Outcome;

use crate::commands::ls::Around;

/// A tape, or some, as they are typed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Name {
    /// One tape.
    Vid(Vid),
    /// All whose VIDs look like this.
    Glob(Glob),
    /// Those that stdin names (`-`); read where tapes are changed.
    Stdin,
}

/// Which tapes are meant. Every condition must hold; of several values of one condition, any.
///
/// The verbs that set mode, priority or responsible flatten this part alone, for these words mean the new value there.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Which tapes")]
pub struct Which {
    /// Only these, finished ones too; or a pattern such as 'V01*', in which * stands for anything and ? for one character
    #[arg(id = "which_names", value_name = "VID", value_parser = named)]
    pub names: Vec<Name>,
    /// Only tapes in these states: entered, started, repacked, quarantined, reclaimed, finished
    #[arg(id = "which_state", short = 's', long = "state", value_delimiter = ',', value_name = "STATE")]
    pub states: Vec<State>,
    /// Only tapes that were in these pools when they were prepared; 'raw*' is a pattern
    #[arg(id = "which_pool", long = "pool", value_delimiter = ',', value_name = "POOL")]
    pub pools: Vec<Glob>,
    /// Only tapes of these media types, such as LTO9 or 'LTO*'
    #[arg(id = "which_mediatype", long = "mediatype", value_delimiter = ',', value_name = "TYPE")]
    pub mediatypes: Vec<Glob>,
    /// Only tapes that were in these logical libraries when they were prepared; not known of tapes that another program entered
    #[arg(id = "which_library", long = "library", value_delimiter = ',', value_name = "LIBRARY")]
    pub libraries: Vec<Glob>,
    /// Only tapes that are in their present state for at least so long, such as 12h, 1d2h or 90m
    #[arg(id = "which_older", long = "older-than", value_name = "DURATION", value_parser = crate::output::duration)]
    pub older_than: Option<TimeDelta>,
    /// Only tapes that are in their present state for less than so long
    #[arg(id = "which_newer", long = "newer-than", value_name = "DURATION", value_parser = crate::output::duration)]
    pub newer_than: Option<TimeDelta>,
    /// Only tapes that the last attempt left so: waiting, retrying, stalled, failed
    #[arg(id = "which_outcome", long = "outcome", value_delimiter = ',', value_name = "OUTCOME", value_parser = outcome)]
    pub outcomes: Vec<Outcome>,
    /// Only tapes that wait or stopped for these reasons, such as repack-failed
    #[arg(id = "which_code", long = "code", value_delimiter = ',', value_name = "CODE", value_parser = code)]
    pub codes: Vec<String>,
    /// Only tapes that are on hold
    #[arg(id = "which_held", long = "held")]
    pub held: bool,
}

/// Which tapes are meant, by what an operator can set.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Which tapes")]
pub struct Settable {
    /// Only tapes in these modes: auto, manual, error
    #[arg(id = "which_mode", short = 'm', long = "mode", value_delimiter = ',', value_name = "MODE")]
    pub modes: Vec<Mode>,
    /// Only tapes of these priorities
    #[arg(
        id = "which_priority",
        short = 'p',
        long = "priority",
        value_delimiter = ',',
        value_name = "NUMBER",
        allow_negative_numbers = true
    )]
    pub priorities: Vec<i16>,
    /// Only tapes of these people; 'op*' is a pattern
    #[arg(id = "which_responsible", long = "responsible", value_delimiter = ',', value_name = "NAME")]
    pub responsibles: Vec<Glob>,
}

/// Which tapes are meant.
#[derive(Debug, Clone, Default, Args)]
pub struct Filter {
    /// By what a tape is.
    #[command(flatten)]
    pub which: Which,
    /// By what an operator can set.
    #[command(flatten)]
    pub settable: Settable,
}

/// The tapes that are meant.
#[derive(Debug, Default)]
pub struct Selected {
    /// The rows, in the order of the VIDs.
    pub overviews: Vec<Overview>,
    /// VIDs that were named and are not in the table.
    pub missing: Vec<Vid>,
    /// Patterns that stand for no tape in the table; not looked for where another condition is set.
    pub unmatched: Vec<Glob>,
    /// Odd rows that were left out: they cannot be said to be in a state.
    pub odd_left_out: usize,
}

impl Filter {
    /// No condition is set: every tape is meant.
    pub fn is_empty(&self) -> bool {
        self.which.names.is_empty() && !self.has_conditions()
    }

    /// A condition is set beside the VIDs and patterns.
    pub fn has_conditions(&self) -> bool {
        self.as_asked(false) != self.names_alone(false) || !self.which.codes.is_empty()
    }

    /// The VIDs that were named, each once, in the order they were typed.
    pub fn vids(&self) -> Vec<Vid> {
        let mut seen = HashSet::new();
        let vids = self.which.names.iter().filter_map(|name| match name {
            Name::Vid(vid) => Some(vid.clone()),
            Name::Glob(_) | Name::Stdin => None,
        });
        vids.filter(|vid| seen.insert(vid.clone())).collect()
    }

    fn globs(&self) -> Vec<Glob> {
        let globs = self.which.names.iter().filter_map(|name| match name {
            Name::Glob(glob) => Some(glob.clone()),
            Name::Vid(_) | Name::Stdin => None,
        });
        globs.collect()
    }

    fn names_alone(&self, finished: bool) -> OverviewFilter {
        OverviewFilter {
            vids: self.vids(),
            globs: self.globs(),
            finished: finished || self.which.states.contains(&State::Finished),
            ..OverviewFilter::default()
        }
    }

    /// What the database is asked: every condition but the reason codes, which depend on what surrounds a tape.
    /// `finished`: those too.
    pub fn as_asked(&self, finished: bool) -> OverviewFilter {
        let (which, settable) = (&self.which, &self.settable);
        OverviewFilter {
            states: which.states.clone(),
            modes: settable.modes.clone(),
            pools: which.pools.clone(),
            mediatypes: which.mediatypes.clone(),
            libraries: which.libraries.clone(),
            responsibles: settable.responsibles.clone(),
            priorities: settable.priorities.clone(),
            older_than: which.older_than,
            newer_than: which.newer_than,
            outcomes: which.outcomes.clone(),
            held: which.held,
            limit: None,
            ..self.names_alone(finished)
        }
    }

    /// Looks up the tapes that are meant. `finished`: those too; those that are named are meant anyway.
    ///
    /// # Errors
    /// What the database says.
    pub async fn select(&self, store: &Store, finished: bool) -> Result<Selected, StoreError> {
        self.select_first(store, finished, None).await
    }

    /// The same, but at most the first so many by VID.
    ///
    /// # Errors
    /// What the database says.
    pub async fn select_first(
        &self,
        store: &Store,
        finished: bool,
        limit: Option<i64>,
    ) -> Result<Selected, StoreError> {
        if self.which.names.contains(&Name::Stdin) {
            return Err(anyhow::anyhow!("'-' is not read here: give the VIDs as arguments").into());
        }
        let mut asked = self.as_asked(finished);
        // What is thrown away below must not count.
        let whole = !self.which.codes.is_empty() || self.needs_a_state() || !self.which.names.is_empty();
        asked.limit = limit.filter(|_| !whole);
        let mut selected = Selected { overviews: store.overviews(&asked).await?, ..Selected::default() };
        (selected.missing, selected.unmatched) = self.not_found(store, &selected.overviews).await?;
        if self.needs_a_state() {
            let before = selected.overviews.len();
            selected.overviews.retain(|overview| overview.row.is_ok());
            selected.odd_left_out = before - selected.overviews.len();
        }
        if !self.which.codes.is_empty() {
            let around = Around::look(store).await?;
            selected.overviews.retain(|overview| {
                let told = around.explain(overview, store.settings()).code;
                let kept = overview.task.as_ref().and_then(|task| task.reason.as_ref());
                self.which.codes.iter().any(|code| *code == told || kept.is_some_and(|kept| kept.code == *code))
            });
        }
        if let Some(limit) = limit {
            selected.overviews.truncate(usize::try_from(limit).unwrap_or(usize::MAX));
        }
        Ok(selected)
    }

    /// Asks what an odd row cannot answer.
    fn needs_a_state(&self) -> bool {
        !self.which.states.is_empty() || self.which.older_than.is_some() || self.which.newer_than.is_some()
    }

    /// What was named and is not in the table, whatever the other conditions.
    async fn not_found(&self, store: &Store, listed: &[Overview]) -> Result<(Vec<Vid>, Vec<Glob>), StoreError> {
        let names: HashSet<&str> = listed.iter().map(vid_of).collect();
        let mut missing: Vec<Vid> = self.vids().into_iter().filter(|vid| !names.contains(vid.as_str())).collect();
        if self.has_conditions() && !missing.is_empty() {
            let there = store.overview(Some(&missing), None, true).await?;
            let there: HashSet<&str> = there.iter().map(vid_of).collect();
            missing.retain(|vid| !there.contains(vid.as_str()));
        }
        let mut unmatched = self.globs();
        unmatched.retain(|glob| !self.has_conditions() && !names.iter().any(|name| glob.matches(name)));
        Ok((missing, unmatched))
    }
}

/// The VID of a row as it stands in the table, cut and escaped where it is none.
pub fn vid_of(overview: &Overview) -> &str {
    match &overview.row {
        Ok(tape) => tape.vid.as_str(),
        Err(odd) => &odd.tape,
    }
}

/// A VID or a pattern, made upper case.
///
/// # Errors
/// What was expected.
pub(crate) fn named(text: &str) -> Result<Name, String> {
    if text == "-" {
        return Ok(Name::Stdin);
    }
    if !text.contains(['*', '?']) {
        return Vid::typed(text).map(Name::Vid).map_err(|why| why.to_string());
    }
    let fits = |b: u8| b.is_ascii_alphanumeric() || b"_-*?".contains(&b);
    if !text.bytes().all(fits) {
        return Err("expected a pattern of A-Z, 0-9, '_', '-', * and ?".to_owned());
    }
    text.to_ascii_uppercase().parse().map(Name::Glob)
}

fn outcome(text: &str) -> Result<Outcome, String> {
    Outcome::named(text).ok_or_else(|| "expected waiting, retrying, stalled or failed".to_owned())
}

fn code(text: &str) -> Result<String, String> {
    let known = || Code::ALL.iter().map(|code| code.name()).chain(CODES);
    if known().any(|name| name == text) {
        return Ok(text.to_owned());
    }
    Err(format!("no such code; there are {}", known().collect::<Vec<_>>().join(", ")))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        filter: Filter,
    }

    fn parse(words: &str) -> Result<Filter, clap::Error> {
        Line::try_parse_from(std::iter::once("ls").chain(words.split_whitespace())).map(|line| line.filter)
    }

    #[test]
    fn vids_and_patterns_are_told_apart_and_made_upper_case() {
        let filter = parse("v01007 v02* V01007 V?3").unwrap();
        assert_eq!(filter.vids().iter().map(Vid::as_str).collect::<Vec<_>>(), ["V01007"]);
        assert_eq!(filter.globs().iter().map(Glob::as_str).collect::<Vec<_>>(), ["V02*", "V?3"]);
        for bad in ["V01%", "V*;", "../x", "V 1*", "é*"] {
            assert!(Line::try_parse_from(["ls", bad]).is_err(), "{bad}");
        }
    }

    #[test]
    fn only_what_is_asked_for_is_a_condition() {
        assert!(parse("").unwrap().is_empty());
        let names = parse("V01* V02007").unwrap();
        assert!(!names.is_empty() && !names.has_conditions());
        for words in [
            "--state started",
            "--mode error",
            "--pool raw*",
            "--mediatype LTO9",
            "--library LIB1",
            "--priority -1 --priority 2,3",
            "--responsible me",
            "--older-than 1d",
            "--newer-than 2h",
            "--outcome failed",
            "--code repack-failed,queued",
            "--held",
        ] {
            let filter = parse(words).unwrap_or_else(|error| panic!("{words}: {error}"));
            assert!(filter.has_conditions(), "{words}");
            assert_eq!(filter.as_asked(false) == OverviewFilter::default(), words.starts_with("--code"), "{words}");
        }
    }

    #[test]
    fn unknown_words_are_refused_with_those_that_are_known() {
        for (words, known) in
            [("--outcome done", "stalled"), ("--code done", "repack-failed"), ("--state done", "reclaimed")]
        {
            assert!(parse(words).err().unwrap().to_string().contains(known), "{words}");
        }
    }

    #[test]
    fn finished_tapes_are_meant_where_their_state_is_asked_for() {
        assert!(parse("--state finished").unwrap().as_asked(false).finished);
        assert!(!parse("--state started").unwrap().as_asked(false).finished);
        assert!(parse("--state started").unwrap().as_asked(true).finished);
    }
}
