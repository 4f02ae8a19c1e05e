//! If this fails, a job that was rescaled, killed and restored reads wrong state.
//!
//! Stores own ranges of key groups. They are written, pinned, cut to other ranges, put together row by row as a
//! rescale does, mounted, merged, and their process dies between any two calls of a merge; a map knows the content.

use crate::support::{Chain, Map, content, scale, simulated};
use keybed_env::{Fs, Random, SimFs};
use keybed_lsm::{
    Family, FamilyOptions, KeyRange, MemtableKind, Mount, MountFamily, MountRun, MountTable, PinnedFiles,
    Store, StoreOptions, SumI64,
};
use std::{path::PathBuf, sync::Arc};

const GROUPS: u64 = 16;
const FAMILIES: usize = 3;

fn family_options(number: usize) -> FamilyOptions {
    FamilyOptions {
        merge: match number {
            0 => None,
            1 => Some(Arc::new(SumI64)),
            _ => Some(Arc::new(Chain)),
        },
        memtable: [MemtableKind::Ordered, MemtableKind::Hash][number % 2],
        cut_prefix: 2,
        partition_prefix: 2,
        ..FamilyOptions::default()
    }
}

/// Key groups from the first to below the second.
type Groups = (u64, u64);

fn range((first, end): Groups) -> KeyRange {
    let key = |group: u64| (group as u16).to_be_bytes().to_vec();
    KeyRange {
        start: if first == 0 { Vec::new() } else { key(first) },
        end: Some(key(end)),
    }
}

/// One subtask's store and its groups.
struct Part {
    dir: PathBuf,
    groups: Groups,
    store: Store,
    families: Vec<Family>,
}

impl Part {
    fn new(dir: PathBuf, groups: Groups, mut store: Store) -> Part {
        let families = (0..FAMILIES).map(|n| store.family_with(&format!("f{n}"), family_options(n)).unwrap());
        Part {
            families: families.collect(),
            dir,
            groups,
            store,
        }
    }

    fn write(&mut self, models: &mut [Map], random: &mut Random, writes: u64) {
        let (first, end) = self.groups;
        for _ in 0..writes {
            let group = (first + random.below(end - first)) as u16;
            // Some groups are much busier than others, and some keys lie at the very edges of a group.
            let tail = match random.below(8) {
                0 => Vec::new(),
                1 => vec![0xff; 3],
                _ => (random.below(30 << (group % 3)) as u16).to_be_bytes().to_vec(),
            };
            let key = [&group.to_be_bytes()[..], &tail].concat();
            let number = random.index(FAMILIES);
            let (family, model) = (self.families[number], &mut models[number]);
            if random.one_in(20) {
                delete_many(&mut self.store, family, &range(self.groups), model, random, key);
                continue;
            }
            match (number, random.below(6)) {
                (_, 0 | 1) => {
                    self.store.delete(family, &key).unwrap();
                    model.remove(&key);
                }
                (0, _) => {
                    let value = vec![random.u64() as u8; random.index(90)];
                    self.store
                        .update(family, &key, |old| {
                            assert_eq!(old, model.get(&key).map(Vec::as_slice));
                            keybed_lsm::Update::Put(value.clone())
                        })
                        .unwrap();
                    model.insert(key, value);
                }
                (1, _) => {
                    let more = random.below(100) as i64;
                    self.store.merge(family, &key, &more.to_le_bytes()).unwrap();
                    let old = model
                        .get(&key)
                        .map_or(0, |old| i64::from_le_bytes(old[..].try_into().unwrap()));
                    model.insert(key, (old + more).to_le_bytes().to_vec());
                }
                (_, 2) => {
                    self.store.put(family, &key, b"p").unwrap();
                    model.insert(key, b"p".to_vec());
                }
                _ => {
                    let letter = [b'a' + random.below(26) as u8];
                    self.store.merge(family, &key, &letter).unwrap();
                    let old = model.remove(&key).unwrap_or_default();
                    model.insert(key, [&letter[..], b"<", &old].concat());
                }
            }
        }
    }

    fn check(&self, models: &[Map], what: &str) {
        let range = range(self.groups);
        for (number, model) in models.iter().enumerate() {
            let expected: Map = model
                .iter()
                .filter(|(key, _)| range.contains(key))
                .map(|(key, value)| (key.clone(), value.clone()))
                .collect();
            let family = self.families[number];
            assert_eq!(
                content(&self.store, family).unwrap(),
                expected,
                "{what}, f{number}"
            );
            for key in model.keys() {
                let found = self.store.get(family, key).unwrap().map(|value| value.to_vec());
                assert_eq!(
                    found.as_ref(),
                    expected.get(key),
                    "{what}, f{number}, {}",
                    key.escape_ascii()
                );
            }
        }
    }
}

/// Deletes by range, also beyond the groups of the store, or by a floor.
fn delete_many(
    store: &mut Store,
    family: Family,
    owned: &KeyRange,
    model: &mut Map,
    random: &mut Random,
    key: Vec<u8>,
) {
    let (group, tail) = key.split_at(2);
    if random.one_in(2) {
        if store.raise_floor(family, group, tail).unwrap() {
            model.retain(|other, _| !other.starts_with(group) || *other >= key);
        }
        return;
    }
    let deleted = match random.below(20) {
        0 => KeyRange::all(),
        1 => KeyRange {
            start: key,
            end: None,
        },
        2 => KeyRange::prefix(group),
        _ => {
            let mut end = key.clone();
            end.push(random.below(20) as u8);
            if let Some(last) = end.get_mut(3) {
                *last = last.saturating_add(5);
            }
            KeyRange {
                start: key,
                end: Some(end),
            }
        }
    };
    let start = deleted.start.as_slice();
    match &deleted.end {
        Some(end) => store.delete_range(family, start..end.as_slice()).unwrap(),
        None => store.delete_range(family, start..).unwrap(),
    }
    model.retain(|key, _| !owned.contains(key) || !deleted.contains(key));
}

/// What of `pinned` lies in `range`, family by family, newest run first.
fn clipped(pinned: &PinnedFiles, range: &KeyRange, target: &std::path::Path) -> Vec<Vec<MountRun>> {
    let table = |table: &keybed_lsm::PinnedTable| MountTable {
        path: Store::table_path(target, table.id),
        id: table.id,
        visible: table.visible.clip(range),
        seqno_base: table.seqno_base,
    };
    let run = |run: &keybed_lsm::PinnedRun| MountRun {
        tier: run.tier,
        tables: run
            .tables
            .iter()
            .map(table)
            .filter(|table| !table.visible.is_empty())
            .collect(),
    };
    let runs = |family: &keybed_lsm::PinnedFamily| {
        family
            .runs
            .iter()
            .map(run)
            .filter(|run| !run.tables.is_empty())
            .collect()
    };
    pinned.families.iter().map(runs).collect()
}

/// Puts runs of disjoint origins together: rows from the bottom, or one origin on top of the other.
fn put_together(origins: Vec<Vec<MountRun>>, in_rows: bool) -> Vec<MountRun> {
    if !in_rows {
        return origins.into_iter().flatten().collect();
    }
    let rows = origins.iter().map(Vec::len).max().unwrap_or(0);
    let row = |from_bottom: usize| {
        let runs = origins
            .iter()
            .filter_map(|runs| runs.iter().rev().nth(from_bottom));
        MountRun {
            tier: runs.clone().map(|run| run.tier).max().unwrap_or(0),
            tables: runs.flat_map(|run| run.tables.clone()).collect(),
        }
    };
    (0..rows).rev().map(row).collect()
}

struct World {
    fs: Arc<SimFs>,
    seed: u64,
    /// Names directories and, with the seed, tables: no two stores may share it.
    opened: u64,
    random: Random,
    models: Vec<Map>,
    parts: Vec<Part>,
}

impl World {
    fn options(&mut self) -> StoreOptions {
        self.opened += 1;
        StoreOptions {
            // Both wide and narrow memtables, so that runs of different heights meet.
            memtable_bytes: 4 << (10 + self.random.below(4)),
            ..simulated(self.fs.clone(), self.seed * 1_000_000 + self.opened)
        }
    }

    fn rescale(&mut self) {
        let pins: Vec<(Groups, PinnedFiles)> = self
            .parts
            .iter_mut()
            .map(|part| (part.groups, part.store.pin().unwrap().finish().unwrap()))
            .collect();
        let mut cuts: Vec<u64> = (0..self.random.below(3))
            .map(|_| 1 + self.random.below(GROUPS - 1))
            .collect();
        cuts.extend([0, GROUPS]);
        cuts.sort_unstable();
        cuts.dedup();
        let mut parts = Vec::new();
        for pair in cuts.windows(2) {
            let options = self.options();
            let groups = (pair[0], pair[1]);
            let dir = PathBuf::from(format!("part-{}", self.opened));
            self.fs.create_dir_all(&dir).unwrap();
            let mut origins: Vec<Vec<Vec<MountRun>>> = vec![Vec::new(); FAMILIES];
            let mut floors = vec![Vec::new(); FAMILIES];
            for (owned, pinned) in &pins {
                let both = range(groups).clip(&range(*owned));
                for (number, runs) in clipped(pinned, &both, &dir).into_iter().enumerate() {
                    origins[number].push(runs);
                }
                for (number, family) in pinned.families.iter().enumerate() {
                    let inside = family
                        .floors
                        .iter()
                        .filter(|floor| both.contains(&floor.partition));
                    floors[number].extend(inside.cloned());
                }
                for table in pinned.tables() {
                    let to = Store::table_path(&dir, table.id);
                    if self.fs.facts(&to).unwrap().is_none() {
                        self.fs.link(&table.path, &to).unwrap();
                    }
                }
            }
            let in_rows = !self.random.one_in(4);
            let families = origins
                .into_iter()
                .enumerate()
                .map(|(number, origins)| MountFamily {
                    name: format!("f{number}"),
                    floors: floors[number].clone(),
                    options: family_options(number),
                    runs: put_together(origins, in_rows),
                });
            let mount = Mount {
                families: families.collect(),
                next_seqno: pins.iter().map(|(_, pinned)| pinned.next_seqno).max().unwrap(),
            };
            let store = Store::mount(&dir, options, mount).unwrap();
            parts.push(Part::new(dir, groups, store));
        }
        self.parts = parts;
    }

    /// Merges while everything is flushed, and lets the process die between two calls of that.
    fn die_while_merging(&mut self) {
        for part in &mut self.parts {
            part.store.flush().unwrap();
        }
        let before = self.fs.op_count();
        for part in &mut self.parts {
            if self.random.one_in(2) {
                let family = part.families[self.random.index(FAMILIES)];
                part.store.compact(family).unwrap();
            }
            part.store.wait_for_background().unwrap();
        }
        let at = before + self.random.below(self.fs.op_count() - before + 1);
        let found: Vec<_> = self.parts.drain(..).map(|part| (part.dir, part.groups)).collect();
        self.fs = Arc::new(self.fs.live_image_at(at));
        for (dir, groups) in found {
            let store = Store::open(&dir, self.options()).unwrap();
            self.parts.push(Part::new(dir, groups, store));
        }
    }

    fn check(&self, what: &str) {
        for part in &self.parts {
            part.check(&self.models, &format!("seed {}, {what}", self.seed));
        }
    }
}

fn run(seed: u64, steps: u64) {
    let mut world = World {
        fs: Arc::new(SimFs::new()),
        seed,
        opened: 0,
        random: Random::from_seed(seed),
        models: vec![Map::new(); FAMILIES],
        parts: Vec::new(),
    };
    let store = Store::open("part-0", world.options()).unwrap();
    world.parts.push(Part::new("part-0".into(), (0, GROUPS), store));
    for step in 0..steps {
        for part in &mut world.parts {
            let writes = world.random.below(400);
            part.write(&mut world.models, &mut world.random, writes);
            if world.random.one_in(3) {
                let family = part.families[world.random.index(FAMILIES)];
                part.store.compact(family).unwrap();
            }
        }
        let what = match world.random.below(4) {
            0 => "flushed",
            1 => {
                world.die_while_merging();
                "killed"
            }
            _ => {
                world.rescale();
                "rescaled"
            }
        };
        world.check(&format!("step {step}: {what}"));
    }
    for part in &mut world.parts {
        for family in part.families.clone() {
            part.store.compact(family).unwrap();
        }
    }
    world.check("all merged");
}

#[test]
fn rescaled_and_killed_stores_hold_what_was_written() {
    for seed in 0..scale(10) {
        run(seed, 12);
    }
}
