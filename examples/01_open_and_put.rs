//! 01: open a store, put, get, change, scan, close.
//!
//! `cargo run -p keybed --example 01_open_and_put` works in a temporary directory. The other programs of this gallery
//! go on from here.

use keybed::prelude::*;

/// Runs the example in a directory that goes with it.
pub(crate) fn main() -> Result {
    let dir = tempfile::tempdir().expect("the system has a place for temporary files");
    // A write survives the death of the process as soon as it returns; `Durability::Sync` makes it survive a power
    // loss, too. The directory is locked while the store is open.
    let mut store = Store::open(dir.path().join("words"), StoreOptions::default())?;
    let words = store.family("words")?;

    store.put(words, b"fox", &1_u64.to_be_bytes())?;
    assert!(store.get(words, b"dog")?.is_none());

    // Read, change and write by one look-up. What is in memory is changed where it lies.
    for word in "the quick brown fox jumps over the lazy dog and the cat".split(' ') {
        store.update(words, word.as_bytes(), |count| {
            let count = count.and_then(|bytes| bytes.try_into().ok());
            Update::Put((count.map_or(0, u64::from_be_bytes) + 1).to_be_bytes())
        })?;
    }
    assert_eq!(store.get(words, b"fox")?.unwrap(), 2_u64.to_be_bytes());

    // Keys come in the order of their bytes.
    for entry in store.range(words, &b"c"[..]..&b"l"[..])? {
        let (word, count) = entry?;
        let count = count.try_into().map_or(0, u64::from_be_bytes);
        println!("{} {count}", String::from_utf8_lossy(&word));
    }
    store.close()
}
