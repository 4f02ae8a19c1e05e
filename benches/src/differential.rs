//! Random programs of the common operations on keybed and on RocksDB: every answer must be equal.
//!
//! | file | idea |
//! |---|---|
//! | `draw` | seeds to keys, values and configurations |
//! | `pair` | one store of each kind, and every operation on both |
//! | `walk` | iterators and cursors on both, step by step |
//!
//! A program is a seed: `benches/run differential --programs 1 --seed S` repeats it.

mod draw;
mod pair;
mod walk;

use crate::arguments::positive;
use pair::Pair;
use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    process::ExitCode,
};

/// Programs of a run.
const PROGRAMS: u64 = 100;
/// Operations of a program.
const OPERATIONS: u64 = 1000;

pub fn run(words: &[String]) -> Result<ExitCode, String> {
    let (mut programs, mut operations, mut seed) = (PROGRAMS, OPERATIONS, 1);
    for pair in words.chunks(2) {
        let [flag, value] = pair else {
            return Err(format!("{}: unknown, or its value is missing", pair.concat()));
        };
        match flag.as_str() {
            "--programs" => programs = positive(value)?,
            "--operations" => operations = positive(value)?,
            "--seed" => seed = positive(value)?,
            other => return Err(format!("{other}: unknown")),
        }
    }
    println!("differential: {programs} programs of {operations} operations, from seed {seed}");
    let mut counts = pair::Counts::default();
    for seed in seed..seed + programs {
        let dir = tempfile::tempdir().map_err(|error| error.to_string())?;
        let mut pair = Pair::open(dir.path(), seed);
        let outcome = catch_unwind(AssertUnwindSafe(|| {
            (0..operations).for_each(|_| pair.step());
            pair.finish();
        }));
        if outcome.is_err() {
            println!("seed {seed} FAILED ({}); repeat it with", pair.describe());
            println!("  benches/run differential --programs 1 --operations {operations} --seed {seed}");
            return Ok(ExitCode::FAILURE);
        }
        counts.add(pair.counts());
    }
    println!("{counts}");
    println!("{} operations, all answers equal", programs * operations);
    Ok(ExitCode::SUCCESS)
}
