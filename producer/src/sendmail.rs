//! Hands a mail to the mail system: a program with a limit, no shell, nothing of ours in its environment that is secret.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, bail};
use common::cta::SECRETS;
use rustix::process::{Pid, Signal};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::{Child, Command};
use tokio::time::timeout;

/// The longest that the program may take.
pub const LIMIT: Duration = Duration::from_secs(30);

/// How much of what the program says is told.
const KEPT: u64 = 300;

/// How long its last words may take once it has ended: what it left behind to deliver the mail may hold the pipe.
const LAST_WORDS: Duration = Duration::from_millis(200);

/// Hands over a mail. The recipients stand on the command line: nothing in the mail can add one.
///
/// # Errors
/// When it cannot be started, does not take the whole mail, ends with another code than 0, or not within `limit`; then it
/// is killed with what it started. Whether the mail was sent all the same is unknown.
pub async fn send(
    program: &Path,
    sender: Option<&str>,
    recipients: &[String],
    mail: &str,
    limit: Duration,
) -> anyhow::Result<()> {
    let mut command = Command::new(program);
    command.arg("-oi");
    if let Some(sender) = sender {
        command.args(["-f", sender]);
    }
    command.arg("--").args(recipients);
    for secret in SECRETS {
        command.env_remove(secret);
    }
    // Nobody's directory is kept busy, and a relative path in its configuration means nothing.
    command.current_dir("/").process_group(0).kill_on_drop(true);
    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = command.spawn().with_context(|| format!("{} cannot be started", program.display()))?;
    let group = child.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?));
    let ended = timeout(limit, take(&mut child, mail)).await;
    if ended.is_err() {
        if let Some(group) = group {
            let _ = rustix::process::kill_process_group(group, Signal::KILL);
        }
        let _ = timeout(LAST_WORDS, child.wait()).await;
        bail!("{} did not end within {} s and was killed", program.display(), limit.as_secs_f64());
    }
    ended.unwrap_or(Ok(())).with_context(|| program.display().to_string())
}

/// Writes the mail and waits for the end.
async fn take(child: &mut Child, mail: &str) -> anyhow::Result<()> {
    let said = tokio::spawn(first_words(child.stderr.take()));
    let written = match child.stdin.take() {
        // Closed behind it: that is the end of the mail.
        Some(mut stdin) => stdin.write_all(mail.as_bytes()).await.map(|()| drop(stdin)),
        None => Ok(()),
    };
    let status = child.wait().await.context("its end cannot be seen")?;
    let said = match timeout(LAST_WORDS, said).await {
        Ok(Ok(said)) if !said.is_empty() => format!(": {said}"),
        _ => String::new(),
    };
    if !status.success() {
        bail!("it failed ({status}){said}");
    }
    written.with_context(|| format!("it did not take the whole mail{said}"))
}

/// The first words on one line; the rest is read too, for whoever cannot say what he wants to say waits for ever.
async fn first_words(from: Option<impl AsyncRead + Unpin + Send + 'static>) -> String {
    let Some(mut from) = from else { return String::new() };
    let mut words = Vec::new();
    let _ = (&mut from).take(KEPT).read_to_end(&mut words).await;
    let words = String::from_utf8_lossy(&words).replace(|c: char| c.is_control(), " ").trim().to_owned();
    tokio::spawn(async move { tokio::io::copy(&mut from, &mut tokio::io::sink()).await });
    words
}
