//! If this fails, looking at a store disturbs its owner, changes it, or shows what it never held.

use crate::logged::{FAMILIES, Logged, Program};
use crate::support::disk;
use keybed_env::{
    CountFs, FaultFs, Fs, Random, SimFs,
    fs::{Fault, FaultPlan, FsOp},
};
use keybed_format::{Code, Result};
use keybed_lsm::{Durability, Store, StoreOptions};
use std::{path::Path, sync::Arc};

fn look(fs: Arc<dyn Fs>) -> Result<Logged> {
    let store = Store::open_read_only("s", Logged::options(fs, 77, Durability::Buffered))?;
    Logged::around(store)
}

fn tree(fs: &SimFs) -> Vec<(std::path::PathBuf, Vec<u8>)> {
    fs.tree().into_iter().collect()
}

#[test]
fn a_store_is_seen_while_its_owner_writes_and_nothing_is_written() {
    let fs = disk();
    let mut random = Random::from_seed(1);
    let mut program = Program::default();
    let mut owner = Logged::open(fs.clone(), 1, Durability::Buffered).unwrap();
    let mut before = Vec::new();
    for round in 0..150 {
        program.step(&mut owner, &mut random).unwrap();
        match random.below(20) {
            0 => owner.store.flush().unwrap(),
            1 => owner
                .store
                .compact(owner.families[random.index(FAMILIES)])
                .unwrap(),
            _ => {}
        }
        let files = tree(&fs);
        let reader = look(Arc::new(fs.process())).unwrap();
        assert_eq!(reader.content().unwrap(), program.models, "round {round}");
        assert!(tree(&fs) == files, "round {round}: looking changed the store");
        before.push((reader, program.models.clone()));
    }
    owner.store.close().unwrap();
    // What was seen stays, whatever the owner removed since.
    for (reader, models) in before.iter().step_by(10) {
        assert_eq!(reader.content().unwrap(), *models);
    }
}

#[test]
fn a_dead_store_is_seen_on_a_medium_that_cannot_be_written() {
    let fs = disk();
    let mut random = Random::from_seed(2);
    let mut program = Program::default();
    let mut logged = Logged::open(fs.clone(), 1, Durability::Buffered).unwrap();
    for _ in 0..100 {
        program.step(&mut logged, &mut random).unwrap();
    }
    drop(logged);
    let medium = FaultFs::new(fs.clone());
    medium.arm(FaultPlan::new(Fault::Erofs, 1).forever());
    let error = Logged::open(Arc::new(medium.clone()), 2, Durability::Buffered)
        .map(drop)
        .unwrap_err();
    assert_eq!(error.code(), Code::ReadOnlyMedium, "{error}");
    let counted = CountFs::new(Arc::new(medium));
    let reader = look(Arc::new(counted.clone())).unwrap();
    assert_eq!(reader.content().unwrap(), program.models);
    drop(reader);
    let modifying: u64 = FsOp::ALL
        .iter()
        .filter(|op| op.modifies())
        .map(|op| counted.counts().of(*op))
        .sum();
    assert_eq!(modifying, 0, "calls that change something");
}

#[test]
fn everything_that_would_change_it_is_refused() {
    let fs = disk();
    let mut logged = Logged::open(fs.clone(), 1, Durability::Buffered).unwrap();
    let family = logged.families[0];
    logged.store.put(family, b"k", b"v").unwrap();
    let mut reader = look(Arc::new(fs.process())).unwrap().store;
    let refused = |result: Result| assert_eq!(result.unwrap_err().code(), Code::ReadOnlyMedium);
    refused(reader.put(family, b"k", b"w"));
    refused(reader.delete(family, b"k"));
    refused(reader.append(family, b"k", b"w"));
    refused(reader.update_in_place(family, b"k", <[u8]>::reverse).map(drop));
    refused(reader.delete_range(family, ..));
    refused(reader.flush());
    refused(reader.compact(family));
    refused(reader.clear(family));
    refused(reader.drop_family(family));
    refused(reader.family("new").map(drop));
    refused(reader.pin().map(drop));
    let view = reader.view().unwrap();
    assert_eq!(view.get(family, b"k").unwrap().unwrap(), b"v");
    assert_eq!(reader.get(family, b"k").unwrap().unwrap(), b"v");
    reader.close().unwrap();
    logged.store.put(family, b"k", b"w").unwrap();
    logged.store.close().unwrap();
    let place = tempfile::tempdir().unwrap();
    let error = Store::open_read_only(place.path().join("none"), StoreOptions::default()).unwrap_err();
    assert_eq!(error.code(), Code::NotFound);
    assert_eq!(
        fs.list(Path::new("s"))
            .unwrap()
            .iter()
            .filter(|entry| entry.name.starts_with("WAL"))
            .count(),
        0
    );
}

#[test]
fn an_upgraded_store_has_no_log_and_the_newest_formats() {
    let fs = disk();
    let mut logged = Logged::open(fs.clone(), 1, Durability::Buffered).unwrap();
    logged.store.put(logged.families[0], b"k", b"v").unwrap();
    drop(logged);
    let options = Logged::options(fs.clone(), 2, Durability::Buffered);
    Store::upgrade("s", options.clone()).unwrap();
    assert!(
        !fs.list(Path::new("s"))
            .unwrap()
            .iter()
            .any(|entry| entry.name.starts_with("WAL"))
    );
    let logged = Logged::open(fs, 3, Durability::Buffered).unwrap();
    assert_eq!(logged.store.get(logged.families[0], b"k").unwrap().unwrap(), b"v");
    assert_eq!(
        Store::upgrade("none", options).unwrap_err().code(),
        Code::NotFound
    );
}
