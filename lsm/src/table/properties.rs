//! The properties: what is known about a table as a whole.
//!
//! ```text
//! properties   count varint · per property: tag varint (ascending) · bytes (varint length, bytes)
//! ```
//! Numbers are varints inside of their bytes. Unknown tags are skipped: a later version may add facts, never need
//! them. Page: docs/format/table.md.

use super::TableFacts;
use crate::key::{KEY_BYTES_MAX, KeyRange, SEQNO_MAX, TableId};
use keybed_format::{Cursor, Error, Result, Sink};

const ENTRIES: u64 = 1;
const KEYS: u64 = 2;
const TOMBSTONES: u64 = 3;
const MERGES: u64 = 4;
const SMALLEST: u64 = 5;
const LARGEST: u64 = 6;
const SEQNO_MIN: u64 = 7;
const SEQNO_MAX_SEEN: u64 = 8;
const KEY_BYTES: u64 = 9;
const VALUE_BYTES: u64 = 10;
const BLOCKS: u64 = 11;
const PARTITION_PREFIX: u64 = 12;

/// Widest partition prefix, in bytes.
pub(crate) const PARTITION_PREFIX_MAX: u8 = 8;

/// Properties that every table has: tags 1 to this.
const REQUIRED_TAGS: u64 = 12;
/// Fragments of range deletes; absent without any.
const RANGE_DELETES: u64 = 13;
/// The range that they lie in: start (bytes) · end flag u8 \[bytes\]; absent without any.
const DELETED: u64 = 14;
/// Oldest and newest touch of stamped keys (two varints); absent without any.
const TOUCHED: u64 = 15;
/// Versions without a stamp that count; absent unless some are stamped.
const UNSTAMPED: u64 = 16;
/// Oldest first touch of a stamped operand; absent without any.
const FIRST_TOUCHED: u64 = 17;
/// Bytes of a key under which the prefix filter files it; absent without a prefix filter.
const FILTER_PREFIX: u64 = 18;

/// Writes the facts except those that the trailer holds (id, bytes, digest).
pub(crate) fn encode(facts: &TableFacts) -> Vec<u8> {
    let number = |value: u64| {
        let mut out = Sink::new();
        out.varint(value);
        out.into_vec()
    };
    let mut all = vec![
        (ENTRIES, number(facts.entries)),
        (KEYS, number(facts.keys)),
        (TOMBSTONES, number(facts.tombstones)),
        (MERGES, number(facts.merges)),
        (SMALLEST, facts.smallest.clone()),
        (LARGEST, facts.largest.clone()),
        (SEQNO_MIN, number(facts.seqno_min)),
        (SEQNO_MAX_SEEN, number(facts.seqno_max)),
        (KEY_BYTES, number(facts.key_bytes)),
        (VALUE_BYTES, number(facts.value_bytes)),
        (BLOCKS, number(facts.blocks)),
        (PARTITION_PREFIX, number(u64::from(facts.partition_prefix))),
    ];
    // Those that a table may lack follow by ascending tag.
    if let Some(deleted) = &facts.deleted {
        let mut out = Sink::new();
        out.bytes(&deleted.start).bool(deleted.end.is_some());
        deleted.end.iter().for_each(|end| {
            out.bytes(end);
        });
        all.push((RANGE_DELETES, number(facts.range_deletes)));
        all.push((DELETED, out.into_vec()));
    }
    if let Some((oldest, newest)) = facts.touched {
        let mut out = Sink::new();
        out.varint(oldest).varint(newest);
        all.push((TOUCHED, out.into_vec()));
    }
    if facts.has_stamps() {
        all.push((UNSTAMPED, number(facts.unstamped)));
    }
    if let Some(first) = facts.first_touched {
        all.push((FIRST_TOUCHED, number(first)));
    }
    if facts.filter_prefix > 0 {
        all.push((FILTER_PREFIX, number(u64::from(facts.filter_prefix))));
    }
    let mut out = Sink::new();
    out.count(all.len());
    for (tag, value) in &all {
        out.varint(*tag).bytes(value);
    }
    out.into_vec()
}

/// Reads the properties that lie at `offset` of the file of `bytes` bytes that is table `id` and has this digest.
///
/// # Errors
/// `Malformed` with the offset if a fact is missing or contradicts another.
pub(crate) fn decode(
    payload: &[u8],
    offset: u64,
    (id, bytes, digest): (TableId, u64, u64),
) -> Result<TableFacts> {
    let mut c = Cursor::with_base(payload, offset);
    let mut facts = TableFacts {
        bytes,
        digest,
        ..TableFacts::new(id)
    };
    let mut last = 0;
    let mut required = 0;
    for _ in 0..c.count(2)? {
        let tag = c.varint()?;
        if tag <= last {
            return Err(c.malformed("the properties are not in order").with("tag", tag));
        }
        last = tag;
        let at = c.offset();
        let value = c.bytes()?;
        required += u64::from(set(&mut facts, tag, value, at)? && tag <= REQUIRED_TAGS);
    }
    if required != REQUIRED_TAGS {
        return Err(c
            .malformed("a property is missing")
            .expected_found(REQUIRED_TAGS, required));
    }
    let error = contradiction(&facts).map(|what| c.malformed(what));
    c.finish()?;
    error.map_or(Ok(facts), Err)
}

/// Stores a property; false if its tag is unknown.
fn set(facts: &mut TableFacts, tag: u64, value: &[u8], at: u64) -> Result<bool> {
    let number = || -> Result<u64> {
        let mut c = Cursor::with_base(value, at);
        let number = c.varint()?;
        c.finish()?;
        Ok(number)
    };
    let to = match tag {
        SMALLEST => {
            facts.smallest = value.to_vec();
            return Ok(true);
        }
        LARGEST => {
            facts.largest = value.to_vec();
            return Ok(true);
        }
        DELETED => {
            let mut c = Cursor::with_base(value, at);
            let start = c.bytes()?.to_vec();
            let end = if c.bool()? {
                Some(c.bytes()?.to_vec())
            } else {
                None
            };
            c.finish()?;
            facts.deleted = Some(KeyRange { start, end });
            return Ok(true);
        }
        TOUCHED => {
            let mut c = Cursor::with_base(value, at);
            facts.touched = Some((c.varint()?, c.varint()?));
            c.finish()?;
            return Ok(true);
        }
        FIRST_TOUCHED => {
            facts.first_touched = Some(number()?);
            return Ok(true);
        }
        FILTER_PREFIX => {
            facts.filter_prefix = u16::try_from(number()?).unwrap_or(u16::MAX);
            return Ok(true);
        }
        PARTITION_PREFIX => {
            facts.partition_prefix = u8::try_from(number()?).unwrap_or(u8::MAX);
            return Ok(true);
        }
        ENTRIES => &mut facts.entries,
        KEYS => &mut facts.keys,
        TOMBSTONES => &mut facts.tombstones,
        MERGES => &mut facts.merges,
        SEQNO_MIN => &mut facts.seqno_min,
        SEQNO_MAX_SEEN => &mut facts.seqno_max,
        KEY_BYTES => &mut facts.key_bytes,
        VALUE_BYTES => &mut facts.value_bytes,
        BLOCKS => &mut facts.blocks,
        RANGE_DELETES => &mut facts.range_deletes,
        UNSTAMPED => &mut facts.unstamped,
        _ => return Ok(false),
    };
    *to = number()?;
    Ok(true)
}

/// Names facts that cannot be true together.
fn contradiction(facts: &TableFacts) -> Option<&'static str> {
    let versions = facts.tombstones.checked_add(facts.merges);
    if facts.keys == 0 || facts.entries < facts.keys || versions.is_none_or(|v| v > facts.entries) {
        Some("the counts of a table contradict each other")
    } else if facts.smallest > facts.largest || facts.largest.len().max(facts.smallest.len()) > KEY_BYTES_MAX
    {
        Some("the smallest and the largest key contradict each other")
    } else if facts.seqno_min > facts.seqno_max || facts.seqno_max > SEQNO_MAX {
        Some("the seqnos of a table contradict each other")
    } else if (facts.range_deletes > 0) != facts.deleted.as_ref().is_some_and(|range| !range.is_empty()) {
        Some("the range deletes of a table contradict each other")
    } else if facts.touched.is_some_and(|(oldest, newest)| oldest > newest) || facts.unstamped > facts.entries
    {
        Some("the stamps of a table contradict each other")
    } else if facts.partition_prefix > PARTITION_PREFIX_MAX {
        Some("the partition prefix is too wide")
    } else {
        None
    }
}

/// Facts of a table that is being compared with what its file says.
pub(crate) fn compare(expected: &TableFacts, found: &TableFacts) -> Result {
    if expected == found {
        Ok(())
    } else {
        Err(Error::new(
            keybed_format::Code::Malformed,
            "the properties do not describe the entries",
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OF: (TableId, u64, u64) = (TableId(5), 1000, 6);

    fn facts() -> TableFacts {
        TableFacts {
            bytes: 1000,
            digest: 6,
            entries: 300,
            keys: 200,
            tombstones: 20,
            merges: 10,
            smallest: b"a".to_vec(),
            largest: b"b".to_vec(),
            seqno_min: 1,
            seqno_max: SEQNO_MAX,
            key_bytes: 1 << 40,
            blocks: 3,
            partition_prefix: 8,
            filter_prefix: 300,
            ..TableFacts::new(TableId(5))
        }
    }

    #[test]
    fn facts_survive_and_unknown_ones_are_skipped() {
        let facts = facts();
        let mut bytes = encode(&facts);
        assert_eq!(decode(&bytes, 0, OF).unwrap(), facts);
        assert_eq!(bytes[0], 13);
        bytes[0] = 14;
        bytes.extend([99, 2, 0xff, 0xff]);
        assert_eq!(decode(&bytes, 0, OF).unwrap(), facts);
        let mut plain = facts.clone();
        plain.filter_prefix = 0;
        assert_eq!(decode(&encode(&plain), 0, OF).unwrap(), plain);
    }

    #[test]
    fn contradictions_and_gaps_are_refused() {
        let good = facts();
        let broken: [fn(&mut TableFacts); 7] = [
            |f| f.keys = 301,
            |f| f.keys = 0,
            |f| f.tombstones = 291,
            |f| f.merges = u64::MAX,
            |f| f.smallest = b"c".to_vec(),
            |f| f.seqno_max = SEQNO_MAX + 1,
            |f| f.partition_prefix = 9,
        ];
        for (i, change) in broken.into_iter().enumerate() {
            let mut facts = good.clone();
            change(&mut facts);
            assert!(decode(&encode(&facts), 0, OF).is_err(), "change {i}");
        }
        let bytes = encode(&good);
        for n in 0..bytes.len() {
            assert!(decode(&bytes[..n], 0, OF).is_err(), "length {n}");
        }
        // The filter prefix takes four bytes, the partition prefix three.
        let mut fewer = bytes;
        fewer[0] = 11;
        assert!(decode(&fewer[..fewer.len() - 7], 0, OF).is_err());
    }
}
