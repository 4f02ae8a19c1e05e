//! `keybed store …`, over a store that a program wrote: an operator at night must be able to look, check and repair.

use crate::{
    offline::{hash, obey},
    place::{Place, Run},
};
use keybed::{Store, StoreOptions, lsm::Durability};
use std::fs;

/// A store of two families in `db`.
fn filled() -> Place {
    let place = Place::new();
    let mut store = Store::open(place.path("db"), StoreOptions::default()).unwrap();
    let (orders, users) = (store.family("orders").unwrap(), store.family("users").unwrap());
    for n in 0..500 {
        store
            .put(orders, format!("o-{n:03}").as_bytes(), format!("{n}").as_bytes())
            .unwrap();
    }
    store.flush().unwrap();
    for n in 0..400 {
        store.delete(orders, format!("o-{n:03}").as_bytes()).unwrap();
    }
    store.put(users, b"ann\xff", b"1").unwrap();
    store.close().unwrap();
    place
}

fn text(place: &Place, words: &[&str]) -> String {
    let run = Run::of(place.command(words).output().unwrap());
    assert_eq!(run.status, 0, "{}{}", run.stdout, run.stderr);
    run.stdout
}

#[test]
fn a_store_is_looked_into() {
    let place = filled();
    let stats = obey(&place, &["store", "stats", "db"]).summary();
    let names: Vec<&str> = stats["families"]
        .as_array()
        .unwrap()
        .iter()
        .map(|family| family["name"].as_str().unwrap())
        .collect();
    assert_eq!(names, ["orders", "users"]);
    assert_eq!(stats["families"][0]["runs"].as_array().unwrap().len(), 2);
    assert!(text(&place, &["store", "stats", "db"]).contains("orders"));
    assert!(
        text(&place, &["store", "stats", "db", "--prometheus"])
            .contains("keybed_run_files{family=\"orders\"")
    );

    let scan = |more: &[&str]| text(&place, &[&["store", "scan", "db"], more].concat());
    let orders = scan(&["--family", "orders", "--from", "o-498"]);
    assert_eq!(orders, "o-498\t498\no-499\t499\n");
    assert_eq!(
        scan(&[
            "--family",
            "orders",
            "--prefix",
            "o-4",
            "--reverse",
            "--limit",
            "1"
        ]),
        "o-499\t499\n"
    );
    assert_eq!(scan(&["--family", "orders", "--to", "o-401"]), "o-400\t400\n");
    assert_eq!(scan(&["--family", "users"]), "ann\\xff\t1\n");
    assert_eq!(
        scan(&["--family", "users", "--hex", "--prefix", "616e"]),
        "616e6eff\t31\n"
    );
    let object = obey(
        &place,
        &["store", "scan", "db", "--family", "orders", "--limit", "2"],
    )
    .summary();
    assert_eq!(object["entries"][1]["key"], "o-401");
    assert_eq!(
        text(&place, &["store", "get", "db", "o-450", "--family", "orders"]),
        "450\n"
    );
    let absent = obey(&place, &["store", "get", "db", "o-001", "--family", "orders"]);
    absent.error("NotFound", 1);
}

#[test]
fn what_cannot_be_meant_is_said_and_nothing_is_created() {
    let place = filled();
    let family = obey(&place, &["store", "scan", "db"]).error("InvalidArgument", 2);
    assert_eq!(family["fields"]["families"], "orders, users");
    obey(&place, &["store", "get", "db", "6", "--family", "users", "--hex"]).error("InvalidArgument", 2);
    for verb in ["stats", "scan", "compact", "verify", "repair"] {
        obey(&place, &["store", verb, "elsewhere"]).error("NotFound", 1);
    }
    assert!(!place.path("elsewhere").exists());
    let held = Store::open(place.path("db"), StoreOptions::default()).unwrap();
    for verb in ["compact", "repair"] {
        let error = obey(&place, &["store", verb, "db"]).error("Locked", 4);
        // There is no state directory to choose where a store is meant.
        assert!(
            !error["hint"].as_str().unwrap().contains("--state-dir"),
            "{error}"
        );
    }
    held.close().unwrap();
}

#[test]
fn a_store_is_looked_into_while_its_owner_writes() {
    let place = filled();
    for (durability, is_logged) in [(Durability::Buffered, true), (Durability::None, false)] {
        let options = StoreOptions {
            durability,
            ..StoreOptions::default()
        };
        let mut owner = Store::open(place.path("db"), options).unwrap();
        let users = owner.family("users").unwrap();
        owner.put(users, b"bob", b"2").unwrap();
        let before = hash(&place.path("db"));
        let stats = obey(&place, &["store", "stats", "db"]).summary();
        assert_eq!(stats["caveat"].is_null(), is_logged, "{stats}");
        let verified = obey(&place, &["store", "verify", "db"]).summary();
        assert_eq!(verified["state"], "whole");
        let bob = obey(&place, &["store", "get", "db", "bob", "--family", "users"]);
        if is_logged {
            assert_eq!(bob.summary()["value"], "2");
        } else {
            let error = bob.error("NotFound", 1);
            assert!(
                error["fields"]["note"].as_str().unwrap().contains("no log"),
                "{error}"
            );
        }
        let said = Run::of(
            place
                .command(&["store", "scan", "db", "--family", "users"])
                .output()
                .unwrap(),
        );
        assert_eq!(said.stdout.contains("bob"), is_logged, "{}", said.stdout);
        assert_eq!(said.stderr.contains("note: this store keeps no log"), !is_logged);
        assert_eq!(hash(&place.path("db")), before, "looking changed the store");
        owner.delete(users, b"bob").unwrap();
        owner.close().unwrap();
    }
}

#[test]
fn compacting_gives_up_the_space_of_what_was_deleted() {
    let place = filled();
    let done = obey(&place, &["store", "compact", "db"]).summary();
    assert!(
        done["bytes_after"].as_u64().unwrap() < done["bytes_before"].as_u64().unwrap(),
        "{done}"
    );
    assert_eq!(
        obey(&place, &["store", "verify", "db"]).summary()["versions"],
        101
    );
}

#[test]
fn damage_is_found_and_a_lost_current_repaired() {
    let place = filled();
    let whole = obey(&place, &["store", "verify", "db"]).summary();
    assert_eq!((&whole["state"], &whole["tables"]), (&"whole".into(), &3.into()));

    fs::remove_file(place.path("db/CURRENT")).unwrap();
    obey(&place, &["store", "stats", "db"]).error("ManifestCorrupt", 3);
    let files = || {
        let mut files = hash(&place.path("db"));
        files.retain(|path, _| path.to_str() != Some("LOCK"));
        files
    };
    let before = files();
    let plan = obey(&place, &["store", "repair", "db"]).summary();
    assert_eq!((&plan["done"], &plan["tables"]), (&false.into(), &3.into()));
    assert_eq!(files(), before, "a plan changes nothing");
    let said = text(&place, &["store", "repair", "db", "--write"]);
    assert!(
        said.contains("which is whole") && said.contains("repaired"),
        "{said}"
    );
    assert_eq!(
        obey(&place, &["store", "verify", "db"]).summary()["state"],
        "whole"
    );
    assert!(text(&place, &["store", "repair", "db"]).contains("nothing to do"));

    let table = fs::read_dir(place.path("db"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .find(|path| path.extension().is_some_and(|extension| extension == "sst"))
        .unwrap();
    let mut bytes = fs::read(&table).unwrap();
    bytes[60] ^= 1;
    fs::write(&table, bytes).unwrap();
    let damaged = obey(&place, &["store", "verify", "db"]);
    assert_eq!(damaged.status, 3, "{}", damaged.stdout);
    let object: serde_json::Value = serde_json::from_str(&damaged.stdout).unwrap();
    assert_eq!(object["state"], "damaged");
    assert_eq!(object["damages"][0]["code"], "TableCorrupt");
    assert_eq!(
        object["damages"][0]["file"],
        table.strip_prefix(place.path("")).unwrap().to_str().unwrap()
    );
}
