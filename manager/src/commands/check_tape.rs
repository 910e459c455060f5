//! `check-tape`: whether tapes would pass prepare, and whether their repacks would succeed.

use common::cta::Cta;
use common::store::Store;
use common::tape::Vid;

use crate::checks::{self, tape};
use crate::output::{Desk, Exit};

/// Checks the tapes, each once.
///
/// # Errors
/// When nobody can be told.
pub async fn run(
    store: &Store,
    vids: &[Vid],
    priority: Option<i16>,
    json: bool,
    desk: &mut Desk<'_>,
) -> anyhow::Result<Exit> {
    let settings = store.settings();
    let mut once: Vec<Vid> = Vec::new();
    for vid in vids {
        if !once.contains(vid) {
            once.push(vid.clone());
        }
    }
    let cta = Cta::new(&settings.cta_admin);
    let priority = priority.unwrap_or(settings.priorities.default);
    let found = tape::checks(store, &cta, &once, priority, store.actor()).await;
    checks::print(&found, json, desk)
}
