//! Announcing reads: a call that the standard library does not have.

use std::fs::File;

/// Asks the system to begin to read `bytes` from `offset` into its page cache. Only a hint: what it answers is nobody's
/// business, the read itself tells.
#[cfg(any(target_os = "linux", target_os = "android", target_os = "freebsd"))]
pub(super) fn will_read(file: &File, offset: u64, bytes: u64) {
    use std::os::fd::AsRawFd;
    let (Ok(offset), Ok(bytes)) = (libc::off_t::try_from(offset), libc::off_t::try_from(bytes)) else {
        return;
    };
    // To the call, 0 is everything up to the end.
    if bytes > 0 {
        // SAFETY: the descriptor is open as long as `file` is borrowed; no memory is handed over.
        unsafe { libc::posix_fadvise(file.as_raw_fd(), offset, bytes, libc::POSIX_FADV_WILLNEED) };
    }
}

/// Other systems know no such thing.
#[cfg(not(any(target_os = "linux", target_os = "android", target_os = "freebsd")))]
pub(super) fn will_read(_: &File, _: u64, _: u64) {}
