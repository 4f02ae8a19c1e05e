//! Committing and removing parts: every step can be repeated, nothing is ever replaced.

use super::{
    SinkPlace,
    part::{Lineage, Part},
    unwritable,
};
use keybed_env::{Fs, fs::FileKind};
use keybed_format::{Code, Error, Result, checksum};
use std::{io::ErrorKind, path::Path};

/// Largest part that is read back whole to compare digests; a part is at most 8 MiB and one line.
const PART_READ_BYTES_MAX: u64 = 1 << 30;

/// Makes parts visible: after it returns, each lies durably under `parts/`, with the digest that was recorded.
///
/// The name in `parts/` is made durable before the one in `.pending/` goes, so a crash leaves one or both.
///
/// # Errors
/// `TransactionLost` if a part is nowhere; `TargetExists` if its name is taken by other content;
/// `OutputUnwritable`.
pub(super) fn commit(fs: &dyn Fs, place: &SinkPlace, parts: &[Part]) -> Result {
    if parts.is_empty() {
        return Ok(());
    }
    let mut linked = Vec::new();
    for part in parts {
        let (from, to) = (place.pending().join(&part.name), place.parts().join(&part.name));
        let (pending, visible) = (facts(fs, &from)?, facts(fs, &to)?);
        match (pending, visible) {
            (_, true) => {
                verify(fs, &to, part).map_err(|e| e.recode(Code::TargetExists))?;
                if pending {
                    linked.push(from);
                }
            }
            (true, false) => {
                verify(fs, &from, part)?;
                if link_or_rename(fs, &from, &to)? {
                    linked.push(from);
                }
            }
            (false, false) => {
                let what = "a part that a completed checkpoint names is neither pending nor committed";
                return Err(Error::new(Code::TransactionLost, what)
                    .in_file(to)
                    .with("id", &part.name));
            }
        }
    }
    fs.sync_dir(&place.parts())
        .map_err(|e| unwritable(e, &place.parts()))?;
    for from in linked {
        fs.remove_file(&from).map_err(|e| unwritable(e, &from))?;
    }
    Ok(())
}

fn facts(fs: &dyn Fs, path: &Path) -> Result<bool> {
    let facts = fs.facts(path).map_err(|e| unwritable(e, path))?;
    Ok(facts.is_some_and(|f| f.kind == FileKind::File))
}

/// True if the old name is still there.
fn link_or_rename(fs: &dyn Fs, from: &Path, to: &Path) -> Result<bool> {
    match fs.link(from, to) {
        Ok(()) => Ok(true),
        Err(e)
            if matches!(
                e.io_kind(),
                Some(ErrorKind::Unsupported | ErrorKind::PermissionDenied)
            ) =>
        {
            fs.rename(from, to).map_err(|e| unwritable(e, to))?;
            Ok(false)
        }
        Err(e) => Err(unwritable(e, to)),
    }
}

/// Checks that a file is the part that was recorded.
fn verify(fs: &dyn Fs, path: &Path, part: &Part) -> Result {
    let bytes = fs
        .read(path, part.length.min(PART_READ_BYTES_MAX))
        .map_err(|e| unwritable(e, path))?;
    if bytes.len() as u64 == part.length && checksum::hash(&bytes) == part.digest {
        return Ok(());
    }
    Err(Error::new(
        Code::SnapshotCorrupt,
        "a part of a sink is not what the checkpoint recorded",
    )
    .in_file(path)
    .expected_found(
        format_args!("{} bytes, {:016x}", part.length, part.digest),
        format_args!("{} bytes, {:016x}", bytes.len(), checksum::hash(&bytes)),
    ))
}

/// Files in a folder of the sink that belong to `lineage` and fulfil `is_garbage`: what may be removed.
pub(super) fn garbage(
    fs: &dyn Fs,
    folder: &Path,
    lineage: Lineage,
    is_garbage: impl Fn(&str, u64) -> bool,
) -> Result<Vec<String>> {
    let entries = fs.list(folder).map_err(|e| unwritable(e, folder))?;
    let ours = |name: &String| {
        Lineage::of_name(name).is_some_and(|f| f.lineage == lineage && is_garbage(name, f.attempt))
    };
    Ok(entries
        .into_iter()
        .filter(|e| e.kind == FileKind::File)
        .map(|e| e.name)
        .filter(ours)
        .collect())
}

/// Removes files; what is gone already is fine.
pub(super) fn remove<'a>(fs: &dyn Fs, folder: &Path, names: impl IntoIterator<Item = &'a str>) -> Result {
    for name in names {
        let path = folder.join(name);
        match fs.remove_file(&path) {
            Err(e) if e.code() != Code::NotFound => return Err(unwritable(e, &path)),
            _ => {}
        }
    }
    Ok(())
}
