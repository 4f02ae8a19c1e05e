//! Reading a table: filter, fence, block hash, value.

use super::{
    Found, Slice, TableFacts,
    block::{Block, BlockView, Geometry, Sane},
    compress::{self, Stored, TAIL_BYTES},
    fence::Fence,
    filters::Filters,
    footer::{self, Footer, SectionId},
    properties,
    source::{Source, TableSource, Tail},
};
use crate::{
    budget::{Lease, Pool},
    cache::{BlockCache, Looked, ReaderId},
    key::{Entry, KeyRange, Seqno, TableId},
    range_delete::RangeDeletes,
};
use keybed_env::{Fs, ReadFile};
use keybed_format::{Code, Error, Result, trailer};
use std::{
    borrow::Cow,
    fmt,
    ops::ControlFlow,
    path::{Path, PathBuf},
    sync::{Arc, OnceLock},
};

/// How blocks reach memory.
#[derive(Clone, Debug)]
pub enum BlockAccess {
    /// Map the file where the file system can. Only for tables this process wrote in a directory it has locked.
    /// Compressed blocks, and files that cannot be mapped, go through the cache.
    Map(Arc<BlockCache>),
    /// Read at offsets, keep decoded blocks in the cache.
    Cache(Arc<BlockCache>),
    /// Read at offsets, keep nothing: for one pass over all of it. In memory stay the index and the block at hand; the
    /// filter is not read, so absent keys cost a block.
    Stream,
}

/// An open table. Immutable, shared by all who read it.
pub struct TableReader {
    path: PathBuf,
    facts: TableFacts,
    pub(super) footer: Footer,
    pub(super) source: Source,
    cache: Arc<BlockCache>,
    cached_as: ReaderId,
    pub(super) fence: Fence,
    /// Filters over keys.
    pub(super) filter: Option<Arc<Filters>>,
    /// Deleted ranges.
    range_deletes: Option<Arc<RangeDeletes>>,
    /// The filter over prefixes of `facts.filter_prefix` bytes.
    pub(super) prefix_filter: Option<Arc<Filters>>,
    /// Geometry of each mapped, uncompressed block whose checksum was verified. `OnceLock` publishes it with a
    /// release store that the acquire load of each read pairs with. Empty if the file is not mapped.
    checked: Box<[OnceLock<Geometry>]>,
    /// Versions count as written at this seqno if it is larger than their own: it is, for a table that was ingested,
    /// whose versions have none.
    pub(super) seqno_base: Seqno,
    /// What index and filter take of the cache's budget.
    _lease: Lease,
}

/// A block that can be read.
pub(super) enum BlockRef<'t> {
    Mapped(BlockView<'t>),
    Cached(Arc<Block>),
}

impl TableReader {
    /// Opens the table `id` at `path`: checks trailer, footer, index, filter and properties; blocks are checked at
    /// their first use.
    ///
    /// # Errors
    /// `TableCorrupt` with file and offset; `UnsupportedFormatVersion`; `NotFound`, `IoFailed`.
    pub fn open(fs: &dyn Fs, path: &Path, id: TableId, access: BlockAccess) -> Result<Arc<TableReader>> {
        Self::open_file(fs.open(path)?, path, id, access)
    }

    /// As [`TableReader::open`], for a file that is open already; `path` names it in errors.
    ///
    /// # Errors
    /// As there.
    pub fn open_file(
        file: Arc<dyn ReadFile>,
        path: &Path,
        id: TableId,
        access: BlockAccess,
    ) -> Result<Arc<TableReader>> {
        Self::open_source(Arc::new(file), path, id, access)
    }

    /// As [`TableReader::open`], for bytes that come from anywhere; `path` names them in errors.
    ///
    /// # Errors
    /// As there.
    pub fn open_source(
        source: Arc<dyn TableSource>,
        path: &Path,
        id: TableId,
        access: BlockAccess,
    ) -> Result<Arc<TableReader>> {
        Self::open_based(source, (path, id), access, 0)
    }

    /// As [`TableReader::open_source`], for a table whose versions all count as written at `seqno_base`, if that is
    /// not 0: one that was ingested.
    pub(crate) fn open_based(
        source: Arc<dyn TableSource>,
        (path, id): (&Path, TableId),
        access: BlockAccess,
        seqno_base: Seqno,
    ) -> Result<Arc<TableReader>> {
        let (cache, map, filter) = match access {
            BlockAccess::Map(cache) => (cache, true, true),
            BlockAccess::Cache(cache) => (cache, false, true),
            BlockAccess::Stream => (Arc::new(BlockCache::new(0)), false, false),
        };
        let source = Source::new(source, map);
        let opened = source.and_then(|source| Self::read_sections(source, (path, id), cache, filter));
        let opened = opened.map(|reader| TableReader { seqno_base, ..reader });
        opened.map(Arc::new).map_err(|e| damage_of_table(e, path))
    }

    fn read_sections(
        source: Source,
        (path, id): (&Path, TableId),
        cache: Arc<BlockCache>,
        with_filter: bool,
    ) -> Result<TableReader> {
        let tail = source.tail()?;
        let trailer = trailer::read(source.len(), &mut |offset, buffer| tail.read(offset, buffer))?;
        if trailer.content_id != id.0 || trailer.kind != footer::KIND {
            return Err(Error::new(Code::Malformed, "the file is another one")
                .at(trailer.content_bytes)
                .expected_found(id, TableId(trailer.content_id)));
        }
        let footer = Self::read_footer(&tail, id, trailer.content_bytes)?;
        let unsealed = |section: SectionId| -> Result<Option<(Cow<'_, [u8]>, u64)>> {
            let Some((start, end)) = footer.place(section) else {
                return Ok(None);
            };
            let bytes = tail.section(start, end)?;
            footer::unseal(&bytes, id, start)?;
            Ok(Some((bytes, start)))
        };
        let needed = |section| -> Result<_> {
            let start = footer.need(section)?.0;
            unsealed(section)?.ok_or_else(|| Error::new(Code::Malformed, "a section is gone").at(start))
        };
        let (section, properties_at) = needed(SectionId::PROPERTIES)?;
        let file = (id, trailer.file_bytes(), trailer.digest);
        let facts = properties::decode(payload_of(&section), properties_at, file)?;
        let (section, index_at) = needed(SectionId::INDEX)?;
        let fence = Fence::decode(payload_of(&section), index_at, footer.blocks_end())?;
        if fence.blocks() as u64 != facts.blocks || fence.place(0).0 != footer::HEAD_BYTES {
            return Err(
                Error::new(Code::Malformed, "index and properties contradict each other")
                    .at(index_at)
                    .expected_found(facts.blocks, fence.blocks()),
            );
        }
        let range_deletes = range_deletes(unsealed(SectionId::RANGE_DELETES)?, &facts, properties_at)?;
        let budget = (!source.is_mapped()).then(|| cache.budget().clone());
        let read = |start, end| Ok(tail.section(start, end)?.into_owned());
        let filters = match (
            footer.place(SectionId::FILTER),
            footer.place(SectionId::FILTER_PARTITIONS),
        ) {
            _ if !with_filter => None,
            (_, Some(place)) => Some(Filters::partitions(
                (id, facts.keys),
                place,
                &fence,
                budget.clone(),
                read,
            )?),
            (Some(place), None) => Some(Filters::whole(id, facts.keys, place, budget.clone())),
            (None, None) => None,
        };
        let prefixes = footer
            .place(SectionId::PREFIX_FILTER)
            .filter(|_| with_filter && facts.filter_prefix > 0);
        let prefixes = prefixes.map(|place| Filters::whole(id, facts.keys, place, budget));
        let shared = |filters: Option<Filters>| {
            let filters = filters.map(Arc::new);
            if let Some(filters) = filters.as_ref().filter(|_| !source.is_mapped()) {
                cache.filters().add(filters);
            }
            filters
        };
        let (filter, prefix_filter) = (shared(filters), shared(prefixes));
        drop(tail);
        let checked = if source.is_mapped() { fence.blocks() } else { 0 };
        let checked = (0..checked).map(|_| OnceLock::new()).collect();
        let mut reader = TableReader {
            path: path.into(),
            facts,
            footer,
            source,
            _lease: cache.budget().lease(Pool::Meta),
            cached_as: cache.reader(),
            cache,
            fence,
            filter,
            range_deletes,
            prefix_filter,
            checked,
            seqno_base: 0,
        };
        reader._lease.overdraw(reader.memory_bytes());
        Ok(reader)
    }

    fn read_footer(tail: &Tail<'_>, id: TableId, content_bytes: u64) -> Result<Footer> {
        let short = || Error::new(Code::Malformed, "the file is too short for a table").at(content_bytes);
        let end_at = content_bytes
            .checked_sub(footer::FOOTER_END_BYTES)
            .ok_or_else(short)?;
        let bytes = Footer::bytes(&tail.section(end_at, content_bytes)?, end_at)?;
        let footer_at = content_bytes.checked_sub(bytes).ok_or_else(short)?;
        Footer::decode(&tail.section(footer_at, content_bytes)?, id, footer_at)
    }

    /// The newest version of `key` with a seqno of at most `seqno_max`. `hash` is [`crate::key::hash`] of the key.
    ///
    /// # Errors
    /// `TableCorrupt` if the block is damaged; `IoFailed`.
    #[inline(always)]
    pub fn get(&self, key: &[u8], hash: u64, seqno_max: Seqno) -> Result<Option<Found<'_>>> {
        if !self.may_contain(key, hash) || seqno_max < self.seqno_base {
            return Ok(None);
        }
        let index = self.fence.find(key);
        match self.block(index, true)? {
            BlockRef::Mapped(view) => {
                let found = self.sane(index, view.find_visible(key, hash, seqno_max))?;
                let Some((_, version)) = found else {
                    return Ok(None);
                };
                let value = view
                    .bytes
                    .get(version.value_start as usize..version.value_end as usize);
                let value = Slice::borrowed(self.sane(index, value)?);
                Ok(Some(Found {
                    seqno: version.seqno.max(self.seqno_base),
                    kind: version.kind,
                    value,
                }))
            }
            BlockRef::Cached(block) => {
                let found = self.sane(index, block.view().find_visible(key, hash, seqno_max))?;
                let Some((_, version)) = found else {
                    return Ok(None);
                };
                let value = Slice::in_block(block, version.value_start, version.value_end);
                Ok(Some(Found {
                    seqno: version.seqno.max(self.seqno_base),
                    kind: version.kind,
                    value,
                }))
            }
        }
    }

    /// Hands every version of `key` with a seqno of at most `seqno_max` to `each`, newest first, until it breaks.
    ///
    /// # Errors
    /// As [`TableReader::get`].
    pub fn versions(
        &self,
        key: &[u8],
        hash: u64,
        seqno_max: Seqno,
        each: &mut dyn FnMut(Entry<'_>) -> ControlFlow<()>,
    ) -> Result<ControlFlow<()>> {
        if !self.may_contain(key, hash) || seqno_max < self.seqno_base {
            return Ok(ControlFlow::Continue(()));
        }
        let index = self.fence.find(key);
        let block = self.block(index, true)?;
        let view = block.view();
        let first = self.sane(index, view.find_visible(key, hash, seqno_max))?;
        let mut at = first.map(|(at, _)| at);
        while let Some(entry_at) = at {
            let mut entry = self.sane(index, view.entry(entry_at))?;
            entry.seqno = entry.seqno.max(self.seqno_base);
            if each(entry).is_break() {
                return Ok(ControlFlow::Break(()));
            }
            at = self.sane(index, view.older(entry_at, key))?.map(|(at, _)| at);
        }
        Ok(ControlFlow::Continue(()))
    }

    /// Whether the table can hold `key`, of which `hash` is the [`crate::key::hash`]: false is certain. True without
    /// a filter.
    #[inline]
    pub fn may_contain(&self, key: &[u8], hash: u64) -> bool {
        match &self.filter {
            None => true,
            Some(filters) => filters.may_contain(&self.source, &self.fence, key, hash),
        }
    }

    /// Whether the table can hold a key that begins with `prefix`: false is certain. True without a prefix filter or
    /// for a prefix that is shorter than those in it.
    pub fn may_contain_prefix(&self, prefix: &[u8]) -> bool {
        match (
            &self.prefix_filter,
            prefix.get(..usize::from(self.facts.filter_prefix)),
        ) {
            (Some(filter), Some(prefix)) => {
                filter.may_contain(&self.source, &self.fence, prefix, crate::key::hash(prefix))
            }
            _ => true,
        }
    }

    /// Block `block`, verified. `keep` says whether the cache shall have it.
    #[inline]
    pub(super) fn block(&self, block: usize, keep: bool) -> Result<BlockRef<'_>> {
        if let Some(geometry) = self.checked.get(block).and_then(OnceLock::get) {
            let (start, end) = self.fence.place(block);
            if let Some(bytes) = self.source.mapped(start as usize, end as usize - TAIL_BYTES) {
                return Ok(BlockRef::Mapped(BlockView { bytes, geometry }));
            }
        }
        self.load(block, keep)
    }

    /// A block that was verified in the map, or is in the cache.
    #[inline]
    pub(super) fn block_at_hand(&self, block: usize) -> Option<BlockRef<'_>> {
        if self
            .checked
            .get(block)
            .is_some_and(|geometry| geometry.get().is_some())
        {
            return self.block(block, true).ok();
        }
        let (start, _) = self.fence.place(block);
        let kept = self.cache.get_kept(self.cached_as, start);
        kept.map(BlockRef::Cached)
    }

    #[inline(never)]
    fn load(&self, block: usize, keep: bool) -> Result<BlockRef<'_>> {
        let (start, _) = self.fence.place(block);
        let spare = match self.cache.get(self.cached_as, start, keep) {
            Looked::Hit(block) => return Ok(BlockRef::Cached(block)),
            Looked::Miss(spare) => spare,
        };
        let loaded = self
            .read_block(block, keep, spare)
            .map_err(|e| damage_of_table(e, &self.path))?;
        if let BlockRef::Cached(block) = &loaded
            && keep
        {
            self.cache.insert(self.cached_as, start, block);
        }
        Ok(loaded)
    }

    /// Reads, verifies and decodes a block from the file; into the memory of `spare`, if there is one.
    fn read_block(&self, block: usize, keep: bool, spare: Option<Arc<Block>>) -> Result<BlockRef<'_>> {
        let (start, end) = self.fence.place(block);
        let id = self.facts.id;
        let pool = if keep { Pool::Block } else { Pool::Iterator };
        let decoded = |raw, spare: Option<Arc<Block>>| -> Result<BlockRef<'_>> {
            if let Some(mut reused) = spare
                && let Some(block) = Arc::get_mut(&mut reused)
            {
                block.refill(raw, start)?;
                return Ok(BlockRef::Cached(reused));
            }
            let block = Block::new(raw, start)?.charge(self.cache.budget(), pool);
            Ok(BlockRef::Cached(Arc::new(block)))
        };
        if let Some(stored) = self.source.mapped(start as usize, end as usize) {
            return match compress::open(stored, id, start)? {
                Stored::Raw(bytes) => {
                    let geometry = Geometry::parse(bytes, start)?;
                    let slot = self.checked.get(block);
                    let geometry = slot.map(|slot| slot.get_or_init(|| geometry));
                    let broken = || Error::new(Code::Malformed, "the map has no such block").at(start);
                    Ok(BlockRef::Mapped(BlockView {
                        bytes,
                        geometry: geometry.ok_or_else(broken)?,
                    }))
                }
                Stored::Packed(packed) => decoded(packed.unpack()?, spare),
            };
        }
        let mut spare = spare;
        let reused = spare.as_mut().and_then(Arc::get_mut);
        let mut stored = reused.map(Block::take_memory).unwrap_or_default();
        self.source.read_again(start, end, &mut stored)?;
        let raw = match compress::open(&stored, id, start)? {
            Stored::Raw(bytes) => {
                let bytes = bytes.len();
                stored.truncate(bytes);
                stored
            }
            Stored::Packed(packed) => packed.unpack()?,
        };
        decoded(raw, spare)
    }

    /// Turns nonsense inside of a block into an error.
    #[inline(always)]
    pub(super) fn sane<T>(&self, block: usize, answer: Sane<T>) -> Result<T> {
        match answer {
            Some(answer) => Ok(answer),
            None => Err(self.nonsense(block)),
        }
    }

    #[cold]
    #[inline(never)]
    fn nonsense(&self, block: usize) -> Error {
        Error::new(Code::TableCorrupt, "an entry of a block makes no sense")
            .in_file(&self.path)
            .at(self.fence.place(block).0)
    }

    /// Names the content.
    pub fn id(&self) -> TableId {
        self.facts.id
    }

    /// Where the file is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Everything known about the table.
    pub fn facts(&self) -> &TableFacts {
        &self.facts
    }

    /// Which keys are gone, of this table and of everything older.
    pub fn range_deletes(&self) -> Option<&Arc<RangeDeletes>> {
        self.range_deletes.as_ref()
    }

    /// Bytes of the blocks that can hold keys of `range`, from the index.
    pub fn bytes_in(&self, range: &KeyRange) -> u64 {
        self.fence.bytes_in(range)
    }

    /// Bytes of memory the open table takes besides its mapped or cached blocks.
    pub fn memory_bytes(&self) -> usize {
        let filters = [&self.filter, &self.prefix_filter].into_iter().flatten();
        let filters: usize = filters.map(|filters| filters.memory_bytes()).sum();
        let deletes = self.range_deletes.as_ref().map_or(0, |deletes| deletes.bytes());
        self.fence.memory_bytes() + filters + deletes + self.checked.len() * size_of::<OnceLock<Geometry>>()
    }
}

impl fmt::Debug for TableReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TableReader")
            .field("path", &self.path)
            .field("mapped", &self.source.is_mapped())
            .field("facts", &self.facts)
            .finish_non_exhaustive()
    }
}

impl BlockRef<'_> {
    #[inline]
    pub(super) fn view(&self) -> BlockView<'_> {
        match self {
            BlockRef::Mapped(view) => *view,
            BlockRef::Cached(block) => block.view(),
        }
    }
}

/// The range deletes in their section, which must be those that the facts tell of.
fn range_deletes(
    section: Option<(Cow<'_, [u8]>, u64)>,
    facts: &TableFacts,
    properties_at: u64,
) -> Result<Option<Arc<RangeDeletes>>> {
    let at = section.as_ref().map_or(properties_at, |(_, at)| *at);
    let deletes = match section {
        Some((section, at)) => RangeDeletes::decode(payload_of(&section), at)?,
        None => RangeDeletes::new(),
    };
    let found = deletes.len() as u64;
    if found != facts.range_deletes || deletes.extent() != facts.deleted {
        return Err(Error::new(
            Code::Malformed,
            "range deletes and properties contradict each other",
        )
        .at(at)
        .expected_found(facts.range_deletes, found));
    }
    Ok((found > 0).then(|| Arc::new(deletes)))
}

/// A section that was unsealed, without its checksum.
fn payload_of(section: &[u8]) -> &[u8] {
    section
        .split_last_chunk::<8>()
        .map_or(&[], |(payload, _)| payload)
}

/// Names the file, and what broken bytes in it mean.
#[cold]
pub(super) fn damage_of_table(error: Error, path: &Path) -> Error {
    error.recode_malformed(Code::TableCorrupt).in_file(path)
}
