//! The transcript in `docs/operations.md` is what the programs really print: it is made again and compared.
//!
//! `REPACK_TEST_WRITE=1 tests/run -p journeys --test operations` writes it anew.

use common::journey::{Mode, State};
use cta_sim::World;
use cta_sim::world::Plan;
use journeys::shell::{MANAGER, Ran};
use journeys::site::{Site, all_at_rest};

const DOCUMENT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/operations.md");
const BEGIN: &str = "<!-- transcript: made by a test -->\n";
const END: &str = "<!-- end of transcript -->\n";

/// Types a line at a terminal of 100 columns, and keeps what is seen.
fn type_line(site: &Site, transcript: &mut String, words: &str, exit: i32) {
    let words: Vec<&str> = words.split_whitespace().collect();
    let ran = Ran::of(site.command(MANAGER).args(&words));
    ran.ended(exit);
    let seen: String = [ran.stdout.as_str(), ran.stderr.as_str()].concat();
    let folder = site.dir.path().display().to_string();
    transcript.push_str(&format!(
        "$ {MANAGER} {}\n{}\n",
        words.join(" "),
        seen.replace(&folder, "/var/log/cta-ops/repack").trim_end()
    ));
    transcript.push('\n');
}

/// The text without what differs from run to run: times, spans, numbers of steps, names of hosts and widths of columns.
fn lasting(text: &str) -> Vec<String> {
    let word = |word: &str| {
        let bare = word.trim_matches(|c: char| "(),;:.".contains(c));
        let is_time = bare.len() >= 8 && bare.bytes().all(|b| b.is_ascii_digit() || b"-:TZ.".contains(&b));
        let is_span =
            bare.ends_with(['d', 'h', 'm', 's']) && bare.bytes().all(|b| b.is_ascii_digit() || b"dhms".contains(&b));
        let is_number = !bare.is_empty() && bare.bytes().all(|b| b.is_ascii_digit());
        let is_host = bare.contains('@') || bare.contains('#') || bare.contains("/repack-tapefile-");
        let is_bar = bare.contains(['█', '#', '░', '▏']);
        if is_time || is_span || is_host || is_bar {
            "~".to_owned()
        } else if is_number && bare.len() > 3 {
            "N".to_owned()
        } else {
            bare.to_owned()
        }
    };
    let of_line = |line: &str| {
        let mut words: Vec<String> = line.split_whitespace().map(word).collect();
        if let Some(number) = words.iter().position(|word| word == "generation").and_then(|at| words.get_mut(at + 1)) {
            "N".clone_into(number);
        }
        words.join(" ")
    };
    text.lines().map(of_line).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_transcript_of_a_failed_repack_is_what_the_programs_print() {
    let mut world = World::new().with_full_tapes(3).with_durations(5, 20);
    world.tapes.get_mut("V01002").unwrap().plan = Plan { fail_files: 2, fail_times: 1, ..Plan::default() };
    let site = Site::new(world).await;
    site.enter(&["V01001", "V01002", "V01003"]).await;
    site.tick_until("V01002 has failed, the others are finished", all_at_rest).await;
    assert_eq!(site.at("V01002").await, (State::Started, Mode::Error));

    let mut transcript = String::new();
    type_line(&site, &mut transcript, "ls --mode error", 0);
    type_line(&site, &mut transcript, "show V01002", 0);
    type_line(&site, &mut transcript, "failed-files V01002", 0);
    type_line(&site, &mut transcript, "retry-failed V01002 --yes", 0);
    site.tick_until("all are finished", all_at_rest).await;
    assert_eq!(site.at("V01002").await, (State::Finished, Mode::Auto));
    type_line(&site, &mut transcript, "ls --all", 0);
    type_line(&site, &mut transcript, "history V01002 --kind stopped,done", 0);

    let document = std::fs::read_to_string(DOCUMENT).unwrap();
    let (before, rest) = document.split_once(BEGIN).expect("the mark before the transcript");
    let (there, after) = rest.split_once(END).expect("the mark behind the transcript");
    if std::env::var_os("REPACK_TEST_WRITE").is_some() {
        std::fs::write(
            DOCUMENT,
            format!("{before}{BEGIN}\n```\n{}```\n\n{END}{after}", transcript.trim_end().to_owned() + "\n"),
        )
        .unwrap();
        return;
    }
    let there = there.trim().trim_matches('`').trim();
    assert_eq!(
        lasting(there),
        lasting(transcript.trim()),
        "docs/operations.md shows something else; see the head of this file"
    );
}
