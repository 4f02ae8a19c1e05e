//! Without this a read could return what was never written, or miss what was: random programs run on the store and
//! on maps.

use crate::support::{Chain, Map, disk, pinned_content, simulated, tiny};
use keybed_env::Random;
use keybed_lsm::{
    Append, Family, FamilyOptions, MemtableKind, PrefixRule, Store, StoreOptions, SumI64, Update, View,
};
use std::{
    ops::{Bound, RangeBounds},
    path::Path,
    sync::Arc,
};

const FAMILIES: usize = 5;

fn options(number: usize) -> FamilyOptions {
    let merge: Option<Arc<dyn keybed_lsm::MergeOperator>> = match number {
        0 => None,
        1 | 2 => Some(Arc::new(Append)),
        3 => Some(Arc::new(SumI64)),
        _ => Some(Arc::new(Chain)),
    };
    let by_prefix = MemtableKind::Prefix(PrefixRule { bytes: 1, pieces: 0 });
    let memtable = [MemtableKind::Hash, MemtableKind::Ordered, by_prefix][number % 3];
    FamilyOptions {
        merge,
        memtable,
        cut_prefix: (number % 3) as u8,
        prefix_bytes: (number % 4) as u16,
        bottom_filter: number % 5 != 1,
        partition_prefix: (number % 2) as u8,
        ..FamilyOptions::default()
    }
}

fn families(store: &mut Store) -> Vec<Family> {
    (0..FAMILIES)
        .map(|n| store.family_with(&format!("family {n}"), options(n)).unwrap())
        .collect()
}

/// What merging an operand does, said a second time.
fn merged(number: usize, old: Option<&Vec<u8>>, operand: &[u8]) -> Vec<u8> {
    let old = old.cloned().unwrap_or_default();
    match number {
        3 => {
            let number = |bytes: &[u8]| bytes.try_into().map_or(0, i64::from_le_bytes);
            number(&old).wrapping_add(number(operand)).to_le_bytes().to_vec()
        }
        4 => [operand, b"<", &old].concat(),
        _ => [&old, operand].concat(),
    }
}

fn key(random: &mut Random) -> Vec<u8> {
    match random.below(20) {
        0 => Vec::new(),
        1 => vec![0xff; random.index(4)],
        2 => [
            &b"a long key that shares its first sixteen bytes "[..],
            &[random.below(20) as u8],
        ]
        .concat(),
        _ => random.below(400).to_be_bytes()[6..].to_vec(),
    }
}

fn value(random: &mut Random, number: usize) -> Vec<u8> {
    if number == 3 {
        return random.u64().to_le_bytes().to_vec();
    }
    let bytes = if random.one_in(60) { 3000 } else { 60 };
    vec![random.u64() as u8; random.index(bytes)]
}

/// A little above `key`.
fn prefix_of_next(key: &[u8]) -> Option<Vec<u8>> {
    let mut next = key.to_vec();
    let last = next.last_mut()?;
    *last = last.checked_add(3)?;
    Some(next)
}

struct World {
    /// Options of a fresh store: real or simulated.
    fresh: Box<dyn FnMut() -> StoreOptions>,
    store: Option<Store>,
    families: Vec<Family>,
    models: Vec<Map>,
    /// Bounds of floors by partition.
    floors: Vec<Map>,
    views: Vec<(View, Vec<Map>)>,
    pins: Vec<(keybed_lsm::PinnedFiles, Vec<Map>)>,
}

fn same_scan(scan: keybed_lsm::Range<'_>, expected: impl Iterator<Item = (Vec<u8>, Vec<u8>)>, what: &str) {
    let found: Vec<_> = scan.map(|entry| entry.unwrap()).collect();
    assert_eq!(found, expected.collect::<Vec<_>>(), "{what}");
}

impl World {
    fn store(&mut self) -> &mut Store {
        self.store.as_mut().expect("open")
    }

    fn step(&mut self, random: &mut Random, dir: &Path, what: &str) {
        let number = random.index(FAMILIES);
        let family = self.families[number];
        let k = key(random);
        match random.below(1060) {
            1000..1024 => self.delete_range(random, number, k),
            1024..1034 => {
                let prefix = &k[..random.index(k.len() + 1)];
                self.store().delete_prefix(family, prefix).unwrap();
                self.models[number].retain(|key, _| !key.starts_with(prefix));
            }
            1034..1058 => self.raise_floor(random, number, &k),
            1058..1060 => {
                self.store().clear(family).unwrap();
                self.models[number].clear();
                self.floors[number].clear();
            }
            0..350 => {
                let v = value(random, number);
                self.store().put(family, &k, &v).unwrap();
                self.models[number].insert(k, v);
            }
            350..450 => {
                self.store().delete(family, &k).unwrap();
                self.models[number].remove(&k);
            }
            450..600 => {
                let operand = value(random, number);
                if number == 0 {
                    assert!(self.store().merge(family, &k, &operand).is_err());
                    return;
                }
                let old = self.models[number].get(&k);
                let new = merged(number, old, &operand);
                self.store().merge(family, &k, &operand).unwrap();
                self.models[number].insert(k, new);
            }
            600..650 if number != 3 => {
                let more = value(random, number);
                self.store().append(family, &k, &more).unwrap();
                self.models[number].entry(k).or_default().extend(more);
            }
            600..750 => self.update(random, number, k, what),
            750..900 => {
                let found = self.store().get(family, &k).unwrap().map(|value| value.to_vec());
                assert_eq!(found.as_ref(), self.models[number].get(&k), "{what}, key {k:?}");
            }
            900..950 => self.scan(random, number, k, what),
            950..962 => self.store().flush().unwrap(),
            962..970 => self.view(random, what),
            970..976 => self.pin(random, dir, what),
            976..980 => self.store().compact(family).unwrap(),
            980..984 => self.store().wait_for_background().unwrap(),
            984..988 => self.reopen(dir),
            _ => self.check_views(what),
        }
    }

    fn delete_range(&mut self, random: &mut Random, number: usize, k: Vec<u8>) {
        let family = self.families[number];
        // Mostly neighbours, so that something is left.
        let other = if k.len() == 2 && !random.one_in(8) {
            let first = u16::from_be_bytes([k[0], k[1]]);
            first
                .saturating_add(random.below(30) as u16)
                .to_be_bytes()
                .to_vec()
        } else {
            key(random)
        };
        let (low, high) = if k < other { (k, other) } else { (other, k) };
        let bounds: (Bound<&[u8]>, Bound<&[u8]>) = match random.below(12) {
            0 => (Bound::Included(&low), Bound::Unbounded),
            1 => (Bound::Unbounded, Bound::Excluded(&high)),
            2..5 if low != high => (Bound::Excluded(&low), Bound::Excluded(&high)),
            5..8 => (Bound::Included(&low), Bound::Excluded(&high)),
            _ => (Bound::Included(&low), Bound::Included(&high)),
        };
        self.store().delete_range(family, bounds).unwrap();
        self.models[number].retain(|key, _| !bounds.contains(&key.as_slice()));
    }

    fn raise_floor(&mut self, random: &mut Random, number: usize, k: &[u8]) {
        let family = self.families[number];
        let prefix = usize::from(options(number).partition_prefix);
        let Some((partition, rest)) = k.split_at_checked(prefix) else {
            return;
        };
        let old = self.floors[number].get(partition).cloned();
        assert_eq!(self.store().floor(family, partition).unwrap(), old);
        // A little at a time, or the same again.
        let bound = match &old {
            Some(old) if random.one_in(3) => old.clone(),
            Some(old) if random.one_in(2) => match prefix_of_next(old) {
                Some(next) => next,
                None => old.clone(),
            },
            _ if random.one_in(4) => rest.to_vec(),
            _ => rest.iter().map(|byte| byte / 16).collect(),
        };
        let has_risen = self.store().raise_floor(family, partition, &bound).unwrap();
        assert_eq!(has_risen, !bound.is_empty() && old.is_none_or(|old| old <= bound));
        if has_risen {
            let below = [partition, &bound].concat();
            self.models[number].retain(|key, _| !key.starts_with(partition) || *key >= below);
            self.floors[number].insert(partition.to_vec(), bound);
        }
    }

    fn update(&mut self, random: &mut Random, number: usize, k: Vec<u8>, what: &str) {
        let family = self.families[number];
        let expected = self.models[number].get(&k).cloned();
        if random.one_in(3) {
            let found = self.store().update_in_place(family, &k, <[u8]>::reverse).unwrap();
            assert_eq!(found, expected.is_some(), "{what}");
            if let Some(value) = self.models[number].get_mut(&k) {
                value.reverse();
            }
            return;
        }
        let update = match random.below(4) {
            0 => Update::Keep,
            1 => Update::Delete,
            _ => Update::Put(value(random, number)),
        };
        let returned = update.clone();
        let what = what.to_owned();
        self.store()
            .update(family, &k, |old| {
                assert_eq!(old, expected.as_deref(), "{what}");
                returned
            })
            .unwrap();
        match update {
            Update::Keep => {}
            Update::Put(value) => {
                self.models[number].insert(k, value);
            }
            Update::Delete => {
                self.models[number].remove(&k);
            }
        }
    }

    fn scan(&mut self, random: &mut Random, number: usize, k: Vec<u8>, what: &str) {
        let family = self.families[number];
        let model = self.models[number].clone();
        let entry = |(k, v): (&Vec<u8>, &Vec<u8>)| (k.clone(), v.clone());
        if random.one_in(2) {
            let inside = || model.iter().filter(|(other, _)| other.starts_with(&k)).map(entry);
            same_scan(self.store().prefix(family, &k).unwrap(), inside(), what);
            same_scan(self.store().prefix_rev(family, &k).unwrap(), inside().rev(), what);
            return;
        }
        let other = key(random);
        let (low, high) = if k < other { (k, other) } else { (other, k) };
        let bounds: (Bound<&[u8]>, Bound<&[u8]>) = match random.below(4) {
            0 => (Bound::Included(&low), Bound::Unbounded),
            1 if low != high => (Bound::Excluded(&low), Bound::Excluded(&high)),
            2 => (Bound::Excluded(&low), Bound::Unbounded),
            _ => (Bound::Included(&low), Bound::Included(&high)),
        };
        let inside = || model.range::<[u8], _>(bounds).map(entry);
        same_scan(self.store().range(family, bounds).unwrap(), inside(), what);
        same_scan(
            self.store().range_rev(family, bounds).unwrap(),
            inside().rev(),
            what,
        );
    }

    fn view(&mut self, random: &mut Random, what: &str) {
        let view = self.store().view().unwrap();
        self.views.push((view, self.models.clone()));
        if self.views.len() > 3 {
            self.check_views(what);
            let at = random.index(self.views.len());
            self.views.remove(at);
        }
    }

    fn check_views(&self, what: &str) {
        for (view, models) in &self.views {
            for (number, model) in models.iter().enumerate() {
                let family = view.family(&format!("family {number}")).unwrap();
                let expected = model.iter().map(|(k, v)| (k.clone(), v.clone()));
                same_scan(view.range(family, ..).unwrap(), expected, what);
                if let Some((k, v)) = model.iter().next() {
                    assert_eq!(view.get(family, k).unwrap().unwrap(), *v, "{what}");
                }
            }
        }
    }

    fn pin(&mut self, random: &mut Random, dir: &Path, what: &str) {
        let pinned = self.store().pin().unwrap().finish().unwrap();
        self.pins.push((pinned, self.models.clone()));
        if self.pins.len() > 2 {
            let (pinned, models) = self.pins.remove(random.index(3));
            let target = dir.with_extension(format!("mount-{}", random.u64()));
            let fresh = (self.fresh)();
            let mount = pinned_content(&*fresh.fs, &pinned, &target, options);
            let mut store = Store::mount(&target, fresh, mount).unwrap();
            let families = families(&mut store);
            for (family, model) in families.into_iter().zip(&models) {
                let expected = model.iter().map(|(k, v)| (k.clone(), v.clone()));
                same_scan(store.range(family, ..).unwrap(), expected, what);
            }
            store.close().unwrap();
        }
    }

    fn reopen(&mut self, dir: &Path) {
        self.pins.clear();
        // The next owner of the directory knows nothing of views that are left over from this one.
        self.views.clear();
        self.store.take().expect("open").close().unwrap();
        let mut store = Store::open(dir, (self.fresh)()).unwrap();
        self.families = families(&mut store);
        self.store = Some(store);
    }
}

fn run(seed: u64, steps: usize, simulate: bool) -> keybed_lsm::StoreCounts {
    let place = tempfile::tempdir().unwrap();
    let dir = if simulate {
        Path::new("store").to_path_buf()
    } else {
        place.path().join("store")
    };
    let mut random = Random::from_seed(seed);
    let (disk, mut opened) = (disk(), seed << 32);
    let mut fresh: Box<dyn FnMut() -> StoreOptions> = Box::new(move || {
        opened += 1;
        if simulate {
            simulated(disk.clone(), opened)
        } else {
            tiny()
        }
    });
    let mut store = Store::open(&dir, fresh()).unwrap();
    let mut world = World {
        fresh,
        families: families(&mut store),
        store: Some(store),
        models: vec![Map::new(); FAMILIES],
        floors: vec![Map::new(); FAMILIES],
        views: Vec::new(),
        pins: Vec::new(),
    };
    let mut total = keybed_lsm::StoreCounts::default();
    for step in 0..steps {
        let before = world.store().counts();
        world.step(&mut random, &dir, &format!("seed {seed}, step {step}"));
        let after = world.store().counts();
        // A reopened store counts anew.
        if after.writes >= before.writes {
            total.bottom_compactions += after.bottom_compactions - before.bottom_compactions;
            total.compactions += after.compactions - before.compactions;
            total.flushes += after.flushes - before.flushes;
            total.files_removed += after.files_removed - before.files_removed;
        }
    }
    world.check_views(&format!("seed {seed}, at the end"));
    for number in 0..FAMILIES {
        let expected = world.models[number].clone().into_iter();
        let family = world.families[number];
        same_scan(
            world.store().range(family, ..).unwrap(),
            expected,
            &format!("seed {seed}, at the end"),
        );
    }
    drop(world.views);
    drop(world.pins);
    world.store.take().unwrap().close().unwrap();
    total
}

#[test]
fn random_programs_agree_with_a_map() {
    let mut total = keybed_lsm::StoreCounts::default();
    for seed in 0..crate::support::scale(24) {
        // A quarter with real threads and files; the rest deterministic.
        let stats = run(seed, 3000, seed % 4 != 0);
        total.flushes += stats.flushes;
        total.compactions += stats.compactions;
        total.bottom_compactions += stats.bottom_compactions;
        total.files_removed += stats.files_removed;
    }
    // The programs must have reached every floor of the store.
    assert!(total.flushes > 100 && total.compactions > 40, "{total:?}");
    assert!(
        total.bottom_compactions > 20 && total.files_removed > 50,
        "{total:?}"
    );
}
