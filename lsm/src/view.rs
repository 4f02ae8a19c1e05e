//! A `View`: the content of a store at one moment, readable from any thread.

use crate::{
    family::Family,
    floor::Floors,
    key::{self, KeyRange, Seqno},
    memtable::Sealed,
    merge_operator::MergeOperator,
    read::{Sources, Value},
    scan::{Direction, Range},
    store::Store,
    version::Version,
};
use keybed_format::{Error, Result};
use std::{ops::RangeBounds, sync::Arc};

/// The content of a store at the moment the view was taken. It holds the memtables and tables it saw, so old
/// versions need not be kept in new tables; drop it soon, it keeps memory and files. It should not outlive the store:
/// the next owner of the directory may remove files of it that were not opened yet, which are then `TableMissing`.
#[derive(Clone, Debug)]
pub struct View(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    families: Vec<ViewFamily>,
    seqno: Seqno,
}

#[derive(Debug)]
struct ViewFamily {
    name: Arc<str>,
    sealed: Vec<Arc<Sealed>>,
    version: Arc<Version>,
    floors: Option<Arc<Floors>>,
    operator: Option<Arc<dyn MergeOperator>>,
    dropped: bool,
}

impl Store {
    /// Takes a view. Seals the non-empty memtables, so each view costs small tables: take it per snapshot or query,
    /// never per record.
    ///
    /// # Errors
    /// `Closed`, `Poisoned`.
    pub fn view(&mut self) -> Result<View> {
        self.seal_all()?;
        let families = self.families.iter().map(|family| ViewFamily {
            name: family.name.clone(),
            sealed: family.sealed.clone(),
            version: family.version.clone(),
            floors: family.active.memtable.floors().cloned(),
            operator: family.options.merge.clone(),
            dropped: family.dropped,
        });
        Ok(View(Arc::new(Inner {
            families: families.collect(),
            seqno: self.next_seqno,
        })))
    }
}

impl View {
    /// All writes with smaller seqnos are seen, no others.
    pub fn seqno(&self) -> Seqno {
        self.0.seqno
    }

    /// The token of a family, if it existed when the view was taken.
    pub fn family(&self, name: &str) -> Option<Family> {
        let number = self
            .0
            .families
            .iter()
            .position(|family| !family.dropped && &*family.name == name)?;
        Some(Family(number as u32))
    }

    pub(crate) fn sources(&self, family: Family) -> Result<Sources<'_>> {
        match self.0.families.get(family.0 as usize) {
            Some(family) if !family.dropped => Ok(Sources {
                active: None,
                sealed: &family.sealed,
                version: &family.version,
                floors: family.floors.as_deref(),
                operator: family.operator.as_deref(),
            }),
            _ => Err(Error::invalid("the view has no such family")),
        }
    }

    /// The value of `key` then.
    ///
    /// # Errors
    /// As [`Store::get`]; `InvalidArgument` if the family did not exist.
    pub fn get(&self, family: Family, key: &[u8]) -> Result<Option<Value<'_>>> {
        self.sources(family)?.get(key, key::hash(key))
    }

    /// Entries of a range of keys then, ascending.
    ///
    /// # Errors
    /// As [`View::get`].
    pub fn range<'k>(&self, family: Family, range: impl RangeBounds<&'k [u8]>) -> Result<Range<'_>> {
        self.sources(family)?.scan(KeyRange::of(&range), Direction::Up)
    }

    /// As [`View::range`], descending.
    ///
    /// # Errors
    /// As [`View::get`].
    pub fn range_rev<'k>(&self, family: Family, range: impl RangeBounds<&'k [u8]>) -> Result<Range<'_>> {
        self.sources(family)?.scan(KeyRange::of(&range), Direction::Down)
    }

    /// Entries whose keys begin with `prefix` then, ascending.
    ///
    /// # Errors
    /// As [`View::get`].
    pub fn prefix(&self, family: Family, prefix: &[u8]) -> Result<Range<'_>> {
        self.sources(family)?.scan_prefix(prefix, Direction::Up)
    }

    /// Entries whose keys begin with `prefix` then, descending.
    ///
    /// # Errors
    /// As [`View::get`].
    pub fn prefix_rev(&self, family: Family, prefix: &[u8]) -> Result<Range<'_>> {
        self.sources(family)?.scan_prefix(prefix, Direction::Down)
    }
}
