//! The read path: active memtable → sealed memtables → runs, newest first.

use crate::{
    family::Family,
    key::{self, Entry, EntryKind, SEQNO_MAX},
    memtable::{Active, Memtable, Sealed},
    merge_operator::{MergeOperator, fold},
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

impl Value<'_> {
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
    pub(crate) operator: Option<&'a dyn MergeOperator>,
}

impl<'a> Sources<'a> {
    /// The value of a key, looked up with its hash.
    pub(crate) fn get(&self, key: &[u8], hash: u64) -> Result<Option<Value<'a>>> {
        for memtable in self.memtables() {
            if let Some((_, kind, value)) = memtable.get(key, hash) {
                return match kind {
                    EntryKind::Put => Ok(Some(Value(Repr::Borrowed(value)))),
                    EntryKind::Delete => Ok(None),
                    EntryKind::Merge => self.get_merged(key, hash),
                };
            }
        }
        for run in &self.version.runs {
            let Some(table) = run.find(key) else { continue };
            // `find` has looked at the visible range already.
            if let Some(found) = table.view()?.reader.get(key, hash, SEQNO_MAX)? {
                return match found.kind {
                    EntryKind::Put => Ok(Some(Value(Repr::Table(found.value)))),
                    EntryKind::Delete => Ok(None),
                    EntryKind::Merge => self.get_merged(key, hash),
                };
            }
        }
        Ok(None)
    }

    /// Memtables, newest first.
    pub(crate) fn memtables(&self) -> impl Iterator<Item = &'a Memtable> + use<'a> {
        let sealed = self.sealed.iter().map(|sealed| &sealed.memtable);
        self.active
            .into_iter()
            .map(|active| &active.memtable)
            .chain(sealed)
    }

    /// Folds the versions of a key whose newest one is an operand.
    #[cold]
    fn get_merged(&self, key: &[u8], hash: u64) -> Result<Option<Value<'a>>> {
        let mut fold_up = FoldUp {
            operands: Vec::new(),
            base: None,
        };
        let _ = self.versions(key, hash, &mut |entry| fold_up.see(&entry))?;
        let value = fold(self.operator, fold_up.base.as_deref(), &fold_up.operands)?;
        Ok(Some(Value(Repr::Owned(value))))
    }

    /// Shows all versions of a key, newest first, until `each` has seen enough.
    pub(crate) fn versions(
        &self,
        key: &[u8],
        hash: u64,
        each: &mut dyn FnMut(Entry<'_>) -> ControlFlow<()>,
    ) -> Result<ControlFlow<()>> {
        for memtable in self.memtables() {
            let mut place = memtable.get(key, hash).map_or(0, |(place, ..)| place);
            while place != 0 {
                if each(memtable.entry(place)).is_break() {
                    return Ok(ControlFlow::Break(()));
                }
                place = memtable.older(place);
            }
        }
        for run in &self.version.runs {
            if let Some(table) = run.find(key)
                && table.view()?.versions(key, hash, SEQNO_MAX, each)?.is_break()
            {
                return Ok(ControlFlow::Break(()));
            }
        }
        Ok(ControlFlow::Continue(()))
    }
}

/// Operands, newest first, and what they stand on.
struct FoldUp {
    operands: Vec<Vec<u8>>,
    base: Option<Vec<u8>>,
}

impl FoldUp {
    fn see(&mut self, entry: &Entry<'_>) -> ControlFlow<()> {
        match entry.kind {
            EntryKind::Merge => {
                self.operands.push(entry.value.to_vec());
                return ControlFlow::Continue(());
            }
            EntryKind::Put => self.base = Some(entry.value.to_vec()),
            EntryKind::Delete => {}
        }
        ControlFlow::Break(())
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
        match family.active.memtable.get(key, hash) {
            Some((_, EntryKind::Put, value)) => {
                count(&counters.memtable_hits);
                Ok(Some(Value(Repr::Borrowed(value))))
            }
            Some((_, EntryKind::Delete, _)) => {
                count(&counters.memtable_hits);
                Ok(None)
            }
            Some((_, EntryKind::Merge, _)) => family.sources().get_merged(key, hash),
            None => {
                if count_and_sample(&counters.table_gets) {
                    return self.shared.get_sampled(&family.below(), key, hash);
                }
                family.below().get(key, hash)
            }
        }
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
