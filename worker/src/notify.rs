//! What the service manager is told: ready, alive, how it goes, ending. Without one, nothing is said to anybody.
//!
//! The protocol of systemd's `sd_notify`: one datagram of `KEY=value` lines to the socket that `NOTIFY_SOCKET` names. Signs
//! of life come from the main loops themselves, never from a thread of their own: a loop that hangs is silent.

use std::ffi::OsStr;
use std::future::Future;
use std::io;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::sync::{LazyLock, Mutex};
use std::time::{Duration, Instant};

use tracing::debug;

/// A program that nobody watches still looks after itself this often: its timers cost nothing.
const UNWATCHED: Duration = Duration::from_secs(60);

/// Longer than any status line that a person reads.
const LONGEST_STATUS: usize = 300;

/// Whom to tell, and how often.
#[derive(Debug)]
pub struct Notify {
    to: Option<(UnixDatagram, SocketAddr)>,
    every: Option<Duration>,
    last: Mutex<Last>,
}

#[derive(Debug, Default)]
struct Last {
    ready: bool,
    beat: Option<Instant>,
    status: String,
}

static OURS: LazyLock<Notify> = LazyLock::new(|| Notify::from(|name| std::env::var_os(name), std::process::id()));

/// The service manager of this process.
pub fn manager() -> &'static Notify {
    &OURS
}

impl Notify {
    /// As the environment says: `NOTIFY_SOCKET`, `WATCHDOG_USEC`, `WATCHDOG_PID`. What is wrong there is as good as not
    /// there.
    fn from(env: impl Fn(&str) -> Option<std::ffi::OsString>, pid: u32) -> Notify {
        let to = env("NOTIFY_SOCKET").filter(|name| !name.is_empty()).and_then(|name| match connected(&name) {
            Ok(to) => Some(to),
            Err(error) => {
                debug!("no word to the service manager: NOTIFY_SOCKET: {error}");
                None
            }
        });
        let number = |name: &str| env(name)?.to_str()?.parse::<u64>().ok();
        let meant = number("WATCHDOG_PID").is_none_or(|meant| meant == u64::from(pid));
        let every =
            number("WATCHDOG_USEC").filter(|usec| meant && *usec > 0).map(|usec| Duration::from_micros(usec) / 3);
        Notify { to, every, last: Mutex::default() }
    }

    /// It serves, or would if what it needs were there: only the first word counts.
    pub fn ready(&self) {
        if !std::mem::replace(&mut self.last().ready, true) {
            self.send("READY=1");
        }
    }

    /// How it goes, for `systemctl status`: one line.
    pub fn status(&self, text: &str) {
        let line: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(LONGEST_STATUS).collect();
        let told = std::mem::replace(&mut self.last().status, line.clone());
        if told != line {
            self.send(&format!("STATUS={line}"));
        }
    }

    /// It was told to end, and does so.
    pub fn stopping(&self) {
        self.send("STOPPING=1");
    }

    /// A sign of life, if one is due: for a loop to say wherever it comes by.
    pub fn alive(&self) {
        let Some(every) = self.every else { return };
        let due = {
            let mut last = self.last();
            let due = last.beat.is_none_or(|at| at.elapsed() >= every / 2);
            if due {
                last.beat = Some(Instant::now());
            }
            due
        };
        if due {
            self.send("WATCHDOG=1");
        }
    }

    /// Waits until the next sign of life is due: the timer of a loop that has nothing else to do.
    pub async fn pause(&self) {
        tokio::time::sleep(self.every.unwrap_or(UNWATCHED)).await;
    }

    /// Does this work with signs of life in between, from the same task, for at most so long: what takes longer is taken
    /// for hung.
    pub async fn during<F: Future>(&self, longest: Duration, work: F) -> F::Output {
        let begun = Instant::now();
        let mut work = std::pin::pin!(work);
        loop {
            self.alive();
            tokio::select! {
                biased;
                done = &mut work => return done,
                () = self.pause(), if begun.elapsed() < longest => {}
            }
        }
    }

    fn last(&self) -> std::sync::MutexGuard<'_, Last> {
        self.last.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn send(&self, text: &str) {
        let Some((socket, to)) = &self.to else { return };
        if let Err(error) = socket.send_to_addr(text.as_bytes(), to) {
            debug!("no word to the service manager: {error}");
        }
    }
}

/// The socket, and where it leads: a path, or behind `@` a name without a file.
fn connected(name: &OsStr) -> io::Result<(UnixDatagram, SocketAddr)> {
    let to = match name.as_bytes() {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
        _ => SocketAddr::from_pathname(name)?,
    };
    let socket = UnixDatagram::unbound()?;
    // A manager that does not read must not hold us up.
    socket.set_nonblocking(true)?;
    Ok((socket, to))
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;

    use super::*;

    const PID: u32 = 4242;

    fn listening() -> (tempfile::TempDir, UnixDatagram, OsString) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        socket.set_nonblocking(true).unwrap();
        (dir, socket, path.into_os_string())
    }

    fn heard(socket: &UnixDatagram) -> Vec<String> {
        let mut buffer = [0; 1024];
        std::iter::from_fn(|| socket.recv(&mut buffer).ok().map(|n| String::from_utf8_lossy(&buffer[..n]).into_owned()))
            .collect()
    }

    fn notify(socket: OsString, watchdog: &[(&str, &str)]) -> Notify {
        let mut env: std::collections::HashMap<String, OsString> =
            watchdog.iter().map(|(name, value)| ((*name).to_owned(), (*value).into())).collect();
        env.insert("NOTIFY_SOCKET".to_owned(), socket);
        Notify::from(|name| env.get(name).cloned(), PID)
    }

    #[test]
    fn it_is_ready_once_and_a_status_is_one_line_that_is_not_repeated() {
        let (_dir, socket, name) = listening();
        let notify = notify(name, &[]);
        notify.ready();
        notify.status("taking\ntasks");
        notify.status("taking\ntasks");
        notify.ready();
        notify.alive();
        notify.stopping();
        assert_eq!(heard(&socket), ["READY=1", "STATUS=taking tasks", "STOPPING=1"]);
    }

    #[test]
    fn a_name_without_a_file_is_reached_too() {
        let name = format!("cta-ops-notify-test-{}", std::process::id());
        let socket = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
        socket.set_nonblocking(true).unwrap();
        notify(format!("@{name}").into(), &[]).ready();
        assert_eq!(heard(&socket), ["READY=1"]);
    }

    #[test]
    fn signs_of_life_are_for_the_process_that_is_watched_and_not_more_often_than_needed() {
        let (_dir, socket, name) = listening();
        for (watchdog, expected) in [
            (&[("WATCHDOG_USEC", "60000000")][..], 1),
            (&[("WATCHDOG_USEC", "60000000"), ("WATCHDOG_PID", "4242")], 1),
            (&[("WATCHDOG_USEC", "60000000"), ("WATCHDOG_PID", "1")], 0),
            (&[("WATCHDOG_USEC", "0")], 0),
            (&[("WATCHDOG_USEC", "much")], 0),
            (&[], 0),
        ] {
            let notify = notify(name.clone(), watchdog);
            notify.alive();
            notify.alive();
            assert_eq!(heard(&socket), vec!["WATCHDOG=1"; expected], "{watchdog:?}");
        }
    }

    #[tokio::test]
    async fn work_that_takes_its_time_gives_signs_of_life_and_work_that_hangs_falls_silent() {
        let (_dir, socket, name) = listening();
        let notify = notify(name, &[("WATCHDOG_USEC", "3000")]);
        notify.during(Duration::MAX, tokio::time::sleep(Duration::from_millis(50))).await;
        assert!(heard(&socket).len() > 1, "while it worked");
        let hung = notify.during(Duration::ZERO, std::future::pending::<()>());
        assert!(tokio::time::timeout(Duration::from_millis(50), hung).await.is_err());
        assert_eq!(heard(&socket), ["WATCHDOG=1"], "only when it began");
    }

    #[test]
    fn without_a_service_manager_or_with_a_wrong_name_nothing_happens() {
        for name in ["", "/nowhere/at/all", "relative", "@"] {
            let notify = notify(name.into(), &[("WATCHDOG_USEC", "60000000")]);
            notify.ready();
            notify.alive();
            notify.status("x");
            notify.stopping();
        }
        Notify::from(|_| None, PID).ready();
    }
}
