//! `ls --watch` in a real terminal: it fits, follows the size, says when the database is away, and leaves the terminal as
//! it was.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use cta_sim::World;
use journeys::proxy::Proxy;
use journeys::shell::{Ran, of_site};
use journeys::site::{PATIENCE, Site, program};

const MANAGER: &str = "cta-ops-repack-manager";

/// A terminal in a server of its own, gone when dropped.
struct Terminal {
    socket: std::path::PathBuf,
}

impl Terminal {
    /// Runs a shell script in a terminal of this size.
    fn new(directory: &Path, script: &str, size: (u16, u16)) -> Terminal {
        let terminal = Terminal { socket: directory.join("tmux") };
        let (width, height) = (size.0.to_string(), size.1.to_string());
        terminal.tmux(&["new-session", "-d", "-x", &width, "-y", &height, script]);
        terminal
    }

    fn tmux(&self, words: &[&str]) -> String {
        let run = Command::new("tmux").args(["-f", "/dev/null", "-S"]).arg(&self.socket).args(words).output();
        let run = run.expect("tmux is there: tests/run installs it");
        assert!(run.status.success(), "tmux {words:?}: {}", String::from_utf8_lossy(&run.stderr));
        String::from_utf8_lossy(&run.stdout).into_owned()
    }

    fn screen(&self) -> String {
        self.tmux(&["capture-pane", "-p"])
    }

    /// `alternate screen, cursor shown`, each 0 or 1.
    fn modes(&self) -> String {
        self.tmux(&["display-message", "-p", "#{alternate_on}, #{cursor_flag}"]).trim().to_owned()
    }

    /// Waits for a screen of which this holds.
    fn until(&self, what: &str, holds: impl Fn(&str) -> bool) -> String {
        let begun = Instant::now();
        loop {
            let screen = self.screen();
            if holds(&screen) {
                return screen;
            }
            assert!(begun.elapsed() < PATIENCE, "{what}: the screen is\n{screen}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let mut end = Command::new("tmux");
        end.arg("-S").arg(&self.socket).arg("kill-server").stderr(Stdio::null()).status().ok();
    }
}

async fn site() -> Site {
    let site = Site::new(World::new()).await;
    site.sql(
        "INSERT INTO repack_status (tape, entered, files, bytes, usage, mode, priority, mediatype, tapepool, responsible)
         SELECT 'V' || to_char(n, 'FM00000'), LOCALTIMESTAMP(0), 1, 1, 1, 'error', 10, 'LTO9', 'raw', 'bob' FROM generate_series(1, 40) n",
    )
    .await;
    site
}

/// What the terminal runs: the program, and then what became of it.
fn script(site: &Site) -> String {
    let (program, config) = (program(MANAGER), site.configuration());
    format!(
        "echo before; '{}' -C '{}' ls --watch 0.2; echo \"exit status $?\"; exec cat",
        program.display(),
        config.display()
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn it_fits_the_terminal_follows_its_size_and_leaves_it_as_it_was() {
    let site = site().await;
    let terminal = Terminal::new(site.dir.path(), &script(&site), (100, 20));
    let screen = terminal.until("the list", |screen| screen.contains("more tapes"));
    assert_eq!(terminal.modes(), "1, 0", "on another screen, without a cursor");
    assert!(screen.starts_with("repack automation at ") && !screen.contains("before"), "{screen}");
    assert!(
        screen.contains("VID") && screen.contains("V00001") && screen.contains("40 tapes in mode error"),
        "{screen}"
    );
    let shown = screen.matches("\nV000").count();
    assert!(shown > 10 && screen.contains(&format!("and {} more tapes", 40 - shown)), "{screen}");
    assert_eq!(screen.trim_end().lines().count(), 20, "the whole screen is used: {screen}");

    terminal.tmux(&["resize-window", "-x", "60", "-y", "8"]);
    let small = terminal
        .until("the smaller list", |screen| screen.trim_end().lines().count() == 8 && screen.contains("more tapes"));
    assert!(small.matches("\nV000").count() < shown, "{small}");
    terminal.tmux(&["resize-window", "-x", "120", "-y", "60"]);
    let large = terminal.until("all of it", |screen| screen.contains("V00040"));
    assert!(!large.contains("more tapes") && large.matches("V000").count() >= 40, "{large}");

    // New figures without anybody's doing, in place of the old ones.
    site.sql("UPDATE repack_status SET mode = 'manual' WHERE tape = 'V00001'").await;
    terminal.until("what changed", |screen| screen.contains("39 tapes in mode error") && !screen.contains("40 tapes"));

    terminal.tmux(&["send-keys", "C-c"]);
    let after = terminal.until("the end", |screen| screen.contains("exit status"));
    assert!(after.contains("before") && after.contains("exit status 0"), "{after}");
    assert!(!after.contains("V00001"), "nothing is left of it: {after}");
    assert_eq!(terminal.modes(), "0, 1", "the screen from before, with a cursor");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_goes_away_is_said_and_asked_again() {
    let mut site = site().await;
    let proxy = Proxy::to(&format!("{}:{}", site.settings.database.host, site.settings.database.port)).await;
    let (host, port) = proxy.address().split_once(':').map(|(h, p)| (h.to_owned(), p.parse().unwrap())).unwrap();
    (site.settings.database.host, site.settings.database.port) = (host, port);
    let terminal = Terminal::new(site.dir.path(), &script(&site), (100, 20));
    terminal.until("the list", |screen| screen.contains("V00001"));
    proxy.cut();
    let away = terminal.until("the trouble", |screen| screen.contains("the database cannot be asked"));
    assert!(away.contains("V00001"), "what was known stays: {away}");
    proxy.thaw();
    terminal.until("the end of the trouble", |screen| screen.contains("V00001") && !screen.contains("cannot be asked"));
    // Also while it is away it ends at once.
    proxy.freeze();
    terminal.tmux(&["send-keys", "C-c"]);
    terminal.until("the end", |screen| screen.contains("exit status 0"));
    assert_eq!(terminal.modes(), "0, 1");
}

#[tokio::test(flavor = "multi_thread")]
async fn it_is_refused_where_there_is_no_terminal() {
    let site = site().await;
    let ran = Ran::of(of_site(&site, MANAGER).args(["ls", "--watch"]));
    ran.ended(2).saying(&["at a terminal", "--jsonl"]);
    assert_eq!(ran.stdout, "");
}
