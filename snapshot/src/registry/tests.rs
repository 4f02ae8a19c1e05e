//! The registry against a plain model: random life of a job, deletions that fail, readers that stay.

use super::*;
use crate::{Birth, ObjectName};
use keybed_env::Random;

const ME: Generation = Generation(2);

fn object(birth: Birth, n: u64) -> ObjectPath {
    ObjectPath::Shared(ObjectName::of(birth, u128::from(n)))
}

fn mine(checkpoint: u64, n: u64) -> ObjectPath {
    object(
        Birth {
            generation: ME,
            checkpoint: CheckpointId(checkpoint),
        },
        n,
    )
}

/// What exists and who needs it, by the rules of the module and nothing of its code.
#[derive(Default)]
struct Model {
    objects: BTreeSet<ObjectPath>,
    /// Metadata that can be restored or read, with its references.
    metadata: BTreeMap<CheckpointId, BTreeSet<ObjectPath>>,
    /// Pending checkpoints with what a task may still reference in them.
    pending: BTreeMap<CheckpointId, BTreeSet<ObjectPath>>,
    readers: Vec<CheckpointId>,
    next: u64,
}

impl Model {
    fn delete(&mut self, path: &ObjectPath, seed: u64) {
        for (id, references) in &self.metadata {
            assert!(
                !references.contains(path),
                "seed {seed}: {path} is deleted and checkpoint {id} needs it"
            );
        }
        self.objects.remove(path);
    }
}

fn pick<T: Clone>(random: &mut Random, from: impl IntoIterator<Item = T>) -> Option<T> {
    let all: Vec<T> = from.into_iter().collect();
    (!all.is_empty()).then(|| all[random.index(all.len())].clone())
}

fn live(seed: u64, steps: usize) {
    let mut random = Random::from_seed(seed);
    let retain = 1 + random.index(3);
    let (mut registry, mut model) = (SharedRegistry::new(ME, retain), Model::default());
    for _ in 0..steps {
        match random.below(10) {
            0 | 1 if model.pending.len() < 3 => begin(&mut registry, &mut model),
            2..=4 => upload(&mut registry, &mut model, &mut random),
            5 | 6 => publish(&mut registry, &mut model, &mut random, seed),
            7 => {
                if let Some(id) = pick(&mut random, model.pending.keys().copied()) {
                    registry.aborted(id);
                    model.pending.remove(&id);
                }
            }
            8 => reader(&mut registry, &mut model, &mut random),
            _ => clean(&mut registry, &mut model, &mut random, seed, 4),
        }
    }
    // The end: nobody reads, one more checkpoint completes, nothing fails.
    for id in std::mem::take(&mut model.readers) {
        registry.reader_left(id);
    }
    begin(&mut registry, &mut model);
    let last = *model.pending.keys().next_back().unwrap();
    registry.publish_begins(last, BTreeSet::new()).unwrap();
    registry.published(last);
    model.pending.clear();
    model.metadata.insert(last, BTreeSet::new());
    clean(&mut registry, &mut model, &mut random, seed, u64::MAX);
    let needed: BTreeSet<ObjectPath> = model.metadata.values().flatten().cloned().collect();
    assert_eq!(
        model.objects, needed,
        "seed {seed}: what is left is what is needed"
    );
    assert!(model.metadata.len() <= retain, "seed {seed}");
    assert_eq!(registry.backlog(), 0);
}

fn begin(registry: &mut SharedRegistry, model: &mut Model) {
    model.next += 1;
    let id = CheckpointId(model.next);
    registry.begin(id);
    // A task may reference what the last confirmed checkpoint holds.
    let base = model.metadata.values().next_back().cloned().unwrap_or_default();
    model.pending.insert(id, base);
}

fn upload(registry: &mut SharedRegistry, model: &mut Model, random: &mut Random) {
    let Some(id) = pick(random, model.pending.keys().copied()) else {
        return;
    };
    model.next += 1;
    let path = mine(id.0, model.next);
    registry.upload_begins(id, path.clone()).unwrap();
    registry.upload_ends(&path);
    model.objects.insert(path.clone());
    model.pending.get_mut(&id).unwrap().insert(path);
}

fn publish(registry: &mut SharedRegistry, model: &mut Model, random: &mut Random, seed: u64) {
    let Some(id) = pick(random, model.pending.keys().copied()) else {
        return;
    };
    let references: BTreeSet<ObjectPath> = model.pending[&id]
        .iter()
        .filter(|_| !random.one_in(3))
        .cloned()
        .collect();
    registry
        .publish_begins(id, references.clone())
        .unwrap_or_else(|e| panic!("seed {seed}: {e}"));
    if random.one_in(8) {
        registry.publish_uncertain(id);
        let there = random.one_in(2);
        registry.resolved(id, there);
        model.pending.remove(&id);
        if there {
            model.metadata.insert(id, references);
        }
        return;
    }
    registry.published(id);
    model.pending.retain(|pending, _| *pending > id);
    model.metadata.insert(id, references);
}

fn reader(registry: &mut SharedRegistry, model: &mut Model, random: &mut Random) {
    if random.one_in(2) {
        if let Some(id) = pick(random, model.metadata.keys().copied()) {
            registry.reader_came(id);
            model.readers.push(id);
        }
    } else if !model.readers.is_empty() {
        registry.reader_left(model.readers.swap_remove(random.index(model.readers.len())));
    }
}

fn clean(
    registry: &mut SharedRegistry,
    model: &mut Model,
    random: &mut Random,
    seed: u64,
    fails_one_in: u64,
) {
    let fails = |random: &mut Random| fails_one_in != u64::MAX && random.one_in(fails_one_in);
    for id in registry.doomed().unwrap() {
        assert!(
            !model.readers.contains(&id),
            "seed {seed}: checkpoint {id} is being read"
        );
        assert_ne!(
            model.metadata.keys().next_back(),
            Some(&id),
            "seed {seed}: the newest is deleted"
        );
        if !fails(random) {
            registry.erased(id);
            model.metadata.remove(&id);
        }
    }
    for path in registry.condemn().unwrap() {
        if !fails(random) {
            model.delete(&path, seed);
            registry.deleted(&path);
        }
    }
    for (id, usable) in &model.pending {
        let lost = usable.difference(&model.objects).next();
        assert_eq!(
            lost, None,
            "seed {seed}: deleted, and the pending checkpoint {id} may name it"
        );
    }
}

#[test]
fn a_random_life_never_loses_a_needed_object_and_leaves_no_other() {
    for seed in 0..200 {
        live(seed, 500);
    }
}

fn found(generation: u64, checkpoint: u64) -> ObjectPath {
    object(
        Birth {
            generation: Generation(generation),
            checkpoint: CheckpointId(checkpoint),
        },
        1,
    )
}

#[test]
fn orphans_of_closed_generations_go_and_newer_ones_stay() {
    let mut registry = SharedRegistry::new(ME, 1);
    let needed = found(1, 3);
    registry.found_checkpoint(
        CheckpointId(3),
        BTreeSet::from([needed.clone()]),
        Standing::Timeline,
    );
    registry.found_folder(CheckpointId(2));
    registry.found_folder(CheckpointId(4));
    for path in [needed, found(1, 2), found(1, 9), found(3, 1)] {
        registry.found_object(path);
    }
    registry.found_object(ObjectPath::Shared(ObjectName::new("notes.txt").unwrap()));
    assert_eq!(registry.doomed().unwrap(), []);
    assert_eq!(registry.condemn().unwrap(), [found(1, 2), found(1, 9)]);
    assert_eq!(
        registry.empty_folders(),
        [CheckpointId(2)],
        "4 is the highest id and stays allotted"
    );
}

#[test]
fn one_unreadable_file_forbids_everything() {
    let mut registry = SharedRegistry::new(ME, 1);
    registry.found_checkpoint(CheckpointId(1), BTreeSet::new(), Standing::Timeline);
    registry.found_checkpoint(CheckpointId(2), BTreeSet::new(), Standing::Timeline);
    registry.found_object(found(1, 1));
    registry.found_folder(CheckpointId(0));
    registry.refuse("chk-3/_metadata".into());
    assert_eq!(registry.doomed().unwrap_err().code(), Code::GcRefused);
    assert_eq!(registry.condemn().unwrap_err().code(), Code::GcRefused);
    assert_eq!(registry.empty_folders(), []);
}

#[test]
fn abandoned_and_uncertain_checkpoints_stay_and_void_ones_go() {
    let mut registry = SharedRegistry::new(ME, 1);
    for (id, standing) in [
        (1, Standing::Timeline),
        (2, Standing::Abandoned),
        (3, Standing::Timeline),
        (4, Standing::Void),
        (5, Standing::Uncertain),
    ] {
        registry.found_checkpoint(CheckpointId(id), BTreeSet::from([found(1, id)]), standing);
    }
    assert_eq!(registry.doomed().unwrap(), [CheckpointId(1), CheckpointId(4)]);
    registry.erased(CheckpointId(1));
    assert_eq!(registry.condemn().unwrap(), [found(1, 1)], "4 is not erased yet");
}

#[test]
fn an_upload_under_way_is_never_condemned() {
    let mut registry = SharedRegistry::new(ME, 1);
    registry.begin(CheckpointId(1));
    registry.upload_begins(CheckpointId(1), mine(1, 1)).unwrap();
    registry.begin(CheckpointId(2));
    registry.publish_begins(CheckpointId(2), BTreeSet::new()).unwrap();
    assert_eq!(registry.published(CheckpointId(2)), [CheckpointId(1)]);
    assert_eq!(registry.condemn().unwrap(), []);
    registry.upload_ends(&mine(1, 1));
    assert_eq!(registry.condemn().unwrap(), [mine(1, 1)]);
    let condemned = BTreeSet::from([mine(1, 1)]);
    registry.begin(CheckpointId(3));
    assert_eq!(
        registry
            .publish_begins(CheckpointId(3), condemned)
            .unwrap_err()
            .code(),
        Code::SnapshotIncomplete
    );
}

#[test]
fn a_reader_that_comes_while_its_checkpoint_goes_keeps_the_files() {
    let mut registry = SharedRegistry::new(ME, 1);
    for n in 1..=2 {
        let id = CheckpointId(n);
        registry.begin(id);
        registry.upload_begins(id, mine(n, n)).unwrap();
        registry.upload_ends(&mine(n, n));
        registry.publish_begins(id, BTreeSet::from([mine(n, n)])).unwrap();
        registry.published(id);
    }
    assert_eq!(registry.doomed().unwrap(), [CheckpointId(1)]);
    // The metadata is being deleted, outside of the registry's lock.
    registry.reader_came(CheckpointId(1));
    registry.erased(CheckpointId(1));
    assert_eq!(registry.condemn().unwrap(), []);
    registry.reader_left(CheckpointId(1));
    assert_eq!(registry.condemn().unwrap(), [mine(1, 1)]);
}
