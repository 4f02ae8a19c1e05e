//! The one sorted file: parts, each sorted, merged into a temporary file that is renamed over the target.
//!
//! A reader holds a chunk of its part and opens the file anew for the next one, so neither memory nor descriptors
//! grow with the number of parts beyond [`CHUNKS_BYTES`] and a small minimum for each.

use super::{
    SinkPlace, SortedFile,
    part::{Lineage, Part},
    unwritable,
};
use keybed_env::Fs;
use keybed_format::{Code, Error, Result, checksum::Hasher};
use std::{
    cmp::Reverse,
    collections::BinaryHeap,
    path::{Path, PathBuf},
};

/// Memory for all chunks together.
const CHUNKS_BYTES: usize = 64 << 20;
/// Smallest chunk.
const CHUNK_BYTES_MIN: usize = 4 << 10;
/// Largest chunk, and what is written at once.
const CHUNK_BYTES_MAX: usize = 256 << 10;

/// Writes `<dir>/<name>` from committed parts. The rename makes it visible; until then the old file stands.
///
/// # Errors
/// `OutputUnwritable`; `SnapshotCorrupt` if a part is not what was recorded.
pub(super) fn merge(
    fs: &dyn Fs,
    place: &SinkPlace,
    sorted: &SortedFile,
    parts: &[Part],
    (lineage, attempt): (Lineage, u64),
) -> Result {
    let temporary = place.pending().join(lineage.name(0, attempt, "merged"));
    let target = place.dir.join(&sorted.name);
    super::commit::remove(fs, Path::new(""), temporary.to_str())?;
    let created = place.in_folders(fs, || fs.create(&temporary));
    let mut file = created.map_err(|e| unwritable(e, &temporary))?;
    let mut out = format!("{}\n", sorted.header).into_bytes();
    merge_lines(fs, &place.parts(), sorted, parts, |line| {
        out.extend_from_slice(line.as_bytes());
        out.push(b'\n');
        if out.len() >= CHUNK_BYTES_MAX {
            file.append(&out).map_err(|e| unwritable(e, &temporary))?;
            out.clear();
        }
        Ok(())
    })?;
    let steps = || {
        file.append(&out)?;
        file.sync()?;
        drop(file);
        fs.rename(&temporary, &target)?;
        fs.sync_dir(&place.dir)
    };
    steps().map_err(|e| unwritable(e, &target))
}

fn merge_lines(
    fs: &dyn Fs,
    folder: &Path,
    sorted: &SortedFile,
    parts: &[Part],
    mut emit: impl FnMut(&str) -> Result,
) -> Result {
    let chunk_bytes = (CHUNKS_BYTES / parts.len().max(1)).clamp(CHUNK_BYTES_MIN, CHUNK_BYTES_MAX);
    let mut readers: Vec<_> = parts
        .iter()
        .map(|part| Lines::new(folder, part, chunk_bytes))
        .collect();
    let mut heap = BinaryHeap::new();
    for (i, reader) in readers.iter_mut().enumerate() {
        if let Some(line) = reader.next(fs)? {
            heap.push(Reverse(((sorted.key)(&line), line, i)));
        }
    }
    while let Some(Reverse((_, line, i))) = heap.pop() {
        emit(&line)?;
        if let Some(line) = readers[i].next(fs)? {
            heap.push(Reverse(((sorted.key)(&line), line, i)));
        }
    }
    Ok(())
}

/// Lines of one part.
struct Lines<'a> {
    part: &'a Part,
    path: PathBuf,
    chunk_bytes: usize,
    /// Bytes read and not given out yet start at `at`.
    chunk: Vec<u8>,
    at: usize,
    read: u64,
    hasher: Hasher,
}

impl<'a> Lines<'a> {
    fn new(folder: &Path, part: &'a Part, chunk_bytes: usize) -> Self {
        let path = folder.join(&part.name);
        Lines {
            part,
            path,
            chunk_bytes,
            chunk: Vec::new(),
            at: 0,
            read: 0,
            hasher: Hasher::new(),
        }
    }

    fn next(&mut self, fs: &dyn Fs) -> Result<Option<String>> {
        let mut searched = self.at;
        loop {
            if let Some(n) = self.chunk[searched..].iter().position(|&b| b == b'\n') {
                let line = self.chunk[self.at..searched + n].to_vec();
                self.at = searched + n + 1;
                return String::from_utf8(line)
                    .map(Some)
                    .map_err(|_| self.corrupt("is not UTF-8"));
            }
            self.chunk.drain(..self.at);
            self.at = 0;
            searched = self.chunk.len();
            if !self.fill(fs)? {
                return if self.chunk.is_empty() {
                    Ok(None)
                } else {
                    Err(self.corrupt("ends within a line"))
                };
            }
        }
    }

    /// Reads the next chunk; false at the end.
    fn fill(&mut self, fs: &dyn Fs) -> Result<bool> {
        let left = self.part.length - self.read;
        if left == 0 {
            return Ok(false);
        }
        let n = left.min(self.chunk_bytes as u64) as usize;
        let old = self.chunk.len();
        self.chunk.resize(old + n, 0);
        let file = fs.open(&self.path).map_err(|e| unwritable(e, &self.path))?;
        file.read_exact_at(&mut self.chunk[old..], self.read)
            .map_err(|e| unwritable(e, &self.path).recode_malformed(Code::SnapshotCorrupt))?;
        self.hasher.update(&self.chunk[old..]);
        self.read += n as u64;
        if self.read == self.part.length && self.hasher.finish() != self.part.digest {
            return Err(self.corrupt("is not what the checkpoint recorded"));
        }
        Ok(true)
    }

    fn corrupt(&self, what: &str) -> Error {
        Error::new(Code::SnapshotCorrupt, format!("a part of a sink {what}")).in_file(&self.path)
    }
}
