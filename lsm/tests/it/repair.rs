//! A repair that guesses would give wrong answers for ever; one that does too little leaves a store closed for nothing.

use crate::support::{Map, content, disk, simulated};
use keybed_env::{
    FaultFs, Fs, SimFs,
    fs::{Fault, FaultPlan},
};
use keybed_format::{Code, Error};
use keybed_lsm::{
    Durability, Store, StoreOptions,
    repair::{LOST_AND_FOUND, OneFamily, RepairPlan, RepairSource},
    verify::verify,
};
use std::{path::Path, sync::Arc};

const DIR: &str = "store";

fn options(fs: &Arc<SimFs>, seed: u64) -> StoreOptions {
    StoreOptions {
        compaction: false,
        durability: Durability::None,
        ..simulated(fs.clone(), seed)
    }
}

/// A store with several runs, overwritten and deleted keys; its content.
fn filled(fs: &Arc<SimFs>) -> Map {
    let mut store = Store::open(DIR, options(fs, 1)).unwrap();
    let family = store.family("orders").unwrap();
    for round in 0..4_u8 {
        for n in 0..60_u8 {
            if n % 7 == round {
                store.delete(family, &[n]).unwrap();
            } else {
                store.put(family, &[n], &[round; 20]).unwrap();
            }
        }
        store.flush().unwrap();
    }
    let map = content(&store, family).unwrap();
    store.close().unwrap();
    map
}

fn read(fs: &Arc<SimFs>, seed: u64) -> Map {
    let mut store = Store::open(DIR, options(fs, seed)).unwrap();
    let family = store.family("orders").unwrap();
    let map = content(&store, family).unwrap();
    store.close().unwrap();
    map
}

fn names(fs: &Arc<SimFs>, dir: &str) -> Vec<String> {
    let mut names: Vec<String> = fs
        .list(Path::new(dir))
        .unwrap()
        .into_iter()
        .map(|entry| entry.name)
        .collect();
    names.sort();
    names
}

fn manifest(fs: &Arc<SimFs>) -> String {
    let names = names(fs, DIR);
    names
        .into_iter()
        .rfind(|name| name.starts_with("MANIFEST-"))
        .unwrap()
}

fn rewrite(fs: &Arc<SimFs>, name: &str, change: impl FnOnce(&mut Vec<u8>)) {
    let path = Path::new(DIR).join(name);
    let mut bytes = fs.read(&path, 1 << 20).unwrap();
    change(&mut bytes);
    fs.remove_file(&path).unwrap();
    let mut file = fs.create(&path).unwrap();
    file.append(&bytes).unwrap();
    file.sync().unwrap();
}

fn plan(fs: &Arc<SimFs>) -> RepairPlan {
    RepairPlan::make(&**fs, Path::new(DIR), None).unwrap()
}

#[test]
fn a_whole_store_is_left_alone() {
    let fs = disk();
    let map = filled(&fs);
    let before = names(&fs, DIR);
    let plan = plan(&fs);
    assert_eq!(plan.source, RepairSource::Whole);
    plan.execute(&*fs).unwrap();
    assert_eq!(names(&fs, DIR), before);
    assert_eq!(read(&fs, 2), map);
}

#[test]
fn a_lost_or_damaged_current_costs_nothing() {
    for damage in [None, Some(3)] {
        let fs = disk();
        let map = filled(&fs);
        match damage {
            None => fs.remove_file(&Path::new(DIR).join("CURRENT")).unwrap(),
            Some(at) => rewrite(&fs, "CURRENT", |bytes| bytes[at] ^= 1),
        }
        let code = Store::open(DIR, options(&fs, 2)).unwrap_err().code();
        assert_eq!(code, Code::ManifestCorrupt);
        let before = names(&fs, DIR);
        let plan = plan(&fs);
        assert_eq!(plan.source, RepairSource::Manifest(manifest(&fs)));
        assert!(plan.lost.is_empty() && plan.cause.is_some(), "{plan:?}");
        assert_eq!(names(&fs, DIR), before, "a plan changes nothing");
        plan.execute(&*fs).unwrap();
        assert_eq!(verify(&*fs, Path::new(DIR)).unwrap().damages.len(), 0);
        assert_eq!(read(&fs, 3), map);
    }
}

#[test]
fn edits_before_a_damage_are_kept_and_the_loss_is_told() {
    let fs = disk();
    filled(&fs);
    // The last open wrote one full edit; two more edits come behind it.
    let mut store = Store::open(DIR, options(&fs, 2)).unwrap();
    let family = store.family("orders").unwrap();
    let before = content(&store, family).unwrap();
    store.put(family, b"later", b"1").unwrap();
    store.flush().unwrap();
    store.close().unwrap();
    let name = manifest(&fs);
    let tables = names(&fs, DIR)
        .iter()
        .filter(|name| name.ends_with(".sst"))
        .count();
    // A tail that was durable and is damaged is no torn tail.
    rewrite(&fs, &name, |bytes| {
        let last = bytes.len() - 3;
        bytes[last] ^= 1;
        bytes.extend_from_slice(&[0; 40]);
    });
    rewrite(&fs, "CURRENT", Vec::clear);
    let plan = plan(&fs);
    assert_eq!(plan.source, RepairSource::Manifest(name.clone()), "a torn tail");
    assert_eq!((plan.lost.len(), plan.tables), (3, 4), "{plan:?}");
    plan.execute(&*fs).unwrap();
    let kept = names(&fs, &format!("{DIR}/{LOST_AND_FOUND}"));
    assert!(
        kept.contains(&name) && kept.contains(&"CURRENT".to_owned()),
        "{kept:?}"
    );
    let left = names(&fs, DIR)
        .iter()
        .filter(|name| name.ends_with(".sst"))
        .count();
    let aside = kept.iter().filter(|name| name.ends_with(".sst")).count();
    assert_eq!(left + aside, tables, "no table is deleted");
    let after = read(&fs, 4);
    assert_eq!(after, before);
    assert_eq!(verify(&*fs, Path::new(DIR)).unwrap().damages.len(), 0);
}

#[test]
fn what_the_log_holds_survives_a_lost_current_and_is_told_where_it_cannot() {
    for keeps_manifest in [true, false] {
        let fs = disk();
        let mut map = filled(&fs);
        let logged = StoreOptions {
            durability: Durability::Sync,
            ..options(&fs, 2)
        };
        let mut store = Store::open(DIR, logged).unwrap();
        let family = store.family("orders").unwrap();
        store.put(family, b"logged", b"1").unwrap();
        drop(store);
        fs.remove_file(&Path::new(DIR).join("CURRENT")).unwrap();
        let name = manifest(&fs);
        if keeps_manifest {
            map.insert(b"logged".to_vec(), b"1".to_vec());
        } else {
            rewrite(&fs, &name, Vec::clear);
        }
        let one = OneFamily {
            name: "orders".to_owned(),
            merge: None,
        };
        let plan = RepairPlan::make(&*fs, Path::new(DIR), Some(&one)).unwrap();
        assert_eq!(plan.lost.is_empty(), keeps_manifest, "{plan:?}");
        let puts_log_aside = plan.aside.iter().any(|name| name.starts_with("WAL-"));
        assert_eq!(puts_log_aside, !keeps_manifest, "{plan:?}");
        plan.execute(&*fs).unwrap();
        assert_eq!(verify(&*fs, Path::new(DIR)).unwrap().damages.len(), 0);
        assert_eq!(read(&fs, 3), map);
    }
}

#[test]
fn without_a_manifest_the_tables_need_the_word_of_somebody() {
    let fs = disk();
    let map = filled(&fs);
    let name = manifest(&fs);
    rewrite(&fs, &name, Vec::clear);
    let error = RepairPlan::make(&*fs, Path::new(DIR), None).unwrap_err();
    assert_eq!(error.code(), Code::ManifestCorrupt);
    let one = OneFamily {
        name: "orders".to_owned(),
        merge: None,
    };
    let plan = RepairPlan::make(&*fs, Path::new(DIR), Some(&one)).unwrap();
    assert_eq!((&plan.source, plan.tables), (&RepairSource::Tables, 4));
    assert!(!plan.lost.is_empty());
    plan.execute(&*fs).unwrap();
    assert_eq!(read(&fs, 5), map);
}

#[test]
fn floors_and_range_deletes_that_a_repair_loses_are_told() {
    // Floors are in the manifest alone, range deletes in tables: only the latter survive the loss of all manifests.
    for keeps_edits in [false, true] {
        let fs = disk();
        filled(&fs);
        let mut store = Store::open(DIR, options(&fs, 2)).unwrap();
        let family = store.family("orders").unwrap();
        store.delete_range(family, &[5][..]..&[9][..]).unwrap();
        store.flush().unwrap();
        let before = fs
            .read(&Path::new(DIR).join(manifest(&fs)), 1 << 20)
            .unwrap()
            .len();
        store.raise_floor(family, b"", &[3]).unwrap();
        store.put(family, &[50], b"flushed with it").unwrap();
        store.flush().unwrap();
        store.put(family, &[51], b"later").unwrap();
        store.flush().unwrap();
        assert!(store.get(family, &[1]).unwrap().is_none());
        drop(store);
        let name = manifest(&fs);
        // The edit of the floor is damaged, or everything.
        rewrite(&fs, &name, |bytes| match keeps_edits {
            true => bytes[before + 20] ^= 1,
            false => bytes.clear(),
        });
        rewrite(&fs, "CURRENT", Vec::clear);
        let one = OneFamily {
            name: "orders".to_owned(),
            merge: None,
        };
        let plan = RepairPlan::make(&*fs, Path::new(DIR), Some(&one)).unwrap();
        let lost = plan.lost.join("\n");
        assert!(lost.contains("floors"), "{lost}");
        assert_eq!(lost.contains("options of the family"), !keeps_edits, "{lost}");
        plan.execute(&*fs).unwrap();
        let map = read(&fs, 3);
        assert!(map.contains_key(&[1][..]), "it says that this comes back");
        assert!(!map.contains_key(&[6][..]), "the range delete is in a table");
    }
}

#[test]
fn tables_of_which_one_may_be_made_of_the_other_are_refused() {
    let fs = disk();
    filled(&fs);
    // The inputs of a merge come back, as a crash before their removal would leave them.
    let inputs: Vec<(String, Vec<u8>)> = names(&fs, DIR)
        .into_iter()
        .filter(|name| name.ends_with(".sst"))
        .map(|name| {
            let bytes = fs.read(&Path::new(DIR).join(&name), 1 << 20).unwrap();
            (name, bytes)
        })
        .collect();
    let mut store = Store::open(DIR, options(&fs, 2)).unwrap();
    let family = store.family("orders").unwrap();
    store.compact(family).unwrap();
    store.close().unwrap();
    for (name, bytes) in inputs {
        let path = Path::new(DIR).join(&name);
        if fs.facts(&path).unwrap().is_none() {
            fs.create(&path).unwrap().append(&bytes).unwrap();
        }
    }
    let found = verify(&*fs, Path::new(DIR)).unwrap();
    assert_eq!((found.strays.len(), found.damages.len()), (4, 0), "{found:?}");
    let name = manifest(&fs);
    rewrite(&fs, &name, Vec::clear);
    let one = OneFamily {
        name: "orders".to_owned(),
        merge: None,
    };
    let error = RepairPlan::make(&*fs, Path::new(DIR), Some(&one)).unwrap_err();
    assert!(error.message().contains("not known"), "{error}");
}

#[test]
fn damaged_and_missing_tables_are_found_by_name_and_never_repaired() {
    let fs = disk();
    filled(&fs);
    let tables: Vec<String> = names(&fs, DIR)
        .into_iter()
        .filter(|name| name.ends_with(".sst"))
        .collect();
    rewrite(&fs, &tables[0], |bytes| bytes[100] ^= 1);
    fs.remove_file(&Path::new(DIR).join(&tables[1])).unwrap();
    let found = verify(&*fs, Path::new(DIR)).unwrap();
    let mut codes: Vec<Code> = found.damages.iter().map(Error::code).collect();
    codes.sort();
    assert_eq!(codes, [Code::TableCorrupt, Code::TableMissing]);
    assert!(found.damages.iter().all(|error| error.file().is_some()));
    let error = RepairPlan::make(&*fs, Path::new(DIR), None).unwrap_err();
    assert_eq!(error.code(), Code::TableMissing, "{error}");
}

#[test]
fn a_crash_at_any_call_of_a_repair_leaves_a_store_that_can_be_repaired() {
    let damaged = || {
        let fs = disk();
        let map = filled(&fs);
        rewrite(&fs, "CURRENT", Vec::clear);
        (fs, map)
    };
    let mut call = 1;
    loop {
        let (fs, map) = damaged();
        let faulty = FaultFs::new(fs.clone());
        let plan = plan(&fs);
        faulty.arm(FaultPlan::new(Fault::Eio, call).forever());
        let done = plan.execute(&faulty).is_ok();
        if RepairPlan::make(&*fs, Path::new(DIR), None).unwrap().source != RepairSource::Whole {
            self::plan(&fs).execute(&*fs).unwrap();
        }
        assert_eq!(read(&fs, 9), map, "call {call}");
        if done && faulty.triggered() == 0 {
            break;
        }
        call += 1;
    }
    assert!(call > 5);
}

#[test]
fn a_store_is_verified_while_its_owner_replaces_everything_in_it() {
    let place = tempfile::tempdir().unwrap();
    let dir = place.path().join("s");
    let options = StoreOptions {
        memtable_bytes: 4 << 10,
        target_file_bytes: 4 << 10,
        wal_bytes_max: 64 << 10,
        ..StoreOptions::default()
    };
    let fs = options.fs.clone();
    let mut store = Store::open(&dir, options).unwrap();
    let family = store.family("orders").unwrap();
    let is_over = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        let owner = scope.spawn(|| {
            for n in 0..6_000_u32 {
                store
                    .put(family, &(n % 500).to_be_bytes(), &n.to_be_bytes().repeat(4))
                    .unwrap();
            }
            is_over.store(true, std::sync::atomic::Ordering::SeqCst);
            store.flush().unwrap();
            store
        });
        let mut rounds = 0;
        while !is_over.load(std::sync::atomic::Ordering::SeqCst) || rounds == 0 {
            match verify(&*fs, &dir) {
                Ok(found) => assert!(found.damages.is_empty(), "round {rounds}: {found:?}"),
                Err(error) => assert_eq!(error.code(), Code::Busy, "round {rounds}: {error}"),
            }
            rounds += 1;
        }
        owner.join().unwrap().close().unwrap();
    });
    assert_eq!(verify(&*fs, &dir).unwrap().damages.len(), 0);
}

#[test]
fn whoever_names_the_wrong_place_is_told_what_is_there() {
    let place = tempfile::tempdir().unwrap();
    let fs = StoreOptions::default().fs;
    let (none, file, other) = (
        place.path().join("none"),
        place.path().join("file"),
        place.path().join("other"),
    );
    fs.create(&file).unwrap().append(b"text").unwrap();
    fs.create_dir_all(&other).unwrap();
    fs.create(&other.join("x")).unwrap();
    let said = |dir: &Path| {
        let looked = [
            verify(&*fs, dir).map(drop),
            RepairPlan::make(&*fs, dir, None).map(drop),
            Store::open_read_only(dir, StoreOptions::default()).map(drop),
        ];
        let [verified, planned, opened] = looked.map(|result| result.unwrap_err().to_string());
        assert_eq!((&verified, &planned), (&planned, &opened));
        verified
    };
    assert!(said(&none).contains("NotFound: there is no such directory"));
    assert!(said(&file).contains("InvalidArgument: a store is a directory, and this is a file"));
    assert!(said(&other).contains("NotFound: there is no store in this directory"));
    assert!(!none.exists() && !other.join("LOCK").exists());
}
