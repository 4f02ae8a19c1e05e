//! Transactions that commit although somebody came in between would let two people buy one seat.

use crate::support::{simulated, tiny};
use keybed_env::Random;
use keybed_format::Code;
use keybed_lsm::{CompactionFilter, Family, FamilyOptions, SharedStore, Store, SumU64, Transaction, Verdict};
use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
    thread,
};

fn number(value: &[u8]) -> u64 {
    u64::from_le_bytes(value.try_into().expect("eight bytes"))
}

fn store() -> (Store, Family) {
    let mut store = Store::open("store", simulated(crate::support::disk(), 1)).unwrap();
    let family = store.family("f").unwrap();
    (store, family)
}

/// What a step in between does, and whether the transaction that read `a` may still commit.
#[test]
fn a_commit_fails_if_and_only_if_what_was_read_has_changed() {
    type Step = fn(&mut Store, Family);
    let steps: [(&str, Step, bool); 10] = [
        (
            "a floor above it",
            |s, f| assert!(s.raise_floor(f, b"", b"aa").unwrap()),
            false,
        ),
        ("nothing", |_, _| {}, true),
        ("another key", |s, f| s.put(f, b"b", b"2").unwrap(), true),
        ("a put", |s, f| s.put(f, b"a", b"2").unwrap(), false),
        ("the same value", |s, f| s.put(f, b"a", b"1").unwrap(), false),
        ("a delete", |s, f| s.delete(f, b"a").unwrap(), false),
        (
            "a delete of a range",
            |s, f| s.delete_range(f, &b"a"[..]..&b"b"[..]).unwrap(),
            false,
        ),
        (
            "a delete of another range",
            |s, f| s.delete_prefix(f, b"x").unwrap(),
            true,
        ),
        ("a flush", |s, _| s.flush().unwrap(), true),
        ("a merge of runs", |s, f| s.compact(f).unwrap(), true),
    ];
    for (name, step, commits) in steps {
        for flushed in [false, true] {
            let (mut store, family) = store();
            store.put(family, b"a", b"1").unwrap();
            if flushed {
                store.flush().unwrap();
            }
            let mut transaction = Transaction::new();
            assert_eq!(
                transaction.get(&store, family, b"a").unwrap().unwrap(),
                b"1",
                "{name}"
            );
            assert!(transaction.get(&store, family, b"absent").unwrap().is_none());
            transaction.put(family, b"c", b"9");
            step(&mut store, family);
            let result = transaction.commit(&mut store);
            let code = result.err().map(|error| error.code());
            assert_eq!(
                code,
                (!commits).then_some(Code::Conflict),
                "{name}, flushed {flushed}"
            );
            assert_eq!(store.contains(family, b"c").unwrap(), commits, "{name}");
        }
    }
}

#[test]
fn a_key_that_was_absent_and_appears_is_a_conflict_in_a_range_too() {
    for by_range in [false, true] {
        let (mut store, family) = store();
        store.put(family, b"k1", b"1").unwrap();
        let mut transaction = Transaction::new();
        if by_range {
            assert_eq!(transaction.prefix(&store, family, b"k").unwrap().len(), 1);
        } else {
            assert!(transaction.get(&store, family, b"k2").unwrap().is_none());
        }
        transaction.put(family, b"sum", b"1");
        store.put(family, b"k2", b"1").unwrap();
        let error = transaction.commit(&mut store).unwrap_err();
        assert_eq!(error.code(), Code::Conflict);
    }
}

#[test]
fn own_writes_are_seen_by_gets_and_ranges() {
    let (mut store, family) = store();
    let sums = FamilyOptions {
        merge: Some(Arc::new(SumU64)),
        ..FamilyOptions::default()
    };
    let sums = store.family_with("sums", sums).unwrap();
    for key in [b"a", b"b", b"c"] {
        store.put(family, key, b"old").unwrap();
        store.merge(sums, key, &5_u64.to_le_bytes()).unwrap();
    }
    let mut transaction = Transaction::new();
    transaction.put(family, b"aa", b"new");
    transaction.delete(family, b"b");
    for _ in 0..2 {
        transaction.merge(sums, b"a", &1_u64.to_le_bytes());
        transaction.merge(sums, b"z", &1_u64.to_le_bytes());
    }
    transaction.put(sums, b"c", &100_u64.to_le_bytes());
    transaction.merge(sums, b"c", &1_u64.to_le_bytes());
    let keys = |entries: Vec<(Vec<u8>, Vec<u8>)>| -> Vec<Vec<u8>> {
        entries.into_iter().map(|(key, _)| key).collect()
    };
    let seen = transaction.range(&store, family, ..).unwrap();
    assert_eq!(keys(seen), [&b"a"[..], b"aa", b"c"]);
    let values = |entries: Vec<(Vec<u8>, Vec<u8>)>| -> Vec<u64> {
        entries.iter().map(|(_, value)| number(value)).collect()
    };
    assert_eq!(
        values(transaction.range(&store, sums, ..).unwrap()),
        [7, 5, 101, 2]
    );
    let z = transaction.get(&store, sums, b"z").unwrap().unwrap();
    assert_eq!(number(&z), 2);
    transaction.commit(&mut store).unwrap();
    let after: Vec<_> = store.range(sums, ..).unwrap().map(Result::unwrap).collect();
    assert_eq!(values(after), [7, 5, 101, 2]);
    assert!(!store.contains(family, b"b").unwrap());
}

#[test]
fn a_transaction_removes_ranges_without_reading_them() {
    let (mut store, family) = store();
    for key in [&b"a"[..], b"b1", b"b2", b"c"] {
        store.put(family, key, b"old").unwrap();
    }
    store.flush().unwrap();
    let mut transaction = Transaction::new();
    transaction.put(family, b"b2", b"gone");
    transaction.delete_prefix(family, b"b");
    transaction.put(family, b"b3", b"new");
    transaction.delete_range(family, &b"c"[..]..);
    assert!(transaction.get(&store, family, b"b1").unwrap().is_none());
    assert_eq!(transaction.get(&store, family, b"b3").unwrap().unwrap(), b"new");
    // What is in the ranges at the commit goes, whoever wrote it.
    store.put(family, b"b4", b"between").unwrap();
    store.delete(family, b"b1").unwrap();
    store.put(family, b"d", b"between").unwrap();
    transaction.commit(&mut store).unwrap();
    let left: Vec<_> = store.range(family, ..).unwrap().map(Result::unwrap).collect();
    assert_eq!(
        left,
        [
            (b"a".to_vec(), b"old".to_vec()),
            (b"b3".to_vec(), b"new".to_vec())
        ]
    );

    // A range that was read rests on all of the store's entries, removed by the reader or not.
    let mut transaction = Transaction::new();
    transaction.delete_range(family, ..);
    assert!(transaction.range(&store, family, ..).unwrap().is_empty());
    store.put(family, b"x", b"1").unwrap();
    assert_eq!(transaction.commit(&mut store).unwrap_err().code(), Code::Conflict);
}

/// Says of every value that it is another one.
#[derive(Debug)]
struct Marks;

impl CompactionFilter for Marks {
    fn filter(&self, _: &[u8], value: &[u8], _: u64) -> Verdict {
        Verdict::Change([value, b"!"].concat())
    }
}

#[test]
fn a_value_that_a_compaction_filter_changed_is_a_conflict() {
    let (mut store, _) = store();
    let options = FamilyOptions {
        filter: Some(Arc::new(Marks)),
        ..FamilyOptions::default()
    };
    let family = store.family_with("orders", options).unwrap();
    store.put(family, b"a", b"1").unwrap();
    let mut transaction = Transaction::new();
    assert_eq!(transaction.get(&store, family, b"a").unwrap().unwrap(), b"1");
    transaction.put(family, b"b", b"2");
    store.compact(family).unwrap();
    assert_eq!(store.get(family, b"a").unwrap().unwrap(), b"1!");
    assert_eq!(transaction.commit(&mut store).unwrap_err().code(), Code::Conflict);
}

#[test]
fn write_skew_does_not_happen() {
    // Both doctors may leave only while the other one stays: each reads both, and writes another key.
    let (mut store, family) = store();
    for doctor in [b"ann", b"bob"] {
        store.put(family, doctor, b"on call").unwrap();
    }
    let leave = |store: &Store, doctor: &[u8]| {
        let mut transaction = Transaction::new();
        let on_call = transaction.range(store, family, ..).unwrap().len();
        if on_call > 1 {
            transaction.delete(family, doctor);
        }
        transaction
    };
    let (ann, bob) = (leave(&store, b"ann"), leave(&store, b"bob"));
    ann.commit(&mut store).unwrap();
    assert_eq!(bob.commit(&mut store).unwrap_err().code(), Code::Conflict);
    leave(&store, b"bob").commit(&mut store).unwrap();
    assert!(store.contains(family, b"bob").unwrap());
}

const ACCOUNTS: u64 = 12;
const BALANCE: u64 = 100;

/// What a committed transaction read (account → writer) and wrote.
struct Committed {
    id: u64,
    read: BTreeMap<u64, u64>,
    wrote: BTreeSet<u64>,
}

fn value(writer: u64, balance: u64) -> Vec<u8> {
    [writer.to_le_bytes(), balance.to_le_bytes()].concat()
}

fn parts(value: &[u8]) -> (u64, u64) {
    (number(&value[..8]), number(&value[8..]))
}

fn transfers(store: &SharedStore, family: Family, thread: u64, count: u64) -> Vec<Committed> {
    let mut random = Random::from_seed(thread);
    let mut history = Vec::new();
    for n in 0..count {
        let id = (thread + 1) << 32 | n;
        let is_audit = random.below(4) == 0;
        let (from, to) = (random.below(ACCOUNTS), random.below(ACCOUNTS));
        let done = store.transact(|transaction| {
            let mut committed = Committed {
                id,
                read: BTreeMap::new(),
                wrote: BTreeSet::new(),
            };
            if is_audit {
                let entries = transaction.range(family, ..)?;
                let mut total = 0;
                for (key, value) in &entries {
                    let (writer, balance) = parts(value);
                    committed.read.insert(number(key), writer);
                    total += balance;
                }
                assert_eq!(total, ACCOUNTS * BALANCE, "a range is of one moment");
                return Ok(committed);
            }
            let mut balances = [0; 2];
            for (account, balance) in [from, to].into_iter().zip(&mut balances) {
                let read = transaction
                    .get(family, &account.to_le_bytes())?
                    .expect("an account");
                let (writer, found) = parts(&read);
                committed.read.insert(account, writer);
                *balance = found;
            }
            if from != to && balances[0] > 0 {
                transaction.put(family, &from.to_le_bytes(), &value(id, balances[0] - 1));
                transaction.put(family, &to.to_le_bytes(), &value(id, balances[1] + 1));
                committed.wrote.extend([from, to]);
            }
            Ok(committed)
        });
        history.push(done.unwrap());
    }
    history
}

/// Every transaction goes behind those it read from, and before whoever replaced what it read.
fn assert_serializable(history: &[Committed]) {
    let mut next: HashMap<(u64, u64), u64> = HashMap::new();
    for one in history {
        for account in &one.wrote {
            let replaced = (*account, one.read[account]);
            let other = next.insert(replaced, one.id);
            assert_eq!(other, None, "two transactions replaced one version of {account}");
        }
    }
    let mut behind: HashMap<u64, BTreeSet<u64>> = HashMap::new();
    for one in history {
        for (account, writer) in &one.read {
            if *writer != 0 {
                behind.entry(*writer).or_default().insert(one.id);
            }
            if let Some(&replacer) = next.get(&(*account, *writer))
                && replacer != one.id
            {
                behind.entry(one.id).or_default().insert(replacer);
            }
        }
    }
    // Taking away whoever has nobody before it must take away all.
    let mut before: HashMap<u64, usize> = history.iter().map(|one| (one.id, 0)).collect();
    for id in behind.values().flatten() {
        *before.get_mut(id).expect("a committed transaction") += 1;
    }
    let mut free: Vec<u64> = before
        .iter()
        .filter(|(_, n)| **n == 0)
        .map(|(id, _)| *id)
        .collect();
    let mut taken = 0;
    while let Some(id) = free.pop() {
        taken += 1;
        for other in behind.get(&id).into_iter().flatten() {
            let left = before.get_mut(other).expect("a committed transaction");
            *left -= 1;
            if *left == 0 {
                free.push(*other);
            }
        }
    }
    assert_eq!(
        taken,
        history.len(),
        "transactions wait for each other in a circle"
    );
}

#[test]
fn committed_transactions_are_as_if_one_after_the_other() {
    let place = tempfile::tempdir().unwrap();
    let store = SharedStore::open(place.path().join("store"), tiny()).unwrap();
    let family = store.family("accounts").unwrap();
    for account in 0..ACCOUNTS {
        store
            .put(family, &account.to_le_bytes(), &value(0, BALANCE))
            .unwrap();
    }
    let history: Vec<Committed> = thread::scope(|scope| {
        let spawn = |thread| {
            let store = store.clone();
            scope.spawn(move || transfers(&store, family, thread, crate::support::scale(1500)))
        };
        let running: Vec<_> = (0..4).map(spawn).collect();
        running
            .into_iter()
            .flat_map(|thread| thread.join().unwrap())
            .collect()
    });
    assert_serializable(&history);
    let total: u64 = store
        .range(family, ..)
        .unwrap()
        .map(|entry| parts(&entry.unwrap().1).1)
        .sum();
    assert_eq!(total, ACCOUNTS * BALANCE);
    store.close().unwrap();
}

#[test]
#[should_panic(expected = "in a circle")]
fn the_check_of_histories_finds_write_skew() {
    let skewed = |id: u64, wrote: u64| Committed {
        id,
        read: BTreeMap::from([(0, 0), (1, 0)]),
        wrote: BTreeSet::from([wrote]),
    };
    assert_serializable(&[skewed(1, 0), skewed(2, 1)]);
}
