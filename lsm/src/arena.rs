//! Append-only memory of a memtable: chunks that double from 4 KiB to 2 MiB.
//!
//! ```text
//! Place (u32) = chunk number (14 bits) · offset in the chunk in units of 8 bytes (18 bits)
//!
//! chunk 0  4 KiB   [8 bytes unused][record][record]…
//! chunk 1  8 KiB   [record]…
//! …                2 MiB each from chunk 9 on; a record above 2 MiB gets a chunk of its own
//! ```
//! Records are multiples of 8 bytes. Place 0 is never handed out, so it can mean "none". No memory is freed before the
//! whole arena is, but the bytes of a record that was [given](Arena::give) back go to the next one of equal length; an
//! idle memtable holds no chunk at all.

use crate::budget::Allotment;

/// Where a record starts; 0 is nowhere.
pub(crate) type Place = u32;

/// Alignment of records in bytes.
pub(crate) const UNIT: usize = 8;
const UNIT_BITS: u32 = 18;
const UNIT_MASK: u32 = (1 << UNIT_BITS) - 1;
const CHUNK_BYTES_FIRST: usize = 4 << 10;
const CHUNK_BYTES_MAX: usize = 2 << 20;
const CHUNKS_MAX: usize = 1 << (32 - UNIT_BITS);
/// Units of the longest record whose bytes are used again.
const FREE_UNITS_MAX: usize = (4 << 10) / UNIT;

/// Chunks of records.
#[derive(Debug, Default)]
pub(crate) struct Arena {
    chunks: Vec<Vec<u8>>,
    /// The chunk that takes small records; records above [`CHUNK_BYTES_MAX`] lie in chunks of their own.
    current: usize,
    used: usize,
    /// By length in units: the record that was given back last. The first four bytes of each name the one before.
    free: Vec<Place>,
    /// What the chunks take of the budget.
    memory: Allotment,
}

impl Arena {
    /// Without chunks; those to come are paid from `memory`.
    pub(crate) fn within(memory: Allotment) -> Self {
        Arena {
            memory,
            ..Arena::default()
        }
    }

    /// Whether records of `bytes` together fit without a further chunk.
    #[inline(always)]
    pub(crate) fn has_room(&self, bytes: usize) -> bool {
        self.chunks
            .get(self.current)
            .is_some_and(|chunk| chunk.capacity() - chunk.len() >= bytes)
    }

    /// Pays for the chunks that records of `bytes` together may need; false if the memory is not there.
    pub(crate) fn prepare(&mut self, bytes: usize) -> bool {
        let next = CHUNK_BYTES_FIRST << self.chunks.len().min(9);
        self.has_room(bytes)
            || self.memory.prepay(if bytes + UNIT <= next {
                next
            } else {
                // Large records get chunks of their own, and what is left of a chunk before them stays unused.
                bytes + UNIT + next.max(bytes / 4)
            })
    }

    /// What was paid for.
    pub(crate) fn paid_bytes(&self) -> usize {
        self.memory.bytes()
    }

    /// Bytes handed out, those given back included.
    pub(crate) fn used(&self) -> usize {
        self.used
    }

    /// Bytes taken from the system.
    #[cfg(test)]
    fn capacity(&self) -> usize {
        self.chunks.iter().map(Vec::capacity).sum()
    }

    /// Whether a further record may find no place: the memtable must be sealed first. Leaves room for one more
    /// chunk of each kind, so the record that was under way still fits.
    pub(crate) fn is_full(&self) -> bool {
        self.chunks.len() + 2 > CHUNKS_MAX
    }

    /// Appends a record of three parts and `slack` unused bytes, rounded up to [`UNIT`].
    #[inline]
    pub(crate) fn push(&mut self, header: &[u8], key: &[u8], value: &[u8], slack: usize) -> Place {
        let bytes = (header.len() + key.len() + value.len() + slack).next_multiple_of(UNIT);
        if let Some(place) = self.take(bytes / UNIT) {
            let (at, behind) = self.at_mut(place).split_at_mut(header.len());
            let (key_at, value_at) = behind.split_at_mut(key.len());
            at.copy_from_slice(header);
            key_at.copy_from_slice(key);
            value_at[..value.len()].copy_from_slice(value);
            return place;
        }
        let chunk = match self.chunks.get(self.current) {
            Some(chunk) if chunk.capacity() - chunk.len() >= bytes => self.current,
            _ => self.grow(bytes),
        };
        self.used += bytes;
        let at = &mut self.chunks[chunk];
        let start = at.len();
        at.extend_from_slice(header);
        at.extend_from_slice(key);
        at.extend_from_slice(value);
        at.resize(start + bytes, 0);
        ((chunk as u32) << UNIT_BITS) | (start / UNIT) as u32
    }

    /// The place of a record of `units` that was given back.
    #[inline(always)]
    fn take(&mut self, units: usize) -> Option<Place> {
        let place = *self.free.get(units)?;
        if place == 0 {
            return None;
        }
        let mut before = [0; 4];
        before.copy_from_slice(&self.at(place)[..4]);
        self.free[units] = Place::from_le_bytes(before);
        Some(place)
    }

    /// Takes the bytes of a record back that nothing names any more. [`Arena::walk`] goes on visiting it.
    pub(crate) fn give(&mut self, place: Place, bytes: usize) {
        let units = bytes.div_ceil(UNIT);
        if units > FREE_UNITS_MAX {
            return;
        }
        if units >= self.free.len() {
            self.free.resize(units + 1, 0);
        }
        let before = std::mem::replace(&mut self.free[units], place);
        self.at_mut(place)[..4].copy_from_slice(&before.to_le_bytes());
    }

    #[cold]
    #[inline(never)]
    fn grow(&mut self, bytes: usize) -> usize {
        assert!(
            self.chunks.len() < CHUNKS_MAX,
            "the memtable was not sealed although its arena is full"
        );
        let number = self.chunks.len();
        if bytes > CHUNK_BYTES_MAX {
            // Offset 0 of chunk 0 is reserved; a big first record therefore goes behind the unused unit.
            self.chunks.push(Vec::with_capacity(bytes + UNIT));
        } else {
            let doubled = CHUNK_BYTES_FIRST << number.min(9);
            let unused = if number == 0 { UNIT } else { 0 };
            self.chunks.push(Vec::with_capacity(doubled.max(bytes + unused)));
            self.current = number;
        }
        self.memory.charge(self.chunks[number].capacity());
        if number == 0 {
            self.chunks[0].resize(UNIT, 0);
        }
        number
    }

    /// From the record at `place` to the end of its chunk.
    #[inline(always)]
    pub(crate) fn at(&self, place: Place) -> &[u8] {
        &self.chunks[(place >> UNIT_BITS) as usize][(place & UNIT_MASK) as usize * UNIT..]
    }

    /// As [`Arena::at`], to overwrite.
    #[inline(always)]
    pub(crate) fn at_mut(&mut self, place: Place) -> &mut [u8] {
        &mut self.chunks[(place >> UNIT_BITS) as usize][(place & UNIT_MASK) as usize * UNIT..]
    }

    /// Visits every record in the order of the pushes; `visit` says how many bytes the record it was given takes.
    pub(crate) fn walk(&self, mut visit: impl FnMut(Place, &[u8]) -> usize) {
        for (number, chunk) in self.chunks.iter().enumerate() {
            let mut at = if number == 0 { UNIT } else { 0 };
            while at < chunk.len() {
                let place = ((number as u32) << UNIT_BITS) | (at / UNIT) as u32;
                at += visit(place, &chunk[at..]).next_multiple_of(UNIT);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_keep_their_places_while_the_arena_grows() {
        let mut arena = Arena::default();
        let mut places = Vec::new();
        for n in [
            1_usize,
            100,
            5000,
            CHUNK_BYTES_MAX,
            CHUNK_BYTES_MAX + 1,
            9,
            3 << 20,
        ]
        .into_iter()
        .cycle()
        .take(60)
        {
            let record = vec![n as u8; n];
            places.push((arena.push(&record, b"", b"", 0), record));
        }
        for (place, record) in &places {
            assert_ne!(*place, 0);
            assert_eq!(&arena.at(*place)[..record.len()], record);
        }
        let mut walked = Vec::new();
        let sizes: std::collections::BTreeMap<_, _> = places.iter().map(|(p, r)| (*p, r.len())).collect();
        arena.walk(|place, _| {
            walked.push(place);
            sizes[&place]
        });
        walked.sort_unstable();
        assert_eq!(walked, sizes.keys().copied().collect::<Vec<_>>());
    }

    #[test]
    fn what_is_given_back_goes_to_records_of_equal_length() {
        let mut arena = Arena::default();
        let places: Vec<_> = (0..9).map(|n| arena.push(&[n; 20], b"", b"", 4)).collect();
        let used = arena.used();
        for &place in &places[2..5] {
            arena.give(place, 24);
        }
        assert_ne!(arena.push(&[9; 8], b"key", b"", 30), places[4], "too long");
        let grown = arena.used();
        for &place in places[2..5].iter().rev() {
            assert_eq!(arena.push(&[7; 8], b"key", b"value", 8), place);
            assert_eq!(
                &arena.at(place)[..16],
                b"\x07\x07\x07\x07\x07\x07\x07\x07keyvalue"
            );
        }
        assert_eq!((used, arena.used()), (9 * 24, grown));
        assert!(
            !places.contains(&arena.push(&[7; 24], b"", b"", 0)),
            "nothing is left"
        );
        assert_eq!(arena.at(places[5])[..20], [5; 20], "the others stay");
    }

    #[test]
    fn an_idle_arena_costs_nothing_and_a_small_one_little() {
        let mut arena = Arena::default();
        assert_eq!(arena.capacity(), 0);
        arena.push(b"header", b"key", b"value", 3);
        assert_eq!(arena.used(), 24);
        assert!(arena.capacity() <= 4096);
    }
}
