//! Space set aside behind the end of a file: a call that the standard library does not have.

use std::{fs::File, io};

/// Sets aside `bytes` from `offset` on without changing the file's length.
#[cfg(target_os = "linux")]
pub(super) fn reserve(file: &File, offset: u64, bytes: u64) -> io::Result<()> {
    use std::os::fd::AsRawFd;
    let whole = |n: u64| libc::off_t::try_from(n).map_err(|_| io::Error::from(io::ErrorKind::FileTooLarge));
    let (offset, bytes) = (whole(offset)?, whole(bytes)?);
    if bytes == 0 {
        return Ok(());
    }
    loop {
        // SAFETY: the descriptor is open as long as `file` is borrowed; no memory is handed over.
        let status = unsafe { libc::fallocate(file.as_raw_fd(), libc::FALLOC_FL_KEEP_SIZE, offset, bytes) };
        if status == 0 {
            return Ok(());
        }
        let error = io::Error::last_os_error();
        match error.raw_os_error() {
            Some(libc::EINTR) => {}
            Some(libc::EOPNOTSUPP | libc::ENOSYS) => return Ok(()),
            _ => return Err(error),
        }
    }
}

/// Other systems know no such thing.
#[cfg(not(target_os = "linux"))]
pub(super) fn reserve(_: &File, _: u64, _: u64) -> io::Result<()> {
    Ok(())
}
