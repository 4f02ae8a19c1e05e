//! If these fail, a job that claimed a savepoint, or refers to one, loses state when the savepoint goes, or writes all of
//! it again.

use crate::world::{MAX_PARALLELISM, OPERATOR, World};
use keybed_env::{
    Fs, SimFs,
    random::{Ids, Random},
};
use keybed_snapshot::{
    Anchor, Anchors, BackendKind, Birth, CheckpointId, CheckpointRoot, ClaimMode, ForeignSnapshot,
    Generation, JobId, KeyedHandle, LocalStorage, Metadata, OpenFiles, OpenRoot, OperatorSnapshot,
    OperatorUid, RootId, SavepointTarget, SnapshotKind, StartOptions, SubtaskIndex, SubtaskState,
    claim::Removed, rescale,
};
use keybed_state::{
    BackendOptions, KeyedState, SnapshotStats,
    processor::{LogicalDigest, logical_digest},
};
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
};

const KEYS: u64 = 400;

fn metadata(world: &World, (job, root): (JobId, RootId), id: CheckpointId, kind: SnapshotKind) -> Metadata {
    Metadata {
        job,
        root,
        generation: Generation(1),
        checkpoint: id,
        kind,
        timestamp_ms: 0,
        externals: Vec::new(),
        operators: vec![OperatorSnapshot {
            uid: OperatorUid::new(OPERATOR).unwrap(),
            parallelism: 3,
            max_parallelism: MAX_PARALLELISM,
            catalogue: (*world.catalogue).clone(),
            subtasks: Vec::new(),
        }],
        properties: BTreeMap::new(),
    }
}

/// A savepoint of that kind, of a world that is gone, and what it holds.
fn savepoint(disk: &SimFs, from: BackendKind, kind: SnapshotKind) -> (World, PathBuf, LogicalDigest) {
    let mut world = World::new(from, 3, 16 << 10);
    let t = world.tokens;
    for key in 0..KEYS {
        let state = world.at(key);
        t.total.set(state, &key).unwrap();
        t.recent.push(state, &format!("event {key}")).unwrap();
        state.register_timer((key * 7 % 100) as i64, &[]).unwrap();
    }
    let checkpoint = world.checkpoint(1);
    let digest = world.digest(&checkpoint);
    let birth = Birth {
        generation: Generation(1),
        checkpoint: CheckpointId(2),
    };
    let target = SavepointTarget::new(Arc::new(disk.clone()), "/savepoints");
    let writer = target
        .begin(JobId(7), birth, Ids::Seeded(Random::from_seed(1)))
        .unwrap();
    let attempt = world.prepare(2, kind);
    let subtasks = (0..).zip(attempt.pending).map(|(index, pending)| SubtaskState {
        keyed: Some(pending.write(&*writer).unwrap().handle),
        ..SubtaskState::empty(SubtaskIndex(index))
    });
    let mut snapshot = metadata(&world, (JobId(7), RootId(8)), birth.checkpoint, kind);
    snapshot.operators[0].subtasks = subtasks.collect();
    writer.publish(&snapshot).unwrap();
    let path = writer.directory().to_path_buf();
    (world, path, digest)
}

/// The job that starts from it, at parallelism 2.
struct Job<'a> {
    world: &'a World,
    root: CheckpointRoot,
    subtasks: Vec<KeyedState>,
}

impl<'a> Job<'a> {
    fn start(disk: &SimFs, world: &'a World, path: &Path, mode: ClaimMode, kind: BackendKind) -> Self {
        let fs: Arc<dyn Fs> = Arc::new(disk.clone());
        let storage = LocalStorage::create(fs.clone(), Path::new("/ckpt"), JobId(9)).unwrap();
        let opened = OpenRoot::open(Arc::new(storage), JobId(9)).unwrap();
        let options = StartOptions {
            restore: None,
            retain: 1,
            ids: Ids::Seeded(Random::from_seed(2)),
            started_ms: 0,
        };
        let source = ForeignSnapshot::open(fs.clone(), path, Anchors::default()).unwrap();
        let root = opened.start_from_snapshot(source, mode, options).unwrap();
        let reading = root.open_source().unwrap().unwrap();
        let operator = &reading.snapshot().metadata().operators[0];
        let parts = rescale(&operator.subtasks, MAX_PARALLELISM, 2).unwrap();
        let subtasks = parts.into_iter().map(|part| {
            let dir = format!("/work/{}", part.index);
            let options = match kind {
                BackendKind::Heap => BackendOptions::heap(dir),
                BackendKind::Lsm => BackendOptions::lsm(dir),
            };
            let options = BackendOptions {
                fs: fs.clone(),
                ..options
            };
            let catalogue = Arc::new(operator.catalogue.clone());
            KeyedState::restore(
                options,
                part.range,
                MAX_PARALLELISM,
                catalogue,
                &part.keyed,
                &reading,
            )
            .unwrap()
        });
        let subtasks = subtasks.collect();
        Job {
            world,
            root,
            subtasks,
        }
    }

    /// One incremental checkpoint, published and completed.
    fn checkpoint(&mut self) -> (CheckpointId, SnapshotStats) {
        let request = self.root.allocate(SnapshotKind::Checkpoint, 0).unwrap();
        let put = self.root.put_files(request.checkpoint);
        let owner = (self.root.job(), self.root.root());
        let mut snapshot = metadata(self.world, owner, request.checkpoint, request.kind);
        snapshot.operators[0].parallelism = 2;
        let mut stats = SnapshotStats::default();
        for (index, state) in (0..).zip(&mut self.subtasks) {
            let written = state.prepare(&request).unwrap().write(&*put).unwrap();
            stats.files_new += written.stats.files_new;
            stats.files_reused += written.stats.files_reused;
            snapshot.operators[0].subtasks.push(SubtaskState {
                keyed: Some(written.handle),
                ..SubtaskState::empty(SubtaskIndex(index))
            });
        }
        self.root.publish(&snapshot).unwrap();
        for state in &mut self.subtasks {
            state.notify_complete(request.checkpoint);
        }
        (request.checkpoint, stats)
    }

    fn digest(&self, id: CheckpointId) -> LogicalDigest {
        let snapshot = self.root.load(id).unwrap();
        let operator = &snapshot.operators[0];
        let handles: Vec<KeyedHandle> = operator.subtasks.iter().filter_map(|s| s.keyed.clone()).collect();
        let files: &dyn OpenFiles = &*self.root.open_files(id);
        logical_digest(OPERATOR, &operator.catalogue, &handles, files).unwrap()
    }

    fn anchors(&self, id: CheckpointId) -> Vec<Anchor> {
        self.root
            .load(id)
            .unwrap()
            .files()
            .map(|file| file.anchor)
            .collect()
    }
}

const BACKENDS: [BackendKind; 2] = [BackendKind::Heap, BackendKind::Lsm];

#[test]
fn a_claimed_native_savepoint_is_built_on_and_not_needed_after_the_first_checkpoint() {
    for (from, to) in BACKENDS
        .into_iter()
        .flat_map(|from| BACKENDS.map(|to| (from, to)))
    {
        let disk = SimFs::without_history();
        let (world, path, digest) = savepoint(&disk, from, SnapshotKind::NativeSavepoint);
        let mut job = Job::start(&disk, &world, &path, ClaimMode::Claim, to);
        let (id, stats) = job.checkpoint();
        assert!(
            // The heap may lay a new base where an LSM stack bears no more deltas.
            (stats.files_new == 0 || from != to) && stats.files_reused > 0,
            "{from:?} to {to:?}: {stats:?}"
        );
        assert!(job.anchors(id).iter().all(|anchor| *anchor == Anchor::Root));
        assert_eq!(job.root.cleanup().source, Some(Removed::Gone));
        assert_eq!(disk.facts(&path).unwrap(), None);
        assert_eq!(job.digest(id), digest, "{from:?} to {to:?}");
        // Later ones build on the links.
        let (id, stats) = job.checkpoint();
        assert_eq!(stats.files_new, 0, "{from:?} to {to:?}");
        job.root.cleanup();
        assert_eq!(job.digest(id), digest);
    }
}

#[test]
fn a_claimed_canonical_savepoint_is_written_anew_and_goes() {
    for to in BACKENDS {
        let disk = SimFs::without_history();
        let (world, path, digest) = savepoint(&disk, BackendKind::Lsm, SnapshotKind::CanonicalSavepoint);
        let mut job = Job::start(&disk, &world, &path, ClaimMode::Claim, to);
        let (id, stats) = job.checkpoint();
        assert!(
            stats.files_new > 0 && stats.files_reused == 0,
            "{to:?}: {stats:?}"
        );
        assert_eq!(job.root.cleanup().source, Some(Removed::Gone));
        assert_eq!(disk.facts(&path).unwrap(), None);
        assert_eq!(job.digest(id), digest, "{to:?}");
    }
}

#[test]
fn a_legacy_restore_refers_to_the_savepoint() {
    for to in BACKENDS {
        let disk = SimFs::without_history();
        let (world, path, digest) = savepoint(&disk, BackendKind::Heap, SnapshotKind::NativeSavepoint);
        let listed = disk.list(&path).unwrap();
        let mut job = Job::start(&disk, &world, &path, ClaimMode::Legacy, to);
        for _ in 0..2 {
            let (id, stats) = job.checkpoint();
            assert_eq!(stats.files_new, 0, "{to:?}: {stats:?}");
            assert!(
                job.anchors(id)
                    .iter()
                    .all(|anchor| *anchor == Anchor::External(1))
            );
            assert!(job.root.cleanup().error.is_none());
            assert_eq!(job.digest(id), digest, "{to:?}");
        }
        assert!(job.root.depends_on_source());
        assert_eq!(disk.list(&path).unwrap(), listed);
    }
}
