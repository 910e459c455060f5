//! A Prometheus of the test's own: it scrapes programs that really run, and evaluates the rules that are shipped.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

use crate::private::{Server, free_ports, mortal};
use crate::services::api_request;
use crate::site::PATIENCE;

/// How often it scrapes, and evaluates its rules.
const INTERVAL: &str = "200ms";

/// Its process and its data. Both end with the test.
#[derive(Debug)]
pub struct Prometheus {
    _dir: TempDir,
    port: u16,
    _server: Server,
}

/// An address for each of as many programs, free when it was chosen.
pub fn addresses<const N: usize>() -> [SocketAddr; N] {
    free_ports().map(|port| SocketAddr::from(([127, 0, 0, 1], port)))
}

/// The rules with every `for:` shortened to a second; expressions and thresholds as they are. How many were shortened.
pub fn without_patience(rules: &str) -> (String, usize) {
    let mut shortened = 0;
    let lines = rules.lines().map(|line| match line.split_once("for: ") {
        Some((indent, _)) if indent.trim().is_empty() => {
            shortened += 1;
            format!("{indent}for: 1s\n")
        }
        _ => format!("{line}\n"),
    });
    (lines.collect(), shortened)
}

impl Prometheus {
    /// Starts one with these rules that scrapes these jobs.
    ///
    /// # Panics
    /// When it does not start: `tests/run` installs it with the package prometheus.
    pub fn start(rules: &str, jobs: &[(&str, SocketAddr)]) -> Prometheus {
        let dir = tempfile::tempdir().expect("a directory");
        let [port] = free_ports();
        let jobs: String = jobs
            .iter()
            .map(|(job, at)| format!("  - {{job_name: {job}, static_configs: [{{targets: ['{at}']}}]}}\n"))
            .collect();
        let configuration = format!(
            "global: {{scrape_interval: {INTERVAL}, scrape_timeout: {INTERVAL}, evaluation_interval: {INTERVAL}}}\n\
             rule_files: [alerts.yaml]\nscrape_configs:\n{jobs}"
        );
        let file = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).expect("a file");
        file("prometheus.yml", &configuration);
        file("alerts.yaml", rules);
        let mut command = mortal(None);
        command.arg("prometheus").current_dir(dir.path()).args([
            "--config.file=prometheus.yml",
            "--storage.tsdb.path=data",
            &format!("--web.listen-address=127.0.0.1:{port}"),
            "--web.console.templates=none",
            "--web.console.libraries=none",
        ]);
        let mut server = Server::start(&mut command, &dir.path().join("log"));
        let url = url(port);
        server
            .until("Prometheus", || api_request(&url, "GET", "/-/ready", None).is_ok_and(|(status, _)| status == 200));
        Prometheus { _dir: dir, port, _server: server }
    }

    /// What it answers now: the value of each series, by the values of its labels in the order of their names, without the
    /// metric's own name.
    ///
    /// # Panics
    /// When it refuses the expression.
    pub fn query(&self, expression: &str) -> BTreeMap<String, f64> {
        let encoded: String = expression
            .bytes()
            .map(
                |byte| if byte.is_ascii_alphanumeric() { char::from(byte).to_string() } else { format!("%{byte:02X}") },
            )
            .collect();
        let path = format!("/api/v1/query?query={encoded}");
        let (status, answer) = api_request(&url(self.port), "GET", &path, None).expect("Prometheus answers");
        assert!(status == 200 && answer["data"]["resultType"] == "vector", "{expression}: {answer}");
        let series = answer["data"]["result"].as_array().expect("a list of series").iter();
        series.map(|series| (labels(&series["metric"]), number(&series["value"][1]))).collect()
    }

    /// Asks until `holds` holds for the answer.
    ///
    /// # Panics
    /// When it does not within [`PATIENCE`].
    #[track_caller]
    pub fn until(&self, expression: &str, holds: impl Fn(&BTreeMap<String, f64>) -> bool) -> BTreeMap<String, f64> {
        let begun = Instant::now();
        loop {
            let answer = self.query(expression);
            if holds(&answer) {
                return answer;
            }
            assert!(begun.elapsed() < PATIENCE, "{expression}: {answer:?}");
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// Names of the rules that fire, or are about to.
    pub fn alerts(&self) -> Vec<String> {
        self.query("count by (alertname) (ALERTS)").into_keys().collect()
    }

    /// Waits until this rule fires, or does so no more.
    ///
    /// # Panics
    /// When it does not come to that within [`PATIENCE`].
    #[track_caller]
    pub fn until_firing(&self, alert: &str, fires: bool) {
        let expression = format!("ALERTS{{alertname=\"{alert}\", alertstate=\"firing\"}}");
        self.until(&expression, |firing| firing.is_empty() != fires);
    }
}

fn url(port: u16) -> String {
    format!("http://nobody:none@127.0.0.1:{port}")
}

fn labels(metric: &Value) -> String {
    let labels: BTreeMap<&str, &str> = metric
        .as_object()
        .expect("labels")
        .iter()
        .filter(|(name, _)| *name != "__name__")
        .map(|(name, value)| (name.as_str(), value.as_str().expect("a label")))
        .collect();
    labels.into_values().collect::<Vec<_>>().join(" ")
}

fn number(value: &Value) -> f64 {
    value.as_str().and_then(|text| text.parse().ok()).expect("a number")
}
