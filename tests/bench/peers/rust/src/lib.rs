//! The work of one task, as somebody writes it with these crates: lock the row, ask `cta-admin`, stamp the row, commit.
//!
//! Environment: `BENCH_DSN` the database, `BENCH_AMQP` the broker, `BENCH_CTA_ADMIN` the program.

use std::error::Error;
use std::process::Stdio;
use std::sync::Mutex;

use tokio_postgres::{Client, NoTls};

/// What goes wrong in a task, or keeps the program from starting.
pub type Failure = Box<dyn Error + Send + Sync>;

/// A handful of connections, one for each task under way.
pub struct Database(Mutex<Vec<Client>>);

impl Database {
    /// Opens so many connections.
    ///
    /// # Errors
    /// When the database cannot be reached.
    pub async fn connect(connections: usize) -> Result<Database, Failure> {
        let dsn = std::env::var("BENCH_DSN")?;
        let mut clients = Vec::new();
        for _ in 0..connections {
            let (client, connection) = tokio_postgres::connect(&dsn, NoTls).await?;
            tokio::spawn(connection);
            clients.push(client);
        }
        Ok(Database(Mutex::new(clients)))
    }

    /// Does one task.
    ///
    /// # Errors
    /// When the database or `cta-admin` fails; the row is unchanged then.
    pub async fn work(&self, vid: &str) -> Result<(), Failure> {
        let mut client = self.0.lock().map_err(|_| "poisoned")?.pop().ok_or("no connection is free")?;
        let worked = finish(&mut client, vid).await;
        self.0.lock().map_err(|_| "poisoned")?.push(client);
        worked
    }
}

async fn finish(client: &mut Client, vid: &str) -> Result<(), Failure> {
    let transaction = client.transaction().await?;
    let lock = "SELECT tape, mode::text, priority, mediatype FROM peer_status \
                WHERE tape = $1 AND mode = 'auto' AND finished IS NULL FOR UPDATE";
    let Some(row) = transaction.query_opt(lock, &[&vid]).await? else { return Ok(()) };
    let destination = format!("tolabel_{}", row.get::<_, &str>("mediatype"));
    let listed = tokio::process::Command::new(std::env::var("BENCH_CTA_ADMIN")?)
        .args(["--json", "tape", "ls", "--vid", vid])
        .stdin(Stdio::null())
        .output()
        .await?;
    if !listed.status.success() {
        return Err(String::from_utf8_lossy(&listed.stderr).into_owned().into());
    }
    let tapes: serde_json::Value = serde_json::from_slice(&listed.stdout)?;
    let tape = &tapes[0];
    if tape["vid"] != vid || tape["tapepool"] != destination.as_str() || tape["occupancy"] != "0" {
        return Err(format!("{vid} is not where it should be").into());
    }
    transaction.execute("UPDATE peer_status SET finished = now() WHERE tape = $1", &[&vid]).await?;
    transaction.commit().await?;
    Ok(())
}

/// The VIDs on standard input, one a line.
///
/// # Errors
/// When it cannot be read.
pub fn vids() -> Result<Vec<String>, Failure> {
    Ok(std::io::read_to_string(std::io::stdin())?.split_whitespace().map(str::to_owned).collect())
}
