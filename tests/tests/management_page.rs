//! The page that an operator sees: a real browser on RabbitMQ's management page, with our queues and messages in them.
//!
//! `tests/screenshot` installs the browser and runs this; with `REPACK_TEST_WRITE=1` the picture in `docs/` is taken anew.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use cta_sim::World;
use journeys::crew::Crew;
use journeys::private::Rabbit;
use journeys::services::api_request;
use journeys::site::{PATIENCE, Site};
use serde_json::{Value, json};

const TAPES: u64 = 12;

/// A browser without a window, told what to do over WebDriver.
struct Browser {
    driver: Child,
    at: String,
    session: String,
}

impl Browser {
    fn open() -> Browser {
        let port = (20_000..30_000).find(|port| std::net::TcpListener::bind(("127.0.0.1", *port)).is_ok());
        let port = port.expect("a free port");
        let driver = Command::new("setpriv")
            .args(["--pdeathsig", "KILL", "chromedriver", &format!("--port={port}")])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("chromedriver is installed: tests/screenshot does it");
        let mut browser = Browser { driver, at: format!("http://127.0.0.1:{port}"), session: String::new() };
        let options = json!({"capabilities": {"alwaysMatch": {"goog:chromeOptions": {"args": [
            "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--window-size=1500,1000"]}}}});
        let begun = Instant::now();
        loop {
            let answer = call(&browser.at, "POST", "/session", Some(&options));
            if let Some(session) = answer["value"]["sessionId"].as_str() {
                session.clone_into(&mut browser.session);
                return browser;
            }
            assert!(begun.elapsed() < PATIENCE, "{answer}");
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    fn ask(&self, method: &str, what: &str, body: Option<&Value>) -> Value {
        let answer = call(&self.at, method, &format!("/session/{}/{what}", self.session), body);
        assert!(answer["value"]["error"].is_null(), "{method} {what}: {answer}");
        answer["value"].clone()
    }

    fn go(&self, url: &str) {
        self.ask("POST", "url", Some(&json!({"url": url})));
    }

    fn run(&self, script: &str) -> Value {
        self.ask("POST", "execute/sync", Some(&json!({"script": script, "args": []})))
    }

    /// What a person reads on the page.
    fn text(&self) -> String {
        self.run("return document.body.innerText").as_str().unwrap_or_default().to_owned()
    }

    /// Cells of the rows of the page's table.
    fn rows(&self) -> Vec<Vec<String>> {
        let rows = self.run(
            "return Array.from(document.querySelectorAll('table.list tbody tr'), \
             row => Array.from(row.cells, cell => cell.innerText.trim())).filter(row => row.length > 6)",
        );
        serde_json::from_value(rows).unwrap_or_default()
    }

    /// Waits until the page has such an element.
    async fn until(&self, selector: &str) {
        let begun = Instant::now();
        while self.run(&format!("return document.querySelector('{selector}') !== null")) != true {
            assert!(begun.elapsed() < PATIENCE, "no {selector}: {}", self.text());
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    fn picture(&self, to: &Path) {
        let coded = self.ask("GET", "screenshot", None);
        let mut decode = Command::new("base64")
            .arg("-d")
            .stdin(Stdio::piped())
            .stdout(std::fs::File::create(to).expect("the picture's file"))
            .spawn()
            .expect("base64");
        let coded = coded.as_str().expect("a picture");
        decode.stdin.take().expect("its input").write_all(coded.as_bytes()).expect("base64 reads");
        assert!(decode.wait().expect("base64").success());
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // The browser ends with its session, the driver does not.
        call(&self.at, "DELETE", &format!("/session/{}", self.session), None);
        let _ = self.driver.kill();
        let _ = self.driver.wait();
    }
}

/// One request to the driver; null if there is no answer.
fn call(at: &str, method: &str, path: &str, body: Option<&Value>) -> Value {
    let mut curl = Command::new("curl");
    curl.args(["--silent", "--max-time", "120", "-X", method, "-H", "Content-Type: application/json"]);
    if let Some(body) = body {
        curl.arg("-d").arg(body.to_string());
    }
    let ran = curl.arg(format!("{at}{path}")).output().expect("curl");
    serde_json::from_slice(&ran.stdout).unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a browser: tests/screenshot"]
async fn the_management_page_shows_our_queues_with_what_they_hold() {
    let rabbit = Rabbit::start();
    let mut site = Site::new(World::new().with_full_tapes(TAPES)).await;
    let mut broker = rabbit.broker(&rabbit.address());
    // As in production.
    "atresys".clone_into(&mut broker.prefix);
    site.settings.broker = Some(broker);
    site.settings.max_active_repacks = 20;
    site.settings.producer.interval = Duration::from_millis(200);
    let vids: Vec<String> = (0..TAPES).map(|number| format!("V{:05}", 1001 + number)).collect();
    site.enter(&vids.iter().map(String::as_str).collect::<Vec<_>>()).await;
    let producers = Crew::producers(&site, 1, "");
    let ready = |queue: &str| {
        let answer = api_request(&rabbit.management(), "GET", &format!("/api/queues/%2F/{queue}"), None);
        answer.ok().and_then(|(_, queue)| queue["messages_ready"].as_u64()).unwrap_or_default()
    };
    journeys::steps::until("all are published", || ready("atresys.v1.stage.start") == TAPES).await;
    let stranger =
        json!({"properties": {}, "routing_key": "parked", "payload": "not a task", "payload_encoding": "string"});
    rabbit.api("POST", "/api/exchanges/%2F/atresys.v1.dead/publish", Some(&stranger));
    journeys::steps::until("one is parked", || ready("atresys.v1.parked") == 1).await;

    let browser = Browser::open();
    let at = rabbit.management().split_once('@').expect("an address").1.to_owned();
    browser.go(&format!("http://{at}/"));
    browser.until("input[name=username]").await;
    browser.run(
        "document.querySelector('input[name=username]').value = 'guest'; \
         document.querySelector('input[name=password]').value = 'guest'; \
         document.querySelector('input[type=submit]').click()",
    );
    browser.until("#tabs").await;
    browser.run("location.hash = '#/queues'");
    // Name, type, features, state, Ready, Unacked, Total, and the rates.
    let (waiting, one) = (TAPES.to_string(), "1".to_owned());
    let mut expected: BTreeMap<String, &str> = common::stages::STAGES
        .iter()
        .map(|stage| (format!("atresys.v1.stage.{}", stage.name), "0"))
        .chain([("atresys.v1.dead".to_owned(), "0"), ("atresys.v1.parked".to_owned(), &*one)])
        .collect();
    expected.insert("atresys.v1.stage.start".to_owned(), &waiting);
    let begun = Instant::now();
    loop {
        let rows = browser.rows();
        let shown: BTreeMap<String, &str> = rows.iter().map(|row| (row[0].clone(), &*row[4])).collect();
        if shown == expected {
            break;
        }
        assert!(begun.elapsed() < PATIENCE, "{rows:#?}");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }

    let taken = site.dir.path().join("queues.png");
    browser.picture(&taken);
    let bytes = std::fs::read(&taken).expect("the picture");
    assert!(bytes.starts_with(b"\x89PNG") && bytes.len() > 20_000, "{} bytes", bytes.len());
    if std::env::var_os("REPACK_TEST_WRITE").is_some() {
        let docs = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../docs/images");
        std::fs::create_dir_all(&docs).expect("the directory");
        std::fs::copy(&taken, docs.join("rabbitmq-queues.png")).expect("the picture in the documents");
    }
    producers.end();
}
