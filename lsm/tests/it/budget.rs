//! A bound on memory that does not hold gets the process killed; one that makes reads fail or writers hang stops the
//! job as surely.

use crate::support::{disk, scale, simulated, tiny};
use keybed_env::{ManualClock, Random, SimScheduler, random::Ids};
use keybed_format::{Code, Result};
use keybed_lsm::{
    Access, Family, FamilyOptions, MemoryBudget, MemtableKind, Pool, Store, StoreOptions, WriteBatch,
    budget::POOLS,
};
use std::{collections::BTreeMap, sync::Arc, time::Duration};

struct Tenant {
    store: Store,
    families: Vec<Family>,
    model: BTreeMap<(usize, u64), Vec<u8>>,
}

fn tenants(count: usize, options: &StoreOptions, families: usize) -> Result<Vec<Tenant>> {
    let tenant = |number: usize| {
        let mut store = Store::open(format!("/store-{number}"), options.clone())?;
        let family = |number: usize| {
            let options = FamilyOptions {
                memtable: if number.is_multiple_of(2) {
                    MemtableKind::Hash
                } else {
                    MemtableKind::Ordered
                },
                ..FamilyOptions::default()
            };
            store.family_with(&number.to_string(), options)
        };
        let families = (0..families).map(family).collect::<Result<_>>()?;
        Ok(Tenant {
            store,
            families,
            model: BTreeMap::new(),
        })
    };
    (0..count).map(tenant).collect()
}

impl Tenant {
    fn step(&mut self, random: &mut Random) -> Result {
        let number = random.below(self.families.len() as u64) as usize;
        let family = self.families[number];
        let key = random.below(3_000);
        let bytes = match random.below(200) {
            0 => random.below(20_000),
            _ => random.below(600),
        };
        let value = vec![key as u8; bytes as usize];
        match random.below(10) {
            0 => {
                self.store.delete(family, &key.to_be_bytes())?;
                self.model.remove(&(number, key));
            }
            1 => {
                let mut batch = WriteBatch::new();
                for near in key..key + 5 {
                    batch.put(family, &near.to_be_bytes(), &value[..value.len().min(500)]);
                    let value = value[..value.len().min(500)].to_vec();
                    self.model.insert((number, near), value);
                }
                self.store.write(&batch)?;
            }
            2..=4 => {
                let found = self
                    .store
                    .get(family, &key.to_be_bytes())?
                    .map(|value| value.to_vec());
                assert_eq!(found.as_ref(), self.model.get(&(number, key)));
            }
            _ => {
                self.store.put(family, &key.to_be_bytes(), &value)?;
                self.model.insert((number, key), value);
            }
        }
        Ok(())
    }

    fn check(&self) -> Result {
        for (number, family) in self.families.iter().enumerate() {
            let found: Vec<_> = self.store.range(*family, ..)?.collect::<Result<_>>()?;
            let expected = self.model.range((number, 0)..(number + 1, 0));
            let expected = expected.map(|((_, key), value)| (key.to_be_bytes().to_vec(), value.clone()));
            let expected: Vec<_> = expected.collect();
            for (one, other) in found.iter().zip(&expected) {
                assert!(
                    one == other,
                    "family {number}: {:?} of {} bytes, not {:?} of {}",
                    one.0,
                    one.1.len(),
                    other.0,
                    other.1.len()
                );
            }
            assert_eq!(found.len(), expected.len(), "family {number}");
        }
        Ok(())
    }
}

#[test]
fn stores_of_one_thread_stay_within_their_budget() -> Result {
    for seed in 0..scale(6) {
        let budget = MemoryBudget::new(4 << 20);
        let options = StoreOptions {
            budget: Some(budget.clone()),
            memtable_bytes: 64 << 20,
            cache_bytes: 1 << 20,
            access: if seed % 2 == 0 { Access::Map } else { Access::Cache },
            target_file_bytes: 64 << 10,
            ..simulated(disk(), seed)
        };
        let mut random = Random::from_seed(seed);
        let mut tenants = tenants(5, &options, 3)?;
        for step in 0..8_000 {
            // Most writes go to few stores; the others lie idle with what they have.
            let busy = 1 + (step / 2_000) as u64 % 5;
            tenants[random.below(busy) as usize].step(&mut random)?;
            let stats = budget.stats();
            assert!(stats.bytes <= stats.total, "seed {seed} step {step}: {stats:?}");
        }
        tenants.iter().try_for_each(Tenant::check)?;
        let stats = budget.stats();
        assert!(stats.peak <= stats.total, "seed {seed}: {stats:?}");
        assert!(stats.pool(Pool::Write).peak > 1 << 20, "seed {seed}: {stats:?}");
        assert!(stats.asked > 0, "seed {seed}: {stats:?}");
        for tenant in tenants {
            tenant.store.close()?;
        }
        assert_eq!(budget.stats().bytes, 0, "seed {seed}: {budget:?}");
    }
    Ok(())
}

#[test]
fn stores_of_several_threads_stay_within_their_budget() -> Result {
    let budget = MemoryBudget::new(8 << 20);
    let dir = tempfile::tempdir().unwrap();
    let options = StoreOptions {
        budget: Some(budget.clone()),
        memtable_bytes: 64 << 20,
        cache_bytes: 1 << 20,
        access: Access::Cache,
        target_file_bytes: 256 << 10,
        ..tiny()
    };
    std::thread::scope(|scope| {
        for number in 0..4_u64 {
            let (options, dir, budget) = (options.clone(), dir.path().join(number.to_string()), &budget);
            scope.spawn(move || {
                let mut store = Store::open(dir, options).unwrap();
                let family = store.family("f").unwrap();
                let mut random = Random::from_seed(number);
                let mut model = BTreeMap::new();
                for _ in 0..scale(12_000) {
                    let key = random.below(4_000).to_be_bytes();
                    let value = vec![key[7]; random.below(1_000) as usize];
                    store.put(family, &key, &value).unwrap();
                    model.insert(key, value);
                    let key = random.below(4_000).to_be_bytes();
                    let found = store.get(family, &key).unwrap();
                    assert_eq!(found.as_deref(), model.get(&key).map(Vec::as_slice));
                    let stats = budget.stats();
                    assert!(stats.bytes <= stats.total, "{stats:?}");
                }
                store.close().unwrap();
            });
        }
    });
    let stats = budget.stats();
    assert_eq!(stats.bytes, 0, "{stats:?}");
    assert!(stats.peak <= stats.total, "{stats:?}");
    Ok(())
}

#[test]
fn a_store_gets_on_although_idle_stores_hold_all_memory() -> Result {
    let budget = MemoryBudget::new(1 << 20);
    let options = StoreOptions {
        budget: Some(budget.clone()),
        ..simulated(disk(), 1)
    };
    let options = StoreOptions {
        memtable_bytes: 64 << 20,
        ..options
    };
    let mut tenants = tenants(2, &options, 1)?;
    let hold = budget
        .try_lease(Pool::Meta, budget.stats().total / 8 * 7 - budget.stats().bytes)
        .unwrap();
    let mut random = Random::from_seed(1);
    for _ in 0..1_000 {
        let tenant = &mut tenants[0];
        let key = random.below(500);
        let value = vec![1; random.below(300) as usize];
        tenant.store.put(tenant.families[0], &key.to_be_bytes(), &value)?;
        tenant.model.insert((0, key), value);
    }
    tenants[0].check()?;
    assert!(
        tenants[0].store.stats().seals > 1,
        "small memtables, flushed one by one"
    );
    drop(hold);
    Ok(())
}

#[test]
fn a_write_that_finds_no_memory_fails_with_busy_and_succeeds_later() -> Result {
    let budget = MemoryBudget::new(1 << 20);
    let options = StoreOptions {
        budget: Some(budget.clone()),
        write_wait_max: Duration::from_millis(20),
        ..simulated(disk(), 1)
    };
    let mut store = Store::open("/store", options)?;
    let family = store.family("f")?;
    let hold = budget
        .try_lease(Pool::Meta, budget.stats().total / 8 * 7 - budget.stats().bytes)
        .unwrap();
    store.put(family, b"small", b"value")?;
    let large = vec![7; 100 << 10];
    let error = store.put(family, b"large", &large).unwrap_err();
    assert_eq!(error.code(), Code::Busy);
    assert!(error.to_string().contains("memory budget"), "{error}");
    assert_eq!(store.get(family, b"small")?.unwrap(), b"value");
    assert!(store.get(family, b"large")?.is_none());
    let mut batch = WriteBatch::new();
    batch.put(family, b"part", b"1").put(family, b"large", &large);
    assert_eq!(store.write(&batch).unwrap_err().code(), Code::Busy);
    assert!(
        store.get(family, b"part")?.is_none(),
        "a batch is written whole or not at all"
    );
    drop(hold);
    store.put(family, b"large", &large)?;
    store.write(&batch)?;
    assert_eq!(store.get(family, b"large")?.unwrap(), large);
    Ok(())
}

#[test]
fn more_stores_than_the_budget_has_reserves_for_are_refused() -> Result {
    let budget = MemoryBudget::new(1 << 20);
    let options = StoreOptions {
        budget: Some(budget.clone()),
        fs: disk(),
        scheduler: Arc::new(SimScheduler::new(1, Arc::new(ManualClock::new()))),
        ids: Ids::Seeded(Random::from_seed(1)),
        ..tiny()
    };
    let mut stores = Vec::new();
    let error = loop {
        match Store::open(format!("/store-{}", stores.len()), options.clone()) {
            Ok(store) => stores.push(store),
            Err(error) => break error,
        }
    };
    assert_eq!(error.code(), Code::InvalidArgument);
    assert!(error.to_string().contains("memory budget"), "{error}");
    assert_eq!(stores.len(), 7);
    stores.pop();
    stores.push(Store::open("/another", options)?);
    Ok(())
}

#[test]
fn pinned_values_outlive_writes_and_keep_no_more_blocks_than_their_quota() -> Result {
    let budget = MemoryBudget::new(2 << 20);
    let options = StoreOptions {
        budget: Some(budget.clone()),
        access: Access::Cache,
        block_bytes: 8 << 10,
        cache_bytes: 1 << 20,
        ..simulated(disk(), 1)
    };
    let mut store = Store::open("/store", options)?;
    let family = store.family("f")?;
    let value = |n: u64| vec![n as u8; if n.is_multiple_of(2) { 7_000 } else { 20 }];
    for n in 0..200_u64 {
        store.put(family, &n.to_be_bytes(), &value(n))?;
    }
    store.flush()?;
    let pinned = (0..200_u64)
        .map(|n| {
            Ok(store
                .get_pinned(family, &n.to_be_bytes())?
                .expect("it was written"))
        })
        .collect::<Result<Vec<_>>>()?;
    let kept = pinned.iter().filter(|value| value.keeps_block()).count();
    let stats = budget.stats();
    assert!(kept > 10 && kept < 100, "{kept} {stats:?}");
    assert!(
        stats.pinned <= stats.total / 8 && stats.pin_copies > 0,
        "{stats:?}"
    );
    // Where the last block holds nothing else, keeping it costs no more than a copy.
    let small = pinned.iter().skip(1).step_by(2);
    assert!(small.filter(|value| value.keeps_block()).count() <= 1);
    assert!(store.get_pinned(family, b"absent")?.is_none());
    for n in 0..200_u64 {
        store.put(family, &n.to_be_bytes(), b"other")?;
    }
    store.compact(family)?;
    store.close()?;
    for (n, pinned) in (0..).zip(&pinned) {
        assert_eq!(**pinned, value(n), "{n}");
    }
    drop(pinned);
    assert_eq!(budget.stats().pinned, 0);
    Ok(())
}

#[test]
fn range_deletes_and_floors_in_memory_count() -> Result {
    let budget = MemoryBudget::new(64 << 20);
    let options = StoreOptions {
        budget: Some(budget.clone()),
        memtable_bytes: 16 << 20,
        ..simulated(disk(), 1)
    };
    let mut store = Store::open("/store", options)?;
    let options = FamilyOptions {
        partition_prefix: 4,
        ..FamilyOptions::default()
    };
    let family = store.family_with("timers", options)?;
    store.put(family, b"key", b"value")?;
    let written = |budget: &MemoryBudget| budget.stats().pools[0].bytes;
    assert_eq!(POOLS[0], Pool::Write);
    let before = written(&budget);
    for number in 0..4_000_u32 {
        let key = [&number.to_be_bytes()[..], &[7; 100]].concat();
        store.delete_range(family, &key[..]..=&key[..])?;
        store.raise_floor(family, &number.to_be_bytes(), b"x")?;
    }
    let taken = written(&budget) - before;
    // Two bounds of some hundred bytes each, besides what a fragment takes.
    assert!(taken > 4_000 * 200, "{taken} bytes are counted");
    store.flush()?;
    store.wait_for_background()?;
    assert!(written(&budget) < before + taken / 2, "they are given back");
    store.close()
}
