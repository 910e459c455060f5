//! The digest of tapes that need a person, as a mail: pure text. Whatever rows and configuration hold, it is one mail, of
//! bounded size, with the headers that are meant, to the recipients that are meant.

use std::fmt::Write as _;

use chrono::{DateTime, SecondsFormat, Utc};
use common::store::{Concern, ConcernKind, Concerned};

/// The most tapes that one digest tells of; the next has the others.
pub const MOST: usize = 10_000;

/// The most tapes that are named, the most urgent first; the others are counted.
pub const NAMED: usize = 50;

/// The longest text of one tape, in characters.
const LONGEST: usize = 300;

/// The longest other text: a host, a table.
const SHORT: usize = 100;

/// The longest line of an encoded body or header (RFC 2045, RFC 2047).
const LINE: usize = 76;

/// Whom it goes to, and where it comes from.
#[derive(Debug, Clone, Copy)]
pub struct Envelope<'e> {
    /// Plain addresses.
    pub recipients: &'e [String],
    /// A plain address.
    pub sender: Option<&'e str>,
    /// The program that sends, and its host.
    pub actor: &'e str,
    /// The database and the table.
    pub place: &'e str,
}

/// The mail, headers and body, with line ends as programs like `sendmail` take them.
pub fn mail(envelope: &Envelope<'_>, concerned: &Concerned) -> String {
    let body = body(envelope, concerned);
    let mut mail = String::new();
    if let Some(sender) = envelope.sender {
        header(&mut mail, "From", &one_line(sender, SHORT * 3));
    }
    let recipients: Vec<String> = envelope.recipients.iter().map(|address| one_line(address, SHORT * 3)).collect();
    // Folded between addresses, so that no line is too long.
    header(&mut mail, "To", &recipients.join(",\n "));
    header(&mut mail, "Subject", &encoded_words(&subject(concerned)));
    header(&mut mail, "Date", &concerned.now.to_rfc2822());
    // No holiday notices, please.
    header(&mut mail, "Auto-Submitted", "auto-generated");
    header(&mut mail, "MIME-Version", "1.0");
    header(&mut mail, "Content-Type", "text/plain; charset=utf-8");
    let plain = body.is_ascii();
    header(&mut mail, "Content-Transfer-Encoding", if plain { "7bit" } else { "quoted-printable" });
    mail.push('\n');
    mail.push_str(&if plain { body } else { quoted_printable(&body) });
    mail
}

fn header(mail: &mut String, name: &str, value: &str) {
    // Writing to a string cannot fail.
    let _ = writeln!(mail, "{name}: {value}");
}

fn tapes(count: usize) -> String {
    if count == 1 { "1 tape".to_owned() } else { format!("{count} tapes") }
}

fn words(kind: ConcernKind) -> &'static str {
    match kind {
        ConcernKind::Error => "in mode error",
        ConcernKind::Stalled => "stalled",
        ConcernKind::Refused => "refused by the reclaim gate",
    }
}

/// How many of each kind, without those of which there is none.
fn by_kind<N: PartialEq + Default + std::fmt::Display>(count: impl Fn(ConcernKind) -> N) -> String {
    let counts = ConcernKind::ALL.map(|kind| (kind, count(kind)));
    let told: Vec<String> = counts
        .into_iter()
        .filter(|(_, count)| *count != N::default())
        .map(|(kind, count)| format!("{count} {}", words(kind)))
        .collect();
    if told.is_empty() { "none".to_owned() } else { told.join(", ") }
}

fn subject(concerned: &Concerned) -> String {
    match concerned.new.as_slice() {
        [only] => {
            let (tape, code) = (one_line(&only.tape, SHORT), one_line(&only.code, SHORT));
            format!("cta-ops-repack: {tape} needs a person: {} ({code})", words(only.kind))
        }
        new => {
            let of = |kind| new.iter().filter(|concern| concern.kind == kind).count();
            format!("cta-ops-repack: {} need a person: {}", tapes(new.len()), by_kind(of))
        }
    }
}

fn body(envelope: &Envelope<'_>, concerned: &Concerned) -> String {
    let place = one_line(envelope.place, 3 * SHORT);
    let new = &concerned.new;
    let mut text = format!("What the rows of {place} say at {}, and no digest said before:\n\n", time(concerned.now));
    for concern in new.iter().take(NAMED) {
        text.push_str(&entry(concern));
    }
    if let Some(rest) = new.get(NAMED..).filter(|rest| !rest.is_empty()) {
        let of = |kind| rest.iter().filter(|concern| concern.kind == kind).count();
        let _ = write!(text, "And {} more: {}.\n\n", tapes(rest.len()), by_kind(of));
    }
    let all = |kind: ConcernKind| concerned.all[kind as usize];
    let _ = write!(
        text,
        "In all: {}. 'cta-ops-repack-manager ls --mode error' and 'ls --outcome stalled' name them.\n\
         Each is told once, until its reason changes or a person decides.\n\n\
         -- \n{}\n",
        by_kind(all),
        one_line(envelope.actor, SHORT)
    );
    text
}

/// One line of facts, one for the reason, one for what to do.
fn entry(concern: &Concern) -> String {
    let (tape, code) = (one_line(&concern.tape, SHORT), one_line(&concern.code, SHORT));
    let since = concern.since.map_or_else(String::new, |since| format!(", since {}", time(since)));
    let mut text = format!("{tape}  {}, {}: {code}{since}\n", concern.state, words(concern.kind));
    if !concern.text.trim().is_empty() {
        let _ = writeln!(text, "  {}", one_line(&concern.text, LONGEST));
    }
    let _ = write!(text, "  do: runbook, section {code}; 'cta-ops-repack-manager show {tape}'\n\n");
    text
}

fn time(at: DateTime<Utc>) -> String {
    at.to_rfc3339_opts(SecondsFormat::Secs, true).replace('T', " ").replace('Z', " UTC")
}

/// On one line, without what could act on whoever reads it, and not too long.
fn one_line(text: &str, longest: usize) -> String {
    let mut line: String = text.chars().take(longest).map(|c| if acts(c) { ' ' } else { c }).collect();
    if text.chars().nth(longest).is_some() {
        line.push_str("...");
    }
    line
}

/// Control characters, line ends of every kind, and what changes the direction of text or cannot be seen.
fn acts(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{2028}' | '\u{2029}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

/// A header's text as it may stand in one: ASCII as it is, anything else in encoded words (RFC 2047).
fn encoded_words(text: &str) -> String {
    const BEGIN: &str = "=?utf-8?Q?";
    const END: &str = "?=";
    if text.is_ascii() && !text.contains("=?") {
        return text.to_owned();
    }
    let mut out = String::from(BEGIN);
    let mut used = "Subject: ".len() + BEGIN.len();
    for c in text.chars() {
        let encoded = match c {
            ' ' => "_".to_owned(),
            c if c.is_ascii_alphanumeric() => c.to_string(),
            c => escaped(c),
        };
        // A word holds whole characters.
        if used + encoded.len() + END.len() > LINE - 1 {
            out.push_str(END);
            out.push_str("\n ");
            out.push_str(BEGIN);
            used = 1 + BEGIN.len();
        }
        used += encoded.len();
        out.push_str(&encoded);
    }
    out + END
}

fn escaped(c: char) -> String {
    let mut bytes = [0; 4];
    c.encode_utf8(&mut bytes).bytes().map(|byte| format!("={byte:02X}")).collect()
}

/// RFC 2045, 6.7.
fn quoted_printable(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + text.len() / 8);
    for line in text.split_inclusive('\n') {
        let (line, end) = line.strip_suffix('\n').map_or((line, ""), |line| (line, "\n"));
        let mut used = 0;
        let mut chars = line.chars().peekable();
        while let Some(c) = chars.next() {
            // A blank at the end of a line may get lost on the way.
            let encoded = match c {
                ' ' if chars.peek().is_some() => " ".to_owned(),
                '!'..='<' | '>'..='~' => c.to_string(),
                c => escaped(c),
            };
            if used + encoded.len() > LINE - 1 {
                out.push_str("=\n");
                used = 0;
            }
            used += encoded.len();
            out.push_str(&encoded);
        }
        out.push_str(end);
    }
    out
}

#[cfg(test)]
mod tests;
