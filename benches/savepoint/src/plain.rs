//! What the same bytes cost without keybed: `cp` and fsync, sequential writing and fsync, sequential reading.

use crate::Answer;
use rustix::fs::{Advice, fadvise};
use std::{
    fs::{self, File},
    io::{Read, Write},
    path::{Path, PathBuf},
    process::Command,
};

const PIECE_BYTES: usize = 1 << 20;

/// The regular files of a directory.
pub fn files_of(dir: &Path) -> Answer<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        if entry.metadata()?.is_file() {
            files.push(entry.path());
        }
    }
    files.sort();
    Ok(files)
}

pub fn bytes_of(dir: &Path) -> Answer<u64> {
    let mut bytes = 0;
    for file in files_of(dir)? {
        bytes += fs::metadata(file)?.len();
    }
    Ok(bytes)
}

/// `cp` of all files of `from` into the new directory `to`, then `fsync` of each and of the directory.
pub fn copy(from: &Path, to: &Path) -> Answer<()> {
    fs::create_dir(to)?;
    let done = Command::new("cp").args(files_of(from)?).arg(to).status()?;
    if !done.success() {
        return Err("cp failed".into());
    }
    for file in files_of(to)? {
        File::open(file)?.sync_all()?;
    }
    Ok(File::open(to)?.sync_all()?)
}

/// Writes what `from` holds from memory, a MiB at a time, and makes it durable. Returns after reading outside of `timed`.
pub fn write<T>(
    from: &Path,
    to: &Path,
    timed: impl FnOnce(&mut dyn FnMut() -> Answer<()>) -> Answer<T>,
) -> Answer<T> {
    let bytes = fs::read(from)?;
    timed(&mut || {
        let mut file = File::create_new(to)?;
        for piece in bytes.chunks(PIECE_BYTES) {
            file.write_all(piece)?;
        }
        Ok(file.sync_all()?)
    })
}

/// Reads all files of `dir`, a MiB at a time.
pub fn read(dir: &Path) -> Answer<()> {
    let mut piece = vec![0; PIECE_BYTES];
    for path in files_of(dir)? {
        let mut file = File::open(path)?;
        while file.read(&mut piece)? > 0 {}
    }
    Ok(())
}

/// Asks the kernel to forget the content of the files of `dir`, which are durable; no effect on tmpfs.
pub fn forget(dir: &Path) -> Answer<()> {
    for path in files_of(dir)? {
        let file = File::open(path)?;
        file.sync_all()?;
        fadvise(&file, 0, None, Advice::DontNeed)?;
    }
    Ok(())
}

/// Waits until nothing of earlier phases is on its way to the disk.
pub fn settle() {
    rustix::fs::sync();
}
