//! The table of faults in the documentation is complete, and names only tests that there are.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the repository")
}

fn sources(directory: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(directory).expect("a directory of sources") {
        let path = entry.expect("an entry").path();
        if path.is_dir() && path.file_name().is_some_and(|name| name != "target") {
            sources(&path, found);
        } else if path.extension().is_some_and(|end| end == "rs") {
            found.push(path);
        }
    }
}

/// Names of all test functions, also of those that a macro makes (`name: Action::...`) and of those that a test program with
/// a main of its own lists (`name,`).
fn tests() -> BTreeSet<String> {
    let mut paths = Vec::new();
    for part in ["common", "producer", "worker", "manager", "tests"] {
        sources(&root().join(part), &mut paths);
    }
    let mut names = BTreeSet::new();
    for path in paths {
        let text = std::fs::read_to_string(&path).expect("a source file");
        let mut is_test = false;
        for line in text.lines().map(str::trim) {
            let function = line.trim_start_matches("async ").strip_prefix("fn ");
            match (function, line.split_once(": Action::")) {
                (Some(rest), _) if is_test => drop(names.insert(rest.split('(').next().unwrap_or_default().to_owned())),
                (None, Some((name, _))) => drop(names.insert(name.to_owned())),
                (None, None) => {
                    let listed = line.strip_suffix(',').filter(|name| text.contains(&format!("fn {name}()")));
                    names.extend(listed.map(str::to_owned));
                }
                _ => {}
            }
            let attribute = line.starts_with("#[") || line.starts_with("//") || line.is_empty();
            is_test = line == "#[test]" || line.starts_with("#[tokio::test") || (is_test && attribute);
        }
    }
    names
}

/// Rows of the table: number, and what it is shown by.
fn rows() -> Vec<(usize, String)> {
    let text = std::fs::read_to_string(root().join("docs/reliability.md")).expect("the document");
    let row = |line: &str| {
        let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
        match cells[..] {
            [number, fault, shown] if !fault.is_empty() => Some((number.parse().ok()?, shown.to_owned())),
            _ => None,
        }
    };
    text.lines().filter(|line| line.starts_with("| ")).filter_map(row).collect()
}

#[test]
fn every_fault_has_a_row_and_every_row_names_tests_that_there_are() {
    let rows = rows();
    assert_eq!(rows.iter().map(|(number, _)| *number).collect::<Vec<_>>(), (1..=63).collect::<Vec<_>>());
    let tests = tests();
    let mut missing = Vec::new();
    for (number, shown) in rows {
        let named: Vec<&str> = shown.split('`').skip(1).step_by(2).collect();
        assert!(!named.is_empty(), "row {number} names nothing");
        for name in named {
            let there = if name.contains('/') { root().join(name).is_file() } else { tests.contains(name) };
            if !there {
                missing.push(format!("row {number}: {name}"));
            }
        }
    }
    assert!(missing.is_empty(), "no such tests:\n{}", missing.join("\n"));
}
