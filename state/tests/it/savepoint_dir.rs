//! If these fail, a canonical savepoint does not survive being moved away from the job that took it.

use crate::world::{MAX_PARALLELISM, OPERATOR, World};
use keybed_env::{
    Fs, SimFs,
    random::{Ids, Random},
};
use keybed_snapshot::{
    BackendKind, Birth, CheckpointId, Generation, JobId, Metadata, OperatorSnapshot, OperatorUid, RootId,
    SavepointTarget, SnapshotDir, SnapshotKind, SubtaskIndex, SubtaskState, rescale, verify,
};
use keybed_state::{BackendOptions, KeyedState, processor::logical_digest};
use std::{collections::BTreeMap, path::Path, sync::Arc};

#[test]
fn a_moved_directory_is_restored_by_the_other_backend_at_another_parallelism() {
    for (from, to) in [
        (BackendKind::Lsm, BackendKind::Heap),
        (BackendKind::Heap, BackendKind::Lsm),
    ] {
        let mut world = World::new(from, 3, 16 << 10);
        let t = world.tokens;
        for key in 0..500 {
            let state = world.at(key);
            t.total.set(state, &key).unwrap();
            t.recent.push(state, &format!("event {key}")).unwrap();
            state.register_timer((key * 7 % 100) as i64, &[]).unwrap();
        }
        let checkpoint = world.checkpoint(1);
        let digest = world.digest(&checkpoint);

        let disk = SimFs::without_history();
        let (generation, checkpoint) = (Generation(1), CheckpointId(2));
        let birth = Birth {
            generation,
            checkpoint,
        };
        let target = SavepointTarget::new(Arc::new(disk.clone()), "/savepoints");
        let writer = target
            .begin(JobId(7), birth, Ids::Seeded(Random::from_seed(1)))
            .unwrap();
        let attempt = world.prepare(2, SnapshotKind::CanonicalSavepoint);
        let subtasks = (0..).zip(attempt.pending).map(|(index, pending)| SubtaskState {
            keyed: Some(pending.write(&*writer).unwrap().handle),
            ..SubtaskState::empty(SubtaskIndex(index))
        });
        let metadata = Metadata {
            job: JobId(7),
            root: RootId(8),
            generation,
            checkpoint,
            kind: SnapshotKind::CanonicalSavepoint,
            timestamp_ms: 0,
            externals: Vec::new(),
            operators: vec![OperatorSnapshot {
                uid: OperatorUid::new(OPERATOR).unwrap(),
                parallelism: 3,
                max_parallelism: MAX_PARALLELISM,
                catalogue: (*world.catalogue).clone(),
                subtasks: subtasks.collect(),
            }],
            properties: BTreeMap::new(),
        };
        writer.publish(&metadata).unwrap();
        let elsewhere = Path::new("/somewhere else");
        disk.rename(writer.directory(), elsewhere).unwrap();
        drop(world);

        let moved = SnapshotDir::open(Arc::new(disk.clone()), elsewhere).unwrap();
        assert_eq!(*moved.metadata(), metadata);
        verify(moved.metadata(), &moved).verdict().unwrap();
        let operator = &moved.metadata().operators[0];
        let handles: Vec<_> = operator.subtasks.iter().filter_map(|s| s.keyed.clone()).collect();
        assert_eq!(
            logical_digest(OPERATOR, &operator.catalogue, &handles, &moved).unwrap(),
            digest
        );
        let mut fired = 0;
        for part in rescale(&operator.subtasks, MAX_PARALLELISM, 2).unwrap() {
            let options = BackendOptions {
                kind: to,
                fs: Arc::new(SimFs::without_history()),
                ..BackendOptions::heap("/work")
            };
            let catalogue = Arc::new(operator.catalogue.clone());
            let mut state = KeyedState::restore(
                options,
                part.range,
                MAX_PARALLELISM,
                catalogue,
                &part.keyed,
                &moved,
            )
            .unwrap();
            while let Some(timer) = state.pop_due(49).unwrap() {
                let key = u64::from_be_bytes((*timer.key).try_into().unwrap());
                assert_eq!(timer.time, (key * 7 % 100) as i64);
                assert_eq!(t.total.get(&mut state).unwrap(), Some(key));
                fired += 1;
            }
        }
        assert_eq!(fired, 250, "{from:?} to {to:?}");
    }
}
