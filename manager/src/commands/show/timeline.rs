//! What happened to a tape, in as few lines as tell it.

use common::store::EventRow;
use serde_json::Value;

/// The longest value that is shown without `-V`.
const LONGEST: usize = 160;

/// One line.
#[derive(Debug, PartialEq)]
pub struct Line<'a> {
    /// The event, or the first of two that say the same.
    pub event: &'a EventRow,
    /// What happened.
    pub kind: String,
    /// The particulars.
    pub text: String,
}

/// The events as lines; everything of each with `whole`.
pub fn lines(events: &[EventRow], whole: bool) -> Vec<Line<'_>> {
    let mut lines: Vec<Line<'_>> = Vec::new();
    for event in events {
        if !whole
            && let Some(last) = lines.last_mut()
            && let Some(more) = continues(last.event, event)
        {
            last.kind = format!("{}, {more}", last.kind);
            continue;
        }
        lines.push(Line { event, kind: event.kind.clone(), text: said(&event.detail, whole) });
    }
    lines
}

/// What an event adds to the one before it, where that is a word: the mode error that follows a Stop for the same reason, the
/// answer of a command.
fn continues(last: &EventRow, next: &EventRow) -> Option<String> {
    let same = |key: &str| last.detail.get(key).is_some() && last.detail.get(key) == next.detail.get(key);
    let kinds = (last.kind.as_str(), next.kind.as_str());
    if kinds == ("stopped", "error") && (same("code") || same("why")) {
        return Some(next.kind.clone());
    }
    let answer = next.detail.get("answer").and_then(Value::as_str)?;
    let nothing_else = next
        .detail
        .as_object()?
        .iter()
        .all(|(key, value)| ["answer", "command"].contains(&key.as_str()) || one(value, false).is_none());
    (kinds == ("intent", "answer") && same("command") && nothing_else).then(|| answer.to_owned())
}

/// The particulars of an event in one line. Without `whole`, what other lines or `ls` say better is left out.
pub fn said(detail: &Value, whole: bool) -> String {
    let Value::Object(fields) = detail else { return one(detail, whole).unwrap_or_default() };
    let extra = |name: &str| name == "proof" || name == "sha256" || (name == "code" && fields.contains_key("why"));
    let told = fields.iter().filter(|(name, _)| whole || !extra(name));
    let told: Vec<String> = told.filter_map(|(name, value)| Some(format!("{name}: {}", one(value, whole)?))).collect();
    let proof = (!whole && fields.contains_key("proof")).then(|| "proof: -V shows it".to_owned());
    told.into_iter().chain(proof).collect::<Vec<_>>().join(", ")
}

fn one(value: &Value, whole: bool) -> Option<String> {
    let text = match value {
        Value::Null => return None,
        Value::String(text) if text.trim().is_empty() => return None,
        Value::Object(fields) if fields.is_empty() => return None,
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    match text.char_indices().nth(LONGEST).filter(|_| !whole) {
        Some((at, _)) => Some(format!("{}...", &text[..at])),
        None => Some(text),
    }
}

#[cfg(test)]
mod tests {
    use chrono::DateTime;
    use serde_json::json;

    use super::*;

    fn event(kind: &str, detail: Value) -> EventRow {
        EventRow {
            id: 1,
            at: DateTime::from_timestamp(1_800_000_000, 0).unwrap(),
            tape: "V01007".to_owned(),
            journey: None,
            stage: None,
            kind: kind.to_owned(),
            actor: "a@b".to_owned(),
            detail,
        }
    }

    #[test]
    fn particulars_are_one_line_without_what_is_not_there() {
        assert_eq!(
            said(&json!({"why": "it is full", "until": null, "n": 2, "text": " ", "o": {}}), false),
            "why: it is full, n: 2"
        );
        assert_eq!(said(&json!({}), false), "");
        assert_eq!(said(&json!("text"), false), "text");
    }

    #[test]
    fn proofs_are_kept_for_those_who_ask_and_long_values_are_cut() {
        let detail = json!({"command": "x".repeat(500), "proof": {"state": "ACTIVE"}});
        let short = said(&detail, false);
        assert!(short.len() < 250 && short.contains("...") && !short.contains("ACTIVE"), "{short}");
        let whole = said(&detail, true);
        assert!(whole.len() > 500 && whole.contains("ACTIVE"));
    }

    #[test]
    fn a_stop_and_the_mode_that_follows_it_are_one_line() {
        let events = [
            event("stopped", json!({"why": "w", "code": "c"})),
            event("error", json!({"why": "w", "code": "c"})),
            event("error", json!({"why": "w"})),
        ];
        let told = lines(&events, false);
        assert_eq!(told.iter().map(|line| line.kind.as_str()).collect::<Vec<_>>(), ["stopped, error, error"]);
        assert_eq!(lines(&events, true).len(), 3);
        let other = [event("stopped", json!({"why": "w"})), event("error", json!({"why": "another"}))];
        assert_eq!(lines(&other, false).len(), 2);
        let answered = |text: &str| {
            [
                event("intent", json!({"command": "c"})),
                event("answer", json!({"command": "c", "answer": "accepted", "text": text})),
            ]
        };
        assert_eq!(lines(&answered(""), false)[0].kind, "intent, accepted");
        assert_eq!(lines(&answered("but"), false).len(), 2, "what it says besides is not lost");
    }
}
