//! The comparison: rounds of programmes of engines, in turn.

use crate::{
    arguments::Options,
    children::{self, Outcome},
    engines::{CONTENDERS, Contender},
    plot,
    programs::{PROGRAMS, Program},
    report::Report,
};
use std::process::ExitCode;

/// All outcomes of one engine in one programme, one per round.
pub struct Run {
    pub contender: &'static Contender,
    pub program: &'static Program,
    pub rounds: Vec<Outcome>,
}

pub fn run(options: &Options) -> Result<ExitCode, String> {
    let wanted = |list: &[String], name: &str| list.is_empty() || list.iter().any(|w| name.starts_with(&**w));
    let contenders: Vec<_> = CONTENDERS
        .iter()
        .filter(|c| wanted(&options.engines, c.name) && (c.quick || !options.quick))
        .collect();
    let programs: Vec<_> = PROGRAMS
        .iter()
        .filter(|p| wanted(&options.programs, p.name) && (p.quick || !options.quick))
        .collect();
    if contenders.is_empty() || programs.is_empty() {
        return Err("no engine or no programme has that name".into());
    }
    let mut runs: Vec<Run> = Vec::new();
    for program in programs {
        let rounds = options.rounds.min(program.rounds_max);
        for round in 0..rounds {
            for contender in &contenders {
                if program.without.contains(&contender.name) {
                    continue;
                }
                eprintln!(
                    "{}, round {} of {rounds}: {}",
                    program.name,
                    round + 1,
                    contender.name
                );
                let dir = match &options.dir {
                    Some(parent) => tempfile::tempdir_in(parent),
                    None => tempfile::tempdir(),
                }
                .map_err(|error| format!("a scratch directory cannot be made: {error}"))?;
                let outcome = children::run(contender, program, options.keys, options.ops, dir.path());
                if let Some(why) = &outcome.failure {
                    eprintln!("{}: {why}", if outcome.skipped { "SKIPPED" } else { "FAILED" });
                }
                match runs
                    .iter_mut()
                    .find(|run| run.contender.name == contender.name && run.program.name == program.name)
                {
                    Some(run) => run.rounds.push(outcome),
                    None => runs.push(Run {
                        contender,
                        program,
                        rounds: vec![outcome],
                    }),
                }
            }
        }
    }
    let failed = runs
        .iter()
        .flat_map(|run| &run.rounds)
        .any(|round| round.failure.is_some() && !round.skipped);
    let report = Report::new(options, runs);
    let text = report.render();
    print!("{text}");
    if let Some(file) = &options.markdown {
        std::fs::write(file, &text).map_err(|error| format!("{file}: {error}"))?;
    }
    if let Some(dir) = &options.plots {
        plot::write(&report, dir.as_ref()).map_err(|error| format!("{dir}: {error}"))?;
    }
    Ok(if failed {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    })
}
