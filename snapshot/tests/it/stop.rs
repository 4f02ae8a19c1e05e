//! If this fails, a job that ended with a savepoint goes on from an older checkpoint, or one that did not never does.

use keybed_env::{
    Fs, Random,
    fs::{Fault, FaultFs, FaultPlan, SimFs},
    random::Ids,
};
use keybed_format::{Code, Result};
use keybed_snapshot::{
    Birth, CheckpointId, CheckpointRoot, Generation, JobId, LocalStorage, Metadata, ObjectPath, OpenRoot,
    SavepointTarget, SnapshotKind, StartOptions, StopRecord, gc, savepoint, storage::CheckpointStorage,
};
use std::{collections::BTreeMap, path::Path, sync::Arc};

const JOB: JobId = JobId(7);

fn storage(fs: &SimFs) -> Arc<dyn CheckpointStorage> {
    Arc::new(LocalStorage::create(Arc::new(fs.clone()), Path::new("ckpt"), JOB).unwrap())
}

fn options(seed: u64) -> StartOptions {
    StartOptions {
        restore: None,
        retain: 1,
        ids: Ids::Seeded(Random::from_seed(seed)),
        started_ms: 0,
    }
}

fn open(fs: &SimFs) -> OpenRoot {
    OpenRoot::open(storage(fs), JOB).unwrap()
}

fn record(root: &CheckpointRoot, checkpoint: CheckpointId, directory: &Path) -> StopRecord {
    StopRecord {
        job: JOB,
        root: root.root(),
        generation: root.generation(),
        attempt: 1,
        checkpoint,
        drained: false,
        timestamp_ms: 5,
        directory: directory.to_path_buf(),
    }
}

fn metadata(root: &CheckpointRoot, kind: SnapshotKind, checkpoint: CheckpointId) -> Metadata {
    Metadata {
        job: JOB,
        root: root.root(),
        generation: root.generation(),
        checkpoint,
        kind,
        timestamp_ms: 0,
        externals: Vec::new(),
        operators: Vec::new(),
        properties: BTreeMap::new(),
    }
}

/// A stop up to the confirmation.
fn stop(fs: &SimFs, root: &CheckpointRoot) -> Result<StopRecord> {
    let checkpoint = root.allocate(SnapshotKind::NativeSavepoint, 0)?.checkpoint;
    root.abort(checkpoint);
    let birth = Birth {
        generation: root.generation(),
        checkpoint,
    };
    let target = SavepointTarget::new(Arc::new(fs.clone()), "backup/sp");
    let mut announce = |directory: &Path| root.write_stop(&record(root, checkpoint, directory));
    let ids = Ids::Seeded(Random::from_seed(9));
    let writer = target.begin_announced(JOB, birth, ids, &mut announce)?;
    writer.publish(&metadata(root, SnapshotKind::NativeSavepoint, checkpoint))?;
    let record = record(root, checkpoint, writer.directory());
    root.confirm_stop(&record)?;
    root.confirm_stop(&record)?;
    Ok(record)
}

#[test]
fn every_image_of_a_stop_says_whether_the_savepoint_exists_and_can_be_undone_if_not() {
    let fs = SimFs::new();
    let root = open(&fs).start(options(1)).unwrap();
    let first = root.allocate(SnapshotKind::Checkpoint, 0).unwrap().checkpoint;
    root.publish(&metadata(&root, SnapshotKind::Checkpoint, first))
        .unwrap();
    let before = fs.op_count();
    let record = stop(&fs, &root).unwrap();
    drop(root);
    let (mut undone, mut forward) = (0, 0);
    let mut random = Random::from_seed(3);
    fs.each_crash_image(4, &mut random, |at, image| {
        if at < before {
            return;
        }
        let fs: Arc<dyn Fs> = Arc::new(image.clone());
        let opened = open(image);
        assert_eq!(opened.latest().unwrap().unwrap().checkpoint, first);
        let found = opened.stop().cloned();
        let exists = found
            .as_ref()
            .map(|found| savepoint::published(&*fs, &found.record).unwrap());
        let left = || fs.list(Path::new("backup/sp")).map_or(0, |entries| entries.len());
        match exists.flatten() {
            Some(metadata) => {
                forward += 1;
                assert_eq!(metadata.checkpoint, record.checkpoint);
                let root = opened.start_stopped(options(at)).unwrap();
                root.confirm_stop(&record).unwrap();
                root.finish(Some(record.checkpoint), 0).unwrap();
                root.retain_none();
                assert!(root.cleanup().error.is_none());
                assert_eq!(root.completed(), []);
                drop(root);
                let ended = open(image);
                assert_eq!(ended.finished().unwrap().checkpoint, Some(record.checkpoint));
                assert!(ended.stop().unwrap().confirmed);
                assert_eq!(left(), 1);
            }
            None => {
                undone += 1;
                assert!(found.as_ref().is_none_or(|found| !found.confirmed));
                let restore = Some(first);
                let root = opened
                    .start(StartOptions {
                        restore,
                        ..options(at)
                    })
                    .unwrap();
                if let Some(found) = &found {
                    savepoint::remove_unpublished(&*fs, &found.record).unwrap();
                }
                root.remove_stop().unwrap();
                assert_eq!(left(), 0, "image at {at}");
                drop(root);
                assert!(open(image).stop().is_none());
            }
        }
    });
    assert!(undone > 10 && forward > 10, "{undone} {forward}");
}

#[test]
fn a_stop_of_a_fenced_owner_came_to_nothing_and_damage_is_named() {
    let fs = SimFs::without_history();
    let root = open(&fs).start(options(1)).unwrap();
    let record = stop(&fs, &root).unwrap();
    drop(root);
    let newer = open(&fs).start(options(2)).unwrap();
    let late = StopRecord {
        checkpoint: CheckpointId(record.checkpoint.0 + 1),
        ..record.clone()
    };
    let put = |path: ObjectPath, bytes: &[u8]| {
        let storage = storage(&fs);
        storage.delete(&path).unwrap();
        let file = storage.describe(&path);
        let mut file = fs.create(Path::new(&file)).unwrap();
        file.append(bytes).unwrap();
    };
    drop(newer);
    assert_eq!(open(&fs).stop().unwrap().record, record);
    put(ObjectPath::Stop, &late.encode().unwrap());
    assert!(open(&fs).stop().is_none(), "its id is the newer generation's");
    let failure = |bytes: &[u8]| {
        put(ObjectPath::Stop, bytes);
        OpenRoot::open(storage(&fs), JOB).map(|_| ()).unwrap_err().code()
    };
    let other = StopRecord {
        job: JobId(8),
        ..record.clone()
    };
    assert_eq!(failure(&other.encode().unwrap()), Code::SnapshotCorrupt);
    let future = StopRecord {
        generation: Generation(9),
        ..record.clone()
    };
    assert_eq!(failure(&future.encode().unwrap()), Code::SnapshotIncomplete);
    assert_eq!(failure(b"garbage"), Code::SnapshotCorrupt);
}

#[test]
fn nothing_is_decided_while_the_target_is_missing_and_nothing_foreign_is_removed() {
    let fs = SimFs::without_history();
    let root = open(&fs).start(options(1)).unwrap();
    let record = stop(&fs, &root).unwrap();
    let refused = savepoint::remove_unpublished(&fs, &record).unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
    let away = StopRecord {
        directory: "nowhere/savepoint-000000-0123456789ab".into(),
        ..record.clone()
    };
    let error = savepoint::published(&fs, &away).unwrap_err();
    assert_eq!(error.code(), Code::SnapshotIncomplete);
    let here = record
        .directory
        .parent()
        .unwrap()
        .join("savepoint-000000-0123456789ab");
    let gone = StopRecord {
        directory: here.clone(),
        ..record.clone()
    };
    assert!(savepoint::published(&fs, &gone).unwrap().is_none());
    fs.create_dir(&here).unwrap();
    fs.create(&here.join("notes")).unwrap();
    savepoint::remove_unpublished(&fs, &gone).unwrap();
    assert_eq!(fs.list(&here).unwrap().len(), 1);
    let moved = StopRecord {
        checkpoint: CheckpointId(99),
        ..record
    };
    assert_eq!(
        savepoint::published(&fs, &moved).unwrap_err().code(),
        Code::SnapshotCorrupt
    );
}

/// A finished root that its job left by a stop, and the root's directory.
fn stopped_for_good() -> (SimFs, std::path::PathBuf) {
    let fs = SimFs::new();
    let root = open(&fs).start(options(1)).unwrap();
    let record = stop(&fs, &root).unwrap();
    root.finish(Some(record.checkpoint), 0).unwrap();
    drop(root);
    fs.settle();
    (fs, Path::new("ckpt").join(JOB.to_string()))
}

#[test]
fn the_root_of_a_stopped_job_that_was_given_up_goes_whole_and_its_savepoint_stays() {
    let (before, root) = stopped_for_good();
    let savepoints = |fs: &SimFs| {
        let mut tree = fs.tree();
        tree.retain(|path, _| path.components().any(|part| part.as_os_str() == "backup"));
        tree
    };
    for nth in 1.. {
        let fs = before.live_image();
        let faulty = Arc::new(FaultFs::new(Arc::new(fs.clone())));
        faulty.arm(FaultPlan::new(Fault::Eio, nth));
        let faulted: Arc<dyn Fs> = faulty.clone();
        let report = gc::retire(&faulted, &root).map(|planned| planned.execute());
        if faulty.triggered() == 0 {
            let report = report.unwrap();
            assert!(report.error.is_none(), "{report:?}");
            let names: Vec<&str> = report.swept.iter().map(|swept| &*swept.path).collect();
            let at = |name: &str| names.iter().position(|other| *other == name).unwrap();
            assert!(at("STOPPED") < at("STOP") && at("STOP") < at("FINISHED"));
        } else if fs.facts(&root).unwrap().is_some() {
            drop(report);
            let plain: Arc<dyn Fs> = Arc::new(fs.clone());
            let again = gc::retire(&plain, &root).unwrap().execute();
            assert!(again.error.is_none(), "call {nth}: {again:?}");
        }
        assert_eq!(fs.facts(&root).unwrap(), None, "call {nth}");
        assert_eq!(savepoints(&fs), savepoints(&before));
        if faulty.triggered() == 0 {
            return;
        }
    }
}
