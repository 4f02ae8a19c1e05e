//! If this fails, batches of reads wait for one block after the other, or announce reads that nobody needs.

use crate::support::{disk, simulated};
use keybed_env::{
    CountFs, Fs, OsFs,
    fs::{Fault, FaultFs, FaultPlan, FsOp},
};
use keybed_format::Result;
use keybed_lsm::{Access, Family, Store, StoreOptions};
use std::sync::Arc;

const KEYS: u64 = 2_000;

fn key(number: u64) -> [u8; 8] {
    number.to_be_bytes()
}

/// Sixteen keys, each in a block of its own and with others between them.
fn scattered() -> Vec<[u8; 8]> {
    (0..16).map(|i| key((i * 7 % 16) * 120 + 3)).collect()
}

fn options(fs: Arc<dyn Fs>, access: Access, cache_bytes: usize) -> StoreOptions {
    StoreOptions {
        access,
        cache_bytes,
        target_file_bytes: 1 << 20,
        memtable_bytes: 1 << 20,
        ..simulated(fs, 7)
    }
}

/// All keys in one table, of which no block is in memory.
fn cold(fs: &Arc<dyn Fs>, access: Access, cache_bytes: usize) -> Result<(Store, Family)> {
    let mut store = Store::open("/store", options(fs.clone(), access, cache_bytes))?;
    let family = store.family("f")?;
    for number in 0..KEYS {
        store.put(family, &key(number), &[number as u8; 40])?;
    }
    store.flush()?;
    store.compact(family)?;
    store.close()?;
    let mut store = Store::open("/store", options(fs.clone(), access, cache_bytes))?;
    let family = store.family("f")?;
    // Opens the file and reads its filter.
    store.get(family, &key(1_999))?;
    Ok((store, family))
}

fn check(store: &Store, family: Family, keys: &[[u8; 8]]) -> Result {
    for (key, value) in keys.iter().zip(store.multi_get(family, keys)?) {
        let expected = [key[7]; 40];
        assert_eq!(value?.as_deref(), Some(&expected[..]), "{key:?}");
    }
    Ok(())
}

#[test]
fn a_batch_announces_the_blocks_that_it_misses() -> Result {
    let count = CountFs::new(disk());
    let fs: Arc<dyn Fs> = Arc::new(count.clone());
    let (store, family) = cold(&fs, Access::Cache, 4 << 20)?;
    let cost = |keys: &[[u8; 8]]| -> Result<(u64, u64)> {
        let before = count.counts();
        check(&store, family, keys)?;
        let since = count.counts().since(&before);
        Ok((since.of(FsOp::WillRead), since.of(FsOp::Read)))
    };
    assert_eq!(cost(&scattered()[..1])?, (0, 1), "one key");
    let two_of_a_block = [key(60), key(61)];
    assert_eq!(cost(&two_of_a_block)?, (0, 1), "one block");
    assert_eq!(cost(&scattered())?, (15, 15), "one is in the cache by now");
    assert_eq!(cost(&scattered())?, (0, 0), "all are");
    let neighbours: Vec<_> = (700..716).map(key).collect();
    let (announced, read) = cost(&neighbours)?;
    assert!(
        announced == 1 && read >= 2,
        "{announced} for {read} adjacent blocks"
    );
    let absent: Vec<_> = (0..16_u64).map(|i| [i as u8, 9, 9, 9, 9, 9, 9, 9]).collect();
    let before = count.counts();
    assert!(
        store
            .multi_get(family, &absent)?
            .into_iter()
            .all(|value| matches!(value, Ok(None)))
    );
    assert_eq!(count.counts().since(&before).of(FsOp::WillRead), 0);
    store.close()
}

#[test]
fn prefetch_leaves_nothing_to_read() -> Result {
    let count = CountFs::new(disk());
    let fs: Arc<dyn Fs> = Arc::new(count.clone());
    let (store, family) = cold(&fs, Access::Cache, 4 << 20)?;
    let before = count.counts();
    store.prefetch(family, &scattered())?;
    let fetched = count.counts();
    assert_eq!(fetched.since(&before).of(FsOp::WillRead), 16);
    assert_eq!(fetched.since(&before).of(FsOp::Read), 16);
    for key in scattered() {
        assert!(store.get(family, &key)?.is_some());
    }
    assert_eq!(count.counts().since(&fetched).of(FsOp::Read), 0);
    store.close()
}

#[test]
fn a_failing_read_is_an_error_and_never_another_answer() -> Result {
    for cache_bytes in [0, 4 << 20] {
        for is_forever in [false, true] {
            let faults = FaultFs::new(disk());
            let fs: Arc<dyn Fs> = Arc::new(faults.clone());
            let (mut met, mut errors) = (0, 0);
            let (store, _) = cold(&fs, Access::Cache, cache_bytes)?;
            store.close()?;
            for nth in 1.. {
                let mut store = Store::open("/store", options(fs.clone(), Access::Cache, cache_bytes))?;
                let family = store.family("f")?;
                store.get(family, &key(1_999))?;
                let plan = FaultPlan::new(Fault::Eio, nth).only(&[FsOp::Read]);
                faults.arm(if is_forever { plan.forever() } else { plan });
                let values = store.multi_get(family, &scattered())?;
                for (key, value) in scattered().iter().zip(values) {
                    match value {
                        Ok(value) => assert_eq!(value.as_deref(), Some(&[key[7]; 40][..]), "{nth}"),
                        Err(error) => {
                            assert_eq!(error.code(), keybed_format::Code::IoFailed, "{nth}: {error}");
                            errors += 1;
                        }
                    }
                }
                let triggered = faults.triggered();
                faults.heal();
                check(&store, family, &scattered())?;
                store.close()?;
                if triggered == 0 {
                    break;
                }
                met += 1;
            }
            assert!(met >= 16, "{met} faults");
            // With a cache, a block that could not be fetched ahead is read once more.
            assert_eq!(errors > 0, is_forever || cache_bytes == 0, "{errors} errors");
        }
    }
    Ok(())
}

#[test]
fn mapped_tables_are_read_through_their_maps_alone() -> Result {
    let dir = tempfile::tempdir().unwrap();
    let count = CountFs::new(Arc::new(OsFs));
    let options = || StoreOptions {
        block_bytes: 512,
        fs: Arc::new(count.clone()),
        ..StoreOptions::default()
    };
    let path = dir.path().join("store");
    let mut store = Store::open(&path, options())?;
    let family = store.family("f")?;
    for number in 0..KEYS {
        store.put(family, &key(number), &[number as u8; 40])?;
    }
    store.close()?;
    let mut store = Store::open(&path, options())?;
    let family = store.family("f")?;
    store.get(family, &key(1_999))?;
    let before = count.counts();
    for _ in 0..2 {
        check(&store, family, &scattered())?;
    }
    let since = count.counts().since(&before);
    assert_eq!((since.of(FsOp::Read), since.of(FsOp::WillRead)), (0, 0));
    store.close()
}
