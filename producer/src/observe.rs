//! The picture of the site for Prometheus, taken after every tick: a scrape asks nobody.

use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use chrono::{DateTime, Utc};
use common::broker::{Publisher, Topology};
use common::explain::Slots;
use common::metrics::{Picture, Queue, TickSeen};
use common::settings::Broker;
use common::stages::STAGES;
use common::store::SiteView;
use common::tape::Vid;
use tracing::{debug, warn};

use crate::tick::Context;

/// Takes the picture after a tick that took so long, if anybody can see it, and writes the textfile if one is wanted.
/// Nothing depends on it: what goes wrong is logged.
pub async fn observe(context: &Context, took: Duration) {
    let metrics = context.store.metrics();
    let file = context.settings.producer.metrics_textfile.as_deref();
    if !metrics.is_served() && file.is_none() {
        return;
    }
    match picture(context, took).await {
        Ok(picture) => metrics.show(picture),
        Err(error) => {
            debug!("no picture of the site for the metrics: {error:#}");
            return;
        }
    }
    if let Some(path) = file
        && let Err(error) = write(path, &metrics.textfile())
    {
        warn!("the metrics are not written: {error:#}");
    }
}

/// The site as the database and the broker have it now.
///
/// # Errors
/// What the database says.
pub async fn picture(context: &Context, took: Duration) -> anyhow::Result<Picture> {
    let store = &context.store;
    let mut picture = store.picture().await?;
    picture.tick_secs = took.as_secs_f64();
    slots(context, &mut picture).await?;
    for line in store.controls().await? {
        match line.kind.as_str() {
            "pause" => picture.paused.push(line.name),
            "hold" => picture.held = picture.held.saturating_add(1),
            _ => {}
        }
    }
    let site = store.site().await?;
    // Where none is wanted any more, an old trouble is nobody's.
    picture.mail_failed = context.settings.notify.mail && site.mail.as_ref().is_some_and(|mail| mail.trouble.is_some());
    picture.ticks = ticks(site);
    if let Some(broker) = &context.settings.broker {
        picture.queues = queues(context, broker).await;
    }
    Ok(picture)
}

async fn slots(context: &Context, picture: &mut Picture) -> anyhow::Result<()> {
    let holding = context.store.holding().await?;
    let vids: Vec<Vid> = holding.iter().map(|row| row.vid.clone()).collect();
    let overviews = context.store.overview(Some(&vids), None, true).await?;
    let slots = Slots::of(context.settings.max_active_repacks, &holding, &overviews);
    picture.slots = slots.max;
    picture.slots_taken = slots.taken;
    picture.slots_stuck = u32::try_from(slots.stuck.len()).unwrap_or(u32::MAX);
    for progress in holding.iter().filter_map(|row| row.progress.as_ref()) {
        picture.running_bytes_done = picture.running_bytes_done.saturating_add(progress.archived_bytes);
        picture.running_bytes = picture.running_bytes.saturating_add(progress.total_bytes);
        picture.running_failed_files = picture.running_failed_files.saturating_add(progress.failed_files);
    }
    Ok(())
}

/// None recorded where the tables are older than the program.
fn ticks(site: SiteView) -> Vec<TickSeen> {
    let seen = |tick: common::store::Ticked| TickSeen {
        at: seconds(tick.at),
        stage: tick.stage,
        trouble: tick.trouble.is_some(),
    };
    site.ticks.unwrap_or_default().into_iter().map(seen).collect()
}

fn seconds(at: DateTime<Utc>) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "milliseconds of our century fit an f64")]
    let millis = at.timestamp_millis() as f64;
    millis / 1e3
}

/// The queues, over the connection that publishes; none of them where there is none, or it is in trouble.
async fn queues(context: &Context, broker: &Broker) -> Vec<Queue> {
    let slot = context.publisher.lock().await;
    let Some(publisher) = slot.as_ref().filter(|publisher| !Publisher::is_broken(publisher)) else { return Vec::new() };
    let Ok(topology) = Topology::new(&broker.prefix, STAGES.map(|stage| stage.name)) else { return Vec::new() };
    let mut names: Vec<(&str, String)> =
        STAGES.iter().map(|stage| (stage.name, topology.stage_queue(stage.name))).collect();
    names.extend([("dead", topology.dead_queue()), ("parked", topology.parked_queue())]);
    let mut queues = Vec::with_capacity(names.len());
    for (name, queue) in names {
        match publisher.depth(&queue).await {
            Ok(Some(depth)) => {
                queues.push(Queue { name: name.to_owned(), messages: depth.messages, consumers: depth.consumers });
            }
            Ok(None) => {}
            Err(error) => {
                debug!("the queues are not asked: {error}");
                return Vec::new();
            }
        }
    }
    queues
}

/// Replaces the file in one step: whoever reads it sees the old one or the new one, whole.
fn write(path: &Path, text: &str) -> anyhow::Result<()> {
    let directory = path.parent().context("a file in a directory is needed")?;
    let failed = || format!("writing {}", path.display());
    let mut file = tempfile::Builder::new().prefix(".cta-ops-repack-").tempfile_in(directory).with_context(failed)?;
    file.write_all(text.as_bytes()).with_context(failed)?;
    // Another user's collector reads it.
    file.as_file().set_permissions(std::fs::Permissions::from_mode(0o644)).with_context(failed)?;
    file.persist(path).map_err(|error| error.error).with_context(failed)?;
    Ok(())
}
