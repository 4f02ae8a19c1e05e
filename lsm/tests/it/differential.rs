//! Without this an option, or two mechanisms together, could change what a store answers: the same random programs
//! run under fifty configurations, each compared with maps.

use keybed_lsm::differential::{CONFIGS, Config, Reached, reduce, run, seeded, text};

/// Operations of all configurations together.
const OPERATIONS: u64 = 100_000;

fn agree(seeds: std::ops::Range<u64>, configs: std::ops::Range<u64>, length: usize) -> Reached {
    let mut total = Reached::default();
    for seed in seeds {
        let program = seeded(seed, length);
        for number in configs.clone() {
            let config = Config::new(number);
            match run(&program, &config) {
                Ok(reached) => total = total.plus(reached),
                Err(first) => {
                    let (short, why) = reduce(program[..=first.at.min(length - 1)].to_vec(), &config);
                    panic!(
                        "seed {seed}, configuration {number}, operation {}: {}\n\
                         {} operations are left: {why}\n{}\n{config:?}",
                        first.at,
                        first.what,
                        short.len(),
                        text(&short)
                    );
                }
            }
        }
    }
    total
}

#[test]
fn all_configurations_agree_on_every_operation() {
    let length = 1000;
    let seeds = OPERATIONS * crate::support::scale(1) / CONFIGS / length as u64;
    let reached = agree(0..seeds, 0..CONFIGS, length);
    println!("{} operations agreed: {reached:?}", reached.operations);
    // The programs must have reached every part of the store, in nearly every configuration.
    assert_eq!(reached.operations, seeds * CONFIGS * length as u64);
    assert!(reached.answers > 20_000 && reached.flushes > 2_000, "{reached:?}");
    assert!(
        reached.compactions > 1_000 && reached.reopened > 500,
        "{reached:?}"
    );
    assert!(reached.crashes > 500 && reached.lost_writes > 500, "{reached:?}");
    assert!(reached.expired > 2_000, "{reached:?}");
}
