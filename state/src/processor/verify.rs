//! A table of a snapshot, checked to the last byte against its handle.

use keybed_env::ReadFile;
use keybed_format::{Code, Error, Result, trailer};
use keybed_snapshot::FileHandle;

/// Reads the whole file and checks that it is the one the handle names.
///
/// # Errors
/// `SnapshotCorrupt` with the object's name and the offset of the damage.
pub(crate) fn verify_table(handle: &FileHandle, file: &dyn ReadFile) -> Result {
    check(handle, file).map_err(|e| {
        e.recode_malformed(Code::SnapshotCorrupt)
            .in_file(handle.object.as_str())
    })
}

fn check(handle: &FileHandle, file: &dyn ReadFile) -> Result {
    let length = file.len();
    if length != handle.length {
        return Err(Error::new(
            Code::SnapshotCorrupt,
            "the file has another length than its handle says",
        )
        .at(length.min(handle.length))
        .expected_found(handle.length, length));
    }
    let found = trailer::verify(length, &mut |offset, buffer| file.read_exact_at(buffer, offset))?;
    let tail = length.saturating_sub(trailer::TAIL_BYTES as u64);
    if (found.content_id, found.digest) != (handle.content, handle.digest) {
        return Err(Error::new(
            Code::SnapshotCorrupt,
            "the file is intact but not the one its handle names",
        )
        .at(tail)
        .expected_found(
            format_args!("{:032x} {:016x}", handle.content, handle.digest),
            format_args!("{:032x} {:016x}", found.content_id, found.digest),
        ));
    }
    Ok(())
}
