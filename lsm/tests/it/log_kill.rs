//! If this fails, `kill -9` of a real process loses a write that it had acknowledged, or half of a batch.

use keybed_env::Random;
use keybed_lsm::{Durability, Family, Store, StoreOptions, WriteBatch};
use std::{
    io::{BufRead, BufReader, Write},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

const KEYS: u64 = 50;
const DIR: &str = "KEYBED_TEST_KILL_DIR";

fn open(dir: &Path) -> (Store, [Family; 2]) {
    let options = StoreOptions {
        memtable_bytes: 64 << 10,
        wal_bytes_max: 256 << 10,
        durability: Durability::Buffered,
        ..StoreOptions::default()
    };
    let mut store = Store::open(dir, options).unwrap();
    let families = [store.family("a").unwrap(), store.family("b").unwrap()];
    (store, families)
}

fn value(n: u64) -> Vec<u8> {
    [&n.to_be_bytes()[..], &vec![n as u8; 20 + n as usize % 200]].concat()
}

/// The child: write `n` goes to key `n % KEYS` of both families, and its number to standard output once it returned.
#[test]
fn writes_until_it_is_killed() {
    let Some(dir) = std::env::var_os(DIR).map(PathBuf::from) else {
        return;
    };
    let (mut store, families) = open(&dir);
    let mut out = std::io::stdout();
    let mut batch = WriteBatch::new();
    for n in next(&store, families).. {
        let key = (n % KEYS).to_be_bytes();
        batch.clear();
        batch
            .put(families[0], &key, &value(n))
            .put(families[1], &key, &value(n));
        batch.put(families[0], b"last", &n.to_be_bytes());
        store.write(&batch).unwrap();
        writeln!(out, "ack {n}").unwrap();
    }
}

/// The number of the first write that was not made.
fn next(store: &Store, families: [Family; 2]) -> u64 {
    let last = store.get(families[0], b"last").unwrap();
    last.map_or(0, |last| u64::from_be_bytes(last[..].try_into().unwrap()) + 1)
}

#[test]
fn a_killed_process_loses_nothing_that_it_acknowledged() {
    let place = tempfile::tempdir().unwrap();
    let dir = place.path().join("s");
    let mut random = Random::from_seed(1);
    let mut acknowledged = 0;
    let kills = if std::env::var_os("KEYBED_TEST_FULL").is_some() {
        100
    } else {
        20
    };
    for round in 0..kills {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "log_kill::writes_until_it_is_killed", "--nocapture"])
            .env(DIR, &dir)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut wanted = 1 + random.below(3000);
        let mut acks = 0;
        for line in lines.by_ref() {
            if let Some(n) = line.unwrap().strip_prefix("ack ") {
                acknowledged = n.parse().unwrap();
                acks += 1;
                wanted -= 1;
            }
            if wanted == 0 {
                break;
            }
        }
        assert!(acks > 0, "round {round}: the child wrote nothing");
        child.kill().unwrap();
        // What it acknowledged before it died.
        for line in lines.map_while(Result::ok) {
            if let Some(n) = line.strip_prefix("ack ").and_then(|n| n.parse().ok()) {
                acknowledged = n;
            }
        }
        child.wait().unwrap();
        let (store, families) = open(&dir);
        let next = next(&store, families);
        assert!(
            next > acknowledged,
            "round {round}: {acknowledged} was acknowledged, {next} comes next"
        );
        assert!(
            next <= acknowledged + 2,
            "round {round}: {next} after {acknowledged}"
        );
        for family in families {
            for key in 0..KEYS.min(next) {
                let last = next - 1 - (next - 1 + KEYS - key) % KEYS;
                let found = store.get(family, &key.to_be_bytes()).unwrap().unwrap();
                assert_eq!(found, value(last), "round {round}, key {key}");
            }
        }
    }
}
