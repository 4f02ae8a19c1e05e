//! A canonical savepoint on its way out.

use super::{
    CanonicalFacts, CanonicalHeader,
    export::export,
    handle_of,
    sort::{SortFacts, Sorter},
    writer::CanonicalWriter,
};
use crate::{
    BackendOptions, PendingSnapshot, SnapshotStats, WrittenSnapshot,
    backend::{Captured, CapturedContent},
};
use keybed_format::{Result, hex};
use keybed_snapshot::{LocalFile, PutFiles, Scope};
use std::path::Path;

/// Memory for sorting windows and timers, in bytes, if the write memory of the subtask is not less.
const SORT_BYTES_MAX: usize = 32 << 20;

/// The content of one moment, to be written in the canonical format.
#[derive(Debug)]
pub(crate) struct PendingCanonical {
    content: Box<dyn CapturedContent>,
    options: BackendOptions,
    header: CanonicalHeader,
}

impl PendingCanonical {
    pub(crate) fn new(captured: Captured, header: CanonicalHeader) -> Self {
        let Captured { content, options } = captured;
        PendingCanonical {
            content,
            options,
            header,
        }
    }
}

/// Memory that a sort may take in a subtask with these options.
pub(super) fn sort_bytes(options: &BackendOptions) -> usize {
    options.memtable_bytes.min(SORT_BYTES_MAX)
}

impl PendingSnapshot for PendingCanonical {
    fn write(self: Box<Self>, files: &dyn PutFiles) -> Result<WrittenSnapshot> {
        let PendingCanonical {
            content,
            mut options,
            header,
        } = *self;
        let fs = options.fs.clone();
        let name = format!("canonical-{}", hex::encode(options.ids.fresh()?));
        let path = options.dir.join(name);
        let put = write_file(content, &mut options, &header, &path).and_then(|(facts, sort)| {
            let CanonicalFacts {
                content,
                digest,
                bytes,
                entries,
            } = facts;
            let file = files.give_file(
                Scope::Exclusive,
                LocalFile {
                    fs: &*fs,
                    path: &path,
                    content,
                    digest,
                    bytes,
                },
            )?;
            Ok(WrittenSnapshot {
                handle: handle_of(file, header.range, options.kind, entries),
                stats: SnapshotStats {
                    new_bytes: bytes,
                    total_bytes: bytes,
                    files_new: 1,
                    sort_bytes_max: sort.bytes_max,
                    sort_files: sort.files,
                    ..SnapshotStats::default()
                },
            })
        });
        match put {
            Ok(written) => fs.remove_file(&path).map(|()| written),
            Err(error) => {
                // The error is what matters; the next restore wipes the directory.
                let _ = fs.remove_file(&path);
                Err(error)
            }
        }
    }
}

fn write_file(
    content: Box<dyn CapturedContent>,
    options: &mut BackendOptions,
    header: &CanonicalHeader,
    path: &Path,
) -> Result<(CanonicalFacts, SortFacts)> {
    let ids = options.ids.fork();
    let mut sorter = Sorter::new(&*options.fs, &options.dir, ids, sort_bytes(options));
    let mut writer = CanonicalWriter::create(&*options.fs, path, header, options.canonical_compression)?;
    content.read(&mut |scans| export(header, scans, &mut sorter, &mut writer))?;
    let facts = writer.finish()?;
    Ok((facts, sorter.facts()))
}
