//! A block in memory.

/// One decoded block.
#[derive(Debug)]
pub struct Block {
    bytes: Vec<u8>,
}

impl Block {
    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Bytes of memory it takes.
    pub fn memory_bytes(&self) -> usize {
        self.bytes.capacity() + 64
    }
}
