//! The body of a message.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::tape::Vid;

/// What a message says: this tape may be due for this stage. What is done about it comes from the row, never from the message.
///
/// On the wire `{"v":1,"tape":"V01007","stage":"start","generation":7}`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Task {
    /// The tape.
    pub tape: Vid,
    /// Name of the stage: one to 32 of `a`-`z`. Whether there is such a stage is for the reader to say.
    pub stage: String,
    /// The generation of the row when the message was written, at least 1. A row that has moved on has a larger one.
    pub generation: i64,
}

/// Why a body is no [`Task`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NotATask {
    /// Larger than any task can be: its size in bytes.
    TooLong(usize),
    /// Written by a newer program: its version.
    NewerVersion(u64),
    /// Anything else, in words, cut to a bearable length, control characters escaped.
    Malformed(String),
}

impl fmt::Display for NotATask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NotATask::TooLong(size) => {
                write!(f, "not a task: {size} bytes, expected at most {}", Task::MAX_SIZE)
            }
            NotATask::NewerVersion(version) => write!(
                f,
                "a task of version {version}, this program knows version {}: upgrade the programs on this host",
                Task::VERSION
            ),
            NotATask::Malformed(why) => write!(f, "not a task: {why}"),
        }
    }
}

impl std::error::Error for NotATask {}

/// Just enough to tell a newer version, whatever its other fields have become.
#[derive(Deserialize)]
struct Versioned {
    v: u64,
}

#[derive(Serialize, Deserialize)]
struct Body {
    v: u64,
    tape: Vid,
    stage: String,
    generation: i64,
}

impl Task {
    /// The version of the body that this program writes and reads.
    pub const VERSION: u64 = 1;

    /// The largest body that is looked at, in bytes. A real one has about 70.
    pub const MAX_SIZE: usize = 4096;

    /// The body of the message.
    pub fn encode(&self) -> Vec<u8> {
        let body =
            Body { v: Task::VERSION, tape: self.tape.clone(), stage: self.stage.clone(), generation: self.generation };
        serde_json::to_vec(&body).expect("a map of texts and integers is always JSON")
    }

    /// Reads the body of a message, which anyone may have written. Unknown fields are tolerated.
    ///
    /// # Errors
    /// When it is not exactly one JSON object with a known version, a VID, a stage name and a generation of at least 1.
    pub fn decode(body: &[u8]) -> Result<Task, NotATask> {
        if body.len() > Task::MAX_SIZE {
            return Err(NotATask::TooLong(body.len()));
        }
        // An array would do as well for the parser, its elements taken for the fields in order.
        if body.trim_ascii_start().first() != Some(&b'{') {
            return Err(malformed("not an object"));
        }
        match serde_json::from_slice::<Versioned>(body).map_err(malformed)?.v {
            Task::VERSION => {}
            0 => return Err(malformed("v is 0, expected 1")),
            newer => return Err(NotATask::NewerVersion(newer)),
        }
        let Body { v: _, tape, stage, generation } = serde_json::from_slice(body).map_err(malformed)?;
        if !is_stage_name(&stage) {
            return Err(malformed(format!("stage '{stage}', expected 1 to 32 of a-z")));
        }
        if generation < 1 {
            return Err(malformed(format!("generation {generation}, expected at least 1")));
        }
        Ok(Task { tape, stage, generation })
    }
}

/// Whether a text can be the name of a stage: one to 32 of `a`-`z`.
pub fn is_stage_name(text: &str) -> bool {
    (1..=32).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_lowercase())
}

fn malformed(why: impl fmt::Display) -> NotATask {
    NotATask::Malformed(printable(&why.to_string(), 200))
}

/// `text` with control characters escaped, cut to about `longest` characters: fit for a log line or a header.
pub(super) fn printable(text: &str, longest: usize) -> String {
    let mut shown: String = text
        .chars()
        .flat_map(|c| if c.is_control() { c.escape_default().collect() } else { vec![c] })
        .take(longest)
        .collect();
    if text.chars().count() > longest {
        shown.push_str("...");
    }
    shown
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn why(body: &str) -> String {
        Task::decode(body.as_bytes()).expect_err(body).to_string()
    }

    #[test]
    fn a_task_reads_on_the_wire_as_documented() {
        let task = Task { tape: "V01007".parse().unwrap(), stage: "start".into(), generation: 7 };
        assert_eq!(
            String::from_utf8(task.encode()).unwrap(),
            r#"{"v":1,"tape":"V01007","stage":"start","generation":7}"#
        );
    }

    #[test]
    fn unknown_fields_and_white_space_are_tolerated() {
        let body = br#" {"generation":7, "shade":{"x":[1]}, "stage":"end", "tape":"A", "v":1} "#;
        assert_eq!(Task::decode(body).unwrap().stage, "end");
    }

    #[test]
    fn a_newer_version_is_told_from_garbage_whatever_its_fields() {
        assert_eq!(Task::decode(br#"{"v":2,"cartridge":"V01007"}"#), Err(NotATask::NewerVersion(2)));
        assert!(why(r#"{"v":2}"#).contains("upgrade"), "{}", why(r#"{"v":2}"#));
        assert!(matches!(Task::decode(br#"{"v":0}"#), Err(NotATask::Malformed(_))));
        assert!(matches!(Task::decode(br#"{"v":"2"}"#), Err(NotATask::Malformed(_))));
    }

    #[test]
    fn every_broken_body_is_refused_with_its_reason() {
        for (body, reason) in [
            ("", "not an object"),
            ("null", "not an object"),
            ("[]", "not an object"),
            ("{}", "missing field `v`"),
            (r#"{"v":1}"#, "missing field `tape`"),
            (r#"{"v":1,"tape":"V01007","stage":"start"}"#, "missing field `generation`"),
            (r#"{"v":1,"tape":"--all","stage":"start","generation":7}"#, "is not a VID"),
            (r#"{"v":1,"tape":"v01007","stage":"start","generation":7}"#, "is not a VID"),
            (r#"{"v":1,"tape":"V01007;rm","stage":"start","generation":7}"#, "is not a VID"),
            (r#"{"v":1,"tape":"../V01007","stage":"start","generation":7}"#, "is not a VID"),
            (r#"{"v":1,"tape":"V01007\n","stage":"start","generation":7}"#, "is not a VID"),
            (r#"{"v":1,"tape":"V\u04101007","stage":"start","generation":7}"#, "is not a VID"),
            (r#"{"v":1,"tape":7,"stage":"start","generation":7}"#, "expected a string"),
            (r#"{"v":1,"tape":"V01007","stage":"","generation":7}"#, "stage ''"),
            (r#"{"v":1,"tape":"V01007","stage":"Start","generation":7}"#, "stage 'Start'"),
            (r#"{"v":1,"tape":"V01007","stage":"a.b","generation":7}"#, "stage 'a.b'"),
            (r#"{"v":1,"tape":"V01007","stage":"start","generation":0}"#, "generation 0"),
            (r#"{"v":1,"tape":"V01007","stage":"start","generation":-1}"#, "generation -1"),
            (r#"{"v":1,"tape":"V01007","stage":"start","generation":"7"}"#, "string \"7\""),
            (r#"{"v":1,"tape":"V01007","stage":"start","generation":7.5}"#, "floating point"),
            (r#"{"v":1,"tape":"V01007","stage":"start","generation":99999999999999999999}"#, "expected i64"),
            (r#"[1,"V01007","start",7]"#, "not an object"),
            (r#"[2]"#, "not an object"),
            (r#"{"v":1,"tape":"V01007","tape":"V01008","stage":"start","generation":7}"#, "duplicate field"),
            (r#"{"v":1,"tape":"V01007","stage":"start","generation":7}{"#, "trailing"),
        ] {
            let why = why(body);
            assert!(why.contains(reason), "{body}: {why} does not say {reason}");
        }
    }

    #[test]
    fn a_stage_name_of_32_letters_is_the_longest() {
        assert!(is_stage_name(&"a".repeat(32)));
        assert!(!is_stage_name(&"a".repeat(33)));
    }

    #[test]
    fn a_huge_body_is_refused_unread() {
        let body = format!(r#"{{"v":1,"tape":"V1","stage":"end","generation":7,"x":"{}"}}"#, "y".repeat(4096));
        assert_eq!(Task::decode(body.as_bytes()), Err(NotATask::TooLong(body.len())));
    }

    #[test]
    fn deep_nesting_is_refused() {
        let body = format!(r#"{{"v":1,"x":{}"#, "[".repeat(3000));
        assert!(matches!(Task::decode(body.as_bytes()), Err(NotATask::Malformed(_))));
    }

    #[test]
    fn hostile_text_reaches_no_log_unescaped_or_at_length() {
        let body = format!(r#"{{"v":1,"tape":"\u001b[31m\n{}","stage":"x","generation":1}}"#, "z".repeat(3000));
        let why = why(&body);
        assert!(!why.chars().any(char::is_control) && why.len() < 400, "{why}");
        let body = format!(r#"{{"v":1,"tape":"V1","stage":"\u001b\u0000{}","generation":1}}"#, "z".repeat(3000));
        let why = self::why(&body);
        assert!(!why.chars().any(char::is_control) && why.len() < 400, "{why}");
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(body: Vec<u8>) {
            let _ = Task::decode(&body);
        }

        #[test]
        fn nearly_right_bodies_never_panic_and_never_give_a_bad_task(
            version in 0u64..3, tape in ".{0,24}", stage in ".{0,40}", generation: i64,
        ) {
            let body = serde_json::json!({"v": version, "tape": tape, "stage": stage, "generation": generation});
            match Task::decode(body.to_string().as_bytes()) {
                Ok(task) => {
                    prop_assert_eq!(version, 1);
                    prop_assert!(is_stage_name(&task.stage) && task.generation >= 1);
                    prop_assert!(task.tape.as_str().parse::<Vid>().is_ok());
                }
                Err(why) => prop_assert!(!why.to_string().chars().any(char::is_control)),
            }
        }

        #[test]
        fn what_is_written_is_read_back(
            tape in "[A-Z0-9][A-Z0-9_-]{0,19}", stage in "[a-z]{1,32}", generation in 1i64..,
        ) {
            let task = Task { tape: tape.parse().unwrap(), stage, generation };
            prop_assert_eq!(Task::decode(&task.encode()), Ok(task));
        }
    }
}
