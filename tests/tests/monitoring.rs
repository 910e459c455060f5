//! What Prometheus is told: the documents, the rules and the dashboard name what is really served, and the numbers are true.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use common::metrics::{ALL, Kind, Served, table};
use cta_sim::World;
use journeys::services::Services;
use journeys::site::{PATIENCE, Site};
use serde_json::Value;

fn file(path: &str) -> String {
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/..");
    std::fs::read_to_string(format!("{root}/{path}")).unwrap_or_else(|error| panic!("{path}: {error}"))
}

#[test]
fn the_table_of_metrics_is_that_of_the_code() {
    let text = file("docs/metrics.md");
    let begin = text.find("| name |").expect("a table");
    let end = text.find("<!-- end of metrics -->").expect("the end of the table");
    assert!(text[begin..end] == table(), "docs/metrics.md should have:\n{}", table());
}

/// Names of metrics in an expression: words that begin as ours do, without what a histogram adds.
fn names(expression: &str) -> BTreeSet<String> {
    expression
        .split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'))
        .filter(|word| word.starts_with("cta_repack_"))
        .map(|word| {
            let base = ["_bucket", "_sum", "_count"].iter().find_map(|end| word.strip_suffix(end));
            base.filter(|base| is_histogram(base)).unwrap_or(word).to_owned()
        })
        .collect()
}

fn is_histogram(name: &str) -> bool {
    ALL.iter().any(|metric| metric.name == name && metric.kind == Kind::Histogram)
}

fn assert_described(names: &BTreeSet<String>, place: &str) {
    for name in names {
        assert!(ALL.iter().any(|metric| metric.name == name), "{place} names {name}, which nobody serves");
    }
}

#[test]
fn the_rules_and_the_dashboard_name_metrics_that_are_served() {
    let rules = file("deploy/prometheus/alerts.yaml");
    let named = names(&rules);
    assert!(named.len() >= 10, "{named:?}");
    assert_described(&named, "alerts.yaml");
    assert_described(&names(&file("deploy/prometheus/alerts_test.yaml")), "alerts_test.yaml");
    let dashboard: Value = serde_json::from_str(&file("deploy/grafana/dashboard.json")).expect("JSON");
    let panels = dashboard["panels"].as_array().expect("panels");
    let mut shown = BTreeSet::new();
    for panel in panels {
        for target in panel["targets"].as_array().expect("targets") {
            let expression = target["expr"].as_str().expect("an expression");
            let found = names(expression);
            assert!(!found.is_empty(), "{} shows none of our metrics: {expression}", panel["title"]);
            assert_described(&found, "the dashboard");
            shown.extend(found);
        }
    }
    assert!(shown.len() >= 15, "{shown:?}");
}

/// Where the packages put the runbook: whoever reads an alert elsewhere still has the whole path.
const RUNBOOK: &str = "file:///usr/share/doc/cta-ops-repack/docs/runbook.md#";

fn severity(rule: &str) -> &str {
    let (_, rest) = rule.split_once("severity: ").expect("a severity");
    rest.split('}').next().expect("a word")
}

#[test]
fn the_runbook_is_where_the_rules_say_it_is() {
    let build = file("deploy/package/build");
    assert!(build.contains("package=cta-ops-repack\n") && build.contains("docs=/usr/share/doc/$package\n"));
    assert!(build.contains("/docs/*.md; do put 0644 \"$file\" \"$docs/docs/$(basename \"$file\")\""), "{build}");
    let (metrics, rules) = (file("docs/metrics.md"), file("deploy/prometheus/alerts.yaml"));
    // The command that leads them elsewhere works on every one of them.
    let script = metrics.split("sed '").nth(1).and_then(|rest| rest.split('\'').next()).expect("a command");
    let ran = Command::new("sed")
        .args([script, concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/prometheus/alerts.yaml")])
        .output();
    let moved = String::from_utf8(ran.expect("sed").stdout).expect("text");
    let count = |text: &str, link: &str| {
        text.lines().filter(|line| line.contains("runbook_url: ") && line.contains(link)).count()
    };
    assert!(count(&rules, RUNBOOK) >= 12);
    assert_eq!(
        (count(&moved, RUNBOOK), count(&moved, "https://wiki.example.org/repack/runbook#")),
        (0, count(&rules, RUNBOOK))
    );
}

#[test]
fn every_rule_leads_to_a_section_of_the_runbook_and_says_what_it_is_about() {
    let runbook = file("docs/runbook.md");
    let sections: BTreeSet<String> = runbook
        .lines()
        .filter(|line| line.starts_with('#'))
        .map(|line| line.trim_start_matches('#').trim().to_lowercase().replace(' ', "-"))
        .collect();
    let (rules, metrics) = (file("deploy/prometheus/alerts.yaml"), file("docs/metrics.md"));
    let blocks: Vec<&str> = rules.split("- alert: ").skip(1).collect();
    assert!(blocks.len() >= 12);
    for block in blocks {
        let name = block.lines().next().expect("a name");
        let value = |key: &str| {
            let line = block.lines().find_map(|line| line.trim().strip_prefix(key));
            line.unwrap_or_else(|| panic!("{name} has no {key}")).trim().trim_matches('"').to_owned()
        };
        assert!(!value("summary:").is_empty() && !value("description:").is_empty(), "{name}");
        let link = value("runbook_url:");
        let section = link.strip_prefix(RUNBOOK).unwrap_or_else(|| panic!("{name}: {link}"));
        assert!(link == format!("{RUNBOOK}{section}") && !section.is_empty(), "{name}: {link}");
        let row = format!("\n| `{name}` | {} |", severity(block));
        assert!(metrics.contains(&row), "docs/metrics.md has no row for {name} of its severity");
        assert!(section.contains("{{") || sections.contains(section), "{name}: no section {section} in the runbook");
        assert!(file("deploy/prometheus/alerts_test.yaml").contains(&format!("{name} fires")), "{name} is not tested");
    }
}

#[test]
fn every_rule_fires_for_what_it_is_for_and_is_silent_otherwise() {
    let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/prometheus");
    for words in [&["check", "rules", "alerts.yaml"], &["test", "rules", "alerts_test.yaml"]] {
        let ran = Command::new("promtool").args(words).current_dir(directory).output();
        let ran = ran.expect("promtool is there: tests/run installs it with the package prometheus");
        let said = String::from_utf8_lossy(&ran.stdout) + String::from_utf8_lossy(&ran.stderr);
        assert!(ran.status.success() && said.contains("SUCCESS"), "{words:?}: {said}");
    }
}

/// A program of ours with an endpoint; ended when dropped.
struct Running {
    child: Child,
    at: SocketAddr,
}

impl Running {
    fn start(mut command: Command) -> Running {
        let mut child = command.stderr(Stdio::piped()).stdout(Stdio::null()).spawn().expect("the program");
        let mut lines = BufReader::new(child.stderr.take().expect("its stderr")).lines();
        let mut said = String::new();
        let at = lines
            .by_ref()
            .map_while(Result::ok)
            .find_map(|line| {
                let at = line.split("metrics at http://").nth(1).and_then(|rest| rest.split('/').next()?.parse().ok());
                said.push_str(&line);
                at
            })
            .unwrap_or_else(|| panic!("it says where its metrics are: {said}"));
        // Somebody must read what it says.
        std::thread::spawn(move || lines.map_while(Result::ok).for_each(drop));
        Running { child, at }
    }

    fn get(&self, path: &str) -> (u16, String) {
        let mut stream = TcpStream::connect(self.at).expect("the endpoint");
        write!(stream, "GET {path} HTTP/1.1\r\nHost: here\r\n\r\n").expect("a request");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("an answer");
        let (head, body) = answer.split_once("\r\n\r\n").expect("a head and a body");
        (head.split(' ').nth(1).expect("a status").parse().expect("a number"), body.to_owned())
    }

    /// Waits for metrics of which this holds.
    fn until(&self, what: &str, holds: impl Fn(&Scrape) -> bool) -> Scrape {
        let begun = Instant::now();
        loop {
            let scrape = Scrape::of(&self.get("/metrics").1);
            if holds(&scrape) {
                return scrape;
            }
            assert!(begun.elapsed() < PATIENCE, "{what}: {scrape:#?}");
            std::thread::sleep(std::time::Duration::from_millis(100));
        }
    }

    fn until_ready(&self) {
        let begun = Instant::now();
        while self.get("/readyz") != (200, "ready\n".to_owned()) {
            assert!(begun.elapsed() < PATIENCE, "{:?}", self.get("/readyz"));
            std::thread::sleep(std::time::Duration::from_millis(100));
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What was served: types by name, values by series.
#[derive(Debug)]
struct Scrape {
    types: BTreeMap<String, String>,
    series: BTreeMap<String, f64>,
}

impl Scrape {
    fn of(text: &str) -> Scrape {
        let mut scrape = Scrape { types: BTreeMap::new(), series: BTreeMap::new() };
        for line in text.lines() {
            if let Some(described) = line.strip_prefix("# TYPE ") {
                let (name, kind) = described.split_once(' ').expect("a name and a type");
                let name = if kind == "counter" { format!("{name}_total") } else { name.to_owned() };
                scrape.types.insert(name, kind.to_owned());
            } else if !line.starts_with('#') {
                let (series, value) = line.rsplit_once(' ').expect("a series and a value");
                scrape.series.insert(series.to_owned(), value.parse().expect("a number"));
            }
        }
        scrape
    }

    fn value(&self, series: &str) -> f64 {
        *self.series.get(series).unwrap_or_else(|| panic!("no {series} in {self:#?}"))
    }

    /// The sum over the series of a metric that have all these labels.
    fn sum(&self, name: &str, labels: &[&str]) -> f64 {
        let of =
            |series: &str| series.split('{').next() == Some(name) && labels.iter().all(|label| series.contains(label));
        self.series.iter().filter(|(series, _)| of(series)).map(|(_, value)| value).sum()
    }

    /// Everything that is served is described, and everything that is described is served.
    fn assert_as_described(&self, by: &[Served]) {
        let described: BTreeMap<String, String> = ALL
            .iter()
            .filter(|metric| by.contains(&metric.served))
            .map(|metric| (metric.name.to_owned(), metric.kind.name().to_owned()))
            .collect();
        assert_eq!(self.types, described);
        for series in self.series.keys() {
            let (name, labels) = series.split_once('{').unwrap_or((series, ""));
            let metric = ALL.iter().find(|metric| names_of(metric.name, metric.kind).contains(&name.to_owned()));
            let metric = metric.unwrap_or_else(|| panic!("{series} is not described"));
            let named: BTreeSet<&str> = labels
                .split("\",")
                .filter_map(|pair| pair.split('=').next())
                .filter(|name| !name.is_empty() && *name != "le")
                .collect();
            let mut expected: BTreeSet<&str> = metric.labels.iter().copied().collect();
            expected.retain(|label| !label.is_empty());
            assert_eq!(named, expected, "{series}");
        }
    }
}

fn names_of(name: &str, kind: Kind) -> Vec<String> {
    match kind {
        Kind::Histogram => ["bucket", "sum", "count"].map(|end| format!("{name}_{end}")).into(),
        Kind::Counter | Kind::Gauge => vec![name.to_owned()],
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_live_site_serves_what_is_described_and_its_numbers_are_those_of_the_database() {
    let vhost = Services::get().fresh_vhost();
    let mut site = Site::new(World::new().with_full_tapes(3).with_durations(20, 100)).await;
    let any = Some(SocketAddr::from(([127, 0, 0, 1], 0)));
    site.settings.broker = Some(vhost.broker());
    site.settings.producer.interval = std::time::Duration::from_millis(300);
    site.settings.producer.metrics_listen = any;
    site.settings.worker.metrics_listen = any;
    site.enter(&["V01001", "V01002", "V01003"]).await;
    site.sql("UPDATE repack_status SET mode = 'manual' WHERE tape = 'V01003'").await;
    let worker = Running::start(site.command("cta-ops-repack-worker"));
    let mut command = site.command("cta-ops-repack-producer");
    command.arg("run");
    let producer = Running::start(command);
    let finished = |scrape: &Scrape| scrape.series.get("cta_repack_finished_tapes") == Some(&2.0);
    let seen = producer.until("two tapes finished", |scrape| {
        finished(scrape) && scrape.series.contains_key("cta_repack_queue_consumers{queue=\"dead\"}")
    });
    seen.assert_as_described(&[Served::Producer, Served::ProducerWithBroker, Served::Both]);
    assert_eq!(seen.value("cta_repack_tapes{state=\"entered\",mode=\"manual\"}"), 1.0);
    assert_eq!(seen.sum("cta_repack_tapes", &[]), 1.0);
    assert_eq!(seen.value("cta_repack_slots_taken"), 0.0);
    assert_eq!(seen.value("cta_repack_slots"), 10.0);
    assert_eq!(seen.value("cta_repack_connected{to=\"broker\"}"), 1.0);
    assert!(seen.sum("cta_repack_queue_consumers", &["queue=\"start\""]) >= 1.0);

    let of_worker =
        worker.until("the worker's counters", |scrape| scrape.sum("cta_repack_tasks_total", &["done"]) >= 10.0);
    of_worker.assert_as_described(&[Served::Worker, Served::Both]);
    for stage in ["start", "end", "quarantine", "reclaim", "finish"] {
        let labels = [&*format!("stage=\"{stage}\""), "outcome=\"done\""];
        assert_eq!(of_worker.sum("cta_repack_tasks_total", &labels), 2.0, "{stage}");
        assert_eq!(of_worker.sum("cta_repack_task_duration_seconds_count", &labels), 2.0, "{stage}");
    }
    let reclaims = ["command=\"reclaim\"", "outcome=\"accepted\""];
    assert_eq!(of_worker.sum("cta_repack_cta_admin_duration_seconds_count", &reclaims), 2.0);
    let client = site.database.client().await;
    let bytes: i64 = client
        .query_one("SELECT sum((line #>> '{repack,archivedBytes}')::bigint)::bigint FROM repack_status_statistic", &[])
        .await
        .expect("the statistics")
        .get(0);
    assert!(bytes > 0);
    #[expect(clippy::cast_precision_loss, reason = "a small world")]
    let bytes = bytes as f64;
    assert_eq!(of_worker.value("cta_repack_repacked_bytes_total"), bytes);
    for program in [&worker, &producer] {
        program.until_ready();
        assert_eq!(program.get("/healthz"), (200, "alive\n".to_owned()));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tick_of_a_timer_leaves_the_picture_in_a_file_that_others_can_read() {
    use std::os::unix::fs::PermissionsExt as _;
    let mut site = Site::new(World::new().with_full_tapes(2).with_durations(0, 600_000)).await;
    let path = site.dir.path().join("cta-ops-repack.prom");
    site.settings.producer.metrics_textfile = Some(path.clone());
    site.enter(&["V01001", "V01002"]).await;
    site.sql("UPDATE repack_status SET mode = 'error' WHERE tape = 'V01002'").await;
    let ran = site.command("cta-ops-repack-producer").arg("tick").output().expect("a tick");
    assert!(ran.status.success(), "{ran:?}");
    let scrape = Scrape::of(&std::fs::read_to_string(&path).expect("the file"));
    scrape.assert_as_described(&[Served::Producer]);
    assert!(scrape.types.values().all(|kind| kind == "gauge"), "{scrape:?}");
    assert_eq!(scrape.value("cta_repack_tapes{state=\"entered\",mode=\"error\"}"), 1.0);
    assert_eq!(scrape.sum("cta_repack_tapes", &["mode=\"auto\""]), 1.0);
    assert_eq!(scrape.value("cta_repack_slots_taken"), 1.0);
    assert_eq!(std::fs::metadata(&path).expect("the file").permissions().mode() & 0o777, 0o644);
    let others = std::fs::read_dir(site.dir.path()).expect("the directory").flatten();
    assert!(!others.into_iter().any(|entry| entry.file_name().to_string_lossy().starts_with(".cta-ops-repack")));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_that_was_chosen_must_be_had() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let vhost = Services::get().fresh_vhost();
    let mut site = Site::new(World::new().with_full_tapes(1)).await;
    site.settings.broker = Some(vhost.broker());
    let at = taken.local_addr().expect("its address");
    site.settings.producer.metrics_listen = Some(at);
    for (program, words) in [
        ("cta-ops-repack-producer", vec!["run".to_owned()]),
        ("cta-ops-repack-worker", vec!["--metrics-listen".to_owned(), at.to_string()]),
    ] {
        let ran = site.command(program).args(&words).output().expect("the program");
        let said = String::from_utf8_lossy(&ran.stderr);
        assert_eq!(ran.status.code(), Some(2), "{program}: {said}");
        assert!(said.contains(&at.to_string()) && said.contains("metrics_listen"), "{program}: {said}");
    }
}
