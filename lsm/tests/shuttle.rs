//! If this fails, there is an order of the steps of several threads in which one of them hangs, loses what it wrote,
//! or reads what never was.
//!
//! Built with `--cfg shuttle` alone (`ci/full`, stage `shuttle`): the engine's locks and the atomics of its hand-over
//! are then those of the crate `shuttle` (`lsm/src/sync.rs`), and every test runs thousands of orders of the same
//! threads, drawn from a seed, half of them as a random walk and half by priorities that change a few times. No timeout
//! passes, so a wake-up that is forgotten, or sent before what it announces, is a deadlock, and is told as one.
//!
//! That these tests find such mistakes is shown by the stage `planted`, which builds some into the engine.
#![cfg(shuttle)]

use keybed_env::{
    FaultFs, Fs, Job, ManualClock, Priority, Random, Scheduler, SimFs, TaskHandle,
    fs::{Fault, FaultPlan, FsOp},
    random::Ids,
    sched::TaskBuilder,
};
use keybed_format::Code;
use keybed_lsm::{Access, Durability, Family, MemoryBudget, SharedStore, StoreOptions, Update};
use shuttle::{
    Config, Runner,
    scheduler::{PctScheduler, RandomScheduler},
    thread,
};
use std::{
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

/// Every job is a thread.
#[derive(Debug)]
struct Jobs {
    /// Waiters ask again and again instead of sleeping until they are told: where one store waits for another one,
    /// which tells nobody but its own.
    asks_again: bool,
}

/// No sleep that slows a writer down is longer, and every wait for something is.
const REST_MAX: Duration = Duration::from_millis(1);

impl Scheduler for Jobs {
    fn spawn(&self, _: &str, _: TaskBuilder) -> TaskHandle {
        panic!("no task is needed here")
    }

    fn submit(&self, _: Priority, job: Job) {
        thread::spawn(job);
    }

    fn submit_after(&self, _: Duration, _: Priority, _: Job) {}

    fn help(&self) -> bool {
        false
    }

    fn help_up_to(&self, _: Priority) -> bool {
        false
    }

    fn pass_time(&self, at_most: Duration) -> Option<Duration> {
        (self.asks_again || at_most <= REST_MAX).then(|| {
            thread::yield_now();
            at_most
        })
    }
}

fn options(fs: Arc<dyn Fs>, seed: u64) -> StoreOptions {
    StoreOptions {
        fs,
        scheduler: Arc::new(Jobs { asks_again: false }),
        clock: Arc::new(ManualClock::new()),
        ids: Ids::Seeded(Random::from_seed(seed)),
        memtable_bytes: 4 << 10,
        sealed_max: 1,
        block_bytes: 512,
        fan_in: 2,
        runs_max: 2,
        target_file_bytes: 4 << 10,
        access: Access::Cache,
        cache_bytes: 8 << 10,
        durability: Durability::None,
        ..StoreOptions::default()
    }
}

fn disk() -> Arc<SimFs> {
    Arc::new(SimFs::without_history())
}

fn open(options: StoreOptions) -> (SharedStore, Family) {
    let store = SharedStore::open("s", options).unwrap();
    let family = store.family("f").unwrap();
    (store, family)
}

/// Runs `program` in many orders: `usual` of them, three hundred times as many where somebody has time.
fn permuted(usual: usize, program: impl Fn() + Send + Sync + 'static) {
    let full = std::env::var_os("KEYBED_TEST_FULL").is_some();
    let orders = if full { usual * 300 } else { usual };
    let seed = std::env::var("KEYBED_TEST_SEED").map_or(1, |text| text.parse().unwrap());
    let program = Arc::new(program);
    let steps = Arc::new(AtomicU64::new(0));
    let body = || {
        let (program, steps) = (program.clone(), steps.clone());
        move || {
            program();
            steps.fetch_add(shuttle::current::context_switches() as u64, Ordering::Relaxed);
        }
    };
    let mut config = Config::new();
    config.stack_size = 1 << 20;
    let random = RandomScheduler::new_from_seed(seed, orders / 2);
    let mut ran = Runner::new(random, config.clone()).run(body());
    let priorities = PctScheduler::new_from_seed(seed, 4, orders - orders / 2);
    ran += Runner::new(priorities, config).run(body());
    println!(
        "{ran} schedules of {} steps on average",
        steps.load(Ordering::Relaxed) / ran.max(1) as u64
    );
}

fn long(n: u64) -> Vec<u8> {
    [&n.to_le_bytes()[..], &[7; 1500]].concat()
}

fn number(value: &[u8]) -> u64 {
    u64::from_le_bytes(value[..8].try_into().unwrap())
}

fn tables(fs: &SimFs) -> u64 {
    fs.tree()
        .keys()
        .filter(|path| path.extension().is_some_and(|e| e == "sst"))
        .count() as u64
}

#[test]
fn updates_are_kept_and_seen_in_order_beside_flushes_and_merges() {
    permuted(60, || {
        let (store, family) = open(options(disk(), 1));
        let writers: Vec<_> = (0..2_u64)
            .map(|_| {
                let store = store.clone();
                thread::spawn(move || {
                    for _ in 0..4 {
                        let add = |old: Option<&[u8]>| Update::Put(long(old.map_or(0, number) + 1));
                        store.update(family, b"sum", add).unwrap();
                        store.delete(family, b"never").unwrap();
                    }
                })
            })
            .collect();
        let reader = thread::spawn({
            let store = store.clone();
            move || {
                let mut last = 0;
                for _ in 0..4 {
                    let found = store
                        .get(family, b"sum")
                        .unwrap()
                        .map_or(0, |value| number(&value));
                    assert!(found >= last, "{found} after {last}");
                    last = found;
                    assert!(store.get(family, b"never").unwrap().is_none());
                }
            }
        });
        writers.into_iter().for_each(|writer| writer.join().unwrap());
        reader.join().unwrap();
        store.flush().unwrap();
        assert_eq!(number(&store.get(family, b"sum").unwrap().unwrap()), 8);
        store.close().unwrap();
    });
}

#[test]
fn what_one_leader_syncs_is_durable_for_all_who_wait() {
    permuted(60, || {
        let fs = disk();
        let durable = |seed| StoreOptions {
            durability: Durability::Sync,
            ..options(fs.clone(), seed)
        };
        let (store, family) = open(durable(1));
        // What was acknowledged, and what a power loss at that moment leaves.
        let acknowledged: Arc<Mutex<Vec<(u64, SimFs)>>> = Arc::default();
        let writers: Vec<_> = (0..3_u64)
            .map(|writer| {
                let (store, fs, acknowledged) = (store.clone(), fs.clone(), acknowledged.clone());
                thread::spawn(move || {
                    for n in 0..2 {
                        let key = writer * 10 + n;
                        store.put(family, &key.to_be_bytes(), b"v").unwrap();
                        let image = fs.strict_image(fs.op_count());
                        acknowledged.lock().unwrap().push((key, image));
                    }
                })
            })
            .collect();
        writers.into_iter().for_each(|writer| writer.join().unwrap());
        assert!(store.stats().log_syncs <= 6 + 2, "nobody syncs for nothing");
        for (at, (key, image)) in acknowledged.lock().unwrap().drain(..).enumerate() {
            let after = StoreOptions {
                fs: Arc::new(image),
                ..durable(100 + at as u64)
            };
            let (found, family) = open(after);
            assert!(
                found.get(family, &key.to_be_bytes()).unwrap().is_some(),
                "{key} was acknowledged"
            );
        }
    });
}

#[test]
fn a_failed_sync_is_heard_of_by_all_who_wait_for_it() {
    permuted(60, || {
        let fs = FaultFs::new(disk());
        let options = StoreOptions {
            durability: Durability::Sync,
            fs: Arc::new(fs.clone()),
            ..options(Arc::new(fs.clone()), 1)
        };
        let (store, family) = open(options);
        store.put(family, b"before", b"v").unwrap();
        fs.arm(
            FaultPlan::new(Fault::FailedSync, 1)
                .only(&[FsOp::Sync])
                .on_path(|path| path.to_string_lossy().contains("WAL")),
        );
        let writers: Vec<_> = (0..3_u64)
            .map(|writer| {
                let store = store.clone();
                thread::spawn(move || store.put(family, &writer.to_be_bytes(), b"v").unwrap_err().code())
            })
            .collect();
        for writer in writers {
            assert_eq!(writer.join().unwrap(), Code::Poisoned, "its write is not durable");
        }
        assert!(store.get(family, b"before").unwrap().is_some());
        let _ = store.close();
    });
}

#[test]
fn stores_of_one_budget_that_want_more_than_there_is_both_get_on() {
    const TOTAL: usize = 1 << 20;
    permuted(20, || {
        let budget = MemoryBudget::new(TOTAL);
        let writers: Vec<_> = (0..2_u64)
            .map(|writer| {
                let options = StoreOptions {
                    scheduler: Arc::new(Jobs { asks_again: true }),
                    budget: Some(budget.clone()),
                    memtable_bytes: 4 << 20,
                    compaction: false,
                    ..options(disk(), writer)
                };
                thread::spawn(move || {
                    let (store, family) = open(options);
                    for n in 0..4_u64 {
                        store
                            .put(family, &n.to_be_bytes(), &vec![n as u8; 200 << 10])
                            .unwrap();
                    }
                    for n in 0..4_u64 {
                        let found = store.get(family, &n.to_be_bytes()).unwrap().unwrap();
                        assert!(found == vec![n as u8; 200 << 10], "key {n}");
                    }
                    store.close().unwrap();
                })
            })
            .collect();
        writers.into_iter().for_each(|writer| writer.join().unwrap());
        let stats = budget.stats();
        assert!(stats.bytes == 0, "{stats:?}");
    });
}

#[test]
fn views_keep_what_they_saw_and_files_go_with_the_last_one() {
    permuted(40, || {
        let fs = disk();
        let (store, family) = open(options(fs.clone(), 1));
        for n in 0..3_u64 {
            store.put(family, &n.to_be_bytes(), &long(1)).unwrap();
        }
        let readers: Vec<_> = (0..2)
            .map(|_| {
                let store = store.clone();
                thread::spawn(move || {
                    let view = store.view().unwrap();
                    let read = |n: u64| view.get(family, &n.to_be_bytes()).unwrap().map(|v| number(&v));
                    // The writer gives all keys their next number in one batch, or removes them all.
                    let first = read(0);
                    assert_eq!((read(1), read(2)), (first, first));
                    let all: Vec<_> = view
                        .range(family, ..)
                        .unwrap()
                        .map(|e| number(&e.unwrap().1))
                        .collect();
                    assert!(all.iter().all(|n| Some(*n) == first) && (all.len() == 3 || first.is_none()));
                })
            })
            .collect();
        let writer = thread::spawn({
            let store = store.clone();
            move || {
                for n in 2..4_u64 {
                    let mut batch = keybed_lsm::WriteBatch::new();
                    for key in 0..3_u64 {
                        batch.put(family, &key.to_be_bytes(), &long(n));
                    }
                    store.write(&batch).unwrap();
                    store.compact(family).unwrap();
                }
                store.delete_range(family, ..).unwrap();
                store.compact(family).unwrap();
            }
        });
        readers.into_iter().for_each(|reader| reader.join().unwrap());
        writer.join().unwrap();
        store.wait_for_background().unwrap();
        assert!(store.range(family, ..).unwrap().next().is_none());
        assert_eq!(tables(&fs), store.stats().tables, "files that nobody needs");
        store.close().unwrap();
    });
}

#[test]
fn a_store_that_is_closed_beside_its_users_ends_and_can_be_opened_again() {
    permuted(60, || {
        let fs = disk();
        let (store, family) = open(options(fs.clone(), 1));
        let writers: Vec<_> = (0..2_u64)
            .map(|writer| {
                let store = store.clone();
                thread::spawn(move || {
                    let mut written = 0;
                    for n in 0..4_u64 {
                        match store.put(family, &[writer as u8], &long(n)) {
                            Ok(()) => written = n + 1,
                            Err(error) => {
                                assert_eq!(error.code(), Code::Closed, "{error}");
                                break;
                            }
                        }
                    }
                    written
                })
            })
            .collect();
        store.close().unwrap();
        // Nobody holds the directory any more, whatever jobs and writers are still about.
        let (again, family) = open(options(Arc::new(fs.process()), 2));
        for (writer, written) in writers
            .into_iter()
            .map(|writer| writer.join().unwrap())
            .enumerate()
        {
            let found = again
                .get(family, &[writer as u8])
                .unwrap()
                .map(|value| number(&value) + 1);
            assert_eq!(
                found.unwrap_or(0),
                written,
                "what was acknowledged before the close"
            );
        }
        assert!(fs.list(Path::new("s")).is_ok());
        again.close().unwrap();
    });
}

#[test]
fn transactions_lose_no_update() {
    permuted(60, || {
        let (store, family) = open(options(disk(), 1));
        let buyers: Vec<_> = (0..3)
            .map(|_| {
                let store = store.clone();
                thread::spawn(move || {
                    store
                        .transact(|transaction| {
                            let sum = transaction.get(family, b"sum")?.map_or(0, |value| number(&value));
                            transaction.put(family, b"sum", &long(sum + 1));
                            Ok(())
                        })
                        .unwrap();
                })
            })
            .collect();
        let flusher = thread::spawn({
            let store = store.clone();
            move || store.flush().unwrap()
        });
        buyers.into_iter().for_each(|buyer| buyer.join().unwrap());
        flusher.join().unwrap();
        assert_eq!(number(&store.get(family, b"sum").unwrap().unwrap()), 3);
        store.close().unwrap();
    });
}
