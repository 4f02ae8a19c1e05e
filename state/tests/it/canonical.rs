//! If these fail, a canonical savepoint loses state on its way to the other backend, takes unbounded memory, or is
//! restored although somebody changed it.

use crate::{
    files::TestFiles,
    world::{MAX_PARALLELISM, OPERATOR, World},
};
use keybed_env::{Random, SimFs};
use keybed_format::{Code, Cursor, Error, Result, Sink};
use keybed_snapshot::{
    BackendKind, CheckpointId, FileHandle, KeyGroupRange, KeyedHandle, Schema, SnapshotKind, SnapshotRequest,
    StateCatalogue,
};
use keybed_state::{
    BackendOptions, KeyCodec, KeyedState, StateRegistry, catalogue,
    codec::encode_key,
    processor::{LogicalEntry, logical_digest, read_entries},
};
use std::sync::Arc;

const KINDS: [BackendKind; 2] = [BackendKind::Heap, BackendKind::Lsm];

/// Every kind of state, lists of several chunks, windows and timers.
fn filled(kind: BackendKind, parallelism: u32, keys: u64, memtable_bytes: usize) -> World {
    let mut world = World::new(kind, parallelism, memtable_bytes);
    let t = world.tokens;
    let mut random = Random::from_seed(keys);
    for key in 0..keys {
        let many = if key % 50 == 3 { 300 } else { key % 4 };
        let state = world.at(key);
        t.total.set(state, &(key * key)).unwrap();
        for n in 0..many {
            t.recent.push(state, &"element ".repeat(n as usize % 9)).unwrap();
        }
        for n in 0..key % 3 {
            t.by_sku.put(state, &format!("sku-{n}"), &(n as i32)).unwrap();
        }
        for _ in 0..key % 5 {
            let window = random.below(7) as i64 - 3;
            state.set_namespace(&encode_key(&window));
            t.in_window.set(state, &random.below(100)).unwrap();
            t.window_skus
                .put(state, &format!("w{}", random.below(3)), &(window as i32))
                .unwrap();
            let namespace = if window % 2 == 0 {
                encode_key(&window)
            } else {
                Vec::new()
            };
            state
                .register_timer(random.below(1000) as i64 - 500, &namespace)
                .unwrap();
        }
        if key % 7 == 0 {
            t.total.clear(state).unwrap();
            t.recent.clear(state).unwrap();
        }
    }
    world
}

fn savepoint(world: &mut World, id: u64) -> Vec<KeyedHandle> {
    let attempt = world.prepare(id, SnapshotKind::CanonicalSavepoint);
    world.write(attempt)
}

fn files(handles: &[KeyedHandle]) -> Vec<FileHandle> {
    handles.iter().flat_map(KeyedHandle::files).cloned().collect()
}

fn bytes(world: &World, handles: &[KeyedHandle]) -> Vec<Vec<u8>> {
    files(handles)
        .iter()
        .map(|file| world.files.bytes(&file.object))
        .collect()
}

#[test]
fn from_backend_to_backend_and_back_the_files_are_the_same_to_the_byte() {
    for first in KINDS {
        let mut world = filled(first, 3, 700, 16 << 10);
        let checkpoint = world.checkpoint(1);
        let digest = world.digest(&checkpoint);
        let canonical = savepoint(&mut world, 2);
        let original = bytes(&world, &canonical);
        assert_eq!(original.len(), 3);
        assert_eq!(world.digest(&canonical), digest);
        for (id, kind) in (3..).zip([KINDS[0], KINDS[1], KINDS[0], KINDS[1]]) {
            world.kind = kind;
            world.completed = savepoint(&mut world, id);
            assert_eq!(
                bytes(&world, &world.completed),
                original,
                "{first:?}, before {kind:?}"
            );
            world.restore(3).unwrap();
        }
        for (id, parallelism) in (10..).zip([1, 3, 2, 7, 16, 3]) {
            world.kind = KINDS[id as usize % 2];
            world.completed = savepoint(&mut world, id);
            assert_eq!(world.digest(&world.completed), digest);
            world.restore(parallelism).unwrap();
        }
        let again = savepoint(&mut world, 20);
        assert_eq!(bytes(&world, &again), original, "rescaled there and back");
    }
}

#[test]
fn a_restored_job_goes_on_with_lists_maps_windows_and_timers() {
    for (from, to) in [(KINDS[0], KINDS[1]), (KINDS[1], KINDS[0])] {
        let mut world = filled(from, 2, 200, 16 << 10);
        let t = world.tokens;
        let lists: Vec<_> = (0..200).map(|key| t.recent.get(world.at(key)).unwrap()).collect();
        world.completed = savepoint(&mut world, 1);
        let mut twin = filled(from, 5, 200, 16 << 10);
        world.kind = to;
        world.restore(5).unwrap();
        for (key, expected) in (0..).zip(lists) {
            assert_eq!(t.recent.get(world.at(key)).unwrap(), expected);
            for other in [&mut world, &mut twin] {
                let state = other.at(key);
                t.recent.push(state, &"new".repeat(500)).unwrap();
                t.total.update(state, |old| old.unwrap_or(5) + 1).unwrap();
                t.by_sku.remove(state, &"sku-0".into()).unwrap();
            }
        }
        for (a, b) in world.subtasks.iter_mut().zip(&mut twin.subtasks) {
            loop {
                let fired = a.pop_due(0).unwrap();
                assert_eq!(fired, b.pop_due(0).unwrap());
                if fired.is_none() {
                    break;
                }
            }
            assert_eq!(
                (a.timer_count(), a.next_timer_time()),
                (b.timer_count(), b.next_timer_time())
            );
        }
        let (a, b) = (savepoint(&mut world, 2), savepoint(&mut twin, 2));
        assert_eq!(bytes(&world, &a), bytes(&twin, &b));
        // Nothing of a canonical savepoint is referenced by the checkpoints that follow.
        let checkpoint = world.checkpoint(3);
        assert_eq!(world.stats.files_reused, 0);
        assert_eq!(world.digest(&checkpoint), world.digest(&a));
        world.restore(3).unwrap();
        let last = world.checkpoint(4);
        assert_eq!(world.digest(&last), world.digest(&a));
    }
}

#[test]
fn what_is_written_is_the_moment_of_the_barrier() {
    for kind in KINDS {
        let mut world = filled(kind, 2, 300, 16 << 10);
        let before = world.checkpoint(1);
        let attempt = world.prepare(2, SnapshotKind::CanonicalSavepoint);
        let t = world.tokens;
        for key in 0..300 {
            let state = world.at(key);
            t.total.set(state, &1).unwrap();
            t.recent.clear(state).unwrap();
            while state.pop_due(i64::MAX).unwrap().is_some() {}
        }
        let handles = world.write(attempt);
        assert_eq!(world.digest(&handles), world.digest(&before), "{kind:?}");
        // A savepoint changes nothing about what the next checkpoint builds on.
        world
            .subtasks
            .iter_mut()
            .for_each(|s| s.notify_complete(CheckpointId(2)));
        let after = world.checkpoint(3);
        world.restore(1).unwrap();
        let restored = world.checkpoint(4);
        assert_eq!(world.digest(&restored), world.digest(&after), "{kind:?}");
    }
}

#[test]
fn a_key_group_larger_than_the_sort_bound_is_sorted_on_disk() {
    const BOUND: usize = 8 << 10;
    for kind in KINDS {
        let fill = |memtable_bytes| {
            let mut world = World::new(kind, 1, memtable_bytes);
            for n in 0..3000_i64 {
                let state = world.at(7); // one key, so one key group
                state.register_timer(n * 37 % 3001, &[]).unwrap();
            }
            world
        };
        let mut world = fill(BOUND);
        world.completed = savepoint(&mut world, 1);
        let stats = world.stats;
        assert!(
            stats.sort_bytes_max <= BOUND as u64 && stats.sort_bytes_max > BOUND as u64 / 2,
            "{stats:?}"
        );
        assert!(stats.sort_files > 5, "{stats:?}");
        let mut in_memory = fill(4 << 20);
        let handles = savepoint(&mut in_memory, 1);
        assert_eq!(in_memory.stats.sort_files, 0);
        assert_eq!(bytes(&world, &world.completed), bytes(&in_memory, &handles));
        for kind in KINDS {
            world.kind = kind;
            world.restore(1).unwrap();
            assert_eq!(world.subtasks[0].timer_count(), 3000);
            let again = savepoint(&mut world, 2);
            assert_eq!(bytes(&world, &again), bytes(&in_memory, &handles));
        }
    }
}

#[test]
fn a_subtask_reads_its_own_key_groups_only() {
    let mut world = World::new(BackendKind::Heap, 1, 1 << 20);
    let mut random = Random::from_seed(5);
    let by_sku = world.tokens.by_sku;
    for key in 0..60_000 {
        let name: String = (0..120)
            .map(|_| char::from(b'a' + random.below(26) as u8))
            .collect();
        by_sku.put(world.at(key), &name, &(key as i32)).unwrap();
    }
    world.completed = savepoint(&mut world, 1);
    let whole = world.stats.total_bytes;
    assert!(whole > 5 << 20, "{whole}");
    for kind in KINDS {
        world.kind = kind;
        world.files.take_bytes_read();
        world.restore(16).unwrap();
        let read = world.files.take_bytes_read();
        // Each the MiBs of head, foot and its own groups, some of them shared with its neighbours; and its own bytes.
        assert!(read < 16 * (4 << 20) + 2 * whole, "{read} of {whole}");
    }
}

#[test]
fn canonical_files_and_tables_of_one_snapshot_are_restored_together() {
    for kind in KINDS {
        let mut world = filled(kind, 3, 300, 16 << 10);
        let checkpoint = world.checkpoint(1);
        let digest = world.digest(&checkpoint);
        let canonical = savepoint(&mut world, 2);
        // A subtask that had finished before carries its tables on.
        let mixed = vec![canonical[0].clone(), checkpoint[1].clone(), canonical[2].clone()];
        assert_eq!(world.digest(&mixed), digest);
        for restored_by in KINDS {
            for parallelism in [1, 2, 5] {
                world.kind = restored_by;
                world.completed.clone_from(&mixed);
                world.restore(parallelism).unwrap();
                let next = world.checkpoint(3);
                assert_eq!(world.digest(&next), digest, "{kind:?} by {restored_by:?}");
                world.restore(2).unwrap();
                let last = world.checkpoint(4);
                assert_eq!(world.digest(&last), digest, "{kind:?} by {restored_by:?}");
            }
        }
    }
}

/// A window that counts backwards, encoded by the program: nobody else knows where it ends.
#[derive(Clone, Copy)]
struct Backwards(u16);

impl KeyCodec for Backwards {
    fn encode_key(&self, out: &mut Sink) {
        (!self.0).encode_key(out);
    }

    fn decode_key(input: &mut Cursor<'_>) -> Result<Self> {
        u16::decode_key(input).map(|n| Backwards(!n))
    }

    fn key_schema() -> Schema {
        Schema::opaque("backwards")
    }
}

#[test]
fn windows_of_the_programs_own_codec_and_dropped_states_travel_too() {
    let open = |states: &mut StateRegistry| {
        let kept = (
            states.window_list::<Backwards, String>("own")?,
            states.window_map::<(String, Option<u8>), String, u64>("built-in")?,
        );
        Ok((kept, states.value::<u64>("dropped")?))
    };
    let ((kept, dropped), catalogue) =
        catalogue::open(&u64::key_schema(), &StateCatalogue::new(), open).unwrap();
    let (files, fs) = (TestFiles::default(), Arc::new(SimFs::without_history()));
    let all = KeyGroupRange::all(8).unwrap();
    let options = |kind, n: u32| BackendOptions {
        kind,
        fs: fs.clone(),
        memtable_bytes: 4 << 10,
        ..BackendOptions::heap(format!("/work/{n}"))
    };
    let mut state = KeyedState::create(options(KINDS[0], 0), all, 8, catalogue.clone()).unwrap();
    for n in 0..400_u64 {
        state.set_key(&encode_key(&(n % 50))).unwrap();
        dropped.set(&mut state, &n).unwrap();
        state.set_namespace(&encode_key(&Backwards(n as u16 % 7)));
        kept.0.push(&mut state, &"text ".repeat(n as usize % 70)).unwrap();
        state.set_namespace(&encode_key(&(format!("w\0{}", n % 3), Some(n as u8 % 2))));
        kept.1.put(&mut state, &format!("{}", n % 11), &n).unwrap();
    }
    let mut without = (*catalogue).clone();
    without.drop_state("dropped");
    let mut seen = Vec::new();
    for (n, kind) in (1_u32..).zip([KINDS[1], KINDS[0], KINDS[1]]) {
        let request = SnapshotRequest {
            checkpoint: CheckpointId(u64::from(n)),
            kind: SnapshotKind::CanonicalSavepoint,
            timestamp_ms: 0,
        };
        let handle = state.prepare(&request).unwrap().write(&files).unwrap().handle;
        let digest = logical_digest(OPERATOR, &without, std::slice::from_ref(&handle), &files).unwrap();
        let file = handle.files().next().unwrap();
        seen.push((digest, files.bytes(&file.object)));
        let states = Arc::new(without.clone());
        state = KeyedState::restore(
            options(kind, n),
            all,
            8,
            states,
            std::slice::from_ref(&handle),
            &files,
        )
        .unwrap();
        let wrong = KeyedState::restore(options(kind, 9), all, 16, catalogue.clone(), &[handle], &files);
        assert_eq!(wrong.unwrap_err().code(), Code::SnapshotCorrupt);
    }
    assert_eq!(seen[0].0, seen[1].0);
    assert!(seen[1].1.len() < seen[0].1.len(), "what was dropped is gone");
    assert_eq!(seen[1], seen[2]);
    state.set_key(&encode_key(&7_u64)).unwrap();
    state.set_namespace(&encode_key(&Backwards(0)));
    assert_eq!(
        kept.0.get(&mut state).unwrap(),
        ["text ".repeat(7), "text ".repeat(7)]
    );
}

fn expect_named(error: &Error, what: &str) {
    assert_eq!(error.code(), Code::SnapshotCorrupt, "{what}: {error}");
    assert!(error.file().is_some(), "{what}: {error}");
    assert!(error.offset().is_some(), "{what}: {error}");
}

#[test]
fn every_flipped_bit_and_every_truncation_is_named_by_file_and_offset() {
    let mut world = filled(BackendKind::Heap, 1, 40, 16 << 10);
    world.completed = savepoint(&mut world, 1);
    let object = files(&world.completed)[0].object.clone();
    let good = world.files.bytes(&object);
    let mut random = Random::from_seed(1);
    let bits = good.len() * 8;
    let all = (0..bits).step_by(bits / 1500).chain(bits - 8 * 80..bits);
    for bit in all {
        let mut bad = good.clone();
        bad[bit / 8] ^= 1 << (bit % 8);
        world.files.replace(&object, bad);
        let read = logical_digest(OPERATOR, &world.catalogue, &world.completed, &world.files);
        expect_named(&read.unwrap_err(), &format!("bit {bit}"));
        if random.one_in(40) {
            world.kind = KINDS[random.index(2)];
            expect_named(&world.restore(2).unwrap_err(), &format!("bit {bit}"));
        }
    }
    for length in (0..good.len()).step_by(97).chain([good.len() - 1]) {
        world.files.replace(&object, good[..length].to_vec());
        let read = logical_digest(OPERATOR, &world.catalogue, &world.completed, &world.files);
        expect_named(&read.unwrap_err(), &format!("{length} bytes"));
    }
    world.files.replace(&object, [good.as_slice(), b"!"].concat());
    expect_named(&world.restore(1).unwrap_err(), "a byte appended");
    world.files.remove(&object);
    assert_eq!(world.restore(1).unwrap_err().code(), Code::SnapshotIncomplete);
}

#[test]
fn handles_that_lie_about_canonical_files_are_refused() {
    type Lie = fn(&mut Vec<KeyedHandle>);
    let cases: [(&str, Lie); 6] = [
        ("another subtask's file", |handles| {
            let other = handles[1].families[0].clone();
            handles[0].families[0].runs[0].tables[0].file = other.runs[0].tables[0].file.clone();
        }),
        ("a view inside of a key group", |handles| {
            handles[0].families[0].runs[0].tables[0].visible_start = vec![0, 0, 7];
        }),
        ("a wrong digest", |handles| {
            handles[0].families[0].runs[0].tables[0].file.digest ^= 1;
        }),
        ("the same file twice", |handles| {
            let table = handles[0].families[0].runs[0].tables[0].clone();
            handles[0].families[0].runs[0].tables.push(table);
        }),
        ("a table's family", |handles| {
            handles[0].families[0].name = "point".into();
        }),
        ("another length", |handles| {
            handles[0].families[0].runs[0].tables[0].file.length -= 1;
        }),
    ];
    for (what, change) in cases {
        for kind in KINDS {
            let mut world = filled(kind, 2, 60, 16 << 10);
            world.completed = savepoint(&mut world, 1);
            change(&mut world.completed);
            let error = world.restore(1).expect_err(what);
            assert_eq!(error.code(), Code::SnapshotCorrupt, "{what}: {error}");
        }
    }
}

#[test]
fn entries_are_read_without_the_program() {
    for kind in KINDS {
        let mut world = filled(kind, 2, 120, 16 << 10);
        let checkpoint = world.checkpoint(1);
        let canonical = savepoint(&mut world, 2);
        let read = |handles: &[KeyedHandle]| {
            let mut entries: Vec<LogicalEntry> = Vec::new();
            read_entries(&world.catalogue, handles, &world.files, &mut |entry| {
                entries.push(entry);
                Ok(())
            })
            .unwrap();
            entries.sort();
            entries
        };
        assert_eq!(read(&canonical), read(&checkpoint));
        assert!(
            read(&canonical)
                .iter()
                .all(|entry| u32::from(entry.group.0) < MAX_PARALLELISM)
        );
    }
}
