//! The verbs.

use common::rights;
use common::store::{Store, StoreError};
use common::task::Wanted;

use crate::acts::Act;
use crate::cli::{Cli, Verb};
use crate::output::{Desk, Exit};

pub mod add;
pub mod change;
pub mod check_env;
pub mod check_tape;
pub mod config_check;
pub mod dead;
pub mod failed_files;
pub mod history;
pub mod holds;
pub mod import;
pub mod ls;
pub mod migrate;
pub mod pages;
pub mod pause;
pub mod queues;
pub mod selection;
pub mod show;
pub mod stats;

/// Runs a verb against the database.
///
/// # Errors
/// What could not be done.
pub async fn run(cli: &Cli, store: &Store, desk: &mut Desk<'_>) -> anyhow::Result<Exit> {
    let json = cli.json;
    match &cli.verb {
        Verb::Migrate { dry_run } => migrate::run(store.settings(), *dry_run, json, desk).await,
        Verb::Config { .. } | Verb::CheckEnv | Verb::Completions { .. } | Verb::Man { .. } => {
            unreachable!("needs no database, and is answered before there is one")
        }
        Verb::CheckTape { vids, priority } => check_tape::run(store, vids, *priority, json, desk).await,
        Verb::Ls(ls) => ls::run(store, ls, cli.verbose, json, desk).await,
        Verb::Show(show) => show::run(store, show, cli.verbose, json, desk).await,
        Verb::History(history) => history::run(store, history, cli.verbose, json, desk).await,
        Verb::Stats(stats) => stats::run(store, stats, json, desk).await,
        Verb::Queues => queues::run(store, json, desk).await,
        Verb::Dead { verb } => dead::run(store, verb, json, desk).await,
        Verb::FailedFiles(options) => failed_files::run(store, options, json, desk).await,
        Verb::Ch(ch) => {
            if let Some(misuse) = change::unfit(store, ch).await? {
                desk.remark(&format!("error: {misuse}"));
                return Ok(Exit::Misuse);
            }
            let act = Act::Change { mode: ch.mode, priority: ch.priority, responsible: ch.responsible.clone() };
            change::run(store, &act, &ch.on(), json, desk).await
        }
        Verb::Requeue { on, adopt, accept_empty } => {
            let act = Act::Requeue { adopt: *adopt, accept_empty: *accept_empty };
            change::run(store, &act, on, json, desk).await
        }
        Verb::RetryFailed(on) => change::run(store, &Act::Want(Wanted::Retry), on, json, desk).await,
        Verb::Abort(on) => change::run(store, &Act::Want(Wanted::GiveBack), on, json, desk).await,
        Verb::Unstick(on) => change::run(store, &Act::Want(Wanted::Unstick), on, json, desk).await,
        Verb::Rm(on) => change::run(store, &Act::Remove, on, json, desk).await,
        Verb::Hold { on, list: true, .. } if on.filter.is_empty() => holds::run(store, json, desk).await,
        Verb::Hold { list: true, .. } => {
            desk.remark("error: hold --list lists every hold; to choose among them there is ls --held");
            Ok(Exit::Misuse)
        }
        Verb::Hold { on, span, list: false } => change::run(store, &Act::Hold(*span), on, json, desk).await,
        Verb::Release(on) => change::run(store, &Act::Release, on, json, desk).await,
        Verb::Pause { stage, span } => pause::run(store, stage, Some(*span), json, desk).await,
        Verb::Add(add) => add::run(store, add, json, desk).await,
        Verb::Import { migrate, cta, dry_run } => {
            let options = import::Options { migrate: *migrate, cta: *cta, dry_run: *dry_run };
            import::run(store, options, json, desk).await
        }
        Verb::Resume { stage } => pause::run(store, stage, None, json, desk).await,
    }
}

/// What the database says, with what to do where that is known.
pub fn told(error: StoreError) -> anyhow::Error {
    let text = error.to_string();
    if text.contains("(42P01)") {
        return anyhow::anyhow!("{text}; run 'cta-ops-repack-manager migrate' once");
    }
    rights::advised(anyhow::anyhow!(text), rights::OPERATOR)
}
