//! Keys, values and draws.
//!
//! A key is `[key group u16][8 to 16 scrambled bytes]`, a value 8 to 100 bytes whose first eight count increments;
//! both follow from the index alone, so nothing is kept in memory but one expected count per key.

const KEY_GROUPS: u64 = 128;
/// Skew of the Zipf rows.
const ZIPF_THETA: f64 = 0.99;

/// splitmix64: a bijection, so distinct indexes give distinct scrambled words.
pub fn scramble(mut x: u64) -> u64 {
    x = x.wrapping_add(0x9E37_79B9_7F4A_7C15);
    x = (x ^ (x >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    x ^ (x >> 31)
}

/// Room for a key.
pub type KeyBuffer = [u8; 26];

/// Room for a value.
pub type ValueBuffer = [u8; 128];

/// The key of index `i`; its length follows from the index.
pub fn key(i: u64, buffer: &mut KeyBuffer) -> &[u8] {
    let word = scramble(i);
    buffer[..2].copy_from_slice(&((word % KEY_GROUPS) as u16).to_be_bytes());
    buffer[2..10].copy_from_slice(&word.to_be_bytes());
    buffer[10..18].copy_from_slice(&scramble(word).to_be_bytes());
    &buffer[..10 + (word >> 32) as usize % 9]
}

/// The 10-byte key of a user: `[key group u16][8 bytes]`.
pub fn user(i: u64, buffer: &mut KeyBuffer) -> &[u8] {
    let word = scramble(i);
    buffer[..2].copy_from_slice(&((word % KEY_GROUPS) as u16).to_be_bytes());
    buffer[2..10].copy_from_slice(&word.to_be_bytes());
    &buffer[..10]
}

/// The 18-byte key of something that belongs to a user: `[key group u16][8 bytes][8 bytes]`.
pub fn part(i: u64, part: u64, buffer: &mut KeyBuffer) -> &[u8] {
    user(i, buffer);
    buffer[10..18].copy_from_slice(&part.to_be_bytes());
    &buffer[..18]
}

/// Bytes of the value of index `i`.
pub fn value_len(i: u64) -> usize {
    8 + (scramble(i ^ 0x5555) % 93) as usize
}

/// The value of index `i` after `count` increments.
pub fn value(i: u64, count: u64, buffer: &mut ValueBuffer) -> &[u8] {
    let len = value_len(i);
    buffer[..8].copy_from_slice(&count.to_le_bytes());
    // Half of it compresses, half does not.
    let (noise, plain) = buffer[8..len].split_at_mut((len - 8) / 2);
    for (at, chunk) in noise.chunks_mut(8).enumerate() {
        let word = scramble(i ^ (at as u64 + 1).rotate_left(40)).to_le_bytes();
        chunk.copy_from_slice(&word[..chunk.len()]);
    }
    plain.fill(i as u8);
    &buffer[..len]
}

/// The count at a value's head.
pub fn count_in(value: &[u8]) -> u64 {
    value
        .first_chunk()
        .map(|head| u64::from_le_bytes(*head))
        .expect("values have at least eight bytes")
}

/// A full-period walk over `0..n`: every index once, in no order that a key has.
pub fn walk(n: u64) -> impl Iterator<Item = u64> {
    let stride = (n / 2 + 1..)
        .find(|stride| gcd(*stride, n) == 1)
        .expect("some stride is coprime");
    let mut i = 0;
    (0..n).map(move |_| {
        let now = i;
        i = (i + stride) % n;
        now
    })
}

fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

/// Index of a uniform draw below `n`.
pub fn uniform(op: u64, salt: u64, n: u64) -> u64 {
    scramble(op ^ (salt << 40)) % n
}

/// Zipf-distributed ranks after Gray et al., "Quickly generating billion-record synthetic databases" (1994).
pub struct Zipf {
    keys: u64,
    alpha: f64,
    zeta: f64,
    eta: f64,
}

impl Zipf {
    pub fn new(keys: u64) -> Self {
        let zeta = |n: u64| (1..=n).map(|i| 1.0 / (i as f64).powf(ZIPF_THETA)).sum::<f64>();
        let (zeta_n, zeta_2) = (zeta(keys), zeta(2));
        let eta = (1.0 - (2.0 / keys as f64).powf(1.0 - ZIPF_THETA)) / (1.0 - zeta_2 / zeta_n);
        Zipf {
            keys,
            alpha: 1.0 / (1.0 - ZIPF_THETA),
            zeta: zeta_n,
            eta,
        }
    }

    /// Index of a draw; hot ranks are spread over the key space.
    pub fn draw(&self, op: u64, salt: u64) -> u64 {
        scramble(self.rank(scramble(op ^ (salt << 40)))) % self.keys
    }

    /// Rank below the number of keys for a random word.
    fn rank(&self, word: u64) -> u64 {
        let u = (word >> 11) as f64 / (1_u64 << 53) as f64;
        let uz = u * self.zeta;
        if uz < 1.0 {
            return 0;
        }
        if uz < 1.0 + 0.5_f64.powf(ZIPF_THETA) {
            return 1;
        }
        let rank = self.keys as f64 * (self.eta * u - self.eta + 1.0).powf(self.alpha);
        (rank as u64).min(self.keys - 1)
    }
}
