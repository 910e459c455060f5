//! Reports for people. The JSON of a report is the contract; this is the same, easier to read.

use serde_json::Value;

/// A report of ticks: a line for each stage, and a line for each tape that something is to be said of.
pub fn told(report: &Value) -> String {
    let mut text = String::new();
    let stages = report["stages"].as_array().map(Vec::as_slice).unwrap_or_default();
    for stage in stages {
        tell(stage, &mut text);
    }
    for (key, value) in report.as_object().into_iter().flatten() {
        match value {
            Value::Array(list) if key != "stages" => {
                list.iter().for_each(|one| text += &format!("{}: {}\n", words(key), plain(one)));
            }
            Value::String(said) => text += &format!("{}: {said}\n", words(key)),
            _ => {}
        }
    }
    text
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

/// `V00001: the reason`; of what has no name, everything.
fn plain(value: &Value) -> String {
    let (Some(object), name) = (value.as_object(), value["vid"].as_str().or_else(|| value["tape"].as_str())) else {
        return value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    };
    let Some(name) = name else { return value.to_string() };
    let rest: Vec<String> = object
        .iter()
        .filter(|(key, _)| *key != "vid" && *key != "tape")
        .filter_map(|(key, value)| match value {
            Value::Null => None,
            Value::String(said) if key == "reason" || key == "why" => Some(said.clone()),
            Value::String(said) => Some(format!("{} {said}", words(key))),
            other => Some(format!("{} {other}", words(key))),
        })
        .collect();
    if rest.is_empty() { name.to_owned() } else { format!("{name}: {}", rest.join(", ")) }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_report_names_counts_tapes_and_reasons() {
        let report = json!({
            "dry_run": true,
            "stages": [
                {"stage": "start", "considered": 3, "done": ["V00001", "V00002"], "published": [],
                 "not_yet": [{"vid": "V00003", "reason": "no slot", "until": null}]},
                {"stage": "end"},
            ],
            "odd": [{"tape": "V9", "problems": ["x"]}],
            "trouble": "CTA is away",
        });
        assert_eq!(
            told(&report),
            "start: considered 3, done 2 (V00001 V00002), not yet 1\n  not yet: V00003: no slot\n\
             end: nothing\nodd: V9: problems [\"x\"]\ntrouble: CTA is away\n"
        );
    }

    #[test]
    fn what_is_no_report_is_no_panic() {
        for odd in [json!(null), json!([]), json!({"stages": 7}), json!({"stages": [1, "x", null]})] {
            told(&odd);
        }
    }
}
