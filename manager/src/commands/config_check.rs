//! `config check`: everything that is wrong with the configuration file, in one run.

use std::path::Path;

use common::settings::{Loaded, Problem, Problems};
use serde_json::{Value, json};

use crate::output::{Desk, Exit};

mod here;

/// Says what is wrong.
///
/// # Errors
/// When nobody can be told.
pub fn run(
    path: &Path,
    loaded: Result<Loaded, Problems>,
    strict: bool,
    json: bool,
    desk: &mut Desk<'_>,
) -> anyhow::Result<Exit> {
    let loaded = loaded.map(|mut loaded| {
        let found = here::look(&loaded.settings);
        loaded.warnings.extend(found);
        loaded
    });
    report(path, loaded, strict, json, desk)
}

fn report(
    path: &Path,
    loaded: Result<Loaded, Problems>,
    strict: bool,
    json: bool,
    desk: &mut Desk<'_>,
) -> anyhow::Result<Exit> {
    let (errors, warnings) = match loaded {
        Ok(Loaded { warnings, .. }) if strict => (warnings, Vec::new()),
        Ok(Loaded { warnings, .. }) => (Vec::new(), warnings),
        Err(Problems { mut errors, warnings, .. }) if strict => {
            errors.extend(warnings);
            (errors, Vec::new())
        }
        Err(Problems { errors, warnings, .. }) => (errors, warnings),
    };
    let exit = if errors.is_empty() { Exit::Done } else { Exit::Misuse };
    if json {
        let list = |problems: &[Problem]| problems.iter().map(object).collect::<Vec<Value>>();
        desk.data(
            &json!({"file": path, "ok": errors.is_empty(), "errors": list(&errors), "warnings": list(&warnings)})
                .to_string(),
        )?;
        return Ok(exit);
    }
    for error in &errors {
        desk.data(&format!("error: {error}"))?;
    }
    for warning in &warnings {
        desk.data(&format!("warning: {warning}"))?;
    }
    let file = crate::output::clean(&path.to_string_lossy());
    match (errors.len(), warnings.len()) {
        (0, 0) => desk.data(&format!("{file}: ok"))?,
        (0, n) => desk.data(&format!("{file}: can be used, with {n} warning{}", plural(n)))?,
        (n, _) => desk.data(&format!("{file}: cannot be used, {n} error{}", plural(n)))?,
    }
    Ok(exit)
}

fn object(problem: &Problem) -> Value {
    json!({"line": problem.line, "key": problem.key, "value": problem.value, "expected": problem.expected})
}

fn plural(count: usize) -> &'static str {
    if count == 1 { "" } else { "s" }
}

#[cfg(test)]
mod tests {
    use common::settings::{Settings, parse};

    use super::*;

    fn check(loaded: Result<Loaded, Problems>, strict: bool, json: bool) -> (Exit, String) {
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let mut desk = Desk { out: &mut out, err: &mut err, ask: None, width: None, colour: false };
        let exit = report(Path::new("/etc/x.yaml"), loaded, strict, json, &mut desk).unwrap();
        (exit, String::from_utf8(out).unwrap())
    }

    fn problem(key: &str) -> Problem {
        Problem { line: Some(3), key: key.to_owned(), value: "x".to_owned(), expected: "a number".to_owned() }
    }

    fn usable(warnings: Vec<Problem>) -> Result<Loaded, Problems> {
        Ok(Loaded { settings: Settings::default(), warnings, file: None })
    }

    #[test]
    fn warnings_are_errors_only_when_checked_strictly() {
        assert_eq!(check(usable(Vec::new()), true, false).0, Exit::Done);
        let (exit, text) = check(usable(vec![problem("kez")]), false, false);
        assert_eq!(exit, Exit::Done);
        assert!(text.contains("warning: line 3: kez is x: a number"), "{text}");
        let (exit, text) = check(usable(vec![problem("kez")]), true, false);
        assert_eq!(exit, Exit::Misuse);
        assert!(text.contains("error: line 3: kez"), "{text}");
    }

    #[test]
    fn every_problem_is_named_in_one_run() {
        let problems =
            Problems { file: None, errors: vec![problem("one"), problem("two")], warnings: vec![problem("three")] };
        let (exit, text) = check(Err(problems.clone()), false, false);
        assert_eq!(exit, Exit::Misuse);
        assert!(["one", "two", "three"].iter().all(|key| text.contains(key)), "{text}");
        let (exit, text) = check(Err(problems), false, true);
        assert_eq!(exit, Exit::Misuse);
        let value: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(value["errors"][1]["key"], "two");
        assert_eq!(value["warnings"][0]["line"], 3);
        assert_eq!(value["ok"], false);
    }

    #[test]
    fn a_file_that_cannot_be_parsed_is_misuse() {
        let (exit, text) = check(parse("tools: [", &|_| None), false, false);
        assert_eq!(exit, Exit::Misuse);
        assert!(text.starts_with("error: "), "{text}");
    }
}
