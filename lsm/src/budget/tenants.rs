//! The stores of a budget, and which of them shall flush when memory runs out.

use crate::sync::Mutex;
use std::sync::{Arc, Weak};

/// What a store says about its memtables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TenantFacts {
    /// Bytes that a flush would free.
    pub(crate) bytes: usize,
    /// Writes since memory ran out last.
    pub(crate) writes: u64,
    /// It was asked already and has not flushed yet.
    pub(crate) asked: bool,
}

/// A store, as its budget sees it.
pub(crate) trait Tenant: Send + Sync {
    /// What a flush would bring, and what it would cost.
    fn facts(&self) -> TenantFacts;
    /// Asks the owner to flush; he sees it before his next write.
    fn ask(&self);
    /// It is closed.
    fn has_left(&self) -> bool;
    /// Memory runs out: a new period of counting writes begins.
    fn begin_period(&self);
}

/// The stores of one budget.
#[derive(Default)]
pub(crate) struct Tenants {
    /// Guards the list; a tenant is asked for its facts under it, which takes no further lock.
    list: Mutex<Vec<Weak<dyn Tenant>>>,
}

/// Whom to ask: most bytes per write that the memtable would have absorbed. An idle store with a large memtable goes
/// first; one that is written to all the time would be back at once.
fn choose(facts: &[TenantFacts]) -> Option<usize> {
    let score = |facts: &TenantFacts| facts.bytes as u128 * 1024 / (u128::from(facts.writes) + 1);
    (0..facts.len())
        .filter(|&at| !facts[at].asked && facts[at].bytes > 0)
        .max_by_key(|&at| score(&facts[at]))
}

impl Tenants {
    /// Adds a store.
    pub(crate) fn add(&self, tenant: Weak<dyn Tenant>) {
        self.list.lock().push(tenant);
    }

    /// Stores that are open; the others are forgotten.
    fn open(&self) -> Vec<Arc<dyn Tenant>> {
        let mut open = Vec::new();
        self.list.lock().retain(|tenant| {
            open.extend(tenant.upgrade().filter(|tenant| !tenant.has_left()));
            open.last()
                .is_some_and(|last| std::ptr::addr_eq(Arc::as_ptr(last), tenant.as_ptr()))
        });
        open
    }

    /// How many stores are open.
    pub(crate) fn count(&self) -> usize {
        self.open().len()
    }

    /// Asks the store whose flush brings most to flush; false if there is none that was not asked yet.
    pub(crate) fn press(&self) -> bool {
        let tenants = self.open();
        let facts: Vec<TenantFacts> = tenants.iter().map(|tenant| tenant.facts()).collect();
        let Some(chosen) = choose(&facts) else {
            return false;
        };
        tenants.iter().for_each(|tenant| tenant.begin_period());
        tenants[chosen].ask();
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOBODY: TenantFacts = TenantFacts {
        bytes: 0,
        writes: 0,
        asked: false,
    };

    #[test]
    fn the_largest_idle_store_goes_first_and_nobody_is_asked_twice() {
        let idle_small = TenantFacts { bytes: 100, ..NOBODY };
        let idle_large = TenantFacts { bytes: 900, ..NOBODY };
        let busy = TenantFacts {
            bytes: 5_000,
            writes: 1_000,
            asked: false,
        };
        assert_eq!(choose(&[NOBODY, idle_small, busy, idle_large]), Some(3));
        assert_eq!(
            choose(&[
                NOBODY,
                busy,
                TenantFacts {
                    asked: true,
                    ..idle_large
                }
            ]),
            Some(1)
        );
        assert_eq!(
            choose(&[
                NOBODY,
                TenantFacts {
                    asked: true,
                    ..idle_large
                }
            ]),
            None
        );
        assert_eq!(choose(&[]), None);
    }
}
