//! The database and CTA as the law around a tape needs them: the real ones, or models of them.
//!
//! Everything that decides what is done to a tape is written against these two traits, so that a simulator can run that very
//! code against models, in any order of events.

use std::sync::Arc;
use std::time::{Duration, Instant};

use chrono::NaiveDate;
use common::cta::{Answer, Command, Cta, Deadline, Frontend, Query, Trouble, Version};
use common::metrics::Metrics;
use common::settings::Settings;
use common::store::{Locked, Store, StoreError};
use common::tape::Vid;
use common::task::ListingMade;
use serde::de::DeserializeOwned;

use crate::listing::{self, ListingError};

/// The rows of a tape, and the time that passes while one waits for them.
#[expect(async_fn_in_trait, reason = "every caller names the type, and so knows whether its futures can be sent")]
pub trait Rows: Clone {
    /// The configuration.
    fn settings(&self) -> &Arc<Settings>;

    /// Who the history names.
    fn actor(&self) -> &str;

    /// As [`Store::locked`].
    ///
    /// # Errors
    /// As there.
    async fn locked<R>(&self, vid: &Vid, gate: bool, law: impl FnOnce(&mut Locked<'_>) -> R) -> Result<R, StoreError>;

    /// As [`Store::together`]. In a model each goes alone: for a tape it is the same.
    ///
    /// # Errors
    /// As there.
    async fn together<R: Send + 'static>(
        &self,
        vid: &Vid,
        law: impl FnMut(&mut Locked<'_>) -> R + Send + 'static,
    ) -> Result<R, StoreError> {
        self.locked(vid, false, law).await
    }

    /// As [`Store::renew`].
    ///
    /// # Errors
    /// As there.
    async fn renew(&self, vid: &Vid, epoch: i64) -> Result<bool, StoreError>;

    /// Waits.
    async fn sleep(&self, duration: Duration);

    /// This host's clock, for waits: it decides nothing about a tape.
    fn clock(&self) -> Instant;

    /// Where the work is counted; a model counts nothing.
    fn metrics(&self) -> Option<&Metrics> {
        None
    }
}

/// CTA, asked and told through `cta-admin`.
#[expect(async_fn_in_trait, reason = "every caller names the type, and so knows whether its futures can be sent")]
pub trait Admin: Clone {
    /// The instant after which a command is not started any more.
    type Deadline;

    /// As [`Cta::list`].
    ///
    /// # Errors
    /// As there.
    async fn list<T: DeserializeOwned + Send + 'static>(&self, query: &Query) -> Result<Vec<T>, Trouble>;

    /// As [`Cta::each`].
    ///
    /// # Errors
    /// As there.
    async fn each<T, F>(&self, query: &Query, take: F) -> Result<u64, Trouble>
    where
        T: DeserializeOwned + Send + 'static,
        F: FnMut(T) -> anyhow::Result<()> + Send + 'static;

    /// As [`Cta::version`].
    ///
    /// # Errors
    /// As there.
    async fn version(&self, frontend: Frontend) -> Result<Version, Trouble>;

    /// As [`Deadline::after`].
    fn deadline(&self, within: Duration) -> Self::Deadline;

    /// As [`Cta::change`].
    async fn change(&self, command: &Command, deadline: Self::Deadline) -> Answer;

    /// As [`Cta::kill_all`].
    fn kill_all(&self);

    /// As [`listing::write`].
    ///
    /// # Errors
    /// As there.
    async fn write_listing(
        &self,
        vid: &Vid,
        round: i32,
        date: NaiveDate,
        host: &str,
        settings: &Settings,
    ) -> Result<ListingMade, ListingError>;
}

impl Rows for Store {
    fn settings(&self) -> &Arc<Settings> {
        Store::settings(self)
    }

    fn actor(&self) -> &str {
        Store::actor(self)
    }

    async fn locked<R>(&self, vid: &Vid, gate: bool, law: impl FnOnce(&mut Locked<'_>) -> R) -> Result<R, StoreError> {
        Store::locked(self, vid, gate, law).await
    }

    async fn together<R: Send + 'static>(
        &self,
        vid: &Vid,
        law: impl FnMut(&mut Locked<'_>) -> R + Send + 'static,
    ) -> Result<R, StoreError> {
        Store::together(self, vid, law).await
    }

    async fn renew(&self, vid: &Vid, epoch: i64) -> Result<bool, StoreError> {
        Store::renew(self, vid, epoch).await
    }

    async fn sleep(&self, duration: Duration) {
        tokio::time::sleep(duration).await;
    }

    fn clock(&self) -> Instant {
        Instant::now()
    }

    fn metrics(&self) -> Option<&Metrics> {
        Some(Store::metrics(self))
    }
}

impl Admin for Cta {
    type Deadline = Deadline;

    async fn list<T: DeserializeOwned + Send + 'static>(&self, query: &Query) -> Result<Vec<T>, Trouble> {
        Cta::list(self, query).await
    }

    async fn each<T, F>(&self, query: &Query, take: F) -> Result<u64, Trouble>
    where
        T: DeserializeOwned + Send + 'static,
        F: FnMut(T) -> anyhow::Result<()> + Send + 'static,
    {
        Cta::each(self, query, take).await
    }

    async fn version(&self, frontend: Frontend) -> Result<Version, Trouble> {
        Cta::version(self, frontend).await
    }

    fn deadline(&self, within: Duration) -> Deadline {
        Deadline::after(within)
    }

    async fn change(&self, command: &Command, deadline: Deadline) -> Answer {
        Cta::change(self, command, deadline).await
    }

    fn kill_all(&self) {
        Cta::kill_all(self);
    }

    async fn write_listing(
        &self,
        vid: &Vid,
        round: i32,
        date: NaiveDate,
        host: &str,
        settings: &Settings,
    ) -> Result<ListingMade, ListingError> {
        listing::write(self, vid, round, date, host, settings).await
    }
}
