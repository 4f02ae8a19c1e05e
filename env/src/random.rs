//! Seeded randomness handed down.
//!
//! The binary creates one [`Random`] from the system's entropy; everything below gets its own by [`Random::fork`].
//! Tests and simulations create it from a seed that they print.

use keybed_format::{Code, Error, Result};

/// A generator of random numbers; not for secrets.
#[derive(Clone, Debug)]
pub struct Random(fastrand::Rng);

impl Random {
    /// Reproducible: equal seeds give equal sequences.
    pub fn from_seed(seed: u64) -> Self {
        Random(fastrand::Rng::with_seed(seed))
    }

    /// Seeded by the operating system.
    ///
    /// # Errors
    /// `IoFailed` if the system has no entropy to give.
    pub fn from_entropy() -> Result<Self> {
        let seed = getrandom::u64()
            .map_err(|e| Error::new(Code::IoFailed, format!("the system gave no entropy: {e}")))?;
        Ok(Self::from_seed(seed))
    }

    /// A generator of its own, whose sequence depends on this one's state.
    #[must_use]
    pub fn fork(&mut self) -> Self {
        Self::from_seed(self.u64())
    }

    /// Any 64 bits.
    pub fn u64(&mut self) -> u64 {
        self.0.u64(..)
    }

    /// A number below `bound`, which must not be 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.0.u64(..bound)
    }

    /// An index below `len`, which must not be 0.
    pub fn index(&mut self, len: usize) -> usize {
        self.0.usize(..len)
    }

    /// True once in `n` calls on average.
    pub fn one_in(&mut self, n: u64) -> bool {
        self.below(n.max(1)) == 0
    }
}

/// Where 128-bit ids of contents and objects come from: the system's entropy, or a handed-down seed under
/// simulation.
#[derive(Clone, Debug)]
pub enum Ids {
    /// 128 bits of the system's entropy for every id.
    Entropy,
    /// From a seed; simulation only, because two processes with one seed would give one id to two contents.
    Seeded(Random),
}

impl Ids {
    /// A fresh id, unique by probability.
    ///
    /// # Errors
    /// `IoFailed` if the system has no entropy to give.
    pub fn fresh(&mut self) -> Result<u128> {
        match self {
            Ids::Seeded(random) => Ok((u128::from(random.u64()) << 64) | u128::from(random.u64())),
            Ids::Entropy => {
                let mut bytes = [0; 16];
                getrandom::fill(&mut bytes)
                    .map_err(|e| Error::new(Code::IoFailed, format!("the system gave no entropy: {e}")))?;
                Ok(u128::from_le_bytes(bytes))
            }
        }
    }

    /// A source of its own.
    #[must_use]
    pub fn fork(&mut self) -> Self {
        match self {
            Ids::Entropy => Ids::Entropy,
            Ids::Seeded(random) => Ids::Seeded(random.fork()),
        }
    }
}
