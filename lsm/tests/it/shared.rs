//! Threads that lose each other's writes, or see half of them, would make a shared store worthless.

use crate::support::tiny;
use keybed_env::Random;
use keybed_format::Code;
use keybed_lsm::{Family, SharedStore, SumU64, Update};
use std::{
    sync::{
        Arc, Condvar, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

const THREADS: u64 = 4;

fn open(place: &tempfile::TempDir) -> (SharedStore, Family) {
    let store = SharedStore::open(place.path().join("store"), tiny()).unwrap();
    let family = store.family("f").unwrap();
    (store, family)
}

fn number(value: &[u8]) -> u64 {
    u64::from_le_bytes(value.try_into().expect("eight bytes"))
}

fn key(n: u64) -> [u8; 8] {
    n.to_be_bytes()
}

#[test]
fn no_update_is_lost() {
    let place = tempfile::tempdir().unwrap();
    let (store, family) = open(&place);
    let sums = keybed_lsm::FamilyOptions {
        merge: Some(Arc::new(SumU64)),
        ..Default::default()
    };
    let sums = store.family_with("sums", sums).unwrap();
    const UPDATES: u64 = 5_000;
    thread::scope(|scope| {
        for thread in 0..THREADS {
            let store = store.clone();
            scope.spawn(move || {
                let mut random = Random::from_seed(thread);
                for _ in 0..UPDATES {
                    let key = key(random.below(500));
                    let add = |old: Option<&[u8]>| Update::Put((old.map_or(0, number) + 1).to_le_bytes());
                    store.update(family, &key, add).unwrap();
                    store.merge(sums, &key, &1_u64.to_le_bytes()).unwrap();
                }
            });
        }
    });
    for family in [family, sums] {
        let total: u64 = store
            .range(family, ..)
            .unwrap()
            .map(|entry| number(&entry.unwrap().1))
            .sum();
        assert_eq!(total, THREADS * UPDATES);
    }
    assert_eq!(store.counts().writes, 2 * THREADS * UPDATES);
    store.close().unwrap();
}

#[test]
fn a_thread_sees_its_own_writes_and_never_older_ones_of_others() {
    let place = tempfile::tempdir().unwrap();
    let (store, family) = open(&place);
    const KEYS: u64 = 300;
    const ROUNDS: u64 = 30;
    thread::scope(|scope| {
        for writer in 0..2 {
            let store = store.clone();
            scope.spawn(move || {
                for round in 1..=ROUNDS {
                    for n in (writer..KEYS).step_by(2) {
                        store.put(family, &key(n), &round.to_le_bytes()).unwrap();
                        let seen = store.get(family, &key(n)).unwrap().unwrap();
                        assert_eq!(number(&seen), round, "of key {n}");
                    }
                }
            });
        }
        for reader in 0..2 {
            let store = store.clone();
            scope.spawn(move || {
                let mut last = vec![0; KEYS as usize];
                let mut random = Random::from_seed(reader);
                while last.iter().any(|&round| round < ROUNDS) {
                    let n = random.below(KEYS);
                    let keys = [key(n), key((n + 1) % KEYS)];
                    let seen = store.multi_get(family, &keys).unwrap();
                    for (key, seen) in keys.iter().zip(seen) {
                        let n = u64::from_be_bytes(*key) as usize;
                        let seen = seen.map_or(0, |value| number(&value));
                        assert!(seen >= last[n], "key {n} went from {} back to {seen}", last[n]);
                        last[n] = seen;
                    }
                }
            });
        }
    });
    store.close().unwrap();
}

#[test]
fn a_range_is_of_one_moment_also_when_it_is_long() {
    let place = tempfile::tempdir().unwrap();
    let (store, family) = open(&place);
    const ACCOUNTS: u64 = 700;
    for n in 0..ACCOUNTS {
        store.put(family, &key(n), &100_u64.to_le_bytes()).unwrap();
    }
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        for seed in 0..2 {
            let (store, done) = (store.clone(), &done);
            scope.spawn(move || {
                let mut random = Random::from_seed(seed);
                while !done.load(Ordering::Relaxed) {
                    let (from, to) = (key(random.below(ACCOUNTS)), key(random.below(ACCOUNTS)));
                    let transfer = |store: &mut keybed_lsm::Store| {
                        let balance = number(&store.get(family, &from)?.expect("an account"));
                        if balance == 0 || from == to {
                            return Ok(());
                        }
                        let other = number(&store.get(family, &to)?.expect("an account"));
                        store.put(family, &from, &(balance - 1).to_le_bytes())?;
                        store.put(family, &to, &(other + 1).to_le_bytes())
                    };
                    store.exclusive(transfer).unwrap();
                }
            });
        }
        for _ in 0..40 {
            let (mut total, mut count) = (0, 0);
            let mut range = store.range(family, ..).unwrap();
            while let Some((_, value)) = range.next_entry().unwrap() {
                total += number(value);
                count += 1;
            }
            assert_eq!((total, count), (100 * ACCOUNTS, ACCOUNTS));
            let few = store.range(family, &key(10)[..]..&key(20)[..]).unwrap();
            assert_eq!(few.count(), 10);
            let down = store.range_rev(family, ..).unwrap().map(|entry| entry.unwrap().0);
            assert!(down.eq((0..ACCOUNTS).rev().map(|n| key(n).to_vec())));
        }
        done.store(true, Ordering::Relaxed);
    });
    store.close().unwrap();
}

#[test]
fn handles_count_their_reads_and_the_store_adds_them_up() {
    let place = tempfile::tempdir().unwrap();
    let (store, family) = open(&place);
    store.put(family, b"a", b"1").unwrap();
    thread::scope(|scope| {
        for _ in 0..THREADS {
            let store = store.clone();
            scope.spawn(move || {
                for _ in 0..1000 {
                    assert!(
                        store
                            .get_with(family, b"a", |value| value == b"1")
                            .unwrap()
                            .unwrap()
                    );
                    assert!(!store.contains(family, b"b").unwrap());
                }
            });
        }
    });
    let counts = store.stats_reader().counts();
    assert_eq!((counts.memtable_hits, counts.table_gets), (4000, 4000));
    store.close().unwrap();
}

/// An operator that holds a flush up.
#[derive(Debug, Default)]
struct Gate {
    is_open: Mutex<bool>,
    changed: Condvar,
    gave_up: AtomicBool,
}

impl Gate {
    fn open(&self) {
        *self.is_open.lock().unwrap() = true;
        self.changed.notify_all();
    }
}

impl keybed_lsm::MergeOperator for Gate {
    fn name(&self) -> &str {
        "test.gate"
    }

    fn merge(&self, _: Option<&[u8]>, operand: &[u8], out: &mut Vec<u8>) -> keybed_format::Result {
        let is_open = self.is_open.lock().unwrap();
        let patience = Duration::from_secs(60);
        let waited = self
            .changed
            .wait_timeout_while(is_open, patience, |is_open| !*is_open);
        if waited.unwrap().1.timed_out() {
            self.gave_up.store(true, Ordering::Relaxed);
        }
        out.extend_from_slice(operand);
        Ok(())
    }
}

#[test]
fn readers_go_on_while_a_writer_waits_for_a_flush() {
    let place = tempfile::tempdir().unwrap();
    let (store, family) = open(&place);
    let gate = Arc::new(Gate::default());
    let gated = keybed_lsm::FamilyOptions {
        merge: Some(gate.clone()),
        ..Default::default()
    };
    let gated = store.family_with("gated", gated).unwrap();
    gate.open();
    store.merge(gated, b"a", b"1").unwrap();
    store.flush().unwrap();
    store.compact(gated).unwrap();
    *gate.is_open.lock().unwrap() = false;
    // The flush of this operand finds that no table holds the key, folds it, and stands still.
    store.merge(gated, b"b", b"1").unwrap();
    store.view().unwrap();
    store.put(family, b"seen", b"1").unwrap();
    thread::scope(|scope| {
        let writer = store.clone();
        scope.spawn(move || {
            for n in 0..2000 {
                writer.put(family, &key(n), &[0; 40]).unwrap();
            }
        });
        while store.counts().stalls == 0 {
            thread::yield_now();
        }
        for _ in 0..100 {
            assert!(store.contains(family, b"seen").unwrap());
            assert!(store.range(family, ..).unwrap().next().is_some());
        }
        assert!(
            !gate.gave_up.load(Ordering::Relaxed),
            "readers waited for the writer"
        );
        gate.open();
    });
    assert_eq!(store.range(family, ..).unwrap().count(), 2001);
    let waits = store.stats().waits;
    assert!(waits.stop.count() > 0, "{waits:?}");
    store.close().unwrap();
}

#[test]
fn closing_is_for_all_handles() {
    let place = tempfile::tempdir().unwrap();
    let (store, family) = open(&place);
    let other = store.clone();
    let reader = store.stats_reader();
    store.put(family, b"a", b"1").unwrap();
    store.close().unwrap();
    let codes = [
        other.get(family, b"a").unwrap_err().code(),
        other.put(family, b"a", b"2").unwrap_err().code(),
        other.range(family, ..).unwrap_err().code(),
        other.flush().unwrap_err().code(),
        other.close().unwrap_err().code(),
    ];
    assert_eq!(codes, [Code::Closed; 5]);
    assert_eq!(reader.counts().writes, 1);
    let (again, family) = open(&place);
    assert_eq!(again.get(family, b"a").unwrap().unwrap(), b"1");
    again.close().unwrap();
}
