//! If this fails, a power loss at some moment of a job's life loses or doubles output, or leaves a job that cannot go
//! on.

use crate::world::{Bomb, Machine, expected_output, input, pipeline};
use keybed_env::{Random, fs::SimFs};
use keybed_format::Code;
use keybed_runtime::{Backend, Checkpoints, JobOptions, Outcome, RestartStrategy};
use keybed_snapshot::JobId;
use std::{collections::BTreeMap, sync::Arc, time::Duration};

/// Distinct images to be seen.
fn images_wanted() -> u64 {
    let usual = if std::env::var_os("KEYBED_TEST_FULL").is_some() {
        100_000
    } else {
        20_000
    };
    std::env::var("KEYBED_CRASH_IMAGES")
        .ok()
        .and_then(|n| n.parse().ok())
        .unwrap_or(usual)
}

fn options(machine: &Machine, random: &mut Random, interval_micros: u64) -> JobOptions {
    let backend = if random.one_in(2) {
        Backend::Heap
    } else {
        Backend::Lsm { memtable_bytes: 4096 }
    };
    JobOptions {
        checkpoints: Some(Checkpoints::every(Duration::from_micros(interval_micros), "ckpt").retain(2)),
        restart: Some(RestartStrategy::FixedDelay {
            attempts: 3,
            delay: Duration::from_micros(10),
        }),
        ..machine.options(JobId(7), 1 + random.below(2) as u32, backend)
    }
}

#[test]
fn every_image_of_a_power_loss_goes_on_to_the_same_output() {
    let wanted = images_wanted();
    let (mut distinct, mut seed) = (0, 0);
    // Images by the checkpoint that they went on from.
    let mut restored: BTreeMap<String, u64> = BTreeMap::new();
    while distinct < wanted {
        seed += 1;
        let mut random = Random::from_seed(seed);
        let orders = 10 + random.index(60);
        let input = Arc::new(input(&mut random, 2, orders));
        let expected = expected_output(&input);
        let fs = SimFs::new();
        let machine = Machine::new(seed, Arc::new(fs.clone()));
        let bomb = Bomb::default();
        if random.one_in(3) {
            bomb.arm(1 + random.below(orders as u64));
        }
        let interval = 150 + random.below(700);
        // Slow enough for some checkpoints before the end of the input.
        let throttle = Some(10_000 + random.below(40_000));
        let options = JobOptions {
            throttle,
            ..options(&machine, &mut random, interval)
        };
        let job = pipeline(&input, &bomb).start(options).unwrap();
        machine
            .finish(&job)
            .unwrap_or_else(|e| panic!("seed {seed}: {e}"));
        assert_eq!(machine.output(), expected, "seed {seed}");
        let mut choice = random.fork();
        distinct += fs.each_crash_image(3, &mut choice, |at, image| {
            let machine = Machine::new(seed * 1000 + at, Arc::new(image.clone()));
            let what = resume(&machine, &mut random, &input, &expected);
            let what = what.unwrap_or_else(|e| panic!("seed {seed}, image at operation {at}: {e}"));
            *restored.entry(what).or_default() += 1;
        });
    }
    println!("{distinct} images of {seed} runs, by what was restored: {restored:?}");
    let (nothing, all) = (
        restored.get("None").copied().unwrap_or_default(),
        restored.values().sum::<u64>(),
    );
    assert!(
        restored.len() > 5 && nothing * 2 < all,
        "too many images before the first checkpoint: {restored:?}"
    );
}

/// Goes on from an image; what it went on from.
fn resume(
    machine: &Machine,
    random: &mut Random,
    input: &Arc<crate::world::Input>,
    expected: &BTreeMap<String, String>,
) -> Result<String, String> {
    let options = options(machine, random, 500);
    let job = match pipeline(input, &Bomb::default()).start(options) {
        Ok(job) => job,
        Err(e) if e.code() == Code::InvalidArgument && e.message().starts_with("the job is finished") => {
            let mut found = machine.output();
            // What was only kept for a repetition may still lie there.
            found.retain(|name, _| name != "parts" && name != ".pending");
            return if found == *expected {
                Ok("finished".into())
            } else {
                Err(format!("finished with {found:?}"))
            };
        }
        Err(e) => return Err(e.to_string()),
    };
    let report = machine.finish(&job).map_err(|e| e.to_string())?;
    if report.outcome != Some(Outcome::Finished) || report.attempts != 1 {
        return Err(format!(
            "{report:?}\n{}",
            machine.events.lock().unwrap().join("\n")
        ));
    }
    let found = machine.output();
    if found != *expected {
        return Err(format!("found {found:?}, expected {expected:?}"));
    }
    let events = machine.events.lock().unwrap();
    let restored = events
        .iter()
        .find_map(|e| e.split("restored: ").nth(1)?.split(", offsets").next());
    Ok(restored.unwrap_or_default().to_owned())
}
