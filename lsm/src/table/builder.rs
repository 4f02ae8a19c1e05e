//! Writing a table.

use super::{
    TableFacts, TableOptions,
    block_builder::BlockBuilder,
    compress::Compressor,
    fence::FenceBuilder,
    filter, filters,
    footer::{self, Footer, SectionId},
    properties,
};
use crate::{
    key::{self, Entry, EntryKind, SEQNO_MAX, TableId},
    planted,
    range_delete::RangeDeletes,
};
use keybed_env::{Fs, WriteFile};
use keybed_format::{Error, Result, trailer::TrailerBuilder};
use std::path::Path;

/// Bytes collected before they are handed to the file: fewer system calls, bounded memory.
const WRITE_BYTES: usize = 256 << 10;
const BLOCK_BYTES_MIN: usize = 512;
const BLOCK_BYTES_TARGET_MAX: usize = 1 << 20;

/// Writes one table; entries come sorted by key ascending, then seqno descending.
///
/// Blocks go to the file as they fill; in memory stay the open block, the fence and eight bytes per key for the
/// filter (about thirty while it is built). A builder that met an error, or is dropped unfinished, leaves a file
/// without trailer: whoever owns the directory removes it, and the table is rebuilt under a new id.
#[derive(Debug)]
pub struct TableBuilder {
    file: Box<dyn WriteFile>,
    options: TableOptions,
    compressor: Compressor,
    trailer: TrailerBuilder,
    /// Bytes on their way to the file.
    pending: Vec<u8>,
    /// Bytes of the file, pending ones included.
    written: u64,
    block: BlockBuilder,
    fence: FenceBuilder,
    hashes: Vec<u64>,
    /// Hashes up to the end of each block.
    hash_ends: Vec<usize>,
    prefixes: PrefixHashes,
    /// About how many bytes the filter of the ended blocks takes.
    filter_bytes: usize,
    last_key: Vec<u8>,
    last_seqno: u64,
    last_hash: u64,
    facts: TableFacts,
    footer: Footer,
    /// Sections of other parts of the engine.
    sections: Vec<(SectionId, Vec<u8>)>,
}

/// Hashes of the distinct prefixes of the keys so far.
#[derive(Debug, Default)]
struct PrefixHashes {
    hashes: Vec<u64>,
    last: Vec<u8>,
}

impl PrefixHashes {
    /// Takes note of the next key. Shorter ones do not begin with any prefix that is asked for.
    fn see(&mut self, key: &[u8], bytes: u16) {
        let Some(prefix) = key.get(..usize::from(bytes)) else {
            return;
        };
        if self.hashes.is_empty() || !key::equal(prefix, &self.last) {
            self.hashes.push(key::hash(prefix));
            self.last.clear();
            self.last.extend_from_slice(prefix);
        }
    }
}

impl TableBuilder {
    /// Creates the file `path`, which must not exist.
    ///
    /// # Errors
    /// `InvalidArgument` for options out of bounds or zstd without its feature; errors of [`Fs::create`].
    pub fn new(fs: &dyn Fs, path: &Path, id: TableId, options: TableOptions) -> Result<TableBuilder> {
        if !(BLOCK_BYTES_MIN..=BLOCK_BYTES_TARGET_MAX).contains(&options.block_bytes) {
            return Err(
                Error::invalid("the block size is out of its bounds").expected_found(
                    format_args!("{BLOCK_BYTES_MIN} to {BLOCK_BYTES_TARGET_MAX}"),
                    options.block_bytes,
                ),
            );
        }
        if options.partition_prefix > properties::PARTITION_PREFIX_MAX {
            return Err(Error::invalid("the partition prefix is too wide")
                .expected_found(properties::PARTITION_PREFIX_MAX, options.partition_prefix));
        }
        let compressor = Compressor::new(options.compression)?;
        let mut builder = TableBuilder {
            file: fs.create(path)?,
            compressor,
            trailer: TrailerBuilder::new(id.0, footer::KIND),
            pending: Vec::with_capacity(WRITE_BYTES + options.block_bytes * 2),
            written: 0,
            block: BlockBuilder::default(),
            fence: FenceBuilder::default(),
            hashes: Vec::new(),
            hash_ends: Vec::new(),
            prefixes: PrefixHashes::default(),
            filter_bytes: 0,
            last_key: Vec::new(),
            last_seqno: 0,
            last_hash: 0,
            facts: TableFacts {
                partition_prefix: options.partition_prefix,
                filter_prefix: options.filter_prefix,
                ..TableFacts::new(id)
            },
            footer: Footer::default(),
            sections: Vec::new(),
            options,
        };
        builder.write(&footer::head())?;
        Ok(builder)
    }

    /// Adds the next version.
    ///
    /// # Errors
    /// `InvalidArgument` if it does not lie behind the last one or its seqno is out of bounds, or if its stamps are missing; `KeyTooLarge`,
    /// `ValueTooLarge`; `IoFailed`: the builder must be dropped.
    pub fn add(&mut self, entry: Entry<'_>) -> Result {
        key::check_sizes(entry.key, entry.value)?;
        if entry.value.len() < entry.kind.stamp_bytes() {
            return Err(Error::invalid("the value of an entry has no room for its stamps")
                .expected_found(entry.kind.stamp_bytes(), entry.value.len()));
        }
        let first = self.facts.entries == 0;
        let new_key = first || !key::equal(entry.key, &self.last_key);
        let in_order = if new_key {
            first || key::less(&self.last_key, entry.key)
        } else {
            entry.seqno < self.last_seqno
        };
        if !in_order || entry.seqno > SEQNO_MAX {
            return Err(
                Error::invalid("the entries of a table must come in order, seqnos below 2^56")
                    .with("last_seqno", self.last_seqno)
                    .with("seqno", entry.seqno),
            );
        }
        if new_key {
            self.start_key(entry)?;
        }
        self.block.add(entry, self.last_hash, new_key)?;
        self.last_seqno = entry.seqno;
        self.facts.count(entry, new_key);
        Ok(())
    }

    /// A key that differs from the last one: the only place where a block may end.
    fn start_key(&mut self, entry: Entry<'_>) -> Result {
        if !self.block.is_empty()
            && self.block.bytes_with(entry.key.len(), entry.value.len()) > self.options.block_bytes
        {
            self.end_block()?;
            self.fence.start_block(&self.last_key, entry.key);
        }
        self.last_key.clear();
        self.last_key.extend_from_slice(entry.key);
        self.last_hash = key::hash(entry.key);
        self.facts.keys += 1;
        if self.options.filter {
            self.hashes.push(match planted::is("filter-of-cut-key") {
                true => key::hash(entry.key.get(1..).unwrap_or_default()),
                false => self.last_hash,
            });
        }
        if self.options.filter_prefix > 0 {
            self.prefixes.see(entry.key, self.options.filter_prefix);
        }
        Ok(())
    }

    fn end_block(&mut self) -> Result {
        let before = self.pending.len();
        self.block.finish(&mut self.pending);
        self.compressor
            .store(&mut self.pending, before, self.facts.id, self.written);
        let stored = (self.pending.len() - before) as u64;
        self.trailer.update(&self.pending[before..]);
        self.written += stored;
        self.fence.end_block(stored);
        if self.options.filter {
            self.filter_bytes = filters::estimated_bytes(self.hashes.len());
            self.hash_ends.push(self.hashes.len());
        }
        if self.pending.len() >= WRITE_BYTES {
            self.push()
        } else {
            Ok(())
        }
    }

    /// Adds bytes to the content.
    fn write(&mut self, bytes: &[u8]) -> Result {
        self.trailer.update(bytes);
        self.written += bytes.len() as u64;
        self.pending.extend_from_slice(bytes);
        if self.pending.len() >= WRITE_BYTES {
            self.push()
        } else {
            Ok(())
        }
    }

    fn push(&mut self) -> Result {
        self.file.append(&self.pending)?;
        self.pending.clear();
        Ok(())
    }

    fn write_section(&mut self, section: SectionId, payload: Vec<u8>) -> Result {
        let start = self.written;
        let sealed = footer::seal(payload, self.facts.id, start);
        self.write(&sealed)?;
        self.footer.push(section, start, self.written);
        Ok(())
    }

    fn write_filters(&mut self) -> Result {
        let (hashes, ends) = (
            std::mem::take(&mut self.hashes),
            std::mem::take(&mut self.hash_ends),
        );
        let (id, start) = (self.facts.id, self.written);
        let seal = |part, at| footer::seal(part, id, start + at);
        if let Some(section) = filters::build_partitions(&hashes, &ends, seal) {
            self.write(&section)?;
            self.footer
                .push(SectionId::FILTER_PARTITIONS, start, self.written);
        } else if let Some(section) = filter::build(hashes) {
            self.write_section(SectionId::FILTER, section)?;
        }
        Ok(())
    }

    /// Versions added so far.
    pub fn entries(&self) -> u64 {
        self.facts.entries
    }

    /// The last key added; empty before the first.
    pub fn last_key(&self) -> &[u8] {
        &self.last_key
    }

    /// Adds a section of another part of the engine; written when the table is finished. Readers that do not know it
    /// skip it unless [`SectionId::is_required`].
    pub(crate) fn set_section(&mut self, section: SectionId, payload: Vec<u8>) {
        self.sections.push((section, payload));
    }

    /// Gives the table range deletes, once, of which none covers an entry that is added. A table that gets no entry
    /// says the same about the first key of the first of them by a tombstone, since a table has at least one entry.
    ///
    /// # Errors
    /// Those of [`TableBuilder::add`].
    pub fn set_range_deletes(&mut self, deletes: &RangeDeletes) -> Result {
        let Some(first) = deletes.iter().next() else {
            return Ok(());
        };
        if self.facts.entries == 0 {
            self.add(Entry {
                key: first.start,
                seqno: first.seqno,
                kind: EntryKind::Delete,
                value: &[],
            })?;
        }
        self.facts.count_range_deletes(deletes);
        self.set_section(SectionId::RANGE_DELETES, deletes.encode());
        Ok(())
    }

    /// About how many bytes of memory it takes now.
    pub fn memory_bytes(&self) -> usize {
        let hashes = self.hashes.capacity() + self.hash_ends.capacity() + self.prefixes.hashes.capacity();
        self.pending.capacity() + 8 * hashes + self.fence.estimated_bytes() + 2 * self.options.block_bytes
    }

    /// About how large the file would be if it were finished now, a little less the filter of the open block. Cheap.
    pub fn estimated_bytes(&self) -> u64 {
        let open = if self.block.is_empty() {
            0
        } else {
            self.block.bytes_with(0, 0)
        };
        let sums = self.written / (1 << 20) * 8;
        self.written + (self.filter_bytes + open + self.fence.estimated_bytes() + 300) as u64 + sums
    }

    /// Writes what is left and closes the file; with `sync` its bytes are durable afterwards (its name is not).
    ///
    /// # Errors
    /// `InvalidArgument` if nothing was added; `IoFailed`: the file must be abandoned.
    pub fn finish(mut self, sync: bool) -> Result<TableFacts> {
        if self.facts.entries == 0 {
            return Err(Error::invalid("a table must hold at least one entry"));
        }
        self.end_block()?;
        self.facts.end_count();
        self.facts.largest = std::mem::take(&mut self.last_key);
        self.facts.blocks = self.fence.blocks() as u64;
        if self.options.filter {
            self.write_filters()?;
        }
        if self.options.filter_prefix > 0
            && let Some(section) = filter::build(std::mem::take(&mut self.prefixes.hashes))
        {
            self.write_section(SectionId::PREFIX_FILTER, section)?;
        }
        for (section, payload) in std::mem::take(&mut self.sections) {
            self.write_section(section, payload)?;
        }
        self.write_section(SectionId::INDEX, self.fence.encode(footer::HEAD_BYTES))?;
        self.write_section(SectionId::PROPERTIES, properties::encode(&self.facts))?;
        let footer = self.footer.encode(self.facts.id, self.written);
        self.write(&footer)?;
        let (tail, trailer) = self.trailer.finish();
        self.pending.extend_from_slice(&tail);
        self.file.append(&self.pending)?;
        if sync {
            self.file.sync()?;
        }
        self.facts.bytes = trailer.file_bytes();
        self.facts.digest = trailer.digest;
        Ok(self.facts)
    }
}
