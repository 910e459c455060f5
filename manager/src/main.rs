//! `cta-ops-repack-manager`.

use std::io::IsTerminal as _;
use std::process::ExitCode;

use manager::cli::Cli;
use manager::output::{Desk, Exit};

fn main() -> ExitCode {
    let cli = match Cli::read(std::env::args_os()) {
        Ok(cli) => cli,
        Err(error) => {
            let code = u8::try_from(error.exit_code()).unwrap_or(2);
            // Help that nobody reads any more is no failure.
            error.print().ok();
            return ExitCode::from(code);
        }
    };
    let (mut out, mut err) = (std::io::stdout(), std::io::stderr());
    let can_ask = std::io::stdin().is_terminal() && err.is_terminal();
    let mut ask = manager::output::ask_on_terminal;
    let on_terminal = out.is_terminal();
    let no_color = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    let mut desk = Desk {
        out: &mut out,
        err: &mut err,
        ask: can_ask.then_some(&mut ask as &mut dyn FnMut(&str) -> bool),
        width: if on_terminal { comfy_table::Table::new().width() } else { None },
        colour: on_terminal && !no_color,
    };
    // A thread beside this one: while a question waits for its answer here, connections must not fall silent.
    let runtime = match tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            desk.remark(&format!("error: cannot start: {error}"));
            return Exit::Failed.into();
        }
    };
    let exit = runtime.block_on(manager::run(&cli, &common::actor::actor(), &mut desk));
    exit.into()
}
