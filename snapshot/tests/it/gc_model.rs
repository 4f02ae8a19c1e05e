//! If this fails, what a sweep takes for garbage differs from the plain rule over some root that nobody thought of.

use keybed_env::{Random, random::Ids};
use keybed_snapshot::{
    Anchor, BackendKind, Birth, CheckpointId, CheckpointStorage, FamilyHandle, FileHandle, Folder, GcOptions,
    Generation, JobId, KeyGroupRange, KeyedHandle, MemoryStorage, Metadata, ObjectName, ObjectPath,
    OperatorSnapshot, OperatorUid, OwnerRecord, Place, RestoreSource, RootId, RunHandle, SnapshotKind,
    StateCatalogue, SubtaskIndex, SubtaskState, TableHandle, gc::gc, metadata::encode,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

const JOB: JobId = JobId(1);
const ROOT: RootId = RootId(2);

/// A root as a list of names, and what the plain rule says about them.
#[derive(Default)]
struct Model {
    /// First checkpoint of each generation, from 1 on.
    first: Vec<u64>,
    /// Published checkpoints: generation and references.
    published: BTreeMap<u64, (u64, BTreeSet<ObjectPath>)>,
    folders: BTreeSet<u64>,
    objects: BTreeSet<ObjectPath>,
}

impl Model {
    fn random(random: &mut Random) -> Model {
        let mut model = Model::default();
        let mut first = 1;
        for _ in 0..=random.index(4) {
            model.first.push(first);
            first += random.below(4);
        }
        let generations = model.first.len() as u64;
        for id in 1..=random.below(10) {
            if random.one_in(4) {
                continue;
            }
            model.folders.insert(id);
            for _ in 0..random.index(3) {
                let name = model.name(random, generations);
                let path = Place::Checkpoint(CheckpointId(id)).object(name.as_str());
                model.objects.extend(path);
            }
        }
        for _ in 0..random.index(12) {
            let place = match random.index(8) {
                0 => Place::TaskOwned,
                _ => Place::Shared,
            };
            let name = model.name(random, generations);
            model.objects.extend(place.object(name.as_str()));
        }
        for id in model.folders.clone() {
            if random.one_in(3) {
                continue;
            }
            // Any generation that had begun, so that some are void.
            let begun = model.first.iter().filter(|first| **first <= id).count() as u64;
            let generation = 1 + random.below(begun.max(1));
            let may_name = |path: &&ObjectPath| match path {
                ObjectPath::Private(of, _) => of.0 == id,
                ObjectPath::Temporary(..) => false,
                _ => true,
            };
            let names: Vec<ObjectPath> = model.objects.iter().filter(may_name).cloned().collect();
            let references = names.into_iter().filter(|_| random.one_in(2)).collect();
            model.published.insert(id, (generation, references));
        }
        model
    }

    /// A name of an object; a few tell no birth, a few were born in a generation that has no record.
    fn name(&self, random: &mut Random, generations: u64) -> ObjectName {
        if random.one_in(10) {
            return ObjectName::new(format!("thesis-{}", random.below(1000))).unwrap();
        }
        let birth = Birth {
            generation: Generation(1 + random.below(generations + 3)),
            checkpoint: CheckpointId(random.below(12)),
        };
        let number = u128::from(random.below(u64::MAX));
        match random.index(5) {
            0 => ObjectName::temporary(birth, number),
            _ => ObjectName::of(birth, number),
        }
    }

    fn is_void(&self, id: u64) -> bool {
        let generation = self.published[&id].0 as usize;
        self.first[generation..].iter().any(|first| *first <= id)
    }

    /// The plain rule.
    fn garbage(&self) -> BTreeSet<String> {
        let alive: Vec<u64> = self
            .published
            .keys()
            .copied()
            .filter(|id| !self.is_void(*id))
            .collect();
        let mut garbage: BTreeSet<String> = BTreeSet::new();
        for id in self.published.keys().filter(|id| self.is_void(**id)) {
            garbage.insert(format!("chk-{id}/_metadata"));
        }
        let needed: BTreeSet<&ObjectPath> = alive.iter().flat_map(|id| &self.published[id].1).collect();
        let closed = self.first.len() as u64 + 1;
        for path in &self.objects {
            let ours = path.birth().is_some_and(|birth| birth.generation.0 <= closed);
            // Tasks delete what is theirs; but what a checkpoint named goes with the last one that did.
            let named = self
                .published
                .values()
                .any(|(_, references)| references.contains(path));
            if ours && !needed.contains(path) && (path.place() != Place::TaskOwned || named) {
                garbage.insert(path.to_string());
            }
        }
        for id in &self.folders {
            let place = Place::Checkpoint(CheckpointId(*id));
            let mut inside = self.objects.iter().filter(|path| path.place() == place);
            let empty = inside.all(|path| garbage.contains(&path.to_string()));
            if empty && !alive.contains(id) && alive.iter().any(|other| other > id) {
                garbage.insert(format!("chk-{id}/"));
            }
        }
        garbage
    }

    fn write(&self, storage: &MemoryStorage) {
        let mut ids = Ids::Seeded(Random::from_seed(1));
        let mut put = |path: &ObjectPath, bytes: &[u8]| {
            let temporary = ObjectName::of(
                Birth {
                    generation: Generation(1),
                    checkpoint: CheckpointId(1),
                },
                ids.fresh().unwrap(),
            );
            storage.put_new(path, bytes, &temporary).unwrap();
        };
        for (generation, first) in (1..).zip(&self.first) {
            let record = OwnerRecord {
                job: JOB,
                root: ROOT,
                generation: Generation(generation),
                first_checkpoint: CheckpointId(*first),
                restored: RestoreSource::Nothing,
                pid: 1,
                started_ms: 1,
            };
            put(&ObjectPath::Owner(record.generation), &record.encode());
        }
        for id in &self.folders {
            storage.create_checkpoint(CheckpointId(*id)).unwrap();
        }
        for path in &self.objects {
            put(path, b"object");
        }
        for (id, (generation, references)) in &self.published {
            let metadata = metadata(*id, *generation, references);
            put(
                &ObjectPath::Metadata(CheckpointId(*id)),
                &encode(&metadata).unwrap(),
            );
        }
    }
}

fn metadata(id: u64, generation: u64, references: &BTreeSet<ObjectPath>) -> Metadata {
    let table = |(n, path): (usize, &ObjectPath)| {
        let (anchor, folder, object) = match path {
            ObjectPath::Shared(object) => (Anchor::Root, Folder::Shared, object),
            ObjectPath::TaskOwned(object) => (Anchor::Root, Folder::TaskOwned, object),
            ObjectPath::Private(_, object) => (Anchor::SelfDir, Folder::Private, object),
            other => panic!("{other}"),
        };
        TableHandle {
            file: FileHandle {
                content: n as u128,
                anchor,
                folder,
                object: object.clone(),
                offset: 0,
                length: 6,
                digest: 0,
            },
            visible_start: (n as u16).to_be_bytes().to_vec(),
            visible_end: Some((n as u16 + 1).to_be_bytes().to_vec()),
            entries: 1,
        }
    };
    let keyed = KeyedHandle {
        range: KeyGroupRange::all(128).unwrap(),
        backend: BackendKind::Lsm,
        next_seqno: 1,
        families: vec![FamilyHandle {
            name: "point".into(),
            runs: vec![RunHandle {
                tier: 0,
                tables: references.iter().enumerate().map(table).collect(),
            }],
        }],
    };
    Metadata {
        job: JOB,
        root: ROOT,
        generation: Generation(generation),
        checkpoint: CheckpointId(id),
        kind: SnapshotKind::Checkpoint,
        timestamp_ms: 5,
        externals: Vec::new(),
        operators: vec![OperatorSnapshot {
            uid: OperatorUid::new("tiny").unwrap(),
            parallelism: 1,
            max_parallelism: 128,
            catalogue: StateCatalogue::new(),
            subtasks: vec![SubtaskState {
                keyed: Some(keyed),
                ..SubtaskState::empty(SubtaskIndex(0))
            }],
        }],
        properties: BTreeMap::new(),
    }
}

#[test]
fn any_root_is_swept_by_the_plain_rule_and_only_once() {
    let rounds = if std::env::var_os("KEYBED_TEST_FULL").is_some() {
        200_000
    } else {
        3_000
    };
    let (mut swept, mut voids) = (0, 0);
    for seed in 0..rounds {
        let model = Model::random(&mut Random::from_seed(seed));
        let storage = MemoryStorage::new();
        model.write(&storage);
        let expected = model.garbage();
        voids += expected.iter().filter(|path| path.ends_with("_metadata")).count();
        let run = |dry_run| {
            let options = GcOptions {
                dry_run,
                ..GcOptions::default()
            };
            let report =
                gc(Arc::new(storage.clone()), &options).unwrap_or_else(|e| panic!("seed {seed}: {e}"));
            assert!(
                report.error.is_none() && report.left.is_empty(),
                "seed {seed}: {report:?}"
            );
            report.swept
        };
        let (dry, wet) = (run(true), run(false));
        assert_eq!(dry, wet, "seed {seed}");
        let found: BTreeSet<String> = wet.iter().map(|swept| swept.path.clone()).collect();
        assert_eq!(found, expected, "seed {seed}");
        assert_eq!((found.len(), run(false).len()), (wet.len(), 0), "seed {seed}");
        swept += wet.len();
    }
    assert!(swept > 1000 && voids > 100, "{swept} swept, {voids} void");
}
