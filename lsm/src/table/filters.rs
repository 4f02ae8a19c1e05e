//! The filters of an open table: one for all keys of a small table, else one per group of neighbouring blocks; each is
//! read and checked when it is asked for the first time.
//!
//! ```text
//! filter partitions   per group: filter · xxh3-64
//!                     directory: per group first block u32 · stored bytes u32, then groups u32 · xxh3-64
//! ```
//! A reader that was asked about few ranges of keys holds the filters of these ranges; a view of a part of a table
//! never reads the others. In a mapped table a filter stays in the map. Elsewhere it is copied, counts against the
//! budget, and may be dropped and read again ([`FilterPool`]). A filter that is damaged or cannot be read says that
//! the table may hold the key: right, if slow; whole-file verification names the damage. Page: docs/format/table.md.

use super::{
    fence::Fence,
    filter::{self, Filter},
    footer,
    source::Source,
};
use crate::{
    budget::{Lease, MemoryBudget, Pool},
    key::TableId,
    sync::{Mutex, RwLock},
};
use keybed_format::{Code, Cursor, Error, Result, Sink};
use std::sync::{
    Arc, OnceLock, Weak,
    atomic::{AtomicBool, Ordering::Relaxed},
};

/// Keys of a group of blocks, about: its filter is as large as a block.
const GROUP_KEYS: usize = 16 << 10;
/// Tables of so many keys have one filter: it is read with the index, in one go.
const WHOLE_KEYS_MAX: usize = 2 * GROUP_KEYS;
/// Bytes of a group in the directory.
const LISTED_BYTES: usize = 8;
/// Bytes of the directory behind its list.
const DIRECTORY_END_BYTES: u64 = 12;

/// The filters of one table over keys, or over prefixes of keys.
#[derive(Debug)]
pub(crate) struct Filters {
    id: TableId,
    budget: Option<MemoryBudget>,
    /// Keys of the table: no filter is that of more.
    keys_max: u64,
    /// Numbers of the separators before the groups 1.., see [`Fence`]: most look-ups need no more to find a group.
    numbers: Box<[u64]>,
    /// First block of each group.
    first_blocks: Box<[u32]>,
    groups: Box<[Group]>,
}

#[derive(Debug)]
struct Group {
    /// Where the filter lies, its checksum included.
    start: u64,
    end: u64,
    /// In a mapped table: the filter, or that it is damaged.
    mapped: OnceLock<Option<Filter>>,
    /// Else: its bytes while they are here. Guards them alone; held while a filter is read, so it is read once.
    held: RwLock<Option<Held>>,
    /// Asked since the hand of the pool passed it. Relaxed: it only sways which filter is dropped.
    used: AtomicBool,
}

#[derive(Debug)]
struct Held {
    /// `None`: damaged.
    filter: Option<(Filter, Vec<u8>)>,
    _lease: Lease,
}

impl Group {
    fn new(start: u64, end: u64) -> Group {
        Group {
            start,
            end,
            mapped: OnceLock::new(),
            held: RwLock::new(None),
            used: AtomicBool::new(false),
        }
    }
}

/// The payload of a section that groups hashes by blocks, or `None` if there are too few or they allow no filter.
/// `ends` are the numbers of hashes up to the end of each block; `seal` puts the checksum behind a part that lies at an
/// offset of the section.
pub(crate) fn build_partitions(
    hashes: &[u64],
    ends: &[usize],
    mut seal: impl FnMut(Vec<u8>, u64) -> Vec<u8>,
) -> Option<Vec<u8>> {
    if hashes.len() <= WHOLE_KEYS_MAX {
        return None;
    }
    let (mut out, mut directory, mut groups) = (Vec::new(), Sink::new(), 0);
    let (mut first_block, mut from) = (0, 0);
    for (block, &end) in ends.iter().enumerate() {
        // The rest is never a group of less than half the keys.
        let is_last = block + 1 == ends.len();
        let is_cut = end - from >= GROUP_KEYS && hashes.len() - end >= GROUP_KEYS / 2;
        if !is_last && !is_cut {
            continue;
        }
        let part = seal(filter::build(hashes.get(from..end)?.to_vec())?, out.len() as u64);
        directory.u32(first_block as u32).u32(part.len() as u32);
        out.extend(part);
        (first_block, from, groups) = (block + 1, end, groups + 1);
    }
    directory.u32(groups);
    let at = out.len() as u64;
    out.extend(seal(directory.into_vec(), at));
    Some(out)
}

/// About how many bytes the filters of `keys` keys take.
pub(crate) fn estimated_bytes(keys: usize) -> usize {
    if keys <= WHOLE_KEYS_MAX {
        filter::estimated_bytes(keys)
    } else {
        (filter::estimated_bytes(GROUP_KEYS) + 16) * (keys / GROUP_KEYS)
    }
}

impl Filters {
    /// One filter, which lies at `place`, its checksum included.
    pub(crate) fn whole(
        id: TableId,
        keys_max: u64,
        (start, end): (u64, u64),
        budget: Option<MemoryBudget>,
    ) -> Filters {
        Filters {
            id,
            budget,
            keys_max,
            numbers: Box::default(),
            first_blocks: Box::new([0]),
            groups: Box::new([Group::new(start, end)]),
        }
    }

    /// The filters of the section of partitions at `place`, of which `read` hands out bytes; reads the directory.
    ///
    /// # Errors
    /// `Malformed` with the offset.
    pub(crate) fn partitions(
        (id, keys_max): (TableId, u64),
        (start, end): (u64, u64),
        fence: &Fence,
        budget: Option<MemoryBudget>,
        read: impl Fn(u64, u64) -> Result<Vec<u8>>,
    ) -> Result<Filters> {
        let malformed = |what: &str, at: u64| Error::new(Code::Malformed, what).at(at);
        let end_at = end
            .checked_sub(DIRECTORY_END_BYTES)
            .filter(|at| *at >= start)
            .ok_or_else(|| malformed("the filter partitions are too short", start))?;
        let count = u64::from(Cursor::with_base(&read(end_at, end)?, end_at).u32()?);
        let directory_at = (count * LISTED_BYTES as u64)
            .checked_add(start)
            .and_then(|bytes| end_at.checked_sub(bytes - start))
            .filter(|at| *at >= start && count > 0)
            .ok_or_else(|| malformed("the directory of the filter partitions is too long", end_at))?;
        let directory = read(directory_at, end)?;
        let payload = footer::unseal(&directory, id, directory_at)?;
        let mut c = Cursor::with_base(payload, directory_at);
        let mut found = Filters {
            id,
            budget,
            keys_max,
            numbers: Box::default(),
            first_blocks: Box::default(),
            groups: Box::default(),
        };
        let (mut at, mut first_blocks, mut groups) = (start, Vec::new(), Vec::new());
        for _ in 0..count {
            let (first, bytes) = (c.u32()?, u64::from(c.u32()?));
            let in_order = first_blocks.last().map_or(first == 0, |last| *last < first);
            if !in_order || first as usize >= fence.blocks() || bytes <= 8 {
                return Err(c.malformed("the filter partitions are not in order"));
            }
            first_blocks.push(first);
            groups.push(Group::new(at, at.saturating_add(bytes)));
            at = at.saturating_add(bytes);
        }
        if at != directory_at {
            return Err(c.malformed("the filter partitions do not fill their place"));
        }
        let numbers = first_blocks.iter().skip(1);
        found.numbers = numbers
            .map(|&first| fence.number_before(first as usize))
            .collect();
        found.first_blocks = first_blocks.into();
        found.groups = groups.into();
        Ok(found)
    }

    /// Whether the keys can hold `key`; false is certain.
    #[inline]
    pub(crate) fn may_contain(&self, source: &Source, fence: &Fence, key: &[u8], hash: u64) -> bool {
        let at = if self.groups.len() == 1 {
            0
        } else {
            self.group_of(fence, key)
        };
        self.groups
            .get(at)
            .is_none_or(|group| self.asks(group, source, hash))
    }

    /// The group whose blocks can hold `key`.
    #[inline]
    fn group_of(&self, fence: &Fence, key: &[u8]) -> usize {
        if let Some(number) = fence.number_of(key) {
            let before = self.numbers.partition_point(|&n| n < number);
            if self.numbers.get(before) != Some(&number) {
                return before;
            }
        }
        self.group_of_block(fence.find(key))
    }

    #[cold]
    fn group_of_block(&self, block: usize) -> usize {
        self.first_blocks
            .partition_point(|&first| first as usize <= block)
            .saturating_sub(1)
    }

    #[inline(always)]
    fn asks(&self, group: &Group, source: &Source, hash: u64) -> bool {
        if source.is_mapped() {
            let filter = match group.mapped.get() {
                Some(filter) => filter,
                None => self.check(group, source),
            };
            let section = || source.mapped(group.start as usize, group.end as usize);
            return match filter {
                Some(filter) => section().is_none_or(|section| filter.may_contain(section, hash)),
                None => true,
            };
        }
        self.asks_held(group, source, hash)
    }

    fn asks_held(&self, group: &Group, source: &Source, hash: u64) -> bool {
        let asks = |held: &Held| match &held.filter {
            Some((filter, section)) => filter.may_contain(section, hash),
            None => true,
        };
        if let Some(held) = &*group.held.read() {
            if !group.used.load(Relaxed) {
                group.used.store(true, Relaxed);
            }
            return asks(held);
        }
        let mut slot = group.held.write();
        if let Some(held) = &*slot {
            return asks(held);
        }
        let Ok(section) = source.read(group.start, group.end) else {
            // Whoever reads the block is told.
            return true;
        };
        let filter = self.decode(group, &section);
        let bytes = section.len() + size_of::<Held>();
        let mut lease = match &self.budget {
            Some(budget) => budget.lease(Pool::Meta),
            None => MemoryBudget::unlimited().lease(Pool::Meta),
        };
        let stays = lease.try_grow(bytes);
        let held = Held {
            filter: filter.map(|filter| (filter, section.into_owned())),
            _lease: lease,
        };
        let answer = asks(&held);
        if stays {
            *slot = Some(held);
        }
        answer
    }

    #[cold]
    #[inline(never)]
    fn check<'g>(&self, group: &'g Group, source: &Source) -> &'g Option<Filter> {
        let section = source.mapped(group.start as usize, group.end as usize);
        let filter = section.and_then(|section| self.decode(group, section));
        group.mapped.get_or_init(|| filter)
    }

    fn decode(&self, group: &Group, section: &[u8]) -> Option<Filter> {
        self.decode_checked(group, section).ok()
    }

    fn decode_checked(&self, group: &Group, section: &[u8]) -> Result<Filter> {
        let payload = footer::unseal(section, self.id, group.start)?;
        let filter = Filter::decode(payload, group.start)?;
        // Keys whose hashes are equal count once.
        if u64::from(filter.keys()) > self.keys_max {
            return Err(Error::new(Code::Malformed, "the filter is that of more keys").at(group.start));
        }
        Ok(filter)
    }

    /// Reads and checks all of them.
    ///
    /// # Errors
    /// `Malformed` with the offset; those of reading.
    pub(crate) fn verify(&self, source: &Source) -> Result {
        for group in &self.groups {
            self.decode_checked(group, &source.read(group.start, group.end)?)?;
        }
        Ok(())
    }

    /// How many there are.
    pub(crate) fn groups(&self) -> usize {
        self.groups.len()
    }

    /// Bytes of memory taken, the filters that are here included.
    pub(crate) fn memory_bytes(&self) -> usize {
        let held = |group: &Group| match &*group.held.read() {
            Some(Held {
                filter: Some((_, section)),
                ..
            }) => section.capacity(),
            _ => 0,
        };
        let fixed = size_of::<Group>() + size_of::<u64>() + size_of::<u32>();
        self.groups.len() * fixed + self.groups.iter().map(held).sum::<usize>()
    }
}

/// The filters of all tables that are not mapped, for whoever needs their memory more.
#[derive(Debug, Default)]
pub(crate) struct FilterPool {
    /// Guards list and hand; no I/O under it.
    clock: Mutex<Clock>,
}

#[derive(Debug, Default)]
struct Clock {
    tables: Vec<Weak<Filters>>,
    table: usize,
    group: usize,
}

impl FilterPool {
    /// Takes note of a table.
    pub(crate) fn add(&self, filters: &Arc<Filters>) {
        let mut clock = self.clock.lock();
        // Now and then, those that are gone are taken out: the list is at most twice as long as it need be.
        if clock.tables.len() == clock.tables.capacity() {
            clock.tables.retain(|table| table.strong_count() > 0);
        }
        clock.tables.push(Arc::downgrade(filters));
    }

    /// Drops filters that were not asked lately until `bytes` are free, or all of them; says how much.
    pub(crate) fn shrink(&self, bytes: usize) -> usize {
        let clock = &mut *self.clock.lock();
        let (mut freed, mut rounds) = (0, 0);
        while freed < bytes && !clock.tables.is_empty() {
            if clock.table >= clock.tables.len() {
                (clock.table, rounds) = (0, rounds + 1);
                // After two rounds nothing is marked; what is left is being asked right now.
                if rounds > 2 {
                    break;
                }
            }
            let Some(filters) = clock.tables[clock.table].upgrade() else {
                clock.tables.swap_remove(clock.table);
                clock.group = 0;
                continue;
            };
            let Some(group) = filters.groups.get(clock.group) else {
                (clock.table, clock.group) = (clock.table + 1, 0);
                continue;
            };
            clock.group += 1;
            if group.used.swap(false, Relaxed) {
                continue;
            }
            let held = group.held.try_write().and_then(|mut slot| slot.take());
            freed += held.map_or(0, |held| held._lease.bytes());
        }
        freed
    }
}
