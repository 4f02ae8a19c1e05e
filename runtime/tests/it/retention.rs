//! If this fails, a long chain of incremental checkpoints fills the disk, or one of those that are kept has lost a file
//! to the retention of older ones.

use crate::restore::{INTERVAL, restored};
use crate::savepoint::{LSM, options, until_checkpoints};
use crate::world::{Bomb, Machine, checkpoints, expected_output, input, pipeline, results};
use keybed_env::{Fs, Random, fs::SimFs};
use keybed_runtime::{Backend, Checkpoints, JobOptions, Outcome};
use keybed_snapshot::{JobId, SnapshotDir, handle::total_bytes};
use std::{path::Path, sync::Arc};

fn bytes_below(fs: &SimFs, dir: &Path) -> u64 {
    let files = fs.tree().into_iter().filter(|(path, _)| path.starts_with(dir));
    files.map(|(_, bytes)| bytes.len() as u64).sum()
}

#[test]
fn d27_of_100_incremental_checkpoints_the_last_three_hold_what_they_held_and_nothing_else_is_left() {
    let input = Arc::new(input(&mut Random::from_seed(27), 3, 400));
    for (backend, other) in [(LSM, Backend::Heap), (Backend::Heap, LSM)] {
        let sim = SimFs::without_history();
        let fs: Arc<dyn Fs> = Arc::new(sim.clone());
        let machine = Machine::new(27, fs.clone());
        let job = pipeline(&input, &Bomb::default())
            .start(JobOptions {
                checkpoints: Some(Checkpoints::every(INTERVAL, "ckpt").retain(3)),
                throttle: Some(6000),
                ..options(&machine, backend, INTERVAL, 0)
            })
            .unwrap();
        until_checkpoints(&machine, &job, 100);
        job.cancel();
        assert_eq!(machine.finish(&job).unwrap().outcome, Some(Outcome::Cancelled));
        // Walks the metadata by itself: the shared files are those that the three need.
        assert_eq!(checkpoints(&*fs), 3);
        let root = Path::new("ckpt").join(JobId(7).to_string());
        let found = fs.list(&root).unwrap().into_iter().map(|entry| entry.name);
        let kept: Vec<_> = found
            .filter(|name| name.starts_with("chk-"))
            .map(|name| root.join(name))
            .collect();
        let mut state = 0;
        for path in &kept {
            let opened = SnapshotDir::open(fs.clone(), path).unwrap();
            let subtasks = opened
                .metadata()
                .operators
                .iter()
                .flat_map(|operator| &operator.subtasks);
            state = state.max(total_bytes(subtasks));
            // A disk of its own for each, so that all start from the same output.
            let image: Arc<dyn Fs> = Arc::new(sim.live_image());
            let machine = Machine::new(28, image.clone());
            let job = pipeline(&input, &Bomb::default())
                .start(restored(&machine, other, 3, Some(path)))
                .unwrap();
            assert_eq!(machine.finish(&job).unwrap().outcome, Some(Outcome::Finished));
            assert_eq!(results(&*image), expected_output(&input), "{}", path.display());
        }
        let stored = bytes_below(&sim, &root);
        assert!(
            stored < 3 * state + (64 << 10),
            "{stored} bytes for a state of {state}"
        );
    }
}
