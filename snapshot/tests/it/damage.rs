//! If this fails, a damaged checkpoint is restored with changed data, or taken for an older one, or its remains are
//! deleted before anybody could look at them.

use crate::support::*;
use keybed_env::{Fs, SimFs};
use keybed_format::{Code, Result};
use keybed_snapshot::{
    Anchor, CandidateStanding, CheckpointId, FinishedRecord, Generation, JobId, OwnerRecord, RootId,
    SnapshotDir, verify,
};
use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

/// Three checkpoints of a job that ended without cleaning up.
fn disk() -> SimFs {
    let sim = SimFs::new();
    sim.create_dir_all(Path::new(WORK)).unwrap();
    let fs: Arc<dyn Fs> = Arc::new(sim.clone());
    let mut job = TinyJob::new(fs.clone(), resume(&fs, 2, 1).unwrap());
    for _ in 1..=3 {
        job.checkpoint(1, 2).unwrap();
    }
    sim
}

fn on(sim: &SimFs) -> Arc<dyn Fs> {
    Arc::new(sim.clone())
}

fn snapshot(n: u64) -> PathBuf {
    job_root().join(format!("chk-{n}"))
}

fn check(sim: &SimFs, n: u64) -> Result {
    let snapshot = SnapshotDir::open(on(sim), &snapshot(n))?;
    snapshot.check_root()?;
    verify(snapshot.metadata(), &snapshot).verdict()
}

/// Paths of the files of checkpoint `n`, metadata first.
fn files(sim: &SimFs, n: u64) -> Vec<PathBuf> {
    let tree = sim.tree();
    let metadata = |path: &&PathBuf| path.ends_with(format!("chk-{n}/_metadata"));
    let (path, bytes) = tree.iter().find(|(path, _)| metadata(path)).unwrap();
    let mut all = vec![Path::new("/").join(path)];
    let one = [(path.clone(), bytes.clone())].into_iter().collect();
    all.extend(
        needed(&one)
            .into_iter()
            .map(|p| Path::new("/").join(p))
            .filter(|p| !p.ends_with("_metadata")),
    );
    all
}

#[test]
fn a_whole_checkpoint_verifies_by_directory_and_by_file() {
    let sim = disk();
    for n in 1..=3 {
        check(&sim, n).unwrap();
    }
    let by_file = SnapshotDir::open(on(&sim), &snapshot(3).join("_metadata")).unwrap();
    let verification = verify(by_file.metadata(), &by_file);
    assert_eq!((verification.files, verification.problems.len()), (3, 0));
    assert_eq!(by_file.siblings().unwrap().len(), 2);
}

#[test]
fn a_flipped_bit_anywhere_is_named_with_file_and_offset() {
    let sim = disk();
    for path in files(&sim, 3) {
        let len = sim.facts(&path).unwrap().unwrap().len;
        for at in (0..len).step_by((len as usize / 200).max(1)) {
            let bad = sim.live_image();
            bad.corrupt(&path, |bytes| bytes[at as usize] ^= 1 << (at % 8))
                .unwrap();
            let error = check(&bad, 3).unwrap_err();
            assert_eq!(
                error.code(),
                Code::SnapshotCorrupt,
                "{} at {at}: {error}",
                path.display()
            );
            assert_eq!(
                error.file().map(Path::file_name),
                Some(path.file_name()),
                "{error}"
            );
            assert!(error.offset().is_some(), "{error}");
        }
    }
}

#[test]
fn truncated_extended_empty_and_swapped_files_are_named() {
    let sim = disk();
    let all = files(&sim, 3);
    for path in &all {
        for change in [0, 1, 2] {
            let bad = sim.live_image();
            let cut = |bytes: &mut Vec<u8>| match change {
                0 => bytes.clear(),
                1 => drop(bytes.pop()),
                _ => bytes.push(0),
            };
            bad.corrupt(path, cut).unwrap();
            assert_eq!(
                check(&bad, 3).unwrap_err().code(),
                Code::SnapshotCorrupt,
                "{}",
                path.display()
            );
        }
    }
    let bad = sim.live_image();
    let (first, second) = (
        sim.read(&all[1], 1 << 20).unwrap(),
        sim.read(&all[2], 1 << 20).unwrap(),
    );
    bad.corrupt(&all[1], |bytes| bytes.clone_from(&second)).unwrap();
    bad.corrupt(&all[2], |bytes| bytes.clone_from(&first)).unwrap();
    assert_eq!(check(&bad, 3).unwrap_err().code(), Code::SnapshotCorrupt);
}

#[test]
fn all_missing_files_are_listed() {
    let sim = disk();
    let all = files(&sim, 3);
    for path in &all[1..] {
        sim.remove_file(path).unwrap();
    }
    let error = check(&sim, 3).unwrap_err();
    assert_eq!(error.code(), Code::SnapshotIncomplete);
    for path in &all[1..] {
        assert!(error.to_string().contains(path.to_str().unwrap()), "{error}");
    }
}

#[test]
fn symbolic_names_and_directories_are_no_files() {
    let sim = disk();
    let all = files(&sim, 3);
    sim.remove_file(&all[1]).unwrap();
    sim.create_dir(&all[1]).unwrap();
    assert!(check(&sim, 3).is_err());
    let nothing = SnapshotDir::open(on(&sim), Path::new("/nowhere")).unwrap_err();
    assert_eq!(nothing.code(), Code::NotASnapshot);
    assert_eq!(
        SnapshotDir::open(on(&sim), Path::new(WORK)).unwrap_err().code(),
        Code::NotASnapshot
    );
}

#[test]
fn a_link_out_of_the_root_is_not_followed() {
    let dir = tempfile::tempdir().unwrap();
    let (root, secret) = (dir.path().join("root"), dir.path().join("secret"));
    std::fs::create_dir_all(root.join("chk-1")).unwrap();
    std::fs::create_dir(&secret).unwrap();
    let sim = disk();
    for (path, bytes) in sim.tree() {
        let Ok(inside) = Path::new("/")
            .join(path)
            .strip_prefix(job_root())
            .map(Path::to_path_buf)
        else {
            continue;
        };
        let folder = if inside.starts_with("shared") {
            &secret
        } else {
            &root.join("chk-1")
        };
        if inside.starts_with("shared") || inside.starts_with("chk-1") {
            std::fs::write(folder.join(inside.file_name().unwrap()), bytes).unwrap();
        }
    }
    std::os::unix::fs::symlink(&secret, root.join("shared")).unwrap();
    let snapshot = SnapshotDir::open(Arc::new(keybed_env::OsFs), &root.join("chk-1")).unwrap();
    let error = verify(snapshot.metadata(), &snapshot).verdict().unwrap_err();
    assert_eq!(error.code(), Code::SnapshotCorrupt, "{error}");
    std::fs::remove_file(root.join("shared")).unwrap();
    std::fs::rename(&secret, root.join("shared")).unwrap();
    verify(snapshot.metadata(), &snapshot).verdict().unwrap();
    let shared = snapshot
        .metadata()
        .files()
        .find(|file| file.anchor == Anchor::Root)
        .unwrap();
    let file = root.join("shared").join(shared.object.as_str());
    std::fs::rename(&file, dir.path().join("elsewhere")).unwrap();
    std::os::unix::fs::symlink(dir.path().join("elsewhere"), &file).unwrap();
    let error = verify(snapshot.metadata(), &snapshot).verdict().unwrap_err();
    assert_eq!(error.code(), Code::SnapshotCorrupt, "{error}");
}

#[test]
fn a_damaged_newest_checkpoint_is_an_error_that_names_it() {
    let sim = disk();
    let metadata = snapshot(3).join("_metadata");
    sim.corrupt(&metadata, |bytes| bytes[100] ^= 1).unwrap();
    let before = sim.tree();
    let opened = open(&on(&sim)).unwrap();
    let error = opened.latest().unwrap_err();
    assert_eq!(
        (error.code(), error.file()),
        (Code::SnapshotCorrupt, Some(metadata.as_path())),
        "{error}"
    );
    assert_eq!(opened.candidates()[0].standing, CandidateStanding::Unreadable);
    assert_eq!(
        opened.checkpoint(CheckpointId(3)).unwrap_err().code(),
        Code::SnapshotCorrupt
    );
    // The caller chooses the one before; with one unreadable file nothing at all is deleted.
    let root = opened.start(options(Some(CheckpointId(2)), 1, 2)).unwrap();
    let report = root.cleanup();
    assert_eq!(
        report.error.as_ref().map(keybed_format::Error::code),
        Some(Code::GcRefused)
    );
    assert_eq!((report.checkpoints.len(), report.objects), (0, 0));
    assert!(
        before
            .iter()
            .all(|(path, bytes)| path.ends_with("LOCK") || sim.tree().get(path) == Some(bytes))
    );
    let mut job = TinyJob::new(on(&sim), root);
    assert_eq!(
        job.checkpoint(1, 2).unwrap(),
        CheckpointId(4),
        "checkpoints go on"
    );
    drop(job);
    assert_eq!(
        open(&on(&sim)).unwrap().latest().unwrap().unwrap().checkpoint,
        CheckpointId(4)
    );
}

#[test]
fn metadata_of_another_checkpoint_or_root_is_refused() {
    let sim = disk();
    let other = sim.read(&snapshot(2).join("_metadata"), 1 << 20).unwrap();
    sim.corrupt(snapshot(3).join("_metadata"), |bytes| bytes.clone_from(&other))
        .unwrap();
    let error = open(&on(&sim)).unwrap().latest().unwrap_err();
    assert_eq!(error.code(), Code::SnapshotCorrupt, "{error}");

    let stranger = SimFs::new();
    stranger.create_dir_all(Path::new(WORK)).unwrap();
    let fs = on(&stranger);
    let mut job = TinyJob::new(fs.clone(), resume(&fs, 2, 99).unwrap());
    for _ in 1..=3 {
        job.checkpoint(1, 2).unwrap();
    }
    drop(job);
    stranger
        .corrupt(snapshot(3).join("_metadata"), |bytes| {
            bytes.clone_from(&disk().read(&snapshot(3).join("_metadata"), 1 << 20).unwrap());
        })
        .unwrap();
    assert_eq!(
        open(&fs).unwrap().latest().unwrap_err().code(),
        Code::SnapshotIncomplete
    );
    assert_eq!(check(&stranger, 3).unwrap_err().code(), Code::SnapshotIncomplete);
}

#[test]
fn a_damaged_owner_record_stops_everything() {
    let sim = disk();
    sim.corrupt(job_root().join("owner/1"), |bytes| bytes[60] ^= 1)
        .unwrap();
    let error = open(&on(&sim)).unwrap_err();
    assert_eq!(error.code(), Code::SnapshotCorrupt);
    assert!(error.file().unwrap().ends_with("owner/1"), "{error}");
}

#[test]
fn a_finished_record_of_another_job_ends_nothing() {
    let sim = disk();
    let stranger = FinishedRecord {
        job: JobId(1),
        root: RootId(2),
        generation: Generation(1),
        checkpoint: None,
        timestamp_ms: 1,
    };
    let path = job_root().join("FINISHED");
    sim.create(&path).unwrap().append(&stranger.encode()).unwrap();
    let error = open(&on(&sim)).unwrap_err();
    assert_eq!(error.code(), Code::SnapshotCorrupt, "{error}");
    assert!(error.file().unwrap().ends_with("FINISHED"), "{error}");
}

#[test]
fn a_folder_of_the_highest_number_is_an_error_and_no_panic() {
    let sim = disk();
    sim.create_dir(&snapshot(u64::MAX)).unwrap();
    let before = sim.tree();
    resume(&on(&sim), 2, 2).unwrap_err();
    assert!(
        before
            .iter()
            .all(|(path, bytes)| path.ends_with("LOCK") || sim.tree().get(path) == Some(bytes))
    );
    assert_eq!(before.len(), sim.tree().len());
    sim.remove_dir(&snapshot(u64::MAX)).unwrap();
    resume(&on(&sim), 2, 2).unwrap();
}

#[test]
fn an_owner_record_of_the_highest_number_is_an_error_and_no_panic() {
    let sim = disk();
    let bytes = sim.read(&job_root().join("owner/1"), 1 << 20).unwrap();
    let record = OwnerRecord {
        generation: Generation(u64::MAX),
        ..OwnerRecord::decode(&bytes).unwrap()
    };
    let path = job_root().join(format!("owner/{}", u64::MAX));
    sim.create(&path).unwrap().append(&record.encode()).unwrap();
    resume(&on(&sim), 2, 2).unwrap_err();
}

#[test]
fn a_checkpoint_in_the_folder_of_another_is_refused_by_its_path() {
    let sim = disk();
    let other = sim.read(&snapshot(2).join("_metadata"), 1 << 20).unwrap();
    sim.corrupt(snapshot(3).join("_metadata"), |bytes| bytes.clone_from(&other))
        .unwrap();
    for path in [snapshot(3), snapshot(3).join("_metadata")] {
        let error = SnapshotDir::open(on(&sim), &path).map(drop).unwrap_err();
        assert_eq!(error.code(), Code::SnapshotCorrupt, "{error}");
    }
    // A copy under a name of the user's own is fine.
    let elsewhere = Path::new("/my-backup");
    sim.create_dir(elsewhere).unwrap();
    sim.create(&elsewhere.join("_metadata"))
        .unwrap()
        .append(&other)
        .unwrap();
    SnapshotDir::open(on(&sim), elsewhere).unwrap();
}

#[test]
fn a_checkpoint_that_a_hand_removed_blocks_no_cleanup() {
    let sim = disk();
    let fs = on(&sim);
    let mut job = TinyJob::new(fs.clone(), resume(&fs, 1, 2).unwrap());
    for name in sim.list(&snapshot(1)).unwrap() {
        sim.remove_file(&snapshot(1).join(name.name)).unwrap();
    }
    sim.remove_dir(&snapshot(1)).unwrap();
    job.checkpoint(1, 1).unwrap();
    let report = job.root.cleanup();
    assert!(report.error.is_none(), "{report:?}");
    assert_eq!(kept(&sim.tree()), needed(&sim.tree()));
}

#[test]
fn a_missing_owner_record_is_an_error_and_no_older_or_empty_state() {
    let sim = disk();
    let fs = on(&sim);
    for seed in 2..=3 {
        let mut job = TinyJob::new(fs.clone(), resume(&fs, 9, seed).unwrap());
        job.checkpoint(1, 2).unwrap();
    }
    let newest = open(&fs).unwrap().latest().unwrap().unwrap();
    assert_eq!(newest.checkpoint, CheckpointId(5));
    for missing in [&[1][..], &[2], &[3], &[1, 2, 3]] {
        let image = sim.live_image();
        for generation in missing {
            image
                .remove_file(&job_root().join(format!("owner/{generation}")))
                .unwrap();
        }
        let error = open(&on(&image)).map(drop).unwrap_err();
        assert_eq!(error.code(), Code::SnapshotIncomplete, "{missing:?}: {error}");
        assert!(error.to_string().contains("owner"), "{error}");
    }
}
