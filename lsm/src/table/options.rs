//! What a table is built with, and what is known about it once it is built.

use crate::{
    expiry,
    key::{Entry, EntryKind, KeyRange, SEQNO_MAX, Seqno, TableId},
    range_delete::RangeDeletes,
};

/// How blocks are compressed when a table is built.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Compression {
    /// Not at all: fastest reads, values can be borrowed from the memory map.
    #[default]
    None,
    /// LZ4, always available, pure Rust.
    Lz4,
    /// zstd of this level, −7 to 22; needs the feature `zstd`.
    Zstd(i32),
}

/// Options of a new table.
#[derive(Clone, Debug)]
pub struct TableOptions {
    /// Target of a block before compression, in bytes, 512 to 1 MiB; default 16 KiB. All versions of a key share a
    /// block, so a block can exceed it.
    pub block_bytes: usize,
    /// Compression of blocks; default none.
    pub compression: Compression,
    /// Whether a filter is written (9 bits per key; about 0.4 % false positives); default yes.
    pub filter: bool,
    /// Bytes of a key that name its partition, 0 to 8; default 0 = no partitions. Recorded, not interpreted.
    pub partition_prefix: u8,
    /// First bytes of a key for the prefix filter, 0 to 65,535; default 0 = none. With one, a scan of a prefix of at
    /// least this many bytes passes over tables without it, for about 9 bits per distinct prefix. A shorter
    /// key has no such prefix.
    pub filter_prefix: u16,
}

impl Default for TableOptions {
    fn default() -> Self {
        TableOptions {
            block_bytes: 16 << 10,
            compression: Compression::None,
            filter: true,
            partition_prefix: 0,
            filter_prefix: 0,
        }
    }
}

/// Facts about a finished table; what a version edit records.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableFacts {
    /// Names the content.
    pub id: TableId,
    /// Bytes of the whole file.
    pub bytes: u64,
    /// Digest over every byte, from the trailer.
    pub digest: u64,
    /// Versions in the table, at least 1.
    pub entries: u64,
    /// Distinct keys.
    pub keys: u64,
    /// Versions of kind delete.
    pub tombstones: u64,
    /// Versions of kind merge.
    pub merges: u64,
    /// First key of an entry.
    pub smallest: Vec<u8>,
    /// Last key of an entry.
    pub largest: Vec<u8>,
    /// Oldest seqno of a version or range delete.
    pub seqno_min: Seqno,
    /// Newest seqno of a version or range delete.
    pub seqno_max: Seqno,
    /// Bytes of all keys, before any encoding.
    pub key_bytes: u64,
    /// Bytes of all values, before any encoding.
    pub value_bytes: u64,
    /// Blocks.
    pub blocks: u64,
    /// Bytes of a key that name its partition.
    pub partition_prefix: u8,
    /// First bytes of a key under which the prefix filter files it; 0 without a prefix filter.
    pub filter_prefix: u16,
    /// When the keys were touched last, oldest and newest; of stamped ones alone, `None` without any. The newest
    /// version of a key tells, and deleted ones do not count.
    pub touched: Option<(u64, u64)>,
    /// Versions without a stamp that are operands, or values and the newest of their key; counted only if some other
    /// version is stamped.
    pub unstamped: u64,
    /// The oldest first touch of a stamped operand; `None` without any.
    pub first_touched: Option<u64>,
    /// Fragments of range deletes.
    pub range_deletes: u64,
    /// The least range that these lie in; `None` without.
    pub deleted: Option<KeyRange>,
}

impl TableFacts {
    /// A table of which nothing is known yet, `seqno_min` being above and `seqno_max` below all others.
    pub fn new(id: TableId) -> TableFacts {
        TableFacts {
            id,
            bytes: 0,
            digest: 0,
            entries: 0,
            keys: 0,
            tombstones: 0,
            merges: 0,
            smallest: Vec::new(),
            largest: Vec::new(),
            seqno_min: SEQNO_MAX,
            seqno_max: 0,
            key_bytes: 0,
            value_bytes: 0,
            blocks: 0,
            partition_prefix: 0,
            filter_prefix: 0,
            touched: None,
            unstamped: 0,
            first_touched: None,
            range_deletes: 0,
            deleted: None,
        }
    }

    /// Takes note of the range deletes.
    pub(super) fn count_range_deletes(&mut self, deletes: &RangeDeletes) {
        self.range_deletes = deletes.len() as u64;
        self.deleted = deletes.extent();
        for fragment in deletes.iter() {
            self.seqno_min = self.seqno_min.min(fragment.seqno);
            self.seqno_max = self.seqno_max.max(fragment.seqno);
        }
    }

    /// The least range that the entries and the range deletes lie in: what a reader must ask this table about.
    pub fn range(&self) -> KeyRange {
        let entries = KeyRange {
            start: self.smallest.clone(),
            end: Some([&self.largest[..], &[0]].concat()),
        };
        let Some(deleted) = &self.deleted else {
            return entries;
        };
        let end = entries.end.zip(deleted.end.as_ref());
        KeyRange {
            start: entries.start.min(deleted.start.clone()),
            end: end.map(|(a, b)| a.max(b.clone())),
        }
    }

    /// Takes note of one more version, the newest of its key or an older one; keys come in order.
    pub(super) fn count(&mut self, entry: Entry<'_>, is_newest: bool) {
        self.count_stamps(entry, is_newest);
        if self.entries == 0 {
            self.smallest = entry.key.to_vec();
        }
        self.entries += 1;
        self.tombstones += u64::from(entry.kind == EntryKind::Delete);
        self.merges += u64::from(entry.kind.is_merge());
        self.seqno_min = self.seqno_min.min(entry.seqno);
        self.seqno_max = self.seqno_max.max(entry.seqno);
        self.key_bytes += entry.key.len() as u64;
        self.value_bytes += entry.value.len() as u64;
    }

    fn count_stamps(&mut self, entry: Entry<'_>, is_newest: bool) {
        if entry.kind.stamp_bytes() == 0 {
            let counts = is_newest || entry.kind.is_merge();
            self.unstamped += u64::from(counts && entry.kind != EntryKind::Delete);
            return;
        }
        let stamps = expiry::stamps(entry.kind, entry.value, 0);
        if is_newest {
            let (oldest, newest) = self.touched.unwrap_or((u64::MAX, 0));
            self.touched = Some((oldest.min(stamps.touched), newest.max(stamps.touched)));
        }
        if entry.kind.is_merge() {
            self.first_touched = Some(
                self.first_touched
                    .map_or(stamps.first, |first| first.min(stamps.first)),
            );
        }
    }

    /// Whether some version is stamped.
    pub(crate) fn has_stamps(&self) -> bool {
        self.touched.is_some() || self.first_touched.is_some()
    }

    /// All versions were counted.
    pub(super) fn end_count(&mut self) {
        if !self.has_stamps() {
            self.unstamped = 0;
        }
    }

    /// Whether some key that is not deleted may have no stamp.
    pub(crate) fn has_unstamped(&self) -> bool {
        self.unstamped > 0 || (!self.has_stamps() && self.keys > self.tombstones)
    }

    /// When the keys were touched last, oldest and newest, if those without a stamp were at `since`; `None` if there
    /// are only deleted ones.
    pub(crate) fn touched_since(&self, since: u64) -> Option<(u64, u64)> {
        match self.touched {
            Some((oldest, newest)) if self.has_unstamped() => Some((oldest.min(since), newest.max(since))),
            None if self.has_unstamped() => Some((since, since)),
            touched => touched,
        }
    }

    /// When the operands were first touched, at the earliest, if those without a stamp were at `since`; `None` without
    /// any.
    pub(crate) fn first_touched_since(&self, since: u64) -> Option<u64> {
        let since = self.has_unstamped().then_some(since);
        let first = self.first_touched.into_iter().chain(since).min();
        first.filter(|_| self.merges > 0)
    }

    /// First and last partition of the table; `None` without partitions. A key shorter than the prefix is its own
    /// partition.
    pub fn partitions(&self) -> Option<(&[u8], &[u8])> {
        fn cut(key: &[u8], prefix: u8) -> &[u8] {
            key.get(..usize::from(prefix)).unwrap_or(key)
        }
        (self.partition_prefix > 0).then(|| {
            (
                cut(&self.smallest, self.partition_prefix),
                cut(&self.largest, self.partition_prefix),
            )
        })
    }
}
