//! Making a failing program short.

use super::{
    answer::{Disagreement, Reached},
    config::Config,
    op::Op,
    run::run,
};
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Attempts after which a program is as short as it gets.
const ATTEMPTS_MAX: usize = 400;

/// Leaves out operations of a program that fails under `config` as long as it still fails, halves first, then
/// smaller pieces (delta debugging, Zeller 1999). Returns what is left and how it fails.
pub fn reduce(mut program: Vec<Op>, config: &Config) -> (Vec<Op>, String) {
    let mut why = fails(&program, config).unwrap_or_else(|| "it does not fail a second time".to_owned());
    let mut piece = program.len().div_ceil(2);
    let mut attempts = 0;
    while piece > 0 && attempts < ATTEMPTS_MAX {
        let mut at = 0;
        let mut shortened = false;
        while at < program.len() && attempts < ATTEMPTS_MAX {
            attempts += 1;
            let end = (at + piece).min(program.len());
            let shorter: Vec<Op> = [&program[..at], &program[end..]].concat();
            match fails(&shorter, config) {
                Some(reason) => (program, why, shortened) = (shorter, reason, true),
                None => at = end,
            }
        }
        if !shortened {
            piece /= 2;
        }
    }
    (program, why)
}

/// How a program fails, if it does; a panic of the engine is a failure, too.
fn fails(program: &[Op], config: &Config) -> Option<String> {
    let result = catch_unwind(AssertUnwindSafe(|| run(program, config)));
    match result {
        Ok(Ok(Reached { .. })) => None,
        Ok(Err(Disagreement { at, what })) => Some(format!("operation {at}: {what}")),
        Err(panic) => {
            let text = panic.downcast_ref::<String>().map(String::as_str);
            Some(format!(
                "panic: {}",
                text.or(panic.downcast_ref::<&str>().copied()).unwrap_or("?")
            ))
        }
    }
}
