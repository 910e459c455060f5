//! One tick. Stands in until the real one is merged.

use std::sync::Arc;

use common::broker::Publisher;
use common::cta::Cta;
use common::settings::Settings;
use common::stages::Stage;
use common::store::Store;
use serde::Serialize;
use tokio::sync::{Mutex, watch};
use worker::service::Shutdown;

/// Everything a tick works with.
#[expect(missing_docs, reason = "stands in")]
pub struct Context {
    pub store: Store,
    pub cta: Cta,
    pub settings: Arc<Settings>,
    pub host: String,
    pub program: String,
    pub stop: watch::Receiver<Shutdown>,
    pub publisher: Mutex<Option<Publisher>>,
}

/// What one stage did.
#[derive(Debug, Serialize)]
pub struct StageReport {}

/// What a tick did.
#[derive(Debug, Serialize)]
#[expect(missing_docs, reason = "stands in")]
pub struct TickReport {
    pub stages: Vec<StageReport>,
    pub odd: Vec<String>,
    pub trouble: Vec<String>,
}

impl TickReport {
    /// Whether the run failed.
    pub fn failed(&self) -> bool {
        !self.trouble.is_empty()
    }
}

/// One tick.
///
/// # Errors
/// Always, for now.
pub async fn tick(_: &Context, _: &[&'static Stage], _: bool) -> anyhow::Result<TickReport> {
    anyhow::bail!("not there yet")
}

/// Ticks for ever.
///
/// # Errors
/// Always, for now.
pub async fn run(_: &Context) -> anyhow::Result<()> {
    anyhow::bail!("not there yet")
}
