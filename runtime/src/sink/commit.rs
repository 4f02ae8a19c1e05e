//! Committing and removing parts: every step can be repeated, nothing is ever replaced.

use super::{
    SinkPlace,
    part::{Lineage, NameFacts, Part},
    unwritable,
};
use keybed_env::{Fs, fs::FileKind};
use keybed_format::{Code, Error, Result, checksum};
use std::{io::ErrorKind, path::Path};

/// Largest part that is read back whole to compare digests; a part is at most 8 MiB and one line.
const PART_READ_BYTES_MAX: u64 = 1 << 30;

/// Makes parts visible: after it returns, each lies durably under `parts/`, with the digest that was recorded.
///
/// The name in `parts/` is made durable before the one in `.pending/` goes, so a crash leaves one or both. Jobs that
/// started from one snapshot may do this at the same time.
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
                let done = verify(fs, &from, part).and_then(|()| link_or_rename(fs, place, (&from, &to)));
                match done {
                    Ok(true) => linked.push(from),
                    Ok(false) => {}
                    // Another job that started from the same snapshot was faster.
                    Err(_) if facts(fs, &to)? => {
                        verify(fs, &to, part).map_err(|e| e.recode(Code::TargetExists))?;
                        linked.push(from);
                    }
                    Err(error) => return Err(error),
                }
            }
            (false, false) => return Err(lost(place, part)),
        }
    }
    fs.sync_dir(&place.parts())
        .map_err(|e| unwritable(e, &place.parts()))?;
    for from in linked {
        match fs.remove_file(&from) {
            Err(e) if e.code() != Code::NotFound => return Err(unwritable(e, &from)),
            _ => {}
        }
    }
    Ok(())
}

fn lost(place: &SinkPlace, part: &Part) -> Error {
    let what = "a part that a completed snapshot names is neither pending nor committed";
    Error::new(Code::TransactionLost, what)
        .in_file(place.parts().join(&part.name))
        .with("id", &part.name)
}

/// Which parts lie nowhere.
///
/// # Errors
/// `OutputUnwritable` if that cannot be found out.
pub(super) fn missing<'a>(fs: &dyn Fs, place: &SinkPlace, parts: &'a [Part]) -> Result<Vec<&'a Part>> {
    let mut missing = Vec::new();
    for part in parts {
        // In the order in which a commit moves it, or one under way would hide it.
        let pending = facts(fs, &place.pending().join(&part.name))?;
        if !pending && !facts(fs, &place.parts().join(&part.name))? {
            missing.push(part);
        }
    }
    Ok(missing)
}

/// Checks that all parts lie somewhere.
///
/// # Errors
/// `TransactionLost` with the first and how many there are; `OutputUnwritable`.
pub(super) fn demand_all(fs: &dyn Fs, place: &SinkPlace, parts: &[Part]) -> Result {
    let missing = missing(fs, place, parts)?;
    let Some(first) = missing.first() else {
        return Ok(());
    };
    let lines: u64 = missing.iter().map(|part| part.lines).sum();
    Err(lost(place, first)
        .with("parts", format_args!("{} of {}", missing.len(), parts.len()))
        .with("lines", lines))
}

fn facts(fs: &dyn Fs, path: &Path) -> Result<bool> {
    let facts = fs.facts(path).map_err(|e| unwritable(e, path))?;
    Ok(facts.is_some_and(|f| f.kind == FileKind::File))
}

/// True if the old name is still there.
fn link_or_rename(fs: &dyn Fs, place: &SinkPlace, (from, to): (&Path, &Path)) -> Result<bool> {
    match place.in_folders(fs, || fs.link(from, to)) {
        Ok(()) => Ok(true),
        Err(e)
            if matches!(
                e.io_kind(),
                Some(ErrorKind::Unsupported | ErrorKind::PermissionDenied)
            ) =>
        {
            place
                .in_folders(fs, || fs.rename(from, to))
                .map_err(|e| unwritable(e, to))?;
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

/// All files in a folder of sinks that a sink wrote, with what their names say.
///
/// # Errors
/// `OutputUnwritable` if the folder cannot be listed; one that is not there is empty.
pub(super) fn parts_in(fs: &dyn Fs, folder: &Path) -> Result<Vec<(String, NameFacts)>> {
    let entries = match fs.list(folder) {
        Err(e) if e.code() == Code::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(|e| unwritable(e, folder))?,
    };
    let files = entries.into_iter().filter(|e| e.kind == FileKind::File);
    Ok(files
        .filter_map(|e| Lineage::of_name(&e.name).map(|facts| (e.name, facts)))
        .collect())
}

/// Files in a folder of the sink that belong to `lineage` and fulfil `is_garbage`.
pub(super) fn garbage(
    fs: &dyn Fs,
    folder: &Path,
    lineage: Lineage,
    is_garbage: impl Fn(&str, u64) -> bool,
) -> Result<Vec<String>> {
    let ours = |(name, of): &(String, NameFacts)| of.lineage == lineage && is_garbage(name, of.attempt);
    let found = parts_in(fs, folder)?.into_iter();
    Ok(found.filter(ours).map(|(name, _)| name).collect())
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

#[cfg(test)]
mod tests {
    use super::*;
    use keybed_env::SimFs;
    use keybed_snapshot::OperatorUid;
    use std::sync::Barrier;

    /// Parts as the writers of one history left them.
    fn pending(fs: &SimFs, place: &SinkPlace) -> Vec<Part> {
        let lineage = Lineage::new(7, &OperatorUid::new("totals").unwrap());
        for dir in [place.pending(), place.parts()] {
            fs.create_dir_all(&dir).unwrap();
        }
        let part = |n: u32| {
            let (name, content) = (lineage.name(n, 1, 0), format!("{n}\n").into_bytes());
            fs.create(&place.pending().join(&name))
                .and_then(|mut file| file.append(&content))
                .unwrap();
            Part {
                name,
                length: content.len() as u64,
                digest: checksum::hash(&content),
                lines: 1,
            }
        };
        (0..50).map(part).collect()
    }

    #[test]
    fn jobs_that_start_from_one_snapshot_at_once_commit_its_parts_together() {
        let place = SinkPlace {
            dir: "out".into(),
            sorted: None,
        };
        for round in 0..20 {
            let fs = SimFs::without_history();
            let parts = pending(&fs, &place);
            let gate = Barrier::new(3);
            let start = |fs: &SimFs| {
                gate.wait();
                demand_all(fs, &place, &parts).and_then(|()| commit(fs, &place, &parts))
            };
            std::thread::scope(|scope| {
                let jobs: Vec<_> = (0..3).map(|_| scope.spawn(|| start(&fs))).collect();
                for job in jobs {
                    let done = job.join().unwrap();
                    done.unwrap_or_else(|e| panic!("round {round}: {e}"));
                }
            });
            assert!(fs.list(&place.pending()).unwrap().is_empty());
            assert_eq!(fs.list(&place.parts()).unwrap().len(), parts.len());
        }
    }
}
