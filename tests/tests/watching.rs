//! `ls --watch` and `show --watch` in a real terminal: they fit, follow the size, say what is away, and leave the terminal
//! as it was.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use common::journey::{Mode, State};
use cta_sim::World;
use journeys::proxy::Proxy;
use journeys::services::Services;
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
fn script(site: &Site, words: &str) -> String {
    let (program, config) = (program(MANAGER), site.configuration());
    format!("echo before; '{}' -C '{}' {words}; echo \"exit status $?\"; exec cat", program.display(), config.display())
}

/// A way to the database that can be cut: the site's programs take it from now on.
async fn way_to_the_database(site: &mut Site) -> Proxy {
    let proxy = Proxy::to(&format!("{}:{}", site.settings.database.host, site.settings.database.port)).await;
    let address = proxy.address();
    let (host, port) = address.split_once(':').expect("an address has a port");
    let port = port.parse().expect("a port is a number");
    (site.settings.database.host, site.settings.database.port) = (host.to_owned(), port);
    proxy
}

#[tokio::test(flavor = "multi_thread")]
async fn it_fits_the_terminal_follows_its_size_and_leaves_it_as_it_was() {
    let site = site().await;
    let terminal = Terminal::new(site.dir.path(), &script(&site, "ls --watch 0.2"), (100, 20));
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
    let proxy = way_to_the_database(&mut site).await;
    let terminal = Terminal::new(site.dir.path(), &script(&site, "ls --watch 0.2"), (100, 20));
    terminal.until("the list", |screen| screen.contains("V00001"));
    proxy.cut();
    let away = terminal.until("the trouble", |screen| screen.contains("the database cannot be asked"));
    assert!(away.contains("V00001"), "what was known stays: {away}");
    proxy.thaw();
    terminal.until("the end of the trouble", |screen| screen.contains("V00001") && !screen.contains("cannot be asked"));
    // Also while it is away it ends at once.
    proxy.freeze();
    terminal.until("that it waits", |screen| screen.lines().next().is_some_and(|title| title.contains("asking for")));
    terminal.tmux(&["send-keys", "C-c"]);
    terminal.until("the end", |screen| screen.contains("exit status 0"));
    assert_eq!(terminal.modes(), "0, 1");
}

#[tokio::test(flavor = "multi_thread")]
async fn it_is_refused_where_there_is_no_terminal() {
    let site = site().await;
    for words in [&["ls", "--watch"][..], &["ls", "--watch", "--json"], &["show", "V00001", "--watch"]] {
        let ran = Ran::of(of_site(&site, MANAGER).args(words));
        ran.ended(2).saying(&["at a terminal", "--json"]);
        assert_eq!(ran.stdout, "", "{words:?}");
    }
}

/// How long a repack takes, by a clock that the test lets jump.
const REPACK_MS: u64 = 3_600_000;

/// A site whose only tape is being repacked: nothing moves but by [`World::skip`].
async fn repacking() -> Site {
    let site = Site::new(World::new().with_full_tapes(1).with_durations(0, REPACK_MS)).await;
    site.enter(&["V01001"]).await;
    site.bring(&["V01001"], State::Started).await;
    site
}

/// The line with the bar, and how much of the bar is full.
fn bar(screen: &str) -> Option<(&str, usize)> {
    let line = screen.lines().find(|line| line.contains("Running ["))?;
    Some((line, line.matches('#').count()))
}

#[tokio::test(flavor = "multi_thread")]
async fn the_bar_of_a_repack_moves_fits_the_terminal_and_is_gone_at_the_end() {
    let site = repacking().await;
    let terminal = Terminal::new(site.dir.path(), &script(&site, "show V01001 --watch 0.2"), (100, 70));
    let screen = terminal.until("the tape", |screen| screen.contains("what happened"));
    assert_eq!(terminal.modes(), "1, 0", "on another screen, without a cursor");
    assert!(screen.starts_with("V01001 at ") && screen.contains("every 0.2 s; Ctrl-C ends"), "{screen}");
    assert!(screen.contains("V01001: started, mode auto") && screen.contains("REPACKING"), "{screen}");
    assert!(!screen.contains("before"), "{screen}");

    site.edit(|world| world.skip(REPACK_MS / 2));
    // A rate wants a second since the request was made.
    let half = terminal.until("a bar and a rate", |screen| {
        bar(screen).is_some_and(|(_, full)| full > 0) && screen.contains("B/s since the request was made, about ")
    });
    let (line, full) = bar(&half).unwrap();
    assert!(line.contains("] ") && line.contains("%, ") && line.contains(" copies"), "{half}");
    assert!(half.contains(" left"), "{half}");
    site.edit(|world| world.skip(REPACK_MS / 4));
    let more = terminal.until("more of the bar", |screen| bar(screen).is_some_and(|(_, now)| now > full));
    assert_eq!(more.matches("Running [").count(), 1, "the new bar stands in place of the old one: {more}");

    // A shorter bar on a line of its own; what happened last is still there; nothing is cut, nothing scrolls.
    terminal.tmux(&["resize-window", "-x", "46", "-y", "32"]);
    let small = terminal.until("a bar in 46 columns", |screen| {
        bar(screen).is_some_and(|(line, full)| full > 0 && line.contains("] ") && line.ends_with('%'))
            && screen.lines().count() <= 32
            && screen.contains("more lines")
    });
    assert!(small.starts_with("V01001 at ") && small.contains(" copies, "), "{small}");
    assert!(small.contains("what happened") && small.contains("start: done:"), "{small}");
    let shown = bar(&small).map(|(line, _)| line.matches(['#', '-']).count());
    assert!(shown.is_some_and(|shown| (10..=30).contains(&shown)), "{small}");
    terminal.tmux(&["resize-window", "-x", "140", "-y", "70"]);
    terminal.until("all of it", |screen| {
        !screen.contains("more lines") && bar(screen).is_some_and(|(line, _)| line.matches(['#', '-']).count() >= 50)
    });

    terminal.tmux(&["send-keys", "C-c"]);
    let after = terminal.until("the end", |screen| screen.contains("exit status"));
    assert!(after.contains("before") && after.contains("exit status 0"), "{after}");
    assert!(!after.contains("V01001: started"), "nothing is left of it: {after}");
    assert_eq!(terminal.modes(), "0, 1", "the screen from before, with a cursor");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_away_while_a_tape_is_watched_is_said_and_asked_again() {
    let vhost = Services::get().fresh_vhost();
    let mut site = repacking().await;
    site.edit(|world| world.skip(REPACK_MS / 2));
    site.tick_of(&[common::stages::STAGES[1]]).await;
    let database = way_to_the_database(&mut site).await;
    let queues = Proxy::to(&vhost.address()).await;
    let mut broker = vhost.broker();
    broker.url = broker.url.replace(&vhost.address(), &queues.address());
    site.settings.broker = Some(broker);
    let terminal = Terminal::new(site.dir.path(), &script(&site, "show V01001 --watch 0.2"), (150, 70));
    let all = |screen: &str| {
        bar(screen).is_some_and(|(line, _)| !line.contains("as recorded"))
            && screen.contains("there is no such queue")
            && !screen.contains("asked:")
    };
    terminal.until("everything", all);

    site.edit(|world| world.down = true);
    let away = terminal.until("that CTA is away", |screen| screen.contains("CTA could not be asked:"));
    assert!(bar(&away).is_some_and(|(line, _)| line.contains("as recorded")), "what the row knows stays: {away}");
    site.edit(|world| world.down = false);
    terminal.until("that CTA is back", all);

    queues.cut();
    terminal.until("that the broker is away", |screen| screen.contains("the broker could not be asked:"));
    queues.thaw();
    terminal.until("that the broker is back", all);

    database.cut();
    let away = terminal.until("that the database is away", |screen| screen.contains("the database cannot be asked"));
    assert!(away.contains("V01001: started") && bar(&away).is_some(), "what was known stays: {away}");
    database.thaw();
    terminal.until("that the database is back", |screen| all(screen) && !screen.contains("cannot be asked"));

    terminal.tmux(&["send-keys", "C-c"]);
    terminal.until("the end", |screen| screen.contains("exit status 0"));
    assert_eq!(terminal.modes(), "0, 1");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watched_tape_is_watched_while_it_is_stopped_and_ends_with_its_last_picture_when_it_is_finished() {
    let mut world = World::new().with_full_tapes(2).with_durations(0, 0);
    world.tapes.get_mut("V01001").unwrap().plan =
        cta_sim::Plan { fail_files: 2, fail_times: 1, ..cta_sim::Plan::default() };
    let site = Site::new(world).await;
    site.enter(&["V01001", "V01002"]).await;
    Ran::of(of_site(&site, MANAGER).args(["ch", "V01002", "--mode", "manual", "--yes"])).ended(0);
    let terminal = Terminal::new(site.dir.path(), &script(&site, "show V01001 --watch 0.2"), (150, 90));
    terminal.until("the tape", |screen| screen.contains("V01001: entered, mode auto"));
    site.tick_until("a failed repack", |rows| {
        rows.iter().any(|row| row.row.as_ref().is_ok_and(|tape| tape.mode == Mode::Error))
    })
    .await;
    // More than one look after it has stopped.
    let first = terminal.until("that it stopped", |screen| screen.contains("V01001: started, mode error"));
    let title = first.lines().next().unwrap().to_owned();
    terminal.until("another look", |screen| {
        screen.contains("V01001: started, mode error") && screen.lines().next() != Some(title.as_str())
    });
    Ran::of(of_site(&site, MANAGER).args(["retry-failed", "V01001", "--yes"])).ended(0);
    site.finish("V01001").await;
    let after = terminal.until("the end", |screen| screen.contains("exit status 0"));
    assert!(after.contains("before") && after.contains("V01001: finished, mode auto"), "{after}");
    assert!(after.contains("its journey is over: there is nothing more to watch"), "{after}");
    assert!(!after.contains("Ctrl-C"), "the last picture is no frame of the other screen: {after}");
    assert_eq!(terminal.modes(), "0, 1");

    // One that leaves the table is told as `show` tells it.
    let other = site.dir.path().join("other");
    std::fs::create_dir(&other).unwrap();
    let terminal = Terminal::new(&other, &script(&site, "show V01002 --watch 0.2 --no-cta"), (150, 50));
    terminal.until("the tape", |screen| screen.contains("V01002: "));
    site.sql("DELETE FROM repack_status WHERE tape = 'V01002'").await;
    let after = terminal.until("the end", |screen| screen.contains("exit status 1"));
    assert!(after.contains("V01002: not on its way") && after.contains("it is not in the table"), "{after}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watched_list_has_all_columns_where_they_are_asked_for_and_is_refused_to_programs() {
    let site = site().await;
    let terminal = Terminal::new(site.dir.path(), &script(&site, "ls --watch 0.2 --long --limit 39"), (200, 60));
    let screen = terminal.until("all columns", |screen| screen.contains("RESPONSIBLE") && screen.contains("V00039"));
    for column in ["ENTERED", "MEDIA", "USAGE", "OWNER", "WHY", "LTO9", "bob"] {
        assert!(screen.contains(column), "{column}: {screen}");
    }
    assert!(screen.contains("... and at least 1 more tape\n"), "{screen}");
    terminal.tmux(&["resize-window", "-x", "60", "-y", "10"]);
    terminal.until("what fits", |screen| {
        let lines: Vec<&str> = screen.trim_end().lines().collect();
        lines.len() <= 10
            && lines[0].starts_with("repack automation")
            && lines.iter().any(|line| line.starts_with("V000") && line.ends_with('…'))
    });
    terminal.tmux(&["send-keys", "C-c"]);
    terminal.until("the end", |screen| screen.contains("exit status 0"));

    for (number, words) in
        ["ls --watch --json", "show V00001 --watch --json", "show V00001 V00002 --watch"].into_iter().enumerate()
    {
        let other = site.dir.path().join(format!("other-{number}"));
        std::fs::create_dir(&other).unwrap();
        let terminal = Terminal::new(&other, &script(&site, words), (150, 20));
        let screen = terminal.until("the refusal", |screen| screen.contains("exit status 2"));
        assert!(screen.contains("error: --watch"), "{words}: {screen}");
        assert_eq!(terminal.modes(), "0, 1", "{words}");
    }
}
