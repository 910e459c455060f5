//! `peer-apalis publish QUEUE < VIDS`, `peer-apalis work QUEUE CONCURRENCY`: apalis over AMQP, a quorum queue.

use std::sync::Arc;

use apalis::prelude::*;
use apalis_amqp::{AmqpBackend, Config};
use bench_peers::{Database, Failure, vids};
use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Finish {
    vid: String,
}

async fn finish(task: Finish, database: Data<Arc<Database>>) -> Result<(), BoxDynError> {
    if task.vid == OPENER {
        return Ok(());
    }
    database.work(&task.vid).await
}

/// A backend of this version has no channel until it has pushed something; the worker refuses to start without.
const OPENER: &str = "none";

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> Result<(), Failure> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let queue: &'static str = args.get(1).ok_or("no queue is named")?.clone().leak();
    let concurrency: usize = args.get(2).map_or(Ok(1), |text| text.parse())?;
    let prefetch = u16::try_from(concurrency)?;
    let config = Config::default().queue(queue).prefetch_count(prefetch).quorum(true);
    let mut backend = AmqpBackend::<Finish>::new_from_addr(std::env::var("BENCH_AMQP")?)?.with_config(config);
    if args.first().is_some_and(|what| what == "publish") {
        for vid in vids()? {
            backend.push(Finish { vid }).await?;
        }
        return Ok(());
    }
    backend.push(Finish { vid: OPENER.to_owned() }).await?;
    let database = Arc::new(Database::connect(concurrency + 2).await?);
    WorkerBuilder::new("bench")
        .backend(backend)
        .data(database)
        .concurrency(concurrency)
        .parallelize(tokio::spawn)
        .build(finish)
        .run()
        .await?;
    Ok(())
}
