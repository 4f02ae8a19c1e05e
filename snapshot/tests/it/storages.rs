//! If this fails, a checkpoint that one storage keeps safely is lost or mixed up on another.

use keybed_env::{Fs, OsFs, SimFs};
use keybed_snapshot::{JobId, LocalStorage, MemoryStorage, conformance};
use std::{cell::RefCell, path::Path, sync::Arc};

#[test]
fn memory_keeps_the_rules_of_storage() {
    let dirs = RefCell::new(Vec::new());
    conformance::check(&|| {
        let local = tempfile::tempdir().unwrap();
        let path = local.path().to_path_buf();
        dirs.borrow_mut().push(local);
        let storage = MemoryStorage::new();
        let other = Arc::new(storage.clone());
        conformance::Subject {
            storage: Arc::new(storage),
            other,
            fs: Arc::new(OsFs),
            local: path,
        }
    });
}

#[test]
fn local_storage_on_the_real_file_system_keeps_the_rules_of_storage() {
    let dirs = RefCell::new(Vec::new());
    conformance::check(&|| {
        let root = tempfile::tempdir().unwrap();
        let local = root.path().join("local");
        std::fs::create_dir(&local).unwrap();
        let storage = || {
            let place = root.path().join("checkpoints of a näme");
            Arc::new(LocalStorage::create(Arc::new(OsFs), &place, JobId(1)).unwrap())
        };
        let subject = conformance::Subject {
            storage: storage(),
            other: storage(),
            fs: Arc::new(OsFs),
            local,
        };
        dirs.borrow_mut().push(root);
        subject
    });
}

#[test]
fn local_storage_on_the_simulated_file_system_keeps_the_rules_of_storage() {
    conformance::check(&|| {
        let fs = SimFs::new();
        fs.create_dir_all(Path::new("/local")).unwrap();
        let storage =
            |fs: SimFs| Arc::new(LocalStorage::create(Arc::new(fs), Path::new("/ckpt"), JobId(1)).unwrap());
        let (storage, other) = (storage(fs.clone()), storage(fs.process()));
        conformance::Subject {
            storage,
            other,
            fs: Arc::new(fs),
            local: "/local".into(),
        }
    });
}

#[test]
fn two_file_systems_without_common_names_exchange_copies() {
    let dirs = RefCell::new(Vec::new());
    conformance::check(&|| {
        let fs = SimFs::new();
        let storage =
            |fs: SimFs| Arc::new(LocalStorage::create(Arc::new(fs), Path::new("/ckpt"), JobId(1)).unwrap());
        let (storage, other) = (storage(fs.clone()), storage(fs.process()));
        let local = tempfile::tempdir().unwrap();
        let path = local.path().to_path_buf();
        dirs.borrow_mut().push(local);
        conformance::Subject {
            storage,
            other,
            fs: Arc::new(OsFs),
            local: path,
        }
    });
}
