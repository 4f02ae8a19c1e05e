//! The real file system.

use super::{DirEntry, FileFacts, FileKind, FileLock, Fs, Map, ReadFile, WriteFile};
use keybed_format::{Code, Error, Result};
use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io::{self, Read, Seek, Write},
    os::unix::fs::{FileExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::Arc,
};

/// Files of the operating system. Never follows a symbolic link in the last component.
#[derive(Clone, Copy, Debug, Default)]
pub struct OsFs;

/// Fails on a symbolic link, and does not wait for the other end of a pipe that somebody put in our place.
const SAFELY: i32 = libc::O_NOFOLLOW | libc::O_NONBLOCK;

fn io_error(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error {
    move |source| {
        if source.kind() == io::ErrorKind::AlreadyExists {
            Error::new(Code::TargetExists, format!("{what}: the name is taken")).in_file(path)
        } else {
            Error::io(what, path, source)
        }
    }
}

/// Milliseconds since 1970; `None` before.
fn millis(time: std::time::SystemTime) -> Option<u64> {
    let since = time.duration_since(std::time::UNIX_EPOCH).ok()?;
    u64::try_from(since.as_millis()).ok()
}

fn kind_of(file_type: fs::FileType) -> FileKind {
    if file_type.is_file() {
        FileKind::File
    } else if file_type.is_dir() {
        FileKind::Dir
    } else {
        FileKind::Other
    }
}

fn regular(file: &File, path: &Path) -> Result<u64> {
    let meta = file.metadata().map_err(io_error("stat", path))?;
    if meta.is_file() {
        Ok(meta.len())
    } else {
        Err(Error::new(Code::IoFailed, "open: not a regular file").in_file(path))
    }
}

fn or_here(dir: &Path) -> &Path {
    if dir.as_os_str().is_empty() {
        Path::new(".")
    } else {
        dir
    }
}

impl Fs for OsFs {
    fn open(&self, path: &Path) -> Result<Arc<dyn ReadFile>> {
        let file = OpenOptions::new()
            .read(true)
            .custom_flags(SAFELY)
            .open(path)
            .map_err(io_error("open", path))?;
        let len = regular(&file, path)?;
        Ok(Arc::new(OsReadFile {
            file,
            len,
            path: path.into(),
        }))
    }

    fn create(&self, path: &Path) -> Result<Box<dyn WriteFile>> {
        let file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .open(path)
            .map_err(io_error("create", path))?;
        Ok(Box::new(OsWriteFile {
            file,
            len: 0,
            path: path.into(),
        }))
    }

    fn append(&self, path: &Path) -> Result<Box<dyn WriteFile>> {
        let mut file = OpenOptions::new()
            .write(true)
            .custom_flags(SAFELY)
            .open(path)
            .map_err(io_error("open to append", path))?;
        regular(&file, path)?;
        let len = file.seek(io::SeekFrom::End(0)).map_err(io_error("seek", path))?;
        Ok(Box::new(OsWriteFile {
            file,
            len,
            path: path.into(),
        }))
    }

    fn truncate(&self, path: &Path, len: u64) -> Result {
        let file = OpenOptions::new()
            .write(true)
            .custom_flags(SAFELY)
            .open(path)
            .map_err(io_error("open to truncate", path))?;
        super::check_truncate(regular(&file, path)?, len, path)?;
        file.set_len(len).map_err(io_error("truncate", path))
    }

    fn rename(&self, from: &Path, to: &Path) -> Result {
        fs::rename(from, to).map_err(io_error("rename", from))
    }

    fn link(&self, from: &Path, to: &Path) -> Result {
        let meta = fs::symlink_metadata(from).map_err(io_error("link", from))?;
        if !meta.is_file() {
            return Err(Error::new(Code::IoFailed, "link: not a regular file").in_file(from));
        }
        fs::hard_link(from, to).map_err(io_error("link", to))
    }

    fn copy(&self, from: &Path, to: &Path) -> Result {
        let mut source = OpenOptions::new()
            .read(true)
            .custom_flags(SAFELY)
            .open(from)
            .map_err(io_error("open to copy", from))?;
        regular(&source, from)?;
        let mut target = OpenOptions::new()
            .write(true)
            .create_new(true)
            .open(to)
            .map_err(io_error("create copy", to))?;
        // std copies inside the kernel here (copy_file_range, which shares blocks where the file system can).
        match io::copy(&mut source, &mut target) {
            Ok(_) => Ok(()),
            Err(e) => {
                // A half copy helps nobody; the failure of the copy is what the caller must hear of.
                let _ = fs::remove_file(to);
                Err(Error::io("copy", to, e))
            }
        }
    }

    fn remove_file(&self, path: &Path) -> Result {
        fs::remove_file(path).map_err(io_error("remove", path))
    }

    fn remove_dir(&self, path: &Path) -> Result {
        fs::remove_dir(path).map_err(io_error("remove directory", path))
    }

    fn create_dir(&self, path: &Path) -> Result {
        fs::create_dir(path).map_err(io_error("create directory", path))
    }

    fn list(&self, dir: &Path) -> Result<Vec<DirEntry>> {
        let mut entries = Vec::new();
        for entry in fs::read_dir(or_here(dir)).map_err(io_error("list", dir))? {
            let entry = entry.map_err(io_error("list", dir))?;
            let kind = kind_of(entry.file_type().map_err(io_error("list", dir))?);
            let name = entry.file_name();
            entries.push(match name.to_str() {
                Some(name) => DirEntry {
                    name: name.to_owned(),
                    kind,
                },
                None => DirEntry {
                    name: name.to_string_lossy().into_owned(),
                    kind: FileKind::Other,
                },
            });
        }
        entries.sort();
        Ok(entries)
    }

    fn facts(&self, path: &Path) -> Result<Option<FileFacts>> {
        match fs::symlink_metadata(path) {
            Ok(meta) => {
                let kind = kind_of(meta.file_type());
                Ok(Some(FileFacts {
                    len: if kind == FileKind::File { meta.len() } else { 0 },
                    kind,
                    modified_ms: meta.modified().ok().and_then(millis),
                }))
            }
            Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(None),
            Err(e) => Err(Error::io("stat", path, e)),
        }
    }

    fn sync_dir(&self, dir: &Path) -> Result {
        let handle = OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_DIRECTORY)
            .open(or_here(dir))
            .map_err(io_error("open directory", dir))?;
        handle.sync_all().map_err(io_error("sync directory", dir))
    }

    fn lock(&self, path: &Path) -> Result<Box<dyn FileLock>> {
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .custom_flags(SAFELY)
            .open(path)
            .map_err(io_error("open lock", path))?;
        regular(&file, path)?;
        take_lock(&mut file, path)?;
        let write = |file: &mut File| {
            file.set_len(0)?;
            file.rewind()?;
            writeln!(file, "{}", std::process::id())
        };
        write(&mut file).map_err(io_error("write lock", path))?;
        Ok(Box::new(OsLock { file }))
    }

    fn hold(&self, path: &Path) -> Result<Box<dyn FileLock>> {
        let opened = OpenOptions::new().read(true).custom_flags(SAFELY).open(path);
        let mut file = match opened {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return self.lock(path),
            other => other.map_err(io_error("open lock", path))?,
        };
        regular(&file, path)?;
        take_lock(&mut file, path)?;
        Ok(Box::new(OsLock { file }))
    }

    fn namespace(&self) -> Option<u64> {
        Some(0)
    }

    fn absolute(&self, path: &Path) -> Result<PathBuf> {
        std::path::absolute(path).map_err(io_error("name", path))
    }
}

/// Takes the lock of an open file.
fn take_lock(file: &mut File, path: &Path) -> Result {
    match file.try_lock() {
        Ok(()) => Ok(()),
        Err(TryLockError::WouldBlock) => {
            let mut holder = String::new();
            // The content only helps people; an unreadable one does not change who holds the lock.
            let _ = file.take(32).read_to_string(&mut holder);
            let pid = holder
                .trim()
                .parse::<u32>()
                .map_or_else(|_| "unknown".into(), |p| p.to_string());
            Err(Error::new(Code::Locked, "another process uses the directory")
                .in_file(path)
                .with("pid", pid))
        }
        Err(TryLockError::Error(e)) => Err(Error::io("lock", path, e)),
    }
}

#[derive(Debug)]
struct OsReadFile {
    file: File,
    len: u64,
    path: PathBuf,
}

impl ReadFile for OsReadFile {
    fn len(&self) -> u64 {
        self.len
    }

    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> Result {
        self.file.read_exact_at(buffer, offset).map_err(|e| {
            if e.kind() == io::ErrorKind::UnexpectedEof {
                super::ends_too_early(&self.path, buffer.len(), offset, self.len)
            } else {
                Error::io("read", &self.path, e).at(offset)
            }
        })
    }

    fn will_read(&self, offset: u64, bytes: u64) {
        super::ahead::will_read(&self.file, offset, bytes);
    }

    fn map(&self) -> Result<Option<Map>> {
        Map::of(&self.file).map(Some).map_err(io_error("map", &self.path))
    }
}

#[derive(Debug)]
struct OsWriteFile {
    file: File,
    len: u64,
    path: PathBuf,
}

impl WriteFile for OsWriteFile {
    fn append(&mut self, bytes: &[u8]) -> Result {
        self.file
            .write_all(bytes)
            .map_err(io_error("write", &self.path))?;
        self.len += bytes.len() as u64;
        Ok(())
    }

    fn len(&self) -> u64 {
        self.len
    }

    fn reserve(&mut self, bytes: u64) -> Result {
        super::reserve::reserve(&self.file, self.len, bytes).map_err(io_error("reserve", &self.path))
    }

    fn sync(&mut self) -> Result {
        self.file.sync_data().map_err(io_error("sync", &self.path))
    }
}

#[derive(Debug)]
struct OsLock {
    file: File,
}

impl FileLock for OsLock {}

impl Drop for OsLock {
    /// Lets go of the lock itself, not of this descriptor alone: a child that another thread is starting holds a copy of
    /// every descriptor until it runs its program.
    fn drop(&mut self) {
        // Closing the file is what is left if this fails.
        let _ = self.file.unlock();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_is_free_again_although_a_child_has_copied_its_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("LOCK");
        let mut file = File::create_new(&path).unwrap();
        take_lock(&mut file, &path).unwrap();
        let copy = file.try_clone().unwrap();
        let lock = OsLock { file };
        assert_eq!(OsFs.lock(&path).unwrap_err().code(), Code::Locked);
        drop(lock);
        drop(OsFs.lock(&path).unwrap());
        drop(copy);
    }
}
