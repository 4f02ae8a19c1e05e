//! `keybed sst`: what a table says, and that damage is found with its place.

use crate::place::Place;
use keybed::lsm::{FamilyOptions, StoreOptions, table::ExternalTable};
use serde_json::Value;
use std::{fs, process::Output};

/// A table with a thousand keys in the directory of a place.
fn table(place: &Place) -> String {
    let path = place.path("t.sst");
    let options = StoreOptions::default();
    let mut table = ExternalTable::create(&path, &options, &FamilyOptions::default()).unwrap();
    for i in 0..1000 {
        table.put(format!("key-{i:04}").as_bytes(), b"v\xff").unwrap();
    }
    table.delete(b"z").unwrap();
    table.finish().unwrap();
    path.display().to_string()
}

fn output(place: &Place, words: &[&str]) -> Output {
    place.command(words).output().unwrap()
}

fn json(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn a_table_tells_its_facts_blocks_and_entries() {
    // Without this nobody could look into a file that a checkpoint is said to consist of.
    let place = Place::new();
    let file = table(&place);
    let props = json(&output(&place, &["sst", "props", &file, "--json"]));
    assert_eq!(
        (&props["entries"], &props["tombstones"]),
        (&1001.into(), &1.into())
    );
    assert_eq!(
        (props["smallest"].as_str(), props["largest"].as_str()),
        (Some("key-0000"), Some("z"))
    );
    assert_eq!(props["sections"][1]["name"], "index");
    let people = output(&place, &["sst", "props", &file]);
    let people = String::from_utf8(people.stdout).unwrap();
    assert!(
        people.contains("entries 1001") && people.contains("section filter"),
        "{people}"
    );
    let blocks = String::from_utf8(output(&place, &["sst", "dump", &file]).stdout).unwrap();
    assert!(blocks.contains("block 0 at 16"), "{blocks}");
    let entries = output(&place, &["sst", "dump", &file, "--entries", "--limit", "2"]);
    let entries = String::from_utf8(entries.stdout).unwrap();
    assert_eq!(
        entries,
        "key-0000 @0 put v\\xff\nkey-0001 @0 put v\\xff\n999 more; see --limit\n"
    );
    let entries = json(&output(
        &place,
        &["sst", "dump", &file, "--entries", "--limit", "2000", "--json"],
    ));
    assert_eq!(entries["entries"].as_array().unwrap().len(), 1001);
    assert_eq!(entries["entries"][1000]["kind"], "delete");
}

#[test]
fn damage_to_a_table_ends_with_exit_code_3_and_its_place() {
    // A broken disk would be noticed by wrong results only.
    let place = Place::new();
    let file = table(&place);
    let whole = output(&place, &["sst", "verify", &file]);
    assert_eq!(whole.status.code(), Some(0));
    let good = fs::read(&file).unwrap();
    let mut bad = good.clone();
    bad[1000] ^= 4;
    let broken = place.path("broken.sst").display().to_string();
    fs::write(&broken, &bad).unwrap();
    let found = output(&place, &["sst", "verify", &file, &broken, "--json"]);
    assert_eq!(found.status.code(), Some(3));
    let found = json(&found);
    assert_eq!(
        (&found["files"][0]["state"], &found["files"][1]["state"]),
        (&"whole".into(), &"damaged".into())
    );
    assert_eq!(found["files"][1]["error"]["code"], "TableCorrupt");
    for (name, bytes) in [
        ("short.sst", &good[..500]),
        ("text.sst", &b"no table"[..]),
        ("empty.sst", &[]),
    ] {
        let path = place.path(name).display().to_string();
        fs::write(&path, bytes).unwrap();
        for verb in ["props", "verify", "dump"] {
            let found = output(&place, &["sst", verb, &path]);
            assert_eq!(found.status.code(), Some(3), "{verb} {name}");
        }
    }
    let missing = place.path("missing.sst").display().to_string();
    assert_eq!(output(&place, &["sst", "props", &missing]).status.code(), Some(1));
}
