//! Without this two processes could write one directory, or tidy up files that somebody still copies.

use crate::support::{disk, simulated};
use keybed_format::Code;
use keybed_lsm::{Store, StoreOptions};

#[test]
fn a_second_open_is_refused_and_names_the_holder() {
    let place = tempfile::tempdir().unwrap();
    let store = Store::open(place.path().join("s"), StoreOptions::default()).unwrap();
    let error = Store::open(place.path().join("s"), StoreOptions::default()).unwrap_err();
    assert_eq!(error.code(), Code::Locked);
    let pid = std::process::id().to_string();
    assert!(
        error
            .fields()
            .iter()
            .any(|(name, value)| *name == "pid" && *value == pid),
        "{error}"
    );
    drop(store);
    Store::open(place.path().join("s"), StoreOptions::default())
        .unwrap()
        .close()
        .unwrap();
}

#[test]
fn a_directory_stays_locked_while_files_of_it_are_pinned() {
    let fs = disk();
    let mut store = Store::open("s", simulated(fs.clone(), 1)).unwrap();
    let family = store.family("f").unwrap();
    store.put(family, b"k", b"v").unwrap();
    let view = store.view().unwrap();
    let pinned = store.pin().unwrap().finish().unwrap();
    let pinning = store.pin().unwrap();
    store.close().unwrap();
    assert_eq!(
        Store::open("s", simulated(fs.clone(), 2)).unwrap_err().code(),
        Code::Locked
    );
    drop(pinned);
    assert_eq!(
        Store::open("s", simulated(fs.clone(), 2)).unwrap_err().code(),
        Code::Locked
    );
    drop(pinning);
    // A view reads on through open files; it needs no names.
    let mut store = Store::open("s", simulated(fs.clone(), 3)).unwrap();
    let family = store.family("f").unwrap();
    store.delete(family, b"k").unwrap();
    store.compact(family).unwrap();
    assert_eq!(view.get(view.family("f").unwrap(), b"k").unwrap().unwrap(), b"v");
}

#[test]
fn a_store_can_be_reopened_at_once_by_threads_that_still_work() {
    let place = tempfile::tempdir().unwrap();
    for round in 0..30_u64 {
        let options = StoreOptions {
            memtable_bytes: 4 << 10,
            fan_in: 2,
            ..StoreOptions::default()
        };
        let mut store = Store::open(place.path().join("s"), options).unwrap();
        let family = store.family("f").unwrap();
        for n in 0..500_u64 {
            store.put(family, &(n * round).to_be_bytes(), &[7; 50]).unwrap();
        }
        if round % 2 == 0 {
            store.close().unwrap();
        }
    }
}

#[test]
fn handles_go_where_they_may() {
    fn send<T: Send>() {}
    fn shared<T: Send + Sync + 'static>() {}
    send::<Store>();
    shared::<keybed_lsm::View>();
    shared::<keybed_lsm::Pinning>();
    shared::<keybed_lsm::PinnedFiles>();
    shared::<StoreOptions>();
}
