//! If these fail, a job on one backend answers otherwise than on the other, or a restored job otherwise than the one
//! that was interrupted.

use crate::{
    model::Model,
    world::{OPERATOR, World},
};
use keybed_env::Random;
use keybed_snapshot::{BackendKind, SnapshotKind};
use std::collections::BTreeMap;

const KEYS: u64 = 40;
const PARALLELISMS: [u32; 4] = [1, 3, 2, 7];

struct Program {
    random: Random,
    worlds: Vec<World>,
    model: Model,
    /// The model at the last completed checkpoint.
    saved: Model,
    checkpoint: u64,
    restores: usize,
    watermark: i64,
}

impl Program {
    fn new(seed: u64, kinds: &[BackendKind], memtable_bytes: usize) -> Self {
        Program {
            random: Random::from_seed(seed),
            worlds: kinds
                .iter()
                .map(|kind| World::new(*kind, 1, memtable_bytes))
                .collect(),
            model: Model::default(),
            saved: Model::default(),
            checkpoint: 0,
            restores: 0,
            watermark: 0,
        }
    }

    fn run(&mut self, steps: usize) {
        for _ in 0..steps {
            match self.random.below(1000) {
                0..=5 => self.checkpoint(),
                6..=7 => self.restore(),
                8..=60 => self.fire(),
                61..=65 => self.worlds.iter().for_each(World::run_background),
                _ => self.step(),
            }
        }
        self.checkpoint();
        self.restore();
        self.read_all();
        // Where backends are switched, a world is only now and then on the store.
        let always = self.worlds.len() == 1;
        for world in self
            .worlds
            .iter()
            .filter(|world| always && world.kind == BackendKind::Lsm)
        {
            let stats = world.counters();
            assert!(
                stats.flushes > 10 && stats.compactions > 3 && stats.bottom_compactions > 1,
                "{stats:?}"
            );
            assert!(stats.table_gets > 100, "{stats:?}");
        }
    }

    fn name(&mut self) -> String {
        let letters = ["", "a", "\0", "ab", "\u{1}", "é"];
        (0..self.random.below(3))
            .map(|_| letters[self.random.index(letters.len())])
            .collect()
    }

    /// One operation on one key, its answer compared everywhere.
    fn step(&mut self) {
        let key = self.random.below(KEYS);
        let window = self.random.below(4) as i64 - 2;
        let number = self.random.below(1000);
        let name = self.name();
        let length = if self.random.one_in(20) { 3000 } else { 30 };
        let text = "x".repeat(self.random.index(length));
        let what = self.random.below(20);
        let model = &mut self.model;
        for (index, world) in self.worlds.iter_mut().enumerate() {
            let (t, first) = (world.tokens, index == 0);
            let state = world.at(key);
            match what {
                0..=1 => {
                    t.total.set(state, &number).unwrap();
                    model.totals.insert(key, number);
                }
                2..=4 => {
                    let new = t
                        .total
                        .update(state, |old| old.unwrap_or(7).wrapping_mul(3))
                        .unwrap();
                    let total = model.totals.entry(key).or_insert(7);
                    if first {
                        *total = total.wrapping_mul(3);
                    }
                    assert_eq!(new, *total);
                }
                5 => {
                    t.total.clear(state).unwrap();
                    model.totals.remove(&key);
                }
                6..=9 => {
                    t.recent.push(state, &text).unwrap();
                    if first {
                        model.lists.entry(key).or_default().push(text.clone());
                    }
                }
                10 => {
                    let elements = vec![text.clone(); number as usize % 4];
                    t.recent.set(state, &elements).unwrap();
                    model.lists.insert(key, elements);
                }
                11 if number.is_multiple_of(4) => {
                    t.recent.clear(state).unwrap();
                    model.lists.remove(&key);
                }
                11 => {
                    let expected = model.lists.get(&key).cloned().unwrap_or_default();
                    assert_eq!(t.recent.is_empty(state).unwrap(), expected.is_empty());
                    assert_eq!(t.recent.get(state).unwrap(), expected);
                }
                12..=13 => {
                    t.by_sku.put(state, &name, &(number as i32)).unwrap();
                    model
                        .maps
                        .entry(key)
                        .or_default()
                        .insert(name.clone(), number as i32);
                }
                14 => {
                    t.by_sku.remove(state, &name).unwrap();
                    model.maps.entry(key).or_default().remove(&name);
                }
                15 if number.is_multiple_of(5) => {
                    t.by_sku.clear(state).unwrap();
                    model.maps.remove(&key);
                }
                15 => {
                    let expected = model.maps.get(&key).cloned().unwrap_or_default();
                    assert_eq!(t.by_sku.get(state, &name).unwrap(), expected.get(&name).copied());
                    assert_eq!(t.by_sku.is_empty(state).unwrap(), expected.is_empty());
                    let entries: BTreeMap<_, _> = t.by_sku.iter(state).unwrap().map(Result::unwrap).collect();
                    assert_eq!(entries, expected);
                }
                16 => {
                    state.set_namespace(&keybed_state::codec::encode_key(&window));
                    t.window_skus
                        .update(state, &name, |old| old.unwrap_or(0) + 1)
                        .unwrap();
                    if first {
                        *model
                            .window_maps
                            .entry((window, key))
                            .or_default()
                            .entry(name.clone())
                            .or_default() += 1;
                    }
                }
                17 => {
                    state.set_namespace(&keybed_state::codec::encode_key(&window));
                    let old = t.in_window.get(state).unwrap();
                    t.in_window.set(state, &number).unwrap();
                    if first {
                        assert_eq!(old, model.windows.insert((window, key), number));
                    } else {
                        assert_eq!(
                            t.in_window.get(state).unwrap(),
                            model.windows.get(&(window, key)).copied()
                        );
                    }
                }
                18 => {
                    let namespace = (number.is_multiple_of(2)).then_some(window);
                    let bytes = namespace
                        .map(|n| keybed_state::codec::encode_key(&n))
                        .unwrap_or_default();
                    let time = if number == 0 {
                        i64::MAX
                    } else {
                        self.watermark + number as i64
                    };
                    let new = state.register_timer(time, &bytes).unwrap();
                    let inserted = model.timers.insert((time, key, namespace));
                    assert!(!first || new == inserted);
                }
                _ => {
                    let timer = model.timers.iter().find(|timer| timer.1 == key).copied();
                    let Some((time, _, namespace)) = timer else {
                        continue;
                    };
                    let bytes = namespace
                        .map(|n| keybed_state::codec::encode_key(&n))
                        .unwrap_or_default();
                    assert!(state.delete_timer(time, &bytes).unwrap());
                    assert!(!state.delete_timer(time, &bytes).unwrap());
                }
            }
        }
        if what > 18
            && let Some(timer) = self.model.timers.iter().find(|timer| timer.1 == key).copied()
        {
            self.model.timers.remove(&timer);
        }
        self.model.lists.retain(|_, list| !list.is_empty());
        self.model.maps.retain(|_, map| !map.is_empty());
    }

    /// Fires all timers up to a later watermark.
    fn fire(&mut self) {
        self.watermark += self.random.below(200) as i64;
        let watermark = self.watermark;
        let due: Vec<_> = self
            .model
            .timers
            .iter()
            .filter(|timer| timer.0 <= watermark)
            .copied()
            .collect();
        self.model.timers.retain(|timer| timer.0 > watermark);
        for world in &mut self.worlds {
            let mut fired = Vec::new();
            for state in &mut world.subtasks {
                let mut last = i64::MIN;
                while let Some(timer) = state.pop_due(watermark).unwrap() {
                    assert!(timer.time >= last);
                    last = timer.time;
                    let key = u64::from_be_bytes((*timer.key).try_into().unwrap());
                    let namespace = <[u8; 8]>::try_from(&*timer.namespace).ok();
                    fired.push((
                        timer.time,
                        key,
                        namespace.map(|n| i64::from_be_bytes(n) ^ i64::MIN),
                    ));
                }
            }
            fired.sort_unstable();
            assert_eq!(fired, due);
        }
    }

    /// A checkpoint during whose asynchronous part the job goes on; some are aborted, some are full ones.
    fn checkpoint(&mut self) {
        self.checkpoint += 1;
        let kind = match self.random.below(8) {
            0 => SnapshotKind::FullCheckpoint,
            1 => SnapshotKind::NativeSavepoint,
            2..=3 => SnapshotKind::CanonicalSavepoint,
            _ => SnapshotKind::Checkpoint,
        };
        let id = self.checkpoint;
        let attempts: Vec<_> = self
            .worlds
            .iter_mut()
            .map(|world| world.prepare(id, kind))
            .collect();
        let saved = self.model.clone();
        for _ in 0..self.random.below(60) {
            self.step();
        }
        let fails = self.random.one_in(4);
        let (entries, sum) = saved.digest(OPERATOR);
        for (world, attempt) in self.worlds.iter_mut().zip(attempts) {
            let id = attempt.id;
            let handles = world.write(attempt);
            let digest = world.digest(&handles);
            if digest.sum != sum {
                keybed_state::processor::read_entries(&world.catalogue, &handles, &world.files, &mut |e| {
                    let key = |at: usize| u64::from_be_bytes(e.components[at..at + 8].try_into().unwrap());
                    let ok = match e.state.as_str() {
                        "total" => saved.totals.contains_key(&key(0)),
                        "recent" => saved
                            .lists
                            .get(&key(0))
                            .is_some_and(|l| l.len() > e.index as usize),
                        "by-sku" => saved.maps.contains_key(&key(0)),
                        "in-window" => saved.windows.contains_key(&((key(0) as i64) ^ i64::MIN, key(8))),
                        "" => saved
                            .timers
                            .iter()
                            .any(|t| t.0 == (key(0) as i64) ^ i64::MIN && t.1 == key(8)),
                        _ => true,
                    };
                    if !ok {
                        println!("EXTRA {e:?}");
                    }
                    Ok(())
                })
                .unwrap();
                for h in &handles {
                    for f in &h.families {
                        println!(
                            "{} {:?}",
                            f.name,
                            f.runs
                                .iter()
                                .map(|r| (
                                    r.tier,
                                    r.tables
                                        .iter()
                                        .map(|t| (
                                            t.file.object.to_string(),
                                            t.visible_start.clone(),
                                            t.visible_end.clone(),
                                            t.entries
                                        ))
                                        .collect::<Vec<_>>()
                                ))
                                .collect::<Vec<_>>()
                        );
                    }
                }
            }
            assert_eq!(
                (digest.entries, digest.sum),
                (entries, sum),
                "{:?} at {id}",
                world.kind
            );
            if kind != SnapshotKind::Checkpoint {
                assert_eq!(world.stats.files_reused, 0);
            }
            if fails {
                world.abort(id);
            } else {
                world.complete(id, handles);
            }
        }
        if !fails {
            self.saved = saved;
        }
    }

    /// Back to the last completed checkpoint, at another parallelism, sometimes on the other backend.
    fn restore(&mut self) {
        self.restores += 1;
        let parallelism = PARALLELISMS[self.restores % PARALLELISMS.len()];
        let kinds: Vec<_> = self.worlds.iter().map(|world| world.kind).collect();
        let shift = self.random.index(kinds.len());
        for (index, world) in self.worlds.iter_mut().enumerate() {
            world.kind = kinds[(index + shift) % kinds.len()];
            world.restore(parallelism).unwrap();
        }
        self.model = self.saved.clone();
    }

    /// Every value of every key.
    fn read_all(&mut self) {
        for key in 0..KEYS {
            for world in &mut self.worlds {
                let t = world.tokens;
                let state = world.at(key);
                assert_eq!(t.total.get(state).unwrap(), self.model.totals.get(&key).copied());
                assert_eq!(
                    t.recent.get(state).unwrap(),
                    self.model.lists.get(&key).cloned().unwrap_or_default()
                );
                let entries: BTreeMap<_, _> = t.by_sku.iter(state).unwrap().map(Result::unwrap).collect();
                assert_eq!(entries, self.model.maps.get(&key).cloned().unwrap_or_default());
            }
        }
    }
}

/// Programs of consecutive seeds; `KEYBED_SCALE` times as many where somebody has time.
fn run(first_seed: u64, count: u64, kinds: &[BackendKind], memtable_bytes: usize) {
    let scale = std::env::var("KEYBED_SCALE")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(1);
    for seed in first_seed..first_seed + count * scale {
        println!("seed {seed}");
        Program::new(seed, kinds, memtable_bytes).run(3000);
    }
}

#[test]
fn heap_equals_the_model() {
    run(0, 30, &[BackendKind::Heap], 4 << 10);
}

#[test]
fn lsm_equals_the_model() {
    run(1_000_000, 20, &[BackendKind::Lsm], 4 << 10);
}

#[test]
fn backends_take_over_from_each_other() {
    run(2_000_000, 20, &[BackendKind::Heap, BackendKind::Lsm], 4 << 10);
}
