//! Reports for people. The JSON of a report is the contract; this is the same, easier to read.

use serde_json::Value;

/// A report of a tick: a line for each stage, and a line for each tape that something is to be said of.
pub fn told(report: &Value) -> String {
    let mut text = String::new();
    list(report, "stages").iter().for_each(|stage| tell(stage, &mut text));
    text
}

/// What an operator must be told of a tick: rows that are left alone, and what kept it from doing its work.
pub fn wrong(report: &Value) -> Vec<String> {
    let odd = list(report, "odd").iter().map(|row| format!("left alone: the row of {}", plain(row)));
    odd.chain(list(report, "trouble").iter().map(|trouble| format!("error: {}", plain(trouble)))).collect()
}

/// The tapes that were stopped.
pub fn stopped(report: &Value) -> Vec<String> {
    list(report, "stages")
        .iter()
        .flat_map(|stage| {
            let name = stage["stage"].as_str().unwrap_or("?");
            list(stage, "stopped").iter().map(move |tape| format!("stopped at {name}: {}", plain(tape)))
        })
        .collect()
}

fn list<'a>(of: &'a Value, key: &str) -> &'a [Value] {
    of[key].as_array().map(Vec::as_slice).unwrap_or_default()
}

/// `start: considered 3, done 1 (V00001), not yet 2`, and why those wait.
fn tell(stage: &Value, text: &mut String) {
    let name = stage["stage"].as_str().unwrap_or("?");
    let mut parts = Vec::new();
    let mut tapes = String::new();
    for (key, value) in stage.as_object().into_iter().flatten() {
        match value {
            Value::Number(count) => parts.push(format!("{} {count}", words(key))),
            Value::Array(list) if !list.is_empty() => {
                let plain_names: Vec<&str> = list.iter().filter_map(Value::as_str).collect();
                let names =
                    if plain_names.is_empty() { String::new() } else { format!(" ({})", plain_names.join(" ")) };
                parts.push(format!("{} {}{names}", words(key), list.len()));
                for tape in list.iter().filter(|tape| tape.is_object()) {
                    tapes += &format!("  {}: {}\n", words(key), plain(tape));
                }
            }
            Value::String(said) if key != "stage" => tapes += &format!("  {}: {said}\n", words(key)),
            _ => {}
        }
    }
    *text += &format!("{name}: {}\n{tapes}", if parts.is_empty() { "nothing".to_owned() } else { parts.join(", ") });
}

fn words(key: &str) -> String {
    key.replace('_', " ")
}

/// `V00001: the reason (code)`; what has another shape as it is.
fn plain(value: &Value) -> String {
    if let Some(text) = value.as_str() {
        return text.to_owned();
    }
    let Some(name) = value["vid"].as_str() else { return value.to_string() };
    let reasons: Vec<&str> =
        list(value, "reasons").iter().chain([&value["reason"]]).filter_map(Value::as_str).collect();
    let code = value["code"].as_str().map(|code| format!(" ({code})")).unwrap_or_default();
    if reasons.is_empty() { format!("{name}{code}") } else { format!("{name}: {}{code}", reasons.join("; ")) }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn report() -> Value {
        json!({
            "stages": [
                {"stage": "start", "considered": 4, "done": ["V00001", "V00002"], "published": [],
                 "not_yet": [{"vid": "V00003", "code": "no-slot", "reason": "no slot is free"}],
                 "stopped": [{"vid": "V00004", "code": "refused", "reason": "CTA refuses"}]},
                {"stage": "end", "considered": 0, "skipped": "producer@b"},
            ],
            "odd": [{"vid": "V9", "reasons": ["mode is not set", "usage is not set"]}],
            "trouble": ["CTA is away"],
        })
    }

    #[test]
    fn a_report_names_counts_tapes_and_reasons() {
        assert_eq!(
            told(&report()),
            "start: considered 4, done 2 (V00001 V00002), not yet 1, stopped 1\n\
             \x20 not yet: V00003: no slot is free (no-slot)\n  stopped: V00004: CTA refuses (refused)\n\
             end: considered 0\n  skipped: producer@b\n"
        );
    }

    #[test]
    fn odd_rows_and_trouble_are_told_and_so_are_stopped_tapes() {
        assert_eq!(
            wrong(&report()),
            ["left alone: the row of V9: mode is not set; usage is not set", "error: CTA is away"]
        );
        assert_eq!(stopped(&report()), ["stopped at start: V00004: CTA refuses (refused)"]);
    }

    #[test]
    fn what_is_no_report_is_no_panic() {
        for odd in [json!(null), json!([]), json!({"stages": 7}), json!({"stages": [1, "x", null], "odd": [1, {}]})] {
            let _ = (told(&odd), wrong(&odd), stopped(&odd));
        }
    }
}
