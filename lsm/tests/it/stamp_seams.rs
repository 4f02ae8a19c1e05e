//! If this fails, a write that was stamped before it had to seal a memtable stands on something else after the flush.

use crate::support::{Chain, disk, simulated};
use keybed_env::{Clock, ManualClock, Random};
use keybed_lsm::{FamilyOptions, Store, StoreOptions, WriteBatch};
use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

/// Goes on by a second whenever somebody looks at it.
#[derive(Debug)]
struct Ticking(AtomicU64, ManualClock);

impl Clock for Ticking {
    fn monotonic(&self) -> Duration {
        self.1.monotonic()
    }

    fn wall_millis(&self) -> u64 {
        1_700_000_000_000 + 1000 * self.0.fetch_add(1, Ordering::Relaxed)
    }
}

#[test]
fn an_operand_stands_on_what_lived_when_it_was_stamped() {
    for seed in 0..40 {
        let mut random = Random::from_seed(seed);
        let options = StoreOptions {
            clock: Arc::new(Ticking(AtomicU64::new(0), ManualClock::new())),
            ..simulated(disk(), seed)
        };
        let mut store = Store::open("s", options).unwrap();
        let ttl = 10 + random.below(40);
        let living = FamilyOptions {
            ttl: Some(Duration::from_secs(ttl)),
            merge: Some(Arc::new(Chain)),
            expired_age_max: Some(Duration::ZERO),
            ..FamilyOptions::default()
        };
        let family = store.family_with("f", living).unwrap();
        for step in 0..600_u64 {
            let key = random.below(12).to_be_bytes().to_vec();
            let more = [step.to_be_bytes().as_slice(), &[b'.'; 150]].concat();
            match random.below(3) {
                0 => store.put(family, &key, &more).unwrap(),
                1 => {
                    let mut batch = WriteBatch::new();
                    batch.merge(family, &key, &more);
                    store.write(&batch).unwrap();
                }
                _ => store.merge(family, &key, &more).unwrap(),
            }
            let found = store.get(family, &key).unwrap();
            let before = found.expect("it was just written").to_vec();
            store.wait_for_background().unwrap();
            if let Some(after) = store.get(family, &key).unwrap() {
                assert_eq!(
                    after.len(),
                    before.len(),
                    "seed {seed}, step {step}, time to live {ttl}"
                );
            }
        }
    }
}
