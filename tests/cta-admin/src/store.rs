//! The directory of a world: `world.json`, `orders.json`, `journal.jsonl`, a lock, and a client configuration per front
//! end. Every access holds the lock, and every file is replaced whole, so a process killed at any point leaves either
//! the old or the new world.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use rustix::fs::{FlockOperation, flock};

use crate::journal::{self, Entry};
use crate::orders::Order;
use crate::world::World;

/// Now, in microseconds since the Unix epoch.
pub fn now_us() -> u64 {
    let elapsed = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(elapsed.as_micros()).unwrap_or(u64::MAX)
}

/// Path of the client configuration that leads to a front end (`all`, `user`, `repack`).
pub fn config_path(dir: &Path, frontend: &str) -> PathBuf {
    dir.join(format!("{frontend}.conf"))
}

fn replace(dir: &Path, name: &str, content: &[u8]) -> Result<()> {
    let target = dir.join(name);
    let temporary = dir.join(format!(".{name}.new"));
    std::fs::write(&temporary, content).with_context(|| format!("writing {}", temporary.display()))?;
    std::fs::rename(&temporary, &target).with_context(|| format!("replacing {}", target.display()))
}

/// A world under its lock, advanced to now.
#[derive(Debug)]
pub struct Session {
    dir: PathBuf,
    _lock: File,
    /// The world.
    pub world: World,
    /// The moment it was advanced to, microseconds since the Unix epoch.
    pub now_us: u64,
    entries: Vec<Entry>,
    changed: bool,
}

/// Takes the lock of a directory; it is released when the file is dropped.
pub(crate) fn lock(dir: &Path) -> Result<File> {
    let path = dir.join("lock");
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path)
        .with_context(|| format!("opening {}", path.display()))?;
    flock(&file, FlockOperation::LockExclusive).with_context(|| format!("locking {}", path.display()))?;
    Ok(file)
}

pub(crate) fn read_world(dir: &Path) -> Result<World> {
    let path = dir.join("world.json");
    let text = std::fs::read(&path).with_context(|| format!("reading {}", path.display()))?;
    serde_json::from_slice(&text).with_context(|| format!("reading {}", path.display()))
}

impl Session {
    /// Locks and loads the world and lets it catch up with the time.
    ///
    /// # Errors
    /// If there is no world in the directory, or it cannot be read.
    pub fn open(dir: &Path) -> Result<Session> {
        let lock = lock(dir)?;
        let mut world = read_world(dir)?;
        let now_us = now_us();
        let before = (world.last_ms, world.requests.len(), world.late.len());
        let advance = crate::daemon::advance(&mut world, now_us);
        let changed = advance.changed || before.1 != world.requests.len() || before.2 != world.late.len();
        Ok(Session { dir: dir.to_owned(), _lock: lock, world, now_us, entries: advance.entries, changed })
    }

    /// Notes that the world was changed.
    pub fn touch(&mut self) {
        self.changed = true;
    }

    /// Adds a line to the journal that belongs to the change.
    pub fn record(&mut self, entry: Entry) {
        self.entries.push(entry);
        self.changed = true;
    }

    /// The orders.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub fn orders(&self) -> Result<Vec<Order>> {
        read_orders(&self.dir)
    }

    /// Replaces the orders.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn set_orders(&self, orders: &[Order]) -> Result<()> {
        replace(&self.dir, "orders.json", &serde_json::to_vec(orders)?)
    }

    /// Writes the journal lines, then the world. Killed in between, the numbers tell the lines apart from those of a
    /// world that was written: [`journal::journal`] leaves them out.
    ///
    /// # Errors
    /// If a file cannot be written.
    pub fn commit(mut self) -> Result<World> {
        if self.changed {
            for entry in &mut self.entries {
                self.world.seq += 1;
                entry.seq = self.world.seq;
            }
            journal::append(&self.dir, &self.entries)?;
            replace(&self.dir, "world.json", &serde_json::to_vec(&self.world)?)?;
        }
        Ok(self.world)
    }
}

pub(crate) fn read_orders(dir: &Path) -> Result<Vec<Order>> {
    let path = dir.join("orders.json");
    match std::fs::read(&path) {
        Ok(text) => serde_json::from_slice(&text).with_context(|| format!("reading {}", path.display())),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error).with_context(|| format!("reading {}", path.display())),
    }
}

impl World {
    /// Makes this the world of a directory, which is created if need be and must not hold one yet.
    ///
    /// # Errors
    /// If there is a world already, or a file cannot be written.
    pub fn create(&self, dir: &Path) -> Result<()> {
        std::fs::create_dir_all(dir).with_context(|| format!("creating {}", dir.display()))?;
        let _lock = lock(dir)?;
        ensure!(!dir.join("world.json").exists(), "{} already holds a world", dir.display());
        for frontend in &self.frontends {
            let path = config_path(dir, &frontend.name);
            std::fs::write(
                &path,
                format!("# simulated front end '{}'\ncta.endpoint {}\n", frontend.name, frontend.endpoint),
            )
            .with_context(|| format!("writing {}", path.display()))?;
        }
        let mut world = self.clone();
        world.created_us = now_us();
        replace(dir, "world.json", &serde_json::to_vec(&world)?)
    }

    /// The world as it is now.
    ///
    /// # Errors
    /// If there is none, or it cannot be read or written.
    pub fn load(dir: &Path) -> Result<World> {
        Session::open(dir)?.commit()
    }

    /// Changes the world under its lock, without any of CTA's checks: what an operator's script, another program or
    /// fate would do. Afterwards it is advanced again, so that the effect of [`World::skip`] is there at once.
    ///
    /// # Errors
    /// If there is none, or it cannot be read or written.
    pub fn edit<R>(dir: &Path, change: impl FnOnce(&mut World) -> R) -> Result<R> {
        let mut session = Session::open(dir)?;
        session.touch();
        let result = change(&mut session.world);
        let advance = crate::daemon::advance(&mut session.world, session.now_us);
        session.entries.extend(advance.entries);
        session.commit()?;
        Ok(result)
    }
}

/// Appends text to a file of the directory in one write, so that lines of several processes never mix.
pub(crate) fn append_text(dir: &Path, name: &str, text: &[u8]) -> Result<()> {
    let path = dir.join(name);
    let mut file = OpenOptions::new()
        .create(true)
        .append(true)
        .open(&path)
        .with_context(|| format!("opening {}", path.display()))?;
    file.write_all(text).with_context(|| format!("writing {}", path.display()))
}
