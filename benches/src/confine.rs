//! A memory cgroup for a child: page cache and anonymous memory together stay within a bound, for every engine alike.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

/// A group below that of this process; removed when dropped.
pub struct Group(PathBuf);

impl Group {
    /// Makes one that may use `bytes`.
    ///
    /// # Errors
    /// Why it cannot be made: no such controller, or no right to.
    pub fn new(bytes: u64) -> io::Result<Group> {
        let (parent, limit) = own_group()?;
        let path = parent.join(format!("keybed-benches-{}", std::process::id()));
        fs::create_dir(&path)?;
        let group = Group(path);
        fs::write(group.0.join(limit), bytes.to_string())?;
        Ok(group)
    }

    /// Where it is, for [`join`].
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // The last process has just ended; the kernel may need a moment to notice.
        for _ in 0..50 {
            if fs::remove_dir(&self.0).is_ok() {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
    }
}

/// Moves this process into a group.
///
/// # Errors
/// Errors of the file system.
pub fn join(group: &Path) -> io::Result<()> {
    fs::write(group.join("cgroup.procs"), std::process::id().to_string())
}

/// The directory of this process's memory group, and the file that takes the limit.
fn own_group() -> io::Result<(PathBuf, &'static str)> {
    let text = fs::read_to_string("/proc/self/cgroup")?;
    for line in text.lines() {
        let mut parts = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (parts.next(), parts.next()) else {
            continue;
        };
        let path = path.trim_start_matches('/');
        if controllers.split(',').any(|name| name == "memory") {
            return Ok((
                Path::new("/sys/fs/cgroup/memory").join(path),
                "memory.limit_in_bytes",
            ));
        }
        let unified = Path::new("/sys/fs/cgroup").join(path);
        if controllers.is_empty() && unified.join("memory.max").exists() {
            return Ok((unified, "memory.max"));
        }
    }
    Err(io::Error::other("there is no memory controller"))
}
