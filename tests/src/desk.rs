//! The manager in this process, at a desk where somebody answers, or nobody does.

use std::path::Path;

use clap::Parser as _;
use manager::cli::Cli;
use manager::output::{Desk, Exit};
use serde_json::Value;

use crate::site::Site;

/// Who sits there.
pub const ACTOR: &str = "alice@desk";

/// The table as ATRESYS makes it: narrow columns, its own enum.
pub const ATRESYS_TABLE: &str = "
    CREATE TYPE automation_modes AS ENUM ('auto', 'manual', 'error');
    CREATE TABLE repack_status (
        tape varchar(10) PRIMARY KEY, entered timestamp(0) NOT NULL, started timestamp(0), repacked timestamp(0),
        quarantined timestamp(0), reclaimed timestamp(0), finished timestamp(0), files bigint NOT NULL, bytes bigint NOT NULL,
        usage smallint NOT NULL, last_write_date timestamp(0), mode automation_modes NOT NULL, priority smallint NOT NULL,
        mediatype varchar(20) NOT NULL, tapepool varchar(20) NOT NULL, responsible varchar(20) NOT NULL);";

/// What one command line did.
#[derive(Debug)]
pub struct Said {
    /// Its exit status.
    pub exit: Exit,
    /// Data.
    pub out: String,
    /// Remarks.
    pub err: String,
    /// What was asked.
    pub asked: Vec<String>,
}

impl Said {
    /// It ended so.
    ///
    /// # Panics
    /// Otherwise.
    #[track_caller]
    pub fn ended(&self, exit: Exit) -> &Said {
        assert_eq!(self.exit, exit, "{self:?}");
        self
    }

    /// All of these words are in what it said.
    ///
    /// # Panics
    /// Otherwise.
    #[track_caller]
    pub fn saying(&self, words: &[&str]) -> &Said {
        for word in words {
            assert!(self.out.contains(word) || self.err.contains(word), "does not say '{word}': {self:?}");
        }
        self
    }

    /// The one JSON value that it printed.
    ///
    /// # Panics
    /// When there is none, or more.
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// VIDs and results of a verb that changes tapes.
    ///
    /// # Panics
    /// When it printed something else.
    #[track_caller]
    pub fn results(&self) -> Vec<(String, String)> {
        let text = |value: &Value| value.as_str().expect("text").to_owned();
        let said = self.json();
        let tapes = said["tapes"].as_array().expect("a list of tapes");
        tapes.iter().map(|tape| (text(&tape["vid"]), text(&tape["result"]))).collect()
    }
}

/// Runs a command line with this configuration; with somebody there to answer.
///
/// # Panics
/// When the command line cannot be parsed.
pub async fn at_desk(configuration: &Path, words: &[&str], answer: Option<bool>) -> Said {
    let path = configuration.to_str().expect("a path that is text");
    let cli =
        Cli::try_parse_from(["manager", "-C", path].iter().chain(words)).unwrap_or_else(|error| panic!("{error}"));
    let (mut out, mut err, mut asked) = (Vec::new(), Vec::new(), Vec::new());
    let mut ask = |question: &str| {
        asked.push(question.to_owned());
        answer.expect("nobody is asked who is not there")
    };
    let mut desk = Desk {
        out: &mut out,
        err: &mut err,
        ask: answer.is_some().then_some(&mut ask as &mut dyn FnMut(&str) -> bool),
        width: None,
        colour: false,
    };
    let exit = manager::run(&cli, ACTOR, &mut desk).await;
    let text = |bytes| String::from_utf8(bytes).expect("the manager prints UTF-8");
    Said { exit, out: text(out), err: text(err), asked }
}

impl Site {
    /// Runs a command line of the manager where nobody answers.
    ///
    /// # Panics
    /// When it cannot be parsed.
    pub async fn manager(&self, words: &str) -> Said {
        let words: Vec<&str> = words.split_whitespace().collect();
        at_desk(&self.configuration(), &words, None).await
    }

    /// Runs a command line of the manager where somebody answers so.
    ///
    /// # Panics
    /// When it cannot be parsed.
    pub async fn manager_asking(&self, words: &str, answer: bool) -> Said {
        let words: Vec<&str> = words.split_whitespace().collect();
        at_desk(&self.configuration(), &words, Some(answer)).await
    }

    /// A row with this many stamps after `entered`, a day apart, the last a day ago; as another program would write it.
    pub async fn row_of(&self, vid: &str, stamps: usize, mode: &str, pool: &str) {
        let columns = ["started", "repacked", "quarantined", "reclaimed", "finished"];
        let names: String = columns[..stamps].iter().map(|name| format!(", {name}")).collect();
        let values: String =
            (0..stamps).map(|stamp| format!(", LOCALTIMESTAMP(0) - interval '{} day'", stamps - stamp)).collect();
        self.sql(&format!(
            "INSERT INTO {} (tape, entered, files, bytes, usage, mode, priority, mediatype, tapepool, responsible{names}) \
             VALUES ('{vid}', LOCALTIMESTAMP(0) - interval '9 day', 4, 400, 40, '{mode}', 10, 'LTO9', '{pool}', 'bob'{values})",
            self.table()
        ))
        .await;
    }
}
