//! If this fails, two parts of the engine that work alone do not work together: what one of them takes for granted
//! another one does not keep.

use crate::support::{content, disk, simulated};
use keybed_env::{
    FaultFs, Fs, ManualClock, SimFs, SimScheduler,
    fs::{Fault, FaultPlan, FsOp},
};
use keybed_format::Code;
use keybed_lsm::{
    Durability, FamilyOptions, IngestOptions, Store, StoreOptions,
    repair::{OneFamily, RepairPlan},
    table::ExternalTable,
};
use std::{
    path::Path,
    sync::{Arc, Mutex},
    time::Duration,
};

pub(crate) fn options(fs: &Arc<SimFs>, seed: u64, durability: Durability) -> StoreOptions {
    StoreOptions {
        durability,
        ..simulated(fs.clone(), seed)
    }
}

#[test]
fn a_log_that_names_a_dropped_family_is_replayed_by_every_open() {
    let fs = disk();
    let open = |seed| Store::open("s", options(&fs, seed, Durability::Buffered)).unwrap();
    let mut store = open(1);
    let kept = store.family("kept").unwrap();
    let dropped = store.family("dropped").unwrap();
    store.put(kept, b"1", b"a").unwrap();
    store.put(dropped, b"2", b"b").unwrap();
    store.drop_family(dropped).unwrap();
    store.put(kept, b"3", b"c").unwrap();
    let map = content(&store, kept).unwrap();
    drop(store);
    // The first of these starts a manifest that knows nothing of the dropped family any more.
    for seed in 2..5 {
        let mut store = open(seed);
        let kept = store.family("kept").unwrap();
        assert_eq!(content(&store, kept).unwrap(), map, "opening {seed}");
    }
    // Nor does a new family get what the log holds of the dropped one.
    let mut store = open(5);
    store.family("new").unwrap();
    drop(store);
    let mut store = open(6);
    for name in ["new", "dropped"] {
        let family = store.family(name).unwrap();
        assert!(content(&store, family).unwrap().is_empty(), "{name}");
    }
}

#[test]
fn a_log_file_that_goes_while_somebody_looks_is_not_missed() {
    // Before the reader lists the directory, after he read the manifest: the owner flushes, and removes the log.
    for later_write in [false, true] {
        let fs = disk();
        let mut owner = Store::open("s", options(&fs, 1, Durability::Buffered)).unwrap();
        let [a, b] = ["a", "b"].map(|name| owner.family(name).unwrap());
        owner.put(a, b"1", b"a").unwrap();
        owner.flush().unwrap();
        owner.put(a, b"2", b"b").unwrap();
        owner.put(b, b"3", b"c").unwrap();
        let owner = Arc::new(Mutex::new(Some(owner)));
        let faults = FaultFs::new(Arc::new(fs.process()));
        let kept = owner.clone();
        let meddle = move |_: &Path| {
            let mut slot = owner.lock().unwrap();
            if let Some(store) = slot.take() {
                store.close().unwrap();
                let mut store = Store::open("s", options(&fs, 2, Durability::Buffered)).unwrap();
                if later_write {
                    let a = store.family("a").unwrap();
                    store.put(a, b"4", b"d").unwrap();
                }
                drop(store);
            }
            false
        };
        faults.arm(FaultPlan::new(Fault::Eio, 1).only(&[FsOp::List]).on_path(meddle));
        let options = StoreOptions {
            fs: Arc::new(faults),
            ..simulated(disk(), 3)
        };
        let mut reader = Store::open_read_only("s", options).unwrap();
        assert!(kept.lock().unwrap().is_none(), "the owner did not meddle");
        let [a, b] = ["a", "b"].map(|name| reader.family(name).unwrap());
        let found: Vec<_> = content(&reader, a).unwrap().into_keys().collect();
        assert!(found.len() >= 2, "later write {later_write}: {found:?}");
        assert_eq!(content(&reader, b).unwrap().len(), 1, "later write {later_write}");
    }
}

#[test]
fn what_the_manifest_alone_tells_is_not_mixed_with_a_later_log() {
    // Before the reader lists the directory, after he read the manifest: the owner clears, drops or ingests, and writes.
    for change in 0..3 {
        let fs = disk();
        let mut owner = Store::open("s", options(&fs, 1, Durability::Buffered)).unwrap();
        let [a, b] = ["a", "b"].map(|name| owner.family(name).unwrap());
        owner.put(a, b"1", b"a").unwrap();
        owner.put(b, b"1", b"a").unwrap();
        let mut table = ExternalTable::create(
            "x.sst",
            &options(&fs, 7, Durability::None),
            &FamilyOptions::default(),
        );
        table.as_mut().unwrap().put(b"1", b"b").unwrap();
        table.unwrap().finish().unwrap();
        let owner = Arc::new(Mutex::new(Some(owner)));
        let done = owner.clone();
        let meddle = move |_: &Path| {
            if let Some(mut owner) = owner.lock().unwrap().take() {
                match change {
                    0 => owner.clear(a).unwrap(),
                    1 => owner.drop_family(a).unwrap(),
                    _ => owner.ingest(a, &["x.sst"], IngestOptions::default()).unwrap(),
                }
                owner.put(b, b"2", b"b").unwrap();
            }
            false
        };
        let faults = FaultFs::new(Arc::new(fs.process()));
        faults.arm(FaultPlan::new(Fault::Eio, 1).only(&[FsOp::List]).on_path(meddle));
        let mut reader = Store::open_read_only("s", simulated(Arc::new(faults), 3)).unwrap();
        assert!(done.lock().unwrap().is_none(), "the owner did not meddle");
        let other = reader.family("b").unwrap();
        let is_later = reader.contains(other, b"2").unwrap();
        let names: Vec<String> = reader.family_names().map(str::to_owned).collect();
        let found = names.contains(&"a".to_owned()).then(|| {
            let family = reader.family("a").unwrap();
            content(&reader, family).unwrap().get(&b"1"[..]).cloned()
        });
        let before = found == Some(Some(b"a".to_vec()));
        assert_eq!(before, !is_later, "change {change}: {found:?}");
    }
}

#[test]
fn a_repair_does_not_guess_when_a_table_was_ingested() {
    for deletes_range in [false, true] {
        let fs = disk();
        let options = StoreOptions {
            compaction: false,
            ..options(&fs, 1, Durability::None)
        };
        let mut store = Store::open("s", options.clone()).unwrap();
        let family = store.family("f").unwrap();
        store.put(family, b"1", b"old").unwrap();
        if deletes_range {
            store.put(family, b"7", b"old").unwrap();
            store.flush().unwrap();
            store.delete_range(family, &b"1"[..]..&b"9"[..]).unwrap();
        } else {
            store.put(family, b"5", b"old").unwrap();
        }
        store.flush().unwrap();
        let mut table = ExternalTable::create("x.sst", &options, &FamilyOptions::default()).unwrap();
        table.put(b"5", b"new").unwrap();
        table.finish().unwrap();
        store
            .ingest(family, &["x.sst"], IngestOptions::default())
            .unwrap();
        assert_eq!(store.get(family, b"5").unwrap().unwrap(), b"new");
        store.close().unwrap();
        for entry in fs.list(Path::new("s")).unwrap() {
            if entry.name.starts_with("MANIFEST") {
                fs.remove_file(&Path::new("s").join(entry.name)).unwrap();
            }
        }
        let one = OneFamily {
            name: "f".to_owned(),
            merge: None,
        };
        let error = RepairPlan::make(&*fs, Path::new("s"), Some(&one)).unwrap_err();
        assert_eq!(
            error.code(),
            Code::ManifestCorrupt,
            "range delete {deletes_range}: {error}"
        );
    }
}

#[test]
fn a_view_of_a_cleared_family_lets_go_of_write_memory() {
    let fs = disk();
    let mut store = Store::open("s", options(&fs, 1, Durability::None)).unwrap();
    let family = store.family("f").unwrap();
    store.put(family, b"1", b"a").unwrap();
    let view = store.view().unwrap();
    store.clear(family).unwrap();
    store.wait_for_background().unwrap();
    assert_eq!(store.stats().views.memtable_bytes, 0);
    assert_eq!(view.get(family, b"1").unwrap().unwrap(), b"a");
    drop(view);
    store.close().unwrap();
    let tables = fs
        .list(Path::new("s"))
        .unwrap()
        .into_iter()
        .filter(|entry| entry.name.ends_with(".sst"));
    assert_eq!(tables.count(), 0, "a table of nobody stays");
}

#[test]
fn tables_written_without_durability_are_durable_once_it_is_asked_for() {
    let fs = Arc::new(SimFs::new());
    let mut store = Store::open("s", options(&fs, 1, Durability::None)).unwrap();
    let family = store.family("f").unwrap();
    store.put(family, b"1", b"a").unwrap();
    store.close().unwrap();
    let mut store = Store::open("s", options(&fs, 2, Durability::Sync)).unwrap();
    let family = store.family("f").unwrap();
    store.put(family, b"2", b"b").unwrap();
    let image = Arc::new(fs.strict_image(fs.op_count()));
    let mut store = Store::open("s", options(&image, 3, Durability::Sync)).unwrap();
    let family = store.family("f").unwrap();
    assert_eq!(content(&store, family).unwrap().len(), 2);
}

fn tables(fs: &SimFs) -> usize {
    let names = fs.list(Path::new("s")).unwrap();
    names.iter().filter(|entry| entry.name.ends_with(".sst")).count()
}

#[test]
fn a_table_that_the_manifest_has_no_space_for_goes_and_can_be_ingested_later() {
    let sim = disk();
    let faults = FaultFs::new(sim.clone());
    let options = |seed| StoreOptions {
        durability: Durability::None,
        ..simulated(Arc::new(faults.clone()), seed)
    };
    let mut store = Store::open("s", options(1)).unwrap();
    let family = store.family("f").unwrap();
    store.put(family, b"1", b"a").unwrap();
    store.close().unwrap();
    let mut table = ExternalTable::create("x.sst", &options(2), &FamilyOptions::default()).unwrap();
    table.put(b"2", b"b").unwrap();
    table.finish().unwrap();
    let mut store = Store::open("s", options(3)).unwrap();
    let family = store.family("f").unwrap();
    let is_manifest = |path: &Path| path.to_string_lossy().contains("MANIFEST");
    let plan = FaultPlan::new(Fault::Enospc, 1).forever();
    faults.arm(plan.only(&[FsOp::Reserve]).on_path(is_manifest));
    let refused = store
        .ingest(family, &["x.sst"], IngestOptions::default())
        .unwrap_err();
    assert_eq!(refused.code(), Code::BackendReadOnly);
    assert_eq!(tables(&sim), 1, "after a refused ingest");
    store.put(family, b"3", b"c").unwrap();
    assert!(store.flush().is_err());
    assert_eq!(tables(&sim), 1, "after a refused flush");
    faults.heal();
    store.flush().unwrap();
    store
        .ingest(family, &["x.sst"], IngestOptions::default())
        .unwrap();
    assert_eq!(content(&store, family).unwrap().len(), 3);
}

#[test]
fn a_log_that_is_synced_every_so_often_is_synced_again_when_the_disk_has_room() {
    let sim = Arc::new(SimFs::new());
    let faults = FaultFs::new(sim.clone());
    let open = |fs: Arc<dyn Fs>, seed| {
        let scheduler = Arc::new(SimScheduler::new(seed, Arc::new(ManualClock::new())));
        let options = StoreOptions {
            durability: Durability::Interval(Duration::from_secs(1)),
            scheduler: scheduler.clone(),
            ..simulated(fs, seed)
        };
        (Store::open("s", options).unwrap(), scheduler)
    };
    let (mut store, _) = open(Arc::new(faults.clone()), 1);
    store.family("f").unwrap();
    store.close().unwrap();
    let (mut store, scheduler) = open(Arc::new(faults.clone()), 2);
    let family = store.family("f").unwrap();
    store.put(family, b"1", b"a").unwrap();
    let is_manifest = |path: &Path| path.to_string_lossy().contains("MANIFEST");
    let plan = FaultPlan::new(Fault::Enospc, 1).forever();
    faults.arm(plan.only(&[FsOp::Reserve]).on_path(is_manifest));
    scheduler.run_until(|| false, 20);
    assert!(faults.triggered() > 0);
    faults.heal();
    store.put(family, b"2", b"b").unwrap();
    scheduler.run_until(|| false, 20);
    let image = Arc::new(sim.strict_image(sim.op_count()));
    let (mut found, _) = open(image, 3);
    let family = found.family("f").unwrap();
    assert_eq!(content(&found, family).unwrap().len(), 2);
}
