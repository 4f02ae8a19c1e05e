//! Checking a whole table: every byte against its checksum, and every fact against the entries.

use super::{
    TableFacts, TableReader,
    block::{BlockView, Geometry},
    block_builder,
    compress::{self, Stored},
    fence::FenceBuilder,
    footer::{self, SectionId},
    properties,
    reader::damage_of_table,
};
use crate::key::{self, Entry};
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
        for section in &self.footer.sections {
            if section.id == SectionId::FILTER_PARTITIONS {
                continue;
            }
            let bytes = self.source.read(section.start, section.end)?;
            footer::unseal(&bytes, self.id(), section.start)?;
        }
        for filters in [&self.filter, &self.prefix_filter].into_iter().flatten() {
            filters.verify(&self.source)?;
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
        let (start, end) = self.footer.need(SectionId::INDEX)?;
        let index = self.source.read(start, end)?;
        if footer::unseal(&index, self.id(), start)? != seen.fence.encode(footer::HEAD_BYTES) {
            return Err(Error::new(Code::Malformed, "the index does not describe the blocks").at(start));
        }
        if let Some(deletes) = self.range_deletes() {
            seen.facts.count_range_deletes(deletes);
        }
        seen.facts.end_count();
        seen.facts.blocks = self.fence.blocks() as u64;
        seen.facts.largest = seen.last_key;
        let properties_at = self.footer.need(SectionId::PROPERTIES)?.0;
        properties::compare(&seen.facts, self.facts()).map_err(|e| e.at(properties_at))
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
            if !self.may_contain(entry.key, key::hash(entry.key)) {
                return Err(
                    Error::new(Code::Malformed, "the filter denies a key").at(self.footer.blocks_end())
                );
            }
            seen.last_key = entry.key.to_vec();
        }
        let deleted = self
            .range_deletes()
            .and_then(|deletes| deletes.covering(entry.key));
        if deleted.is_some_and(|below| entry.seqno < below) {
            return Err(Error::new(
                Code::Malformed,
                "an entry is covered by a range delete of its table",
            )
            .at(block_at));
        }
        facts.count(entry, new_key);
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
            bytes: given.bytes,
            digest: given.digest,
            partition_prefix: given.partition_prefix,
            filter_prefix: given.filter_prefix,
            ..TableFacts::new(given.id)
        };
        Seen {
            facts,
            fence: FenceBuilder::default(),
            last_key: Vec::new(),
        }
    }
}
