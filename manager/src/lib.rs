//! The operator's tool: looks at the tables and changes what an operator may change.
//!
//! It never runs a `cta-admin` that changes something: what has to be done in CTA is written down as a wish, and a worker
//! does it under a lease.
//!
//! | module | what |
//! |---|---|
//! | [`cli`] | verbs and options |
//! | [`acts`] | pure: what a verb does to a tape, or why not |
//! | [`checks`] | of the site and of tapes: what was found, and what mends it |
//! | [`commands`] | a file for each verb, or for each family of verbs |
//! | [`filter`] | which tapes are meant, for looking and for acting |
//! | [`heading`] | what concerns the whole site |
//! | [`examples`] | what the help of each verb ends with |
//! | [`output`] | text for people and for machines |
//! | [`moment`] | points in time as people type them |
//! | [`forecast`] | pure: when the queue may be empty |
//! | [`left`] | files on a tape, compared with the listing made before its repack |
//! | [`watch`] | a view that is drawn again and again |

use std::sync::Arc;

use common::settings::{self, Loaded};
use common::store::Store;

pub mod acts;
pub mod checks;
pub mod cli;
pub mod commands;
pub mod examples;
pub mod filter;
pub mod forecast;
pub mod heading;
pub mod left;
pub mod moment;
pub mod output;
pub mod watch;

use cli::{Cli, ConfigVerb, Verb};
use output::{Desk, Exit};

/// Runs one command line. `actor` is who the history names.
pub async fn run(cli: &Cli, actor: &str, desk: &mut Desk<'_>) -> Exit {
    match &cli.verb {
        Verb::Completions { shell, program } => {
            return finish(commands::pages::completions(*shell, *program, desk), desk);
        }
        Verb::Man { dir } => return finish(commands::pages::man(dir.as_deref(), cli.json, desk), desk),
        _ => {}
    }
    let path = settings::path(cli.config.clone());
    let loaded = settings::load(&path);
    if let Verb::Config { verb: ConfigVerb::Check { strict } } = &cli.verb {
        return finish(commands::config_check::run(&path, loaded, *strict, cli.json, desk), desk);
    }
    if let Verb::CheckEnv = &cli.verb {
        let outcome = commands::check_env::run(&path, &loaded, actor, cli.json, desk).await;
        return finish(outcome, desk);
    }
    let Loaded { settings, warnings, .. } = match loaded {
        Ok(loaded) => loaded,
        Err(problems) => {
            desk.remark(&format!("error: {problems}"));
            return Exit::Misuse;
        }
    };
    if cli.verbose {
        for warning in &warnings {
            desk.remark(&format!("warning: {warning}"));
        }
    }
    let settings = Arc::new(settings);
    let outcome = match Store::sized(Arc::clone(&settings), actor, 2) {
        Ok(store) => commands::run(cli, &store, desk).await,
        Err(error) => Err(error),
    };
    finish(outcome, desk)
}

/// Says what went wrong, once, with all that is known.
fn finish(outcome: anyhow::Result<Exit>, desk: &mut Desk<'_>) -> Exit {
    match outcome {
        Ok(exit) => exit,
        Err(error) if output::is_broken_pipe(&error) => Exit::Done,
        Err(error) => {
            desk.remark(&format!("error: {error:#}"));
            Exit::Failed
        }
    }
}
