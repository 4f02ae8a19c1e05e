//! If this fails, damage to a file of a store gives wrong answers instead of an error or the right ones.
//!
//! Every file of a closed store is damaged in every way (bits, cuts, sectors, older and other files); the store is
//! opened, read whole and by key, and verified. Answers must be right, or errors that name the file. An older copy of the root (CURRENT with
//! its manifest) has no witness: it brings an error or exactly the older content, counted apart.

use crate::support::{Map, content, disk, simulated};
use keybed_env::{Fs, OsFs, Random, SimFs};
use keybed_format::{Error, ErrorKind, Result};
use keybed_lsm::{Access, Durability, Family, FamilyOptions, Store, StoreOptions};
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
};

type Files = BTreeMap<PathBuf, Vec<u8>>;

fn options(fs: Arc<dyn Fs>, access: Access, seed: u64) -> StoreOptions {
    StoreOptions {
        access,
        // The log has a matrix of its own.
        durability: Durability::None,
        ..simulated(fs, seed)
    }
}

fn full() -> bool {
    std::env::var_os("KEYBED_TEST_FULL").is_some()
}

/// The files of a closed store, an older state of them, and both contents.
fn stores(name: u64) -> (Files, Files, Map, Map) {
    let fs = disk();
    let family = FamilyOptions {
        prefix_bytes: 6,
        ..FamilyOptions::default()
    };
    let mut content = Map::new();
    let mut write = |store: &mut Store, family: Family, keys: std::ops::Range<u64>| {
        for i in keys {
            let (key, value) = (
                format!("key-{i:04}").into_bytes(),
                (i * name).to_be_bytes().repeat(3),
            );
            if i % 7 == 3 {
                store.delete(family, &key).unwrap();
                content.remove(&key);
            } else {
                store.put(family, &key, &value).unwrap();
                content.insert(key, value);
            }
        }
        content.clone()
    };
    let mut store = Store::open("s", options(fs.clone(), Access::Cache, name)).unwrap();
    let f = store.family_with("f", family).unwrap();
    write(&mut store, f, 0..300);
    store.compact(f).unwrap();
    let old = write(&mut store, f, 100..160);
    store.close().unwrap();
    let before = fs.tree();
    let mut store = Store::open("s", options(fs.clone(), Access::Cache, name + 100)).unwrap();
    let f = store.family("f").unwrap();
    let new = write(&mut store, f, 150..220);
    store.close().unwrap();
    (before, fs.tree(), old, new)
}

/// What a damaged store may answer, and what came of it.
struct Judge<'a> {
    new: &'a Map,
    old: &'a Map,
    right: u64,
    refused: u64,
    stale: u64,
    cases: u64,
}

impl Judge<'_> {
    fn error(&mut self, error: &Error, what: &str) {
        let known = matches!(
            error.kind(),
            ErrorKind::Corruption | ErrorKind::Incompatible | ErrorKind::InvalidInput
        );
        assert!(known && error.file().is_some(), "{what}: {error}");
        self.refused += 1;
    }

    /// Opens and reads; `may_be_stale` if the damage is an older root.
    fn case(&mut self, files: &Files, what: &str, may_be_stale: bool) {
        let fs = Arc::new(image(files));
        self.cases += 1;
        // The simulated disk cannot be mapped; some cases are tried on the real one.
        let real = self
            .cases
            .is_multiple_of(if full() { 4 } else { 40 })
            .then(|| on_disk(files));
        let read = |access| match (&real, access) {
            (Some(dir), Access::Map) => self.answers(Arc::new(OsFs), &dir.path().join("s"), access),
            _ => self.answers(Arc::new(fs.live_image()), Path::new("s"), access),
        };
        for found in [read(Access::Cache), read(Access::Map)] {
            match found {
                Ok(found) if found == *self.new => self.right += 1,
                Ok(found) if may_be_stale && found == *self.old => self.stale += 1,
                Ok(found) => panic!(
                    "{what}: a wrong answer: {} keys of {}",
                    found.len(),
                    self.new.len()
                ),
                Err(error) => self.error(&error, what),
            }
        }
    }

    /// The whole content by a scan, if look-ups agree with it wherever they answer.
    fn answers(&self, fs: Arc<dyn Fs>, dir: &Path, access: Access) -> Result<Map> {
        let mut store = Store::open(dir, options(fs, access, 5_000))?;
        let family = store.family("f")?;
        let scanned = content(&store, family);
        for key in self.new.keys().chain(self.old.keys()).step_by(5) {
            match (store.get(family, key), &scanned) {
                (Ok(found), Ok(scanned)) => {
                    assert_eq!(found.map(|v| v.to_vec()), scanned.get(key).cloned());
                }
                (Ok(found), Err(_)) => {
                    let found = found.map(|v| v.to_vec());
                    let right = [self.new.get(key), self.old.get(key)];
                    assert!(right.contains(&found.as_ref()), "a wrong answer beside an error");
                }
                (Err(error), _) => assert!(error.file().is_some(), "{error}"),
            }
        }
        scanned
    }
}

fn on_disk(files: &Files) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("s")).unwrap();
    for (path, bytes) in files {
        std::fs::write(dir.path().join(path), bytes).unwrap();
    }
    dir
}

fn image(files: &Files) -> SimFs {
    let fs = SimFs::without_history();
    fs.create_dir_all(Path::new("s")).unwrap();
    for (path, bytes) in files {
        fs.create(path).unwrap().append(bytes).unwrap();
    }
    fs
}

#[test]
fn damage_to_any_file_of_a_store_is_reported_or_harmless() {
    let (before, after, old, new) = stores(1);
    let (_, other, ..) = stores(2);
    let before: Files = before.into_iter().map(under).collect();
    let after: Files = after.into_iter().map(under).collect();
    let other: Files = other.into_iter().map(under).collect();
    let mut judge = Judge {
        new: &new,
        old: &old,
        right: 0,
        refused: 0,
        stale: 0,
        cases: 0,
    };
    judge.case(&after, "no damage", false);
    assert_eq!(judge.right, 2);
    let mut dice = Random::from_seed(7);
    let names: Vec<PathBuf> = after.keys().cloned().collect();
    assert!(names.len() > 4, "{names:?}");
    for name in &names {
        let good = &after[name];
        let root = name.extension().is_none_or(|ending| ending != "sst");
        let mut damaged = |bytes: Vec<u8>, what: String, stale: bool| {
            let mut files = after.clone();
            files.insert(name.clone(), bytes);
            judge.case(&files, &format!("{}: {what}", name.display()), stale);
        };
        // Every bit of small files, some of large ones.
        let bits = good.len() as u64 * 8;
        let (all, some) = if full() { (4_096, 4_096) } else { (600, 60) };
        let flipped: Vec<u64> = if bits <= all {
            (0..bits).collect()
        } else {
            (0..some).map(|_| dice.below(bits)).collect()
        };
        for bit in flipped {
            let mut bytes = good.clone();
            bytes[bit as usize / 8] ^= 1 << (bit % 8);
            damaged(bytes, format!("bit {bit}"), false);
        }
        // What is cut off the manifest is an edit less: a torn tail, the older content or none.
        for cut in (0..good.len()).step_by(512).chain([good.len().saturating_sub(1)]) {
            damaged(good[..cut].to_vec(), format!("cut at {cut}"), root);
        }
        let sectors = good.len() / 512;
        let step = if full() { 1 } else { sectors / 8 + 1 };
        for sector in (0..sectors).step_by(step) {
            let mut bytes = good.clone();
            bytes[sector * 512..sector * 512 + 512].fill(0);
            damaged(bytes, format!("sector {sector} zeroed"), false);
            let with = dice.index(sectors);
            let mut bytes = good.clone();
            for i in 0..512 {
                bytes.swap(sector * 512 + i, with * 512 + i);
            }
            damaged(bytes, format!("sectors {sector} and {with} swapped"), false);
        }
        damaged([good, &b"garbage"[..]].concat(), "garbage behind".into(), false);
        damaged(
            [good.as_slice(), &[0; 600]].concat(),
            "zeros behind".into(),
            false,
        );
        damaged(Vec::new(), "empty".into(), root);
        if let Some(bytes) = before.get(name) {
            damaged(bytes.clone(), "an older version".into(), root);
        }
        // Files of the same kind, of this store and of another one.
        let ending = |path: &PathBuf| path.extension().map(ToOwned::to_owned);
        let siblings = after
            .iter()
            .filter(|(path, _)| *path != name && ending(path) == ending(name));
        let strangers = other.iter().filter(|(path, _)| ending(path) == ending(name));
        for (path, bytes) in siblings.chain(strangers).take(if full() { 100 } else { 6 }) {
            damaged(bytes.clone(), format!("the content of {}", path.display()), root);
        }
        let mut files = after.clone();
        files.remove(name);
        judge.case(&files, &format!("{} is missing", name.display()), false);
    }
    // The whole root of before beside the tables of now.
    let mut files: Files = after.clone();
    files.retain(|path, _| path.extension().is_some());
    files.extend(
        before
            .iter()
            .filter(|(path, _)| path.extension().is_none())
            .map(|(p, b)| (p.clone(), b.clone())),
    );
    judge.case(&files, "an older root", true);
    let Judge {
        right,
        refused,
        stale,
        ..
    } = judge;
    println!(
        "{} cases: {right} right, {refused} refused, {stale} older roots, 0 wrong",
        right + refused + stale
    );
    assert!(refused > 200 && right > 20, "right {right}, refused {refused}");
    if full() {
        assert!(
            right + refused + stale > 20_000,
            "right {right}, refused {refused}, stale {stale}"
        );
    }
}

/// Paths of the simulated disk are absolute.
fn under((path, bytes): (PathBuf, Vec<u8>)) -> (PathBuf, Vec<u8>) {
    let name = path.file_name().map(PathBuf::from).unwrap_or_default();
    (Path::new("s").join(name), bytes)
}
