//! 02: families are key spaces of one store; a batch changes several of them, all or nothing.
//!
//! `cargo run -p keybed --example 02_families_and_batches`

use keybed::{lsm::WriteBatch, prelude::*};

/// Runs the example in a directory that goes with it.
pub(crate) fn main() -> Result {
    let dir = tempfile::tempdir().expect("the system has a place for temporary files");
    let path = dir.path().join("shop");
    let mut store = Store::open(&path, StoreOptions::default())?;
    let orders = store.family("orders")?;
    let by_customer = store.family("orders by customer")?;

    // The order and its entry in the index appear together, to readers and after a crash.
    let mut batch = WriteBatch::new();
    for (order, customer, cents) in [
        ("o-1", "ada", 4200_u64),
        ("o-2", "bob", 1300),
        ("o-3", "ada", 700),
    ] {
        batch.put(orders, order.as_bytes(), &cents.to_be_bytes());
        batch.put(by_customer, format!("{customer}/{order}").as_bytes(), b"");
    }
    store.write(&batch)?;

    // A refused operation refuses the batch: nothing of it is written.
    batch.clear();
    batch.delete(orders, b"o-1");
    batch.merge(orders, b"o-2", b"there is no merge operator in this family");
    assert!(store.write(&batch).is_err());
    assert!(store.get(orders, b"o-1")?.is_some());

    // The process may die here: what was written is in the log.
    drop(store);
    let mut store = Store::open(&path, StoreOptions::default())?;
    let by_customer = store.family("orders by customer")?;
    let of_ada = store.prefix(by_customer, b"ada/")?.count();
    println!("ada has {of_ada} orders");
    assert_eq!(of_ada, 2);

    // A family goes at once, however much is in it.
    store.drop_family(by_customer)?;
    assert_eq!(store.family_names().collect::<Vec<_>>(), ["orders"]);
    store.close()
}
