use std::collections::BTreeMap;

use chrono::TimeDelta;
use common::journey::State;
use proptest::prelude::*;

use super::*;

fn now() -> DateTime<Utc> {
    DateTime::from_timestamp(1_800_000_000, 0).unwrap()
}

fn concern(tape: &str, kind: ConcernKind, code: &str, text: &str) -> Concern {
    Concern {
        tape: tape.to_owned(),
        kind,
        state: State::Started,
        code: code.to_owned(),
        text: text.to_owned(),
        since: Some(now() - TimeDelta::hours(2)),
        what: String::new(),
    }
}

fn of(new: Vec<Concern>) -> Concerned {
    let all = ConcernKind::ALL.map(|kind| i64::try_from(new.iter().filter(|c| c.kind == kind).count()).unwrap());
    Concerned { new, all, now: now() }
}

fn mailed(concerned: &Concerned) -> String {
    let recipients = ["tape-ops@example.org".to_owned(), "root".to_owned()];
    let envelope = Envelope {
        recipients: &recipients,
        sender: Some("cta-ops@example.org"),
        actor: "producer@here",
        place: "repack_status in cta_repack on localhost",
    };
    mail(&envelope, concerned)
}

/// A mail as a reader sees it: headers unfolded, words and body decoded.
struct Read {
    headers: Vec<(String, String)>,
    body: String,
}

impl Read {
    fn of(mail: &str) -> Read {
        assert!(!mail.contains('\r'));
        let (head, body) = mail.split_once("\n\n").expect("a head and a body");
        assert!(head.is_ascii(), "{head}");
        assert!(mail.lines().all(|line| line.len() <= 998), "a line is too long");
        let unfolded = head.replace("\n ", " ");
        let headers: Vec<(String, String)> = unfolded
            .lines()
            .map(|line| line.split_once(": ").expect("a header"))
            .map(|(name, value)| (name.to_owned(), words_decoded(value)))
            .collect();
        let read = Read { headers, body: String::new() };
        let body = match read.header("Content-Transfer-Encoding") {
            "7bit" => {
                assert!(body.is_ascii());
                body.to_owned()
            }
            "quoted-printable" => {
                assert!(
                    body.is_ascii() && body.lines().all(|line| line.len() <= LINE && !line.ends_with(' ')),
                    "{body}"
                );
                decoded(&body.replace("=\n", ""), '=')
            }
            other => panic!("{other}"),
        };
        Read { body, ..read }
    }

    fn header(&self, name: &str) -> &str {
        let mut found = self.headers.iter().filter(|(known, _)| known == name);
        let value = &found.next().unwrap_or_else(|| panic!("no {name}")).1;
        assert!(found.next().is_none(), "{name} stands there twice");
        value
    }
}

fn decoded(text: &str, sign: char) -> String {
    let mut bytes = Vec::new();
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        if c == sign {
            let hex: String = chars.by_ref().take(2).collect();
            bytes.push(u8::from_str_radix(&hex, 16).unwrap_or_else(|_| panic!("{hex:?} in {text}")));
        } else {
            bytes.extend(c.to_string().bytes());
        }
    }
    String::from_utf8(bytes).expect("UTF-8")
}

fn words_decoded(value: &str) -> String {
    if !value.starts_with("=?utf-8?Q?") {
        return value.to_owned();
    }
    let part = |word: &str| {
        assert!(word.len() <= 75, "{word}");
        let inner = word.strip_prefix("=?utf-8?Q?").and_then(|word| word.strip_suffix("?=")).expect("an encoded word");
        decoded(&inner.replace('_', " "), '=')
    };
    value.split(' ').map(part).collect()
}

#[test]
fn a_digest_reads_as_it_was_meant() {
    let mut refused = concern("V01003", ConcernKind::Refused, "recycle-log-young", "its newest entry is young");
    refused.since = None;
    refused.state = State::Quarantined;
    let new = vec![
        concern("V01001", ConcernKind::Error, "repack-failed", "2 files could not be read"),
        concern("V01002", ConcernKind::Stalled, "repack-stalled", "no progress since 13:20"),
        refused,
    ];
    let expected = "From: cta-ops@example.org
To: tape-ops@example.org,
 root
Subject: cta-ops-repack: 3 tapes need a person: 1 in mode error, 1 stalled, 1 refused by the reclaim gate
Date: Fri, 15 Jan 2027 08:00:00 +0000
Auto-Submitted: auto-generated
MIME-Version: 1.0
Content-Type: text/plain; charset=utf-8
Content-Transfer-Encoding: 7bit

What the rows of repack_status in cta_repack on localhost say at 2027-01-15 08:00:00 UTC, and no digest said before:

V01001  started, in mode error: repack-failed, since 2027-01-15 06:00:00 UTC
  2 files could not be read
  do: runbook, section repack-failed; 'cta-ops-repack-manager show V01001'

V01002  started, stalled: repack-stalled, since 2027-01-15 06:00:00 UTC
  no progress since 13:20
  do: runbook, section repack-stalled; 'cta-ops-repack-manager show V01002'

V01003  quarantined, refused by the reclaim gate: recycle-log-young
  its newest entry is young
  do: runbook, section recycle-log-young; 'cta-ops-repack-manager show V01003'

In all: 1 in mode error, 1 stalled, 1 refused by the reclaim gate. 'cta-ops-repack-manager ls --mode error' and 'ls --outcome stalled' name them.
Each is told once, until its reason changes or a person decides.

-- 
producer@here
";
    assert_eq!(mailed(&of(new)), expected);
}

#[test]
fn one_tape_is_named_in_the_subject() {
    let read = Read::of(&mailed(&of(vec![concern("V01001", ConcernKind::Error, "not-full", "")])));
    assert_eq!(read.header("Subject"), "cta-ops-repack: V01001 needs a person: in mode error (not-full)");
    assert!(
        read.body.contains("not-full, since 2027-01-15 06:00:00 UTC\n  do: runbook, section not-full"),
        "{}",
        read.body
    );
}

#[test]
fn of_very_many_the_first_are_named_and_all_are_counted_in_a_mail_of_bounded_size() {
    let text = "\u{1f4fc}".repeat(5000);
    let tape = |number: usize| {
        let kind = if number < 9000 { ConcernKind::Error } else { ConcernKind::Stalled };
        concern(&format!("V{number:05}"), kind, "files-left", &text)
    };
    let mail = mailed(&of((0..MOST).map(tape).collect()));
    assert!(mail.len() < 400_000, "{}", mail.len());
    let read = Read::of(&mail);
    assert_eq!(read.header("Subject"), "cta-ops-repack: 10000 tapes need a person: 9000 in mode error, 1000 stalled");
    assert!(read.body.contains("V00049  ") && !read.body.contains("V00050"));
    assert!(read.body.contains("And 9950 tapes more: 8950 in mode error, 1000 stalled.\n"));
    assert!(read.body.contains("In all: 9000 in mode error, 1000 stalled. "));
}

/// Anything, and what an attacker would write.
fn hostile() -> impl Strategy<Value = String> {
    prop_oneof![
        any::<String>(),
        "[ -~\\n\\r\\t]{0,400}",
        Just("x\r\nBcc: eve@example.org\r\n\r\nhello".to_owned()),
        Just("x\nBcc: eve@example.org".to_owned()),
        Just("=?utf-8?Q?=0ABcc:_eve?=".to_owned()),
        Just("\u{202e}txet\u{2028}Bcc: eve\u{85}x\u{b}y".to_owned()),
        Just("\u{e9}".repeat(1000)),
    ]
}

proptest! {
    #[test]
    fn whatever_the_rows_hold_the_headers_are_ours_and_the_body_comes_through(
        new in prop::collection::vec((hostile(), 0..3usize, hostile(), hostile()), 1..4),
        actor in hostile(),
        place in hostile(),
    ) {
        let new: Vec<Concern> =
            new.iter().map(|(tape, kind, code, text)| concern(tape, ConcernKind::ALL[*kind], code, text)).collect();
        let concerned = of(new);
        let (actor, recipients) = (format!("p{actor}"), ["a@b".to_owned()]);
        let envelope = Envelope { recipients: &recipients, sender: None, actor: &actor, place: &place };
        let read = Read::of(&mail(&envelope, &concerned));
        let names: Vec<&str> = read.headers.iter().map(|(name, _)| name.as_str()).collect();
        let expected = [
            "To", "Subject", "Date", "Auto-Submitted", "MIME-Version", "Content-Type", "Content-Transfer-Encoding",
        ];
        prop_assert_eq!(names, expected);
        prop_assert_eq!(read.header("To"), "a@b");
        prop_assert_eq!(read.header("Subject"), subject(&concerned));
        prop_assert_eq!(&read.body, &body(&envelope, &concerned));
        // Each tape is a paragraph: nothing in it makes another one.
        let paragraphs: BTreeMap<bool, usize> =
            read.body.split("\n\n").fold(BTreeMap::new(), |mut count, part| {
                *count.entry(part.contains("\n  do: runbook, section ")).or_default() += 1;
                count
            });
        prop_assert_eq!(paragraphs.get(&true), Some(&concerned.new.len()));
        prop_assert_eq!(paragraphs.get(&false), Some(&3));
        prop_assert!(!read.body.chars().any(|c| c != '\n' && acts(c)));
    }
}
