//! What families and stores take of the allocator while nobody uses them. A binary of its own: it counts every byte.

use keybed_lsm::{Durability, MemoryBudget, Store, StoreOptions};
use std::{
    alloc::{GlobalAlloc, Layout, System},
    path::Path,
    sync::atomic::{AtomicUsize, Ordering::Relaxed},
};

/// The allocator of the system, with bytes in use counted.
struct Counting;

static BYTES: AtomicUsize = AtomicUsize::new(0);

#[allow(unsafe_code)]
// SAFETY: every call goes to the system's allocator with the arguments it was made with.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        BYTES.fetch_add(layout.size(), Relaxed);
        // SAFETY: as the caller promised.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        BYTES.fetch_sub(layout.size(), Relaxed);
        // SAFETY: as the caller promised.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Measured: 1,279 B created.
const FAMILY_BYTES_MAX: usize = 1280;
/// Measured: 17,317 B with one table that was just flushed; 8,273 B after the store was opened.
const STORE_BYTES_MAX: usize = 24 << 10;
const FAMILIES: usize = 1000;
const STORES: usize = 50;

fn taken_by(work: impl FnOnce()) -> usize {
    let before = BYTES.load(Relaxed);
    work();
    BYTES.load(Relaxed).saturating_sub(before)
}

fn manifest_bytes(dir: &Path) -> u64 {
    let entries = std::fs::read_dir(dir).unwrap().map(Result::unwrap);
    let manifests = entries.filter(|entry| entry.file_name().to_string_lossy().starts_with("MANIFEST"));
    manifests.map(|entry| entry.metadata().unwrap().len()).sum()
}

#[test]
fn idle_families_and_stores_are_small() {
    let place = tempfile::tempdir().unwrap();
    let options = StoreOptions {
        budget: Some(MemoryBudget::new(1 << 30)),
        ..StoreOptions::default()
    };
    let dir = place.path().join("families");
    let hasty = StoreOptions {
        durability: Durability::None,
        ..options.clone()
    };
    let mut store = Store::open(&dir, hasty.clone()).unwrap();
    let mut tokens = Vec::with_capacity(FAMILIES);
    let bytes = taken_by(|| {
        tokens.extend((0..FAMILIES).map(|at| store.family(&format!("family-{at}")).unwrap()));
    });
    assert!(bytes / FAMILIES <= FAMILY_BYTES_MAX, "{} B", bytes / FAMILIES);

    // They come and go: what is gone is refused for good, although its name is taken again.
    for round in 0..2 {
        for &family in &tokens {
            store.put(family, b"key", b"value").unwrap();
            store.clear(family).unwrap();
            store.drop_family(family).unwrap();
        }
        let fresh: Vec<_> = (0..FAMILIES)
            .map(|at| store.family(&format!("family-{at}")).unwrap())
            .collect();
        assert!(tokens.iter().all(|&gone| store.get(gone, b"key").is_err()));
        assert!(
            fresh
                .iter()
                .all(|&family| store.get(family, b"key").unwrap().is_none())
        );
        tokens = fresh;
        let bytes = manifest_bytes(&dir);
        assert!(bytes < 1 << 20, "round {round}: {bytes} B of manifests");
    }
    store.close().unwrap();
    let mut opened = None;
    let bytes = taken_by(|| opened = Some(Store::open(&dir, hasty.clone()).unwrap()));
    assert!(bytes / FAMILIES <= FAMILY_BYTES_MAX, "{} B", bytes / FAMILIES);
    assert_eq!(opened.as_ref().unwrap().family_names().count(), FAMILIES);
    assert!(manifest_bytes(&dir) < 64 << 10, "a new manifest names what lives");
    opened.unwrap().close().unwrap();

    let mut stores = Vec::with_capacity(STORES);
    let bytes = taken_by(|| {
        for at in 0..STORES {
            let mut store = Store::open(place.path().join(at.to_string()), options.clone()).unwrap();
            let family = store.family("default").unwrap();
            store.put(family, b"key", b"value").unwrap();
            store.flush().unwrap();
            stores.push(store);
        }
    });
    assert!(bytes / STORES <= STORE_BYTES_MAX, "{} B", bytes / STORES);
    stores.into_iter().for_each(|store| store.close().unwrap());
}
