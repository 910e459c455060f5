//! `peer-graphile publish < VIDS`, `peer-graphile work CONCURRENCY`: graphile_worker, PostgreSQL is its queue.

use std::sync::Arc;

use bench_peers::{Database, Failure, vids};
use graphile_worker::{IntoTaskHandlerResult, JobSpec, LocalQueueConfig, TaskHandler, WorkerContext, WorkerOptions};
use serde::{Deserialize, Serialize};

#[derive(Deserialize, Serialize)]
struct Finish {
    vid: String,
}

#[derive(Clone)]
struct Shared(Arc<Database>);

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Shared")
    }
}

impl TaskHandler for Finish {
    const IDENTIFIER: &'static str = "finish";

    async fn run(self, context: WorkerContext) -> impl IntoTaskHandlerResult {
        let Some(shared) = context.get_ext::<Shared>() else { return Err("no database".to_owned()) };
        shared.0.work(&self.vid).await.map_err(|error| error.to_string())
    }
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> Result<(), Failure> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let concurrency: usize = args.get(1).map_or(Ok(1), |text| text.parse())?;
    let shared = Shared(Arc::new(Database::connect(concurrency * 2 + 4).await?));
    let worker = WorkerOptions::default()
        .database_url(&std::env::var("BENCH_DSN")?)
        .concurrency(concurrency)
        .schema("graphile")
        .define_job::<Finish>()
        // Without it this version takes CONCURRENCY jobs of a standing backlog per second.
        .local_queue(LocalQueueConfig::default().with_size(100))
        .add_extension(shared)
        .init()
        .await?;
    if args.first().is_some_and(|what| what == "publish") {
        let utils = worker.create_utils();
        for vid in vids()? {
            utils.add_job(Finish { vid }, JobSpec::default()).await?;
        }
        return Ok(());
    }
    worker.run().await?;
    Ok(())
}
