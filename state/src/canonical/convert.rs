//! Keyed state of one subtask from tables to a canonical file and back, with no job and no types of the user.
//!
//! ```text
//!   tables ─▶ merged scans ─▶ export ─▶ writer ─▶ one file            as a running subtask writes it
//!   file   ─▶ import, windows and timers sorted ─▶ one run per family  as the heap writes a base
//! ```
//! Both stream: in memory stay one block per open table, the buffer of a sort, and an index per table.

use super::{
    CanonicalFacts, CanonicalPart, NEXT_SEQNO, SEQNO, TIER, export::export, handle_of,
    header::CanonicalHeader, ingest::sorted_entries, pending::sort_bytes, sort::Sorter,
    writer::CanonicalWriter,
};
use crate::{
    BackendOptions, StateFamily,
    backend::{ContentScan, RunWriter},
    processor::RunMerge,
    runs::Runs,
};
use keybed_format::{Result, hex};
use keybed_lsm::{Entry, EntryKind};
use keybed_snapshot::{
    FamilyHandle, KeyedHandle, LocalFile, OpenFiles, PutFiles, RunHandle, Scope, StateCatalogue, TableHandle,
};

/// Writes what the tables of `runs` hold as one canonical file. Scratch files lie in the directory of `options`.
///
/// # Errors
/// `SnapshotCorrupt`, `SnapshotIncomplete`; errors of `out` and of the file system.
pub(crate) fn to_canonical(
    runs: &Runs,
    header: &CanonicalHeader,
    files: &dyn OpenFiles,
    options: &mut BackendOptions,
    out: &dyn PutFiles,
) -> Result<KeyedHandle> {
    let scan = |family: StateFamily| -> Result<Box<dyn ContentScan>> {
        Ok(Box::new(RunMerge::open(&runs.families[family.index()], files)?))
    };
    let [point, prefix, window, timer] = StateFamily::ALL;
    let scans = [scan(point)?, scan(prefix)?, scan(window)?, scan(timer)?];
    let path = options
        .dir
        .join(format!("canonical-{}", hex::encode(options.ids.fresh()?)));
    let ids = options.ids.fork();
    let fs = options.fs.clone();
    let write = || -> Result<CanonicalFacts> {
        let mut sorter = Sorter::new(&*fs, &options.dir, ids, sort_bytes(options));
        let mut writer = CanonicalWriter::create(&*fs, &path, header, options.canonical_compression)?;
        export(header, scans, &mut sorter, &mut writer)?;
        writer.finish()
    };
    let put = write().and_then(|facts| {
        let CanonicalFacts {
            content,
            digest,
            bytes,
            entries,
        } = facts;
        let file = out.give_file(
            Scope::Exclusive,
            LocalFile {
                fs: &*fs,
                path: &path,
                content,
                digest,
                bytes,
            },
        )?;
        Ok(handle_of(file, header.range, options.kind, entries))
    });
    // Whoever made the directory removes what an error leaves in it.
    let removed = fs.remove_file(&path);
    put.and_then(|handle| removed.map(|()| handle))
}

/// Writes what `parts` hold as sorted tables, one run per family. Scratch files lie in the directory of `options`.
///
/// # Errors
/// `SnapshotCorrupt`, `SnapshotIncomplete`; errors of `out` and of the file system.
pub(crate) fn to_tables(
    parts: &[CanonicalPart],
    range: keybed_snapshot::KeyGroupRange,
    catalogue: &StateCatalogue,
    files: &dyn OpenFiles,
    options: &mut BackendOptions,
    out: &dyn PutFiles,
) -> Result<KeyedHandle> {
    let mut ids = [(); 4].map(|()| options.ids.fork());
    let sort_ids = options.ids.fork();
    let (fs, dir) = (&*options.fs, options.dir.as_path());
    let [a, b, c, d] = &mut ids;
    let mut runs = [a, b, c, d].map(|ids| RunWriter::new(fs, dir, ids, out, Scope::Exclusive));
    sorted_entries(
        (options, sort_ids),
        catalogue,
        parts,
        files,
        &mut |family, key, value| {
            runs[family.index()].add(Entry {
                key,
                seqno: SEQNO,
                kind: EntryKind::Put,
                value,
            })
        },
    )?;
    let mut families = Vec::new();
    for (family, run) in StateFamily::ALL.into_iter().zip(runs) {
        let tables: Vec<TableHandle> = run.finish()?;
        if !tables.is_empty() {
            families.push(FamilyHandle {
                name: family.name().into(),
                runs: vec![RunHandle { tier: TIER, tables }],
            });
        }
    }
    Ok(KeyedHandle {
        range,
        backend: options.kind,
        next_seqno: NEXT_SEQNO,
        families,
    })
}
