//! An event as a line: its fields and those of the spans around it, as JSON or for people.

use std::fmt::{self, Write};

use chrono::{DateTime, Local};
use serde_json::{Map, Value, json};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::layer::{Context, Layer};
use tracing_subscriber::registry::LookupSpan;

/// Version of the JSON lines' layout.
const SCHEMA_VERSION: &str = "0.2.0";

/// What a line is made of.
#[derive(Debug)]
pub(super) struct Logged {
    pub at: DateTime<Local>,
    pub level: Level,
    pub message: String,
    /// The event's fields, then those of its spans from the inside out, each name once.
    pub fields: Map<String, Value>,
}

/// A layer that turns every event into a [`Logged`].
pub(super) struct Lines<F> {
    write: F,
}

impl<F> Lines<F> {
    pub fn new(write: F) -> Lines<F> {
        Lines { write }
    }
}

/// Fields as they were recorded.
#[derive(Debug, Default)]
struct Fields(Map<String, Value>);

impl Fields {
    fn put(&mut self, field: &Field, value: Value) {
        self.0.insert(field.name().trim_start_matches("r#").to_owned(), value);
    }
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        // A formatter that fails must not take the program with it, as `to_string` would.
        let mut text = String::new();
        if write!(text, "{value:?}").is_err() {
            text.push_str("(unprintable)");
        }
        self.put(field, text.into());
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.put(field, value.into());
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.put(field, value.into());
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.put(field, value.into());
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.put(field, value.into());
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.put(field, value.into());
    }

    fn record_error(&mut self, field: &Field, value: &(dyn std::error::Error + 'static)) {
        let mut text = String::new();
        let mut cause = Some(value);
        while let Some(error) = cause {
            let colon = if text.is_empty() { "" } else { ": " };
            if write!(text, "{colon}{error}").is_err() {
                break;
            }
            cause = error.source();
        }
        self.put(field, text.into());
    }
}

/// The recorded fields of a span, of a type of their own so that no other layer's are met.
struct SpanFields(Fields);

impl<S, F> Layer<S> for Lines<F>
where
    S: Subscriber + for<'l> LookupSpan<'l>,
    F: Fn(Logged) + 'static,
{
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        if let Some(span) = context.span(id) {
            let mut fields = Fields::default();
            attributes.record(&mut fields);
            // Two layers of this type record the same.
            span.extensions_mut().replace(SpanFields(fields));
        }
    }

    fn on_record(&self, id: &Id, record: &Record<'_>, context: Context<'_, S>) {
        if let Some(span) = context.span(id)
            && let Some(SpanFields(fields)) = span.extensions_mut().get_mut::<SpanFields>()
        {
            record.record(fields);
        }
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let mut fields = Fields::default();
        event.record(&mut fields);
        let Fields(mut fields) = fields;
        let message = match fields.shift_remove("message") {
            Some(Value::String(text)) => text,
            Some(other) => other.to_string(),
            None => event.metadata().name().to_owned(),
        };
        for span in context.event_scope(event).into_iter().flatten() {
            if let Some(SpanFields(Fields(around))) = span.extensions().get::<SpanFields>() {
                for (name, value) in around {
                    if !fields.contains_key(name) {
                        fields.insert(name.clone(), value.clone());
                    }
                }
            }
        }
        (self.write)(Logged { at: Local::now(), level: *event.metadata().level(), message, fields });
    }
}

/// Makes lines of JSON.
#[derive(Debug)]
pub(super) struct Json {
    program: String,
    hostname: String,
    pid: u32,
}

impl Json {
    pub fn new(program: &str) -> Json {
        Json {
            program: program.to_owned(),
            hostname: rustix::system::uname().nodename().to_string_lossy().into_owned(),
            pid: std::process::id(),
        }
    }

    /// One object, one line. The fixed keys come first, and no field replaces one of them.
    pub fn line(&self, logged: Logged) -> Vec<u8> {
        let level = match logged.level {
            // The schema knows no finer level.
            Level::TRACE | Level::DEBUG => "DEBUG",
            Level::INFO => "INFO",
            Level::WARN => "WARN",
            Level::ERROR => "ERROR",
        };
        #[expect(clippy::cast_precision_loss, reason = "microseconds since 1970 fit into 53 bits until the year 2255")]
        let epoch_time = logged.at.timestamp_micros() as f64 / 1e6;
        let fixed = json!({
            "epoch_time": epoch_time,
            "local_time": logged.at.format("%Y-%m-%dT%H:%M:%S%z").to_string(),
            "hostname": self.hostname,
            "program": self.program,
            "log_level": level,
            "pid": self.pid,
            "tid": thread_id(),
            "message": logged.message,
            "log_schema_version": SCHEMA_VERSION,
        });
        let Value::Object(mut line) = fixed else { return Vec::new() };
        for (name, value) in logged.fields {
            let mut name = if name == "vid" { "tapeVid".to_owned() } else { name };
            while line.contains_key(&name) {
                name.push('_');
            }
            line.insert(name, value);
        }
        let mut text = Value::Object(line).to_string().into_bytes();
        text.push(b'\n');
        text
    }
}

/// The kernel's number of this thread; its process' where there is no `/proc`.
fn thread_id() -> u64 {
    thread_local! {
        static ID: u64 = std::fs::read_link("/proc/thread-self")
            .ok()
            .and_then(|link| link.file_name()?.to_str()?.parse().ok())
            .unwrap_or_else(|| std::process::id().into());
    }
    // A thread that is ending has no thread-locals any more.
    ID.try_with(|id| *id).unwrap_or_else(|_| std::process::id().into())
}

/// Makes lines for people.
#[derive(Debug)]
pub(super) struct Human {
    pub date_format: String,
    pub colour: bool,
    /// A journal reads them: it keeps the time itself, and wants the priority in front.
    pub journal: bool,
}

impl Human {
    /// Time, level, message, fields; nothing in it can leave the line or steer the terminal.
    pub fn line(&self, logged: Logged) -> Vec<u8> {
        if self.journal {
            return Human::for_journal(&logged);
        }
        let mut time = String::new();
        if write!(time, "{}", logged.at.format(&self.date_format)).is_err() {
            time = logged.at.to_rfc3339();
        }
        let level = match (self.colour, logged.level) {
            (true, Level::ERROR) => "\x1b[31mERROR\x1b[0m",
            (true, Level::WARN) => "\x1b[33m WARN\x1b[0m",
            (true, Level::INFO) => "\x1b[32m INFO\x1b[0m",
            (true, Level::DEBUG) => "\x1b[34mDEBUG\x1b[0m",
            (true, Level::TRACE) => "\x1b[35mTRACE\x1b[0m",
            (false, Level::ERROR) => "ERROR",
            (false, Level::WARN) => " WARN",
            (false, Level::INFO) => " INFO",
            (false, Level::DEBUG) => "DEBUG",
            (false, Level::TRACE) => "TRACE",
        };
        ended(format!("{} {level} {}", escaped(&time), escaped(&logged.message)), &logged.fields)
    }

    /// `<N>` is the priority of syslog, which `journalctl -p` chooses by.
    fn for_journal(logged: &Logged) -> Vec<u8> {
        let priority = match logged.level {
            Level::ERROR => 3,
            Level::WARN => 4,
            Level::INFO => 6,
            Level::DEBUG | Level::TRACE => 7,
        };
        ended(format!("<{priority}>{}", escaped(&logged.message)), &logged.fields)
    }
}

/// The line with its fields.
fn ended(mut line: String, fields: &Map<String, Value>) -> Vec<u8> {
    for (name, value) in fields {
        let value = match value {
            Value::String(text) => quoted(text),
            other => other.to_string(),
        };
        // Writing to a string cannot fail.
        let _ = write!(line, " {name}={value}");
    }
    line.push('\n');
    line.into_bytes()
}

/// In quotes where it would not read as one word.
fn quoted(text: &str) -> String {
    let plain = !text.is_empty() && !text.contains(|c: char| c.is_whitespace() || c == '"' || c == '=');
    if plain { escaped(text) } else { format!("\"{}\"", escaped(&text.replace('\\', "\\\\").replace('"', "\\\""))) }
}

/// Text without control characters: newlines, escape sequences, and characters that turn the reading direction.
pub(super) fn escaped(text: &str) -> String {
    let steers = |c: char| {
        c.is_control() || matches!(c, '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{200e}' | '\u{200f}')
    };
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        if steers(c) { safe.extend(c.escape_default()) } else { safe.push(c) }
    }
    safe
}
