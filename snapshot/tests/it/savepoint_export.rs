//! If this fails, an exported checkpoint is not what a savepoint of the same state would be: it depends on its job, it
//! carries damage on, or exporting changes the job's files.

use crate::support::*;
use keybed_env::{
    FaultFs, Fs, SimFs,
    fs::{Fault, FaultPlan},
    random::{Ids, Random},
};
use keybed_format::Code;
use keybed_snapshot::{
    CheckpointId, FileHandle, LocalFile, Metadata, PutFiles, SavepointTarget, Scope, SnapshotDir,
    SnapshotKind, TableHandle, savepoint::export,
};
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
};

const TARGET: &str = "/exported/here";

fn ids() -> Ids {
    Ids::Seeded(Random::from_seed(5))
}

/// A job with three incremental checkpoints.
fn disk() -> (SimFs, Arc<dyn Fs>, TinyJob) {
    let sim = SimFs::new();
    sim.create_dir_all(Path::new(WORK)).unwrap();
    let fs: Arc<dyn Fs> = Arc::new(sim.clone());
    let mut job = TinyJob::new(fs.clone(), resume(&fs, 3, 1).unwrap());
    for _ in 0..3 {
        job.checkpoint(1, 3).unwrap();
    }
    sim.settle();
    (sim, fs, job)
}

fn chk(n: u64) -> PathBuf {
    job_root().join(format!("chk-{n}"))
}

fn run(fs: &Arc<dyn Fs>, path: &Path) -> keybed_format::Result<PathBuf> {
    let snapshot = SnapshotDir::open(fs.clone(), path)?;
    export(&snapshot, &SavepointTarget::new(fs.clone(), TARGET), ids())
}

/// The metadata with objects numbered in the order of their use: what two physical copies have in common.
fn without_places(metadata: &Metadata) -> Metadata {
    let mut metadata = metadata.clone();
    let mut numbers: BTreeMap<FileHandle, u128> = BTreeMap::new();
    for subtask in metadata.operators.iter_mut().flat_map(|o| &mut o.subtasks) {
        let runs = subtask.keyed.iter_mut().flat_map(|k| &mut k.families);
        for table in runs.flat_map(|f| &mut f.runs).flat_map(|r| &mut r.tables) {
            let next = numbers.len() as u128;
            let number = *numbers.entry(table.file.clone()).or_insert(next);
            table.file.object = keybed_snapshot::ObjectName::of(table.file.object.birth().unwrap(), number);
        }
    }
    metadata
}

#[test]
fn an_exported_checkpoint_equals_a_native_savepoint_of_the_same_tables() {
    let (sim, fs, job) = disk();
    let checkpoint = SnapshotDir::open(fs.clone(), &chk(3)).unwrap().metadata().clone();
    let before = sim.tree();
    let exported = run(&fs, &chk(3)).unwrap();
    let mut after = sim.tree();
    after.retain(|path, _| !Path::new("/").join(path).starts_with(TARGET));
    assert_eq!(after, before, "the source is only read");

    // The savepoint that the job itself would have written, from its local files.
    let target = SavepointTarget::new(fs.clone(), "/native");
    let writer = job.begin_savepoint(&target, CheckpointId(3)).unwrap();
    let mut new_bytes = 0;
    let tables = checkpoint.operators[0].subtasks[0]
        .keyed
        .as_ref()
        .unwrap()
        .tables();
    let tables: Vec<TableHandle> = tables
        .map(|table| {
            let file = &table.file;
            let local = Path::new(WORK).join(format!("{:x}.sst", file.content));
            let put = writer.put_file(
                Scope::Exclusive,
                LocalFile {
                    fs: &sim,
                    path: &local,
                    content: file.content,
                    digest: file.digest,
                    bytes: file.length,
                },
            );
            new_bytes += file.length;
            TableHandle {
                file: put.unwrap(),
                ..table.clone()
            }
        })
        .collect();
    let mut native = job.savepoint_metadata(CheckpointId(3), tables);
    native.operators[0].subtasks[0].new_bytes = new_bytes;
    writer.publish(&native).unwrap();

    let (exported, native) = (
        check_snapshot(&fs, &exported).unwrap(),
        check_snapshot(&fs, writer.directory()).unwrap(),
    );
    assert_eq!(exported.kind, SnapshotKind::NativeSavepoint);
    assert_eq!(without_places(&exported), without_places(&native));
}

#[test]
fn an_export_outlives_the_root_and_can_be_exported_again() {
    let (sim, fs, job) = disk();
    let first = run(&fs, &chk(3).join("_metadata")).unwrap();
    drop(job);
    remove_tree(&sim, Path::new(CHECKPOINTS));
    remove_tree(&sim, Path::new(WORK));
    let moved = Path::new("/moved");
    sim.rename(&first, moved).unwrap();
    let before = check_snapshot(&fs, moved).unwrap();
    let second = run(&fs, moved).unwrap();
    let after = check_snapshot(&fs, &second).unwrap();
    assert_eq!(without_places(&after), without_places(&before));
}

#[test]
fn a_root_moved_as_a_whole_exports() {
    let (sim, fs, job) = disk();
    drop(job);
    sim.rename(&job_root(), Path::new("/root elsewhere")).unwrap();
    let exported = run(&fs, Path::new("/root elsewhere/chk-2")).unwrap();
    check_snapshot(&fs, &exported).unwrap();
}

#[test]
fn a_file_seen_through_several_views_is_copied_once() {
    let (sim, fs, mut job) = disk();
    let id = job.root.allocate(SnapshotKind::Checkpoint, 5).unwrap().checkpoint;
    let table = job.put(id, Scope::Shared).unwrap();
    let upper = TableHandle {
        visible_start: vec![9],
        ..table.clone()
    };
    let lower = TableHandle {
        visible_end: Some(vec![9]),
        ..table
    };
    job.root.publish(&job.metadata(id, vec![lower, upper])).unwrap();
    let exported = run(&fs, &chk(id.0)).unwrap();
    let metadata = check_snapshot(&fs, &exported).unwrap();
    assert_eq!(metadata.files().count(), 2);
    assert_eq!(sim.list(&exported).unwrap().len(), 2, "one file and the metadata");
    assert_eq!(
        metadata.operators[0].subtasks[0].new_bytes,
        metadata.files().next().unwrap().length
    );
}

#[test]
fn damage_is_named_in_the_source_and_nothing_is_left_behind() {
    let (sim, fs, job) = disk();
    drop(job);
    let nothing = |sim: &SimFs| sim.facts(Path::new("/exported")).unwrap().is_none();
    let snapshot = SnapshotDir::open(fs.clone(), &chk(3)).unwrap();
    let shared: Vec<PathBuf> = snapshot
        .metadata()
        .files()
        .filter(|file| file.anchor == keybed_snapshot::Anchor::Root)
        .map(|file| job_root().join("shared").join(file.object.as_str()))
        .collect();
    for file in &shared {
        for at in [0, 47, 60, 80] {
            let bad = sim.live_image();
            bad.corrupt(file, |bytes| bytes[at] ^= 4).unwrap();
            let fs: Arc<dyn Fs> = Arc::new(bad.clone());
            let error = run(&fs, &chk(3)).unwrap_err();
            let newer = error.code() == Code::UnsupportedFormatVersion;
            assert!(error.code() == Code::SnapshotCorrupt || newer, "{at}: {error}");
            assert_eq!(error.file(), Some(file.as_path()), "{error}");
            assert!(nothing(&bad), "{error}");
        }
    }
    for file in &shared {
        sim.remove_file(file).unwrap();
    }
    let error = run(&fs, &chk(3)).unwrap_err();
    assert_eq!(error.code(), Code::SnapshotIncomplete);
    for file in &shared {
        assert!(error.to_string().contains(file.to_str().unwrap()), "{error}");
    }
    assert!(nothing(&sim), "nothing was begun");
}

#[test]
fn a_checkpoint_of_a_fenced_owner_is_not_exported() {
    let (_sim, fs, job) = disk();
    drop(job);
    drop(open(&fs).unwrap().start(options(None, 3, 9)).unwrap());
    // The next owner's ids begin above what it saw, so forge one that came later.
    let record = fs.read(&chk(3).join("_metadata"), 1 << 20).unwrap();
    let mut metadata = keybed_snapshot::metadata::decode(&record).unwrap();
    metadata.checkpoint = CheckpointId(4);
    fs.create_dir(&chk(4)).unwrap();
    let bytes = keybed_snapshot::metadata::encode(&metadata).unwrap();
    fs.create(&chk(4).join("_metadata"))
        .unwrap()
        .append(&bytes)
        .unwrap();
    assert_eq!(run(&fs, &chk(4)).unwrap_err().code(), Code::Fenced);
}

#[test]
fn any_failing_call_fails_the_export_alone() {
    let mut runs = 0;
    for fault in Fault::ALL {
        for nth in 1.. {
            let (sim, _, job) = disk();
            drop(job);
            let faulty = FaultFs::new(Arc::new(sim.clone()));
            let fs: Arc<dyn Fs> = Arc::new(faulty.clone());
            faulty.arm(FaultPlan::new(*fault, nth));
            let exported = run(&fs, &chk(3));
            let reached = faulty.triggered() > 0;
            faulty.heal();
            let what = format!("{fault:?} at call {nth}");
            match &exported {
                Ok(path) => {
                    let durable: Arc<dyn Fs> = Arc::new(sim.strict_image(sim.op_count()));
                    check_snapshot(&durable, path).unwrap_or_else(|e| panic!("{what}: {e}"));
                }
                Err(error) => {
                    assert!(reached, "{what}: {error}");
                    assert!(
                        sim.facts(Path::new("/exported")).unwrap().is_none(),
                        "{what}: {error}"
                    );
                }
            }
            check_snapshot(&fs, &chk(3)).unwrap_or_else(|e| panic!("{what}: {e}"));
            runs += 1;
            if !reached {
                break;
            }
        }
    }
    assert!(runs > 100, "{runs} runs");
}

/// Exports checkpoint 3 while its job deletes it just before the n-th call of the export.
fn deleted_before_call(nth: u64) -> (SimFs, u64, keybed_format::Result<PathBuf>) {
    let (sim, fs, job) = disk();
    let faulty = Arc::new(FaultFs::new(fs));
    let (calls, job) = (Arc::new(AtomicU64::new(0)), Mutex::new(job));
    let counted = calls.clone();
    let delete = move |_: &Path| {
        if counted.fetch_add(1, Ordering::Relaxed) + 1 == nth {
            let mut job = job.lock().unwrap();
            for _ in 0..3 {
                job.checkpoint(1, 1).unwrap();
                assert!(job.root.cleanup().error.is_none());
            }
        }
        false
    };
    faulty.arm(FaultPlan::new(Fault::Eio, 1).on_path(delete));
    let exported = run(&(faulty as Arc<dyn Fs>), &chk(3));
    assert!(sim.facts(&chk(3)).unwrap().is_none() || calls.load(Ordering::Relaxed) < nth);
    (sim, calls.load(Ordering::Relaxed), exported)
}

#[test]
fn a_checkpoint_that_goes_while_it_is_exported_is_copied_whole_or_not_at_all() {
    let (mut whole, mut gone) = (0, 0);
    for nth in 1.. {
        let (sim, calls, exported) = deleted_before_call(nth);
        let fs: Arc<dyn Fs> = Arc::new(sim.clone());
        if calls < nth {
            break;
        }
        match exported {
            Ok(directory) => {
                check_snapshot(&fs, &directory).unwrap();
                whole += 1;
            }
            Err(error) => {
                let code = error.code();
                assert!(
                    matches!(code, Code::SnapshotIncomplete | Code::NotASnapshot),
                    "call {nth}: {error}"
                );
                assert!(
                    code == Code::NotASnapshot || error.to_string().contains("deleted while"),
                    "call {nth}: {error}"
                );
                assert!(sim.facts(Path::new(TARGET)).unwrap().is_none(), "call {nth}");
                gone += 1;
            }
        }
    }
    // Once everything is open, the job may do as it likes.
    assert!(gone > 5 && whole > 20, "{gone} {whole}");
}

#[test]
fn hard_links_are_made_on_request_and_told() {
    let (sim, fs, mut job) = disk();
    let snapshot = SnapshotDir::open(fs.clone(), &chk(3)).unwrap();
    let target = SavepointTarget::new(fs.clone(), TARGET).with_hard_links();
    let directory = export(&snapshot, &target, ids()).unwrap();
    let linked = SnapshotDir::open(fs.clone(), &directory).unwrap();
    let told = keybed_snapshot::inspect(linked.metadata(), &[]).shares_storage_with;
    assert_eq!(
        told,
        [chk(3), job_root().join("shared")].map(|path| path.display().to_string())
    );
    // Safe against deletion.
    for _ in 0..4 {
        job.checkpoint(1, 1).unwrap();
        assert!(job.root.cleanup().error.is_none());
    }
    assert!(sim.facts(&chk(3)).unwrap().is_none());
    check_snapshot(&fs, &directory).unwrap();
    // A copy of the linked savepoint shares nothing.
    let copy = export(&linked, &SavepointTarget::new(fs.clone(), "/copy"), ids()).unwrap();
    let copy = SnapshotDir::open(fs.clone(), &copy).unwrap();
    assert_eq!(
        keybed_snapshot::inspect(copy.metadata(), &[]).shares_storage_with,
        [""; 0]
    );
    // Another disk knows no links of this one.
    let other: Arc<dyn Fs> = Arc::new(SimFs::without_history());
    let target = SavepointTarget::new(other.clone(), TARGET).with_hard_links();
    let directory = export(&linked, &target, ids()).unwrap();
    let there = check_snapshot(&other, &directory).unwrap();
    assert_eq!(keybed_snapshot::inspect(&there, &[]).shares_storage_with, [""; 0]);
}

#[test]
fn an_exported_savepoint_keeps_its_kind() {
    let (_sim, fs, mut job) = disk();
    for kind in [SnapshotKind::NativeSavepoint, SnapshotKind::CanonicalSavepoint] {
        let writer = job
            .begin_savepoint(&SavepointTarget::new(fs.clone(), "/sp"), CheckpointId(40))
            .unwrap();
        let tables = vec![job.put_into(&writer).unwrap()];
        let metadata = Metadata {
            kind,
            ..job.savepoint_metadata(CheckpointId(40), tables)
        };
        writer.publish(&metadata).unwrap();
        let copy = run(&fs, writer.directory()).unwrap();
        assert_eq!(check_snapshot(&fs, &copy).unwrap().kind, kind);
    }
}
