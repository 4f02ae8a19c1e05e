//! The memory map: the one place of this crate with unsafe code.

use std::{fs::File, io, ops::Deref};

/// A whole file mapped read-only.
#[derive(Debug)]
pub struct Map(memmap2::Mmap);

impl Map {
    pub(super) fn of(file: &File) -> io::Result<Map> {
        // SAFETY: the mapping is sound while nobody truncates the file. `ReadFile::map` is documented for files
        // that this process wrote, in a directory whose lock it holds; tables are immutable once finished and are
        // removed only by unlinking, which keeps mapped pages alive.
        let map = unsafe { memmap2::Mmap::map(file) }?;
        Ok(Map(map))
    }

    /// Tells that `bytes` from `offset` will be touched soon, so that the system begins to read pages that are not in
    /// memory. Only a hint: what goes wrong shows when they are touched.
    pub fn will_read(&self, offset: u64, bytes: u64) {
        if let (Ok(offset), Ok(bytes)) = (usize::try_from(offset), usize::try_from(bytes)) {
            let _ = self.0.advise_range(memmap2::Advice::WillNeed, offset, bytes);
        }
    }
}

impl Deref for Map {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}
