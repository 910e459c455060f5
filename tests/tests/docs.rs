//! Documents that could rot are compared with the code.

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
    for file in ["README.md", "CONTRIBUTING.md", "docs/journey.md", "docs/decisions.md", "docs/json.md"] {
        let text = document(file);
        let base = root.join(file).parent().expect("a directory").to_owned();
        for link in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            if !link.starts_with("http") && !link.starts_with('#') {
                let target = link.split('#').next().unwrap_or_default();
                assert!(base.join(target).exists(), "{file} links to {link}");
            }
        }
    }
}
