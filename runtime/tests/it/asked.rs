//! If this fails, whoever asks a running job for a checkpoint gets an older one, or a full one leans on other files.

use crate::{
    savepoint::{LSM, options, orders, until_checkpoints},
    world::{Bomb, Machine, checkpoints, expected_output, pipeline},
};
use keybed_env::{Fs, fs::SimFs};
use keybed_format::Result;
use keybed_runtime::{Backend, CheckpointScope, CheckpointTicket, JobState, Outcome};
use keybed_snapshot::{CheckpointId, JobId, Metadata, SnapshotDir, SnapshotKind, verify};
use std::{collections::BTreeSet, path::Path, sync::Arc, time::Duration};

fn outcome(machine: &Machine, ticket: &CheckpointTicket) -> Result<CheckpointId> {
    let known = machine
        .scheduler
        .run_until(|| ticket.outcome().is_some(), 1_000_000);
    assert!(known, "seed {}: no outcome", machine.seed);
    ticket.outcome().unwrap()
}

fn open(fs: &Arc<dyn Fs>, id: CheckpointId) -> SnapshotDir {
    let dir = Path::new("ckpt")
        .join(JobId(7).to_string())
        .join(format!("chk-{id}"));
    let opened = SnapshotDir::open(fs.clone(), &dir).unwrap();
    verify(opened.metadata(), &opened).verdict().unwrap();
    opened
}

fn objects(metadata: &Metadata) -> BTreeSet<String> {
    metadata.files().map(|f| f.object.to_string()).collect()
}

#[test]
fn a_full_checkpoint_names_no_file_of_another_one_and_later_ones_build_on_it() {
    for backend in [Backend::Heap, LSM] {
        let input = orders(5);
        let fs: Arc<dyn Fs> = Arc::new(SimFs::without_history());
        let machine = Machine::new(5, fs.clone());
        let options = options(&machine, backend, Duration::from_secs(3600), 0);
        let job = pipeline(&input, &Bomb::default()).start(options).unwrap();
        machine
            .scheduler
            .run_until(|| job.status().source_records > 60, 1_000_000);
        let ask = |scope| open(&fs, outcome(&machine, &job.request_checkpoint(scope)).unwrap());
        let first = ask(CheckpointScope::Configured);
        let full = ask(CheckpointScope::Full);
        assert_eq!(full.metadata().kind, SnapshotKind::FullCheckpoint);
        assert!(objects(first.metadata()).is_disjoint(&objects(full.metadata())));
        let next = ask(CheckpointScope::Configured);
        assert_eq!(next.metadata().kind, SnapshotKind::Checkpoint);
        if backend == LSM {
            assert!(!objects(next.metadata()).is_disjoint(&objects(full.metadata())));
        }
        let report = machine.finish(&job).unwrap();
        assert_eq!(
            (report.outcome, report.state),
            (Some(Outcome::Finished), JobState::Finished)
        );
        assert_eq!(machine.output(), expected_output(&input));
        assert_eq!(checkpoints(&*fs), 2);
    }
}

#[test]
fn whoever_asks_while_a_checkpoint_is_under_way_gets_a_later_one() {
    let input = orders(6);
    let fs: Arc<dyn Fs> = Arc::new(SimFs::without_history());
    let machine = Machine::new(6, fs);
    let options = options(&machine, LSM, Duration::from_millis(2), 0);
    let job = pipeline(&input, &Bomb::default()).start(options).unwrap();
    until_checkpoints(&machine, &job, 1);
    let first = job.handle().request_checkpoint(CheckpointScope::Configured);
    let triggered = || {
        let events = machine.events.lock().unwrap();
        events.iter().any(|e| e.contains("Manual"))
    };
    assert!(machine.scheduler.run_until(triggered, 100_000));
    assert!(first.outcome().is_none());
    let second = job.request_checkpoint(CheckpointScope::Configured);
    let first = outcome(&machine, &first).unwrap();
    assert!(second.outcome().is_none(), "{:?}", second.outcome());
    assert!(outcome(&machine, &second).unwrap() > first);
    machine.finish(&job).unwrap();
}
