//! If this fails, a restore without the old output loses rows silently, is impossible, or gives rows that it should not.

use crate::{
    restore::{INTERVAL, restored},
    savepoint::{FORMATS, LSM, ask, options, orders, outcome, remove},
    world::{Bomb, Machine, expected_output, pipeline, results},
};
use keybed_env::{Fs, fs::SimFs};
use keybed_format::Code;
use keybed_runtime::{Backend, JobOptions, Outcome, Restore};
use keybed_snapshot::SnapshotDir;
use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    sync::Arc,
};

/// The lines of all parts that a snapshot names, read without the sink.
fn named_lines(fs: &dyn Fs, snapshot: &Path, fs_of: &Arc<dyn Fs>) -> (u64, Vec<String>) {
    let opened = SnapshotDir::open(fs_of.clone(), snapshot).unwrap();
    let subtasks = opened.metadata().operators.iter().flat_map(|o| &o.subtasks);
    let lists = subtasks.flat_map(|s| &s.operator).filter(|o| o.name == "parts");
    let (mut parts, mut lines) = (0, Vec::new());
    for item in lists.flat_map(|o| &o.items) {
        let name = std::str::from_utf8(&item[1..=usize::from(item[0])]).unwrap();
        let bytes = ["parts", ".pending"]
            .iter()
            .find_map(|folder| fs.read(&Path::new("out").join(folder).join(name), 1 << 20).ok());
        parts += 1;
        lines.extend(
            String::from_utf8(bytes.unwrap())
                .unwrap()
                .lines()
                .map(str::to_owned),
        );
    }
    (parts, lines)
}

#[test]
fn with_leave_what_was_lost_is_dropped_and_the_rest_is_exact() {
    for seed in 0..6 {
        for (backend, format) in [Backend::Heap, LSM]
            .into_iter()
            .flat_map(|b| FORMATS.map(|f| (b, f)))
        {
            let input = orders(seed);
            let fs: Arc<dyn Fs> = Arc::new(SimFs::without_history());
            let machine = Machine::new(seed, fs.clone());
            let job = pipeline(&input, &Bomb::default())
                .start(options(&machine, backend, INTERVAL, 0))
                .unwrap();
            machine
                .scheduler
                .run_until(|| job.status().source_records > 90 + seed * 10, 1_000_000);
            let savepoint = outcome(&machine, &ask(&job, format)).unwrap().location;
            let (parts, lost) = named_lines(&*fs, &savepoint, &fs);
            assert!(parts > 0, "seed {seed}");
            job.cancel();
            machine.finish(&job).unwrap();
            remove(&*fs, Path::new("out"));

            let machine = Machine::new(100 + seed, fs.clone());
            let refused = restored(&machine, backend, 2, Some(&savepoint));
            let error = pipeline(&input, &Bomb::default()).start(refused).map(|_| ());
            assert_eq!(error.unwrap_err().code(), Code::TransactionLost);
            let bomb = Bomb::default();
            let mut accepted: JobOptions = restored(&machine, backend, 3, Some(&savepoint));
            accepted.restore = accepted.restore.map(Restore::accept_lost_transactions);
            let job = pipeline(&input, &bomb).start(accepted).unwrap();
            // Once more, from the savepoint or from a checkpoint.
            bomb.arm(1 + seed * 5);
            assert_eq!(machine.finish(&job).unwrap().outcome, Some(Outcome::Finished));
            let lost: BTreeSet<String> = lost.into_iter().collect();
            let expected: BTreeMap<String, String> = expected_output(&input)
                .into_iter()
                .map(|(name, text)| {
                    let kept = text.lines().filter(|line| !lost.contains(*line));
                    (name, kept.map(|line| format!("{line}\n")).collect())
                })
                .collect();
            assert_eq!(results(&*fs), expected, "seed {seed}");
            assert_ne!(expected, expected_output(&input));
            let events = machine.events.lock().unwrap();
            let told = format!("parts: {parts}, lines: {}", lost.len());
            assert!(
                events
                    .iter()
                    .any(|e| e.starts_with("TransactionsLost") && e.contains(&told)),
                "{told}: {events:?}"
            );
        }
    }
}
