//! The read path: active memtable → sealed memtables → runs, newest first.

use crate::{
    expiry::{self, Expiry, Fold},
    family::{Family, OwnedFamily},
    floor::Floors,
    key::{self, Entry, EntryKind, SEQNO_MAX, Seqno},
    memtable::{Active, Memtable, Sealed},
    merge_operator::MergeOperator,
    stats::{ReadCounters, count, count_and_sample},
    store::Store,
    table::Slice,
    version::Version,
};
use keybed_format::Result;
use std::{
    fmt,
    ops::{ControlFlow, Deref},
    sync::Arc,
};

/// A value that was read: borrowed from a memtable or a mapped table, kept alive inside a cached block, or owned
/// where operands had to be folded.
#[derive(Clone)]
pub struct Value<'a>(Repr<'a>);

#[derive(Clone)]
enum Repr<'a> {
    Borrowed(&'a [u8]),
    Table(Slice<'a>),
    Owned(Vec<u8>),
}

impl Value<'static> {
    /// Bytes that were made for the reader.
    pub(crate) fn owned(bytes: Vec<u8>) -> Self {
        Value(Repr::Owned(bytes))
    }
}

impl<'a> Value<'a> {
    /// Bytes of the block that it keeps, if it keeps one.
    pub(crate) fn block_bytes(&self) -> Option<usize> {
        match &self.0 {
            Repr::Table(slice) => slice.block_bytes(),
            _ => None,
        }
    }

    /// Without its borrow, if it keeps its block.
    pub(crate) fn into_slice(self) -> std::result::Result<Slice<'static>, Self> {
        match self.0 {
            Repr::Table(slice) => slice.detach().map_err(|slice| Value(Repr::Table(slice))),
            _ => Err(self),
        }
    }
}

impl Value<'_> {
    /// Without its first `bytes`.
    fn skip(self, bytes: usize) -> Self {
        Value(match self.0 {
            Repr::Borrowed(all) => Repr::Borrowed(all.get(bytes..).unwrap_or_default()),
            Repr::Table(slice) => Repr::Table(slice.skip(bytes)),
            Repr::Owned(all) => Repr::Owned(all.get(bytes..).unwrap_or_default().to_vec()),
        })
    }

    /// The value, borrowing nothing.
    pub(crate) fn into_owned(self) -> Value<'static> {
        Value::owned(self.into_vec())
    }

    /// The bytes, copied unless they are owned already.
    pub fn into_vec(self) -> Vec<u8> {
        match self.0 {
            Repr::Owned(bytes) => bytes,
            other => Value(other).to_vec(),
        }
    }
}

impl Deref for Value<'_> {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        match &self.0 {
            Repr::Borrowed(bytes) => bytes,
            Repr::Table(slice) => slice,
            Repr::Owned(bytes) => bytes,
        }
    }
}

impl AsRef<[u8]> for Value<'_> {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl fmt::Debug for Value<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&**self, f)
    }
}

impl<T: AsRef<[u8]> + ?Sized> PartialEq<T> for Value<'_> {
    fn eq(&self, other: &T) -> bool {
        **self == *other.as_ref()
    }
}

/// Everything that holds a family's content, newest first.
#[derive(Clone, Copy)]
pub(crate) struct Sources<'a> {
    pub(crate) active: Option<&'a Active>,
    pub(crate) sealed: &'a [Arc<Sealed>],
    pub(crate) version: &'a Version,
    /// The floors that hold for this reader.
    pub(crate) floors: Option<&'a Floors>,
    pub(crate) operator: Option<&'a dyn MergeOperator>,
    /// What has expired for this reader.
    pub(crate) expiry: Expiry,
}

impl<'a> Sources<'a> {
    /// The value of a key, looked up with its hash.
    pub(crate) fn get(&self, key: &[u8], hash: u64) -> Result<Option<Value<'a>>> {
        match self.newest(key, hash)? {
            Some((kind, value)) => self.seen(kind, value, key, hash),
            None => Ok(None),
        }
    }

    /// The newest version of a key as it lies there; where a range delete or a floor hides everything, a deleted one or
    /// none.
    #[inline(always)]
    pub(crate) fn newest(&self, key: &[u8], hash: u64) -> Result<Option<(EntryKind, Value<'a>)>> {
        if self.is_covered() {
            return self.newest_covered(key, hash);
        }
        for memtable in self.memtables() {
            if let Some((_, kind, value)) = memtable.get(key, hash) {
                return Ok(Some((kind, Value(Repr::Borrowed(value)))));
            }
        }
        for run in &self.version.runs {
            let Some(table) = run.find(key) else { continue };
            // `find` has looked at the visible range already.
            if let Some(found) = table.view()?.reader.get(key, hash, SEQNO_MAX)? {
                return Ok(Some((found.kind, Value(Repr::Table(found.value)))));
            }
        }
        Ok(None)
    }

    /// What a reader sees of a key with this newest version.
    #[inline(always)]
    pub(crate) fn seen(
        &self,
        kind: EntryKind,
        value: Value<'a>,
        key: &[u8],
        hash: u64,
    ) -> Result<Option<Value<'a>>> {
        match kind {
            EntryKind::Put if self.expiry.is_off() => Ok(Some(value)),
            EntryKind::Delete => Ok(None),
            EntryKind::Put | EntryKind::PutStamped => {
                let is_gone = self.expiry.is_gone(kind, &value);
                Ok((!is_gone).then(|| value.skip(kind.stamp_bytes())))
            }
            EntryKind::Merge | EntryKind::MergeStamped => {
                Ok(self.get_folded(key, hash)?.map(|(value, _)| value))
            }
        }
    }

    /// The value of a key, and when it was touched last.
    pub(crate) fn get_stamped(&self, key: &[u8], hash: u64) -> Result<Option<(Value<'a>, u64)>> {
        let Some((kind, value)) = self.newest(key, hash)? else {
            return Ok(None);
        };
        if kind.is_merge() {
            return self.get_folded(key, hash);
        }
        let stamp = expiry::stamps(kind, &value, self.expiry.since).touched;
        Ok(self.seen(kind, value, key, hash)?.map(|value| (value, stamp)))
    }

    /// The same, for a reader at another moment.
    pub(crate) fn at(self, now: u64) -> Self {
        let expiry = Expiry { now, ..self.expiry };
        Sources { expiry, ..self }
    }

    /// Whether tables hold range deletes, or there are floors. Memtables look for their own range deletes.
    #[inline]
    pub(crate) fn is_covered(&self) -> bool {
        self.version.has_range_deletes || self.floors.is_some()
    }

    /// Whether a scan has to look for range deletes or floors.
    pub(crate) fn hides(&self) -> bool {
        self.is_covered() || self.memtables().any(|memtable| memtable.covers().is_some())
    }

    /// [`Sources::newest`] beside range deletes or floors: what covers a key in a source ends the search there.
    #[inline(never)]
    fn newest_covered(&self, key: &[u8], hash: u64) -> Result<Option<(EntryKind, Value<'a>)>> {
        let floor = self.floor(key);
        for memtable in self.memtables() {
            if let Some((place, kind, value)) = memtable.get(key, hash) {
                let is_hidden = kind != EntryKind::Delete && memtable.entry(place).seqno < floor;
                return Ok((!is_hidden).then_some((kind, Value(Repr::Borrowed(value)))));
            }
        }
        for run in &self.version.runs {
            let Some(table) = run.find(key) else { continue };
            let covering = table.covering(key)?;
            let below = covering.unwrap_or(0).max(floor);
            match table.view()?.reader.get(key, hash, SEQNO_MAX)? {
                Some(found) if found.seqno < below => return Ok(None),
                Some(found) => return Ok(Some((found.kind, Value(Repr::Table(found.value))))),
                None if covering.is_some() => return Ok(None),
                None => {}
            }
        }
        Ok(None)
    }

    /// The seqno below which versions of `key` lie below a floor.
    pub(crate) fn floor(&self, key: &[u8]) -> Seqno {
        self.floors.and_then(|floors| floors.covering(key)).unwrap_or(0)
    }

    /// Memtables, newest first.
    pub(crate) fn memtables(&self) -> impl Iterator<Item = &'a Memtable> + use<'a> {
        let sealed = self.sealed.iter().map(|sealed| &sealed.memtable);
        self.active
            .into_iter()
            .map(|active| &active.memtable)
            .chain(sealed)
    }

    /// Folds the versions of a key whose newest one is an operand; says when it was touched last.
    #[cold]
    fn get_folded(&self, key: &[u8], hash: u64) -> Result<Option<(Value<'a>, u64)>> {
        let mut fold = Fold::new(self.expiry);
        let _ = self.versions(key, hash, &mut |entry| fold.see(&entry))?;
        let folded = fold.value(self.operator)?;
        Ok(folded.map(|(value, stamp)| (Value(Repr::Owned(value)), stamp)))
    }

    /// Shows all versions of a key, newest first, until `each` has seen enough. Where a range delete or a floor hides
    /// what is older, a deleted version is shown, and nothing after it.
    pub(crate) fn versions(
        &self,
        key: &[u8],
        hash: u64,
        each: &mut dyn FnMut(Entry<'_>) -> ControlFlow<()>,
    ) -> Result<ControlFlow<()>> {
        let floor = self.floor(key);
        for memtable in self.memtables() {
            if memtable.versions(key, hash, floor, each).is_break() {
                return Ok(ControlFlow::Break(()));
            }
        }
        for run in &self.version.runs {
            let Some(table) = run.find(key) else { continue };
            let covering = table.covering(key)?;
            let below = covering.unwrap_or(0).max(floor);
            let gone = Entry {
                key,
                seqno: below,
                kind: EntryKind::Delete,
                value: &[],
            };
            let mut see = |entry: Entry<'_>| each(if entry.seqno < below { gone } else { entry });
            let seen = table.view()?.versions(key, hash, SEQNO_MAX, &mut see)?;
            if seen.is_break() || (covering.is_some() && see(gone).is_break()) {
                return Ok(ControlFlow::Break(()));
            }
        }
        Ok(ControlFlow::Continue(()))
    }
}

impl OwnedFamily {
    /// The value of a key in a family whose entries expire.
    #[inline(never)]
    fn get_living(&self, key: &[u8], hash: u64, counters: &ReadCounters) -> Result<Option<Value<'_>>> {
        let sources = self.sources();
        match self.active.memtable.get(key, hash) {
            Some((_, kind, value)) => {
                count(&counters.memtable_hits);
                sources.seen(kind, Value(Repr::Borrowed(value)), key, hash)
            }
            None => {
                count(&counters.table_gets);
                let below = Sources {
                    active: None,
                    ..sources
                };
                below.get(key, hash)
            }
        }
    }
}

impl Store {
    /// The value of `key`; `None` if it is absent.
    ///
    /// # Errors
    /// `TableCorrupt` with file and offset; `MergeFailed` if an operator refuses; errors of the file system.
    ///
    /// ```
    /// # fn main() -> keybed_format::Result {
    /// # let dir = tempfile::tempdir().unwrap();
    /// let mut store = keybed_lsm::Store::open(dir.path().join("s"), keybed_lsm::StoreOptions::default())?;
    /// let orders = store.family("orders")?;
    /// store.put(orders, b"o-1", b"42")?;
    /// assert_eq!(store.get(orders, b"o-1")?.unwrap(), b"42");
    /// assert!(store.get(orders, b"o-2")?.is_none());
    /// # Ok(()) }
    /// ```
    #[inline]
    pub fn get(&self, family: Family, key: &[u8]) -> Result<Option<Value<'_>>> {
        self.get_counted(family, key, &self.shared.owner_counters.reads)
    }

    /// As [`Store::get`], with counters of whoever reads.
    #[inline(always)]
    pub(crate) fn get_counted(
        &self,
        family: Family,
        key: &[u8],
        counters: &ReadCounters,
    ) -> Result<Option<Value<'_>>> {
        let family = self.owned(family)?;
        let hash = key::hash(key);
        if family.lifetime.is_some() {
            return family.get_living(key, hash, counters);
        }
        match family.active.memtable.get(key, hash) {
            Some((_, EntryKind::Put, value)) => {
                count(&counters.memtable_hits);
                Ok(Some(Value(Repr::Borrowed(value))))
            }
            Some((_, EntryKind::Delete, _)) => {
                count(&counters.memtable_hits);
                Ok(None)
            }
            Some((_, kind, value)) => {
                let sources = family.sources();
                sources.seen(kind, Value(Repr::Borrowed(value)), key, hash)
            }
            None => {
                if count_and_sample(&counters.table_gets) {
                    return self.shared.get_sampled(&family.below(), key, hash);
                }
                family.below().get(key, hash)
            }
        }
    }

    /// As [`Store::get`], and when the value was touched last, in milliseconds since 1970: by a write, or by
    /// [`Store::touch`]. A value without a stamp counts from the moment when the entries of its family began to expire;
    /// in a family whose entries do not, from 0.
    ///
    /// # Errors
    /// As [`Store::get`].
    ///
    /// ```
    /// # fn main() -> keybed_format::Result {
    /// # let dir = tempfile::tempdir().unwrap();
    /// # use keybed_lsm::{FamilyOptions, Store, StoreOptions};
    /// # use std::time::Duration;
    /// let mut store = Store::open(dir.path().join("s"), StoreOptions::default())?;
    /// let hour = Some(Duration::from_secs(3600));
    /// let sessions = store.family_with("sessions", FamilyOptions { ttl: hour, ..FamilyOptions::default() })?;
    /// store.put(sessions, b"ann", b"42")?;
    /// let (value, touched) = store.get_stamped(sessions, b"ann")?.unwrap();
    /// assert_eq!(value, b"42");
    /// assert!(touched > 0);
    /// # Ok(()) }
    /// ```
    pub fn get_stamped(&self, family: Family, key: &[u8]) -> Result<Option<(Value<'_>, u64)>> {
        count(&self.shared.owner_counters.reads.table_gets);
        self.owned(family)?.sources().get_stamped(key, key::hash(key))
    }

    /// Shows the value of `key` to `see`; `None` if it is absent.
    ///
    /// # Errors
    /// As [`Store::get`].
    #[inline]
    pub fn get_with<R>(&self, family: Family, key: &[u8], see: impl FnOnce(&[u8]) -> R) -> Result<Option<R>> {
        Ok(self.get(family, key)?.map(|value| see(&value)))
    }

    /// Whether `key` has a value.
    ///
    /// # Errors
    /// As [`Store::get`].
    pub fn contains(&self, family: Family, key: &[u8]) -> Result<bool> {
        Ok(self.get(family, key)?.is_some())
    }
}
