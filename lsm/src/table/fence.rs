//! The fence: which block can hold a key.
//!
//! Block `i` (from 1) is separated from the block before it by its *separator*: the shortest prefix of its first key
//! that lies behind the last key of the block before. All separators of a table begin with a common prefix, which is
//! cut off; what follows is kept as one big-endian `u64` per block, so a search is a branch-free binary search over
//! numbers. The whole separators decide only among blocks whose numbers are equal.
//!
//! ```text
//! index   blocks varint · first block offset varint · common prefix (varint length, bytes)
//!         block 0:  stored bytes varint
//!         block i:  stored bytes varint · separator without the common prefix (varint length, bytes)
//! ```
//! Page: docs/format/table.md.

use super::compress::TAIL_BYTES;
use crate::key::{KEY_BYTES_MAX, KeyRange, common_prefix_bytes, equal, order_prefix};
use keybed_format::{Cursor, Result, Sink};

/// The blocks of a table by key.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Fence {
    /// What every separator begins with.
    prefix: Vec<u8>,
    /// First eight bytes of the separators of blocks 1.., without the common prefix.
    numbers: Vec<u64>,
    /// Separators of blocks 1.., without the common prefix, one behind the other.
    separators: Vec<u8>,
    /// End of each separator in `separators`.
    ends: Vec<u32>,
    /// Offset of each block in the file, and the end of the last one.
    offsets: Vec<u64>,
}

impl Fence {
    /// Number of blocks, at least 1.
    pub(crate) fn blocks(&self) -> usize {
        self.offsets.len() - 1
    }

    /// Offset and end of block `block` in the file.
    #[inline]
    pub(crate) fn place(&self, block: usize) -> (u64, u64) {
        (self.offsets[block], self.offsets[block + 1])
    }

    /// The separator of block `block`, from 1, without the common prefix.
    fn separator(&self, block: usize) -> &[u8] {
        let start = block.checked_sub(2).map_or(0, |i| self.ends[i] as usize);
        &self.separators[start..self.ends[block - 1] as usize]
    }

    /// The whole separator of block `block`, from 1.
    pub(crate) fn whole_separator(&self, block: usize) -> Vec<u8> {
        [self.prefix.as_slice(), self.separator(block)].concat()
    }

    /// The one block that can hold `key`.
    #[inline]
    pub(crate) fn find(&self, key: &[u8]) -> usize {
        // Compared inline: `strip_prefix` would call the C library.
        let rest = match key.split_at_checked(self.prefix.len()) {
            Some((head, rest)) if self.prefix.is_empty() || equal(head, &self.prefix) => rest,
            _ => return self.find_stranger(key),
        };
        let number = order_prefix(rest);
        let before = self.numbers.partition_point(|&n| n < number);
        if self.numbers.get(before) == Some(&number) {
            self.find_tied(before, number, rest)
        } else {
            before
        }
    }

    /// The last block that can hold keys below `end`.
    pub(crate) fn find_below(&self, end: &[u8]) -> usize {
        let block = self.find(end);
        let starts_at_end = |block| {
            end.strip_prefix(self.prefix.as_slice())
                .is_some_and(|rest| rest == self.separator(block))
        };
        if block > 0 && starts_at_end(block) {
            block - 1
        } else {
            block
        }
    }

    /// The number of `key` among those of the separators; `None` if it lacks their common prefix.
    #[inline]
    pub(crate) fn number_of(&self, key: &[u8]) -> Option<u64> {
        match key.split_at_checked(self.prefix.len()) {
            Some((head, rest)) if self.prefix.is_empty() || equal(head, &self.prefix) => {
                Some(order_prefix(rest))
            }
            _ => None,
        }
    }

    /// The number of the separator of block `block`, from 1.
    pub(crate) fn number_before(&self, block: usize) -> u64 {
        self.numbers[block - 1]
    }

    /// The block for a key that lacks the common prefix: the first or the last.
    #[cold]
    fn find_stranger(&self, key: &[u8]) -> usize {
        if key < self.prefix.as_slice() {
            0
        } else {
            self.numbers.len()
        }
    }

    /// Decides among the blocks whose numbers equal that of the key; `first` of them lie before.
    #[inline(never)]
    fn find_tied(&self, first: usize, number: u64, rest: &[u8]) -> usize {
        let tied = self
            .numbers
            .get(first..)
            .unwrap_or_default()
            .partition_point(|&n| n == number);
        let (mut low, mut high) = (first, first + tied);
        while low < high {
            let middle = low + (high - low) / 2;
            // The separator of block `middle + 1`.
            if self.separator(middle + 1) <= rest {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        low
    }

    /// Bytes of the blocks that can hold keys of `range`.
    pub(crate) fn bytes_in(&self, range: &KeyRange) -> u64 {
        if range.is_empty() {
            return 0;
        }
        let first = self.find(&range.start);
        let last = range.end.as_ref().map_or(self.blocks() - 1, |end| self.find(end));
        self.place(last).1 - self.place(first).0
    }

    /// Bytes of memory it takes.
    pub(crate) fn memory_bytes(&self) -> usize {
        self.prefix.len()
            + self.separators.len()
            + self.numbers.len() * 8
            + self.ends.len() * 4
            + self.offsets.len() * 8
    }

    /// Reads the index that lies at `offset` of its file; the blocks must end exactly at `blocks_end`.
    ///
    /// # Errors
    /// `Malformed` with the offset.
    pub(crate) fn decode(bytes: &[u8], offset: u64, blocks_end: u64) -> Result<Fence> {
        let mut c = Cursor::with_base(bytes, offset);
        let blocks = c.count(1)?;
        if blocks == 0 {
            return Err(c.malformed("a table has no block"));
        }
        let mut at = c.varint()?;
        let prefix = c.bytes()?.to_vec();
        // A block takes two bytes of the index at least (checked above: one), so these are bounded by its length.
        let mut fence = Fence {
            prefix,
            numbers: Vec::with_capacity(blocks - 1),
            separators: Vec::with_capacity(c.remaining()),
            ends: Vec::with_capacity(blocks - 1),
            offsets: Vec::with_capacity(blocks + 1),
        };
        for block in 0..blocks {
            fence.offsets.push(at);
            let stored = c.varint()?;
            at = match at.checked_add(stored) {
                Some(end) if stored > TAIL_BYTES as u64 && end <= blocks_end => end,
                _ => {
                    return Err(c
                        .malformed("a block ends outside of the blocks")
                        .with("block", block));
                }
            };
            if block > 0 {
                fence.push_separator(block, c.bytes()?).ok_or_else(|| {
                    c.malformed("the separators of a table are not in order")
                        .with("block", block)
                })?;
            }
        }
        fence.offsets.push(at);
        if at != blocks_end {
            return Err(c
                .malformed("the blocks do not fill their place")
                .expected_found(blocks_end, at));
        }
        c.finish()?;
        Ok(fence)
    }

    /// `None` unless it lies behind the last one and is no longer than a key.
    fn push_separator(&mut self, block: usize, separator: &[u8]) -> Option<()> {
        let in_order = block == 1 || self.separator(block - 1) < separator;
        if !in_order || self.prefix.len() + separator.len() > KEY_BYTES_MAX {
            return None;
        }
        self.numbers.push(order_prefix(separator));
        self.separators.extend_from_slice(separator);
        self.ends.push(u32::try_from(self.separators.len()).ok()?);
        Some(())
    }
}

/// Takes note of the blocks while they are written.
#[derive(Debug, Default)]
pub(crate) struct FenceBuilder {
    stored: Vec<u64>,
    /// Separators of blocks 1.., one behind the other.
    separators: Vec<u8>,
    ends: Vec<usize>,
}

impl FenceBuilder {
    /// A block begins with `first`; the one before it ended with `last_before`.
    pub(crate) fn start_block(&mut self, last_before: &[u8], first: &[u8]) {
        self.separators.extend_from_slice(separator(last_before, first));
        self.ends.push(self.separators.len());
    }

    /// The block took `stored` bytes of the file.
    pub(crate) fn end_block(&mut self, stored: u64) {
        self.stored.push(stored);
    }

    pub(crate) fn blocks(&self) -> usize {
        self.stored.len()
    }

    /// About how many bytes the index takes.
    pub(crate) fn estimated_bytes(&self) -> usize {
        self.separators.len() + self.stored.len() * 4 + 16
    }

    /// The index of blocks that begin at `first_offset`.
    pub(crate) fn encode(&self, first_offset: u64) -> Vec<u8> {
        let each = || {
            let starts = std::iter::once(0).chain(self.ends.iter().copied());
            starts
                .zip(&self.ends)
                .map(|(start, &end)| &self.separators[start..end])
        };
        let first = each().next().unwrap_or_default();
        // In order, so what the first and the last share, all share.
        let prefix = &first[..common_prefix_bytes(first, each().last().unwrap_or_default())];
        let mut out = Sink::with_capacity(self.estimated_bytes());
        out.count(self.stored.len()).varint(first_offset).bytes(prefix);
        let mut rest = each();
        for (block, stored) in self.stored.iter().enumerate() {
            out.varint(*stored);
            if block > 0 {
                out.bytes(&rest.next().unwrap_or_default()[prefix.len()..]);
            }
        }
        out.into_vec()
    }
}

/// The shortest prefix of `first` that lies behind `last`, which lies before `first`.
pub(crate) fn separator<'a>(last: &[u8], first: &'a [u8]) -> &'a [u8] {
    &first[..(common_prefix_bytes(last, first) + 1).min(first.len())]
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const STORED: u64 = 20;

    /// Keys cut into blocks of `cut` keys.
    fn built(keys: &[Vec<u8>], cut: usize) -> (Vec<u8>, u64) {
        let mut builder = FenceBuilder::default();
        for (i, block) in keys.chunks(cut).enumerate() {
            if i > 0 {
                builder.start_block(&keys[i * cut - 1], &block[0]);
            }
            builder.end_block(STORED);
        }
        (builder.encode(16), 16 + STORED * builder.blocks() as u64)
    }

    fn keys() -> impl Strategy<Value = Vec<Vec<u8>>> {
        // Few different bytes after long equal ones: numbers tie, zeros meet padding.
        let tail = prop::collection::vec(prop::sample::select(vec![0_u8, 0, 1, 255]), 0..14);
        (
            prop::collection::vec(any::<u8>(), 0..10),
            prop::collection::vec(tail, 1..60),
        )
            .prop_map(|(head, tails)| {
                let mut keys: Vec<Vec<u8>> = tails
                    .into_iter()
                    .map(|tail| [head.clone(), tail].concat())
                    .collect();
                keys.sort();
                keys.dedup();
                keys
            })
    }

    proptest! {
        #[test]
        fn every_key_is_looked_for_in_its_block(
            keys in keys(),
            cut in 1_usize..5,
            probes in prop::collection::vec(prop::collection::vec(prop::sample::select(vec![0_u8, 1, 2, 255]), 0..20), 20),
        ) {
            let (index, end) = built(&keys, cut);
            let fence = Fence::decode(&index, 0, end).unwrap();
            prop_assert_eq!(fence.blocks(), keys.len().div_ceil(cut));
            for (i, key) in keys.iter().enumerate() {
                prop_assert_eq!(fence.find(key), i / cut, "key {}", i);
            }
            let separators: Vec<Vec<u8>> = (1..fence.blocks()).map(|block| fence.whole_separator(block)).collect();
            let near = keys.iter().flat_map(|key| [key[..key.len().saturating_sub(1)].to_vec(), [key.as_slice(), &[0]].concat()]);
            for probe in probes.iter().cloned().chain(near) {
                prop_assert_eq!(fence.find(&probe), separators.partition_point(|s| *s <= probe));
                prop_assert_eq!(fence.find_below(&probe), separators.partition_point(|s| *s < probe));
            }
        }

        #[test]
        fn arbitrary_bytes_are_refused_or_searched(bytes in prop::collection::vec(any::<u8>(), 0..60), end in 0_u64..200) {
            if let Ok(fence) = Fence::decode(&bytes, 0, end) {
                prop_assert!(fence.find(&bytes) < fence.blocks());
                prop_assert!(fence.find(b"") < fence.blocks());
            }
        }
    }

    #[test]
    fn a_separator_is_as_short_as_it_can_be() {
        assert_eq!(separator(b"abc", b"abd"), b"abd");
        assert_eq!(separator(b"abc", b"b"), b"b");
        assert_eq!(separator(b"abc", b"bcd"), b"b");
        assert_eq!(separator(b"ab", b"ab\0\0"), b"ab\0");
        assert_eq!(separator(b"", b"ab"), b"a");
    }

    #[test]
    fn blocks_that_do_not_fill_their_place_are_refused() {
        let (index, end) = built(&[b"a".to_vec(), b"b".to_vec()], 1);
        assert!(Fence::decode(&index, 0, end).is_ok());
        assert!(Fence::decode(&index, 0, end - 1).is_err());
        assert!(Fence::decode(&index, 0, end + 1).is_err());
        for n in 0..index.len() {
            assert!(Fence::decode(&index[..n], 0, end).is_err(), "length {n}");
        }
        let huge = [&[0xff, 0xff, 0xff, 0xff, 0x0f, 16, 0][..], &[20; 30]].concat();
        assert!(
            Fence::decode(&huge, 0, end).is_err(),
            "four thousand million blocks in forty bytes"
        );
    }
}
