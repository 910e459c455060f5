//! Runs many seeds, or one with all of its trace.

use std::process::ExitCode;

use simulator::{Mutation, Tally, run, traced};

const USAGE: &str =
    "usage: protocol-simulator [--seeds N] [--from S] [--mutation NAME] | --trace SEED [--mutation NAME] | --mutations";

struct Wanted {
    seeds: u64,
    from: u64,
    trace: Option<u64>,
    mutation: Option<Mutation>,
}

fn wanted() -> Result<Wanted, String> {
    let mut wanted = Wanted { seeds: 10_000, from: 0, trace: None, mutation: None };
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        let value = args.next().ok_or_else(|| format!("{arg} needs a value\n{USAGE}"))?;
        let number = || value.parse::<u64>().map_err(|_| format!("{arg} needs a number, not '{value}'"));
        match arg.as_str() {
            "--seeds" => wanted.seeds = number()?,
            "--from" => wanted.from = number()?,
            "--trace" => wanted.trace = Some(number()?),
            "--mutation" => {
                let named = Mutation::ALL.iter().find(|mutation| mutation.name() == value);
                wanted.mutation = Some(*named.ok_or_else(|| format!("no mutation '{value}'"))?);
            }
            _ => return Err(USAGE.to_owned()),
        }
    }
    Ok(wanted)
}

fn main() -> ExitCode {
    if std::env::args().nth(1).as_deref() == Some("--mutations") {
        Mutation::ALL.iter().for_each(|mutation| println!("{:<28}{}", mutation.name(), mutation.about()));
        return ExitCode::SUCCESS;
    }
    let wanted = match wanted() {
        Ok(wanted) => wanted,
        Err(text) => {
            eprintln!("{text}");
            return ExitCode::from(2);
        }
    };
    if let Some(seed) = wanted.trace {
        let (violation, tally, trace) = traced(seed, wanted.mutation);
        trace.iter().for_each(|line| println!("{line}"));
        println!("{tally:?}");
        return if violation.is_some() { ExitCode::FAILURE } else { ExitCode::SUCCESS };
    }
    let mut sum = Tally::default();
    for seed in wanted.from..wanted.from.saturating_add(wanted.seeds) {
        match run(seed, wanted.mutation) {
            Ok(tally) => sum.add(&tally),
            Err(failure) => {
                println!("{failure}");
                return ExitCode::FAILURE;
            }
        }
    }
    println!("{} seeds from {}: every invariant holds; {sum:?}", wanted.seeds, wanted.from);
    ExitCode::SUCCESS
}
