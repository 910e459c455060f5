//! Who is at the keyboard: `login@host`, for the history.

/// The operator: the login of the real user, and who became that user with sudo in front of it (`alice(root)@host`).
pub fn actor() -> String {
    let uid = rustix::process::getuid().as_raw();
    let login = login(uid).unwrap_or_else(|| format!("uid-{uid}"));
    let sudo = std::env::var("SUDO_USER").ok();
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    named(&login, sudo.as_deref(), &host)
}

/// The parts put together, each cut to what belongs into a name.
fn named(login: &str, sudo: Option<&str>, host: &str) -> String {
    let (login, host) = (plain(login), plain(host));
    match sudo.map(plain).filter(|sudo| !sudo.is_empty() && *sudo != login) {
        Some(sudo) => format!("{sudo}({login})@{host}"),
        None => format!("{login}@{host}"),
    }
}

fn plain(text: &str) -> String {
    text.chars().filter(|c| c.is_ascii_alphanumeric() || "._-$".contains(*c)).take(64).collect()
}

/// The login of a user: from the password file, else from `id`, which also asks LDAP and the like.
fn login(uid: u32) -> Option<String> {
    let file = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    in_password_file(&file, uid).or_else(|| {
        let answer = std::process::Command::new("id").arg("-run").stderr(std::process::Stdio::null()).output().ok()?;
        let name = String::from_utf8(answer.stdout).ok()?.trim().to_owned();
        (answer.status.success() && !name.is_empty()).then_some(name)
    })
}

fn in_password_file(file: &str, uid: u32) -> Option<String> {
    file.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(uid)).then(|| name.to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "root:x:0:0:root:/:/bin/bash\nalice:x:1000:1000::/srv/alice:/bin/sh\nbroken\n";

    #[test]
    fn a_login_is_found_by_its_number() {
        assert_eq!(in_password_file(FILE, 1000).as_deref(), Some("alice"));
        assert_eq!(in_password_file(FILE, 0).as_deref(), Some("root"));
        assert_eq!(in_password_file(FILE, 7), None);
    }

    #[test]
    fn who_became_root_is_named_and_root_too() {
        assert_eq!(named("root", Some("alice"), "h1"), "alice(root)@h1");
        assert_eq!(named("root", None, "h1"), "root@h1");
        assert_eq!(named("root", Some(""), "h1"), "root@h1");
        assert_eq!(named("alice", Some("alice"), "h1"), "alice@h1");
    }

    #[test]
    fn a_hostile_environment_puts_no_control_characters_into_the_history() {
        assert_eq!(named("root", Some("a\x1b[31m\nb;"), "h\n1"), "a31mb(root)@h1");
    }

    #[test]
    fn somebody_is_always_named() {
        let actor = actor();
        let (login, host) = actor.split_once('@').unwrap();
        assert!(!login.is_empty() && !host.is_empty(), "{actor}");
    }
}
