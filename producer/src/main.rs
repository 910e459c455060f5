//! The producer program, under all its names: see the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    if let Some(code) = common::cta::guard::run_if_asked() {
        return code;
    }
    producer::cli::main().into()
}
