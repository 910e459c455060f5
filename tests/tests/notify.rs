//! What the real programs tell the service manager.

use std::os::unix::net::UnixDatagram;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use cta_sim::World;
use journeys::services::Services;
use journeys::shell::file;
use journeys::site::{PATIENCE, Site, program};

/// What systemd would hear of a program.
struct Heard {
    socket: UnixDatagram,
    all: Vec<String>,
}

impl Heard {
    /// Waits for a message that begins like this.
    fn until(&mut self, begin: &str) -> &str {
        let began = Instant::now();
        loop {
            if let Some(at) = self.all.iter().position(|message| message.starts_with(begin)) {
                return &self.all[at];
            }
            assert!(began.elapsed() < PATIENCE, "no {begin} among {:?}", self.all);
            let mut buffer = [0; 2048];
            if let Ok(length) = self.socket.recv(&mut buffer) {
                self.all.push(String::from_utf8_lossy(&buffer[..length]).into_owned());
            }
        }
    }
}

/// Starts a program of the site as a unit of Type=notify would.
fn watched(site: &Site, name: &str, words: &[&str]) -> (Child, Heard) {
    let path = site.dir.path().join(format!("{name}.notify"));
    let socket = UnixDatagram::bind(&path).expect("a socket");
    socket.set_read_timeout(Some(Duration::from_millis(100))).expect("a limit");
    let configuration = file(site, &format!("{name}.yaml"), journeys::configuration::text(&site.settings));
    let child = Command::new(program(name))
        .arg("-C")
        .arg(configuration)
        .args(words)
        .env("NOTIFY_SOCKET", path)
        .env("WATCHDOG_USEC", "600000")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("the program is started");
    (child, Heard { socket, all: Vec::new() })
}

/// It is told to end, says so, and ends well.
fn ends(mut child: Child, mut heard: Heard) {
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("it runs");
    heard.until("STOPPING=1");
    assert_eq!(child.wait().expect("it ends").code(), Some(0));
}

async fn site() -> Site {
    Site::new(World::new().with_full_tapes(1)).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_is_ready_when_it_takes_tasks_gives_signs_of_life_and_says_that_it_ends() {
    let mut site = site().await;
    let vhost = Services::get().fresh_vhost();
    site.settings.broker = Some(vhost.broker());
    let (child, mut heard) = watched(&site, "cta-ops-repack-worker", &[]);
    heard.until("READY=1");
    assert!(heard.until("STATUS=").starts_with("STATUS=taking tasks of start, "), "{:?}", heard.all);
    heard.until("WATCHDOG=1");
    heard.all.clear();
    heard.until("WATCHDOG=1");
    ends(child, heard);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_whose_broker_is_away_is_ready_all_the_same_and_says_what_is_away() {
    let mut site = site().await;
    let mut broker = Services::get().fresh_vhost().broker();
    broker.url = "amqp://guest@127.0.0.1:9".to_owned();
    site.settings.broker = Some(broker);
    let (child, mut heard) = watched(&site, "cta-ops-repack-worker", &[]);
    heard.until("READY=1");
    assert!(heard.until("STATUS=").starts_with("STATUS=no tasks are taken: "), "{:?}", heard.all);
    heard.until("WATCHDOG=1");
    ends(child, heard);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_cannot_use_its_configuration_is_never_ready() {
    let site = site().await;
    let (mut child, mut heard) = watched(&site, "cta-ops-repack-worker", &[]);
    assert_eq!(child.wait().expect("it ends").code(), Some(2), "there is no broker section");
    let mut buffer = [0; 2048];
    while let Ok(length) = heard.socket.recv(&mut buffer) {
        heard.all.push(String::from_utf8_lossy(&buffer[..length]).into_owned());
    }
    assert!(!heard.all.iter().any(|message| message.contains("READY")), "{:?}", heard.all);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_producer_is_ready_after_its_first_tick_and_tells_of_the_last() {
    let site = site().await;
    let (child, mut heard) = watched(&site, "cta-ops-repack-producer", &["run"]);
    heard.until("READY=1");
    assert!(heard.until("STATUS=").starts_with("STATUS=last tick: 0 due, "), "{:?}", heard.all);
    heard.until("WATCHDOG=1");
    ends(child, heard);
}
