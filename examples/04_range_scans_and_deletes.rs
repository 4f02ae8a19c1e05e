//! 04: scans in both directions, a cursor that lives while you write, and deleting many keys at once.
//!
//! `cargo run -p keybed --example 04_range_scans_and_deletes`

use keybed::prelude::*;

/// Sensor and time: big-endian numbers sort as bytes do.
fn key(sensor: u16, minute: u32) -> [u8; 6] {
    let mut key = [0; 6];
    key[..2].copy_from_slice(&sensor.to_be_bytes());
    key[2..].copy_from_slice(&minute.to_be_bytes());
    key
}

/// Runs the example in a directory that goes with it.
pub(crate) fn main() -> Result {
    let dir = tempfile::tempdir().expect("the system has a place for temporary files");
    let mut store = Store::open(dir.path().join("measurements"), StoreOptions::default())?;
    let values = store.family("values")?;
    for sensor in 0..3 {
        for minute in 0..1000_u32 {
            store.put(values, &key(sensor, minute), &(minute % 60).to_le_bytes())?;
        }
    }

    // The newest value of a sensor: the last entry of its prefix. Nothing outside of the bounds is read.
    let mut newest = store.prefix_rev(values, &1_u16.to_be_bytes())?;
    let (found, _) = newest.next_entry()?.expect("sensor 1 has values");
    assert_eq!(found, key(1, 999));
    drop(newest);

    // A cursor borrows nothing: it sees the store as it was when it was made, whatever is written meanwhile.
    let mut cursor = store.prefix_cursor(values, &2_u16.to_be_bytes())?;
    let mut seen = 0;
    let mut found = cursor.seek_to_first(&store)?;
    while found {
        seen += 1;
        let key = cursor.key().to_vec();
        store.delete(values, &key)?;
        found = cursor.next(&store)?;
    }
    assert_eq!(seen, 1000);
    assert_eq!(store.prefix(values, &2_u16.to_be_bytes())?.count(), 0);

    // One small record removes a range; tables that hold nothing else go without being read.
    store.delete_range(values, &key(0, 0)[..]..&key(0, 900)[..])?;
    store.delete_prefix(values, &1_u16.to_be_bytes())?;
    let left = store.range(values, ..)?.count();
    println!("{left} values are left");
    assert_eq!(left, 100);
    store.close()
}
