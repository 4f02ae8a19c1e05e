//! Checking a whole table: every byte against its checksum, and every fact against the entries.

use super::{
    TableFacts, TableReader,
    block::{BlockView, Geometry},
    block_builder,
    compress::{self, Stored},
    fence::FenceBuilder,
    footer, properties,
    reader::damage_of_table,
};
use crate::key::{self, Entry, SEQNO_MAX};
use keybed_format::{Code, Error, Result, trailer};
use std::borrow::Cow;

impl TableReader {
    /// Reads and checks every byte: trailer, sections, each block, order, block hashes, filter, fence, counts.
    ///
    /// A table that passes was written by [`TableBuilder`](super::TableBuilder) from exactly the entries it answers
    /// with (blocks and index are built again and compared).
    ///
    /// # Errors
    /// `TableCorrupt` with the offset of the damage; `IoFailed`.
    pub fn verify_all(&self) -> Result {
        self.check_sums()
            .and_then(|()| self.check_content())
            .map_err(|e| damage_of_table(e, self.path()))
    }

    fn check_sums(&self) -> Result {
        let len = self.source.len();
        let found = trailer::verify(len, &mut |offset, buffer| self.source.read_into(offset, buffer))?;
        let head = self.source.read(0, footer::HEAD_BYTES)?;
        if found.content_id != self.id().0 || found.digest != self.facts().digest || *head != *footer::head()
        {
            return Err(Error::new(Code::Malformed, "the file is another one").at(0));
        }
        let footer = self.footer;
        for (start, end) in [
            (footer.filter_at, footer.index_at),
            (footer.index_at, footer.properties_at),
            (
                footer.properties_at,
                found.content_bytes.saturating_sub(footer::FOOTER_BYTES),
            ),
        ] {
            if start != end {
                footer::unseal(&self.source.read(start, end)?, self.id(), start)?;
            }
        }
        Ok(())
    }

    fn check_content(&self) -> Result {
        let mut seen = Seen::new(self.facts());
        for block in 0..self.fence.blocks() {
            let (start, end) = self.fence.place(block);
            let stored = self.source.read(start, end)?;
            let raw = match compress::open(&stored, self.id(), start)? {
                Stored::Raw(bytes) => Cow::Borrowed(bytes),
                Stored::Packed(packed) => Cow::Owned(packed.unpack()?),
            };
            block_builder::check(&raw, start)?;
            let geometry = Geometry::parse(&raw, start)?;
            let view = BlockView {
                bytes: &raw,
                geometry: &geometry,
            };
            for index in 0..geometry.entries() {
                let entry = self.sane(block, view.entry(index))?;
                self.check_entry(&mut seen, entry, index == 0 && block > 0, start)?;
            }
            seen.fence.end_block(end - start);
        }
        let footer = self.footer;
        let index = self.source.read(footer.index_at, footer.properties_at)?;
        if footer::unseal(&index, self.id(), footer.index_at)? != seen.fence.encode(footer::HEAD_BYTES) {
            return Err(
                Error::new(Code::Malformed, "the index does not describe the blocks").at(footer.index_at),
            );
        }
        seen.facts.blocks = self.fence.blocks() as u64;
        seen.facts.largest = seen.last_key;
        properties::compare(&seen.facts, self.facts()).map_err(|e| e.at(footer.properties_at))
    }

    fn check_entry(&self, seen: &mut Seen, entry: Entry<'_>, starts_block: bool, block_at: u64) -> Result {
        let facts = &mut seen.facts;
        let first = facts.entries == 0;
        let new_key = first || entry.key != seen.last_key;
        if starts_block {
            // Versions of a key share a block, so the first key of a block is always a new one.
            if entry.key <= seen.last_key.as_slice() {
                return Err(
                    Error::new(Code::Malformed, "the blocks of a table are not in order").at(block_at),
                );
            }
            seen.fence.start_block(&seen.last_key, entry.key);
        }
        if new_key {
            facts.keys += 1;
            if !self.may_contain(key::hash(entry.key)) {
                return Err(Error::new(Code::Malformed, "the filter denies a key").at(self.footer.filter_at));
            }
            seen.last_key = entry.key.to_vec();
        }
        facts.count(entry);
        Ok(())
    }
}

/// What the entries say about the table.
struct Seen {
    facts: TableFacts,
    fence: FenceBuilder,
    last_key: Vec<u8>,
}

impl Seen {
    /// Nothing seen; id, file and partitions are taken as given.
    fn new(given: &TableFacts) -> Seen {
        let facts = TableFacts {
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
            ..*given
        };
        Seen {
            facts,
            fence: FenceBuilder::default(),
            last_key: Vec::new(),
        }
    }
}
