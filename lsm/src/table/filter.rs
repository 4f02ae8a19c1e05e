//! The filter: a binary fuse filter with 8-bit fingerprints over the hashes of a table's keys.
//!
//! Thomas Mueller Graf and Daniel Lemire, "Binary Fuse Filters: Fast and Smaller Than Xor Filters" (2022), section 3;
//! own layout. A hash names one byte in each of three neighbouring segments, and is in the set if the exclusive or
//! of the three equals its fingerprint: no false negative, false positives in 1 of 256, about 9 bits per key.
//!
//! ```text
//! filter   seed u64 · keys u32 · segments u32 · segment bits u8 · zero u8 × 7 · fingerprints u8 × ((segments + 2) << segment bits)
//! ```
//! The bytes are a function of the set of hashes: seeds are tried in a fixed order, sizes are computed in integers.
//! Page: docs/format/table.md.

use keybed_format::{Cursor, Result, Sink};

/// Bytes before the fingerprints.
pub(crate) const HEADER_BYTES: usize = 24;
/// Seeds tried before the table goes without a filter; each succeeds with a probability far above one half.
const SEEDS_MAX: u32 = 64;
/// Keys above this get no filter: their positions would not fit 32 bits.
const KEYS_MAX: usize = 1 << 31;

/// How a filter is laid out; the fingerprints lie behind the header wherever the section lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Filter {
    seed: u64,
    keys: u32,
    segments: u32,
    segment_bits: u8,
}

impl Filter {
    /// Reads the header of a filter section at `offset` of its file and checks that the fingerprints fill it.
    ///
    /// # Errors
    /// `Malformed` with the offset.
    pub(crate) fn decode(section: &[u8], offset: u64) -> Result<Filter> {
        let mut c = Cursor::with_base(section, offset);
        let filter = Filter {
            seed: c.u64()?,
            keys: c.u32()?,
            segments: c.u32()?,
            segment_bits: c.u8()?,
        };
        let zero = c.array::<7>()?;
        if zero != [0; 7] || filter.segment_bits > 18 || filter.segments == 0 {
            return Err(c.malformed("the header of a filter is impossible"));
        }
        if filter.fingerprints() != c.remaining() as u64 {
            return Err(c
                .malformed("the fingerprints do not fill the filter")
                .expected_found(filter.fingerprints(), c.remaining()));
        }
        Ok(filter)
    }

    fn fingerprints(&self) -> u64 {
        (u64::from(self.segments) + 2) << self.segment_bits
    }

    /// Keys it was built from.
    pub(crate) fn keys(&self) -> u32 {
        self.keys
    }

    #[inline(always)]
    fn mix(&self, hash: u64) -> u64 {
        mix(hash.wrapping_add(self.seed))
    }

    /// The three places of a mixed hash, the first segment being chosen by its high bits. All lie below
    /// `fingerprints()`: the first below `segments << bits`, each further one a segment behind, moved only inside
    /// of its segment.
    #[inline(always)]
    fn places(&self, mixed: u64) -> [usize; 3] {
        let bits = self.segment_bits;
        let mask = (1_u64 << bits) - 1;
        let first = ((u128::from(mixed) * u128::from(u64::from(self.segments) << bits)) >> 64) as u64;
        let second = (first + (1 << bits)) ^ ((mixed >> 18) & mask);
        let third = (first + (2 << bits)) ^ (mixed & mask);
        [first as usize, second as usize, third as usize]
    }

    /// Whether the set can hold `hash`; `section` is the one this filter was decoded from.
    #[inline(always)]
    pub(crate) fn may_contain(&self, section: &[u8], hash: u64) -> bool {
        let mixed = self.mix(hash);
        let [a, b, c] = self.places(mixed);
        let at = |place: usize| section.get(HEADER_BYTES + place).copied();
        match (at(a), at(b), at(c)) {
            (Some(a), Some(b), Some(c)) => a ^ b ^ c == fingerprint(mixed),
            // Not the section it was decoded from; true is never wrong.
            _ => true,
        }
    }
}

#[inline(always)]
fn mix(mut h: u64) -> u64 {
    h ^= h >> 33;
    h = h.wrapping_mul(0xff51_afd7_ed55_8ccd);
    h ^= h >> 33;
    h = h.wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    h ^ (h >> 33)
}

#[inline(always)]
fn fingerprint(mixed: u64) -> u8 {
    (mixed ^ (mixed >> 32)) as u8
}

/// log2(n) in units of 1/65536, rounded down, without floating point: the result is part of the format.
fn log2(n: u64) -> u64 {
    let whole = u64::from(n.max(1).ilog2());
    // The mantissa in [1, 2) with 31 bits behind the point; squaring it doubles its logarithm.
    let mut mantissa = (u128::from(n.max(1)) << 63 >> whole) as u64 >> 32;
    let mut result = whole;
    for _ in 0..16 {
        mantissa = ((u128::from(mantissa) * u128::from(mantissa)) >> 31) as u64;
        let carry = mantissa >> 32;
        mantissa >>= carry;
        result = result << 1 | carry;
    }
    result
}

/// Segments and their size for `keys` hashes: the paper's formulas for three places, in 1/65536.
fn shape(keys: usize) -> Filter {
    let n = keys.max(2) as u64;
    let log = log2(n);
    // floor(ln n / ln 3.33 + 2.25) bits, at most 18; log2(3.33) = 1.735522…
    let segment_bits = ((log * 65_536 / 113_739 + 147_456) >> 16).min(18) as u8;
    // Places per key: 0.875 + 0.25 · ln(1e6)/ln(n), at least 1.125; log2(1e6) = 19.931569…
    let factor = (57_344 + 326_559 * 65_536 / log).max(73_728);
    let wanted = (n * factor) >> 16;
    let segments = wanted.div_ceil(1 << segment_bits).saturating_sub(2).max(1);
    Filter {
        seed: 0,
        keys: keys as u32,
        segments: segments as u32,
        segment_bits,
    }
}

/// About how many bytes the filter of `keys` keys takes.
pub(crate) fn estimated_bytes(keys: usize) -> usize {
    if keys > KEYS_MAX {
        0
    } else {
        HEADER_BYTES + shape(keys).fingerprints() as usize
    }
}

/// Builds the section of a filter for `hashes` (in any order; equal ones count once).
///
/// `None` if there are too many, or if every seed fails, which takes hashes chosen against it.
pub(crate) fn build(mut hashes: Vec<u64>) -> Option<Vec<u8>> {
    if hashes.len() > KEYS_MAX {
        return None;
    }
    let mut work = Work::default();
    let mut seed = 0;
    for round in 0..SEEDS_MAX {
        if round == 3 {
            // Three failures in a row: most likely two keys share their hash, which no seed can part.
            hashes.sort_unstable();
            hashes.dedup();
        }
        // splitmix64
        seed = u64::wrapping_add(seed, 0x9E37_79B9_7F4A_7C15);
        let filter = Filter {
            seed: mix(seed),
            ..shape(hashes.len())
        };
        if work.peel(&filter, &hashes) {
            return Some(work.assign(&filter));
        }
    }
    None
}

/// What construction needs besides the hashes, about 20 bytes per key.
#[derive(Default)]
struct Work {
    /// Mixed hashes grouped by segment, so that neighbours in the list touch neighbours in the tables; later
    /// overwritten by the order of peeling.
    order: Vec<u64>,
    /// Which of its three places each peeled hash was alone in.
    alone_in: Vec<u8>,
    /// Per place: exclusive or of the hashes there.
    sums: Vec<u64>,
    /// Per place: number of hashes there × 4, exclusive or of which place (0, 1, 2) it is to them.
    counts: Vec<u32>,
    /// Places that hold exactly one hash.
    queue: Vec<u32>,
}

impl Work {
    /// Finds an order in which every hash has a place to itself once those behind it are gone; false if there is none
    /// with this seed.
    fn peel(&mut self, filter: &Filter, hashes: &[u64]) -> bool {
        let places = filter.fingerprints() as usize;
        self.group(filter, hashes);
        self.sums.clear();
        self.sums.resize(places, 0);
        self.counts.clear();
        self.counts.resize(places, 0);
        for &mixed in &self.order {
            for (which, place) in filter.places(mixed).into_iter().enumerate() {
                self.sums[place] ^= mixed;
                self.counts[place] = (self.counts[place] + 4) ^ which as u32;
            }
        }
        self.queue.clear();
        self.queue
            .extend((0..places as u32).filter(|&p| self.counts[p as usize] >> 2 == 1));
        self.alone_in.clear();
        while let Some(place) = self.queue.pop() {
            let place = place as usize;
            if self.counts[place] >> 2 != 1 {
                continue;
            }
            let mixed = self.sums[place];
            let which = (self.counts[place] & 3) as usize;
            // Peeled ones are put where the list has been used already: the tables hold all that is left.
            self.order[self.alone_in.len()] = mixed;
            self.alone_in.push(which as u8);
            for (other, place) in filter.places(mixed).into_iter().enumerate() {
                self.sums[place] ^= mixed;
                self.counts[place] = (self.counts[place] - 4) ^ other as u32;
                if self.counts[place] >> 2 == 1 {
                    self.queue.push(place as u32);
                }
            }
        }
        self.alone_in.len() == hashes.len()
    }

    /// Fills `order` with the mixed hashes, sorted coarsely by their first place.
    fn group(&mut self, filter: &Filter, hashes: &[u64]) {
        let bits = filter.segments.next_power_of_two().trailing_zeros().clamp(1, 12);
        let mut starts = vec![0_usize; (1 << bits) + 1];
        let group = |hash: u64| (filter.mix(hash) >> (64 - bits)) as usize;
        for &hash in hashes {
            starts[group(hash) + 1] += 1;
        }
        for i in 1..starts.len() {
            starts[i] += starts[i - 1];
        }
        self.order.clear();
        self.order.resize(hashes.len(), 0);
        for &hash in hashes {
            let next = &mut starts[group(hash)];
            self.order[*next] = filter.mix(hash);
            *next += 1;
        }
    }

    /// Sets the fingerprints in reverse order of peeling: the place a hash was alone in is not needed by any hash
    /// that was set before it.
    fn assign(&self, filter: &Filter) -> Vec<u8> {
        let mut out = Sink::with_capacity(HEADER_BYTES + filter.fingerprints() as usize);
        out.u64(filter.seed)
            .u32(filter.keys)
            .u32(filter.segments)
            .u8(filter.segment_bits)
            .raw(&[0; 7]);
        let mut section = out.into_vec();
        section.resize(HEADER_BYTES + filter.fingerprints() as usize, 0);
        for (&mixed, &which) in self.order.iter().zip(&self.alone_in).rev() {
            let [a, b, c] = filter.places(mixed).map(|place| HEADER_BYTES + place);
            let own = [a, b, c][usize::from(which)];
            section[own] ^= fingerprint(mixed) ^ section[a] ^ section[b] ^ section[c];
        }
        section
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use keybed_format::checksum;

    fn hashes(keys: u64) -> Vec<u64> {
        (0..keys).map(|i| checksum::hash(&i.to_be_bytes())).collect()
    }

    fn built(hashes: Vec<u64>) -> (Filter, Vec<u8>) {
        let section = build(hashes).unwrap();
        (Filter::decode(&section, 0).unwrap(), section)
    }

    #[test]
    fn no_key_is_denied_at_any_size() {
        for keys in (1..300).chain([1_000, 4_096, 10_007, 100_000]) {
            let hashes = hashes(keys);
            let (filter, section) = built(hashes.clone());
            assert!(
                hashes.iter().all(|&h| filter.may_contain(&section, h)),
                "{keys} keys"
            );
        }
    }

    #[test]
    fn fewer_than_one_in_a_hundred_strangers_pass_and_a_key_takes_about_nine_bits() {
        let (filter, section) = built(hashes(100_000));
        let passed = (0..100_000_u64)
            .filter(|i| filter.may_contain(&section, checksum::hash(&(i + (1 << 40)).to_be_bytes())));
        let passed = passed.count();
        assert!((200..1_000).contains(&passed), "{passed} of 100000");
        let bits = section.len() * 8;
        assert!(
            (900_000..1_050_000).contains(&bits),
            "{bits} bits for 100000 keys"
        );
    }

    #[test]
    fn equal_hashes_count_once() {
        let mut twice = hashes(1_000);
        twice.extend(hashes(500));
        twice.extend([0, 0, u64::MAX]);
        let (filter, section) = built(twice.clone());
        assert!(twice.iter().all(|&h| filter.may_contain(&section, h)));
        assert_eq!(filter.keys(), 1_002);
    }

    #[test]
    fn integer_logarithms_are_those_of_floating_point() {
        for n in (2..5_000).chain([65_535, 65_536, 1_000_000, 123_456_789, 1 << 40]) {
            let exact = (n as f64).log2() * 65_536.0;
            assert!(
                (log2(n) as f64 - exact).abs() < 8.0,
                "log2({n}) = {} is not {exact}",
                log2(n)
            );
        }
    }

    #[test]
    fn golden_bytes_pin_the_format() {
        let small: String = build(hashes(3))
            .unwrap()
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        assert_eq!(
            small,
            "ea2eaba4f166a09c0300000001000000030000000000000000000000009e000000000000000000000000006c00007000"
        );
        let large = build(hashes(20_000)).unwrap();
        assert_eq!(checksum::hash(&large), 0x0683_3580_1ce0_848d);
    }

    #[test]
    fn impossible_headers_are_refused() {
        let (_, good) = built(hashes(10));
        for n in 0..good.len() {
            assert!(Filter::decode(&good[..n], 0).is_err(), "length {n}");
        }
        for bit in 64 + 32..HEADER_BYTES * 8 {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(Filter::decode(&bad, 0).is_err(), "bit {bit}");
        }
    }
}
