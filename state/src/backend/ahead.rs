//! Looking a few entries ahead in scattered memory.
//!
//! The keys and values of the heap lie wherever the allocator put them, so the first look at each waits for memory. Looks
//! that nothing depends on wait together: a batch of entries is looked at before the first of them is used.

use keybed_lsm::EntryKind;
use std::{collections::VecDeque, hint::black_box};

/// Entries looked at together; the processor waits for about as many places at once.
const BATCH: usize = 16;

/// Key, kind and value of an entry on the heap.
pub(super) type HeapEntry<'a> = (&'a [u8], EntryKind, &'a [u8]);

/// Hands out what `entries` does, in its order.
pub(super) struct Ahead<'a, I> {
    entries: I,
    batch: VecDeque<HeapEntry<'a>>,
}

impl<'a, I: Iterator<Item = HeapEntry<'a>>> Ahead<'a, I> {
    pub(super) fn new(entries: I) -> Self {
        let batch = VecDeque::with_capacity(BATCH);
        Ahead { entries, batch }
    }
}

impl<'a, I: Iterator<Item = HeapEntry<'a>>> Iterator for Ahead<'a, I> {
    type Item = HeapEntry<'a>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        if self.batch.is_empty() {
            self.batch.extend(self.entries.by_ref().take(BATCH));
            let first = |bytes: &[u8]| bytes.first().copied().unwrap_or(0);
            let looks = self.batch.iter();
            let seen = looks.fold(0, |seen, (key, _, value)| seen ^ first(key) ^ first(value));
            black_box(seen);
        }
        self.batch.pop_front()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_lost_or_moved() {
        for count in [0_usize, 1, BATCH - 1, BATCH, BATCH + 1, 5 * BATCH] {
            let keys: Vec<_> = (0..count).map(usize::to_be_bytes).collect();
            let entries = || {
                keys.iter()
                    .enumerate()
                    .map(|(n, key)| (key.as_slice(), EntryKind::Put, &key[..n % 3]))
            };
            assert!(Ahead::new(entries()).eq(entries()), "{count}");
        }
    }
}
