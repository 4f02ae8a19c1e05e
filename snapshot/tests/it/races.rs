//! If this fails, an owner that was paused at the worst moment makes its checkpoint the truth, or an outcome that
//! nobody knows costs a checkpoint its files.

use crate::support::*;
use keybed_env::{
    FaultFs, Fs, ReadFile, SimFs,
    fs::{Fault, FaultPlan, FileLock, FsOp},
};
use keybed_format::{Code, Result};
use keybed_snapshot::{
    CheckpointId, CheckpointStorage, Listed, MemoryStorage, ObjectName, ObjectPath, OpenRoot, Place,
    SnapshotKind, verify,
};
use std::{
    fmt,
    path::Path,
    sync::{Arc, Mutex},
};

type Pause = Box<dyn FnOnce() + Send>;

/// A storage without working locks that does something else first when `_metadata` or FINISHED is written.
struct Paused {
    inner: MemoryStorage,
    before_document: Mutex<Option<Pause>>,
}

impl fmt::Debug for Paused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Paused")
    }
}

#[derive(Debug)]
struct NoLock;

impl FileLock for NoLock {}

impl CheckpointStorage for Paused {
    fn lock(&self) -> Result<Box<dyn FileLock>> {
        Ok(Box::new(NoLock))
    }

    fn put_new(&self, path: &ObjectPath, bytes: &[u8], temporary: &ObjectName) -> Result {
        if matches!(path, ObjectPath::Metadata(_) | ObjectPath::Finished) {
            let pause = self.before_document.lock().unwrap().take();
            pause.into_iter().for_each(|pause| pause());
        }
        self.inner.put_new(path, bytes, temporary)
    }

    fn create_checkpoint(&self, id: CheckpointId) -> Result {
        self.inner.create_checkpoint(id)
    }

    fn remove_checkpoint(&self, id: CheckpointId) -> Result<bool> {
        self.inner.remove_checkpoint(id)
    }

    fn put_file(&self, path: &ObjectPath, local: &dyn Fs, from: &Path, bytes: u64) -> Result {
        self.inner.put_file(path, local, from, bytes)
    }

    fn open(&self, path: &ObjectPath) -> Result<Arc<dyn ReadFile>> {
        self.inner.open(path)
    }

    fn fetch(&self, path: &ObjectPath, fs: &dyn Fs, to: &Path) -> Result {
        self.inner.fetch(path, fs, to)
    }

    fn list(&self, place: Place) -> Result<Vec<Listed>> {
        self.inner.list(place)
    }

    fn delete(&self, path: &ObjectPath) -> Result {
        self.inner.delete(path)
    }

    fn sync(&self, place: Place) -> Result {
        self.inner.sync(place)
    }

    fn describe(&self, path: &ObjectPath) -> String {
        self.inner.describe(path)
    }
}

fn work() -> (SimFs, Arc<dyn Fs>) {
    let sim = SimFs::new();
    sim.create_dir_all(Path::new(WORK)).unwrap();
    (sim.clone(), Arc::new(sim))
}

fn owner(storage: Arc<Paused>, seed: u64) -> TinyJob {
    let opened = OpenRoot::open(storage, JOB).unwrap();
    let latest = opened.latest().unwrap().map(|metadata| metadata.checkpoint);
    TinyJob::new(work().1, opened.start(options(latest, 2, seed)).unwrap())
}

#[test]
fn an_owner_that_wakes_between_fence_and_write_is_told_and_its_checkpoint_is_never_restored() {
    let memory = MemoryStorage::new();
    let storage = || {
        Arc::new(Paused {
            inner: memory.clone(),
            before_document: Mutex::new(None),
        })
    };
    let first = storage();
    let mut old = owner(first.clone(), 1);
    for _ in 1..=7 {
        old.checkpoint(1, 3).unwrap();
    }
    let tables = old.tables.clone();
    let second = storage();
    *first.before_document.lock().unwrap() = Some(Box::new(move || {
        let mut new = owner(second, 2);
        new.root.cleanup();
        new.tables = tables;
        for id in [9, 10] {
            assert_eq!(
                new.checkpoint(1, 3).unwrap(),
                CheckpointId(id),
                "8 belongs to the old owner"
            );
            new.root.cleanup();
        }
    }));
    // The old owner is paused with 8 fully uploaded; it wakes when 9 and 10 are complete.
    let error = old.checkpoint(1, 3).unwrap_err();
    assert!(matches!(error.code(), Code::Fenced | Code::NotFound), "{error}");
    assert_eq!(old.root.cleanup().objects, 0);

    let third = owner(storage(), 3);
    third.root.cleanup();
    assert_eq!(third.root.completed(), [10, 9].map(CheckpointId));
    for id in third.root.completed() {
        verify(&third.root.load(id).unwrap(), &*third.root.open_files(id))
            .verdict()
            .unwrap();
    }
}

#[test]
fn an_owner_that_wakes_before_the_newer_one_published_is_told_so_too() {
    let memory = MemoryStorage::new();
    let storage = || {
        Arc::new(Paused {
            inner: memory.clone(),
            before_document: Mutex::new(None),
        })
    };
    let first = storage();
    let mut old = owner(first.clone(), 1);
    old.checkpoint(1, 3).unwrap();
    let second = storage();
    *first.before_document.lock().unwrap() = Some(Box::new(move || drop(owner(second, 2))));
    assert_eq!(old.checkpoint(1, 3).unwrap_err().code(), Code::Fenced);
    assert!(
        old.root.is_unknown(CheckpointId(2)),
        "it may not be treated as aborted"
    );
    let opened = OpenRoot::open(storage(), JOB).unwrap();
    assert_eq!(
        opened.latest().unwrap().unwrap().checkpoint,
        CheckpointId(1),
        "2 is not of the living timeline"
    );
}

#[test]
fn a_checkpoint_of_unknown_outcome_keeps_its_files_until_it_was_read_again() {
    let (sim, _) = work();
    let faulty = FaultFs::new(Arc::new(sim.clone()));
    let fs: Arc<dyn Fs> = Arc::new(faulty.clone());
    let mut job = TinyJob::new(fs.clone(), resume(&fs, 2, 1).unwrap());
    job.checkpoint(1, 3).unwrap();
    let id = job.root.allocate(SnapshotKind::Checkpoint, 5).unwrap().checkpoint;
    let metadata = job.fill(id, 1, 3).unwrap();
    // The folder is synced first for the name of the private file; `_metadata` is linked before the second time.
    let plan = FaultPlan::new(Fault::Eio, 2).only(&[FsOp::SyncDir]).forever();
    faulty.arm(plan.on_path(|path| path.ends_with("chk-2")));
    job.root.publish(&metadata).unwrap_err();
    assert!(job.root.is_unknown(id));
    job.root.abort(id);
    let report = job.root.cleanup();
    assert_eq!(
        (report.objects, kept(&sim.tree())),
        (0, needed(&sim.tree())),
        "{report:?}"
    );
    faulty.heal();
    assert_eq!(
        job.root.latest().unwrap().as_ref(),
        Some(&metadata),
        "it was read again and is there"
    );
    for _ in 0..2 {
        job.checkpoint(1, 3).unwrap();
        job.root.cleanup();
        assert_eq!(kept(&sim.tree()), needed(&sim.tree()));
    }
    for id in job.root.completed() {
        verify(&job.root.load(id).unwrap(), &*job.root.open_files(id))
            .verdict()
            .unwrap();
    }
}

#[test]
fn a_checkpoint_of_unknown_outcome_replaces_no_older_one_before_its_name_is_durable() {
    let (sim, _) = work();
    let faulty = FaultFs::new(Arc::new(sim.clone()));
    let fs: Arc<dyn Fs> = Arc::new(faulty.clone());
    let mut job = TinyJob::new(fs.clone(), resume(&fs, 1, 1).unwrap());
    job.checkpoint(1, 3).unwrap();
    let id = job.root.allocate(SnapshotKind::Checkpoint, 5).unwrap().checkpoint;
    let metadata = job.fill(id, 1, 3).unwrap();
    // The folder is synced first for the name of the private file; `_metadata` is linked before the second time.
    let plan = FaultPlan::new(Fault::Eio, 2).only(&[FsOp::SyncDir]).forever();
    faulty.arm(plan.on_path(|path| path.ends_with("chk-2")));
    job.root.publish(&metadata).unwrap_err();
    assert!(job.root.is_unknown(id));
    faulty.heal();
    job.root.cleanup();
    let lost: Arc<dyn Fs> = Arc::new(sim.strict_image(sim.op_count()));
    assert!(
        open(&lost).unwrap().latest().unwrap().is_some(),
        "both checkpoints are lost"
    );
}

#[test]
fn what_a_killed_owner_left_visible_is_made_durable_before_an_older_checkpoint_goes() {
    let (sim, fs) = work();
    let mut job = TinyJob::new(fs.clone(), resume(&fs, 1, 1).unwrap());
    job.checkpoint(1, 3).unwrap();
    let id = job.root.allocate(SnapshotKind::Checkpoint, 5).unwrap().checkpoint;
    let metadata = job.fill(id, 1, 3).unwrap();
    job.root.publish(&metadata).unwrap();
    drop(job);
    // Killed between the link of `_metadata` and the sync of its folder: the system runs on, the name is not durable.
    let path = job_root().join("chk-2/_metadata");
    let bytes = sim.read(&path, 1 << 20).unwrap();
    sim.remove_file(&path).unwrap();
    sim.sync_dir(path.parent().unwrap()).unwrap();
    let mut file = sim.create(&path).unwrap();
    file.append(&bytes).unwrap();
    file.sync().unwrap();
    let root = resume(&fs, 1, 2).unwrap();
    assert_eq!(root.completed(), [2, 1].map(CheckpointId));
    assert_eq!(root.cleanup().checkpoints, [CheckpointId(1)]);
    let lost: Arc<dyn Fs> = Arc::new(sim.strict_image(sim.op_count()));
    assert!(
        open(&lost).unwrap().latest().unwrap().is_some(),
        "both checkpoints are lost"
    );
}

#[test]
fn a_finished_record_is_durable_before_the_last_checkpoint_goes() {
    let (sim, _) = work();
    let faulty = FaultFs::new(Arc::new(sim.clone()));
    let fs: Arc<dyn Fs> = Arc::new(faulty.clone());
    let mut job = TinyJob::new(fs.clone(), resume(&fs, 1, 1).unwrap());
    let last = Some(job.checkpoint(1, 3).unwrap());
    faulty.arm(FaultPlan::new(Fault::Eio, 1).only(&[FsOp::SyncDir]));
    job.root.finish(last, 6).unwrap_err();
    faulty.heal();
    assert_eq!(job.root.finish(last, 7).unwrap().checkpoint, last);
    job.root.retain_none();
    assert!(job.root.cleanup().error.is_none());
    let lost: Arc<dyn Fs> = Arc::new(sim.strict_image(sim.op_count()));
    let opened = open(&lost).unwrap();
    assert!(
        opened.finished().is_some() || opened.latest().unwrap().is_some(),
        "neither record nor checkpoint is left"
    );
}

#[test]
fn a_checkpoint_that_is_given_up_while_it_is_published_keeps_its_files() {
    let memory = MemoryStorage::new();
    let storage = Arc::new(Paused {
        inner: memory,
        before_document: Mutex::new(None),
    });
    let mut job = owner(storage.clone(), 1);
    job.checkpoint(1, 3).unwrap();
    for subsumed in [false, true] {
        let id = job.root.allocate(SnapshotKind::Checkpoint, 5).unwrap().checkpoint;
        let metadata = job.fill(id, 1, 3).unwrap();
        let next = job.root.allocate(SnapshotKind::Checkpoint, 5).unwrap().checkpoint;
        let newer = job.fill(next, 1, 3).unwrap();
        let other = job.root.clone();
        *storage.before_document.lock().unwrap() = Some(Box::new(move || {
            if subsumed {
                assert_eq!(
                    other.publish(&newer).unwrap(),
                    [],
                    "what is being published is not subsumed"
                );
            } else {
                other.abort(id);
                other.abort(next);
            }
        }));
        job.root.publish(&metadata).unwrap();
        job.root.cleanup();
        assert!(job.root.completed().contains(&id), "subsumed {subsumed}");
        for id in job.root.completed() {
            verify(&job.root.load(id).unwrap(), &*job.root.open_files(id))
                .verdict()
                .unwrap_or_else(|e| panic!("subsumed {subsumed}: {e}"));
        }
        job.tables.clear();
    }
}

#[test]
fn a_fenced_owner_that_wakes_late_does_not_end_the_job() {
    let memory = MemoryStorage::new();
    let storage = || {
        Arc::new(Paused {
            inner: memory.clone(),
            before_document: Mutex::new(None),
        })
    };
    let first = storage();
    let mut old = owner(first.clone(), 1);
    let last = old.checkpoint(1, 3).unwrap();
    let second = storage();
    let living = Arc::new(Mutex::new(None));
    let (place, there) = (living.clone(), second.clone());
    *first.before_document.lock().unwrap() =
        Some(Box::new(move || *place.lock().unwrap() = Some(owner(there, 2))));
    let error = old.root.finish(Some(last), 6).unwrap_err();
    assert_eq!(error.code(), Code::Fenced, "{error}");
    let opened = OpenRoot::open(storage(), JOB).unwrap();
    assert_eq!(opened.finished(), None, "the living owner has not finished");
    // When the living owner does, its record counts.
    let mut new = living.lock().unwrap().take().unwrap();
    let last = new.checkpoint(1, 3).unwrap();
    let record = new.root.finish(Some(last), 7).unwrap();
    assert_eq!(
        (record.generation, record.checkpoint),
        (new.root.generation(), Some(last))
    );
    assert_eq!(
        new.root.finish(Some(last), 8).unwrap(),
        record,
        "doing it again changes nothing"
    );
    assert_eq!(OpenRoot::open(storage(), JOB).unwrap().finished(), Some(&record));
}
