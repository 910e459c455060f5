//! The simulated `cta-admin`.

use std::process::ExitCode;

fn main() -> ExitCode {
    cta_sim::run::main(std::env::args_os().skip(1).collect())
}
