//! A store on a simulated disk under a simulated scheduler, and the model it is compared with.

use keybed_env::{Fs, ManualClock, Random, SimScheduler, random::Ids};
use keybed_format::{Code, ErrorKind, Result};
use keybed_lsm::{Access, Durability, Family, FamilyOptions, Store, StoreOptions, SumI64};
use std::{collections::BTreeMap, sync::Arc};

/// Where the store lies.
pub(crate) const DIR: &str = "/store";
const KEYS: u64 = 24;

/// Content of one family.
pub(crate) type Content = BTreeMap<Vec<u8>, Vec<u8>>;

/// Options that make every mechanism run within a few hundred calls. Seeds must differ between two stores in one
/// directory, for they name the tables.
pub(crate) fn options(fs: Arc<dyn Fs>, seed: u64) -> StoreOptions {
    StoreOptions {
        fs,
        scheduler: Arc::new(SimScheduler::new(seed, Arc::new(ManualClock::new()))),
        ids: Ids::Seeded(Random::from_seed(seed)),
        memtable_bytes: 1 << 20,
        block_bytes: 512,
        fan_in: 2,
        runs_max: 3,
        target_file_bytes: 4 << 10,
        access: Access::Cache,
        cache_bytes: 16 << 10,
        durability: Durability::None,
        ..StoreOptions::default()
    }
}

/// A store with a family of plain values and one of sums.
pub(crate) struct Subject {
    pub(crate) store: Store,
    pub(crate) families: [Family; 2],
}

impl Subject {
    pub(crate) fn open(fs: Arc<dyn Fs>, seed: u64) -> Result<Subject> {
        Self::open_with(options(fs, seed))
    }

    pub(crate) fn open_with(options: StoreOptions) -> Result<Subject> {
        let mut store = Store::open(DIR, options)?;
        let plain = store.family("plain")?;
        let sums = FamilyOptions {
            merge: Some(Arc::new(SumI64)),
            ..FamilyOptions::default()
        };
        let sums = store.family_with("sums", sums)?;
        Ok(Subject {
            store,
            families: [plain, sums],
        })
    }

    /// One random write; the model follows if it succeeds.
    pub(crate) fn write(&mut self, model: &mut Model, random: &mut Random) -> Result {
        let key = key(random.below(KEYS));
        let [plain, sums] = self.families;
        let number = random.u64();
        match random.below(9) {
            8 => self.write_many(model, random)?,
            0 | 1 => {
                self.store.delete(plain, &key)?;
                model.0[0].remove(&key);
            }
            2..=4 => {
                let value = vec![number as u8; 1 + (number >> 8) as usize % 300];
                self.store.put(plain, &key, &value)?;
                model.0[0].insert(key, value);
            }
            5 => {
                self.store.delete(sums, &key)?;
                model.0[1].remove(&key);
            }
            _ => {
                let more = (number % 1000) as i64;
                self.store.merge(sums, &key, &more.to_le_bytes())?;
                let old = model.0[1]
                    .get(&key)
                    .map_or(0, |old| i64::from_le_bytes(old[..].try_into().unwrap()));
                model.0[1].insert(key, (old + more).to_le_bytes().to_vec());
            }
        }
        Ok(())
    }

    /// Deletes neighbouring keys, or what lies below a floor.
    fn write_many(&mut self, model: &mut Model, random: &mut Random) -> Result {
        let family = random.index(2);
        let from = random.below(KEYS);
        if random.one_in(4) {
            let bound = key(from / 4);
            if self.store.raise_floor(self.families[family], b"", &bound)? {
                model.0[family].retain(|key, _| *key >= bound);
            }
            return Ok(());
        }
        let range = key(from)..key(from + random.below(6));
        self.store
            .delete_range(self.families[family], &range.start[..]..&range.end[..])?;
        model.0[family].retain(|key, _| !range.contains(key));
        Ok(())
    }

    /// Everything that can be read of a family, by key and in order.
    pub(crate) fn answers(&self, family: usize) -> Answers {
        let token = self.families[family];
        let scan = self.store.range(token, ..).and_then(Iterator::collect);
        let by_key = (0..KEYS).map(|n| {
            let key = key(n);
            let value = self
                .store
                .get(token, &key)
                .map(|value| value.map(|value| value.to_vec()));
            (key, value)
        });
        Answers {
            by_key: by_key.collect(),
            scan,
        }
    }
}

fn key(number: u64) -> Vec<u8> {
    format!("key-{number:03}").into_bytes()
}

/// Content of the two families.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Model(pub(crate) [Content; 2]);

type Answer = Result<Option<Vec<u8>>>;

pub(crate) struct Answers {
    by_key: Vec<(Vec<u8>, Answer)>,
    scan: Result<Content>,
}

impl Answers {
    /// Whether every answer that is no error is that of `content`.
    pub(crate) fn agree_with(&self, content: &Content) -> bool {
        let wrong_scan = self.scan.as_ref().is_ok_and(|found| found != content);
        let right = |key: &[u8]| content.get(key).map(Vec::as_slice);
        let wrong =
            |key: &[u8], value: &Answer| value.as_ref().is_ok_and(|found| found.as_deref() != right(key));
        !wrong_scan && !self.by_key.iter().any(|(key, value)| wrong(key, value))
    }

    /// Whether these are the answers that `other` holds, errors included.
    pub(crate) fn same(&self, other: &Answers) -> bool {
        let answers = |all: &Answers| {
            all.by_key
                .iter()
                .map(|(_, v)| v.as_ref().ok().cloned())
                .collect::<Vec<_>>()
        };
        self.scan.as_ref().ok() == other.scan.as_ref().ok() && answers(self) == answers(other)
    }

    /// Codes of the errors among the answers.
    pub(crate) fn errors(&self) -> Vec<Code> {
        let by_key = self.by_key.iter().filter_map(|(_, value)| value.as_ref().err());
        by_key
            .chain(self.scan.as_ref().err())
            .map(keybed_format::Error::code)
            .collect()
    }
}

/// Whether an error names damage, as it must after bytes were lost.
pub(crate) fn is_damage(code: Code) -> bool {
    code.kind() == ErrorKind::Corruption
}
