//! What a configuration names and this host should have: looked at from here, as who runs the check.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use common::settings::{Notify, Problem, Settings};
use rustix::fs::{Access, access};

/// What stands in an example where a site's own value belongs.
const PLACEHOLDER: &str = "changeme";

/// What would go wrong on this host, each with what to do.
pub fn look(settings: &Settings) -> Vec<Problem> {
    let mut found = placeholders(settings);
    found.extend(program(&settings.cta_admin.program, std::env::var_os("PATH")));
    let configs = [
        ("cta_admin.user_config", &settings.cta_admin.user_config),
        ("cta_admin.repack_config", &settings.cta_admin.repack_config),
    ];
    let mut seen = Vec::new();
    for (key, path) in configs {
        if let Some(path) = path.as_ref().filter(|path| !seen.contains(path)) {
            seen.push(path);
            found.extend(config(key, path));
        }
    }
    found.extend(log_dir(&settings.logging.log_dir));
    found.extend(sendmail(&settings.notify));
    found
}

/// Whether it is a file that somebody may run.
fn runs(path: &Path) -> bool {
    std::fs::metadata(path).is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}

/// The program that takes mail, where the producer of this host would send some.
fn sendmail(notify: &Notify) -> Option<Problem> {
    let expected =
        "no such program; where a producer runs, no digest can be mailed: install a mail system, or name its program";
    (notify.mail && !runs(&notify.sendmail)).then(|| problem("binaries.sendmail", &notify.sendmail, expected))
}

fn problem(key: &str, value: impl AsRef<Path>, expected: impl Into<String>) -> Problem {
    let value = format!("\"{}\"", crate::output::clean(&value.as_ref().to_string_lossy()));
    Problem { line: None, key: key.to_owned(), value, expected: expected.into() }
}

fn placeholders(settings: &Settings) -> Vec<Problem> {
    let database = &settings.database;
    let password = database.password.as_ref().map(|password| password.reveal() == PLACEHOLDER);
    [
        ("database.username", database.username == PLACEHOLDER, "the role that the programs connect as"),
        ("database.password", password == Some(true), "its password, better in a file named by password_file"),
        ("database.host", database.host == PLACEHOLDER, "the name of the host that PostgreSQL runs on"),
    ]
    .into_iter()
    .filter(|(_, placeholder, _)| *placeholder)
    .map(|(key, _, meant)| problem(key, PLACEHOLDER, format!("still the placeholder; set {meant}")))
    .collect()
}

/// The program that talks to CTA; a name without directory is looked for as a shell would.
fn program(program: &Path, path: Option<std::ffi::OsString>) -> Option<Problem> {
    const KEY: &str = "binaries.cta-admin";
    if program.components().count() == 1 && !program.is_absolute() {
        let there = std::env::split_paths(&path.unwrap_or_default()).any(|dir| runs(&dir.join(program)));
        return (!there).then(|| problem(KEY, program, "no such program on PATH; install cta-cli, or name its path"));
    }
    match std::fs::metadata(program) {
        Err(error) => {
            Some(problem(KEY, program, format!("cannot be run: {error}; install cta-cli, or name where it is")))
        }
        Ok(_) if !runs(program) => Some(problem(KEY, program, "is no program; name the cta-admin binary")),
        Ok(_) => None,
    }
}

fn config(key: &str, path: &Path) -> Option<Problem> {
    // Asked before opening: opening a FIFO would wait for a writer.
    let readable = std::fs::metadata(path).and_then(|meta| match meta.is_file() {
        true => std::fs::File::open(path).map(|_| ()),
        false => Err(std::io::Error::other("it is not a file")),
    });
    let error = readable.err()?;
    let expected = format!("cannot be read: {error}; cta-admin would fail: name its configuration, or let us read it");
    Some(problem(key, path, expected))
}

/// The programs make the directory where it is missing, and without a log they go on.
fn log_dir(dir: &Path) -> Option<Problem> {
    const KEY: &str = "logging.log_dir";
    let there: PathBuf = dir.ancestors().find(|ancestor| ancestor.symlink_metadata().is_ok())?.to_owned();
    if !there.is_dir() {
        let what = if there == dir { "is".to_owned() } else { format!("lies below {}, which is", there.display()) };
        return Some(problem(
            KEY,
            dir,
            format!("{} no directory; name one, or no log is written", crate::output::clean(&what)),
        ));
    }
    if access(&there, Access::WRITE_OK | Access::EXEC_OK).is_ok() {
        return None;
    }
    let expected = if there == dir {
        "cannot be written by you; let the login of the programs write there, or no log is written".to_owned()
    } else {
        format!(
            "is not there and cannot be made by you; make it for the login of the programs: install -d -o LOGIN {}",
            crate::output::clean(&dir.to_string_lossy())
        )
    };
    Some(problem(KEY, dir, expected))
}

#[cfg(test)]
mod tests {
    use common::settings::Secret;

    use super::*;

    fn sound(home: &Path) -> Settings {
        let base = Settings::default();
        let binary = home.join("cta-admin");
        std::fs::write(&binary, "#!/bin/sh\n").unwrap();
        std::fs::set_permissions(&binary, std::fs::Permissions::from_mode(0o755)).unwrap();
        let config = home.join("cta-cli.conf");
        std::fs::write(&config, "cta.endpoint x\n").unwrap();
        Settings {
            database: common::settings::Database {
                username: "repack".to_owned(),
                host: "db".to_owned(),
                password: Some(Secret::new("x")),
                ..base.database
            },
            cta_admin: common::settings::CtaAdmin {
                program: binary,
                user_config: Some(config.clone()),
                repack_config: Some(config),
                ..base.cta_admin
            },
            logging: common::settings::Logging { log_dir: home.join("log/repack"), ..base.logging },
            ..base
        }
    }

    #[test]
    fn the_program_that_takes_mail_is_looked_for_where_mail_is_wanted() {
        let of = |mail, sendmail: &str| {
            sendmail_of(&Notify { mail, sendmail: sendmail.into(), ..Settings::default().notify })
        };
        assert_eq!(of(false, "/no/such/sendmail"), None);
        assert_eq!(of(true, "/bin/sh"), None);
        assert!(of(true, "/no/such/sendmail").is_some_and(|text| text.contains("no digest can be mailed")));
        assert!(of(true, "/etc/passwd").is_some() && of(true, "/").is_some());
    }

    fn sendmail_of(notify: &Notify) -> Option<String> {
        sendmail(notify).map(|problem| problem.to_string())
    }

    #[test]
    fn one_thing_wrong_at_a_time_is_found_and_comes_with_what_to_do() {
        let home = tempfile::tempdir().unwrap();
        let dir = home.path().to_owned();
        assert_eq!(look(&sound(&dir)), []);
        type Change = Box<dyn Fn(&mut Settings)>;
        let at = |name: &str| dir.join(name);
        std::fs::write(at("plain"), "x").unwrap();
        let (none, plain, below, here) = (at("none"), at("plain"), at("plain/log"), dir.clone());
        let (none_config, program) = (none.clone(), plain.clone());
        let rows: Vec<(Change, &str, &str)> = vec![
            (Box::new(|s| s.database.username = PLACEHOLDER.to_owned()), "database.username", "placeholder"),
            (Box::new(|s| s.database.host = PLACEHOLDER.to_owned()), "database.host", "placeholder"),
            (Box::new(|s| s.database.password = Some(Secret::new(PLACEHOLDER))), "database.password", "password_file"),
            (Box::new(move |s| s.cta_admin.program = none.clone()), "binaries.cta-admin", "install"),
            (Box::new(move |s| s.cta_admin.program = program.clone()), "binaries.cta-admin", "no program"),
            (Box::new(|s| s.cta_admin.program = "no-such-cta-admin".into()), "binaries.cta-admin", "PATH"),
            (
                Box::new(move |s| s.cta_admin.user_config = Some(none_config.clone())),
                "cta_admin.user_config",
                "No such file",
            ),
            (
                Box::new(move |s| s.cta_admin.repack_config = Some(here.clone())),
                "cta_admin.repack_config",
                "not a file",
            ),
            (Box::new(move |s| s.logging.log_dir = plain.clone()), "logging.log_dir", "no directory"),
            (Box::new(move |s| s.logging.log_dir = below.clone()), "logging.log_dir", "no directory"),
        ];
        for (change, key, says) in rows {
            let mut settings = sound(&dir);
            change(&mut settings);
            let found = look(&settings);
            assert_eq!(found.iter().map(|problem| problem.key.as_str()).collect::<Vec<_>>(), [key]);
            assert!(found[0].to_string().contains(says), "{}", found[0]);
        }
    }

    #[test]
    fn a_configuration_that_both_front_ends_share_is_told_of_once() {
        let home = tempfile::tempdir().unwrap();
        let mut settings = sound(home.path());
        settings.cta_admin.user_config = Some(home.path().join("none"));
        settings.cta_admin.repack_config = Some(home.path().join("none"));
        assert_eq!(look(&settings).len(), 1);
    }

    #[test]
    fn the_placeholder_of_a_password_is_the_only_one_ever_shown() {
        let home = tempfile::tempdir().unwrap();
        let mut settings = sound(home.path());
        settings.database.password = Some(Secret::new("hunter2"));
        settings.database.host = PLACEHOLDER.to_owned();
        assert!(!look(&settings).iter().any(|problem| problem.to_string().contains("hunter2")));
    }

    #[test]
    fn a_directory_that_only_others_may_write_is_named() {
        let home = tempfile::tempdir().unwrap();
        let shut = home.path().join("shut");
        std::fs::create_dir(&shut).unwrap();
        std::fs::set_permissions(&shut, std::fs::Permissions::from_mode(0o555)).unwrap();
        if access(&shut, Access::WRITE_OK).is_ok() {
            // Who may write everywhere sees no difference, and neither does a program run by them.
            assert_eq!(log_dir(&shut), None);
            return;
        }
        assert!(log_dir(&shut).unwrap().to_string().contains("cannot be written"));
        assert!(log_dir(&shut.join("log")).unwrap().to_string().contains("install -d"));
    }
}
