//! Without this a key could be cut, a value truncated, or a stalled store hang for ever.

use crate::support::{Chain, content, disk, simulated};
use keybed_env::{
    Job, Priority, Scheduler, SimFs, TaskHandle,
    fs::{Fault, FaultFs, FaultPlan, FsOp},
    sched::TaskBuilder,
};
use keybed_format::{Code, ErrorKind};
use keybed_lsm::{Append, FamilyOptions, MemtableKind, Store, StoreOptions, SumI64, Update, key};
use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

#[test]
fn sizes_at_the_limits_are_kept_and_above_refused() {
    let options = StoreOptions {
        memtable_bytes: 200 << 20,
        ..simulated(disk(), 1)
    };
    let mut store = Store::open("s", options).unwrap();
    let family = store
        .family_with(
            "f",
            FamilyOptions {
                merge: Some(Arc::new(Append)),
                ..Default::default()
            },
        )
        .unwrap();
    let (long, longer) = (vec![1; key::KEY_BYTES_MAX], vec![1; key::KEY_BYTES_MAX + 1]);
    let (big, bigger) = (vec![2; key::VALUE_BYTES_MAX], vec![2; key::VALUE_BYTES_MAX + 1]);
    assert_eq!(
        store.put(family, &longer, b"").unwrap_err().code(),
        Code::KeyTooLarge
    );
    assert_eq!(
        store.delete(family, &longer).unwrap_err().code(),
        Code::KeyTooLarge
    );
    assert_eq!(
        store.put(family, b"k", &bigger).unwrap_err().code(),
        Code::ValueTooLarge
    );
    assert_eq!(
        store
            .update(family, b"k", |_| Update::Put(&bigger))
            .unwrap_err()
            .code(),
        Code::ValueTooLarge
    );
    assert!(store.get(family, b"k").unwrap().is_none());
    store.put(family, &long, &big).unwrap();
    assert_eq!(
        store.append(family, &long, b"x").unwrap_err().code(),
        Code::ValueTooLarge
    );
    assert_eq!(
        store.merge(family, &long, b"x").unwrap_err().code(),
        Code::ValueTooLarge
    );
    store.flush().unwrap();
    assert_eq!(store.get(family, &long).unwrap().unwrap(), big);
    store.put(family, b"", b"").unwrap();
    assert_eq!(store.get(family, b"").unwrap().unwrap(), b"");
}

#[test]
fn operands_that_together_are_too_long_stay_apart() {
    let options = StoreOptions {
        memtable_bytes: 200 << 20,
        ..simulated(disk(), 1)
    };
    let mut store = Store::open("s", options).unwrap();
    let merge = FamilyOptions {
        merge: Some(Arc::new(Append)),
        ..Default::default()
    };
    let family = store.family_with("f", merge).unwrap();
    let third = key::VALUE_BYTES_MAX * 2 / 5;
    store.put(family, b"other", b"v").unwrap();
    let mut expected = Vec::new();
    for letter in 1..=4_u8 {
        store.merge(family, b"k", &vec![letter; third]).unwrap();
        expected.resize(expected.len() + third, letter);
        store.flush().unwrap();
        // First the base alone, then operands on it, then an operand on what could not be folded.
        if letter != 2 {
            store.compact(family).unwrap();
        }
    }
    assert_eq!(store.stats().runs_max, 1);
    assert!(store.get(family, b"k").unwrap().unwrap() == expected);
    // A delete that operands stand on hides what is older.
    store.delete(family, b"k").unwrap();
    for letter in 5..=6_u8 {
        store.flush().unwrap();
        store.merge(family, b"k", &vec![letter; third]).unwrap();
    }
    store.flush().unwrap();
    store.wait_for_background().unwrap();
    let expected = [vec![5; third], vec![6; third]].concat();
    assert!(store.get(family, b"k").unwrap().unwrap() == expected);
    store.delete(family, b"k").unwrap();
    store.compact(family).unwrap();
    assert!(store.get(family, b"k").unwrap().is_none());
    assert_eq!(store.get(family, b"other").unwrap().unwrap(), b"v");
}

#[test]
fn tokens_and_options_that_cannot_be_meant_are_refused() {
    let fs = disk();
    let mut store = Store::open("s", simulated(fs.clone(), 1)).unwrap();
    let first = store.family("f").unwrap();
    let second = store.family("g").unwrap();
    let mut other = Store::open("t", simulated(fs.clone(), 1)).unwrap();
    assert_eq!(
        other.put(first, b"k", b"v").unwrap_err().code(),
        Code::InvalidArgument
    );
    store.put(second, b"k", b"v").unwrap();
    let pinning = store.pin().unwrap();
    store.drop_family(second).unwrap();
    assert_eq!(store.get(second, b"k").unwrap_err().code(), Code::InvalidArgument);
    assert!(
        pinning.finish().is_err(),
        "the family was dropped before its memtable was flushed"
    );
    let second = store.family("g").unwrap();
    assert!(store.get(second, b"k").unwrap().is_none());
    assert!(store.family("").is_err());
    let wide = FamilyOptions {
        cut_prefix: 9,
        ..FamilyOptions::default()
    };
    assert_eq!(
        store.family_with("h", wide).unwrap_err().code(),
        Code::InvalidArgument
    );
    let small = StoreOptions {
        memtable_bytes: 1,
        ..simulated(fs, 1)
    };
    assert_eq!(Store::open("u", small).unwrap_err().code(), Code::InvalidArgument);
}

#[test]
fn a_dropped_family_leaves_nothing_to_one_of_its_name() {
    let fs = disk();
    let mut store = Store::open("s", simulated(fs.clone(), 1)).unwrap();
    for round in 0..20_u64 {
        let family = store.family("f").unwrap();
        assert!(content(&store, family).unwrap().is_empty(), "round {round}");
        for n in 0..200 + 10 * round {
            store.put(family, &n.to_be_bytes(), &[7; 60]).unwrap();
        }
        if round % 3 == 0 {
            store.wait_for_background().unwrap();
        }
        // Flushes and merges of the dropped family may be under way.
        store.drop_family(family).unwrap();
        assert_eq!(store.family_names().count(), 0);
    }
    store.wait_for_background().unwrap();
    assert!(
        !fs.tree()
            .keys()
            .any(|path| path.extension().is_some_and(|e| e == "sst"))
    );
    store.close().unwrap();
    let mut store = Store::open("s", simulated(fs, 2)).unwrap();
    let family = store.family("f").unwrap();
    assert!(content(&store, family).unwrap().is_empty());
}

#[test]
fn a_thousand_families_are_created_pinned_and_found_again() {
    let fs = disk();
    let mut store = Store::open(
        "s",
        StoreOptions {
            memtable_bytes: 1 << 20,
            ..simulated(fs.clone(), 1)
        },
    )
    .unwrap();
    for n in 0..1000_u64 {
        let family = store.family(&format!("family {n}")).unwrap();
        if n % 10 == 0 {
            store.put(family, b"n", &n.to_be_bytes()).unwrap();
        }
    }
    let pinned = store.pin().unwrap().finish().unwrap();
    assert_eq!((pinned.families.len(), pinned.tables().count()), (1000, 100));
    drop(pinned);
    store.close().unwrap();
    let mut store = Store::open("s", simulated(fs, 2)).unwrap();
    let family = store.family("family 990").unwrap();
    assert_eq!(store.get(family, b"n").unwrap().unwrap(), 990_u64.to_be_bytes());
}

#[test]
fn a_family_is_never_opened_with_another_operator() {
    let fs = disk();
    let with = |merge: Option<Arc<dyn keybed_lsm::MergeOperator>>| FamilyOptions {
        merge,
        ..Default::default()
    };
    let mut store = Store::open("s", simulated(fs.clone(), 1)).unwrap();
    let sums = store.family_with("sums", with(Some(Arc::new(SumI64)))).unwrap();
    let chains = store.family_with("chains", with(Some(Arc::new(Chain)))).unwrap();
    for _ in 0..3 {
        store.merge(sums, b"n", &7_i64.to_le_bytes()).unwrap();
        store.merge(chains, b"c", b"x").unwrap();
        store.flush().unwrap();
    }
    assert_eq!(
        store.merge(sums, b"n", b"short").unwrap_err().kind(),
        ErrorKind::User
    );
    store.close().unwrap();
    let mut store = Store::open("s", simulated(fs.clone(), 2)).unwrap();
    // Built-in operators are found by their name, the program's are not.
    let sums = store.family("sums").unwrap();
    assert_eq!(store.get(sums, b"n").unwrap().unwrap(), 21_i64.to_le_bytes());
    assert_eq!(
        store.family("chains").unwrap_err().code(),
        Code::MergeOperatorChanged
    );
    let code = |result: keybed_format::Result<_>| result.map(|_| ()).unwrap_err().code();
    assert_eq!(
        code(store.family_with("chains", with(Some(Arc::new(Append))))),
        Code::MergeOperatorChanged
    );
    assert_eq!(
        code(store.family_with("sums", with(None))),
        Code::MergeOperatorChanged
    );
    let chains = store.family_with("chains", with(Some(Arc::new(Chain)))).unwrap();
    assert_eq!(store.get(chains, b"c").unwrap().unwrap(), b"x<x<x<");
    store.compact(chains).unwrap();
    assert_eq!(store.get(chains, b"c").unwrap().unwrap(), b"x<x<x<");
}

fn full_disk(disk: &Arc<SimFs>) -> (Arc<FaultFs>, StoreOptions) {
    let fs = Arc::new(FaultFs::new(disk.clone()));
    let options = StoreOptions {
        sealed_max: 1,
        ..simulated(fs.clone(), 1)
    };
    (fs, options)
}

#[test]
fn a_full_disk_stops_writes_after_the_bound_and_reads_go_on() {
    let disk = disk();
    let (fs, options) = full_disk(&disk);
    let mut store = Store::open("s", options).unwrap();
    let family = store.family("f").unwrap();
    store.put(family, b"first", b"1").unwrap();
    store.flush().unwrap();
    fs.arm(
        FaultPlan::new(Fault::Enospc, 1)
            .forever()
            .on_path(|path| path.extension().is_some_and(|e| e == "sst")),
    );
    let mut written = 0_u64;
    let error = loop {
        match store.put(family, &written.to_be_bytes(), &[7; 100]) {
            Ok(()) => written += 1,
            Err(error) => break error,
        }
        assert!(written < 10_000, "nothing bounds the sealed memtables");
    };
    assert_eq!(error.code(), Code::BackendReadOnly, "{error}");
    assert_eq!(
        store.put(family, b"again", b"").unwrap_err().code(),
        Code::BackendReadOnly
    );
    assert_eq!(store.flush().unwrap_err().code(), Code::BackendReadOnly);
    assert_eq!(
        store.pin().unwrap().finish().unwrap_err().code(),
        Code::BackendReadOnly
    );
    assert_eq!(store.get(family, b"first").unwrap().unwrap(), b"1");
    assert_eq!(content(&store, family).unwrap().len() as u64, written + 1);
    fs.heal();
    store.put(family, b"again", b"").unwrap();
    store.flush().unwrap();
    assert_eq!(content(&store, family).unwrap().len() as u64, written + 2);
    assert!(store.stats().flush_failures > 0);
    // Nothing of the abandoned files is left.
    store.wait_for_background().unwrap();
    let tables = disk
        .tree()
        .keys()
        .filter(|path| path.extension().is_some_and(|e| e == "sst"))
        .count();
    assert_eq!(tables as u64, store.stats().tables);
}

/// Keeps jobs to itself until it is told to work.
#[derive(Default)]
struct Lazy {
    works: AtomicBool,
    merges: AtomicU64,
    jobs: Mutex<VecDeque<(Priority, Job)>>,
}

impl std::fmt::Debug for Lazy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Lazy")
    }
}

impl Scheduler for Lazy {
    fn spawn(&self, _: &str, _: TaskBuilder) -> TaskHandle {
        TaskHandle::pair().0
    }

    fn submit(&self, priority: Priority, job: Job) {
        self.jobs.lock().unwrap().push_back((priority, job));
    }

    fn submit_after(&self, _: Duration, _: Priority, _: Job) {}

    fn help(&self) -> bool {
        self.help_up_to(Priority::Bottom)
    }

    fn help_up_to(&self, last: Priority) -> bool {
        if !self.works.load(Ordering::Relaxed) {
            return false;
        }
        let job = {
            let mut jobs = self.jobs.lock().unwrap();
            let at = jobs.iter().position(|(priority, _)| *priority <= last);
            at.and_then(|at| jobs.remove(at))
        };
        let Some((priority, job)) = job else { return false };
        if priority != Priority::Flush {
            self.merges.fetch_add(1, Ordering::Relaxed);
        }
        job();
        true
    }
}

#[test]
fn a_scheduler_that_runs_nothing_makes_writes_busy_not_stuck() {
    let lazy = Arc::new(Lazy::default());
    let options = StoreOptions {
        scheduler: lazy.clone(),
        sealed_max: 1,
        write_wait_max: Duration::from_millis(4),
        ..simulated(disk(), 1)
    };
    let mut store = Store::open("s", options).unwrap();
    let family = store
        .family_with(
            "f",
            FamilyOptions {
                memtable: MemtableKind::Ordered,
                ..Default::default()
            },
        )
        .unwrap();
    let mut written = 0_u64;
    let error = loop {
        match store.put(family, &written.to_be_bytes(), &[7; 100]) {
            Ok(()) => written += 1,
            Err(error) => break error,
        }
        assert!(written < 10_000, "nothing bounds the sealed memtables");
    };
    assert_eq!(error.code(), Code::Busy, "{error}");
    assert!(store.stats().stalls > 0);
    assert_eq!(content(&store, family).unwrap().len() as u64, written);
    lazy.works.store(true, Ordering::Relaxed);
    store.put(family, b"k", b"v").unwrap();
    store.close().unwrap();
}

#[test]
fn who_waits_for_a_flush_does_not_merge() {
    let lazy = Arc::new(Lazy::default());
    lazy.works.store(true, Ordering::Relaxed);
    let options = StoreOptions {
        scheduler: lazy.clone(),
        memtable_bytes: 1 << 20,
        ..simulated(disk(), 1)
    };
    let mut store = Store::open("s", options).unwrap();
    let family = store.family("f").unwrap();
    for n in 0..1000_u64 {
        store.put(family, &n.to_be_bytes(), &[7; 100]).unwrap();
    }
    for n in 0..8_u64 {
        store.put(family, &n.to_be_bytes(), b"again").unwrap();
        drop(store.pin().unwrap().finish().unwrap());
        store.put(family, &n.to_be_bytes(), b"and again").unwrap();
        store.flush().unwrap();
    }
    assert_eq!(lazy.merges.load(Ordering::Relaxed), 0);
    store.wait_for_background().unwrap();
    assert!(lazy.merges.load(Ordering::Relaxed) > 0);
    assert!(store.stats().compactions > 0);
}

#[test]
fn a_failed_write_of_the_manifest_poisons_until_reopened() {
    let disk = disk();
    let (fs, options) = full_disk(&disk);
    let mut store = Store::open("s", options).unwrap();
    let family = store.family("f").unwrap();
    store.put(family, b"a", b"1").unwrap();
    store.flush().unwrap();
    store.put(family, b"b", b"2").unwrap();
    let is_manifest = |path: &std::path::Path| path.to_string_lossy().contains("MANIFEST");
    fs.arm(
        FaultPlan::new(Fault::Eio, 1)
            .only(&[FsOp::Write])
            .on_path(is_manifest),
    );
    assert_eq!(store.flush().unwrap_err().code(), Code::Poisoned);
    assert_eq!(store.put(family, b"c", b"3").unwrap_err().code(), Code::Poisoned);
    assert_eq!(store.pin().map(|_| ()).unwrap_err().code(), Code::Poisoned);
    assert_eq!(store.view().map(|_| ()).unwrap_err().code(), Code::Poisoned);
    assert_eq!(store.get(family, b"b").unwrap().unwrap(), b"2");
    assert_eq!(store.close().unwrap_err().code(), Code::Poisoned);
    let mut store = Store::open("s", simulated(disk, 2)).unwrap();
    let family = store.family("f").unwrap();
    assert_eq!(store.get(family, b"a").unwrap().unwrap(), b"1");
}
