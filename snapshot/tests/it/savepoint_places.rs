//! If this fails, a savepoint cannot be restored after it was moved or its job was deleted, a damaged or copied
//! snapshot is taken for a whole one, or deleting a savepoint harms the job's checkpoints.

use crate::support::*;
use keybed_env::{
    CountFs, FaultFs, Fs, OsFs, SimFs,
    fs::{Fault, FaultPlan},
    random::Ids,
};
use keybed_format::Code;
use keybed_snapshot::{
    Birth, CheckpointId, Generation, LocalFile, PutFiles, SavepointTarget, Scope, SnapshotDir, TableHandle,
    savepoint::{Disposal, SHARES_STORAGE_WITH},
    verify,
};
use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

const TARGET: &str = "/sp";

/// A job with two checkpoints, a savepoint, and another checkpoint.
fn disk() -> (SimFs, Arc<dyn Fs>, TinyJob, PathBuf) {
    let sim = SimFs::new();
    sim.create_dir_all(Path::new(WORK)).unwrap();
    let fs: Arc<dyn Fs> = Arc::new(sim.clone());
    let mut job = TinyJob::new(fs.clone(), resume(&fs, 3, 1).unwrap());
    job.checkpoint(1, 2).unwrap();
    job.checkpoint(1, 2).unwrap();
    let target = SavepointTarget::new(fs.clone(), TARGET);
    let path = job.savepoint(&target, 3).unwrap();
    job.checkpoint(1, 2).unwrap();
    (sim, fs, job, path)
}

#[test]
fn a_savepoint_outlives_its_job() {
    let (sim, fs, job, path) = disk();
    let before = check_snapshot(&fs, &path).unwrap();
    drop(job);
    remove_tree(&sim, Path::new(CHECKPOINTS));
    remove_tree(&sim, Path::new(WORK));
    assert_eq!(check_snapshot(&fs, &path).unwrap(), before);
}

#[test]
fn a_job_outlives_its_savepoint() {
    let (sim, fs, mut job, path) = disk();
    remove_tree(&sim, &path);
    job.checkpoint(1, 2).unwrap();
    let report = job.root.cleanup();
    assert!(report.error.is_none(), "{report:?}");
    assert_eq!(job.root.completed().len(), 3);
    for id in job.root.completed() {
        check_snapshot(&fs, &job_root().join(format!("chk-{id}"))).unwrap();
    }
}

#[test]
fn a_moved_savepoint_opens_by_directory_and_by_file_wherever_it_lies() {
    let (sim, fs, job, path) = disk();
    let before = check_snapshot(&fs, &path).unwrap();
    // Among them places whose surroundings mean something to a checkpoint.
    let places = [
        PathBuf::from("/mit Leer zeichen/größe – 保存点"),
        PathBuf::from("/chk-99"),
        job_root().join("chk-77"),
        job_root().join("savepoint"),
        PathBuf::from("relative"),
    ];
    for place in places {
        if let Some(parent) = place.parent().filter(|p| !p.as_os_str().is_empty()) {
            sim.create_dir_all(parent).unwrap();
        }
        copy_dir(&sim, &path, &place);
        for name in [place.clone(), place.join("_metadata")] {
            assert_eq!(check_snapshot(&fs, &name).unwrap(), before, "{}", name.display());
        }
        remove_tree(&sim, &place);
    }
    let moved = Path::new("/moved");
    sim.rename(&path, moved).unwrap();
    drop(job);
    assert_eq!(check_snapshot(&fs, moved).unwrap(), before);
    assert!(
        SnapshotDir::open(fs.clone(), moved)
            .unwrap()
            .siblings()
            .unwrap()
            .is_empty()
    );
    assert_eq!(
        SnapshotDir::open(fs, &path).unwrap_err().code(),
        Code::NotASnapshot
    );
}

#[test]
fn a_savepoint_in_a_root_with_newer_or_damaged_owners_is_no_business_of_theirs() {
    let (sim, fs, job, path) = disk();
    drop(job);
    let place = job_root().join("kept");
    copy_dir(&sim, &path, &place);
    // The next owner begins below the savepoint's id: a checkpoint of that id would be void.
    drop(open(&fs).unwrap().start(options(None, 1, 2)).unwrap());
    check_snapshot(&fs, &place).unwrap();
    sim.corrupt(job_root().join("owner/1"), Vec::clear).unwrap();
    check_snapshot(&fs, &place).unwrap();
}

#[test]
fn a_savepoint_without_files_is_its_metadata_alone() {
    let (sim, fs, job, _) = disk();
    let target = SavepointTarget::new(fs.clone(), TARGET);
    let writer = job.begin_savepoint(&target, CheckpointId(9)).unwrap();
    writer
        .publish(&job.savepoint_metadata(CheckpointId(9), Vec::new()))
        .unwrap();
    sim.create_dir(Path::new("/mail")).unwrap();
    let alone = Path::new("/mail/from monday.savepoint");
    sim.rename(&writer.directory().join("_metadata"), alone).unwrap();
    check_snapshot(&fs, alone).unwrap();
}

#[test]
fn any_flipped_bit_of_a_savepoint_is_found() {
    let (sim, _, _, path) = disk();
    for entry in sim.list(&path).unwrap() {
        let file = path.join(&entry.name);
        for at in 0..sim.facts(&file).unwrap().unwrap().len {
            let bad = sim.live_image();
            bad.corrupt(&file, |bytes| bytes[at as usize] ^= 1 << (at % 8))
                .unwrap();
            let fs: Arc<dyn Fs> = Arc::new(bad);
            let error = check_snapshot(&fs, &path).unwrap_err();
            // A damaged version word of a trailer cannot be told from a newer format.
            let newer = error.code() == Code::UnsupportedFormatVersion && entry.name != "_metadata";
            assert!(
                error.code() == Code::SnapshotCorrupt || newer,
                "{} at {at}: {error}",
                entry.name
            );
            assert_eq!(error.file(), Some(file.as_path()), "{error}");
        }
    }
}

#[test]
fn every_missing_file_of_a_savepoint_is_listed_before_any_is_read() {
    let (sim, fs, _, path) = disk();
    let files: Vec<PathBuf> = sim
        .list(&path)
        .unwrap()
        .into_iter()
        .filter(|e| e.name != "_metadata")
        .map(|e| path.join(e.name))
        .collect();
    assert_eq!(files.len(), 2);
    for file in &files {
        sim.remove_file(file).unwrap();
    }
    let error = SnapshotDir::open(fs, &path)
        .unwrap()
        .check_complete()
        .unwrap_err();
    assert_eq!(error.code(), Code::SnapshotIncomplete);
    for file in &files {
        assert!(error.to_string().contains(file.to_str().unwrap()), "{error}");
    }
}

#[test]
fn a_checkpoint_moves_with_its_root_and_lists_what_a_copy_lacks() {
    let (sim, fs, job, _) = disk();
    drop(job);
    let chk = job_root().join("chk-3");
    // The whole root elsewhere.
    sim.create_dir_all(Path::new("/else where")).unwrap();
    let moved = Path::new("/else where/anything");
    for folder in ["owner", "shared", "chk-3"] {
        copy_dir(&sim, &job_root().join(folder), &moved.join(folder));
    }
    for name in [moved.join("chk-3"), moved.join("chk-3/_metadata")] {
        check_snapshot(&fs, &name).unwrap();
    }
    // Alone, in nobody's root, then in another job's.
    let copies = [PathBuf::from("/copies/chk-3"), PathBuf::from("/copies/any name")];
    for copy in &copies {
        copy_dir(&sim, &chk, copy);
    }
    for stage in 0..2 {
        if stage == 1 {
            let other: Arc<dyn Fs> = fs.clone();
            let storage =
                keybed_snapshot::LocalStorage::create(other, Path::new("/others"), keybed_snapshot::JobId(9));
            let root = keybed_snapshot::OpenRoot::open(Arc::new(storage.unwrap()), keybed_snapshot::JobId(9));
            drop(root.unwrap().start(options(None, 1, 99)).unwrap());
            let theirs = Path::new("/others").join(keybed_snapshot::JobId(9).to_string());
            copy_dir(&sim, &theirs.join("owner"), Path::new("/copies/owner"));
        }
        for copy in &copies {
            let snapshot = SnapshotDir::open(fs.clone(), copy).unwrap();
            let error = snapshot.check_complete().unwrap_err();
            assert_eq!(error.code(), Code::SnapshotIncomplete);
            let shared = snapshot
                .metadata()
                .files()
                .filter(|file| file.anchor == keybed_snapshot::Anchor::Root);
            let mut count = 0;
            for file in shared {
                assert!(error.to_string().contains(file.object.as_str()), "{error}");
                count += 1;
            }
            assert_eq!(count, 2);
        }
    }
    // The original is what it was.
    check_snapshot(&fs, &chk).unwrap();
}

/// A savepoint of one table on a real disk.
fn on_disk(place: &Path) -> (Arc<dyn Fs>, PathBuf) {
    let fs: Arc<dyn Fs> = Arc::new(OsFs);
    let table = place.join("t");
    let trailer = write_table(&*fs, &table, 5, &[3; 10_000]).unwrap();
    let target = SavepointTarget::new(fs.clone(), place.join("target dir/ünï"));
    let birth = Birth {
        generation: Generation(1),
        checkpoint: CheckpointId(1),
    };
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
    let handle = TableHandle {
        file,
        visible_start: Vec::new(),
        visible_end: None,
        entries: 1,
    };
    let sim: Arc<dyn Fs> = Arc::new(SimFs::new());
    let job = TinyJob::new(sim.clone(), resume(&sim, 1, 1).unwrap());
    writer
        .publish(&job.savepoint_metadata(CheckpointId(1), vec![handle]))
        .unwrap();
    std::fs::remove_file(&table).unwrap();
    (fs, writer.directory().to_path_buf())
}

#[test]
fn a_savepoint_on_disk_is_renamed_copied_and_fetched() {
    let place = tempfile::tempdir().unwrap();
    let (fs, path) = on_disk(place.path());
    let before = check_snapshot(&fs, &path).unwrap();
    let copy = place.path().join("копия");
    copy_dir(&*fs, &path, &copy);
    let moved = place.path().join("moved here");
    std::fs::rename(&path, &moved).unwrap();
    for name in [&copy, &moved, &moved.join("_metadata")] {
        assert_eq!(check_snapshot(&fs, name).unwrap(), before);
    }
    // By a link to the directory, too, and from inside.
    let link = place.path().join("latest");
    std::os::unix::fs::symlink(&moved, &link).unwrap();
    assert_eq!(check_snapshot(&fs, &link).unwrap(), before);

    use keybed_snapshot::OpenFiles;
    let snapshot = SnapshotDir::open(fs.clone(), &moved).unwrap();
    let handle = before.files().next().unwrap();
    let to = place.path().join("fetched");
    snapshot.fetch(handle, &*fs, &to).unwrap();
    let source = moved.join(handle.object.as_str());
    assert_eq!(std::fs::read(&to).unwrap(), std::fs::read(&source).unwrap());
    use std::os::unix::fs::MetadataExt;
    assert_eq!(
        std::fs::metadata(&source).unwrap().nlink(),
        1,
        "fetched by copy, never by link"
    );
}

#[test]
fn symbolic_links_in_place_of_files_are_refused() {
    let place = tempfile::tempdir().unwrap();
    let (fs, path) = on_disk(place.path());
    let elsewhere = place.path().join("elsewhere");
    for entry in fs.list(&path).unwrap() {
        let file = path.join(&entry.name);
        std::fs::rename(&file, &elsewhere).unwrap();
        std::os::unix::fs::symlink(&elsewhere, &file).unwrap();
        let error = check_snapshot(&fs, &path).unwrap_err();
        assert_eq!(error.file(), Some(file.as_path()), "{error}");
        if entry.name != "_metadata" {
            assert_eq!(error.code(), Code::SnapshotCorrupt, "{error}");
        }
        std::fs::remove_file(&file).unwrap();
        std::fs::rename(&elsewhere, &file).unwrap();
        check_snapshot(&fs, &path).unwrap();
    }
}

#[test]
fn what_is_no_snapshot_is_called_so() {
    let (sim, fs, _, path) = disk();
    sim.create_dir(Path::new("/empty")).unwrap();
    let text = Path::new("/text");
    sim.create(text).unwrap().append(b"not a snapshot").unwrap();
    let disposing = path.join("_disposing");
    sim.copy(&path.join("_metadata"), &disposing).unwrap();
    for place in [Path::new("/nowhere"), Path::new("/empty"), text, &disposing] {
        let error = SnapshotDir::open(fs.clone(), place).unwrap_err();
        assert_eq!(error.code(), Code::NotASnapshot, "{error}");
    }
    let snapshot = SnapshotDir::open(fs, &path).unwrap();
    assert_eq!(verify(snapshot.metadata(), &snapshot).files, 2);
}

#[test]
fn a_read_only_place_serves_and_cannot_be_disposed_of() {
    let (sim, _, job, path) = disk();
    drop(job);
    let faulty = FaultFs::new(Arc::new(sim.clone()));
    faulty.arm(FaultPlan::new(Fault::Erofs, 1).forever());
    let fs: Arc<dyn Fs> = Arc::new(faulty.clone());
    check_snapshot(&fs, &path).unwrap();
    check_snapshot(&fs, &job_root().join("chk-2")).unwrap();
    assert_eq!(faulty.triggered(), 0, "opening and reading write nothing");
    let before = sim.tree();
    let error = Disposal::plan(fs, &path).unwrap().execute().unwrap_err();
    assert_eq!(error.code(), Code::ReadOnlyMedium);
    assert_eq!(sim.tree(), before);
}

#[test]
fn a_linked_savepoint_outlives_what_it_was_linked_from() {
    let (sim, fs, mut job, _) = disk();
    let target = SavepointTarget::new(fs.clone(), TARGET).with_hard_links();
    let path = job.savepoint(&target, 9).unwrap();
    let linked = check_snapshot(&fs, &path).unwrap();
    assert_eq!(linked.properties[SHARES_STORAGE_WITH], WORK);
    let kept = job.savepoint(&target, 10).unwrap();
    remove_tree(&sim, &kept);
    job.checkpoint(1, 2).unwrap();
    for id in job.root.completed() {
        check_snapshot(&fs, &job_root().join(format!("chk-{id}"))).unwrap();
    }
    drop(job);
    remove_tree(&sim, Path::new(CHECKPOINTS));
    remove_tree(&sim, Path::new(WORK));
    assert_eq!(check_snapshot(&fs, &path).unwrap(), linked);
}

#[test]
fn where_links_are_impossible_files_are_copied_and_nothing_is_recorded() {
    let (_sim, fs, job, _) = disk();
    let elsewhere = SimFs::new();
    let other: Arc<dyn Fs> = Arc::new(elsewhere.clone());
    let target = SavepointTarget::new(other.clone(), TARGET).with_hard_links();
    let writer = job.begin_savepoint(&target, CheckpointId(9)).unwrap();
    let table = Path::new(WORK).join("far");
    let trailer = write_table(&*fs, &table, 5, &[3; 3_000_000]).unwrap();
    let (digest, bytes) = (trailer.digest, trailer.file_bytes());
    let put = writer.put_file(
        Scope::Exclusive,
        LocalFile {
            fs: &*fs,
            path: &table,
            content: 5,
            digest,
            bytes,
        },
    );
    let handle = TableHandle {
        file: put.unwrap(),
        visible_start: Vec::new(),
        visible_end: None,
        entries: 1,
    };
    writer
        .publish(&job.savepoint_metadata(CheckpointId(9), vec![handle]))
        .unwrap();
    let durable: Arc<dyn Fs> = Arc::new(elsewhere.strict_image(elsewhere.op_count()));
    let metadata = check_snapshot(&durable, writer.directory()).unwrap();
    assert!(metadata.properties.is_empty());
}

#[test]
fn a_given_file_is_moved_in_where_that_is_possible_and_shares_nothing() {
    let (_sim, fs, job, _) = disk();
    let far: Arc<dyn Fs> = Arc::new(SimFs::new());
    for (place, may_link) in [(fs.clone(), true), (far, false)] {
        let counted = CountFs::new(place.clone());
        let target = SavepointTarget::new(Arc::new(counted.clone()), TARGET);
        let writer = job.begin_savepoint(&target, CheckpointId(9)).unwrap();
        let table = Path::new(WORK).join("given");
        let trailer = write_table(&*fs, &table, 5, &[3; 3_000_000]).unwrap();
        let (digest, bytes) = (trailer.digest, trailer.file_bytes());
        let refused = writer.give_file(
            Scope::Shared,
            LocalFile {
                fs: &*fs,
                path: &table,
                content: 5,
                digest,
                bytes,
            },
        );
        assert_eq!(refused.unwrap_err().code(), Code::InvalidArgument);
        let before = counted.counts();
        let file = writer
            .give_file(
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
        let written = counted.counts().bytes_written - before.bytes_written;
        assert_eq!(written == 0, may_link, "{written} bytes");
        fs.remove_file(&table).unwrap();
        let handle = TableHandle {
            file,
            visible_start: Vec::new(),
            visible_end: None,
            entries: 1,
        };
        writer
            .publish(&job.savepoint_metadata(CheckpointId(9), vec![handle]))
            .unwrap();
        let metadata = check_snapshot(&place, writer.directory()).unwrap();
        assert!(metadata.properties.is_empty(), "nothing is shared: {metadata:?}");
    }
}
