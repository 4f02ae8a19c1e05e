//! If this fails, random programs of whatever removes or replaces much (clears, drops, floors, range deletes, ingests) lose
//! something, or bring it back, when the process dies, the power fails, or somebody holds what was there before.

use crate::seams::options;
use crate::support::{Map, content, disk, scale};
use keybed_env::{Random, SimFs};
use keybed_lsm::{
    Access, Cursor, Durability, Family, FamilyOptions, IngestOptions, Store, StoreOptions, SumI64, Transfer,
    View, table::ExternalTable,
};
use std::sync::Arc;

/// A store of three families, the last one of sums, whose content is that of maps.
struct Program {
    fs: Arc<SimFs>,
    random: Random,
    store: Option<Store>,
    durability: Durability,
    models: [Map; 3],
    opened: u64,
    files: u64,
    /// Under which it is opened.
    all: Vec<Durability>,
    held: Vec<(View, Vec<Cursor>, [Map; 3])>,
}

impl Program {
    fn family(store: &mut Store, number: usize) -> Family {
        let options = FamilyOptions {
            partition_prefix: 1,
            merge: (number == 2).then(|| Arc::new(SumI64) as _),
            ..FamilyOptions::default()
        };
        store.family_with(&format!("f{number}"), options).unwrap()
    }

    fn open(&mut self) -> &mut Store {
        if self.store.is_none() {
            self.opened += 1;
            self.durability = self.all[self.random.index(self.all.len())];
            let options = StoreOptions {
                open_files_max: 1,
                access: [Access::Map, Access::Cache][self.random.index(2)],
                ..options(&self.fs, 1000 * self.opened, self.durability)
            };
            self.store = Some(Store::open("s", options).unwrap());
        }
        self.store.as_mut().unwrap()
    }

    fn check(&mut self, what: &str) {
        let models = self.models.clone();
        let store = self.open();
        for (number, model) in models.iter().enumerate() {
            let family = Self::family(store, number);
            assert_eq!(content(store, family).unwrap(), *model, "{what}, family {number}");
        }
    }

    /// What views and cursors saw does not change.
    fn check_held(&mut self, what: &str) {
        let store = self.store.as_ref().unwrap();
        for (view, cursors, models) in &mut self.held {
            for (number, model) in models.iter().enumerate() {
                if let Some(family) = view.family(&format!("f{number}")) {
                    let seen: Map = view.range(family, ..).unwrap().collect::<Result<_, _>>().unwrap();
                    assert_eq!(seen, *model, "{what}: a view of family {number}");
                    let seen: Map = view
                        .range_rev(family, ..)
                        .unwrap()
                        .collect::<Result<_, _>>()
                        .unwrap();
                    assert_eq!(seen, *model, "{what}: a view of family {number}, downwards");
                }
                let cursor = &mut cursors[number];
                let mut seen = Map::new();
                let mut more = cursor.seek_to_first(store).unwrap();
                while more {
                    seen.insert(cursor.key().to_vec(), cursor.value().to_vec());
                    more = cursor.next(store).unwrap();
                }
                assert_eq!(seen, *model, "{what}: a cursor of family {number}");
            }
        }
    }

    fn key(&mut self) -> Vec<u8> {
        vec![self.random.below(2) as u8, self.random.below(16) as u8]
    }

    fn step(&mut self) -> &'static str {
        self.open();
        let mut store = self.store.take().unwrap();
        let number = self.random.index(3);
        let family = Self::family(&mut store, number);
        let (key, other) = (self.key(), self.key());
        let value = self.random.below(1 << 40) as i64;
        let old = self.models[number].get(&key).cloned();
        let summed = |old: Option<&Vec<u8>>| {
            let old = old.map_or(0, |old| i64::from_le_bytes(old.as_slice().try_into().unwrap()));
            (old + value).to_le_bytes().to_vec()
        };
        let model = &mut self.models[number];
        let what = match self.random.below(33) {
            0..=9 if number == 2 => {
                store.merge(family, &key, &value.to_le_bytes()).unwrap();
                model.insert(key, summed(old.as_ref()));
                "merge"
            }
            0..=9 => {
                store.put(family, &key, &value.to_le_bytes()).unwrap();
                model.insert(key, value.to_le_bytes().to_vec());
                "put"
            }
            10..=12 => {
                store.delete(family, &key).unwrap();
                model.remove(&key);
                "delete"
            }
            13 | 14 => {
                let (start, end) = (key.clone().min(other.clone()), key.max(other));
                store.delete_range(family, &start[..]..&end[..]).unwrap();
                model.retain(|key, _| *key < start || *key >= end);
                "delete range"
            }
            15 | 16 => {
                if store.raise_floor(family, &key[..1], &key[1..]).unwrap() {
                    model.retain(|other, _| other[0] != key[0] || *other >= key);
                }
                "floor"
            }
            17 => {
                store.clear(family).unwrap();
                model.clear();
                "clear"
            }
            18 => {
                store.drop_family(family).unwrap();
                model.clear();
                if self.random.below(2) == 0 {
                    Self::family(&mut store, number);
                }
                "drop"
            }
            19 | 20 => {
                self.files += 1;
                let path = format!("x{}.sst", self.files);
                let options = options(&self.fs, 7 + self.files, self.durability);
                let mut table = ExternalTable::create(&path, &options, &FamilyOptions::default()).unwrap();
                for n in 0..8_u8 {
                    let key = vec![key[0], 2 * n];
                    if number == 2 {
                        table.merge(&key, &value.to_le_bytes()).unwrap();
                        let sum = summed(model.get(&key));
                        model.insert(key, sum);
                    } else if n % 3 == 0 {
                        table.delete(&key).unwrap();
                        model.remove(&key);
                    } else {
                        table.put(&key, &value.to_le_bytes()).unwrap();
                        model.insert(key, value.to_le_bytes().to_vec());
                    }
                }
                table.finish().unwrap();
                let transfer = [Transfer::Copy, Transfer::Link, Transfer::Move][self.random.index(3)];
                let how = IngestOptions {
                    transfer,
                    ..IngestOptions::default()
                };
                store.ingest(family, &[path], how).unwrap();
                "ingest"
            }
            21 | 22 => {
                store.flush().unwrap();
                "flush"
            }
            23 => {
                store.compact(family).unwrap();
                "compact"
            }
            24 => {
                store.wait_for_background().unwrap();
                "wait"
            }
            25 => {
                self.files += 1;
                let copy = format!("copy{}", self.files);
                let view = store.view().unwrap();
                store.pin().unwrap().finish().unwrap().link_to(&copy).unwrap();
                let options = options(&self.fs, 7 + self.files, Durability::Sync);
                let mut copied = Store::open(&copy, options).unwrap();
                for (number, model) in self.models.iter().enumerate() {
                    let family = Self::family(&mut copied, number);
                    copied.compact(family).unwrap();
                    assert_eq!(
                        content(&copied, family).unwrap(),
                        *model,
                        "copy of family {number}"
                    );
                    if let Some(family) = view.family(&format!("f{number}")) {
                        let seen: Map = view.range(family, ..).unwrap().collect::<Result<_, _>>().unwrap();
                        assert_eq!(seen, *model, "view of family {number}");
                    }
                }
                "copy"
            }
            26 => {
                let options = options(&Arc::new(self.fs.process()), 7, Durability::None);
                let mut reader = Store::open_read_only("s", options).unwrap();
                if self.durability != Durability::None {
                    for (number, model) in self.models.iter().enumerate() {
                        let name = format!("f{number}");
                        if reader.family_names().any(|found| found == name) {
                            let family = Self::family(&mut reader, number);
                            assert_eq!(content(&reader, family).unwrap(), *model, "looking at {name}");
                        }
                    }
                }
                "look"
            }
            27..=29 => {
                let families = [0, 1, 2].map(|number| Self::family(&mut store, number));
                let cursors = families.map(|family| store.cursor(family, ..).unwrap());
                let view = store.view().unwrap();
                self.held.push((view, cursors.into(), self.models.clone()));
                if self.held.len() > 3 {
                    let at = self.random.index(3);
                    self.held.swap_remove(at);
                }
                "hold"
            }
            _ => {
                self.held.clear();
                if self.durability == Durability::None || self.random.below(4) == 0 {
                    store.close().unwrap();
                } else {
                    drop(store);
                }
                return "reopen";
            }
        };
        self.store = Some(store);
        what
    }
}

fn program(fs: Arc<SimFs>, seed: u64, all: &[Durability]) -> Program {
    Program {
        fs,
        random: Random::from_seed(seed),
        store: None,
        durability: Durability::None,
        models: Default::default(),
        opened: 0,
        files: 0,
        all: all.to_vec(),
        held: Vec::new(),
    }
}

#[test]
fn whatever_removes_or_replaces_much_agrees_with_the_log() {
    for seed in 0..scale(20) {
        let all = [Durability::Buffered, Durability::Sync, Durability::None];
        let mut program = program(disk(), seed, &all);
        let mut before = Vec::new();
        for round in 0..300 {
            before.push(program.step());
            let last = &before[before.len().saturating_sub(12)..];
            let what = format!("seed {seed}, round {round}, after {last:?}");
            program.check(&what);
            program.check_held(&what);
        }
    }
}

#[test]
fn a_power_loss_leaves_what_was_there_before_or_after_some_step() {
    for durability in [Durability::Buffered, Durability::Sync] {
        for seed in 0..scale(12) {
            let sim = Arc::new(SimFs::new());
            let mut program = program(sim.clone(), seed, &[durability]);
            let mut history = vec![(sim.op_count(), program.models.clone(), "begin")];
            for _ in 0..60 {
                let what = program.step();
                history.push((sim.op_count(), program.models.clone(), what));
            }
            program.held.clear();
            drop(program.store.take());
            let mut random = Random::from_seed(seed);
            for image in 0..2 * history.len() {
                // After each step with nothing kept that was not synced, and anywhere with some of it.
                let (at, image) = match history.get(image) {
                    Some((at, ..)) => (*at, sim.strict_image(*at)),
                    None => {
                        let at = random.below(sim.op_count() + 1);
                        (at, sim.crash_image(at, &mut random))
                    }
                };
                let image = Arc::new(image);
                let done = history.iter().rposition(|(ended, ..)| *ended <= at).unwrap_or(0);
                let steps: Vec<_> = history.iter().map(|(.., what)| *what).collect();
                let what = format!(
                    "{durability:?}, seed {seed}, operation {at}, after {:?}",
                    &steps[done.saturating_sub(10)..(done + 2).min(steps.len())]
                );
                let mut store = Store::open("s", options(&image, 9, durability))
                    .unwrap_or_else(|error| panic!("{what}: {error}"));
                let found = [0, 1, 2].map(|number| {
                    let family = Program::family(&mut store, number);
                    content(&store, family).unwrap()
                });
                let least = if durability == Durability::Sync { done } else { 0 };
                let most = (done + 1).min(history.len() - 1);
                assert!(
                    history[least..=most]
                        .iter()
                        .any(|(_, models, _)| *models == found),
                    "{what}: {found:?}, not {:?}",
                    history[done].1
                );
            }
        }
    }
}
