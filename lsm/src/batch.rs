//! Writes that take effect together, and their bytes.
//!
//! ```text
//! batch   operations one after the other, each: tag u8 · family varint · key (varint length, bytes) · body
//!   1 put      value (varint length, bytes)
//!   2 delete
//!   3 merge    operand (varint length, bytes)
//!   4 append   bytes (varint length, bytes)
//!
//!   5 delete range   start (varint length, bytes) · flag u8 [end (varint length, bytes)]      instead of a key
//!   6 raise floor    partition (varint length, bytes) · bound (varint length, bytes)
//!
//!   7 put stamped, 8 merge stamped, 9 append stamped     as 1, 3, 4, with stamp u64 behind the key
//! ```
//! A frame of the log holds the same bytes behind the first seqno, with the family's number in the manifest in the
//! place of its token. Page: docs/format/wal.md.

use crate::{family::Family, key::KeyRange, touch::STAMP_BYTES_MAX};
use keybed_format::{Cursor, Error, Result, Sink, frame};
use std::ops::RangeBounds;

/// Longest batch in bytes: what a frame of the log can hold.
pub const BATCH_BYTES_MAX: usize = frame::PAYLOAD_BYTES_MAX as usize - SEQNO_BYTES;

/// Bytes of the first seqno before the operations of a frame.
pub(crate) const SEQNO_BYTES: usize = 8;

const PUT: u8 = 1;
const DELETE: u8 = 2;
const MERGE: u8 = 3;
const APPEND: u8 = 4;
const DELETE_RANGE: u8 = 5;
const RAISE_FLOOR: u8 = 6;
const PUT_STAMPED: u8 = 7;
const MERGE_STAMPED: u8 = 8;
const APPEND_STAMPED: u8 = 9;

/// Writes to any number of families that [`Store::write`](crate::Store::write) applies all or not at all, in their
/// order. Building one checks nothing; sizes and families are checked when it is written.
///
/// A whole family is emptied by `delete_range(family, ..)`: [`Store::clear`](crate::Store::clear) is cheaper, but takes
/// effect in the manifest, where it cannot be one thing with the writes around it.
///
/// ```
/// # fn main() -> keybed_format::Result {
/// # let dir = tempfile::tempdir().unwrap();
/// # use keybed_lsm::{Store, StoreOptions, WriteBatch};
/// let mut store = Store::open(dir.path().join("s"), StoreOptions::default())?;
/// let (orders, by_user) = (store.family("orders")?, store.family("by-user")?);
/// let mut batch = WriteBatch::new();
/// batch.put(orders, b"o-1", b"42").put(by_user, b"ann/o-1", b"").delete(orders, b"o-0");
/// store.write(&batch)?;
/// assert_eq!(store.get(orders, b"o-1")?.unwrap(), b"42");
/// # Ok(()) }
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WriteBatch {
    bytes: Sink,
    len: usize,
    /// Some operation says when it touches its key.
    is_stamped: bool,
}

/// One operation of a batch; `family` is a token's number in memory and a family's number in a log. The stamp, in
/// milliseconds since 1970, is that of a family whose entries expire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Op<'a> {
    /// The key gets the value.
    Put {
        family: u32,
        key: &'a [u8],
        stamp: Option<u64>,
        value: &'a [u8],
    },
    /// The key goes.
    Delete { family: u32, key: &'a [u8] },
    /// The family's operator applies the operand.
    Merge {
        family: u32,
        key: &'a [u8],
        stamp: Option<u64>,
        operand: &'a [u8],
    },
    /// The bytes go behind the value.
    Append {
        family: u32,
        key: &'a [u8],
        stamp: Option<u64>,
        bytes: &'a [u8],
    },
    /// The keys from `start` to before `end` go; without an end all from `start` on.
    DeleteRange {
        family: u32,
        start: &'a [u8],
        end: Option<&'a [u8]>,
    },
    /// Everything of the partition below the bound goes.
    RaiseFloor {
        family: u32,
        partition: &'a [u8],
        bound: &'a [u8],
    },
}

impl<'a> Op<'a> {
    /// The family it writes to.
    pub(crate) fn family(&self) -> u32 {
        let (Op::Put { family, .. }
        | Op::Delete { family, .. }
        | Op::Merge { family, .. }
        | Op::Append { family, .. }
        | Op::DeleteRange { family, .. }
        | Op::RaiseFloor { family, .. }) = self;
        *family
    }

    /// The same operation in another family.
    pub(crate) fn with_family(mut self, other: u32) -> Self {
        let (Op::Put { family, .. }
        | Op::Delete { family, .. }
        | Op::Merge { family, .. }
        | Op::Append { family, .. }
        | Op::DeleteRange { family, .. }
        | Op::RaiseFloor { family, .. }) = &mut self;
        *family = other;
        self
    }

    /// When it touches its key, if that was said.
    pub(crate) fn stamp(&self) -> Option<u64> {
        match self {
            Op::Put { stamp, .. } | Op::Merge { stamp, .. } | Op::Append { stamp, .. } => *stamp,
            Op::Delete { .. } | Op::DeleteRange { .. } | Op::RaiseFloor { .. } => None,
        }
    }

    /// The same operation with another stamp, if it is one that has stamps.
    pub(crate) fn with_stamp(mut self, other: Option<u64>) -> Self {
        if let Op::Put { stamp, .. } | Op::Merge { stamp, .. } | Op::Append { stamp, .. } = &mut self {
            *stamp = other;
        }
        self
    }

    /// Bytes of key and value, stamps included.
    pub(crate) fn bytes(&self) -> usize {
        let stamps = self.stamp().map_or(0, |_| STAMP_BYTES_MAX);
        stamps
            + match self {
                Op::Put { key, value: more, .. }
                | Op::Merge {
                    key, operand: more, ..
                }
                | Op::Append { key, bytes: more, .. } => key.len() + more.len(),
                Op::Delete { key, .. } => key.len(),
                Op::DeleteRange { .. } | Op::RaiseFloor { .. } => 0,
            }
    }

    /// Writes the operation behind `out`, with `family` in the place of its own.
    #[inline]
    pub(crate) fn encode(&self, family: u32, out: &mut Sink) {
        let (tag, key, body) = match self {
            Op::Put { key, value, .. } => (PUT, *key, Some(*value)),
            Op::Delete { key, .. } => (DELETE, *key, None),
            Op::Merge { key, operand, .. } => (MERGE, *key, Some(*operand)),
            Op::Append { key, bytes, .. } => (APPEND, *key, Some(*bytes)),
            Op::DeleteRange { start, end, .. } => {
                out.u8(DELETE_RANGE)
                    .varint(u64::from(family))
                    .bytes(start)
                    .bool(end.is_some());
                if let Some(end) = end {
                    out.bytes(end);
                }
                return;
            }
            Op::RaiseFloor { partition, bound, .. } => (RAISE_FLOOR, *partition, Some(*bound)),
        };
        let stamp = self.stamp();
        let tag = match (tag, stamp) {
            (_, None) => tag,
            (PUT, _) => PUT_STAMPED,
            (MERGE, _) => MERGE_STAMPED,
            _ => APPEND_STAMPED,
        };
        out.u8(tag).varint(u64::from(family)).bytes(key);
        if let Some(stamp) = stamp {
            out.u64(stamp);
        }
        if let Some(body) = body {
            out.bytes(body);
        }
    }

    fn decode(c: &mut Cursor<'a>) -> Result<Op<'a>> {
        let tag = c.u8()?;
        let family = c.varint()?;
        let family = u32::try_from(family).map_err(|_| {
            c.malformed("a family's number is too large")
                .with("found", family)
        })?;
        let key = c.bytes()?;
        let stamp = match tag {
            PUT_STAMPED | MERGE_STAMPED | APPEND_STAMPED => Some(c.u64()?),
            _ => None,
        };
        Ok(match tag {
            PUT | PUT_STAMPED => Op::Put {
                family,
                key,
                stamp,
                value: c.bytes()?,
            },
            DELETE => Op::Delete { family, key },
            MERGE | MERGE_STAMPED => Op::Merge {
                family,
                key,
                stamp,
                operand: c.bytes()?,
            },
            APPEND | APPEND_STAMPED => Op::Append {
                family,
                key,
                stamp,
                bytes: c.bytes()?,
            },
            DELETE_RANGE => Op::DeleteRange {
                family,
                start: key,
                end: if c.bool()? { Some(c.bytes()?) } else { None },
            },
            RAISE_FLOOR => Op::RaiseFloor {
                family,
                partition: key,
                bound: c.bytes()?,
            },
            other => return Err(c.malformed("an operation is not known").with("found", other)),
        })
    }
}

/// The operations in the bytes of a batch; after an error it ends.
#[derive(Clone, Debug)]
pub(crate) struct Ops<'a>(Cursor<'a>);

impl<'a> Ops<'a> {
    /// Those in `bytes`, which lie at `base` of their file.
    pub(crate) fn new(bytes: &'a [u8], base: u64) -> Self {
        Ops(Cursor::with_base(bytes, base))
    }
}

impl<'a> Iterator for Ops<'a> {
    type Item = Result<Op<'a>>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let op = Op::decode(&mut self.0);
        if op.is_err() {
            self.0 = Cursor::new(&[]);
        }
        Some(op)
    }
}

impl WriteBatch {
    /// Without operations.
    pub fn new() -> Self {
        Self::default()
    }

    /// Without operations, with room for `bytes` of them.
    pub fn with_capacity(bytes: usize) -> Self {
        WriteBatch {
            bytes: Sink::with_capacity(bytes),
            len: 0,
            is_stamped: false,
        }
    }

    /// Whether some operation says when it touches its key.
    pub(crate) fn is_stamped(&self) -> bool {
        self.is_stamped
    }

    /// The same operations with the stamps that `stamp` gives them.
    pub(crate) fn restamped(&self, stamp: impl Fn(&Op<'_>) -> Option<u64>) -> WriteBatch {
        let mut batch = WriteBatch::with_capacity(self.bytes.len() + 8 * self.len);
        for op in self.ops() {
            batch.push(op.with_stamp(stamp(&op)));
        }
        batch
    }

    pub(crate) fn push(&mut self, op: Op<'_>) -> &mut Self {
        op.encode(op.family(), &mut self.bytes);
        self.len += 1;
        self
    }

    /// Gives `key` a value.
    pub fn put(&mut self, family: Family, key: &[u8], value: &[u8]) -> &mut Self {
        self.push(Op::Put {
            family: family.0,
            key,
            stamp: None,
            value,
        })
    }

    /// Gives `key` a value that was touched last at `stamp`, in milliseconds since 1970: for restores. In a family whose
    /// entries do not expire the stamp says nothing.
    pub fn put_stamped(&mut self, family: Family, key: &[u8], value: &[u8], stamp: u64) -> &mut Self {
        self.is_stamped = true;
        self.push(Op::Put {
            family: family.0,
            key,
            stamp: Some(stamp),
            value,
        })
    }

    /// Removes `key`, whether it is there or not.
    pub fn delete(&mut self, family: Family, key: &[u8]) -> &mut Self {
        self.push(Op::Delete {
            family: family.0,
            key,
        })
    }

    /// Changes the value of `key` by an operand of the family's merge operator.
    pub fn merge(&mut self, family: Family, key: &[u8], operand: &[u8]) -> &mut Self {
        self.push(Op::Merge {
            family: family.0,
            key,
            stamp: None,
            operand,
        })
    }

    /// Adds `bytes` behind the value of `key`; for families without a merge operator, or with
    /// [`Append`](crate::Append).
    pub fn append(&mut self, family: Family, key: &[u8], bytes: &[u8]) -> &mut Self {
        self.push(Op::Append {
            family: family.0,
            key,
            stamp: None,
            bytes,
        })
    }

    /// Removes every key of a range, as [`Store::delete_range`](crate::Store::delete_range); an empty range adds
    /// nothing.
    pub fn delete_range<'k>(&mut self, family: Family, range: impl RangeBounds<&'k [u8]>) -> &mut Self {
        self.delete_keys(family, &KeyRange::of(&range))
    }

    /// Removes every key that begins with `prefix`, as [`Store::delete_prefix`](crate::Store::delete_prefix).
    pub fn delete_prefix(&mut self, family: Family, prefix: &[u8]) -> &mut Self {
        self.delete_keys(family, &KeyRange::prefix(prefix))
    }

    pub(crate) fn delete_keys(&mut self, family: Family, range: &KeyRange) -> &mut Self {
        if range.is_empty() {
            return self;
        }
        self.push(Op::DeleteRange {
            family: family.0,
            start: &range.start,
            end: range.end.as_deref(),
        })
    }

    /// Removes everything of a partition below a bound, as [`Store::raise_floor`](crate::Store::raise_floor); nothing if
    /// the floor lies above `bound` when this operation is applied.
    pub fn raise_floor(&mut self, family: Family, partition: &[u8], bound: &[u8]) -> &mut Self {
        self.push(Op::RaiseFloor {
            family: family.0,
            partition,
            bound,
        })
    }

    /// Operations in the batch; each takes one seqno.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether the batch has no operations.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Bytes of the operations, at most [`BATCH_BYTES_MAX`] for a batch that can be written.
    pub fn bytes(&self) -> usize {
        self.bytes.len()
    }

    /// Removes all operations and keeps the memory.
    pub fn clear(&mut self) {
        self.bytes.clear();
        (self.len, self.is_stamped) = (0, false);
    }

    /// The operations in their order.
    pub(crate) fn ops(&self) -> impl Iterator<Item = Op<'_>> {
        Ops::new(self.bytes.as_slice(), 0).map(|op| op.expect("a batch holds what was put into it"))
    }

    /// Refuses a batch that no frame can hold.
    pub(crate) fn check(&self) -> Result {
        if self.bytes.len() <= BATCH_BYTES_MAX {
            return Ok(());
        }
        Err(Error::invalid("a batch is too long; write it in several parts")
            .expected_found(BATCH_BYTES_MAX, self.bytes.len()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_holds_what_was_put_into_it() {
        let mut batch = WriteBatch::new();
        batch.put(Family(0), b"k", b"v").delete(Family(300), b"");
        batch
            .merge(Family(1), b"m", &[9; 200])
            .append(Family(2), b"a", b"");
        assert_eq!(batch.len(), 4);
        let ops: Vec<_> = batch.ops().collect();
        assert_eq!(
            ops[..2],
            [
                Op::Put {
                    family: 0,
                    key: b"k",
                    stamp: None,
                    value: b"v"
                },
                Op::Delete {
                    family: 300,
                    key: b""
                },
            ]
        );
        assert_eq!((ops[2].family(), ops[3].family()), (1, 2));
        batch.clear();
        assert!(batch.is_empty() && batch.ops().next().is_none());
    }

    #[test]
    fn bytes_that_are_no_batch_are_refused_with_their_offset() {
        let mut batch = WriteBatch::new();
        batch
            .put(Family(0), b"key", b"value")
            .merge(Family(1), b"m", b"o");
        let bytes = batch.bytes.as_slice();
        for length in 1..bytes.len() {
            let whole = Ops::new(&bytes[..length], 100).all(|op| op.is_ok());
            assert_eq!(whole, length == 12, "{length}");
        }
        let error = Ops::new(&[9, 0, 0], 100).next().unwrap().unwrap_err();
        assert_eq!(error.offset(), Some(103));
    }
}
