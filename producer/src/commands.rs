//! What each command of the command line does, from the configuration to the exit code.

use std::io::{IsTerminal as _, Write as _};
use std::sync::Arc;

use anyhow::Context as _;
use common::cta::Cta;
use common::rights;
use common::stages::{STAGES, Stage};
use common::store::Store;
use common::tape::Vid;
use futures_util::TryFutureExt as _;
use serde_json::{Value, json};
use tokio::sync::{Mutex, watch};
use tracing::info;
use worker::program::{self, Exit, Started, Talk, print, remark};
use worker::service::{Shutdown, reached};

use crate::cli::{self, Call, Verb};
use crate::monitor::{self, Target};
use crate::scan::{self, Explain, Lines, Selected, Silent, Spool};
use crate::tick::{self, Context, LOST_LETTER, PAGE};
use crate::{output, prepare};

/// Does what was asked for.
pub fn run(call: &Call) -> Exit {
    let talk = if matches!(call.verb, Verb::Run { dry_run: false }) { Talk::Service } else { Talk::Quiet };
    let (started, _log) = match program::start(cli::PROGRAM, &call.common, talk) {
        Ok(started) => started,
        Err(exit) => return exit,
    };
    // What is wrong with the arguments is said before anything is connected to.
    let prepared = match &call.verb {
        Verb::Prepare(options) => match order(options, &started) {
            Ok(order) => Some((order, options.is_fed())),
            Err(problems) => {
                problems.iter().for_each(|problem| remark(format_args!("error: {problem}")));
                return Exit::Misuse;
            }
        },
        _ => None,
    };
    let work = perform(call, &started, prepared);
    program::finish(work.map_err(|error| rights::advised(error, rights::WORKER)))
}

/// What prepare is to do, and whether its tapes come from a pipe.
type Asked = (prepare::Order, bool);

async fn perform(call: &Call, started: &Started, order: Option<Asked>) -> anyhow::Result<Exit> {
    let stop = program::signals()?;
    match (&call.verb, order) {
        (Verb::Scan(options), _) => until_told(&stop, run_scan(call, options, started)).await,
        (Verb::Prepare(_), Some((order, fed))) => {
            let prepared = run_prepare(call, &order, started, &stop).await?;
            if !order.vids.is_empty() {
                sum_up(call, &prepared, fed);
            }
            Ok(if prepared.refused.is_empty() { Exit::Done } else { Exit::Failed })
        }
        (Verb::Prepare(_), None) => anyhow::bail!("there is nothing to prepare"),
        (Verb::Monitor(options), _) => until_told(&stop, run_monitor(call, options, started)).await,
        (Verb::Tick { stages, dry_run }, _) => run_tick(call, stages, *dry_run, started, stop).await,
        (Verb::Run { dry_run: true }, _) => run_tick(call, &STAGES, true, started, stop).await,
        (Verb::Run { dry_run: false }, _) => {
            let context = context(started, stop)?;
            let listen = started.settings.producer.metrics_listen;
            let usual = common::settings::Settings::default().producer.metrics_listen;
            let still = program::STILL + started.settings.cta_admin.list_timeout + started.settings.producer.interval;
            let Ok(_endpoint) = program::endpoint(listen, usual, context.store.metrics(), cli::PROGRAM, still).await
            else {
                return Ok(Exit::Misuse);
            };
            tick::run(&context).await?;
            Ok(Exit::Done)
        }
    }
}

/// What changes nothing is simply dropped when we are told to end.
async fn until_told(
    stop: &watch::Receiver<Shutdown>,
    work: impl Future<Output = anyhow::Result<Exit>>,
) -> anyhow::Result<Exit> {
    let mut stop = stop.clone();
    tokio::select! {
        ended = work => ended,
        () = reached(&mut stop, Shutdown::Finish) => anyhow::bail!("told to end before it was done"),
    }
}

fn context(started: &Started, stop: watch::Receiver<Shutdown>) -> anyhow::Result<Context> {
    let settings = Arc::clone(&started.settings);
    let actor = started.actor("producer");
    let store = Store::new(Arc::clone(&settings), &actor)?;
    Ok(Context {
        cta: Cta::new(&settings.cta_admin).measured(store.metrics()),
        store,
        settings,
        host: started.host.clone(),
        program: actor,
        lost_letter: LOST_LETTER,
        page: PAGE,
        stop,
        publisher: Mutex::new(None),
    })
}

async fn run_tick(
    call: &Call,
    stages: &[&'static Stage],
    dry_run: bool,
    started: &Started,
    stop: watch::Receiver<Shutdown>,
) -> anyhow::Result<Exit> {
    let report = tick::tick(&context(started, stop)?, stages, dry_run).await?;
    let failed = report.failed();
    let report = serde_json::to_value(&report).context("the report is no JSON")?;
    output::wrong(&report).iter().for_each(remark);
    output::stopped(&report).iter().for_each(|line| started.tell(line));
    if call.json {
        print(format_args!("{report}\n"))?;
    } else if dry_run || call.common.verbose {
        print(output::told(&report))?;
    }
    Ok(if failed { Exit::Failed } else { Exit::Done })
}

async fn run_scan(call: &Call, options: &cli::Scan, started: &Started) -> anyhow::Result<Exit> {
    let settings = &started.settings;
    match (options.explain, call.json) {
        (false, json) => {
            let (selected, Silent) = select(started, Silent).await?;
            if json {
                print(format_args!("{}\n", selected.json(settings)))?
            } else {
                print(selected.line())?
            }
            selected.remarks().iter().for_each(remark);
        }
        (true, false) => {
            scan::rule(settings).iter().for_each(|line| remark(format_args!("rule: {line}")));
            let (selected, Lines(_)) = select(started, Lines(std::io::stderr())).await?;
            selected.counts().iter().for_each(remark);
            selected.remarks().iter().for_each(remark);
            print(selected.line())?;
        }
        (true, true) => {
            let (selected, spool) = select(started, Spool::new()?).await?;
            let mut object = selected.json(settings);
            object["rule"] = json!(scan::rule(settings));
            let mut out = std::io::BufWriter::new(std::io::stdout());
            let printed = spool.print(&object, &mut out).and_then(|()| Ok(out.flush()?));
            program::unless_gone(printed)?;
            selected.remarks().iter().for_each(remark);
        }
    }
    Ok(Exit::Done)
}

async fn select<E: Explain>(started: &Started, explain: E) -> anyhow::Result<(Selected, E)> {
    let store = Store::sized(Arc::clone(&started.settings), &started.actor("scan"), 2)?;
    scan::scan(&store, &Cta::new(&started.settings.cta_admin), explain).await
}

/// What prepare is to do, checked as far as that goes without asking anybody.
fn order(options: &cli::Prepare, started: &Started) -> Result<prepare::Order, Vec<String>> {
    let priorities = &started.settings.priorities;
    let priority = options.priority.unwrap_or(priorities.default);
    let vids = cli::vids_of(options);
    let known = priorities.by_number.contains_key(&priority).then_some(()).ok_or_else(|| {
        let known: Vec<String> = priorities.by_number.keys().map(ToString::to_string).collect();
        format!("priority {priority} is not in the configuration (there are {})", known.join(", "))
    });
    match (vids, known) {
        (Ok(vids), Ok(())) => Ok(prepare::Order {
            vids,
            priority,
            responsible: options.responsible.clone().unwrap_or_else(program::login),
            reason: options.reason.clone(),
            dry_run: options.dry_run,
        }),
        (vids, known) => Err(vids.err().into_iter().flatten().chain(known.err()).collect()),
    }
}

async fn run_prepare(
    call: &Call,
    order: &prepare::Order,
    started: &Started,
    stop: &watch::Receiver<Shutdown>,
) -> anyhow::Result<prepare::Prepared> {
    let prepared = if order.vids.is_empty() {
        remark("no tape is named: nothing to do");
        prepare::Prepared { stage: "prepare", dry_run: order.dry_run, ..prepare::Prepared::default() }
    } else {
        let store = Store::new(Arc::clone(&started.settings), &common::actor::actor())?;
        prepare::prepare(&store, &Cta::new(&started.settings.cta_admin), order, stop).await?
    };
    for tape in &prepared.refused {
        started.tell(format_args!("{} is refused: {}", tape.vid, tape.reasons.join("; ")));
    }
    if call.json {
        print(format_args!("{}\n", serde_json::to_string(&prepared).context("the report is no JSON")?))?;
    } else if order.dry_run {
        print(prepared_text(&prepared))?;
    }
    Ok(prepared)
}

/// What became of it, as the last line on stderr. A timer's `scan | prepare -` stays quiet when all went well, and a program
/// that asked for JSON has it there.
fn sum_up(call: &Call, prepared: &prepare::Prepared, fed: bool) {
    let summary = prepared.summary();
    info!("{summary}");
    // There the log is on stderr: it has told of each tape, and now of all.
    if std::io::stderr().is_terminal() || call.common.verbose {
        return;
    }
    if !prepared.refused.is_empty() || !(fed || call.json) {
        prepared.news().iter().for_each(remark);
        remark(summary);
    }
}

fn prepared_text(prepared: &prepare::Prepared) -> String {
    let named = |what: &str, vids: &[Vid]| vids.iter().map(|vid| format!("{vid}: {what}\n")).collect::<String>();
    named("would be entered", &prepared.added) + &named("is there already", &prepared.already_there)
}

async fn run_monitor(call: &Call, options: &cli::Monitor, started: &Started) -> anyhow::Result<Exit> {
    let target = options.target(&started.settings.monitor_ls_out);
    let store = Store::sized(Arc::clone(&started.settings), &started.actor("monitor"), 2)?;
    let exported = monitor::export(&store, &target).await?;
    let said: Value = serde_json::to_value(&exported).context("the report is no JSON")?;
    match (&target, call.json) {
        // There the rows are the data.
        (Target::Stdout, _) => {}
        (_, true) => print(format_args!("{said}\n"))?,
        (Target::Nowhere(path), false) => {
            print(format_args!("{} rows would be added to {}\n", exported.rows, path.display()))?;
        }
        (Target::File(_), false) => {}
    }
    Ok(Exit::Done)
}
