//! Passwords: environment over file over inline text, and none of them in a message.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::Secret;

/// No password is longer; `password_file` pointing at something else entirely is noticed.
const LONGEST: u64 = 4096;

/// What a password file held.
#[derive(Debug)]
pub(super) struct FromFile {
    /// Its one line.
    pub password: Secret,
    /// Anybody on the host can read it.
    pub open_to_others: bool,
}

/// Whether a mode lets others (neither owner nor group) read.
pub(super) fn open_to_others(mode: u32) -> bool {
    mode & 0o004 != 0
}

/// Reads a password file: one line, whose end does not belong to the password.
///
/// # Errors
/// What was expected instead.
pub(super) fn read(path: &Path) -> Result<FromFile, String> {
    let cannot = |error: std::io::Error| format!("expected a readable file with the password, but: {error}");
    // Asked before opening: opening a FIFO would wait for a writer.
    if !std::fs::metadata(path).map_err(cannot)?.is_file() {
        return Err("expected a plain file with the password".to_owned());
    }
    let file = File::open(path).map_err(cannot)?;
    let mode = file.metadata().map_err(cannot)?.mode();
    let mut bytes = Vec::new();
    file.take(LONGEST + 1).read_to_end(&mut bytes).map_err(cannot)?;
    if bytes.len() as u64 > LONGEST {
        return Err(format!("expected a file of at most {LONGEST} bytes with the password"));
    }
    let text = String::from_utf8(bytes).map_err(|_| "expected UTF-8 text in the password file".to_owned())?;
    let line = text.strip_suffix('\n').unwrap_or(&text);
    let line = line.strip_suffix('\r').unwrap_or(line);
    if line.is_empty() {
        return Err("expected a password in the file, it is empty".to_owned());
    }
    if line.contains(['\n', '\r', '\0']) {
        return Err("expected one line in the password file".to_owned());
    }
    Ok(FromFile { password: Secret::new(line), open_to_others: open_to_others(mode) })
}

/// Takes the password out of `scheme://user:password@host...`: the url without it, and the password decoded.
///
/// # Errors
/// When the escapes in the password make no text. The text of the error holds nothing of the url.
pub(super) fn out_of_url(url: &str) -> Result<(String, Option<Secret>), String> {
    let Some((scheme, rest)) = url.split_once("://") else { return Ok((url.to_owned(), None)) };
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let Some(at) = rest[..end].rfind('@') else { return Ok((url.to_owned(), None)) };
    let (userinfo, host) = (&rest[..at], &rest[at..]);
    let Some((user, password)) = userinfo.split_once(':') else { return Ok((url.to_owned(), None)) };
    let password = decoded(password).ok_or("expected '%' in the url's password only in escapes such as %40")?;
    let password = if password.is_empty() { None } else { Some(Secret::new(password)) };
    Ok((format!("{scheme}://{user}{host}"), password))
}

fn decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        rest = tail;
        if *first != b'%' {
            bytes.push(*first);
            continue;
        }
        let [high, low, tail @ ..] = rest else { return None };
        let digit = |byte: &u8| char::from(*byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
        bytes.push(digit(high)? * 16 + digit(low)?);
        rest = tail;
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_leaves_the_url_decoded_and_the_rest_stays_as_it_was() {
        let cases = [
            ("amqp://u:p%40ss@h:5672/v?heartbeat=5", "amqp://u@h:5672/v?heartbeat=5", Some("p@ss")),
            ("amqps://u@h/v", "amqps://u@h/v", None),
            ("amqp://h", "amqp://h", None),
            ("amqp://u:@h", "amqp://u@h", None),
            ("amqp://u:a:b@c@h/", "amqp://u@h/", Some("a:b@c")),
            ("amqp://h/v@w:x", "amqp://h/v@w:x", None),
        ];
        for (url, rest, password) in cases {
            let (found, secret) = out_of_url(url).unwrap();
            assert_eq!((found.as_str(), secret.as_ref().map(Secret::reveal)), (rest, password), "{url}");
        }
        for bad in ["amqp://u:%zz@h", "amqp://u:%4@h", "amqp://u:%ff@h"] {
            assert!(!out_of_url(bad).unwrap_err().contains("%f"), "{bad}");
        }
    }

    #[test]
    fn a_password_file_is_one_line_with_or_without_its_end() {
        let dir = tempfile::tempdir().unwrap();
        let file = |text: &[u8]| {
            let path = dir.path().join("password");
            std::fs::write(&path, text).unwrap();
            read(&path)
        };
        for good in ["pa ss ", "pa ss \n", "pa ss \r\n"] {
            assert_eq!(file(good.as_bytes()).unwrap().password.reveal(), "pa ss ", "{good:?}");
        }
        for bad in [&b""[..], b"\n", b"hunter2\nx", b"\xff\xfe", b"a\0b", &[b'x'; 5000]] {
            let why = file(bad).unwrap_err();
            assert!(why.starts_with("expected ") && !why.contains("hunter2"), "{why}");
        }
        assert!(read(dir.path()).is_err(), "a directory is no password file");
        assert!(read(&dir.path().join("none")).unwrap_err().contains("No such file"));
    }
}
