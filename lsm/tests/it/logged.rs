//! A store with a log, and programs of writes and batches that are run on it and on maps.

use crate::support::{Chain, Map, simulated};
use keybed_env::{Fs, Random};
use keybed_format::Result;
use keybed_lsm::{
    Append, Durability, Family, FamilyOptions, MergeOperator, Store, StoreOptions, SumI64, Update, WriteBatch,
};
use std::sync::Arc;

/// Families of plain values, of lists, of sums, and of operands that do not combine.
pub(crate) const FAMILIES: usize = 4;
const KEYS: u64 = 12;

/// A store and its families.
pub(crate) struct Logged {
    pub(crate) store: Store,
    pub(crate) families: [Family; FAMILIES],
}

fn operator(number: usize) -> Option<Arc<dyn MergeOperator>> {
    match number {
        0 => None,
        1 => Some(Arc::new(Append)),
        2 => Some(Arc::new(SumI64)),
        _ => Some(Arc::new(Chain)),
    }
}

impl Logged {
    pub(crate) fn options(fs: Arc<dyn Fs>, seed: u64, durability: Durability) -> StoreOptions {
        StoreOptions {
            durability,
            wal_bytes_max: 64 << 10,
            ..simulated(fs, seed)
        }
    }

    pub(crate) fn open(fs: Arc<dyn Fs>, seed: u64, durability: Durability) -> Result<Logged> {
        Self::open_with(Self::options(fs, seed, durability))
    }

    pub(crate) fn open_with(options: StoreOptions) -> Result<Logged> {
        Self::around(Store::open("s", options)?)
    }

    pub(crate) fn around(mut store: Store) -> Result<Logged> {
        let families = Self::families(&mut store)?;
        Ok(Logged { store, families })
    }

    fn families(store: &mut Store) -> Result<[Family; FAMILIES]> {
        let mut tokens = Vec::new();
        for number in 0..FAMILIES {
            let options = FamilyOptions {
                merge: operator(number),
                ..FamilyOptions::default()
            };
            tokens.push(store.family_with(&format!("family {number}"), options)?);
        }
        Ok(tokens.try_into().expect("as many as families"))
    }

    pub(crate) fn content(&self) -> Result<Models> {
        let read = |family: &Family| self.store.range(*family, ..)?.collect::<Result<Map>>();
        let all: Vec<Map> = self.families.iter().map(read).collect::<Result<_>>()?;
        Ok(all.try_into().expect("as many as families"))
    }
}

/// What the families hold.
pub(crate) type Models = [Map; FAMILIES];

/// What was written.
#[derive(Clone, Default)]
pub(crate) struct Program {
    /// Every write that succeeded.
    pub(crate) models: Models,
    /// And the one that was tried last.
    pub(crate) tried: Models,
}

impl Program {
    /// One random write or batch; the model follows if it succeeds.
    pub(crate) fn step(&mut self, logged: &mut Logged, random: &mut Random) -> Result {
        self.tried.clone_from(&self.models);
        let next = &mut self.tried;
        match random.below(40) {
            0 => {
                let n = random.index(FAMILIES);
                next[n].clear();
                logged.store.clear(logged.families[n])?;
            }
            1..=12 => {
                let mut batch = WriteBatch::new();
                for _ in 0..1 + random.index(6) {
                    let op = Op::draw(random);
                    op.model(next);
                    match &op {
                        Op::Put(n, k, v) => batch.put(logged.families[*n], k, v),
                        Op::Delete(n, k) => batch.delete(logged.families[*n], k),
                        Op::Append(n, k, v) => batch.append(logged.families[*n], k, v),
                        Op::Merge(n, k, v) => batch.merge(logged.families[*n], k, v),
                        Op::DeleteRange(n, k, end) => {
                            batch.delete_range(logged.families[*n], &k[..]..&end[..])
                        }
                    };
                }
                logged.store.write(&batch)?;
            }
            13..=15 => {
                let (n, k) = (random.index(2), key(random));
                if let Some(value) = next[n].get_mut(&k) {
                    value.reverse();
                }
                logged
                    .store
                    .update_in_place(logged.families[n], &k, <[u8]>::reverse)?;
            }
            _ => {
                let op = Op::draw(random);
                op.model(next);
                let (store, families) = (&mut logged.store, &logged.families);
                match &op {
                    Op::Put(n, k, v) if random.one_in(4) => {
                        store.update(families[*n], k, |_| Update::Put(v))?;
                    }
                    Op::Put(n, k, v) => store.put(families[*n], k, v)?,
                    Op::Delete(n, k) => store.delete(families[*n], k)?,
                    Op::Append(n, k, v) => store.append(families[*n], k, v)?,
                    Op::Merge(n, k, v) => store.merge(families[*n], k, v)?,
                    Op::DeleteRange(n, k, end) => store.delete_range(families[*n], &k[..]..&end[..])?,
                }
            }
        }
        self.models.clone_from(&self.tried);
        Ok(())
    }
}

enum Op {
    Put(usize, Vec<u8>, Vec<u8>),
    Delete(usize, Vec<u8>),
    Append(usize, Vec<u8>, Vec<u8>),
    Merge(usize, Vec<u8>, Vec<u8>),
    DeleteRange(usize, Vec<u8>, Vec<u8>),
}

fn key(random: &mut Random) -> Vec<u8> {
    vec![b'k', random.below(KEYS) as u8]
}

impl Op {
    fn draw(random: &mut Random) -> Op {
        let (number, key) = (random.index(FAMILIES), key(random));
        let value = match number {
            2 => (random.u64() as i64).to_le_bytes().to_vec(),
            _ => vec![random.u64() as u8; random.index(60)],
        };
        match random.below(8) {
            _ if random.one_in(20) => {
                let end = vec![b'k', key[1] + random.below(4) as u8];
                Op::DeleteRange(number, key, end)
            }
            0..=2 => Op::Put(number, key, value),
            3 => Op::Delete(number, key),
            4 | 5 if number < 2 => Op::Append(number, key, value),
            _ if number > 0 => Op::Merge(number, key, value),
            _ => Op::Put(number, key, value),
        }
    }

    fn model(&self, models: &mut Models) {
        match self {
            Op::Put(n, k, v) => drop(models[*n].insert(k.clone(), v.clone())),
            Op::Delete(n, k) => drop(models[*n].remove(k)),
            Op::DeleteRange(n, k, end) => models[*n].retain(|key, _| key < k || key >= end),
            Op::Append(n, k, v) => models[*n].entry(k.clone()).or_default().extend(v),
            Op::Merge(n, k, v) => {
                let mut new = Vec::new();
                let old = models[*n].get(k).map(Vec::as_slice);
                operator(*n)
                    .expect("it merges")
                    .merge(old, v, &mut new)
                    .expect("it merges");
                models[*n].insert(k.clone(), new);
            }
        }
    }
}
