//! What every engine must be able to do here.

/// One embedded store, one writer thread.
pub trait Engine {
    /// Stores a value.
    fn put(&mut self, key: &[u8], value: &[u8]);

    /// Shows the value, or `None`.
    fn get(&mut self, key: &[u8], seen: &mut dyn FnMut(Option<&[u8]>));

    /// Adds 1 to the little-endian u64 in the value's first eight bytes, in the way that suits the engine.
    fn increment(&mut self, key: &[u8]);

    /// Waits until flushes and compactions that are due have ended.
    fn settle(&mut self);

    /// Figures of the engine itself worth a line (levels, flushes), for people.
    fn facts(&mut self) -> String;
}
