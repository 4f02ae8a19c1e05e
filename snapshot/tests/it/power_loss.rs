//! If this fails, a power loss takes a checkpoint that was reported complete, or leaves one that looks complete
//! and is not.

use keybed_env::{
    FaultFs, Fs, Random, SimFs,
    fs::{Fault, FaultPlan, FsOp},
};
use keybed_format::trailer::TrailerBuilder;
use keybed_snapshot::{
    Birth, CheckpointId, CheckpointStorage, Generation, JobId, LocalStorage, ObjectName,
    storage::{ObjectPath, Place},
};
use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

const ROOT: &str = "/checkpoints";

fn name(number: u128) -> ObjectName {
    ObjectName::of(birth(), number)
}

fn temporary(number: u128) -> ObjectName {
    ObjectName::temporary(birth(), number)
}

fn birth() -> Birth {
    Birth {
        generation: Generation(1),
        checkpoint: CheckpointId(1),
    }
}

/// A finished file with its trailer, not synced, as the engine leaves it.
fn table(fs: &dyn Fs, path: &Path) -> Vec<u8> {
    let content: Vec<u8> = (0..3000_u32).map(|i| (i * 7 + 1) as u8).collect();
    let mut trailer = TrailerBuilder::new(7, u32::from_le_bytes(*b"test"));
    trailer.update(&content);
    let bytes = [content, trailer.finish().0].concat();
    let mut file = fs.create(path).unwrap();
    for piece in bytes.chunks(1000) {
        file.append(piece).unwrap();
    }
    bytes
}

struct Disk {
    sim: Arc<SimFs>,
    faults: FaultFs,
    storage: LocalStorage,
}

fn disk() -> Disk {
    let sim = Arc::new(SimFs::new());
    sim.create_dir(Path::new("/local")).unwrap();
    let faults = FaultFs::new(sim.clone());
    let storage = LocalStorage::create(Arc::new(faults.clone()), Path::new(ROOT), JobId(1)).unwrap();
    sim.settle();
    Disk { sim, faults, storage }
}

fn file_of(image: &SimFs, path: &ObjectPath) -> Option<Vec<u8>> {
    let root = PathBuf::from(ROOT).join(JobId(1).to_string());
    let storage = LocalStorage::at(Arc::new(image.clone()), root);
    storage.read(path, 1 << 20).ok()
}

/// Puts a table and publishes a checkpoint with it; `careful` is false for the planted mistake of not syncing the
/// names of shared files. Returns the images in which the checkpoint is visible or promised, and is not whole.
fn broken_images(careful: bool) -> (u64, u64) {
    let Disk { sim, faults, storage } = disk();
    let local = Path::new("/local/a.sst");
    let bytes = table(&faults, local);
    let id = CheckpointId(1);
    let shared = ObjectPath::Shared(name(1));
    storage.create_checkpoint(id).unwrap();
    storage
        .put_file(&shared, &faults, local, bytes.len() as u64)
        .unwrap();
    if careful {
        storage.sync(Place::Shared).unwrap();
    }
    storage
        .put_new(&ObjectPath::Metadata(id), b"the checkpoint", &temporary(2))
        .unwrap();
    let promised = sim.op_count();
    sim.remove_file(local).unwrap();
    sim.sync_dir(Path::new("/local")).unwrap();

    let mut broken = 0;
    let distinct = sim.each_crash_image(400, &mut Random::from_seed(3), |at, image| {
        let metadata = file_of(image, &ObjectPath::Metadata(id));
        assert!(
            metadata.as_deref().is_none_or(|found| found == b"the checkpoint"),
            "a torn document is visible"
        );
        assert!(at < promised || metadata.is_some(), "promised and lost");
        broken += u64::from(metadata.is_some() && file_of(image, &shared).as_ref() != Some(&bytes));
    });
    (distinct, broken)
}

#[test]
fn a_published_checkpoint_is_whole_in_every_crash_image() {
    let (distinct, broken) = broken_images(true);
    assert_eq!(broken, 0, "of {distinct} images");
    assert!(distinct > 500, "{distinct} images");
}

#[test]
fn names_that_were_not_synced_before_publication_would_be_noticed() {
    assert!(broken_images(false).1 > 0);
}

#[test]
fn bytes_lost_by_a_failed_sync_never_enter_a_later_checkpoint() {
    let Disk { sim, faults, storage } = disk();
    let local = Path::new("/local/a.sst");
    let bytes = table(&faults, local);
    faults.arm(FaultPlan::new(Fault::FailedSync, 1).only(&[FsOp::Sync]));
    let put = |number| {
        let path = ObjectPath::Shared(name(number));
        storage
            .put_file(&path, &faults, local, bytes.len() as u64)
            .map(|()| path)
    };
    put(1).unwrap_err();
    assert_eq!(faults.triggered(), 1);
    // The next checkpoint tries the same file again. It may fail; if it succeeds the bytes must be there.
    if let Ok(path) = put(2) {
        storage.sync(Place::Shared).unwrap();
        let found = file_of(&sim.strict_image(sim.op_count()), &path);
        assert!(
            found.as_ref() == Some(&bytes),
            "the checkpoint's file lost its bytes"
        );
    }
}
