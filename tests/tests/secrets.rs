//! No password leaves the programs: not in what they print, log, write or keep, and not in what others can see of them.

use std::collections::{BTreeMap, HashSet};
use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use cta_sim::World;
use cta_sim::world::Plan;
use journeys::services::Services;
use journeys::shell::{MANAGER, PRODUCER, called, dump};
use journeys::site::{PATIENCE, Site, program};
use serde_json::Value;

/// Passwords, by where they are written. Each is unlike anything else that is ever printed, and none looks the same when it
/// is escaped for a URL.
const DATABASE: &str = "Dq7+zebra/Geheim=db";
const DATABASE_ENV: &str = "Ew3+yacht/Geheim=de";
const BROKER: &str = "Bk9+wombat/Geheim=br";
const BROKER_ENV: &str = "Fm2+viola/Geheim=be";
const WRONG: &str = "Wr5+umbra/Geheim=wr";
const ALL: [&str; 5] = [DATABASE, DATABASE_ENV, BROKER, BROKER_ENV, WRONG];

fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let bits: Vec<u8> = bytes.iter().flat_map(|byte| (0..8).rev().map(move |bit| byte >> bit & 1)).collect();
    let sextets = bits.chunks_exact(6).map(|sextet| sextet.iter().fold(0, |value, bit| value << 1 | bit));
    sextets.map(|sextet: u8| char::from(ALPHABET[usize::from(sextet)])).collect()
}

fn percent(text: &str) -> String {
    text.bytes()
        .map(|byte| if byte.is_ascii_alphanumeric() { char::from(byte).to_string() } else { format!("%{byte:02X}") })
        .collect()
}

/// How a password may show: as it is, escaped, in base64 wherever it begins in what was coded, as numbers or as hexadecimal.
fn forms(password: &str) -> Vec<String> {
    let bytes = password.as_bytes();
    let joined =
        |separator: &str, form: &dyn Fn(&u8) -> String| bytes.iter().map(form).collect::<Vec<_>>().join(separator);
    let mut forms = vec![
        password.to_owned(),
        percent(password),
        percent(password).to_lowercase(),
        password.replace('/', "\\/"),
        joined(", ", &|byte| byte.to_string()),
        joined(",", &|byte| byte.to_string()),
        joined(" ", &|byte| byte.to_string()),
        joined("", &|byte| format!("{byte:02x}")),
        joined("", &|byte| format!("{byte:02X}")),
        joined(" ", &|byte| format!("{byte:02x}")),
        joined(", ", &|byte| format!("0x{byte:02x}")),
    ];
    // The bytes before it shift its bits: of each shift, what does not depend on its neighbours.
    for before in 0..3 {
        let coded = base64(&[&vec![0; before], bytes].concat());
        forms.push(coded[before * 2..coded.len() - 1].to_owned());
    }
    forms
}

/// What was found where: nothing, one hopes.
fn found(text: &[u8], place: &str) -> Vec<String> {
    static FORMS: LazyLock<Vec<(&str, Vec<String>)>> =
        LazyLock::new(|| ALL.iter().map(|password| (*password, forms(password))).collect());
    let text = String::from_utf8_lossy(text);
    FORMS
        .iter()
        .filter_map(|(password, forms)| {
            let form = forms.iter().find(|form| text.contains(form.as_str()))?;
            let at = text.find(form)?;
            let around = text[..at].chars().rev().take(300).collect::<String>().chars().rev().collect::<String>();
            Some(format!("{password} is in {place} as {form}, after: {around}"))
        })
        .collect()
}

/// Looks at every command line of the machine until it is dropped.
struct Watch {
    stop: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<(Vec<String>, usize)>>,
}

impl Watch {
    fn begin(mark: String) -> Watch {
        let stop = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let (mut leaks, mut ours, mut seen) = (Vec::new(), 0, HashSet::new());
            while !told.load(Ordering::Relaxed) {
                for process in std::fs::read_dir("/proc").expect("/proc").flatten() {
                    let Ok(line) = std::fs::read(process.path().join("cmdline")) else { continue };
                    if seen.insert((process.file_name(), line.clone())) {
                        ours += usize::from(String::from_utf8_lossy(&line).contains(&mark));
                        leaks.extend(found(&line, "a command line"));
                    }
                }
                std::thread::sleep(Duration::from_millis(2));
            }
            (leaks, ours)
        });
        Watch { stop, thread: Some(thread) }
    }

    fn end(mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let (leaks, ours) = self.thread.take().expect("it is running").join().expect("it does not panic");
        assert!(ours > 0, "our programs were among those looked at");
        assert_eq!(leaks, Vec::<String>::new());
    }
}

/// A site whose configuration holds passwords, and whose `cta-admin` tells what it was given.
struct Secretive {
    site: Site,
    said: Vec<u8>,
}

impl Secretive {
    async fn new(world: World) -> Secretive {
        let mut site = Site::new(world).await;
        std::fs::create_dir_all(site.dir.path().join("log")).expect("a directory");
        let spy = site.dir.path().join("spy");
        let script = format!(
            "#!/bin/sh\n{{ printf '%s\\n' \"$@\"; env; tr '\\0' '\\n' < /proc/$PPID/cmdline; }} >> '{}'\nexec '{}' \"$@\"\n",
            site.dir.path().join("given").display(),
            site.settings.cta_admin.program.display()
        );
        // Written by a child, so that no other thread that forks keeps it open.
        let write = Command::new("/bin/sh")
            .args(["-c", "printf %s \"$1\" > \"$2\" && chmod 755 \"$2\"", "sh", &script])
            .arg(&spy)
            .status();
        assert!(write.expect("a shell").success());
        site.settings.cta_admin.program = spy;
        Secretive { site, said: Vec::new() }
    }

    /// The configuration of the site, changed, in a file that is no output of ours.
    fn configured(&self, change: impl FnOnce(&mut Value)) -> std::path::PathBuf {
        let mut config: Value =
            serde_json::from_str(&journeys::configuration::text(&self.site.settings)).expect("JSON");
        let tool = &mut config["tools"]["cta-ops-repack-automation"];
        tool["database"]["password"] = DATABASE.into();
        change(tool);
        let path = self.site.dir.path().join("secret.yaml");
        std::fs::write(&path, config.to_string()).expect("the configuration");
        path
    }

    fn command(&self, config: &Path, name: &str) -> Command {
        let mut command = if name == "cta-ops-repack-worker" {
            let mut command = Command::new(program(name));
            command.arg("-C").arg(config).env_remove("CTA_OPS_CONFIG");
            command
        } else {
            called(self.site.dir.path(), name, config)
        };
        command.env("RUST_LOG", "trace").stdin(Stdio::null());
        command
    }

    /// Runs a program as talkative as it can be, and keeps what it said.
    fn run(&mut self, command: &mut Command) -> (Option<i32>, String) {
        let output = command.output().expect("the program");
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        self.said.extend(output.stdout);
        self.said.extend(output.stderr);
        (output.status.code(), stderr)
    }

    async fn one(&self, query: &str) -> String {
        self.site.database.client().await.query_one(query, &[]).await.expect("the query").get(0)
    }

    /// Nothing of all that the programs left holds a password. `lines`: what must be there, or the search looked at nothing.
    async fn keeps_its_secrets(&self, must_be_said: &[&str]) {
        let said = String::from_utf8_lossy(&self.said);
        for words in must_be_said {
            assert!(said.contains(words), "'{words}' was said");
        }
        let mut leaks = found(&self.said, "what the programs printed");
        let kept = dump(&self.site).await;
        leaks.extend(found(kept.as_bytes(), "the database"));
        let mut files = BTreeMap::new();
        gather(self.site.dir.path(), &mut files);
        assert!(files.keys().any(|name| name.contains("/log/")), "there are logs: {:?}", files.keys());
        for (name, content) in &files {
            if !name.ends_with(".yaml") && !name.ends_with(".password") {
                leaks.extend(found(content, name));
            }
        }
        assert_eq!(leaks, Vec::<String>::new());
    }
}

fn gather(directory: &Path, files: &mut BTreeMap<String, Vec<u8>>) {
    for entry in std::fs::read_dir(directory).expect("the directory").flatten() {
        let path = entry.path();
        // The programs are there by links.
        if path.is_symlink() {
            continue;
        }
        if path.is_dir() {
            gather(&path, files);
        } else if let Ok(content) = std::fs::read(&path) {
            files.insert(path.display().to_string(), content);
        }
    }
}

/// A worker in the background; what it says goes to a file of the site.
fn worker(secretive: &Secretive, config: &Path, log: &str) -> Child {
    let out = std::fs::File::create(secretive.site.dir.path().join(log)).expect("a file");
    let errors = out.try_clone().expect("the same file");
    secretive
        .command(config, "cta-ops-repack-worker")
        .arg("-V")
        .env("CTA_OPS_DATABASE_PASSWORD", DATABASE_ENV)
        .stdout(out)
        .stderr(errors)
        .spawn()
        .expect("the worker")
}

fn end(mut child: Child) {
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("it is there");
    child.wait().expect("it ends");
}

async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let begun = Instant::now();
    while !holds().await {
        assert!(begun.elapsed() < PATIENCE, "{what}: not in time");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

fn planned(count: u64) -> World {
    let mut world = World::new().with_full_tapes(count);
    world.tapes.get_mut("V01001").expect("it is there").plan = Plan { fail_files: 2, fail_times: 1, ..Plan::default() };
    world
}

const AT_REST: &str = "SELECT count(*)::text FROM repack_status WHERE mode = 'auto' AND finished IS NULL";

#[test]
fn a_password_is_found_in_all_its_forms() {
    for password in ALL {
        for login in [String::new(), "u".to_owned(), "us".to_owned()] {
            let plain = format!("\0{login}\0{password}\0x");
            assert!(!found(base64(plain.as_bytes()).as_bytes(), "base64").is_empty(), "{login}");
            assert!(!found(format!("{:?}", plain.as_bytes()).as_bytes(), "numbers").is_empty());
        }
        for text in [format!("a{password}b"), format!("amqp://u:{}@h", percent(password)), format!("{:?}", password)] {
            assert_eq!(found(text.as_bytes(), "a text").len(), 1, "{text}");
        }
    }
    assert_eq!(found(b"nothing of the kind", "a text"), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn no_password_is_seen_in_a_journey_without_a_broker() {
    let mut all = Secretive::new(planned(2)).await;
    let watch = Watch::begin(all.site.dir.path().display().to_string());
    let config = all.configured(|_| {});
    let names = ["cta-ops-repack-0-scan", "cta-ops-repack-1-prepare", "cta-ops-repack-monitor"];
    for (name, args) in names.into_iter().zip([&["--explain", "-j"][..], &["V01001", "V01002", "v09999"], &[]]) {
        let mut command = all.command(&config, name);
        all.run(
            command
                .arg("-V")
                .args(args)
                .env("CTA_OPS_DATABASE_PASSWORD", DATABASE_ENV)
                .env("CTA_OPS_BROKER_PASSWORD", BROKER_ENV),
        );
    }
    let begun = Instant::now();
    while all.one(AT_REST).await != "0" {
        assert!(begun.elapsed() < PATIENCE, "not at rest");
        let mut command = all.command(&config, PRODUCER);
        let tick = command
            .args(["tick", "-V", "-j"])
            .env("CTA_OPS_DATABASE_PASSWORD", DATABASE_ENV)
            .env("CTA_OPS_BROKER_PASSWORD", BROKER_ENV);
        assert_eq!(all.run(tick).0, Some(0));
    }
    assert_eq!(all.one("SELECT string_agg(mode::text, ' ' ORDER BY tape) FROM repack_status").await, "error auto");
    for args in [
        &["ls", "--long", "--all"][..],
        &["show", "V01001"],
        &["requeue", "V01001", "--yes"],
        &["config", "check"],
        &["migrate"],
    ] {
        let mut command = all.command(&config, MANAGER);
        assert_eq!(all.run(command.arg("-V").args(args)).0, Some(0), "{args:?}");
    }
    watch.end();
    let given = std::fs::read_to_string(all.site.dir.path().join("given")).expect("cta-admin was called");
    for part in ["reclaim", "XRD_REQUESTTIMEOUT=", "RUST_LOG=trace", "--json"] {
        assert!(given.contains(part), "{part} is among what cta-admin was given");
    }
    assert!(
        !given.contains("CTA_OPS_DATABASE_PASSWORD") && !given.contains("CTA_OPS_BROKER_PASSWORD"),
        "not even empty"
    );
    all.keeps_its_secrets(&["V01002", "V09999", "DEBUG"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_password_is_seen_in_a_journey_with_broker_and_worker() {
    let vhost = Services::get().fresh_vhost();
    let user = vhost.user(BROKER);
    vhost.allow(&user, ".*", ".*", ".*");
    let mut all = Secretive::new(planned(2)).await;
    all.site.enter(&["V01001", "V01002"]).await;
    let watch = Watch::begin(all.site.dir.path().display().to_string());
    let address = vhost.address();
    let url = |password: &str| format!("amqp://{user}:{}@{address}/{}", percent(password), vhost.name());
    let with = |url: String| move |tool: &mut Value| tool["broker"] = serde_json::json!({"url": url, "prefix": "test"});

    // First the wrong password, in the url, then in the environment.
    let config = all.configured(with(url(WRONG)));
    let mut command = all.command(&config, PRODUCER);
    let (exit, said) = all.run(command.args(["tick", "-V"]));
    assert_eq!(exit, Some(1), "{said}");
    assert!(said.contains(&address), "{said}");
    let refused = worker(&all, &config, "refused.out");
    let log = all.site.dir.path().join("refused.out");
    until("the worker says that it is refused", async || {
        std::fs::read_to_string(&log).is_ok_and(|said| said.contains("refuse") || said.contains("REFUSED"))
    })
    .await;
    end(refused);
    let config = all.configured(with(url(BROKER)));
    let mut command = all.command(&config, PRODUCER);
    assert_eq!(all.run(command.args(["tick", "-V"]).env("CTA_OPS_BROKER_PASSWORD", WRONG)).0, Some(1));

    // Then the right one.
    let working = worker(&all, &config, "worker.out");
    let begun = Instant::now();
    while all.one(AT_REST).await != "0" {
        assert!(begun.elapsed() < PATIENCE, "not at rest");
        let mut command = all.command(&config, PRODUCER);
        let (exit, said) = all.run(command.args(["tick", "-V", "-j"]));
        assert_eq!(exit, Some(0), "{said}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    end(working);
    assert_eq!(all.one("SELECT string_agg(mode::text, ' ' ORDER BY tape) FROM repack_status").await, "error auto");
    // From a file, too.
    let password = all.site.dir.path().join("broker.password");
    std::fs::write(&password, format!("{BROKER}\n")).expect("a file");
    let config = all.configured(|tool| {
        tool["broker"] = serde_json::json!({"url": format!("amqp://{user}@{address}/{}", vhost.name()), "password_file": password, "prefix": "test"});
    });
    let mut command = all.command(&config, PRODUCER);
    let (exit, said) = all.run(command.args(["tick", "-V", "-j"]));
    assert_eq!(exit, Some(0), "{said}");
    watch.end();
    let given = std::fs::read_to_string(all.site.dir.path().join("given")).expect("the worker called cta-admin");
    assert!(given.contains("reclaim") && !given.contains("CTA_OPS_DATABASE_PASSWORD"));
    all.keeps_its_secrets(&["DEBUG", "published"]).await;
}

/// A server that asks for the password in clear text, is given it, and refuses it. Returns its port; it ends with the test.
fn refusing_server() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = listener.local_addr().expect("it is bound").port();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut message = [0; 1024];
            let Ok(_) = stream.read(&mut message) else { continue };
            // Asks for the password in clear text.
            let Ok(()) = stream.write_all(&[b'R', 0, 0, 0, 8, 0, 0, 0, 3]) else { continue };
            let Ok(length) = stream.read(&mut message) else { continue };
            let given = String::from_utf8_lossy(&message[..length]).into_owned();
            let text =
                format!("SFATAL\0C28P01\0Mpassword authentication failed for user, who gave {} bytes\0\0", given.len());
            let length = u32::try_from(text.len() + 4).expect("it is short").to_be_bytes();
            stream.write_all(&[b"E", &length[..], text.as_bytes()].concat()).ok();
        }
    });
    port
}

#[tokio::test(flavor = "multi_thread")]
async fn no_password_is_seen_when_a_database_refuses_it_or_is_not_there() {
    let mut all = Secretive::new(planned(1)).await;
    let asking = refusing_server();
    let commands = [
        (PRODUCER, &["tick"][..]),
        ("cta-ops-repack-0-scan", &[]),
        ("cta-ops-repack-1-prepare", &["V01001"]),
        (MANAGER, &["ls"]),
        (MANAGER, &["migrate"]),
    ];
    for (host, port, why) in [
        ("127.0.0.1", asking, "password authentication failed"),
        ("127.0.0.1", 1, ":1"),
        ("no-such-host.invalid", 5432, "no-such-host.invalid"),
    ] {
        let config = all.configured(|tool| {
            tool["database"]["host"] = host.into();
            tool["database"]["port"] = port.into();
        });
        // A name server may take its time to say that there is no such host.
        let commands = if host == "127.0.0.1" { &commands[..] } else { &commands[..1] };
        for (name, args) in commands {
            let mut command = all.command(&config, name);
            let (exit, said) = all.run(command.arg("-V").args(*args));
            assert_eq!(exit, Some(1), "{name} {args:?} at {host}:{port}: {said}");
            assert!(said.contains(why), "{name} {args:?} at {host}:{port}: {said}");
            // What it was given: a letter, a length, the password, an end.
            let given = format!("who gave {} bytes", 1 + 4 + DATABASE.len() + 1);
            assert_eq!(said.contains(&given), port == asking, "{name} {args:?} at {host}:{port}: {said}");
        }
    }
    all.keeps_its_secrets(&[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_password_is_seen_in_what_is_said_of_a_bad_configuration() {
    let mut all = Secretive::new(planned(1)).await;
    type Change = Box<dyn Fn(&mut Value)>;
    let bad: [(&str, Change); 9] = [
        ("database.password", Box::new(|tool| tool["database"]["password"] = serde_json::json!([DATABASE]))),
        ("database.password", Box::new(|tool| tool["database"]["password"] = serde_json::json!({ DATABASE: 1 }))),
        ("pasword", Box::new(|tool| tool["database"]["pasword"] = DATABASE.into())),
        ("passwd", Box::new(|tool| tool["database"]["passwd"] = DATABASE.into())),
        ("password_file", Box::new(|tool| tool["database"]["password_file"] = "/no/such/file".into())),
        ("broker", Box::new(|tool| tool["broker"] = format!("amqp://u:{BROKER}@h/v").into())),
        (
            "broker.url",
            Box::new(|tool| tool["broker"] = serde_json::json!({"url": format!("http://u:{}@h/v", percent(BROKER))})),
        ),
        (
            "broker.url",
            Box::new(|tool| {
                tool["broker"] = serde_json::json!({"url": format!("amqp://u:{}%zz@h/v", percent(BROKER))})
            }),
        ),
        (
            "broker.url",
            Box::new(|tool| tool["broker"] = serde_json::json!({"url": [format!("amqp://u:{}@h/v", percent(BROKER))]})),
        ),
    ];
    for (number, (key, change)) in bad.iter().enumerate() {
        let config = all.configured(|tool| {
            tool["max_active_repacks"] = "many".into();
            change(tool);
        });
        for (name, args) in [
            (PRODUCER, &["tick", "-V"][..]),
            (MANAGER, &["config", "check"]),
            (MANAGER, &["config", "check", "--json"]),
            ("cta-ops-repack-worker", &[]),
        ] {
            let mut command = all.command(&config, name);
            let output = command.args(args).output().expect("the program");
            let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
            assert_eq!(output.status.code(), Some(2), "{number} {name}: {said}");
            assert!(said.contains(key) && said.contains("max_active_repacks"), "{number} {name}: {said}");
            assert_eq!(found(said.as_bytes(), &format!("what {name} says of {number}")), Vec::<String>::new());
        }
    }
    // A file that is no YAML at all: the parser quotes nothing of it.
    let broken = all.site.dir.path().join("broken.yaml");
    std::fs::write(&broken, format!("tools:\n  cta-ops-repack-automation:\n    database: {{password: {DATABASE}\n"))
        .expect("a file");
    let mut command = all.command(&broken, PRODUCER);
    let (exit, said) = all.run(command.arg("tick"));
    assert_eq!((exit, found(said.as_bytes(), "a parser's message")), (Some(2), Vec::new()), "{said}");
}
