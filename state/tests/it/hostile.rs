//! If these fail, bytes that somebody or a medium changed in a job root bring a job down, or are restored as state.

use crate::world::{MAX_PARALLELISM, OPERATOR, World};
use keybed_env::{
    Fs, SimFs,
    random::{Ids, Random},
};
use keybed_format::{
    Code, Result,
    envelope::{self, Section},
};
use keybed_snapshot::{
    BackendKind, CheckpointId, JobId, LocalStorage, Metadata, OpenRoot, OperatorSnapshot, OperatorUid,
    SnapshotDir, SnapshotKind, StartOptions, SubtaskIndex, SubtaskState, metadata::codec::MAGIC, rescale,
    verify,
};
use keybed_state::{
    BackendOptions, KeyedState,
    processor::{LogicalDigest, logical_digest},
};
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
};

const JOB: JobId = JobId(7);

fn open(disk: &SimFs) -> Result<OpenRoot> {
    let storage = LocalStorage::create(Arc::new(disk.clone()), Path::new("/ckpt"), JOB)?;
    OpenRoot::open(Arc::new(storage), JOB)
}

fn start(disk: &SimFs, restore: Option<CheckpointId>, seed: u64) -> Result<keybed_snapshot::CheckpointRoot> {
    open(disk)?.start(StartOptions {
        restore,
        retain: 3,
        ids: Ids::Seeded(Random::from_seed(seed)),
        started_ms: 1,
    })
}

/// A root with three checkpoints, and what each of them holds.
fn root(kind: BackendKind) -> (SimFs, BTreeMap<CheckpointId, LogicalDigest>) {
    let disk = SimFs::without_history();
    let root = start(&disk, None, 1).unwrap();
    let mut world = World::new(kind, 2, 64 << 10);
    let (total, recent, tokens) = (world.tokens.total, world.tokens.recent, world.tokens);
    let mut digests = BTreeMap::new();
    for n in 1..=3_u64 {
        for key in 0..300 / n {
            let state = world.at(key * n);
            total.set(state, &(key * n * n)).unwrap();
            recent.push(state, &format!("event {n}")).unwrap();
            tokens.by_sku.put(state, &"sku".into(), &(n as i32)).unwrap();
            state.register_timer((key * n) as i64, &[]).unwrap();
        }
        let id = root.allocate(SnapshotKind::Checkpoint, n).unwrap().checkpoint;
        let attempt = world.prepare(id.0, SnapshotKind::Checkpoint);
        let files = root.put_files(id);
        let written = attempt
            .pending
            .into_iter()
            .map(|pending| pending.write(&*files).unwrap().handle);
        let subtasks = (0..).zip(written).map(|(index, handle)| SubtaskState {
            keyed: Some(handle),
            ..SubtaskState::empty(SubtaskIndex(index))
        });
        let metadata = Metadata {
            job: JOB,
            root: root.root(),
            generation: root.generation(),
            checkpoint: id,
            kind: SnapshotKind::Checkpoint,
            timestamp_ms: n,
            externals: Vec::new(),
            operators: vec![OperatorSnapshot {
                uid: OperatorUid::new(OPERATOR).unwrap(),
                parallelism: 2,
                max_parallelism: MAX_PARALLELISM,
                catalogue: (*world.catalogue).clone(),
                subtasks: subtasks.collect(),
            }],
            properties: BTreeMap::new(),
        };
        root.publish(&metadata).unwrap();
        world
            .subtasks
            .iter_mut()
            .for_each(|state| state.notify_complete(id));
        digests.insert(id, digest(&metadata, &*root.open_files(id)).unwrap());
    }
    (disk, digests)
}

fn digest(metadata: &Metadata, files: &dyn keybed_snapshot::OpenFiles) -> Result<LogicalDigest> {
    let mut all = LogicalDigest::default();
    for operator in &metadata.operators {
        let handles: Vec<_> = operator.subtasks.iter().filter_map(|s| s.keyed.clone()).collect();
        all = all + logical_digest(operator.uid.as_str(), &operator.catalogue, &handles, files)?;
    }
    Ok(all)
}

/// Restores one operator at parallelism 1 and takes a savepoint of it, which is read back.
fn restore(metadata: &Metadata, files: &dyn keybed_snapshot::OpenFiles, kind: BackendKind) -> Result {
    for operator in &metadata.operators {
        for part in rescale(&operator.subtasks, operator.max_parallelism, 1)? {
            let mut options = match kind {
                BackendKind::Heap => BackendOptions::heap("/work"),
                BackendKind::Lsm => BackendOptions::lsm("/work"),
            };
            options.fs = Arc::new(SimFs::without_history());
            options.memtable_bytes = 64 << 10;
            let catalogue = Arc::new(operator.catalogue.clone());
            let mut state = KeyedState::restore(
                options,
                part.range,
                operator.max_parallelism,
                catalogue,
                &part.keyed,
                files,
            )?;
            while state.pop_due(i64::MAX)?.is_some() {}
        }
    }
    Ok(())
}

/// Everything a restart does with a root: the digest of what it would run with, and of which checkpoint.
fn restart(disk: &SimFs, kind: BackendKind) -> Result<Option<(CheckpointId, LogicalDigest)>> {
    let opened = open(disk)?;
    let Some(metadata) = opened.latest()? else {
        return Ok(None);
    };
    let root = opened.start(StartOptions {
        restore: Some(metadata.checkpoint),
        retain: 3,
        ids: Ids::Seeded(Random::from_seed(9)),
        started_ms: 1,
    })?;
    let files = root.open_files(metadata.checkpoint);
    let verdict = verify(&metadata, &*files).verdict();
    // Whoever does not verify first must not get other data either.
    let restored = restore(&metadata, &*files, kind);
    let read = digest(&metadata, &*files);
    match (verdict, restored) {
        (Ok(()), restored) => restored?,
        (Err(error), Err(_)) => return Err(error),
        (Err(error), Ok(())) => panic!("verify found what restore did not: {error}"),
    }
    Ok(Some((metadata.checkpoint, read?)))
}

fn typed(code: Code) -> bool {
    matches!(
        code,
        Code::SnapshotCorrupt
            | Code::SnapshotIncomplete
            | Code::UnsupportedFormatVersion
            | Code::NotASnapshot
            | Code::Fenced
    )
}

fn paths(disk: &SimFs) -> Vec<PathBuf> {
    let all = disk.tree().into_keys().map(|path| Path::new("/").join(path));
    all.filter(|path| !path.ends_with("LOCK")).collect()
}

/// Changes one or two files of a root at random; says what it did.
fn damage(disk: &SimFs, random: &mut Random) -> String {
    let paths = paths(disk);
    let path = &paths[random.index(paths.len())];
    let other = &paths[random.index(paths.len())];
    let length = disk.facts(path).unwrap().unwrap().len as usize;
    let at = random.index(length.max(1));
    let what = random.below(8);
    let byte = random.below(256) as u8;
    match what {
        0 => disk.corrupt(path, |b| b[at] ^= 1 << (byte % 8)).unwrap(),
        1 => disk.corrupt(path, |b| b[at] = byte).unwrap(),
        2 => disk.corrupt(path, |b| b.truncate(at)).unwrap(),
        3 => disk.corrupt(path, |b| b.extend(vec![byte; 1 + at])).unwrap(),
        4 => disk.corrupt(path, |b| b[at..].fill(byte)).unwrap(),
        5 => disk.remove_file(path).unwrap(),
        6 => {
            let (mine, theirs) = (
                disk.read(path, 1 << 30).unwrap(),
                disk.read(other, 1 << 30).unwrap(),
            );
            disk.corrupt(path, |b| b.clone_from(&theirs)).unwrap();
            disk.corrupt(other, |b| b.clone_from(&mine)).unwrap();
        }
        _ => {
            let theirs = disk.read(other, 1 << 30).unwrap();
            disk.corrupt(path, |b| b.clone_from(&theirs)).unwrap();
        }
    }
    format!(
        "{what} at {at} of {} with {byte} and {}",
        path.display(),
        other.display()
    )
}

#[test]
fn a_damaged_root_is_an_error_or_holds_what_was_written() {
    for kind in [BackendKind::Lsm, BackendKind::Heap] {
        let (disk, digests) = root(kind);
        let newest = *digests.keys().next_back().unwrap();
        assert_eq!(
            restart(&disk.live_image(), kind).unwrap(),
            Some((newest, digests[&newest]))
        );
        let mut errors = 0;
        for seed in 0..400 {
            let mut random = Random::from_seed(seed);
            let image = disk.live_image();
            let what = format!("seed {seed}: {}", damage(&image, &mut random));
            let by = if random.one_in(2) {
                BackendKind::Lsm
            } else {
                BackendKind::Heap
            };
            match restart(&image, by) {
                Ok(Some((id, found))) => assert_eq!(Some(&found), digests.get(&id), "{what}"),
                Ok(None) => panic!("{what}: the job would begin with nothing"),
                Err(error) => {
                    errors += 1;
                    assert!(typed(error.code()), "{what}: {error}");
                }
            }
            for id in digests.keys() {
                let path = Path::new("/ckpt").join(JOB.to_string()).join(format!("chk-{id}"));
                let read = SnapshotDir::open(Arc::new(image.clone()), &path).and_then(|dir| {
                    dir.check_root()?;
                    verify(dir.metadata(), &dir).verdict()?;
                    digest(dir.metadata(), &dir)
                });
                match read {
                    Ok(found) => assert_eq!(found, digests[id], "{what}"),
                    Err(error) => assert!(typed(error.code()), "{what}: {error}"),
                }
            }
        }
        assert!(errors > 100, "{errors} errors");
    }
}

#[test]
fn forged_metadata_with_right_checksums_is_an_error_or_a_snapshot_and_never_a_panic() {
    let (disk, _) = root(BackendKind::Lsm);
    let path = Path::new("/ckpt").join(JOB.to_string()).join("chk-3/_metadata");
    let good = disk.read(&path, 1 << 30).unwrap();
    let (_, sections) = envelope::read(MAGIC, 1, &good).unwrap();
    let sections: Vec<Section> = sections.into_iter().map(|(_, section)| section).collect();
    for seed in 0..600 {
        let mut random = Random::from_seed(seed);
        let mut forged = sections.clone();
        for _ in 0..=random.below(3) {
            let section = random.index(forged.len());
            let bytes = &mut forged[section].bytes;
            let at = random.index(bytes.len().max(1));
            match random.below(5) {
                0 | 1 if !bytes.is_empty() => bytes[at] ^= 1 << random.below(8),
                2 if !bytes.is_empty() => bytes[at] = [0, 1, 0x7f, 0x80, 0xff][random.index(5)],
                3 if !bytes.is_empty() => drop(bytes.remove(at)),
                _ => bytes.insert(at.min(bytes.len()), random.below(256) as u8),
            }
        }
        let image = disk.live_image();
        let bytes = envelope::write(MAGIC, 1, &forged);
        image.corrupt(&path, |b| b.clone_from(&bytes)).unwrap();
        let what = format!("seed {seed}");
        let read = SnapshotDir::open(Arc::new(image.clone()), path.parent().unwrap()).and_then(|dir| {
            let verdict = verify(dir.metadata(), &dir).verdict();
            for kind in [BackendKind::Lsm, BackendKind::Heap] {
                restore(dir.metadata(), &dir, kind)?;
            }
            digest(dir.metadata(), &dir)?;
            verdict
        });
        if let Err(error) = read {
            assert!(typed(error.code()), "{what}: {error}");
        }
    }
}
