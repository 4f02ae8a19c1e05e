//! A version edit: how the set of tables changes, and its bytes.
//!
//! ```text
//! edit    count of changes (varint), then each change: tag u8, body
//!   1 create family   id u32 · name text · merge operator flag u8 [text] · memtable u8 · partition u8 · cut u8
//!                     · prefix u16 · bottom filter u8
//!   2 drop family     id u32
//!   3 add table       family u32 · run u64 · tier u8 · origin u8 · table id u128 · bytes u64 · digest u64
//!                     · seqno base u64 · properties (bytes, as in the table's section)
//!                     · visible start (bytes) · visible end flag u8 [bytes]
//!   4 remove table    family u32 · run u64 · table id u128 · visible start (bytes)
//!   5 next seqno      u64
//!   6 flushed         family u32 · seqno u64
//!   7 log floor       number u64
//!   8 log durable     number u64
//!   9 log synced      seqno u64
//!  10 raise floor     family u32 · partition (bytes) · bound (bytes) · seqno u64
//!  11 clear family    family u32 · seqno u64
//!  12 next family     u32
//!  13 not durable     flag u8
//!  14 expire          family u32 · flag u8 [time to live u64 · since u64], milliseconds
//!  15 time            milliseconds since 1970 u64
//! ```
//! Page: docs/format/manifest.md.

use crate::{
    expiry::TtlRecord,
    floor::Floor,
    key::{KEY_BYTES_MAX, KeyRange, SEQNO_MAX, Seqno, TableId},
    memtable::{MemtableKind, PrefixRule},
    table::{TableFacts, inside},
};
use keybed_format::{Cursor, Result, Sink};
use std::sync::Arc;

/// Longest name of a family or operator, in bytes.
pub const NAME_BYTES_MAX: usize = 255;

/// Tier of the one run at the bottom.
pub const BOTTOM: u8 = 255;
/// Tier of runs that are being merged into the bottom, slice by slice.
pub const DRAINING: u8 = 254;

/// What is known about a family.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FamilyRecord {
    /// Number in this store.
    pub id: u32,
    /// Name, unique in the store.
    pub name: String,
    /// Name of its merge operator.
    pub merge: Option<String>,
    /// How its memtables keep order.
    pub memtable: MemtableKind,
    /// Bytes of a key that name its partition.
    pub partition_prefix: u8,
    /// Bytes of a key after whose change a file may be cut.
    pub cut_prefix: u8,
    /// Bytes of a key that the prefix filter of its tables knows.
    pub prefix_bytes: u16,
    /// Whether tables of the bottom run carry a filter.
    pub bottom_filter: bool,
}

/// Where a table's file comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// This store wrote it.
    Own,
    /// It was there when the store was mounted; it may have links elsewhere and is never mapped.
    Mounted,
}

/// One visible part of a table in a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableRecord {
    /// Number of the run; larger is newer. The bottom run is 0.
    pub run: u64,
    /// Tier of the run.
    pub tier: u8,
    /// Where the file comes from.
    pub origin: Origin,
    /// Everything known about the table, so that nothing need be read to plan with it.
    pub facts: Arc<TableFacts>,
    /// Seqno of every version in a table that was ingested; 0 = versions have their own.
    pub seqno_base: Seqno,
    /// The keys that may be seen.
    pub visible: KeyRange,
}

impl TableRecord {
    /// Names the content.
    pub fn id(&self) -> TableId {
        self.facts.id
    }

    /// Newest version in the file.
    pub fn seqno_max(&self) -> Seqno {
        self.facts.seqno_max.max(self.seqno_base)
    }
}

/// One change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// A family appears.
    CreateFamily(FamilyRecord),
    /// A family and all its tables disappear.
    DropFamily(u32),
    /// A table (or another visible part of one) appears in a family.
    AddTable(u32, TableRecord),
    /// The visible part that starts at `visible_start` disappears.
    RemoveTable {
        /// Family.
        family: u32,
        /// Run.
        run: u64,
        /// Table.
        id: TableId,
        /// Start of the visible range, which tells several parts of one table apart.
        visible_start: Vec<u8>,
    },
    /// Seqnos below are used up.
    NextSeqno(Seqno),
    /// Below a bound everything of a partition is gone that is older than the floor.
    RaiseFloor(u32, Floor),
    /// Everything in a family is gone that was written before this seqno: all tables and floors.
    ClearFamily(u32, Seqno),
    /// All writes to the family up to this one are in its tables.
    Flushed(u32, Seqno),
    /// Numbers of families below were given, also to families that are gone: a log may name them.
    NextFamily(u32),
    /// Whether tables may not be durable, because whoever wrote them promised nothing.
    NotDurable(bool),
    /// The entries of a family expire, or do so no longer.
    Expire(u32, Option<TtlRecord>),
    /// It was this late already, in milliseconds since 1970: what had expired by then has expired.
    Time(u64),
    /// Log files below this number are not needed any more.
    LogFloor(u64),
    /// The names of log files up to this number are durable.
    LogDurable(u64),
    /// The log was durable up to this write.
    LogSynced(Seqno),
}

impl Change {
    /// The family it changes.
    pub fn family(&self) -> Option<u32> {
        match self {
            Change::CreateFamily(record) => Some(record.id),
            Change::DropFamily(family)
            | Change::AddTable(family, _)
            | Change::RemoveTable { family, .. }
            | Change::RaiseFloor(family, _)
            | Change::ClearFamily(family, _)
            | Change::Expire(family, _)
            | Change::Flushed(family, _) => Some(*family),
            Change::NextSeqno(_)
            | Change::NextFamily(_)
            | Change::NotDurable(_)
            | Change::Time(_)
            | Change::LogFloor(_)
            | Change::LogDurable(_)
            | Change::LogSynced(_) => None,
        }
    }
}

/// Changes that become visible together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Edit {
    /// In the order in which they are applied.
    pub changes: Vec<Change>,
}

impl Edit {
    /// The edit's bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Sink::new();
        out.count(self.changes.len());
        for change in &self.changes {
            encode_change(&mut out, change);
        }
        out.into_vec()
    }

    /// Reads an edit that lies at `base` of its file.
    ///
    /// # Errors
    /// `Malformed` with the offset.
    pub fn decode(bytes: &[u8], base: u64) -> Result<Edit> {
        let mut c = Cursor::with_base(bytes, base);
        let count = c.count(5)?;
        let changes = (0..count).map(|_| decode_change(&mut c)).collect::<Result<_>>()?;
        c.finish()?;
        Ok(Edit { changes })
    }
}

fn encode_change(out: &mut Sink, change: &Change) {
    match change {
        Change::CreateFamily(family) => {
            out.u8(1)
                .u32(family.id)
                .text(&family.name)
                .bool(family.merge.is_some());
            if let Some(merge) = &family.merge {
                out.text(merge);
            }
            match family.memtable {
                MemtableKind::Hash => out.u8(0),
                MemtableKind::Ordered => out.u8(1),
                MemtableKind::Prefix(rule) => out.u8(2).u16(rule.bytes).u8(rule.pieces),
            };
            out.u8(family.partition_prefix).u8(family.cut_prefix);
            out.u16(family.prefix_bytes).bool(family.bottom_filter);
        }
        Change::DropFamily(family) => {
            out.u8(2).u32(*family);
        }
        Change::AddTable(family, table) => {
            let origin = match table.origin {
                Origin::Own => 0,
                Origin::Mounted => 1,
            };
            let facts = &*table.facts;
            out.u8(3)
                .u32(*family)
                .u64(table.run)
                .u8(table.tier)
                .u8(origin)
                .u128(facts.id.0);
            out.u64(facts.bytes).u64(facts.digest).u64(table.seqno_base);
            out.bytes(&inside::encode_properties(facts));
            out.bytes(&table.visible.start).bool(table.visible.end.is_some());
            if let Some(end) = &table.visible.end {
                out.bytes(end);
            }
        }
        Change::RemoveTable {
            family,
            run,
            id,
            visible_start,
        } => {
            out.u8(4).u32(*family).u64(*run).u128(id.0).bytes(visible_start);
        }
        Change::NextSeqno(seqno) => {
            out.u8(5).u64(*seqno);
        }
        Change::Flushed(family, seqno) => {
            out.u8(6).u32(*family).u64(*seqno);
        }
        Change::LogFloor(number) => {
            out.u8(7).u64(*number);
        }
        Change::LogDurable(number) => {
            out.u8(8).u64(*number);
        }
        Change::LogSynced(seqno) => {
            out.u8(9).u64(*seqno);
        }
        Change::RaiseFloor(family, floor) => {
            out.u8(10).u32(*family);
            out.bytes(&floor.partition).bytes(&floor.bound).u64(floor.seqno);
        }
        Change::ClearFamily(family, seqno) => {
            out.u8(11).u32(*family).u64(*seqno);
        }
        Change::NextFamily(number) => {
            out.u8(12).u32(*number);
        }
        Change::NotDurable(flag) => {
            out.u8(13).bool(*flag);
        }
        Change::Expire(family, record) => {
            out.u8(14).u32(*family).bool(record.is_some());
            if let Some(record) = record {
                out.u64(record.ttl_millis).u64(record.since_millis);
            }
        }
        Change::Time(millis) => {
            out.u8(15).u64(*millis);
        }
    }
}

fn decode_change(c: &mut Cursor<'_>) -> Result<Change> {
    Ok(match c.u8()? {
        1 => Change::CreateFamily(FamilyRecord {
            id: c.u32()?,
            name: c.text(NAME_BYTES_MAX)?.to_owned(),
            merge: if c.bool()? {
                Some(c.text(NAME_BYTES_MAX)?.to_owned())
            } else {
                None
            },
            memtable: match c.u8()? {
                0 => MemtableKind::Hash,
                1 => MemtableKind::Ordered,
                2 => MemtableKind::Prefix(PrefixRule {
                    bytes: c.u16()?,
                    pieces: c.u8()?,
                }),
                other => return Err(c.malformed("a memtable's kind is not known").with("found", other)),
            },
            partition_prefix: prefix(c)?,
            cut_prefix: prefix(c)?,
            prefix_bytes: c.u16()?,
            bottom_filter: c.bool()?,
        }),
        2 => Change::DropFamily(c.u32()?),
        3 => {
            let family = c.u32()?;
            Change::AddTable(family, decode_table(c)?)
        }
        4 => Change::RemoveTable {
            family: c.u32()?,
            run: c.u64()?,
            id: TableId(c.u128()?),
            visible_start: key_bytes(c)?,
        },
        5 => Change::NextSeqno(seqno(c)?),
        6 => Change::Flushed(c.u32()?, seqno(c)?),
        7 => Change::LogFloor(c.u64()?),
        8 => Change::LogDurable(c.u64()?),
        9 => Change::LogSynced(seqno(c)?),
        10 => Change::RaiseFloor(
            c.u32()?,
            Floor {
                partition: key_bytes(c)?,
                bound: key_bytes(c)?,
                seqno: seqno(c)?,
            },
        ),
        11 => Change::ClearFamily(c.u32()?, seqno(c)?),
        12 => Change::NextFamily(c.u32()?),
        13 => Change::NotDurable(c.bool()?),
        14 => Change::Expire(c.u32()?, if c.bool()? { Some(ttl_record(c)?) } else { None }),
        15 => Change::Time(c.u64()?),
        other => {
            return Err(c
                .malformed("a change of an edit is not known")
                .with("found", other));
        }
    })
}

fn decode_table(c: &mut Cursor<'_>) -> Result<TableRecord> {
    let (run, tier) = (c.u64()?, c.u8()?);
    let origin = match c.u8()? {
        0 => Origin::Own,
        1 => Origin::Mounted,
        other => return Err(c.malformed("a table's origin is not known").with("found", other)),
    };
    let file = (TableId(c.u128()?), c.u64()?, c.u64()?);
    let seqno_base = seqno(c)?;
    let at = c.offset();
    let facts = inside::decode_properties(c.bytes()?, at, file)?;
    Ok(TableRecord {
        run,
        tier,
        origin,
        facts: Arc::new(facts),
        seqno_base,
        visible: KeyRange {
            start: key_bytes(c)?,
            end: if c.bool()? { Some(key_bytes(c)?) } else { None },
        },
    })
}

fn ttl_record(c: &mut Cursor<'_>) -> Result<TtlRecord> {
    match (c.u64()?, c.u64()?) {
        (0, _) => Err(c.malformed("a time to live is 0")),
        (ttl_millis, since_millis) => Ok(TtlRecord {
            ttl_millis,
            since_millis,
        }),
    }
}

fn prefix(c: &mut Cursor<'_>) -> Result<u8> {
    match c.u8()? {
        n if n <= crate::options::PREFIX_BYTES_MAX => Ok(n),
        n => Err(c.malformed("a prefix is too long").with("found", n)),
    }
}

fn seqno(c: &mut Cursor<'_>) -> Result<Seqno> {
    match c.u64()? {
        n if n <= SEQNO_MAX => Ok(n),
        n => Err(c.malformed("a seqno exceeds 56 bits").with("found", n)),
    }
}

/// A bound of a range: a key, or one byte longer (the first key behind a key).
fn key_bytes(c: &mut Cursor<'_>) -> Result<Vec<u8>> {
    let bytes = c.bytes()?;
    if bytes.len() > KEY_BYTES_MAX + 1 {
        return Err(c.malformed("a bound is too long").with("bytes", bytes.len()));
    }
    Ok(bytes.to_vec())
}
