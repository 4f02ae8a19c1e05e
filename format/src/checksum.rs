//! xxh3-64, plain and bound to a place. Against accidents, not against forgers.

use xxhash_rust::xxh3::{Xxh3, xxh3_64, xxh3_64_with_seed};

/// xxh3-64 with seed 0: the hash of keys (memtable, filter, block, key group) and of plain checksums.
#[inline]
pub fn hash(bytes: &[u8]) -> u64 {
    xxh3_64(bytes)
}

/// Checksum of `bytes` that belong at `offset` of the file whose content id is `id`.
///
/// A block that is intact but lies in the wrong file or at the wrong offset does not verify.
#[inline]
pub fn bound(bytes: &[u8], id: u128, offset: u64) -> u64 {
    xxh3_64_with_seed(bytes, place_seed(id, offset))
}

/// Seed of [`bound`]: both halves of the id and the offset, mixed with odd constants so that neighbouring
/// offsets and ids give unrelated seeds. Part of the format.
fn place_seed(id: u128, offset: u64) -> u64 {
    let (high, low) = ((id >> 64) as u64, id as u64);
    let mixed = (high ^ low.rotate_left(32)).wrapping_mul(0x9E37_79B9_7F4A_7C15)
        ^ offset.wrapping_mul(0xC2B2_AE3D_27D4_EB4F);
    mixed ^ (mixed >> 29)
}

/// Incremental xxh3-64 with seed 0; equals [`hash`] of the concatenation.
#[derive(Clone, Default)]
pub struct Hasher(Xxh3);

impl std::fmt::Debug for Hasher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Hasher({:016x})", self.finish())
    }
}

impl Hasher {
    /// Nothing hashed yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Appends bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// Hash of everything appended.
    pub fn finish(&self) -> u64 {
        self.0.digest()
    }
}

/// Incremental [`bound`]: equals it of the concatenation.
#[derive(Clone)]
pub struct BoundHasher(Xxh3);

impl std::fmt::Debug for BoundHasher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "BoundHasher({:016x})", self.finish())
    }
}

impl BoundHasher {
    /// Nothing hashed yet of what belongs at `offset` of the file whose content id is `id`.
    pub fn new(id: u128, offset: u64) -> Self {
        BoundHasher(Xxh3::with_seed(place_seed(id, offset)))
    }

    /// Appends bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// Checksum of everything appended.
    pub fn finish(&self) -> u64 {
        self.0.digest()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn golden_values_pin_the_format() {
        assert_eq!(hash(b""), 0x2d06_8005_38d3_94c2);
        assert_eq!(hash(b"keybed"), xxh3_64(b"keybed"));
        assert_eq!(bound(b"keybed", 0, 0), hash(b"keybed"));
        assert_eq!(bound(b"keybed", 7, 0), 0x2045_24a7_3482_1f93);
    }

    #[test]
    fn a_block_verifies_only_in_its_place() {
        let here = bound(b"block", 1, 4096);
        assert_ne!(here, bound(b"block", 2, 4096));
        assert_ne!(here, bound(b"block", 1 << 64, 4096));
        assert_ne!(here, bound(b"block", 1, 8192));
    }

    #[test]
    fn pieces_hash_like_the_whole() {
        let mut h = Hasher::new();
        h.update(b"key");
        h.update(b"bed");
        assert_eq!(h.finish(), hash(b"keybed"));
        let bytes: Vec<u8> = (0..5000_u32).map(|n| (n * 7) as u8).collect();
        for length in [0, 1, 16, 17, 128, 129, 240, 241, 256, 257, 1024, 1025, 5000] {
            for piece in [1, 63, 255, 256, 257, 4096] {
                let mut h = BoundHasher::new(7 << 64 | 9, 1 << 20);
                bytes[..length].chunks(piece).for_each(|piece| h.update(piece));
                let whole = bound(&bytes[..length], 7 << 64 | 9, 1 << 20);
                assert_eq!(h.finish(), whole, "{length} bytes in pieces of {piece}");
            }
        }
    }
}
