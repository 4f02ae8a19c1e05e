//! What families and stores cost that nobody uses: `cargo run --release -p keybed-lsm --example idle_cost
//! [FAMILIES] [STORES]`. Bytes are those of the allocator, counted here; time is that of opening.
//!
//! On 2 cores, very busy with other work, at 1,000 families and 200 stores of one pool and budget: a family 1,263 B and
//! 13 µs; a store of 1,000 families 1.2 MB, opened in 93 ms; a store of one table 17.3 KB as created, 8.3 KB opened (28 ms); no
//! thread per store.
#![allow(clippy::disallowed_methods, reason = "a benchmark reads the clock")]

use keybed_format::{Error, Result};
use keybed_lsm::{Durability, MemoryBudget, Store, StoreOptions};
use std::{
    alloc::{GlobalAlloc, Layout, System},
    sync::atomic::{AtomicUsize, Ordering::Relaxed},
    time::Instant,
};

/// Counts bytes in use.
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

fn number(at: usize, default: usize) -> usize {
    let argument = std::env::args().nth(at);
    argument.and_then(|text| text.parse().ok()).unwrap_or(default)
}

fn threads() -> usize {
    std::fs::read_dir("/proc/self/task").map_or(0, Iterator::count)
}

fn main() -> Result {
    let (families, stores) = (number(1, 1000), number(2, 200));
    let dir = tempfile::tempdir().map_err(|e| Error::io("create", "a directory", e))?;
    let options = StoreOptions {
        budget: Some(MemoryBudget::new(1 << 30)),
        durability: Durability::Buffered,
        ..StoreOptions::default()
    };

    let place = dir.path().join("families");
    let mut store = Store::open(&place, options.clone())?;
    let before = BYTES.load(Relaxed);
    let start = Instant::now();
    for at in 0..families {
        store.family(&format!("family-{at}"))?;
    }
    let (took, bytes) = (start.elapsed(), BYTES.load(Relaxed) - before);
    println!(
        "family, created                {:>8} B {:>10.1?}",
        bytes / families,
        took / families as u32
    );
    store.close()?;
    let before = BYTES.load(Relaxed);
    let start = Instant::now();
    let store = Store::open(&place, options.clone())?;
    let (took, bytes) = (start.elapsed(), BYTES.load(Relaxed) - before);
    println!("store of {families} families, opened {bytes:>8} B {took:>10.1?}");
    store.close()?;

    let (before, threads_before) = (BYTES.load(Relaxed), threads());
    let start = Instant::now();
    let mut open = Vec::new();
    for at in 0..stores {
        let mut store = Store::open(dir.path().join(at.to_string()), options.clone())?;
        let family = store.family("default")?;
        store.put(family, b"key", b"value")?;
        store.flush()?;
        open.push(store);
    }
    let (took, bytes) = (start.elapsed(), BYTES.load(Relaxed) - before);
    println!(
        "store of one table, created    {:>8} B {:>10.1?}",
        bytes / stores,
        took / stores as u32
    );
    println!("threads for {stores} stores: {}", threads() - threads_before);
    for store in open.drain(..) {
        store.close()?;
    }
    let before = BYTES.load(Relaxed);
    let start = Instant::now();
    for at in 0..stores {
        open.push(Store::open(dir.path().join(at.to_string()), options.clone())?);
    }
    let (took, bytes) = (start.elapsed(), BYTES.load(Relaxed) - before);
    println!(
        "store of one table, opened     {:>8} B {:>10.1?}",
        bytes / stores,
        took / stores as u32
    );
    open.into_iter().try_for_each(Store::close)
}
