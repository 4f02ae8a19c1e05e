//! 05: entries that expire, last touches, and when their bytes go.
//!
//! `cargo run -p keybed --example 05_entries_that_expire`

use keybed::prelude::*;
use std::time::Duration;

/// Runs the example in a directory that goes with it.
pub(crate) fn main() -> Result {
    let dir = tempfile::tempdir().expect("the system has a place for temporary files");
    let mut store = Store::open(dir.path().join("shop"), StoreOptions::default())?;
    let hour = Duration::from_secs(3600);
    let options = FamilyOptions {
        ttl: Some(hour),
        ..FamilyOptions::default()
    };
    let sessions = store.family_with("sessions", options.clone())?;

    // Every write counts as a touch; a read does not.
    store.put(sessions, b"ann", b"basket 7")?;
    let (basket, touched) = store.get_stamped(sessions, b"ann")?.expect("it was just written");
    assert_eq!(basket, b"basket 7");
    assert!(store.touch(sessions, b"ann")?);

    // A restore says when its entries were touched, and prolongs nothing. What has expired is seen by nobody.
    let two_hours_ago = touched - 2 * hour.as_millis() as u64;
    store.put_stamped(sessions, b"bob", b"basket 8", two_hours_ago)?;
    assert!(store.get(sessions, b"bob")?.is_none());
    assert_eq!(store.range(sessions, ..)?.count(), 1);
    assert!(!store.touch(sessions, b"bob")?);

    // Its bytes go with the next flush or merge; a store that nobody uses does that by itself.
    store.compact(sessions)?;
    println!("{} entries were left out", store.stats().expired_entries);
    assert_eq!(store.stats().expired_entries, 1);

    // The time to live may be another one at every open: entries follow, because they say when they were touched.
    let longer = FamilyOptions {
        ttl: Some(24 * hour),
        ..options
    };
    let sessions = store.family_with("sessions", longer)?;
    let three_hours_ago = touched - 3 * hour.as_millis() as u64;
    store.put_stamped(sessions, b"cid", b"basket 9", three_hours_ago)?;
    assert_eq!(
        store.get(sessions, b"cid")?.expect("it lives for a day"),
        b"basket 9"
    );
    store.close()
}
