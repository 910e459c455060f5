//! The worker's command line.

use std::net::SocketAddr;

use clap::builder::PossibleValuesParser;
use clap::{Parser, value_parser};
use common::cta::Cta;
use common::settings::Settings;
use common::stages::STAGES;
use common::store::{SPARE, Store};

use crate::program::{self, Common, Exit, Started, Talk};
use crate::service::{self, Options};

/// The program's name.
pub const PROGRAM: &str = "cta-ops-repack-worker";

/// Connections to the database for deliveries, of which most share one: others wait for what takes milliseconds.
const CONNECTIONS: usize = 16;

const EXAMPLES: &str = "\
Examples:
  cta-ops-repack-worker                       # all stages, as configured
  cta-ops-repack-worker --stages start,end    # only starts and watches repacks
  cta-ops-repack-worker --concurrency 16      # sixteen tapes at once

It runs until SIGTERM or SIGINT: the first lets it finish what is in hand, a second makes it drop that and give the \
tapes back.

Exit code 0: told to end. 1: failed. 2: misuse or a configuration that cannot be used.";

/// Takes tasks from the broker and works on the tapes they name: looks, acts through cta-admin, looks again, records
#[derive(Debug, Parser)]
#[command(name = PROGRAM, version, disable_version_flag = true, after_help = EXAMPLES)]
pub struct Cli {
    #[command(flatten)]
    common: Common,
    /// Serve only these stages [default: as configured]
    #[arg(long, value_name = "STAGE,...", value_delimiter = ',',
          value_parser = PossibleValuesParser::new(STAGES.map(|stage| stage.name)))]
    stages: Option<Vec<String>>,
    /// Work on so many tapes at once [default: as configured]
    #[arg(long, value_name = "N", value_parser = value_parser!(u16).range(1..=1000))]
    concurrency: Option<u16>,
    /// Serve metrics there, such as 127.0.0.1:9189, or nowhere: 'none' [default: as configured]
    #[arg(long, value_name = "ADDRESS", value_parser = listen)]
    metrics_listen: Option<Listen>,
}

/// Where to listen, or nowhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Listen(Option<SocketAddr>);

fn listen(text: &str) -> Result<Listen, String> {
    if text == "none" {
        return Ok(Listen(None));
    }
    let expected = |_| "expected an address and a port such as 127.0.0.1:9189 or [::]:9189, or 'none'".to_owned();
    text.parse().map(|address| Listen(Some(address))).map_err(expected)
}

impl Cli {
    /// What to consume: the command line over the configuration.
    fn options(&self, settings: &Settings, name: String, host: String) -> Options {
        let mut stages = self.stages.clone().unwrap_or_else(|| settings.worker.stages.clone());
        let mut seen = std::collections::HashSet::new();
        stages.retain(|stage| seen.insert(stage.clone()));
        let concurrency = self.concurrency.map_or(settings.worker.concurrency, usize::from);
        Options { stages, concurrency, name, host }
    }
}

/// From the arguments to the end.
pub fn main() -> Exit {
    let cli = Cli::parse();
    match program::start(PROGRAM, &cli.common, Talk::Service) {
        Ok((started, _log)) => program::finish(run(&cli, &started)),
        Err(exit) => exit,
    }
}

async fn run(cli: &Cli, started: &Started) -> anyhow::Result<Exit> {
    let settings = &started.settings;
    let actor = started.actor("worker");
    let options = cli.options(settings, actor.clone(), started.host.clone());
    let store = Store::sized(settings.clone(), &actor, options.concurrency.min(CONNECTIONS) + SPARE)?;
    let cta = Cta::new(&settings.cta_admin).measured(store.metrics());
    let listen = cli.metrics_listen.map_or(settings.worker.metrics_listen, |Listen(address)| address);
    // An address on the command line was chosen, whichever it is.
    let usual = if cli.metrics_listen.is_some() { None } else { Settings::default().worker.metrics_listen };
    let Ok(_endpoint) = program::endpoint(listen, usual, store.metrics(), PROGRAM, program::STILL).await else {
        return Ok(Exit::Misuse);
    };
    match service::run(store, cta, options, program::signals()?).await {
        Ok(()) => Ok(Exit::Done),
        Err(error) if settings.broker.is_none() => {
            program::remark(format_args!("error: {error:#}"));
            Ok(Exit::Misuse)
        }
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(args: &[&str]) -> Result<Options, clap::Error> {
        let cli = Cli::try_parse_from([&[PROGRAM], args].concat())?;
        Ok(cli.options(&Settings::default(), "n".to_owned(), "h".to_owned()))
    }

    #[test]
    fn the_command_line_is_sound() {
        use clap::CommandFactory as _;
        Cli::command().debug_assert();
    }

    #[test]
    fn help_breaks_no_line_but_where_the_terminal_ends() {
        use clap::CommandFactory as _;
        for width in [80, 120] {
            let help = Cli::command().term_width(width).render_long_help().to_string();
            let text = help.split_once("Examples:").expect("examples").1;
            assert!(help.lines().all(|line| line.chars().count() <= width), "{help}");
            let paragraphs: Vec<&str> = text.split("\n\n").collect();
            assert_eq!(paragraphs.len(), 3, "{help}");
            assert!(paragraphs[0].trim().lines().all(|line| line.contains("  # ")), "an example on two lines: {help}");
            for paragraph in &paragraphs[1..] {
                let lines: Vec<&str> = paragraph.trim().lines().collect();
                for (line, next) in lines.iter().zip(lines.iter().skip(1)) {
                    let word = next.split(' ').next().expect("a word");
                    assert!(line.chars().count() + 1 + word.chars().count() > width, "'{line}' ends too soon: {help}");
                }
            }
        }
    }

    #[test]
    fn without_options_it_serves_what_is_configured() {
        let options = options(&[]).unwrap();
        assert_eq!(options.stages, Settings::default().worker.stages);
        assert_eq!(options.concurrency, Settings::default().worker.concurrency);
    }

    #[test]
    fn stages_and_concurrency_of_the_command_line_win_and_a_stage_counts_once() {
        let options = options(&["--stages", "end,start,end", "--concurrency", "9"]).unwrap();
        assert_eq!(options.stages, ["end", "start"]);
        assert_eq!(options.concurrency, 9);
    }

    #[test]
    fn what_is_no_stage_or_no_number_is_misuse() {
        for bad in [
            &["--stages", "begin"][..],
            &["--stages", ""],
            &["--stages", "start,,end"],
            &["--concurrency", "0"],
            &["--concurrency", "1001"],
            &["--concurrency", "-1"],
            &["--metrics-listen", "9188"],
            &["--metrics-listen", ""],
            &["V01007"],
            &["--all"],
        ] {
            let error = options(bad).unwrap_err();
            assert_eq!(error.exit_code(), 2, "{bad:?}");
        }
    }

    #[test]
    fn help_and_version_are_no_errors_and_capital_v_is_verbose() {
        for (arg, kind) in [
            ("--help", clap::error::ErrorKind::DisplayHelp),
            ("-h", clap::error::ErrorKind::DisplayHelp),
            ("--version", clap::error::ErrorKind::DisplayVersion),
        ] {
            let error = options(&[arg]).unwrap_err();
            assert_eq!((error.kind(), error.exit_code()), (kind, 0), "{arg}");
        }
        assert!(Cli::try_parse_from([PROGRAM, "-V"]).unwrap().common.verbose);
    }
}
