//! Several statements in one flight: sent one behind the other without waiting for answers in between.
//!
//! The driver sends a prepared statement when its future is polled for the first time, and the server carries out what it is
//! sent in that order. So everything is prepared before, and polled in order.

use std::future::poll_fn;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;

use deadpool_postgres::Client;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use tokio_postgres::Error;

/// A transaction whose beginning and end travel with other statements. Rolled back when dropped, unless its end was sent.
///
/// A statement that fails makes the server refuse all behind it, and turn the commit into a rollback: so the commit may be
/// on its way already when the failure is known.
pub(super) struct Transaction<'a> {
    client: &'a Client,
    open: AtomicBool,
}

impl<'a> Transaction<'a> {
    /// Not begun yet.
    pub(super) fn new(client: &'a Client) -> Transaction<'a> {
        Transaction { client, open: AtomicBool::new(false) }
    }

    /// Begins it. The isolation is said: a default of the database or the role must not change what a lock means.
    pub(super) async fn begin(&self) -> Result<(), Error> {
        self.open.store(true, Ordering::Relaxed);
        self.client.batch_execute("START TRANSACTION ISOLATION LEVEL READ COMMITTED").await
    }

    /// Commits it, if nothing before failed; the answer says nothing of that.
    pub(super) async fn commit(&self) -> Result<(), Error> {
        self.open.store(false, Ordering::Relaxed);
        self.client.batch_execute("COMMIT").await
    }
}

impl Drop for Transaction<'_> {
    fn drop(&mut self) {
        if self.open.load(Ordering::Relaxed) {
            // Polled once: it is sent, and whoever has the connection next comes behind it.
            let _ = self.client.batch_execute("ROLLBACK").now_or_never();
        }
    }
}

/// Polls all steps in order until all are done or one has failed. A step behind one that fails at once is never polled.
pub(super) async fn in_order<E>(steps: Vec<BoxFuture<'_, Result<(), E>>>) -> Result<(), E> {
    let mut steps: Vec<_> = steps.into_iter().map(Some).collect();
    poll_fn(move |context| {
        let mut waits = false;
        for step in &mut steps {
            match step.as_mut().map(|step| step.poll_unpin(context)) {
                None => {}
                Some(Poll::Ready(Ok(()))) => *step = None,
                Some(Poll::Ready(Err(error))) => return Poll::Ready(Err(error)),
                Some(Poll::Pending) => waits = true,
            }
        }
        if waits { Poll::Pending } else { Poll::Ready(Ok(())) }
    })
    .await
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    /// Says when it is polled for the first time, and is done at the poll of this number.
    fn step<'a>(
        name: u32,
        polls: u32,
        end: Result<(), u32>,
        said: &'a Mutex<Vec<u32>>,
    ) -> BoxFuture<'a, Result<(), u32>> {
        let mut polled = 0;
        poll_fn(move |context| {
            polled += 1;
            if polled == 1 {
                said.lock().unwrap().push(name);
            }
            if polled >= polls {
                return Poll::Ready(end);
            }
            context.waker().wake_by_ref();
            Poll::Pending
        })
        .boxed()
    }

    #[tokio::test]
    async fn steps_begin_in_order_whatever_the_order_in_which_they_end() {
        let said = Mutex::default();
        let steps = (0..100).map(|name| step(name, 1 + (name * 7) % 5, Ok(()), &said)).collect();
        in_order(steps).await.unwrap();
        assert_eq!(*said.lock().unwrap(), (0..100).collect::<Vec<_>>());
    }

    #[tokio::test]
    async fn nothing_begins_behind_a_step_that_fails_at_once() {
        let said = Mutex::default();
        let steps = vec![step(0, 9, Ok(()), &said), step(1, 1, Err(1), &said), step(2, 1, Ok(()), &said)];
        assert_eq!(in_order(steps).await, Err(1));
        assert_eq!(*said.lock().unwrap(), [0, 1]);
    }

    #[tokio::test]
    async fn the_failure_that_came_first_in_order_is_told() {
        let said = Mutex::default();
        let steps = vec![step(0, 3, Err(0), &said), step(1, 3, Err(1), &said), step(2, 4, Ok(()), &said)];
        assert_eq!(in_order(steps).await, Err(0));
    }
}
