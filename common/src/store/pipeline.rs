//! Several statements in one flight: sent one behind the other without waiting for answers in between.
//!
//! The driver sends a prepared statement when its future is polled for the first time, and the server carries out what it is
//! sent in that order. So everything is prepared before, and polled in order.

use std::future::poll_fn;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

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
///
/// The failure that is told is that of the first step, in their order, that failed: those behind it only say that the
/// transaction is aborted.
pub(super) async fn in_order<E>(steps: Vec<BoxFuture<'_, Result<(), E>>>) -> Result<(), E> {
    let mut steps: Vec<_> = steps.into_iter().map(Some).collect();
    poll_fn(move |context| {
        let polled = pass(&mut steps, context);
        let Poll::Ready(Err((failed, error))) = polled else { return polled.map_err(|(_, error)| error) };
        // Answers come in order, but while this pass was under way: one before it may have its own by now.
        match pass(&mut steps[..failed], context) {
            Poll::Ready(Err((_, first))) => Poll::Ready(Err(first)),
            _ => Poll::Ready(Err(error)),
        }
    })
    .await
}

/// Polls each step once, up to one that fails.
fn pass<E>(
    steps: &mut [Option<BoxFuture<'_, Result<(), E>>>],
    context: &mut Context<'_>,
) -> Poll<Result<(), (usize, E)>> {
    let mut waits = false;
    for (number, step) in steps.iter_mut().enumerate() {
        match step.as_mut().map(|step| step.poll_unpin(context)) {
            None => {}
            Some(Poll::Ready(Ok(()))) => *step = None,
            Some(Poll::Ready(Err(error))) => return Poll::Ready(Err((number, error))),
            Some(Poll::Pending) => waits = true,
        }
    }
    if waits { Poll::Pending } else { Poll::Ready(Ok(())) }
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
    async fn the_failure_that_came_first_in_order_is_told_though_its_answer_came_while_others_were_asked() {
        let said = Mutex::default();
        // The first has its answer at the second poll, when the second failed at its first.
        let steps = vec![step(0, 2, Err(0), &said), step(1, 1, Err(1), &said), step(2, 1, Ok(()), &said)];
        assert_eq!(in_order(steps).await, Err(0));
        assert_eq!(*said.lock().unwrap(), [0, 1]);
        let said = Mutex::default();
        let steps = vec![step(0, 3, Err(0), &said), step(1, 3, Err(1), &said), step(2, 4, Ok(()), &said)];
        assert_eq!(in_order(steps).await, Err(0));
    }
}
