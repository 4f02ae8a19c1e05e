//! Where the choices of a random program come from: a seed, or the bytes of a fuzzer.

use keybed_env::Random;

/// Numbers that decide what a program does.
pub trait Choices {
    /// A number below `bound`, which is not 0.
    fn below(&mut self, bound: u64) -> u64;

    /// Whether there is nothing left to choose.
    fn is_over(&self) -> bool {
        false
    }
}

impl Choices for Random {
    fn below(&mut self, bound: u64) -> u64 {
        Random::below(self, bound)
    }
}

/// Choices from bytes; zeros once they are used up.
#[derive(Clone, Copy, Debug)]
pub struct Bytes<'a>(pub &'a [u8]);

impl Choices for Bytes<'_> {
    fn below(&mut self, bound: u64) -> u64 {
        // As many bytes as the bound needs, so that one byte of the input means one small choice.
        let width = (64 - (bound - 1).leading_zeros()).div_ceil(8) as usize;
        let (taken, rest) = self.0.split_at(width.min(self.0.len()));
        self.0 = rest;
        taken
            .iter()
            .fold(0_u64, |number, byte| (number << 8) | u64::from(*byte))
            % bound
    }

    fn is_over(&self) -> bool {
        self.0.is_empty()
    }
}
