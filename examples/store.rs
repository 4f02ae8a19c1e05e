//! The store alone: ordered bytes, read-modify-write, a view for another thread.
//!
//! `cargo run -p keybed --example store` works in a directory of its own below the system's temporary directory.

use keybed::prelude::*;

fn main() -> Result {
    let dir = std::env::temp_dir().join(format!("keybed-example-store-{}", std::process::id()));
    let mut store = Store::open(&dir, StoreOptions::default())?;
    let words = store.family("words")?;

    for word in "the quick brown fox jumps over the lazy dog and the cat".split(' ') {
        store.update(words, word.as_bytes(), |count| {
            let count = count
                .and_then(|bytes| bytes.try_into().ok())
                .map_or(0, u64::from_be_bytes);
            Update::Put((count + 1).to_be_bytes().to_vec())
        })?;
    }

    for entry in store.range(words, &b"c"[..]..&b"l"[..])? {
        let (word, count) = entry?;
        let count = count.try_into().map_or(0, u64::from_be_bytes);
        println!("{} {count}", String::from_utf8_lossy(&word));
    }
    store.close()?;
    println!("the store stays in {}", dir.display());
    Ok(())
}
