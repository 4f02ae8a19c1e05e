//! By which a changed input is noticed when a run is resumed: positions in another file would mean other records.

use crate::input::{open_file, unreadable};
use keybed::{Result, format::checksum};
use std::{
    fmt,
    io::{self, Read, Seek, SeekFrom},
    path::Path,
};

/// Bytes at either end of a file that its identity covers.
const IDENTITY_BYTES: u64 = 64 << 10;

/// By which a file that was replaced or has grown is noticed without reading it all: its length, and a hash of its
/// first and last 64 KiB.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct InputIdentity {
    pub(crate) bytes: u64,
    pub(crate) digest: u64,
}

impl InputIdentity {
    /// That of a file as it is now.
    ///
    /// # Errors
    /// `InputUnreadable`.
    pub(crate) fn of(path: &Path) -> Result<InputIdentity> {
        let mut file = open_file(path)?;
        let mut hasher = checksum::Hasher::new();
        let mut bytes = 0;
        let mut read = |from: SeekFrom| -> io::Result<u64> {
            let mut piece = Vec::new();
            let at = file.seek(from)?;
            file.by_ref().take(IDENTITY_BYTES).read_to_end(&mut piece)?;
            hasher.update(&piece);
            Ok(at + piece.len() as u64)
        };
        let mut ends = || {
            let head = read(SeekFrom::Start(0))?;
            bytes = if head < IDENTITY_BYTES {
                head
            } else {
                read(SeekFrom::End(-(IDENTITY_BYTES as i64)))?
            };
            Ok(())
        };
        ends().map_err(|e| unreadable(path, "read", &e))?;
        Ok(InputIdentity {
            bytes,
            digest: hasher.finish(),
        })
    }
}

impl fmt::Display for InputIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes, digest {:016x}", self.bytes, self.digest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(content: &[u8]) -> InputIdentity {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("in");
        std::fs::write(&path, content).unwrap();
        InputIdentity::of(&path).unwrap()
    }

    #[test]
    fn growth_and_changes_at_both_ends_are_noticed() {
        for bytes in [0, 1, 65_535, 65_536, 65_537, 300_000] {
            let content = vec![b'x'; bytes];
            assert_eq!(of(&content), of(&content));
            assert_eq!(of(&content).bytes, bytes as u64);
            assert_ne!(of(&content), of(&[&content[..], b"y"].concat()));
            for at in [0, bytes.saturating_sub(1)] {
                let mut changed = content.clone();
                if let Some(byte) = changed.get_mut(at) {
                    *byte = b'y';
                    assert_ne!(of(&content), of(&changed), "{bytes} bytes, changed at {at}");
                }
            }
        }
    }
}
