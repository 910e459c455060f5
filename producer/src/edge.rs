//! The database and the broker as a tick needs them: the real ones, or models of them (see [`worker::edge`]).

use common::broker::{BrokerError, Depth, PublishError, Publisher, Task as Message, Topology};
use common::journey::Mode;
use common::settings::Broker;
use common::stages::STAGES;
use common::store::{Due, Edited, Holding, Overview, Store, StoreError};
use common::tape::Vid;
use worker::edge::Rows;

/// What spans tapes.
#[expect(async_fn_in_trait, reason = "every caller names the type, and so knows whether its futures can be sent")]
pub trait Table: Rows {
    /// As [`Store::edits`].
    ///
    /// # Errors
    /// As there.
    async fn edits(&self, after: i64) -> Result<Edited, StoreError>;

    /// As [`Store::followed`].
    ///
    /// # Errors
    /// As there.
    async fn followed(&self, lines: &[i64]) -> Result<(), StoreError>;

    /// As [`Store::closable`].
    ///
    /// # Errors
    /// As there.
    async fn closable(&self) -> Result<Vec<Vid>, StoreError>;

    /// As [`Store::sweepable`].
    ///
    /// # Errors
    /// As there.
    async fn sweepable(&self, age_secs: f64) -> Result<Vec<Vid>, StoreError>;

    /// As [`Store::holding`].
    ///
    /// # Errors
    /// As there.
    async fn holding(&self) -> Result<Vec<Holding>, StoreError>;

    /// The unfinished rows among these tapes, as [`Store::overview`].
    ///
    /// # Errors
    /// As there.
    async fn unfinished(&self, vids: &[Vid]) -> Result<Vec<Overview>, StoreError>;

    /// As [`Store::due`].
    ///
    /// # Errors
    /// As there.
    async fn due(
        &self,
        stage: &str,
        again_secs: f64,
        needs_slot: bool,
        after: Option<&Due>,
        limit: i64,
    ) -> Result<Vec<Due>, StoreError>;

    /// As [`Store::slots`].
    ///
    /// # Errors
    /// As there.
    async fn slots(&self, again_secs: f64) -> Result<(u32, u32), StoreError>;

    /// As [`Store::mark_dispatched`].
    ///
    /// # Errors
    /// As there.
    async fn mark_dispatched(&self, due: Vec<Due>) -> Result<Vec<Due>, StoreError>;

    /// As [`Store::clear_dispatched`].
    ///
    /// # Errors
    /// As there.
    async fn clear_dispatched(&self, due: &[Due]) -> Result<(), StoreError>;
}

/// Where tasks are published.
#[expect(async_fn_in_trait, reason = "every caller names the type, and so knows whether its futures can be sent")]
pub trait Post: Sized {
    /// Declares the topology and connects.
    ///
    /// # Errors
    /// What the broker says.
    async fn connect(broker: &Broker, program: &str, channels: usize) -> Result<Self, BrokerError>;

    /// As [`Publisher::is_broken`].
    fn is_broken(&self) -> bool;

    /// As [`Publisher::depth`].
    ///
    /// # Errors
    /// As there.
    async fn depth(&self, queue: &str) -> Result<Option<Depth>, BrokerError>;

    /// As [`Publisher::publish`].
    ///
    /// # Errors
    /// As there.
    async fn publish(&self, message: &Message) -> Result<(), PublishError>;
}

impl Table for Store {
    async fn edits(&self, after: i64) -> Result<Edited, StoreError> {
        Store::edits(self, after).await
    }

    async fn followed(&self, lines: &[i64]) -> Result<(), StoreError> {
        Store::followed(self, lines).await
    }

    async fn closable(&self) -> Result<Vec<Vid>, StoreError> {
        Store::closable(self).await
    }

    async fn sweepable(&self, age_secs: f64) -> Result<Vec<Vid>, StoreError> {
        Store::sweepable(self, age_secs).await
    }

    async fn holding(&self) -> Result<Vec<Holding>, StoreError> {
        Store::holding(self).await
    }

    async fn unfinished(&self, vids: &[Vid]) -> Result<Vec<Overview>, StoreError> {
        let modes: Option<&[Mode]> = None;
        self.overview(Some(vids), modes, false).await
    }

    async fn due(
        &self,
        stage: &str,
        again_secs: f64,
        needs_slot: bool,
        after: Option<&Due>,
        limit: i64,
    ) -> Result<Vec<Due>, StoreError> {
        Store::due(self, stage, again_secs, needs_slot, after, limit).await
    }

    async fn slots(&self, again_secs: f64) -> Result<(u32, u32), StoreError> {
        Store::slots(self, again_secs).await
    }

    async fn mark_dispatched(&self, due: Vec<Due>) -> Result<Vec<Due>, StoreError> {
        Store::mark_dispatched(self, due).await
    }

    async fn clear_dispatched(&self, due: &[Due]) -> Result<(), StoreError> {
        Store::clear_dispatched(self, due).await
    }
}

impl Post for Publisher {
    async fn connect(broker: &Broker, program: &str, channels: usize) -> Result<Publisher, BrokerError> {
        let topology = Topology::new(&broker.prefix, STAGES.map(|stage| stage.name))?;
        topology.declare(broker, program).await?;
        Publisher::connect(broker, program, channels).await
    }

    fn is_broken(&self) -> bool {
        Publisher::is_broken(self)
    }

    async fn depth(&self, queue: &str) -> Result<Option<Depth>, BrokerError> {
        Publisher::depth(self, queue).await
    }

    async fn publish(&self, message: &Message) -> Result<(), PublishError> {
        Publisher::publish(self, message).await
    }
}
