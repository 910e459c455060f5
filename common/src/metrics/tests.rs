use serde_json::json;

use super::*;
use crate::journey::{Mode, State};
use crate::reason::Why;

fn value(text: &str, series: &str) -> Option<f64> {
    text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' ')?.parse().ok())
}

#[test]
fn names_are_as_prometheus_wants_them_and_each_is_described_once() {
    let mut names: Vec<&str> = ALL.iter().map(|metric| metric.name).collect();
    for metric in ALL {
        let name = metric.name;
        assert!(name.starts_with("cta_repack_") || name.starts_with("process_"), "{name}");
        assert!(name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'), "{name}");
        assert_eq!(name.ends_with("_total"), metric.kind == Kind::Counter, "{name}");
        assert!(!metric.labels.iter().any(|label| ["vid", "tape"].contains(label)), "{name}");
        assert!(!metric.about.ends_with('.') && !metric.about.contains('|'), "{name}");
        for unit in ["seconds", "bytes"] {
            let ends = name.trim_end_matches("_total").ends_with(&format!("_{unit}"));
            assert_eq!(ends, metric.unit.starts_with(unit), "{name}");
        }
    }
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), ALL.len());
}

#[test]
fn a_task_counts_once_and_its_time_is_kept() {
    let metrics = Metrics::default();
    assert_eq!(value(&metrics.text("p"), r#"cta_repack_tasks_total{stage="end",outcome="done"}"#), Some(0.0));
    metrics.task("end", "done", None, Duration::from_millis(2500));
    let text = metrics.text("p");
    assert_eq!(value(&text, r#"cta_repack_tasks_total{stage="end",outcome="done"}"#), Some(1.0));
    assert_eq!(value(&text, r#"cta_repack_task_duration_seconds_sum{stage="end",outcome="done"}"#), Some(2.5));
    assert_eq!(
        value(&text, r#"cta_repack_task_duration_seconds_bucket{le="3.0",stage="end",outcome="done"}"#),
        Some(1.0)
    );
    assert!(text.ends_with("# EOF\n"), "{text}");
}

#[test]
fn the_reclaim_gate_counts_what_it_refuses_and_no_trouble_of_the_site() {
    let metrics = Metrics::default();
    let kept = |code| Kept::from(&Why::new(code, "why"));
    metrics.task("reclaim", "stopped", Some(&kept(Code::FilesLeft)), Duration::ZERO);
    metrics.task("reclaim", "site-trouble", Some(&kept(Code::SiteTrouble)), Duration::ZERO);
    metrics.task("finish", "stopped", Some(&kept(Code::FilesLeft)), Duration::ZERO);
    let text = metrics.text("p");
    assert_eq!(value(&text, r#"cta_repack_reclaim_gate_refusals_total{code="files-left"}"#), Some(1.0));
    assert!(!text.contains(r#"refusals_total{code="site-trouble"}"#), "{text}");
}

#[test]
fn the_history_is_counted_under_words_of_ours_only() {
    let metrics = Metrics::default();
    metrics.noted("stopped", Some("end"), &json!({"code": "repack-failed"}));
    metrics.noted("stopped", Some("x\"} 1\n"), &json!({"code": "V01007"}));
    metrics.noted("abandoned", Some("start"), &json!({}));
    metrics.noted("retrying", Some("start"), &json!({}));
    metrics.noted("dead-letter", None, &json!({}));
    metrics.noted("error", None, &json!({}));
    metrics.noted("intent", Some("start"), &json!({}));
    metrics.parked();
    let text = metrics.text("p");
    for series in [
        r#"cta_repack_stops_total{stage="end",code="repack-failed"}"#,
        r#"cta_repack_stops_total{stage="other",code="other"}"#,
        r#"cta_repack_leases_abandoned_total{stage="start"}"#,
        r#"cta_repack_retries_total{stage="start"}"#,
        r#"cta_repack_dead_letters_total{result="no-stop"}"#,
        r#"cta_repack_dead_letters_total{result="mode-error"}"#,
        r#"cta_repack_dead_letters_total{result="parked"}"#,
    ] {
        assert_eq!(value(&text, series), Some(1.0), "{series}\n{text}");
    }
    assert!(!text.contains("V01007"), "{text}");
}

#[test]
fn bytes_of_a_repack_are_read_as_cta_prints_them() {
    let metrics = Metrics::default();
    metrics.repacked(&json!({"archivedBytes": "3900", "archivedFiles": 15}));
    metrics.repacked(&json!({"archivedBytes": "100"}));
    let text = metrics.text("p");
    assert_eq!(value(&text, "cta_repack_repacked_bytes_total"), Some(4000.0));
    assert_eq!(value(&text, "cta_repack_repacked_files_total"), Some(15.0));
}

#[test]
fn what_is_missing_is_named_until_it_is_there() {
    let metrics = Metrics::default();
    assert!(metrics.not_ready().is_empty());
    metrics.set("broker", Err("connection refused"));
    metrics.set("stage start", Err("left alone"));
    metrics.set("database", Ok(()));
    assert_eq!(metrics.not_ready(), ["broker: connection refused", "stage start: left alone"]);
    let text = metrics.text("p");
    assert_eq!(value(&text, r#"cta_repack_connected{to="database"}"#), Some(1.0));
    assert_eq!(value(&text, r#"cta_repack_connected{to="broker"}"#), Some(0.0));
    assert_eq!(value(&text, r#"cta_repack_stage_left{stage="start"}"#), Some(1.0));
    metrics.set("broker", Ok(()));
    metrics.set("stage start", Ok(()));
    assert!(metrics.not_ready().is_empty());
    assert_eq!(value(&metrics.text("p"), r#"cta_repack_stage_left{stage="start"}"#), Some(0.0));
}

#[test]
fn a_picture_adds_up_what_is_alike_and_keeps_the_longest_wait() {
    let group = |class: &str, code: &str, tapes, oldest| Group {
        state: State::Started,
        mode: Mode::Auto,
        class: class.to_owned(),
        code: code.to_owned(),
        tapes,
        oldest,
    };
    let metrics = Metrics::default();
    assert!(!metrics.text("p").contains("cta_repack_tapes"));
    metrics.show(Picture {
        groups: vec![
            group("waiting", "repack-running", 2, 10.0),
            group("waiting", "tape-pending", 3, 99.5),
            group("stalled", "repack-stalled", 1, 5.0),
        ],
        finished: 7,
        queues: vec![Queue { name: "dead".to_owned(), messages: 4, consumers: 0 }],
        ..Picture::default()
    });
    for text in [metrics.text("p"), metrics.textfile()] {
        for (series, expected) in [
            (r#"cta_repack_tapes{state="started",mode="auto"}"#, 6.0),
            (r#"cta_repack_tapes{state="entered",mode="error"}"#, 0.0),
            (r#"cta_repack_waiting_tapes{stage="end",class="waiting"}"#, 5.0),
            (r#"cta_repack_oldest_wait_seconds{stage="end",class="waiting"}"#, 99.5),
            (r#"cta_repack_reason_tapes{stage="end",code="repack-stalled"}"#, 1.0),
            (r#"cta_repack_finished_tapes"#, 7.0),
            (r#"cta_repack_queue_messages{queue="dead"}"#, 4.0),
        ] {
            assert_eq!(value(&text, series), Some(expected), "{series}\n{text}");
        }
    }
    let file = metrics.textfile();
    assert!(!file.contains("counter") && !file.contains("histogram") && !file.contains("process_"), "{file}");
}

async fn get(at: std::net::SocketAddr, request: &str) -> String {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let mut stream = tokio::net::TcpStream::connect(at).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    // A server that refuses the rest of what was sent may close the hard way.
    let _ = stream.read_to_end(&mut answer).await;
    String::from_utf8(answer).unwrap()
}

#[tokio::test]
async fn the_endpoint_answers_what_it_has_and_refuses_the_rest() {
    let metrics = Arc::new(Metrics::default());
    assert!(!metrics.is_served());
    let any = std::net::SocketAddr::from(([127, 0, 0, 1], 0));
    let endpoint = serve::start(any, Arc::clone(&metrics), "p", Duration::from_secs(3600)).await.unwrap();
    assert!(metrics.is_served());
    let at = endpoint.at;
    let ask = async |line: &str| get(at, &format!("{line} HTTP/1.1\r\nHost: x\r\n\r\n")).await;
    let text = ask("GET /metrics").await;
    assert!(text.starts_with("HTTP/1.1 200") && text.contains("application/openmetrics-text"), "{text}");
    assert!(text.contains(r#"cta_repack_build_info{version=""#) && text.contains("process_open_fds"), "{text}");
    assert!(ask("GET /healthz").await.ends_with("alive\n"));
    assert!(ask("GET /readyz").await.starts_with("HTTP/1.1 200"));
    metrics.set("broker", Err("connection refused"));
    let text = ask("GET /readyz").await;
    assert!(text.starts_with("HTTP/1.1 503") && text.ends_with("broker: connection refused\n"), "{text}");
    assert!(ask("GET /").await.starts_with("HTTP/1.1 404"));
    assert!(ask("POST /metrics").await.starts_with("HTTP/1.1 405"));
    let long = format!("GET /metrics HTTP/1.1\r\nHost: x\r\nX: {}\r\n\r\n", "y".repeat(64 << 10));
    assert!(!get(at, &long).await.starts_with("HTTP/1.1 200"));
    assert!(serve::start(at, Arc::clone(&metrics), "p", Duration::ZERO).await.is_err());
}

#[tokio::test]
async fn a_loop_that_stands_still_is_told() {
    let metrics = Arc::new(Metrics::default());
    let any = std::net::SocketAddr::from(([127, 0, 0, 1], 0));
    let endpoint = serve::start(any, Arc::clone(&metrics), "p", Duration::ZERO).await.unwrap();
    while metrics.still_for().is_zero() {
        tokio::task::yield_now().await;
    }
    let text = get(endpoint.at, "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n").await;
    assert!(text.starts_with("HTTP/1.1 503") && text.contains("has not gone round"), "{text}");
}
