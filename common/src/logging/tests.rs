use std::io::{self, Write};
use std::sync::Mutex;
use std::sync::mpsc;

use serde_json::Value;
use tracing::subscriber::with_default;

use super::*;

type Kept = Arc<Mutex<Vec<String>>>;

fn keep(lines: &Kept) -> impl Fn(Vec<u8>) + Send + Sync + 'static {
    let lines = lines.clone();
    move |line| lines.lock().unwrap().push(String::from_utf8(line).unwrap())
}

/// What is written to the file and to people while `work` runs.
fn logged(filter: EnvFilter, colour: bool, work: impl FnOnce()) -> (Vec<String>, Vec<String>) {
    let (file, people) = (Kept::default(), Kept::default());
    let human = Human { date_format: "%Y".to_owned(), colour, journal: false };
    let subscriber =
        subscriber(filter, Json::new("cta-ops-test"), keep(&file), human, LevelFilter::TRACE, keep(&people));
    with_default(subscriber, work);
    let lines = |kept: &Kept| kept.lock().unwrap().clone();
    (lines(&file), lines(&people))
}

fn json(line: &str) -> Value {
    assert_eq!(line.matches('\n').count(), 1, "{line}");
    serde_json::from_str(line).unwrap()
}

#[test]
fn a_json_line_has_the_fixed_keys_first_and_then_the_events_fields() {
    let (file, _) = logged(default_filter(false), false, || {
        tracing::warn!(vid = "V01007", duration_ms = 5_u64, ratio = 0.5, ok = true, "moved on");
    });
    let line = json(&file[0]);
    let keys: Vec<_> = line.as_object().unwrap().keys().map(String::as_str).collect();
    let fixed = "epoch_time local_time hostname program log_level pid tid message log_schema_version";
    assert_eq!(keys.join(" "), format!("{fixed} tapeVid duration_ms ratio ok"));
    assert_eq!(line["message"], "moved on");
    assert_eq!((&line["program"], &line["log_level"]), (&"cta-ops-test".into(), &"WARN".into()));
    assert_eq!((&line["tapeVid"], &line["duration_ms"], &line["ok"]), (&"V01007".into(), &5.into(), &true.into()));
    assert_eq!((&line["log_schema_version"], &line["pid"]), (&"0.2.0".into(), &std::process::id().into()));
    assert!(line["tid"].as_u64().unwrap() > 0 && !line["hostname"].as_str().unwrap().is_empty());
    let local = line["local_time"].as_str().unwrap();
    let at = chrono::DateTime::parse_from_str(local, "%Y-%m-%dT%H:%M:%S%z").unwrap();
    assert!((line["epoch_time"].as_f64().unwrap() - at.timestamp() as f64).abs() < 1.0 + 1e-6, "{line}");
}

#[test]
fn threads_have_numbers_of_their_own() {
    let (file, _) = logged(default_filter(false), false, || {
        tracing::info!("here");
        let dispatch = tracing::dispatcher::get_default(Clone::clone);
        let there = move || tracing::dispatcher::with_default(&dispatch, || tracing::info!("there"));
        std::thread::spawn(there).join().unwrap();
    });
    assert_ne!(json(&file[0])["tid"], json(&file[1])["tid"]);
}

#[test]
fn fields_of_spans_are_added_and_the_innermost_wins() {
    let (file, people) = logged(default_filter(false), false, || {
        let outer = tracing::info_span!("delivery", vid = "V01007", stage = "start", epoch = tracing::field::Empty);
        outer.record("epoch", 7);
        let _outer = outer.enter();
        let _inner = tracing::info_span!("act", stage = "end").entered();
        tracing::info!(vid = "V01008", "here");
    });
    let line = json(&file[0]);
    assert_eq!((&line["tapeVid"], &line["stage"], &line["epoch"]), (&"V01008".into(), &"end".into(), &7.into()));
    assert!(people[0].ends_with(" INFO here vid=V01008 stage=end epoch=7\n"), "{}", people[0]);
}

#[test]
fn no_field_replaces_a_fixed_key() {
    let (file, _) = logged(default_filter(false), false, || tracing::info!(pid = "mine", log_level = "none", "text"));
    let line = json(&file[0]);
    assert_eq!((&line["pid"], &line["pid_"]), (&std::process::id().into(), &"mine".into()));
    assert_eq!((&line["log_level"], &line["log_level_"]), (&"INFO".into(), &"none".into()));
}

#[test]
fn nothing_in_a_message_or_field_leaves_its_line_or_steers_the_terminal() {
    let evil = "a\nERROR forged\r\x1b[2J\u{9b}31m\u{202e}\u{2028}\0";
    let (file, people) = logged(default_filter(false), false, || {
        tracing::info!(note = evil, "{evil}");
        tracing::info!(vid = ?evil, "plain");
    });
    assert_eq!((file.len(), people.len()), (2, 2));
    assert_eq!(json(&file[0])["message"], evil);
    assert!(!file.concat().contains('\x1b'));
    for line in &people {
        let rest = line.strip_suffix('\n').unwrap();
        assert!(!rest.contains(|c: char| c.is_control() || c == '\u{202e}' || c == '\u{2028}'), "{rest:?}");
    }
    assert!(people[0].contains("a\\nERROR forged"), "{}", people[0]);
}

#[test]
fn colour_is_there_only_when_asked_for() {
    let work = || tracing::error!("broken");
    let (file, plain) = logged(default_filter(false), false, work);
    let (_, coloured) = logged(default_filter(false), true, work);
    assert!(!plain[0].contains('\x1b') && !file[0].contains('\x1b'));
    assert!(coloured[0].contains("\x1b[31mERROR\x1b[0m broken"), "{}", coloured[0]);
}

#[test]
fn errors_are_written_with_their_causes() {
    let (file, _) = logged(default_filter(false), false, || {
        let error = crate::settings::Problems::from("cannot be read".to_owned());
        tracing::error!(error = &error as &(dyn std::error::Error + 'static), "stopped");
    });
    assert!(json(&file[0])["error"].as_str().unwrap().contains("cannot be read"));
}

#[test]
fn what_can_hold_a_password_is_not_logged_whatever_the_environment_says() {
    for wanted in ["trace", "lapin=trace", "lapin::io_loop=trace,amq_protocol=debug", "[login]=trace"] {
        let (file, people) = logged(filter(Some(wanted), false).unwrap(), false, || {
            let _login = tracing::error_span!("login").entered();
            tracing::trace!(target: "lapin::io_loop", "frame [71, 101, 104]");
            tracing::debug!(target: "lapin::channel", "frame [71, 101, 104]");
            tracing::debug!(target: "amq_protocol::frame", "frame [71, 101, 104]");
        });
        assert_eq!((file.len(), people.len()), (0, 0), "{wanted}: {file:?}");
    }
    let (file, _) = logged(filter(Some("trace"), false).unwrap(), false, || {
        tracing::info!(target: "lapin::channel", "connected");
        tracing::trace!(target: "tokio_postgres", "asked");
    });
    assert_eq!(file.len(), 2);
}

fn messages(filter: EnvFilter) -> Vec<String> {
    let (file, _) = logged(filter, false, || {
        tracing::debug!("our debug");
        tracing::info!("our info");
        tracing::info!(target: "lapin::channel", "their info");
        tracing::warn!(target: "tokio_postgres", "their warning");
        tracing::info!(target: "cta_ops_repack_worker::delivery", "worker info");
    });
    file.iter().map(|line| json(line)["message"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn ours_is_logged_from_info_or_debug_and_theirs_from_warn_unless_the_environment_says_otherwise() {
    assert_eq!(messages(default_filter(false)), ["our info", "their warning", "worker info"]);
    assert_eq!(messages(default_filter(true)), ["our debug", "our info", "their warning", "worker info"]);
    assert_eq!(messages(filter(None, false).unwrap()), messages(default_filter(false)));
    assert_eq!(messages(filter(Some("error,lapin=info"), true).unwrap()), ["their info"]);
    assert!(filter(Some("common=loud"), false).is_err());
}

#[test]
fn a_date_format_that_cannot_be_used_costs_the_format_not_the_line() {
    let human = Human { date_format: "%Q".to_owned(), colour: false, journal: false };
    let event = lines::Logged {
        at: chrono::Local::now(),
        level: tracing::Level::INFO,
        message: "m".into(),
        fields: serde_json::Map::new(),
    };
    assert!(String::from_utf8(human.line(event)).unwrap().ends_with(" INFO m\n"));
}

/// Says when a write begins, then waits to be let through.
struct Gate {
    began: mpsc::Sender<()>,
    open: mpsc::Receiver<()>,
    written: mpsc::Sender<String>,
}

impl Write for Gate {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let _ = self.began.send(());
        let _ = self.open.recv();
        let _ = self.written.send(String::from_utf8_lossy(bytes).into_owned());
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_reader_that_does_not_read_blocks_nobody_and_hears_how_many_lines_it_missed() {
    let (began, begun) = mpsc::channel();
    let (release, open) = mpsc::channel::<()>();
    let (written, lines) = mpsc::channel();
    let background = Background::start(Box::new(Gate { began, open, written }));
    background.write(b"first\n".to_vec());
    begun.recv().unwrap();
    for _ in 0..background::MOST_WAITING + 3 {
        background.write(b"more\n".to_vec());
    }
    background.flush(Duration::ZERO);
    drop(release);
    background.flush(Duration::from_secs(60));
    let lines: Vec<String> = lines.try_iter().collect();
    assert_eq!(lines.len(), 2 + background::MOST_WAITING);
    assert_eq!((lines[0].as_str(), lines[1].as_str()), ("first\n", "(3 log lines were lost)\n"));
}

#[test]
fn a_reader_that_went_away_costs_the_lines_only() {
    struct Gone;
    impl Write for Gone {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::BrokenPipe.into())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let background = Background::start(Box::new(Gone));
    for _ in 0..10 {
        background.write(b"line\n".to_vec());
    }
    let before = std::time::Instant::now();
    background.flush(Duration::from_secs(60));
    assert!(before.elapsed() < Duration::from_secs(60), "the thread goes on");
}

#[test]
fn init_writes_the_file_of_the_program_and_refuses_a_second_time() {
    let dir = tempfile::tempdir().unwrap();
    let mut settings = Settings::default();
    settings.logging.log_dir = dir.path().to_owned();
    let guard = init("cta-ops-test", &settings, true, true).unwrap();
    tracing::info!(vid = "V01007", "into the file");
    drop(guard);
    let text = std::fs::read_to_string(log_path("cta-ops-test", &settings)).unwrap();
    let line = text.lines().find(|line| line.contains("into the file")).unwrap();
    assert_eq!(serde_json::from_str::<Value>(line).unwrap()["tapeVid"], "V01007");
    assert!(init("cta-ops-test", &settings, false, false).is_err());
}

#[test]
fn a_journal_gets_the_priority_and_no_time_of_ours() {
    let human = Human { date_format: "%Y".to_owned(), colour: true, journal: true };
    let line = |level, message: &str| {
        let fields = serde_json::Map::from_iter([("vid".to_owned(), "V01007".into())]);
        let logged = super::lines::Logged { at: chrono::Local::now(), level, message: message.to_owned(), fields };
        String::from_utf8(human.line(logged)).unwrap()
    };
    assert_eq!(line(Level::ERROR, "stopped"), "<3>stopped vid=V01007\n");
    assert_eq!(line(Level::WARN, "a\n<0>b"), "<4>a\\n<0>b vid=V01007\n");
    assert_eq!(line(Level::INFO, "moved"), "<6>moved vid=V01007\n");
    assert_eq!(line(Level::DEBUG, "detail"), "<7>detail vid=V01007\n");
}
