//! A batch of reads that answered anything else than single reads would hand a job another key's state.

use crate::support::{Chain, disk, scale, simulated};
use keybed_env::Random;
use keybed_format::Result;
use keybed_lsm::{Access, FamilyOptions, MemtableKind, Store, StoreOptions, SumU64};
use std::sync::Arc;

fn key(random: &mut Random) -> Vec<u8> {
    let number = random.below(400);
    match number % 3 {
        0 => number.to_be_bytes().to_vec(),
        1 => format!("key {number}").into_bytes(),
        _ => vec![number as u8; number as usize % 40],
    }
}

fn batch(random: &mut Random) -> Vec<Vec<u8>> {
    (0..random.below(50)).map(|_| key(random)).collect()
}

/// Same answers, errors included.
fn same(store: &Store, family: keybed_lsm::Family, keys: &[Vec<u8>]) -> Result {
    store.prefetch(family, keys)?;
    let batch = store.multi_get(family, keys)?;
    assert_eq!(batch.len(), keys.len());
    for (key, value) in keys.iter().zip(batch) {
        match (value, store.get(family, key)) {
            (Ok(one), Ok(other)) => {
                assert_eq!(one.map(|v| v.to_vec()), other.map(|v| v.to_vec()), "{key:?}");
            }
            (one, other) => assert_eq!(one.unwrap_err().code(), other.unwrap_err().code()),
        }
    }
    Ok(())
}

#[test]
fn batches_answer_what_single_reads_answer() -> Result {
    for seed in 0..scale(24) {
        let mut random = Random::from_seed(seed);
        let options = StoreOptions {
            access: if seed % 2 == 0 { Access::Map } else { Access::Cache },
            ..simulated(disk(), seed)
        };
        let mut store = Store::open("/store", options)?;
        let mut families = Vec::new();
        for number in 0..3 {
            let options = FamilyOptions {
                merge: match number {
                    0 => None,
                    1 => Some(Arc::new(SumU64)),
                    _ => Some(Arc::new(Chain)),
                },
                memtable: if (seed / 2 + number) % 2 == 0 {
                    MemtableKind::Hash
                } else {
                    MemtableKind::Ordered
                },
                partition_prefix: u8::from(number > 0),
                ..FamilyOptions::default()
            };
            families.push((number, store.family_with(&number.to_string(), options)?));
        }
        for step in 0..1_500 {
            let (number, family) = families[random.below(3) as usize];
            let key = key(&mut random);
            match random.below(40) {
                36 => {
                    let other = self::key(&mut random);
                    let (low, high) = if key < other { (key, other) } else { (other, key) };
                    store.delete_range(family, &low[..]..&high[..])?;
                }
                37 => store.delete_prefix(family, &key[..key.len().min(5)])?,
                38 | 39 if number > 0 && key.len() > 1 => {
                    store.raise_floor(family, &key[..1], &key[1..])?;
                }
                0..6 => store.delete(family, &key)?,
                6..20 if number > 0 => store.merge(family, &key, &random.below(9).to_le_bytes())?,
                _ => store.put(family, &key, &random.below(9).to_le_bytes())?,
            }
            if step % 50 == 0 {
                let keys = batch(&mut random);
                same(&store, family, &keys)?;
                // A view of the moment answers alike later, from the memtables and from their tables.
                let view = store.view()?;
                let now: Vec<_> = keys
                    .iter()
                    .map(|key| Ok(store.get(family, key)?.map(|value| value.to_vec())))
                    .collect::<Result<_>>()?;
                store.delete_prefix(
                    family,
                    keys.first().map_or(&[][..], |key| &key[..key.len().min(1)]),
                )?;
                for is_flushed in [false, true] {
                    if is_flushed {
                        store.flush()?;
                    }
                    for (value, expected) in view.multi_get(family, &keys)?.into_iter().zip(&now) {
                        assert_eq!(value?.map(|v| v.to_vec()), *expected, "seed {seed}, step {step}");
                    }
                }
            }
            if step % 500 == 499 {
                store.compact(family)?;
            }
        }
        for (_, family) in &families {
            let keys = batch(&mut random);
            same(&store, *family, &keys)?;
            let view = store.view()?;
            let values = view.multi_get(*family, &keys)?;
            for (key, value) in keys.iter().zip(values) {
                let (one, other) = (value?, store.get(*family, key)?);
                assert_eq!(
                    one.map(|v| v.to_vec()),
                    other.map(|v| v.to_vec()),
                    "seed {seed} {key:?}"
                );
            }
        }
        assert!(store.stats().multi_gets > 100, "seed {seed}");
        store.close()?;
    }
    Ok(())
}

#[test]
fn a_token_of_another_store_is_refused() -> Result {
    let mut one = Store::open("/one", simulated(disk(), 1))?;
    let two = Store::open("/two", simulated(disk(), 2))?;
    let family = one.family("f")?;
    let error = two.multi_get(family, &[b"k"]).err().map(|error| error.code());
    assert_eq!(error, Some(keybed_format::Code::InvalidArgument));
    assert!(two.prefetch(family, &[b"k"]).is_err());
    assert!(one.multi_get::<&[u8]>(family, &[])?.is_empty());
    Ok(())
}
