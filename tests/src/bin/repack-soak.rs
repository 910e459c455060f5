//! The soak: see `tests/soak --help`.

use std::process::ExitCode;

use clap::Parser;
use journeys::soak::{Options, soak};

/// Runs the programs for a while under chance faults, and checks at the end that nothing was lost, doubled or left behind.
#[derive(Debug, Parser)]
#[command(name = "tests/soak")]
struct Cli {
    /// How long faults happen; the tapes that are under way then are brought to an end
    #[arg(long, default_value_t = 2.0)]
    minutes: f64,
    /// What happens follows from it, as far as the machine's speed allows [default: from the clock]
    #[arg(long)]
    seed: Option<u64>,
    /// Tapes under way at once
    #[arg(long, default_value_t = 40)]
    tapes: usize,
}

#[tokio::main]
async fn main() -> ExitCode {
    let cli = Cli::parse();
    let seed = cli.seed.unwrap_or_else(|| cta_sim::store::now_us() % 1_000_000_007);
    println!("soak: --minutes {} --seed {seed}", cli.minutes);
    let clean = soak(&Options { minutes: cli.minutes, seed, tapes: cli.tapes }).await;
    if clean { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
