//! Checks for fuzzers: arbitrary bytes are a program, a program with crashes, operands of a merge operator. Each says
//! whether the bytes got as far as what it is about.

use super::{
    answer::Reached,
    choice::{Bytes, Choices},
    config::{CONFIGS, Config},
    op::{Op, text},
    run::run,
};
use crate::{Append, Durability, MergeOperator, SumI64, SumU64, merge_operator::fold};

/// Operations of one program at most: longer ones reach nothing that these do not, and more slowly.
const OPERATIONS_MAX: usize = 400;

/// Crashes of one program at most.
const CRASHES_MAX: usize = 20;

fn agrees(program: &[Op], config: &Config) -> Reached {
    run(program, config).unwrap_or_else(|wrong| {
        panic!(
            "operation {}: {}\n{}{config:?}",
            wrong.at,
            wrong.what,
            text(program)
        )
    })
}

fn operations(choices: &mut Bytes<'_>) -> Vec<Op> {
    let mut program = Vec::new();
    while !choices.is_over() && program.len() < OPERATIONS_MAX {
        program.push(Op::choose(choices));
    }
    program
}

/// A configuration on the simulated disk; real files would outlive a fuzzer's abort.
fn simulated(choices: &mut Bytes<'_>, is_fit: impl Fn(&Config) -> bool) -> Config {
    let wanted = choices.below(CONFIGS);
    let mut all = (0..CONFIGS).map(|n| Config::new((wanted + n) % CONFIGS));
    all.find(|config| !config.is_real && is_fit(config))
        .expect("some configuration is simulated")
}

/// A configuration and a program: the store answers what maps answer.
pub fn engine_diff(bytes: &[u8]) -> bool {
    let mut choices = Bytes(bytes);
    let config = simulated(&mut choices, |_| true);
    let reached = agrees(&operations(&mut choices), &config);
    reached.answers > 0 && reached.flushes > 0
}

/// The same with a log, and many crashes: nothing acknowledged and durable is lost, nothing else appears.
pub fn engine_crash(bytes: &[u8]) -> bool {
    let mut choices = Bytes(bytes);
    let config = simulated(&mut choices, |config| config.durability != Durability::None);
    let every = 1 + choices.below(16) as usize;
    let mut program = Vec::new();
    let mut crashes = 0;
    for (at, op) in operations(&mut choices).into_iter().enumerate() {
        program.push(op);
        if (at + 1).is_multiple_of(every) && crashes < CRASHES_MAX {
            crashes += 1;
            program.push(Op::PowerLoss(at as u64));
        }
    }
    agrees(&program, &config).crashes > 0
}

/// Operands cut from the bytes: combining neighbours changes nothing, and what one operator refuses it refuses
/// without a panic.
pub fn merge_operator(bytes: &[u8]) -> bool {
    let mut choices = Bytes(bytes);
    let operators: [&dyn MergeOperator; 3] = [&Append, &SumI64, &SumU64];
    let operator = operators[choices.below(3) as usize];
    let count = 2 + choices.below(6) as usize;
    let join = choices.below(count as u64 - 1) as usize;
    // Nearly all operands of a sum have its width, or none would get far.
    let sizes: Vec<usize> = (0..=count)
        .map(|_| match choices.below(16) {
            0 => choices.below(40) as usize,
            _ => 8,
        })
        .collect();
    let mut rest = choices.0;
    let mut cut = |size: usize| {
        let (taken, behind) = rest.split_at(size.min(rest.len()));
        rest = behind;
        taken.to_vec()
    };
    let base = (sizes[count] != 9).then(|| cut(sizes[count]));
    let mut newest_first: Vec<Vec<u8>> = sizes[..count].iter().map(|&size| cut(size)).collect();
    let whole = fold(Some(operator), base.as_deref(), &newest_first);
    let mut both = Vec::new();
    let (newer, older) = (newest_first[join].clone(), newest_first.remove(join + 1));
    match operator.combine(&older, &newer, &mut both) {
        Ok(true) => newest_first[join] = both,
        Ok(false) => return false,
        Err(_) => {
            assert!(whole.is_err(), "operands that cannot be combined were folded");
            return false;
        }
    }
    match (whole, fold(Some(operator), base.as_deref(), &newest_first)) {
        (Ok(whole), Ok(joined)) => {
            assert_eq!(whole, joined, "combined operands do something else");
            true
        }
        (Err(_), Err(_)) => false,
        (whole, joined) => panic!("one way works, the other does not: {whole:?}, {joined:?}"),
    }
}
