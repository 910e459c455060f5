//! Documents that could rot are compared with the code.

use common::reason::Code;
use common::settings::STAGE_NAMES;
use common::stages::STAGES;

fn document(path: &str) -> String {
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/..");
    std::fs::read_to_string(format!("{root}/{path}")).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn capital(word: &str) -> String {
    let mut letters = word.chars();
    letters.next().map(|first| first.to_uppercase().chain(letters).collect()).unwrap_or_default()
}

#[test]
fn the_table_of_stages_in_the_journey_is_that_of_the_code() {
    let text = document("docs/journey.md");
    let table = text
        .split("<!-- stages:")
        .nth(1)
        .and_then(|rest| rest.split("<!-- end of stages -->").next())
        .expect("the table");
    let rows: Vec<&str> = table.lines().filter(|line| line.starts_with("| ") && !line.starts_with("| stage")).collect();
    let expected: Vec<String> = STAGES
        .iter()
        .map(|stage| {
            let (from, to) = (capital(stage.from.column()), capital(stage.to.column()));
            format!("| {} | {from} | {to} | {} |", stage.name, stage.about)
        })
        .collect();
    assert_eq!(rows, expected);
    for stage in STAGES {
        let arrow = format!("{} --> {}: {}", capital(stage.from.column()), capital(stage.to.column()), stage.name);
        assert!(text.contains(&arrow), "the diagram lacks {arrow}");
    }
}

#[test]
fn the_names_that_the_configuration_accepts_are_those_of_the_stages() {
    assert_eq!(STAGE_NAMES.to_vec(), STAGES.map(|stage| stage.name).to_vec());
}

#[test]
fn the_readme_names_the_two_commands_that_do_everything() {
    let text = document("README.md");
    for command in ["deploy/quickstart", "tests/run"] {
        assert!(text.contains(&format!("\n{command}\n")), "{command}");
        let root = concat!(env!("CARGO_MANIFEST_DIR"), "/..");
        assert!(std::path::Path::new(&format!("{root}/{command}")).is_file(), "{command}");
    }
}

#[test]
fn links_in_the_documents_lead_somewhere() {
    let root = std::path::Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."));
    for file in documents() {
        let text = document(&file);
        let base = root.join(&file).parent().expect("a directory").to_owned();
        for link in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            if link.starts_with("http") {
                continue;
            }
            let (path, anchor) = link.split_once('#').unwrap_or((link, ""));
            let target = if path.is_empty() { root.join(&file) } else { base.join(path) };
            assert!(target.exists(), "{file} links to {link}");
            if !anchor.is_empty() {
                let there = std::fs::read_to_string(&target).expect("a text");
                assert!(headings(&there).any(|heading| heading.1 == anchor), "{file} links to {link}: no such heading");
            }
        }
    }
}

/// Every document that a reader is sent to.
fn documents() -> Vec<String> {
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/..");
    let in_docs = std::fs::read_dir(format!("{root}/docs")).expect("docs").map(|entry| entry.expect("an entry"));
    let mut files: Vec<String> = in_docs
        .map(|entry| format!("docs/{}", entry.file_name().to_string_lossy()))
        .filter(|name| name.ends_with(".md"))
        .collect();
    files.extend(["README.md", "CONTRIBUTING.md", "CHANGELOG.md"].map(str::to_owned));
    files
}

/// Level and anchor of each heading.
fn headings(text: &str) -> impl Iterator<Item = (usize, String)> {
    text.lines().filter_map(|line| {
        let level = line.bytes().take_while(|byte| *byte == b'#').count();
        let title = line.get(level..)?.strip_prefix(' ')?;
        let kept =
            title.to_lowercase().chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c)).collect::<String>();
        (level > 0).then(|| (level, kept.replace(' ', "-")))
    })
}

/// Codes that are no reason of a stage but say how a row stands; `docs/json-manager.md` lists them too.
const OF_THE_ROW: [&str; 12] = [
    "manual",
    "error-set-elsewhere",
    "odd-row",
    "working",
    "due",
    "queued",
    "not-due",
    "not-seen-yet",
    "lease-expired",
    "no-next-attempt",
    "stopped",
    "finished",
];

#[test]
fn the_runbook_has_a_section_for_each_code_and_no_other() {
    let text = document("docs/runbook.md");
    let mut sections: Vec<String> = headings(&text).filter(|heading| heading.0 == 3).map(|heading| heading.1).collect();
    let mut expected: Vec<String> = Code::ALL.iter().map(|code| code.name().to_owned()).collect();
    expected.extend(OF_THE_ROW.map(str::to_owned));
    // No tape has it: an alert leads there.
    expected.push("mail-failed".to_owned());
    sections.sort();
    expected.sort();
    assert_eq!(sections, expected);
    let explained = document("docs/json-manager.md");
    for code in OF_THE_ROW {
        assert!(explained.contains(&format!("`{code}`")), "docs/json-manager.md does not name {code}");
    }
}

#[test]
fn each_section_of_the_runbook_says_what_to_do() {
    let text = document("docs/runbook.md");
    for section in text.split("\n### ").skip(1) {
        let name = section.lines().next().unwrap_or_default();
        let body = section.split("\n## ").next().unwrap_or_default();
        let says = ["\nDo: ", "\nLook", "\nBy itself: "].iter().any(|start| body.contains(start));
        let about_the_row = ["working", "not-due", "not-seen-yet", "finished"].contains(&name);
        assert!(says || about_the_row, "{name} says nothing to do");
    }
}
