//! The worker program: see the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    if let Some(code) = common::cta::guard::run_if_asked() {
        return code;
    }
    worker::cli::main().into()
}
