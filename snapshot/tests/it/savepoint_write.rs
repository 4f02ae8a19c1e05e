//! If this fails, a savepoint references files that are not its own, overwrites another one, or a savepoint that was
//! given up leaves its directory behind or takes somebody else's files with it.

use crate::support::*;
use keybed_env::{Fs, OsFs, SimFs, random::Ids};
use keybed_format::Code;
use keybed_snapshot::{
    Birth, CheckpointId, Generation, JobId, LocalFile, Metadata, PutFiles, RootId, SavepointTarget, Scope,
    SnapshotKind, inspect, savepoint::SHARES_STORAGE_WITH, storage::layout,
};
use std::{
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::Arc,
};

const TARGET: &str = "/sp";
const ID: CheckpointId = CheckpointId(7);

fn job() -> (SimFs, Arc<dyn Fs>, TinyJob) {
    let sim = SimFs::new();
    sim.create_dir_all(Path::new(WORK)).unwrap();
    let fs: Arc<dyn Fs> = Arc::new(sim.clone());
    let job = TinyJob::new(fs.clone(), resume(&fs, 3, 1).unwrap());
    (sim, fs, job)
}

fn names(fs: &dyn Fs, directory: &Path) -> Vec<String> {
    fs.list(directory).unwrap().into_iter().map(|e| e.name).collect()
}

#[test]
fn a_savepoint_is_its_own_directory_and_nothing_else() {
    let (sim, fs, mut job) = job();
    let target = SavepointTarget::new(fs.clone(), TARGET);
    let before: Vec<_> = names(&sim, &job_root());
    let path = job.savepoint(&target, 7).unwrap();
    assert_eq!(names(&sim, &job_root()), before, "the job root is not told");
    let name = path.file_name().unwrap().to_str().unwrap();
    assert!(
        name.starts_with(&format!("savepoint-{}-", &JOB.to_string()[..6])),
        "{name}"
    );
    assert!(layout::is_savepoint_name(name));
    let metadata = check_snapshot(&fs, &path).unwrap();
    let mut expected: Vec<String> = metadata.files().map(|file| file.object.to_string()).collect();
    expected.push("_metadata".into());
    expected.sort();
    assert_eq!(names(&sim, &path), expected);
    assert!(inspect(&metadata, &[]).depends_on.is_empty());
}

#[test]
fn a_taken_name_is_never_overwritten() {
    let (sim, fs, mut job) = job();
    let target = SavepointTarget::new(fs.clone(), TARGET);
    // Equal seeds give equal names, so each collides with all before it.
    let paths: Vec<PathBuf> = (0..5).map(|_| job.savepoint(&target, 7).unwrap()).collect();
    for path in &paths {
        check_snapshot(&fs, path).unwrap();
    }
    assert_eq!(names(&sim, Path::new(TARGET)).len(), 5);
    // When chance always says the same, giving up has a bound.
    let fixed = SimFs::new();
    let mut ids = Ids::Seeded(keybed_env::Random::from_seed(ID.0));
    for _ in 0..16 {
        let path = layout::savepoint(Path::new(TARGET), JOB, ids.fresh().unwrap());
        fixed.create_dir_all(&path).unwrap();
    }
    let target = SavepointTarget::new(Arc::new(fixed.clone()), TARGET);
    let error = job.begin_savepoint(&target, ID).unwrap_err();
    assert_eq!(error.code(), Code::TargetExists);
    assert_eq!(names(&fixed, Path::new(TARGET)).len(), 16);
}

#[test]
fn a_file_in_the_way_of_the_target_is_refused() {
    let (sim, fs, job) = job();
    drop(sim.create(Path::new(TARGET)).unwrap());
    for target in [TARGET, "/sp/below"] {
        let target = SavepointTarget::new(fs.clone(), target);
        job.begin_savepoint(&target, ID).unwrap_err();
    }
    assert_eq!(sim.facts(Path::new(TARGET)).unwrap().unwrap().len, 0);
}

/// Tries to publish what `change` makes of good metadata; the directory must be gone afterwards.
fn refused(change: impl FnOnce(&mut TinyJob, &mut Metadata)) -> Code {
    let (sim, fs, mut job) = job();
    job.checkpoint(1, 2).unwrap();
    let target = SavepointTarget::new(fs, "/new/sp");
    let writer = job.begin_savepoint(&target, ID).unwrap();
    let tables = vec![job.put_into(&writer).unwrap()];
    let mut metadata = job.savepoint_metadata(ID, tables);
    change(&mut job, &mut metadata);
    let error = writer.publish(&metadata).unwrap_err();
    assert!(!writer.is_unknown(), "{error}");
    assert!(sim.facts(Path::new("/new")).unwrap().is_none(), "{error}");
    let late = writer.publish(&metadata).unwrap_err();
    assert_eq!(late.code(), Code::CheckpointDeclined);
    error.code()
}

fn first_table(metadata: &mut Metadata) -> &mut keybed_snapshot::TableHandle {
    let keyed = metadata.operators[0].subtasks[0].keyed.as_mut().unwrap();
    &mut keyed.families[0].runs[0].tables[0]
}

#[test]
fn no_reference_leaves_the_directory() {
    let shared = |job: &mut TinyJob, metadata: &mut Metadata| {
        first_table(metadata).file = job.tables[0].file.clone();
    };
    assert_eq!(refused(shared), Code::InvalidArgument);
    let private = |job: &mut TinyJob, metadata: &mut Metadata| {
        let id = job.root.allocate(SnapshotKind::Checkpoint, 5).unwrap().checkpoint;
        *first_table(metadata) = job.put(id, Scope::Exclusive).unwrap();
    };
    assert_eq!(refused(private), Code::InvalidArgument);
    let other_bytes = |_: &mut TinyJob, metadata: &mut Metadata| first_table(metadata).file.length += 1;
    assert_eq!(refused(other_bytes), Code::InvalidArgument);
    let gone = |job: &mut TinyJob, metadata: &mut Metadata| {
        let file = &first_table(metadata).file;
        let fs = &job.fs;
        let target = Path::new("/new/sp");
        let directory = target.join(&fs.list(target).unwrap()[0].name);
        fs.remove_file(&directory.join(file.object.as_str())).unwrap();
    };
    assert_eq!(refused(gone), Code::SnapshotIncomplete);
}

#[test]
fn metadata_of_another_snapshot_is_refused() {
    for which in 0..4 {
        let change = |_: &mut TinyJob, metadata: &mut Metadata| match which {
            0 => metadata.job = JobId(1),
            1 => metadata.generation = Generation(9),
            2 => metadata.checkpoint = CheckpointId(8),
            _ => metadata.kind = SnapshotKind::Checkpoint,
        };
        assert_eq!(refused(change), Code::InvalidArgument, "{which}");
    }
}

#[test]
fn metadata_of_a_savepoint_that_shares_is_not_even_encoded() {
    let (_sim, _fs, mut job) = job();
    job.checkpoint(1, 2).unwrap();
    for kind in [SnapshotKind::NativeSavepoint, SnapshotKind::CanonicalSavepoint] {
        let metadata = Metadata {
            kind,
            ..job.metadata(ID, job.tables.clone())
        };
        let error = keybed_snapshot::metadata::encode(&metadata).unwrap_err();
        assert_eq!(error.code(), Code::InvalidArgument);
    }
}

#[test]
fn a_savepoint_takes_no_shared_and_no_wrong_files() {
    let (sim, fs, job) = job();
    let table = Path::new(WORK).join("t");
    let trailer = write_table(&sim, &table, 5, b"content").unwrap();
    let (digest, bytes) = (trailer.digest, trailer.file_bytes());
    let writer = job
        .begin_savepoint(&SavepointTarget::new(fs, TARGET), ID)
        .unwrap();
    let put = |scope, content, digest, bytes| {
        writer
            .put_file(
                scope,
                LocalFile {
                    fs: &sim,
                    path: &table,
                    content,
                    digest,
                    bytes,
                },
            )
            .unwrap_err()
            .code()
    };
    assert_eq!(put(Scope::Shared, 5, digest, bytes), Code::InvalidArgument);
    assert_eq!(put(Scope::Exclusive, 6, digest, bytes), Code::Malformed);
    assert_eq!(put(Scope::Exclusive, 5, digest + 1, bytes), Code::Malformed);
    assert_eq!(put(Scope::Exclusive, 5, digest, bytes + 1), Code::Malformed);
    assert!(names(&sim, writer.directory()).is_empty());
}

#[test]
fn giving_up_removes_what_we_created_and_keeps_what_we_did_not() {
    let (sim, fs, mut job) = job();
    let target = SavepointTarget::new(fs.clone(), "/new/sp");
    let writer = job.begin_savepoint(&target, ID).unwrap();
    job.put_into(&writer).unwrap();
    writer.abandon().unwrap();
    writer.abandon().unwrap();
    assert!(sim.facts(Path::new("/new")).unwrap().is_none());
    assert_eq!(
        job.put_into(&writer).unwrap_err().code(),
        Code::CheckpointDeclined
    );

    // Dropping it is giving up; a neighbour keeps the directories that were created for the first one.
    let first = job.begin_savepoint(&target, ID).unwrap();
    job.put_into(&first).unwrap();
    let neighbour = job.savepoint(&target, 8).unwrap();
    drop(first);
    assert_eq!(names(&sim, Path::new("/new/sp")).len(), 1);
    check_snapshot(&fs, &neighbour).unwrap();

    let writer = job.begin_savepoint(&target, ID).unwrap();
    job.put_into(&writer).unwrap();
    drop(sim.create(&writer.directory().join("notes.txt")).unwrap());
    writer.abandon().unwrap_err();
    assert_eq!(names(&sim, writer.directory()), ["notes.txt"]);
    sim.remove_file(&writer.directory().join("notes.txt")).unwrap();
    writer.abandon().unwrap();
    assert!(sim.facts(writer.directory()).unwrap().is_none());
}

#[test]
fn a_directory_that_disappears_half_way_fails_the_savepoint_alone() {
    let (sim, fs, mut job) = job();
    let target = SavepointTarget::new(fs.clone(), TARGET);
    let writer = job.begin_savepoint(&target, ID).unwrap();
    let tables = vec![job.put_into(&writer).unwrap()];
    remove_tree(&sim, writer.directory());
    job.put_into(&writer).unwrap_err();
    writer.publish(&job.savepoint_metadata(ID, tables)).unwrap_err();
    assert!(!writer.is_unknown());
    job.checkpoint(1, 2).unwrap();
    let path = job.savepoint(&target, 8).unwrap();
    check_snapshot(&fs, &path).unwrap();
}

#[test]
fn a_published_savepoint_cannot_be_given_up() {
    let (_sim, fs, mut job) = job();
    let writer = job
        .begin_savepoint(&SavepointTarget::new(fs.clone(), TARGET), ID)
        .unwrap();
    let tables = vec![job.put_into(&writer).unwrap()];
    let metadata = job.savepoint_metadata(ID, tables);
    writer.publish(&metadata).unwrap();
    writer.abandon().unwrap_err();
    writer.publish(&metadata).unwrap_err();
    let path = writer.directory().to_path_buf();
    drop(writer);
    assert_eq!(check_snapshot(&fs, &path).unwrap(), metadata);
}

/// Four threads put files into a real directory while the savepoint is given up.
#[test]
fn a_savepoint_given_up_while_files_are_put_leaves_no_directory() {
    let place = tempfile::tempdir().unwrap();
    let fs: Arc<dyn Fs> = Arc::new(OsFs);
    let table = place.path().join("t");
    let trailer = write_table(&*fs, &table, 5, &[1; 100_000]).unwrap();
    let target = SavepointTarget::new(fs.clone(), place.path().join("sp"));
    let birth = Birth {
        generation: Generation(1),
        checkpoint: ID,
    };
    for round in 0..20_u64 {
        let writer = target.begin(JOB, birth, Ids::Entropy).unwrap();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    let (digest, bytes) = (trailer.digest, trailer.file_bytes());
                    while writer
                        .put_file(
                            Scope::Exclusive,
                            LocalFile {
                                fs: &*fs,
                                path: &table,
                                content: 5,
                                digest,
                                bytes,
                            },
                        )
                        .is_ok()
                    {}
                });
            }
            std::thread::sleep(std::time::Duration::from_micros(round * 300));
            writer.abandon().unwrap();
        });
        assert!(fs.facts(writer.directory()).unwrap().is_none(), "round {round}");
    }
}

#[test]
fn copies_share_nothing_and_links_are_made_only_on_request_and_recorded() {
    let place = tempfile::tempdir().unwrap();
    let fs: Arc<dyn Fs> = Arc::new(OsFs);
    let table = place.path().join("t");
    let trailer = write_table(&*fs, &table, 5, b"content").unwrap();
    let birth = Birth {
        generation: Generation(1),
        checkpoint: ID,
    };
    for hard_links in [false, true] {
        let mut target = SavepointTarget::new(fs.clone(), place.path().join("sp"));
        if hard_links {
            target = target.with_hard_links();
        }
        let writer = target.begin(JOB, birth, Ids::Entropy).unwrap();
        let (digest, bytes) = (trailer.digest, trailer.file_bytes());
        let file = writer
            .put_file(
                Scope::Exclusive,
                LocalFile {
                    fs: &*fs,
                    path: &table,
                    content: 5,
                    digest,
                    bytes,
                },
            )
            .unwrap();
        let path = writer.directory().join(file.object.as_str());
        let links = std::fs::metadata(&path).unwrap().nlink();
        assert_eq!(links, if hard_links { 2 } else { 1 });
        let handle = keybed_snapshot::TableHandle {
            file,
            visible_start: Vec::new(),
            visible_end: None,
            entries: 1,
        };
        let mut metadata = native(vec![handle]);
        // A record of an earlier life must not be carried on.
        metadata
            .properties
            .insert(SHARES_STORAGE_WITH.into(), "/elsewhere".into());
        writer.publish(&metadata).unwrap();
        let metadata = check_snapshot(&fs, writer.directory()).unwrap();
        let shares = metadata.properties.get(SHARES_STORAGE_WITH);
        let work = place.path().display().to_string();
        assert_eq!(shares, hard_links.then_some(&work));
        assert_eq!(
            inspect(&metadata, &[]).shares_storage_with,
            shares.into_iter().cloned().collect::<Vec<_>>()
        );
    }
}

/// A savepoint of one operator without a job around it.
fn native(tables: Vec<keybed_snapshot::TableHandle>) -> Metadata {
    let (_sim, _fs, job) = job();
    Metadata {
        root: RootId(4),
        generation: Generation(1),
        ..job.savepoint_metadata(ID, tables)
    }
}
