//! A thread that writes to something that may block, so that nobody else has to wait for it.

use std::collections::VecDeque;
use std::io::Write;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Lines that may wait. Beyond that they are counted and dropped.
pub(super) const MOST_WAITING: usize = 4096;

/// Where lines wait for the thread.
#[derive(Debug)]
pub(super) struct Background {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    waiting: VecDeque<Vec<u8>>,
    lost: u64,
    writing: bool,
    closed: bool,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Background {
    /// Starts the thread. Without one (no memory, no more threads) lines are lost, which is all that logging may cost.
    pub fn start(mut to: Box<dyn Write + Send>) -> Background {
        let shared = Arc::new(Shared::default());
        let theirs = shared.clone();
        let started = std::thread::Builder::new().name("log".to_owned()).spawn(move || {
            while let Some(line) = next(&theirs) {
                // Whoever read this went away, or the disk is full: nobody is left to be told.
                let _ = to.write_all(&line).and_then(|()| to.flush());
            }
        });
        shared.lock().closed = started.is_err();
        Background { shared }
    }

    /// Hands a line over, without waiting.
    pub fn write(&self, line: Vec<u8>) {
        let mut state = self.shared.lock();
        if state.closed || state.waiting.len() >= MOST_WAITING {
            state.lost += 1;
        } else {
            state.waiting.push_back(line);
            drop(state);
            self.shared.changed.notify_all();
        }
    }

    /// Waits until all lines are written, or for so long.
    pub fn flush(&self, limit: Duration) {
        let busy = |state: &mut State| !state.closed && (state.writing || state.lost > 0 || !state.waiting.is_empty());
        let _ = self.shared.changed.wait_timeout_while(self.shared.lock(), limit, busy);
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        self.shared.lock().closed = true;
        self.shared.changed.notify_all();
    }
}

/// The next line, once there is one; how many were lost is said before them.
fn next(shared: &Shared) -> Option<Vec<u8>> {
    let mut state = shared.lock();
    state.writing = false;
    shared.changed.notify_all();
    let mut state = shared
        .changed
        .wait_while(state, |state| !state.closed && state.lost == 0 && state.waiting.is_empty())
        .unwrap_or_else(PoisonError::into_inner);
    let lost = std::mem::take(&mut state.lost);
    let line =
        if lost > 0 { Some(format!("({lost} log lines were lost)\n").into_bytes()) } else { state.waiting.pop_front() };
    state.writing = line.is_some();
    line
}
