//! Checks of a site and of tapes: each says what was found, and what mends it. Nothing is changed by any of them.

use comfy_table::Color;
use serde::Serialize;

use crate::output::{Desk, Exit, cell, clean, coloured, counted};

pub mod broker;
pub mod cta;
pub mod database;
pub mod local;
pub mod pools;
pub mod tape;

/// What came of a check.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// As it should be.
    Ok,
    /// The automation works, but somebody should look.
    Warning,
    /// The automation, or the repack of the tape, does not work like this.
    Fails,
    /// Could not be asked, so nothing is known.
    #[serde(rename = "not asked")]
    NotAsked,
}

impl Verdict {
    fn word(self) -> &'static str {
        match self {
            Verdict::Ok => "ok",
            Verdict::Warning => "warning",
            Verdict::Fails => "fails",
            Verdict::NotAsked => "not asked",
        }
    }

    fn colour(self) -> Option<Color> {
        match self {
            Verdict::Ok => Some(Color::Green),
            Verdict::Warning => Some(Color::Yellow),
            Verdict::Fails => Some(Color::Red),
            Verdict::NotAsked => None,
        }
    }
}

/// One check. The keys are those of `--json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Check {
    /// The tape that was checked; none: the site was.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vid: Option<String>,
    /// What is checked, a word for programs.
    pub check: &'static str,
    /// Of which there may be several: a name, a path; empty where there is one.
    pub subject: String,
    /// What came of it.
    pub result: Verdict,
    /// What was found, for people.
    pub found: String,
    /// What mends it, mostly a command; null where nothing has to be mended.
    #[serde(rename = "do")]
    pub mend: Option<String>,
}

impl Check {
    fn new(check: &'static str, subject: impl Into<String>, result: Verdict, found: impl Into<String>) -> Check {
        Check { vid: None, check, subject: subject.into(), result, found: found.into(), mend: None }
    }

    /// As it should be.
    pub fn ok(check: &'static str, subject: impl Into<String>, found: impl Into<String>) -> Check {
        Check::new(check, subject, Verdict::Ok, found)
    }

    /// Somebody should look.
    pub fn warning(
        check: &'static str,
        subject: impl Into<String>,
        found: impl Into<String>,
        mend: impl Into<String>,
    ) -> Check {
        Check { mend: Some(mend.into()), ..Check::new(check, subject, Verdict::Warning, found) }
    }

    /// It does not work like this.
    pub fn fails(
        check: &'static str,
        subject: impl Into<String>,
        found: impl Into<String>,
        mend: impl Into<String>,
    ) -> Check {
        Check { mend: Some(mend.into()), ..Check::new(check, subject, Verdict::Fails, found) }
    }

    /// Nothing is known.
    pub fn not_asked(check: &'static str, subject: impl Into<String>, why: impl Into<String>) -> Check {
        Check::new(check, subject, Verdict::NotAsked, why)
    }

    /// The same, of a tape.
    #[must_use]
    pub fn of(self, vid: &str) -> Check {
        Check { vid: Some(vid.to_owned()), ..self }
    }

    /// What is checked, for people: `mount policy repack_low`.
    fn what(&self) -> String {
        let mut what = self.vid.as_ref().map(|vid| format!("{vid} ")).unwrap_or_default();
        what.push_str(&self.check.replace('-', " "));
        if !self.subject.is_empty() {
            what.push(' ');
            what.push_str(&self.subject);
        }
        what
    }
}

/// Prints the checks and says how to exit: 1 if anything fails.
///
/// # Errors
/// When nobody can be told.
pub fn print(checks: &[Check], json: bool, desk: &mut Desk<'_>) -> anyhow::Result<Exit> {
    let count = |result: Verdict| checks.iter().filter(|check| check.result == result).count();
    let failed = count(Verdict::Fails);
    let exit = if failed == 0 { Exit::Done } else { Exit::Failed };
    if json {
        desk.data(&serde_json::to_string(checks)?)?;
        return Ok(exit);
    }
    let rows = checks.iter().map(|check| {
        let result = coloured(check.result.word(), check.result.colour());
        vec![cell(check.what()), result, cell(&check.found)]
    });
    let table = desk.table(&["WHAT", "RESULT", "FOUND"], rows.collect());
    desk.data(&table)?;
    // Below the table, where no column breaks a command that is to be copied.
    for (mend, mended) in mends(checks) {
        let lines = mended.iter().map(|check| format!("\n{}: {}", check.result.word(), clean(&check.what())));
        desk.data(&format!("{}\n  do: {}", lines.collect::<String>(), clean(mend)))?;
    }
    let (warnings, unknown) = (counted(count(Verdict::Warning), "warning"), count(Verdict::NotAsked));
    let fail = if failed == 1 { "fails" } else { "fail" };
    desk.data(&format!("\n{}: {failed} {fail}, {warnings}, {unknown} not asked", counted(checks.len(), "check")))?;
    Ok(exit)
}

/// What mends something, once however many things it mends, and those things.
fn mends(checks: &[Check]) -> Vec<(&str, Vec<&Check>)> {
    let mut mends: Vec<(&str, Vec<&Check>)> = Vec::new();
    for check in checks {
        let Some(mend) = check.mend.as_deref() else { continue };
        match mends.iter_mut().find(|(known, _)| *known == mend) {
            Some((_, mended))
                if mended.iter().any(|there| there.result == check.result && there.what() == check.what()) => {}
            Some((_, mended)) => mended.push(check),
            None => mends.push((mend, vec![check])),
        }
    }
    mends
}

#[cfg(test)]
mod tests {
    use super::*;

    fn printed(checks: &[Check], json: bool) -> (Exit, String) {
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let mut desk = Desk { out: &mut out, err: &mut err, ask: None, width: Some(40), colour: false };
        let exit = print(checks, json, &mut desk).unwrap();
        (exit, String::from_utf8(out).unwrap())
    }

    #[test]
    fn only_what_fails_makes_the_exit_status_one() {
        let [ok, warning, unknown, fails] = [
            Check::ok("clock", "", "as here"),
            Check::warning("clock", "", "an hour behind", "set it"),
            Check::not_asked("clock", "", "no database"),
            Check::fails("clock", "", "gone", "buy one"),
        ];
        assert_eq!(printed(&[ok.clone(), warning.clone(), unknown.clone()], false).0, Exit::Done);
        for json in [false, true] {
            assert_eq!(printed(&[ok.clone(), fails.clone()], json).0, Exit::Failed);
        }
    }

    #[test]
    fn a_command_is_printed_whole_however_narrow_the_terminal() {
        let command =
            "cta-admin mountpolicy add --name repack_low --archivepriority 1 --comment 'repacks of low priority'";
        let (_, text) =
            printed(&[Check::fails("mount-policy", "repack_low\x1b[2J", "it does not exist", command)], false);
        assert!(text.contains(&format!("  do: {command}\n")), "{text}");
        assert!(text.contains("mount policy repack_low") && !text.contains('\x1b'), "{text}");
        assert!(text.contains("1 check: 1 fails, 0 warnings"), "{text}");
    }

    #[test]
    fn what_mends_several_things_is_said_once_below_all_of_them() {
        let again = |found: &str| Check::fails("prepare", "", found, "cta-admin tape ls --vid V01007").of("V01007");
        let other = Check::warning("clock", "", "slow", "cta-admin tape ls --vid V01007");
        let (_, text) = printed(&[again("no pool"), again("no library"), other, again("gone")], false);
        let mends = text.split_once("\n\n").unwrap().1;
        assert!(
            mends.starts_with("fails: V01007 prepare\nwarning: clock\n  do: cta-admin tape ls --vid V01007\n\n4 checks: 3 fail, 1 warning,"),
            "{text}"
        );
    }

    #[test]
    fn json_has_every_key_of_every_check_and_the_tape_where_there_is_one() {
        let checks = [Check::not_asked("route", "raw", "no answer").of("V01007")];
        let value: serde_json::Value = serde_json::from_str(&printed(&checks, true).1).unwrap();
        let expected = serde_json::json!([{"vid": "V01007", "check": "route", "subject": "raw", "result": "not asked", "found": "no answer", "do": null}]);
        assert_eq!(value, expected);
    }
}
