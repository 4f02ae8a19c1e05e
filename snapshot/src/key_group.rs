//! Key groups: which subtask owns which keys, for ever.
//!
//! ```text
//!   key component ──xxh3-64──▶ upper 32 bits ──× max_parallelism >> 32──▶ key group ──▶ range ──▶ subtask
//! ```
//! A key group is the smallest unit that moves between subtasks. Routing of records and the first two bytes of every
//! stored key must agree with files written years ago, so hash and split are part of the format; golden vectors in
//! the tests pin both. Every range is contiguous and inclusive on both ends; sizes differ by at most one.

use keybed_format::{Code, Error, Result, checksum};
use std::fmt;

/// Most key groups that an operator can have.
pub const MAX_PARALLELISM_MAX: u32 = 32_768;
/// Fewest key groups that [`max_parallelism_default`] chooses.
pub const MAX_PARALLELISM_MIN_DEFAULT: u32 = 128;
/// Name of the hash in metadata.
pub const KEY_HASH_ID: &str = "xxh3-hi-v1";

/// One of `max_parallelism` groups of keys, from 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct KeyGroup(pub u16);

impl KeyGroup {
    /// The first two bytes of every key of this group.
    pub fn prefix(self) -> [u8; 2] {
        self.0.to_be_bytes()
    }

    /// The subtask that owns this group at `parallelism`.
    pub fn subtask(self, max_parallelism: u32, parallelism: u32) -> u32 {
        let owner = u64::from(self.0) * u64::from(parallelism) / u64::from(max_parallelism.max(1));
        owner as u32 // below parallelism, because the group is below max_parallelism
    }
}

/// The group of a key, given its encoded component.
///
/// `max_parallelism` is 1–[`MAX_PARALLELISM_MAX`].
#[inline]
pub fn key_group_of(key_component: &[u8], max_parallelism: u32) -> KeyGroup {
    debug_assert!((1..=MAX_PARALLELISM_MAX).contains(&max_parallelism));
    let upper = checksum::hash(key_component) >> 32;
    KeyGroup(((upper * u64::from(max_parallelism)) >> 32) as u16) // below max_parallelism, at most 32,767
}

/// Max parallelism of an operator that sets none: the smallest power of two that is at least 1.5 × `parallelism`,
/// within 128…32,768. Flink's rule.
pub fn max_parallelism_default(parallelism: u32) -> u32 {
    let wanted = u64::from(parallelism) + u64::from(parallelism) / 2;
    let bounded = wanted.clamp(
        u64::from(MAX_PARALLELISM_MIN_DEFAULT),
        u64::from(MAX_PARALLELISM_MAX),
    );
    bounded.next_power_of_two() as u32 // a power of two at most 32,768
}

/// Checks that `parallelism` subtasks can share `max_parallelism` key groups.
///
/// # Errors
/// `InvalidArgument` if either is 0 or max parallelism is above [`MAX_PARALLELISM_MAX`]; `ParallelismExceedsMax`.
pub fn check_parallelism(max_parallelism: u32, parallelism: u32) -> Result {
    if parallelism == 0 || max_parallelism == 0 || max_parallelism > MAX_PARALLELISM_MAX {
        return Err(Error::invalid(format!(
            "max parallelism is 1–{MAX_PARALLELISM_MAX}, parallelism at least 1"
        ))
        .with("max_parallelism", max_parallelism)
        .with("parallelism", parallelism));
    }
    if parallelism > max_parallelism {
        return Err(Error::new(
            Code::ParallelismExceedsMax,
            "there are more subtasks than key groups",
        )
        .with("max_parallelism", max_parallelism)
        .with("parallelism", parallelism));
    }
    Ok(())
}

/// Key groups `first..=last`; never empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct KeyGroupRange {
    /// First group of the range.
    pub first: KeyGroup,
    /// Last group of the range, inclusive.
    pub last: KeyGroup,
}

impl KeyGroupRange {
    /// The range `first..=last`.
    ///
    /// # Errors
    /// `InvalidArgument` if it is empty or ends above the highest possible group.
    pub fn new(first: u16, last: u16) -> Result<Self> {
        if first > last || u32::from(last) >= MAX_PARALLELISM_MAX {
            return Err(Error::invalid("a key group range is empty or too high")
                .with("first", first)
                .with("last", last));
        }
        Ok(KeyGroupRange {
            first: KeyGroup(first),
            last: KeyGroup(last),
        })
    }

    /// All groups of an operator.
    ///
    /// # Errors
    /// `InvalidArgument` if max parallelism is out of bounds.
    pub fn all(max_parallelism: u32) -> Result<Self> {
        Self::of_subtask(max_parallelism, 1, 0)
    }

    /// The ranges of all subtasks in order: contiguous, disjoint, covering every group once; sizes differ by at
    /// most one.
    ///
    /// # Errors
    /// As [`check_parallelism`].
    pub fn split(max_parallelism: u32, parallelism: u32) -> Result<Vec<Self>> {
        check_parallelism(max_parallelism, parallelism)?;
        (0..parallelism)
            .map(|index| Self::of_subtask(max_parallelism, parallelism, index))
            .collect()
    }

    /// The range of one subtask.
    ///
    /// # Errors
    /// As [`check_parallelism`]; `InvalidArgument` if `index` is no subtask.
    pub fn of_subtask(max_parallelism: u32, parallelism: u32, index: u32) -> Result<Self> {
        check_parallelism(max_parallelism, parallelism)?;
        if index >= parallelism {
            return Err(Error::invalid("there is no such subtask").with("index", index));
        }
        let (max, p, i) = (
            u64::from(max_parallelism),
            u64::from(parallelism),
            u64::from(index),
        );
        Self::new((i * max).div_ceil(p) as u16, (((i + 1) * max - 1) / p) as u16) // both below 32,768
    }

    /// Number of groups, at least 1.
    pub fn count(self) -> u32 {
        u32::from(self.last.0) - u32::from(self.first.0) + 1
    }

    /// Whether the group belongs to the range.
    pub fn contains(self, group: KeyGroup) -> bool {
        (self.first..=self.last).contains(&group)
    }

    /// Groups that are in both.
    pub fn intersection(self, other: Self) -> Option<Self> {
        let (first, last) = (self.first.max(other.first), self.last.min(other.last));
        (first <= last).then_some(KeyGroupRange { first, last })
    }

    /// The smallest key of the range: the prefix of its first group.
    pub fn start_key(self) -> [u8; 2] {
        self.first.prefix()
    }

    /// The smallest key above the range: the prefix of the group after its last one.
    pub fn end_key(self) -> [u8; 2] {
        (self.last.0 + 1).to_be_bytes() // last is at most 32,767
    }
}

impl fmt::Display for KeyGroupRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}..={}", self.first.0, self.last.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn golden_vectors_pin_the_assignment() {
        let groups = |key: &[u8]| [1, 128, 1000, 32_768].map(|max| key_group_of(key, max).0);
        assert_eq!(groups(b""), [0, 22, 175, 5763]);
        assert_eq!(groups(b"N14228"), [0, 2, 17, 557]);
        assert_eq!(groups(&42_u64.to_be_bytes()), [0, 23, 180, 5927]);
        assert_eq!(groups(&[0xff; 32]), [0, 27, 214, 7035]);
    }

    #[test]
    fn default_follows_flinks_rule() {
        for (p, max) in [
            (1, 128),
            (85, 128),
            (86, 256),
            (1000, 2048),
            (21_845, 32_768),
            (32_768, 32_768),
        ] {
            assert_eq!(max_parallelism_default(p), max, "parallelism {p}");
        }
        assert_eq!(max_parallelism_default(u32::MAX), 32_768);
    }

    #[test]
    fn split_of_128_over_7_is_flinks() {
        let sizes: Vec<u32> = KeyGroupRange::split(128, 7)
            .unwrap()
            .into_iter()
            .map(KeyGroupRange::count)
            .collect();
        assert_eq!(sizes, [19, 18, 18, 19, 18, 18, 18]);
    }

    #[test]
    fn bounds_have_their_own_codes() {
        assert_eq!(
            KeyGroupRange::split(128, 129).unwrap_err().code(),
            Code::ParallelismExceedsMax
        );
        assert_eq!(
            KeyGroupRange::split(0, 1).unwrap_err().code(),
            Code::InvalidArgument
        );
        assert_eq!(
            KeyGroupRange::split(32_769, 1).unwrap_err().code(),
            Code::InvalidArgument
        );
        assert!(KeyGroupRange::new(3, 2).is_err());
    }

    #[test]
    fn the_highest_range_has_an_end() {
        let all = KeyGroupRange::all(32_768).unwrap();
        assert_eq!((all.start_key(), all.end_key()), ([0, 0], [0x80, 0]));
    }

    proptest! {
        #[test]
        fn a_split_covers_every_group_once(max in 1_u32..=4096, p in 1_u32..=4096) {
            prop_assume!(p <= max);
            let ranges = KeyGroupRange::split(max, p).unwrap();
            let mut next = 0;
            for (i, range) in ranges.iter().enumerate() {
                prop_assert_eq!(u32::from(range.first.0), next);
                next += range.count();
                prop_assert_eq!(range.first.subtask(max, p), i as u32);
                prop_assert_eq!(range.last.subtask(max, p), i as u32);
            }
            prop_assert_eq!(next, max);
            let sizes = ranges.iter().map(|r| r.count());
            prop_assert!(sizes.clone().max().unwrap() - sizes.min().unwrap() <= 1);
        }

        #[test]
        fn a_group_is_below_max(key: Vec<u8>, max in 1_u32..=MAX_PARALLELISM_MAX) {
            prop_assert!(u32::from(key_group_of(&key, max).0) < max);
        }
    }
}
