//! `notify`, and the `email` section that it uses.

use std::path::PathBuf;

use super::Notify;
use super::read::SECONDS;
use super::section::{Section, as_text};
use super::yaml::Kind;

/// The longest address (RFC 5321).
const LONGEST: usize = 254;

/// The most recipients: a list of people is the mail system's business.
const MOST: usize = 20;

/// `email` belongs to all tools of the family: while we mail nothing, whatever stands there is none of our business.
pub(super) fn notify(root: &Section<'_, '_>, base: Notify) -> Notify {
    let (mail, interval) = root.section("notify", |section| {
        (section.flag("mail", base.mail), section.time("interval_secs", base.interval, SECONDS, true))
    });
    let (recipients, sender) =
        if mail { root.section("email", |email| (recipients(email), sender(email))) } else { (Vec::new(), None) };
    Notify { mail, interval, recipients, sender, ..base }
}

/// `binaries.sendmail`, which is judged only where it is used.
pub(super) fn sendmail(binaries: &Section<'_, '_>, notify: &Notify) -> PathBuf {
    binaries.read("sendmail", notify.sendmail.clone(), "the path of a program, from '/'", |node| {
        let path = as_text(node).filter(|text| text.starts_with('/')).map(PathBuf::from);
        if notify.mail { path } else { Some(path.unwrap_or_else(|| notify.sendmail.clone())) }
    })
}

fn recipients(email: &Section<'_, '_>) -> Vec<String> {
    let expected = format!("a list of 1 to {MOST} addresses, such as [tape-ops@example.org], without names");
    let found = email.read("recipients", None, &expected, |node| {
        let texts: Vec<String> = match &node.kind {
            Kind::List(items) => items.iter().map(as_text).collect::<Option<_>>()?,
            _ => as_text(node)?.split(',').map(|part| part.trim().to_owned()).collect(),
        };
        let good = (1..=MOST).contains(&texts.len()) && texts.iter().all(|text| is_address(text));
        good.then_some(Some(texts))
    });
    if email.leaf("recipients").is_none() {
        email.error_at("recipients", "", format!("missing, notify.mail needs it: expected {expected}"));
    }
    found.unwrap_or_default()
}

fn sender(email: &Section<'_, '_>) -> Option<String> {
    email.read("sender", None, "an address such as cta-ops@example.org, without a name, or nothing", |node| match node
        .kind
    {
        Kind::Null => Some(None),
        _ => as_text(node).filter(|text| is_address(text)).map(Some),
    })
}

/// A plain address, or the name of a local mailbox: it goes onto a command line and into a header, where nothing else
/// may come with it.
fn is_address(text: &str) -> bool {
    let (local, domain) = text.split_once('@').map_or((text, None), |(local, domain)| (local, Some(domain)));
    let begins = |part: &str| part.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric() || b == b'_');
    text.len() <= LONGEST
        && begins(local)
        && local.bytes().all(|b| b.is_ascii_alphanumeric() || b"._+=~/-".contains(&b))
        && domain.is_none_or(|domain| {
            begins(domain) && domain.bytes().all(|b| b.is_ascii_alphanumeric() || b".-".contains(&b))
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::{Settings, parse};

    const ATRESYS: &str = include_str!("tests/atresys.yaml");

    fn read(text: &str) -> Result<Settings, Vec<String>> {
        let problems = |problems: crate::settings::Problems| problems.errors.iter().map(ToString::to_string).collect();
        parse(text, &|_| None).map(|loaded| loaded.settings).map_err(problems)
    }

    fn with(lines: &str) -> String {
        format!("{ATRESYS}    notify: {{mail: true}}\n{lines}")
    }

    #[test]
    fn a_file_of_atresys_mails_nothing_and_what_its_email_section_holds_is_not_judged() {
        assert_eq!(read(ATRESYS).unwrap().notify, Notify::default());
        for section in ["[]", "{recipient: [1, {}], senders: x}", "7", ""] {
            let text = format!(
                "global: {{binaries: {{sendmail: {section}}}, email: {section}}}\ntools: {{cta-ops-repack-automation: {{email: {section}}}}}"
            );
            assert_eq!(read(&text).unwrap().notify, Notify::default(), "{section}");
        }
    }

    #[test]
    fn one_key_turns_it_on_and_the_rest_is_there_already() {
        let notify = read(&with("")).unwrap().notify;
        let expected = Notify {
            mail: true,
            recipients: vec!["tape-ops@example.org".to_owned()],
            sender: Some("cta-ops@example.org".to_owned()),
            ..Notify::default()
        };
        assert_eq!(notify, expected);
        // The tool's own recipients win.
        let notify = read(&with("    email: {recipients: 'root, a.b+c@d'}\n")).unwrap().notify;
        assert_eq!(
            (notify.recipients, notify.sender),
            (vec!["root".to_owned(), "a.b+c@d".to_owned()], expected.sender)
        );
    }

    #[test]
    fn without_recipients_it_cannot_be_turned_on() {
        let error = read("tools: {cta-ops-repack-automation: {notify: {mail: yes}}}").unwrap_err();
        assert_eq!(error.len(), 1);
        assert!(error[0].contains("email.recipients: missing, notify.mail needs it"), "{error:?}");
        for empty in ["[]", "", "{}", "[a, 1.5]", "''"] {
            let error = read(&with(&format!("    email: {{recipients: {empty}}}\n"))).unwrap_err();
            assert!(error.len() == 1 && error[0].contains("email.recipients"), "{empty}: {error:?}");
        }
    }

    #[test]
    fn near_misses_are_errors_that_say_what_was_meant() {
        for (lines, meant) in [
            ("    email: {recipient: [a@b]}\n", "recipients"),
            ("    email: {Sender: a@b}\n", "sender"),
            ("    notfy: {mail: true}\n", "notify"),
        ] {
            let errors = read(&with(lines)).unwrap_err();
            assert!(errors[0].contains(&format!("did you mean '{meant}'?")), "{errors:?}");
        }
        for (section, meant) in [("{mial: true}", "mail"), ("{interval_minutes: 5}", "interval_secs")] {
            let errors = read(&format!("tools: {{cta-ops-repack-automation: {{notify: {section}}}}}")).unwrap_err();
            assert!(errors[0].contains(&format!("did you mean '{meant}'?")), "{errors:?}");
        }
        let errors = read(&with("").replace("sendmail:", "send-mail:")).unwrap_err();
        assert!(errors[0].contains("did you mean 'sendmail'?"), "{errors:?}");
        let errors = read(&with("").replace("/usr/sbin/sendmail", "sendmail")).unwrap_err();
        assert!(errors[0].contains("expected the path of a program"), "{errors:?}");
    }

    #[test]
    fn an_address_brings_nothing_else_onto_a_command_line_or_into_a_header() {
        for good in ["root", "tape-ops@example.org", "a.b+c=d_e~f/g@x-y.z", "_@h"] {
            assert!(is_address(good), "{good}");
        }
        for bad in [
            "",
            "-oQ/tmp",
            "-f@x",
            "a b@c",
            "a@b c",
            "a@b,c@d",
            "A <a@b>",
            "a@b\nBcc: x@y",
            "a@b\r",
            "@b",
            "a@",
            "a@-b",
            "a@b@c",
            "\"a b\"@c",
            "a@b;c",
            "|/bin/sh",
            "/etc/passwd",
            ":include:/x",
            "a@\u{fc}",
            "a@b(c)",
            "\\a",
            "a!b",
            "a%b@c",
        ] {
            assert!(!is_address(bad), "{bad:?}");
        }
        assert!(!is_address(&format!("{}@b", "a".repeat(LONGEST))));
    }
}
