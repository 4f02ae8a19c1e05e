//! User code that decides about entries while they are written to new tables.

use std::fmt::Debug;

/// What a [`CompactionFilter`] makes of an entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It stays as it is.
    Keep,
    /// It goes, as if it had been deleted when it was written.
    Remove,
    /// This becomes its value, as if it had been written so; at most 64 MiB.
    Change(Vec<u8>),
}

/// Decides about the newest value of each key that a merge writes to a new table. For what is due to go
/// after a while, or to be rewritten bit by bit.
///
/// It runs on background threads, at any time or never: an entry is seen at every merge it takes
/// part in, and readers see it until then. A [`View`](crate::View), a [`Cursor`](crate::Cursor) and
/// [`PinnedFiles`](crate::PinnedFiles) taken before keep what they saw. Operands that no value was found for yet are
/// passed over. What it removes or changes has no seqno of its own; a [`Transaction`](crate::Transaction) that read the
/// value before notices it by the value, and fails. Nothing of it is recorded with the family: whoever opens the store gives it again.
/// [`Store::compact_range`](crate::Store::compact_range) shows it all entries of a range.
///
/// ```
/// # fn main() -> keybed_format::Result {
/// # let dir = tempfile::tempdir().unwrap();
/// use keybed_lsm::{CompactionFilter, FamilyOptions, Store, StoreOptions, Verdict};
/// use std::sync::Arc;
///
/// /// Values begin with the second after which they are of no use, as a little-endian `u64`.
/// #[derive(Debug)]
/// struct Expire;
///
/// impl CompactionFilter for Expire {
///     fn filter(&self, _key: &[u8], value: &[u8], now_millis: u64) -> Verdict {
///         match value.first_chunk() {
///             Some(until) if u64::from_le_bytes(*until) * 1000 <= now_millis => Verdict::Remove,
///             _ => Verdict::Keep,
///         }
///     }
/// }
///
/// let mut store = Store::open(dir.path().join("s"), StoreOptions::default())?;
/// let options = FamilyOptions { filter: Some(Arc::new(Expire)), ..FamilyOptions::default() };
/// let sessions = store.family_with("sessions", options)?;
/// store.put(sessions, b"long ago", &1_u64.to_le_bytes())?;
/// store.put(sessions, b"for ever", &(1_u64 << 40).to_le_bytes())?;
/// store.compact(sessions)?;
/// assert!(store.get(sessions, b"long ago")?.is_none());
/// assert!(store.get(sessions, b"for ever")?.is_some());
/// # Ok(()) }
/// ```
pub trait CompactionFilter: Send + Sync + Debug + 'static {
    /// Decides about an entry. `now_millis` is the time of the store's clock when the merge began, in milliseconds
    /// since 1970. A panic fails the merge.
    fn filter(&self, key: &[u8], value: &[u8], now_millis: u64) -> Verdict;

    /// As [`filter`](Self::filter), which it calls unless it is written anew, with the time at which the entry was
    /// touched last, in milliseconds since 1970; none in a family whose entries do not expire. What has expired is not
    /// shown. A changed value keeps its stamp.
    fn filter_stamped(&self, key: &[u8], value: &[u8], stamp: Option<u64>, now_millis: u64) -> Verdict {
        let _ = stamp;
        self.filter(key, value, now_millis)
    }
}
