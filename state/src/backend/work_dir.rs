//! The work directory of a subtask: wiped before anything is built in it.

use keybed_env::{Fs, fs::FileKind};
use keybed_format::{Error, Result};
use std::path::{Path, PathBuf};

/// Name of the lock file that a store takes in its directory.
const LOCK: &str = "LOCK";

/// Creates `dir` if it is missing and removes every file in it, holding its lock meanwhile.
///
/// # Errors
/// `Locked` if a store lives there; `InvalidArgument` if something lies there that is no file, so it is no work
/// directory.
pub(super) fn wipe(fs: &dyn Fs, dir: &Path) -> Result {
    fs.create_dir_all(dir)?;
    let _lock = fs.lock(&dir.join(LOCK))?;
    let entries = fs.list(dir)?;
    if let Some(odd) = entries.iter().find(|entry| entry.kind != FileKind::File) {
        return Err(
            Error::invalid("a work directory holds files only; this one is something else")
                .in_file(dir.join(&odd.name)),
        );
    }
    for entry in entries.iter().filter(|entry| entry.name != LOCK) {
        fs.remove_file(&dir.join(&entry.name))?;
    }
    Ok(())
}

/// Where the table with this content lies in a work directory.
pub(crate) fn table_path(dir: &Path, content: u128) -> PathBuf {
    dir.join(format!("{}.sst", keybed_format::hex::encode(content)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use keybed_env::OsFs;

    #[test]
    fn old_tables_go_and_strange_places_are_left_alone() {
        let place = tempfile::tempdir().unwrap();
        let dir = place.path().join("a").join("b");
        wipe(&OsFs, &dir).unwrap();
        std::fs::write(dir.join("x.sst"), b"old").unwrap();
        std::fs::write(dir.join("CURRENT"), b"old").unwrap();
        wipe(&OsFs, &dir).unwrap();
        assert_eq!(OsFs.list(&dir).unwrap().len(), 1, "only the lock file is left");
        assert!(wipe(&OsFs, place.path()).is_err());
        assert!(dir.exists());
    }
}
