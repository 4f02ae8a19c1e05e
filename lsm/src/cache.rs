//! The block cache: decoded blocks of tables that are not mapped, kept by CLOCK within a budget of bytes.
//!
//! A block's frame carries a *referenced* mark. A hit sets it; the hand that looks for room clears it once before it
//! evicts. Frames are dealt by hash to shards, each behind its own lock, so threads rarely meet; no lock is held
//! while a block is read or decoded. Blocks count against a [`MemoryBudget`] from their decoding to their end, cached
//! or not; whatever else needs memory of the budget makes the cache give way.
//!
//! Of what a shard evicts it keeps one block aside: the next one that is read takes its memory, so in a full cache a
//! miss neither allocates, nor clears memory, nor touches the budget.

use crate::{
    budget::MemoryBudget,
    sync::Mutex,
    table::{Block, filters::FilterPool},
};
use keybed_format::checksum;
use std::{
    collections::HashMap,
    hash::{BuildHasherDefault, Hasher},
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
};

const SHARDS_MAX: usize = 16;
/// A shard smaller than this would hold few blocks and evict what the next one has room for.
const SHARD_BYTES_MIN: usize = 1 << 20;

/// Decoded blocks of many tables under one budget. Cheap to share; dropping it drops the blocks that nobody pins.
#[derive(Debug)]
pub struct BlockCache {
    shards: Vec<Mutex<Shard>>,
    /// Relaxed: it bounds, and orders nothing.
    capacity_bytes: AtomicUsize,
    budget: MemoryBudget,
    /// The shard that gives way first next time.
    turn: AtomicUsize,
    filters: FilterPool,
    readers: AtomicU64,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Place {
    reader: ReaderId,
    offset: u64,
}

/// One open table, as the cache knows it. Not the table's id: stores that share a cache must not see each other's
/// blocks even where somebody makes ids that are not unique.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct ReaderId(u64);

impl Place {
    fn mixed(&self) -> u64 {
        let reader = self.reader.0.wrapping_mul(0xA076_1D64_78BD_642F);
        reader ^ self.offset.wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(29)
    }
}

impl std::hash::Hash for Place {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.mixed());
    }
}

/// Hands on the one word that [`Place`] feeds it, spread over all bits.
#[derive(Default)]
struct OneWord(u64);

impl Hasher for OneWord {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        self.0 = checksum::hash(bytes);
    }

    fn write_u64(&mut self, word: u64) {
        self.0 = word.wrapping_mul(0xC2B2_AE3D_27D4_EB4F);
        self.0 ^= self.0 >> 32;
    }
}

#[derive(Debug)]
struct Frame {
    place: Place,
    block: Arc<Block>,
    bytes: usize,
    referenced: bool,
}

#[derive(Debug, Default)]
struct Shard {
    /// Index in `frames` of each block.
    index: HashMap<Place, usize, BuildHasherDefault<OneWord>>,
    frames: Vec<Frame>,
    hand: usize,
    bytes: usize,
    /// Was evicted, and nobody else has it.
    spare: Option<Arc<Block>>,
    hits: u64,
    misses: u64,
}

/// What a look into the cache found.
pub(crate) enum Looked {
    /// The block.
    Hit(Arc<Block>),
    /// Perhaps memory to read it into; nobody else has it.
    Miss(Option<Arc<Block>>),
}

/// Counts since the cache was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CacheStats {
    /// Look-ups that found their block.
    pub hits: u64,
    /// Look-ups that did not.
    pub misses: u64,
    /// Bytes held now.
    pub bytes: usize,
    /// Blocks held now.
    pub blocks: usize,
}

impl BlockCache {
    /// A cache of at most `capacity_bytes`; 0 caches nothing.
    pub fn new(capacity_bytes: usize) -> Self {
        Self::within(&MemoryBudget::unlimited(), capacity_bytes)
    }

    /// As [`BlockCache::new`]; blocks count against `budget`.
    pub(crate) fn within(budget: &MemoryBudget, capacity_bytes: usize) -> Self {
        let shards = (capacity_bytes / SHARD_BYTES_MIN).clamp(1, SHARDS_MAX);
        BlockCache {
            shards: (0..shards).map(|_| Mutex::default()).collect(),
            capacity_bytes: AtomicUsize::new(capacity_bytes),
            budget: budget.clone(),
            turn: AtomicUsize::new(0),
            filters: FilterPool::default(),
            readers: AtomicU64::new(0),
        }
    }

    /// Takes in one open table.
    pub(crate) fn reader(&self) -> ReaderId {
        ReaderId(self.readers.fetch_add(1, Relaxed))
    }

    /// The most it keeps, in bytes.
    pub fn capacity_bytes(&self) -> usize {
        self.capacity_bytes.load(Relaxed)
    }

    /// Keeps up to `capacity_bytes` from now on, if that is more than before.
    pub(crate) fn raise_capacity(&self, capacity_bytes: usize) {
        self.capacity_bytes.fetch_max(capacity_bytes, Relaxed);
    }

    /// The filters of the tables whose blocks it keeps.
    pub(crate) fn filters(&self) -> &FilterPool {
        &self.filters
    }

    /// What its blocks count against.
    pub(crate) fn budget(&self) -> &MemoryBudget {
        &self.budget
    }

    fn shard(&self, place: Place) -> &Mutex<Shard> {
        // The shard comes from bits that the map inside the shard uses last.
        let at = (place.mixed().wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 60) as usize;
        &self.shards[at % self.shards.len()]
    }

    /// The block at `offset` of a table. If it is not here, whoever is going to [`BlockCache::insert`] it may take what
    /// was evicted before.
    pub(crate) fn get(&self, reader: ReaderId, offset: u64, is_kept: bool) -> Looked {
        let place = Place { reader, offset };
        let shard = &mut *self.shard(place).lock();
        if let Some(block) = shard.find(place) {
            Looked::Hit(block)
        } else {
            shard.misses += 1;
            Looked::Miss(if is_kept { shard.spare.take() } else { None })
        }
    }

    /// The block at `offset` of a table, if it is here. That it is not counts when somebody asks to read it.
    pub(crate) fn get_kept(&self, reader: ReaderId, offset: u64) -> Option<Arc<Block>> {
        let place = Place { reader, offset };
        self.shard(place).lock().find(place)
    }

    /// Keeps a block, evicting others; a block larger than a shard's share is not kept.
    pub(crate) fn insert(&self, reader: ReaderId, offset: u64, block: &Arc<Block>) {
        let bytes = block.memory_bytes();
        let share = self.capacity_bytes() / self.shards.len();
        if bytes > share {
            return;
        }
        let place = Place { reader, offset };
        let mut evicted = Vec::new();
        {
            let shard = &mut *self.shard(place).lock();
            if shard.index.contains_key(&place) {
                return;
            }
            while shard.bytes + bytes > share {
                let mut block = shard.evict();
                if shard.spare.is_none() && Arc::get_mut(&mut block).is_some() {
                    shard.spare = Some(block);
                } else {
                    evicted.push(block);
                }
            }
            shard.index.insert(place, shard.frames.len());
            shard.frames.push(Frame {
                place,
                block: block.clone(),
                bytes,
                referenced: false,
            });
            shard.bytes += bytes;
        }
        // Freed outside the lock.
        drop(evicted);
    }

    /// Evicts at least `bytes`, or everything, blocks before filters; says how much.
    pub(crate) fn shrink(&self, bytes: usize) -> usize {
        let mut freed = 0;
        let first = self.turn.fetch_add(1, Relaxed);
        for turn in 0..self.shards.len() {
            let left = self.shards.len() - turn;
            let share = bytes.saturating_sub(freed).div_ceil(left);
            let mut evicted = Vec::new();
            {
                let shard = &mut *self.shards[(first + turn) % self.shards.len()].lock();
                let before = shard.bytes;
                let spare = shard.spare.take();
                let spared = spare.as_ref().map_or(0, |block| block.memory_bytes());
                evicted.extend(spare);
                while before - shard.bytes + spared < share && !shard.frames.is_empty() {
                    evicted.push(shard.evict());
                }
                freed += before - shard.bytes + spared;
            }
            // Freed outside the lock.
            drop(evicted);
        }
        if freed < bytes {
            freed += self.filters.shrink(bytes - freed);
        }
        freed
    }

    /// Counts.
    pub fn stats(&self) -> CacheStats {
        let mut stats = CacheStats::default();
        for shard in &self.shards {
            let shard = shard.lock();
            stats.hits += shard.hits;
            stats.misses += shard.misses;
            stats.bytes += shard.bytes;
            stats.blocks += shard.frames.len();
        }
        stats
    }
}

impl Shard {
    /// A block that is here; counted and marked.
    #[inline]
    fn find(&mut self, place: Place) -> Option<Arc<Block>> {
        let frame = self.frames.get_mut(*self.index.get(&place)?)?;
        frame.referenced = true;
        self.hits += 1;
        Some(frame.block.clone())
    }

    /// Takes out the first frame behind the hand that was not referenced since the hand last passed it.
    fn evict(&mut self) -> Arc<Block> {
        loop {
            if self.hand >= self.frames.len() {
                self.hand = 0;
            }
            let frame = &mut self.frames[self.hand];
            if std::mem::take(&mut frame.referenced) {
                self.hand += 1;
                continue;
            }
            let out = self.frames.swap_remove(self.hand);
            self.index.remove(&out.place);
            if let Some(moved) = self.frames.get(self.hand) {
                self.index.insert(moved.place, self.hand);
            }
            self.bytes -= out.bytes;
            return out.block;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: ReaderId = ReaderId(9);

    fn block(bytes: usize) -> Arc<Block> {
        Arc::new(Block::of_bytes(bytes))
    }

    fn get(cache: &BlockCache, reader: ReaderId, offset: u64) -> Option<Arc<Block>> {
        match cache.get(reader, offset, false) {
            Looked::Hit(block) => Some(block),
            Looked::Miss(_) => None,
        }
    }

    #[test]
    fn what_was_evicted_is_handed_out_once_unless_somebody_has_it() {
        let cache = BlockCache::new(1 << 20);
        let pinned = block(400_000);
        cache.insert(TABLE, 0, &pinned);
        cache.insert(TABLE, 1, &block(400_000));
        let spare = || match cache.get(TABLE, 99, true) {
            Looked::Miss(spare) => spare,
            Looked::Hit(_) => panic!("nobody inserted it"),
        };
        assert!(spare().is_none(), "nothing was evicted yet");
        cache.insert(TABLE, 2, &block(400_000));
        assert!(spare().is_none(), "somebody reads the evicted block");
        cache.insert(TABLE, 3, &block(400_000));
        assert!(
            matches!(cache.get(TABLE, 98, false), Looked::Miss(None)),
            "not for those who keep nothing"
        );
        let mut taken = spare().expect("the second block was evicted");
        assert!(Arc::get_mut(&mut taken).is_some() && spare().is_none());
        cache.insert(TABLE, 4, &block(400_000));
        assert!(cache.shrink(1) > 400_000, "it is the first to go");
        assert!(spare().is_none());
        assert_eq!(cache.stats().blocks, 2);
        drop(pinned);
    }

    #[test]
    fn the_budget_holds_and_the_newest_block_is_there() {
        for capacity in [0, 1_000, 100_000, 40 << 20] {
            let cache = BlockCache::new(capacity);
            for i in 0..3_000_u64 {
                let kept = block(20_000 + i as usize * 7 % 10_000);
                cache.insert(TABLE, i * 20_000, &kept);
                assert!(cache.stats().bytes <= capacity);
                let found = get(&cache, TABLE, i * 20_000);
                assert_eq!(found.is_some(), capacity >= 100_000, "capacity {capacity}");
                assert!(found.is_none_or(|found| Arc::ptr_eq(&found, &kept)));
            }
            assert!(get(&cache, ReaderId(8), 0).is_none(), "a block of another table");
        }
    }

    #[test]
    fn a_block_in_use_outlives_one_pass_over_many() {
        let cache = BlockCache::new(1 << 20);
        cache.insert(TABLE, 0, &block(10_000));
        for i in 1..1_000 {
            assert!(get(&cache, TABLE, 0).is_some(), "lost after {i} others");
            cache.insert(TABLE, i, &block(10_000));
        }
        let stats = cache.stats();
        assert_eq!((stats.hits, stats.misses), (999, 0));
        assert!(stats.blocks > 90, "{stats:?}");
    }

    #[test]
    fn threads_share_it() {
        let cache = BlockCache::new(4 << 20);
        std::thread::scope(|scope| {
            for thread in 0..4_u64 {
                let cache = &cache;
                scope.spawn(move || {
                    for i in 0..2_000 {
                        let offset = i * (thread + 1) % 500;
                        if get(cache, TABLE, offset).is_none() {
                            cache.insert(TABLE, offset, &block(16_384));
                        }
                    }
                });
            }
        });
        let stats = cache.stats();
        assert_eq!(stats.hits + stats.misses, 8_000);
        assert!(stats.bytes <= 4 << 20);
    }
}
