//! A bound on open files: tables that are read at offsets share a few descriptors.
//!
//! A file is opened when a read needs it and closed by CLOCK when another one needs its place: a hit marks it, the
//! hand that looks for room passes over a marked file once. If the system has none left at all, half of the files
//! are closed and the open is tried again, so a limit that is set too high costs reopens, not errors.

use super::source::TableSource;
use crate::sync::Mutex;
use keybed_env::{Fs, ReadFile, fs::Map};
use keybed_format::{Code, Error, Result};
use std::{
    fmt,
    path::{Path, PathBuf},
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    },
};

/// Files that may be open at the same time.
#[derive(Debug)]
pub(crate) struct OpenFiles {
    fs: Arc<dyn Fs>,
    /// Lowered when the system has none left, so that others find some. Relaxed: a bound, not an order.
    files_max: AtomicUsize,
    /// Guards the list of open files; no I/O under it.
    clock: Mutex<Clock>,
}

#[derive(Debug, Default)]
struct Clock {
    open: Vec<Weak<PooledFile>>,
    hand: usize,
}

/// A file that is open while it is used.
pub(crate) struct PooledFile {
    pool: Arc<OpenFiles>,
    path: PathBuf,
    bytes: u64,
    /// Guards the slot; held across the open of this file alone.
    slot: Mutex<Option<Arc<dyn ReadFile>>>,
    /// Used since the hand passed it. Relaxed: it only sways which file is closed.
    used: AtomicBool,
}

impl fmt::Debug for PooledFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PooledFile({})", self.path.display())
    }
}

impl OpenFiles {
    /// At most `files_max` files of `fs`.
    pub(crate) fn new(fs: Arc<dyn Fs>, files_max: usize) -> Arc<OpenFiles> {
        Arc::new(OpenFiles {
            fs,
            files_max: AtomicUsize::new(files_max),
            clock: Mutex::default(),
        })
    }

    /// A file of which `bytes` is known; opened by the first read.
    pub(crate) fn file(self: &Arc<Self>, path: &Path, bytes: u64) -> Arc<PooledFile> {
        Arc::new(PooledFile {
            pool: self.clone(),
            path: path.to_path_buf(),
            bytes,
            slot: Mutex::new(None),
            used: AtomicBool::new(false),
        })
    }

    /// Opens a file once.
    fn open(&self, path: &Path) -> Result<Arc<dyn ReadFile>> {
        self.with_room(|| self.fs.open(path))
    }

    /// Does something that needs a descriptor. If the system has none left, half of the files are closed, and no more
    /// than those are open from now on; then it is tried again.
    pub(crate) fn with_room<T>(&self, mut work: impl FnMut() -> Result<T>) -> Result<T> {
        loop {
            match work() {
                Err(error) if error.code() == Code::TooManyOpenFiles => {
                    let half = self.clock.lock().open.len() / 2;
                    self.files_max.fetch_min(half.max(1), Relaxed);
                    if self.close_down_to(half) == 0 {
                        return Err(error);
                    }
                }
                result => return result,
            }
        }
    }

    /// Closes files until no more than `files` are open; returns how many were closed.
    fn close_down_to(&self, files: usize) -> usize {
        let mut closed = Vec::new();
        {
            let mut clock = self.clock.lock();
            let mut passed = 0;
            while clock.open.len() > files {
                if clock.hand >= clock.open.len() {
                    clock.hand = 0;
                }
                let at = clock.hand;
                let Some(file) = clock.open[at].upgrade() else {
                    clock.open.swap_remove(at);
                    continue;
                };
                // Twice around, all marks are gone; what is still passed over is being opened right now.
                if passed > 2 * clock.open.len() {
                    break;
                }
                passed += 1;
                let taken = if file.used.swap(false, Relaxed) {
                    None
                } else {
                    file.slot.try_lock().map(|mut slot| slot.take())
                };
                match taken {
                    Some(handle) => {
                        clock.open.swap_remove(at);
                        closed.push((handle, file));
                    }
                    None => clock.hand += 1,
                }
            }
        }
        // Files are closed outside of the lock.
        closed.len()
    }

    #[cfg(test)]
    fn open_now(&self) -> usize {
        let clock = self.clock.lock();
        let files = clock.open.iter().filter_map(Weak::upgrade);
        files.filter(|file| file.slot.lock().is_some()).count()
    }
}

impl PooledFile {
    fn handle(self: &Arc<Self>) -> Result<Arc<dyn ReadFile>> {
        // Cheaper than a store that every reader would wait for.
        if !self.used.load(Relaxed) {
            self.used.store(true, Relaxed);
        }
        let mut slot = self.slot.lock();
        if let Some(file) = &*slot {
            return Ok(file.clone());
        }
        self.pool
            .close_down_to(self.pool.files_max.load(Relaxed).saturating_sub(1));
        let file = self.pool.open(&self.path)?;
        if file.len() != self.bytes {
            return Err(Error::new(Code::Malformed, "the file has another length")
                .in_file(&self.path)
                .at(file.len().min(self.bytes))
                .expected_found(self.bytes, file.len()));
        }
        *slot = Some(file.clone());
        self.pool.clock.lock().open.push(Arc::downgrade(self));
        Ok(file)
    }
}

impl TableSource for Arc<PooledFile> {
    fn bytes(&self) -> u64 {
        self.bytes
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> Result {
        self.handle()?.read_exact_at(buffer, offset)
    }

    fn will_read(&self, offset: u64, bytes: u64) {
        // A file that cannot be opened tells the read.
        if let Ok(file) = self.handle() {
            file.will_read(offset, bytes);
        }
    }

    fn map(&self) -> Result<Option<Map>> {
        // The map outlives the file, which needs no place among the open ones.
        self.pool.open(&self.path)?.map()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use keybed_env::fs::SimFs;

    fn file(fs: &SimFs, name: &str) {
        let mut file = fs.create(Path::new(name)).unwrap();
        file.append(name.as_bytes()).unwrap();
    }

    #[test]
    fn few_descriptors_serve_many_files_and_those_in_use_stay() {
        let fs = Arc::new(SimFs::without_history());
        (0..50).for_each(|i| file(&fs, &format!("f{i:02}")));
        let pool = OpenFiles::new(fs, 8);
        let files: Vec<_> = (0..50)
            .map(|i| pool.file(Path::new(&format!("f{i:02}")), 3))
            .collect();
        let read = |i: usize| {
            let mut bytes = [0; 3];
            files[i].read_at(&mut bytes, 0).unwrap();
            assert_eq!(bytes, format!("f{i:02}").as_bytes());
        };
        for round in 0..3 {
            for i in 0..50 {
                read(i);
                read(7);
                assert!(pool.open_now() <= 8, "round {round}, file {i}");
                assert!(files[7].slot.lock().is_some(), "a file in use was closed");
            }
        }
        drop(files);
        assert_eq!(pool.open_now(), 0);
    }

    #[test]
    fn threads_share_the_files() {
        let fs = Arc::new(SimFs::without_history());
        (0..20).for_each(|i| file(&fs, &format!("f{i:02}")));
        let pool = OpenFiles::new(fs, 3);
        let files: Vec<_> = (0..20)
            .map(|i| pool.file(Path::new(&format!("f{i:02}")), 3))
            .collect();
        std::thread::scope(|scope| {
            for thread in 0..4 {
                let files = &files;
                scope.spawn(move || {
                    for i in 0..2_000 {
                        let at = (i * (thread + 3)) % 20;
                        let mut bytes = [0; 3];
                        files[at].read_at(&mut bytes, 0).unwrap();
                        assert_eq!(bytes, format!("f{at:02}").as_bytes());
                    }
                });
            }
        });
        // Files that were being opened at the same time may exceed the bound by their number.
        assert!(pool.open_now() <= 3 + 4);
    }

    #[test]
    fn a_file_of_another_length_is_damage() {
        let fs = Arc::new(SimFs::without_history());
        file(&fs, "f");
        let pool = OpenFiles::new(fs, 1);
        let error = pool.file(Path::new("f"), 2).read_at(&mut [0], 0).unwrap_err();
        assert_eq!(error.code(), Code::Malformed);
        let missing = pool.file(Path::new("g"), 2).read_at(&mut [0], 0).unwrap_err();
        assert_eq!(missing.code(), Code::NotFound);
    }
}
