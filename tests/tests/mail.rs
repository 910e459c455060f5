//! The digest by mail, with a program in the place of sendmail that keeps what it gets.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use common::journey::{Mode, State};
use common::settings::Notify;
use cta_sim::World;
use cta_sim::world::Plan;
use journeys::crew::Crew;
use journeys::shell::{MANAGER, PRODUCER, Ran, of_site};
use journeys::site::{PATIENCE, Site};
use producer::sendmail;
use serde_yaml::Value;

/// A program in the place of sendmail. What it got is in a directory for each mail.
struct Sendmail {
    dir: PathBuf,
    program: PathBuf,
}

/// A mail that was handed over.
#[derive(Debug)]
struct Mail {
    args: String,
    env: String,
    text: String,
}

impl Mail {
    fn subject(&self) -> &str {
        self.text.lines().find_map(|line| line.strip_prefix("Subject: ")).expect("a subject")
    }

    /// The tapes that it tells of, with the reason codes.
    fn told(&self) -> Vec<(String, String)> {
        let section = |line: &str| line.split("section ").nth(1)?.split(';').next().map(str::to_owned);
        let tape = |line: &str| line.split("show ").nth(1).map(|rest| rest.trim_end_matches('\'').to_owned());
        let lines = self.text.lines().filter(|line| line.starts_with("  do: "));
        lines.filter_map(|line| Some((tape(line)?, section(line)?))).collect()
    }
}

const KEEP: &str = "printf '%s\\n' \"$@\" > $d/args; env > $d/env; cat > $d/mail; mv $d ${d%.part}";

impl Sendmail {
    /// In the directory of a site.
    fn of(site: &Site) -> Sendmail {
        let (dir, program) = (site.dir.path().join("mails"), site.dir.path().join("sendmail"));
        std::fs::create_dir_all(&dir).expect("a directory");
        let sendmail = Sendmail { dir, program };
        sendmail.does(KEEP);
        sendmail
    }

    /// From now on it does this; `$d` is a fresh directory.
    fn does(&self, what: &str) {
        let script = format!("#!/bin/sh\nd=$(mktemp -d '{}/XXXXXX.part') || exit 1\n{what}\n", self.dir.display());
        // Written by a child, as a program that is open for writing cannot be run; renamed, as it may be running.
        let written = Command::new("/bin/sh")
            .args([
                "-c",
                "printf %s \"$1\" > \"$2.new\" && chmod 755 \"$2.new\" && mv \"$2.new\" \"$2\"",
                "sh",
                &script,
            ])
            .arg(&self.program)
            .status();
        assert!(written.expect("a shell").success());
    }

    /// Takes what it got so far, one after the other.
    fn mails(&self) -> Vec<Mail> {
        let mut dirs: Vec<PathBuf> = std::fs::read_dir(&self.dir)
            .expect("the mails")
            .map(|entry| entry.expect("a mail").path())
            .filter(|path| path.extension().is_none())
            .collect();
        dirs.sort_by_key(|path| path.join("mail").metadata().and_then(|data| data.modified()).expect("a mail"));
        let read = |dir: &Path, name: &str| std::fs::read_to_string(dir.join(name)).expect("a part of a mail");
        let mails =
            dirs.iter().map(|dir| Mail { args: read(dir, "args"), env: read(dir, "env"), text: read(dir, "mail") });
        let mails: Vec<Mail> = mails.collect();
        dirs.iter().for_each(|dir| std::fs::remove_dir_all(dir).expect("a mail"));
        mails
    }

    fn notify(&self) -> Notify {
        Notify {
            mail: true,
            interval: Duration::ZERO,
            sendmail: self.program.clone(),
            recipients: vec!["tape-ops@example.org".to_owned(), "root".to_owned()],
            sender: Some("cta-ops@example.org".to_owned()),
        }
    }
}

/// A tape in mode error, one that is stalled, and one that the reclaim gate refuses; nobody has been told.
async fn site_in_trouble() -> (Site, Sendmail) {
    let mut world = World::new().with_full_tapes(3).with_durations(0, 0);
    world.recycle_log_quarantine_secs = 100_000;
    let plan = |world: &mut World, vid: &str, plan| world.tapes.get_mut(vid).expect("a tape").plan = plan;
    plan(&mut world, "V01001", Plan { fail_files: 2, fail_times: 1, ..Plan::default() });
    plan(&mut world, "V01002", Plan { disable_after: Some(3), ..Plan::default() });
    let mut site = Site::new(world).await;
    site.settings.stall = Duration::from_secs(1);
    site.enter(&["V01001", "V01002", "V01003"]).await;
    site.tick_until("three tapes in trouble", |rows| {
        let codes: Vec<&str> = rows
            .iter()
            .filter_map(|row| row.task.as_ref()?.reason.as_ref().map(|reason| reason.code.as_str()))
            .collect();
        codes == ["repack-failed", "disabled-by-drive", "recycle-log-young"]
    })
    .await;
    assert_eq!(site.at("V01001").await, (State::Started, Mode::Error));
    let sendmail = Sendmail::of(&site);
    (site, sendmail)
}

fn pairs(told: &[(&str, &str)]) -> Vec<(String, String)> {
    told.iter().map(|(tape, code)| ((*tape).to_owned(), (*code).to_owned())).collect()
}

/// The one mail that came.
#[track_caller]
fn only(mut mails: Vec<Mail>) -> Mail {
    assert_eq!(mails.len(), 1, "{mails:#?}");
    mails.remove(0)
}

#[tokio::test(flavor = "multi_thread")]
async fn three_tapes_are_one_mail_and_each_is_told_again_only_when_its_reason_changed() {
    let (mut site, sendmail) = site_in_trouble().await;
    site.settings.notify = sendmail.notify();
    site.tick().await;
    let mail = only(sendmail.mails());
    assert_eq!(mail.args, "-oi\n-f\ncta-ops@example.org\n--\ntape-ops@example.org\nroot\n");
    assert_eq!(
        mail.subject(),
        "cta-ops-repack: 3 tapes need a person: 1 in mode error, 1 stalled, 1 refused by the reclaim gate"
    );
    let all = [("V01001", "repack-failed"), ("V01002", "disabled-by-drive"), ("V01003", "recycle-log-young")];
    assert_eq!(mail.told(), pairs(&all));
    let why = site.why("V01001").await.1;
    assert!(mail.text.contains(&format!("\n  {}", &why[..60])), "{}", mail.text);
    assert_eq!(mail.text.matches(", since 2").count(), 3, "{}", mail.text);
    site.tick().await;
    site.tick().await;
    assert!(sendmail.mails().is_empty(), "nothing has changed");

    // An operator decides, and it stops again for the same reason.
    site.sql("UPDATE repack_status SET mode = 'auto' WHERE tape = 'V01001'").await;
    site.tick().await;
    assert_eq!(site.at("V01001").await, (State::Started, Mode::Error));
    let mail = only(sendmail.mails());
    assert_eq!(mail.told(), pairs(&[("V01001", "repack-failed")]));
    assert_eq!(mail.subject(), "cta-ops-repack: V01001 needs a person: in mode error (repack-failed)");
    assert!(mail.text.contains("In all: 1 in mode error, 1 stalled, 1 refused by the reclaim gate."), "{}", mail.text);

    // Somebody else stops one.
    site.sql("UPDATE repack_status SET mode = 'error' WHERE tape = 'V01003'").await;
    site.tick().await;
    let mail = only(sendmail.mails());
    assert_eq!(mail.told(), pairs(&[("V01003", "error-set-elsewhere")]));
    assert!(mail.text.contains(", since 2") && !mail.text.contains("recycle"), "{}", mail.text);

    // What is in an operator's hands, or is well, is told of no more.
    site.sql("UPDATE repack_status SET mode = 'manual'").await;
    site.tick().await;
    assert!(sendmail.mails().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_is_told_who_did_not_ask_for_it_also_with_a_file_of_atresys_as_it_is() {
    let (site, sendmail) = site_in_trouble().await;
    assert!(!site.settings.notify.mail);
    let mut file: Value =
        serde_yaml::from_str(include_str!("../../common/src/settings/tests/atresys.yaml")).expect("YAML");
    assert!(file["global"]["email"]["recipients"][0].is_string());
    let own: Value = serde_yaml::from_str(&journeys::configuration::text(&site.settings)).expect("YAML");
    file["global"]["binaries"]["sendmail"] = sendmail.program.display().to_string().into();
    file["global"]["binaries"]["cta-admin"] = own["global"]["binaries"]["cta-admin"].clone();
    let tool = "cta-ops-repack-automation";
    for key in ["database", "logging", "cta_admin", "cta-ops-repack-2-start", "cta-ops-repack-3-end"] {
        file["tools"][tool][key] = own["tools"][tool][key].clone();
    }
    let path = journeys::shell::file(&site, "atresys.yaml", serde_yaml::to_string(&file).expect("YAML"));
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).expect("its rights");
    let tick = || Ran::of(journeys::shell::called(site.dir.path(), PRODUCER, &path).arg("tick"));
    tick().ended(0);
    assert!(sendmail.mails().is_empty());
    // One line more, and they are told.
    file["tools"][tool]["notify"] = serde_yaml::from_str("{mail: true}").expect("YAML");
    journeys::shell::file(&site, "atresys.yaml", serde_yaml::to_string(&file).expect("YAML"));
    tick().ended(0);
    assert_eq!(only(sendmail.mails()).args, "-oi\n-f\ncta-ops@example.org\n--\ntape-ops@example.org\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_numbered_command_tells_too_within_the_interval_nobody_does_and_no_secret_goes_along() {
    let (mut site, sendmail) = site_in_trouble().await;
    site.settings.notify = Notify { interval: Duration::from_secs(3600), ..sendmail.notify() };
    let run = |name: &str| {
        let mut command = of_site(&site, name);
        Ran::of(command.env("CTA_OPS_DATABASE_PASSWORD", "hush-d").env("CTA_OPS_BROKER_PASSWORD", "hush-b"))
    };
    run("cta-ops-repack-6-finish").ended(0);
    let mail = only(sendmail.mails());
    assert_eq!(mail.told().len(), 3);
    assert!(mail.env.contains("PATH=") && !mail.env.contains("hush") && !mail.text.contains("hush"), "{mail:?}");
    site.sql("UPDATE repack_status SET mode = 'auto' WHERE tape = 'V01001'").await;
    run("cta-ops-repack-3-end").ended(0);
    assert_eq!(site.at("V01001").await.1, Mode::Error);
    assert!(sendmail.mails().is_empty(), "the hour is not over");
    site.sql("UPDATE repack_status_tick SET at = at - interval '1 hour' WHERE stage = 'mail'").await;
    run("cta-ops-repack-6-finish").ended(0);
    assert_eq!(only(sendmail.mails()).told(), pairs(&[("V01001", "repack-failed")]));
}

#[tokio::test(flavor = "multi_thread")]
async fn several_producers_tell_each_tape_once() {
    let (mut site, sendmail) = site_in_trouble().await;
    site.settings.notify = sendmail.notify();
    site.settings.producer.interval = Duration::from_millis(50);
    // Long enough for the others to come by meanwhile.
    sendmail.does(&format!("sleep 0.5; {KEEP}"));
    let mut crew = Crew::producers(&site, 3, "");
    let mut told = Vec::new();
    let mut until = |what: &str, count: usize| {
        let begun = Instant::now();
        while told.len() < count {
            assert!(begun.elapsed() < PATIENCE, "{what}: {told:?}\n{}", crew.said());
            crew.keep();
            told.extend(sendmail.mails().iter().flat_map(Mail::told));
            std::thread::sleep(Duration::from_millis(20));
        }
    };
    until("three tapes", 3);
    site.sql("UPDATE repack_status SET mode = 'error' WHERE tape = 'V01002'").await;
    until("one more", 4);
    site.sql("UPDATE repack_status SET mode = 'error' WHERE tape = 'V01003'").await;
    until("and one more", 5);
    crew.end();
    told.extend(sendmail.mails().iter().flat_map(Mail::told));
    told.sort();
    let expected = [
        ("V01001", "repack-failed"),
        ("V01002", "disabled-by-drive"),
        ("V01002", "error-set-elsewhere"),
        ("V01003", "error-set-elsewhere"),
        ("V01003", "recycle-log-young"),
    ];
    assert_eq!(told, pairs(&expected));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_producer_that_dies_between_mail_and_mark_has_it_told_once_more_and_not_at_once() {
    let (mut site, sendmail) = site_in_trouble().await;
    site.settings.notify = Notify { interval: Duration::from_secs(3600), ..sendmail.notify() };
    let killed = site.command(PRODUCER).arg("tick").env("CTA_OPS_FAILPOINT", "mailed:*:kill").output();
    assert_eq!(killed.expect("a tick").status.code(), None, "it was killed");
    assert_eq!(only(sendmail.mails()).told().len(), 3);
    site.tick().await;
    assert!(sendmail.mails().is_empty(), "not at once");
    site.sql("UPDATE repack_status_tick SET at = at - interval '5 minutes' WHERE stage = 'mail'").await;
    site.tick().await;
    assert_eq!(only(sendmail.mails()).told().len(), 3);
    site.sql("UPDATE repack_status_tick SET at = at - interval '2 hours' WHERE stage = 'mail'").await;
    site.tick().await;
    assert!(sendmail.mails().is_empty(), "once more, and that is all");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mail_system_that_fails_stops_nothing_is_told_of_and_gets_the_mail_when_it_is_well() {
    let (mut site, sendmail) = site_in_trouble().await;
    site.settings.notify = sendmail.notify();
    site.settings.producer.metrics_textfile = Some(site.dir.path().join("metrics.prom"));
    let failed = |site: &Site| {
        let text = std::fs::read_to_string(site.dir.path().join("metrics.prom")).expect("the metrics");
        text.lines().find_map(|line| line.strip_prefix("cta_repack_mail_failed ").map(str::to_owned)).expect("a metric")
    };
    let log = site.settings.logging.log_dir.join("cta-ops-repack-producer.log");
    let heading = |site: &Site| Ran::of(of_site(site, MANAGER).arg("ls")).ended(0).stdout.clone();
    let missing = site.dir.path().join("nobody");
    for (program, does, why) in [
        (&sendmail.program, "echo 'no route to mailhub' >&2; exit 75", "no route to mailhub"),
        (&sendmail.program, "exec 0<&-; kill -9 $$", "signal: 9"),
        (&missing, "exit 0", "cannot be started: No such file"),
    ] {
        sendmail.does(does);
        site.settings.notify.sendmail = program.clone();
        // The tick is none the worse for it.
        Ran::of(site.command(PRODUCER).arg("tick")).ended(0);
        let logged = std::fs::read_to_string(&log).expect("the log");
        let warned = logged.lines().rev().find(|line| line.contains("no digest by mail")).expect("a warning");
        assert!(warned.contains(why) && warned.contains("WARN"), "{warned}");
        assert_eq!(failed(&site), "1.0");
        if does.contains("no route") {
            assert!(!heading(&site).contains("digest"), "it may just be on its way");
            site.sql("UPDATE repack_status_tick SET trouble_since = trouble_since - interval '3 minutes'").await;
        }
        let shown = heading(&site);
        assert!(shown.contains("no digest could be mailed for ") && shown.contains(why), "{shown}");
    }
    site.settings.notify.sendmail = sendmail.program.clone();
    sendmail.does(KEEP);
    sendmail.mails();
    Ran::of(site.command(PRODUCER).arg("tick")).ended(0);
    assert_eq!(only(sendmail.mails()).told().len(), 3);
    assert_eq!(failed(&site), "0.0");
    assert!(!heading(&site).contains("digest"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mail_system_that_hangs_is_killed_with_all_that_it_started() {
    let site = Site::new(World::new()).await;
    let sendmail = Sendmail::of(&site);
    // It reads nothing, and the mail does not fit into a pipe.
    sendmail.does("sleep 1000 & echo $! > $d/child; echo waiting >&2; mv $d ${d%.part}; sleep 1000");
    let mail = "x".repeat(1 << 20);
    let (sender, recipients) = (None, ["root".to_owned()]);
    let begun = Instant::now();
    let child = || {
        let dirs = std::fs::read_dir(&sendmail.dir).expect("the mails").flatten();
        dirs.map(|entry| entry.path()).find(|path| path.extension().is_none()).map(|path| path.join("child"))
    };
    // Long enough for it to begin, also on a machine that is busy.
    let mut limit = Duration::from_millis(300);
    let told = loop {
        let sent = sendmail::send(&sendmail.program, sender, &recipients, &mail, limit).await;
        let told = format!("{:#}", sent.expect_err("it hangs"));
        if child().is_some() {
            break told;
        }
        limit *= 2;
        assert!(begun.elapsed() < PATIENCE);
    };
    assert!(told.contains("did not end within") && told.contains("was killed"), "{told}");
    let pid = std::fs::read_to_string(child().expect("it began")).expect("a number");
    let begun = Instant::now();
    while Path::new("/proc").join(pid.trim()).exists() && !is_zombie(pid.trim()) {
        assert!(begun.elapsed() < PATIENCE, "{pid} lives");
        std::thread::sleep(Duration::from_millis(20));
    }
    // One that ends well without having read all has not taken the mail.
    sendmail.does("exec 0<&-; exit 0");
    let sent = sendmail::send(&sendmail.program, sender, &recipients, &mail, PATIENCE).await;
    assert!(format!("{:#}", sent.expect_err("it read nothing")).contains("did not take the whole mail"));
    // One that says very much is heard out.
    sendmail.does(&format!("head -c 1000000 /dev/zero | tr '\\0' x >&2; {KEEP}"));
    sendmail::send(&sendmail.program, sender, &recipients, &mail, PATIENCE).await.expect("it is sent");
}

fn is_zombie(pid: &str) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat")).map_or(true, |stat| stat.contains(") Z "))
}

#[tokio::test(flavor = "multi_thread")]
async fn of_very_many_tapes_all_are_told_or_counted_once_in_mails_of_bounded_size() {
    const TAPES: i64 = 12_000;
    let mut site = Site::new(World::new()).await;
    let sendmail = Sendmail::of(&site);
    site.settings.notify = sendmail.notify();
    site.sql(&format!(
        "INSERT INTO repack_status (tape, entered, started, files, bytes, usage, mode, priority, mediatype, tapepool, responsible) \
         SELECT 'H' || lpad(n::text, 5, '0'), now(), now(), 1, 1, 1, 'error', 10, 'LTO9', 'raw', 'test' FROM generate_series(1, {TAPES}) n; \
         INSERT INTO repack_status_task (tape, stage, generation, epoch, next_attempt_at, outcome, reason_code, reason, memory, seen_xmin) \
         SELECT tape, 'end', nextval('repack_status_generation_seq'), nextval('repack_status_epoch_seq'), 'infinity', 'failed', \
           'repack-failed', repeat('so it is ', 200), jsonb_build_object('stopped_at', now()), xmin::text::int8 FROM repack_status"
    ))
    .await;
    site.tick().await;
    let mail = only(sendmail.mails());
    assert!(mail.text.len() < 100_000, "{}", mail.text.len());
    assert_eq!(mail.subject(), "cta-ops-repack: 10000 tapes need a person: 10000 in mode error");
    assert_eq!(mail.told().len(), 50);
    assert_eq!(mail.told()[0].0, "H00001");
    assert!(
        mail.text.contains("And 9950 tapes more") && mail.text.contains("In all: 12000 in mode error"),
        "{}",
        mail.text
    );
    site.tick().await;
    let mail = only(sendmail.mails());
    assert_eq!(
        (mail.subject(), mail.told()[0].0.as_str()),
        ("cta-ops-repack: 2000 tapes need a person: 2000 in mode error", "H10001")
    );
    site.tick().await;
    assert!(sendmail.mails().is_empty());
    let marked: i64 = site
        .database
        .client()
        .await
        .query_one(
            "SELECT count(*) FROM repack_status_task WHERE memory->>'mailed' LIKE 'error end repack-failed %'",
            &[],
        )
        .await
        .expect("the marks")
        .get(0);
    assert_eq!(marked, TAPES);
}
