//! If these fail, a checkpoint costs more than what changed, builds on files that are not there, or a damaged one is
//! taken for good.

use crate::world::{MAX_PARALLELISM, World};
use keybed_env::{SimFs, ThreadScheduler};
use keybed_format::{Code, Error};
use keybed_snapshot::{BackendKind, CheckpointId, KeyedHandle, SnapshotKind, TableHandle, key_group_of};
use keybed_state::codec::encode_key;
use std::{collections::BTreeSet, sync::Arc};

const KINDS: [BackendKind; 2] = [BackendKind::Heap, BackendKind::Lsm];

fn filled(kind: BackendKind) -> World {
    let mut world = World::new(kind, 2, 64 << 10);
    for key in 0..2000 {
        write(&mut world, key, key);
    }
    world
}

fn write(world: &mut World, key: u64, value: u64) {
    let total = world.tokens.total;
    total.set(world.at(key), &value).unwrap();
}

fn contents(handles: &[KeyedHandle]) -> BTreeSet<u128> {
    handles
        .iter()
        .flat_map(KeyedHandle::files)
        .map(|file| file.content)
        .collect()
}

#[test]
fn only_what_changed_is_written() {
    for kind in KINDS {
        let mut world = filled(kind);
        let first = world.checkpoint(1);
        assert_eq!(world.stats.files_reused, 0);
        let full_bytes = world.stats.new_bytes;
        assert_eq!(world.stats.total_bytes, full_bytes);

        write(&mut world, 7, 70_000);
        let second = world.checkpoint(2);
        assert_eq!(world.stats.files_new, 1, "{kind:?}: one subtask changed");
        assert!(
            world.stats.new_bytes * 10 < full_bytes,
            "{kind:?}: {:?}",
            world.stats
        );
        assert!(contents(&second).is_superset(&contents(&first)));

        let puts = world.files.put_count();
        let third = world.checkpoint(3);
        assert_eq!(contents(&third), contents(&second), "{kind:?}: nothing changed");
        assert_eq!((world.stats.files_new, world.stats.new_bytes), (0, 0));
        assert_eq!(world.files.put_count(), puts);
    }
}

#[test]
fn what_no_checkpoint_confirmed_is_written_again() {
    for kind in KINDS {
        let mut world = filled(kind);
        world.checkpoint(1);
        write(&mut world, 7, 70_000);
        let total = world.tokens.total;
        total.clear(world.at(8)).unwrap();
        let attempt = world.prepare(2, SnapshotKind::Checkpoint);
        let id = attempt.id;
        world.write(attempt);
        world.abort(id);
        write(&mut world, 9, 90_000);
        world.checkpoint(3);
        world.restore(3).unwrap();
        assert_eq!(total.get(world.at(7)).unwrap(), Some(70_000), "{kind:?}");
        assert_eq!(total.get(world.at(8)).unwrap(), None, "{kind:?}");
        assert_eq!(total.get(world.at(9)).unwrap(), Some(90_000), "{kind:?}");
    }
}

#[test]
fn full_checkpoints_and_savepoints_stand_alone() {
    for kind in KINDS {
        let mut world = filled(kind);
        let first = world.checkpoint(1);
        let names = |handles: &[KeyedHandle]| -> BTreeSet<_> {
            handles
                .iter()
                .flat_map(KeyedHandle::files)
                .map(|file| file.object.clone())
                .collect()
        };
        let attempt = world.prepare(2, SnapshotKind::NativeSavepoint);
        let savepoint = world.write(attempt);
        assert!(names(&savepoint).is_disjoint(&names(&first)));
        // A savepoint changes nothing about what the next checkpoint builds on.
        world
            .subtasks
            .iter_mut()
            .for_each(|state| state.notify_complete(CheckpointId(2)));
        let next = world.checkpoint(3);
        assert_eq!(names(&next), names(&first));
        let attempt = world.prepare(4, SnapshotKind::FullCheckpoint);
        let full = world.write(attempt);
        assert!(names(&full).is_disjoint(&names(&first)));
        world.complete(CheckpointId(4), full.clone());
        let next = world.checkpoint(5);
        assert_eq!(
            names(&next),
            names(&full),
            "{kind:?}: later checkpoints build on a full one"
        );
    }
}

#[test]
fn deltas_become_a_base() {
    let mut world = filled(BackendKind::Heap);
    let mut deltas = Vec::new();
    for n in 1..30 {
        write(&mut world, 7, n);
        let handles = world.checkpoint(n);
        let runs = handles
            .iter()
            .flat_map(|handle| &handle.families)
            .map(|family| family.runs.len());
        deltas.push(runs.max().unwrap() - 1);
    }
    assert_eq!(deltas[..11], [0, 1, 2, 3, 4, 5, 6, 7, 8, 0, 1]);
    for key in 0..2000 {
        write(&mut world, key, 5);
    }
    world.checkpoint(30);
    write(&mut world, 7, 6);
    let handles = world.checkpoint(31);
    assert!(
        handles.iter().all(|handle| handle.families[0].runs.len() == 1),
        "the delta was as large as the base"
    );
}

fn damage(kind: BackendKind, change: impl Fn(&World, &TableHandle)) -> Error {
    let mut world = filled(kind);
    let handles = world.checkpoint(1);
    change(
        &world,
        handles.iter().flat_map(KeyedHandle::tables).next().unwrap(),
    );
    world.restore(1).unwrap_err()
}

#[test]
fn damage_is_named_by_file_and_offset() {
    for kind in KINDS {
        for bit in [0, 8001, 100_000] {
            let error = damage(kind, |world, table| world.files.flip(&table.file.object, bit));
            assert_eq!(error.code(), Code::SnapshotCorrupt, "{kind:?}: {error}");
            assert_eq!(
                error.file().unwrap().to_str(),
                Some("object-0"),
                "{kind:?}: {error}"
            );
            assert!(error.offset().is_some(), "{kind:?}: {error}");
        }
        let error = damage(kind, |world, table| {
            let last = table.file.length as usize * 8 - 1;
            world.files.flip(&table.file.object, last);
        });
        assert_eq!(error.code(), Code::SnapshotCorrupt, "{kind:?}: {error}");
        let error = damage(kind, |world, table| world.files.remove(&table.file.object));
        assert_eq!(error.code(), Code::SnapshotIncomplete, "{kind:?}: {error}");
    }
}

#[test]
fn another_table_in_its_place_is_found() {
    for kind in KINDS {
        let mut world = filled(kind);
        let mut handles = world.checkpoint(1);
        let other = handles[1].families[0].runs[0].tables[0].file.object.clone();
        handles[0].families[0].runs[0].tables[0].file.object = other;
        world.completed = handles;
        assert_eq!(
            world.restore(1).unwrap_err().code(),
            Code::SnapshotCorrupt,
            "{kind:?}"
        );
    }
}

#[test]
fn a_snapshot_is_written_on_another_thread_while_the_job_goes_on() {
    for kind in KINDS {
        let scheduler = Arc::new(ThreadScheduler::new(1));
        let mut world = World::scheduled(Arc::new(SimFs::without_history()), scheduler, kind, 3, 16 << 10);
        let mut rounds = 0;
        for id in 1..20 {
            for key in 0..200 {
                write(&mut world, key, id);
            }
            let attempt = world.prepare(id, SnapshotKind::Checkpoint);
            let mut pending = attempt.pending.into_iter();
            let (files, total) = (&world.files, world.tokens.total);
            let handles: Vec<_> = std::thread::scope(|scope| {
                let writers: Vec<_> = pending.by_ref().map(|p| scope.spawn(|| p.write(files))).collect();
                for key in 0..200 {
                    let component = encode_key(&(key as u64));
                    let group = key_group_of(&component, MAX_PARALLELISM);
                    let mine = world
                        .subtasks
                        .iter_mut()
                        .find(|state| state.range().contains(group))
                        .unwrap();
                    mine.set_key(&component).unwrap();
                    total.set(mine, &0).unwrap();
                    rounds += 1;
                }
                writers
                    .into_iter()
                    .map(|writer| writer.join().unwrap().unwrap().handle)
                    .collect()
            });
            world.complete(CheckpointId(id), handles);
            world.restore([1, 3, 2, 7][id as usize % 4]).unwrap();
            for key in 0..200 {
                assert_eq!(total.get(world.at(key)).unwrap(), Some(id), "{kind:?}");
            }
        }
        assert_eq!(rounds, 19 * 200);
    }
}

#[test]
fn what_two_attempts_in_a_row_could_not_publish_is_put_again() {
    let objects = |handles: &[KeyedHandle]| -> BTreeSet<_> {
        handles
            .iter()
            .flat_map(KeyedHandle::files)
            .map(|file| file.object.clone())
            .collect()
    };
    for kind in KINDS {
        let mut world = filled(kind);
        let first = objects(&world.checkpoint(1));
        write(&mut world, 7, 70_000);
        let mut failed = BTreeSet::new();
        for id in 2..=3 {
            let attempt = world.prepare(id, SnapshotKind::Checkpoint);
            failed.extend(objects(&world.write(attempt)));
            world.abort(CheckpointId(id));
        }
        // The storage lost what the first of them put (a sync of the folder failed), so nothing can name it again.
        let attempt = world.prepare(4, SnapshotKind::Checkpoint);
        let fourth = objects(&world.write(attempt));
        let named_again: Vec<_> = fourth
            .intersection(&failed)
            .filter(|o| !first.contains(o))
            .collect();
        assert!(named_again.is_empty(), "{kind:?}: {named_again:?}");
    }
}

/// Changes the handles of a completed checkpoint and tries to restore them; the work directory must be untouched.
fn refused(kind: BackendKind, what: &str, change: &dyn Fn(&mut KeyedHandle)) {
    let mut world = filled(kind);
    write(&mut world, 7, 70_000);
    world.checkpoint(1);
    world.completed.iter_mut().for_each(change);
    for restored_by in KINDS {
        world.kind = restored_by;
        let error = world.restore(2).map(drop).expect_err(what);
        assert_eq!(
            error.code(),
            Code::SnapshotCorrupt,
            "{kind:?} by {restored_by:?}, {what}: {error}"
        );
    }
}

#[test]
fn handles_that_lie_are_refused() {
    for kind in KINDS {
        for next_seqno in [u64::MAX, 1 << 56, 1] {
            refused(kind, "next seqno", &|handle| handle.next_seqno = next_seqno);
        }
        refused(kind, "the same run twice in one", &|handle| {
            let tables = &mut handle.families[0].runs[0].tables;
            tables.extend_from_slice(&tables.clone());
        });
        refused(kind, "an unknown family", &|handle| {
            handle.families[0].name = "points".into();
        });
        refused(kind, "a wrong digest", &|handle| {
            handle.families[0].runs[0].tables[0].file.digest ^= 1;
        });
        refused(kind, "another content", &|handle| {
            handle.families[0].runs[0].tables[0].file.content ^= 1;
        });
        refused(kind, "another length", &|handle| {
            handle.families[0].runs[0].tables[0].file.length += 1;
        });
        refused(kind, "two digests of one content", &|handle| {
            let mut copy = handle.families[0].clone();
            copy.name = "window".into();
            copy.runs[0].tables[0].file.digest ^= 1;
            handle.families.push(copy);
        });
    }
}
