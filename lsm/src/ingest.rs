//! Ingesting: tables made outside of the store become its newest run.
//!
//! ```text
//! check files ─► flush the family ─► link or copy into the directory ─► check content ─► one edit ─► remove sources
//! ```
//! The edit makes all files visible at once. A crash before it leaves the sources and strays that the next open
//! removes; a crash after it leaves the sources of a move, too. All entries get one seqno, which the manifest records:
//! the files are not rewritten.

use crate::{
    family::Family,
    key::KeyRange,
    shared::Shared,
    store::Store,
    table::{BlockAccess, TableFacts, TableReader, table_id_of},
    version::{
        LiveTable,
        edit::{Change, Edit, Origin, TableRecord},
    },
};
use keybed_env::Fs;
use keybed_format::{Code, Error, Result};
use std::{
    io::ErrorKind::{CrossesDevices, PermissionDenied, TooManyLinks, Unsupported},
    path::{Path, PathBuf},
    sync::Arc,
};

/// How files get into the store's directory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Transfer {
    /// They are copied; the sources stay.
    #[default]
    Copy,
    /// They get a second name in the directory, or are copied where links are impossible; the sources stay. A store that
    /// promises durability syncs them first; those that it may not write to are copied. Tables with a link elsewhere are
    /// read through the cache, never mapped.
    Link,
    /// As [`Transfer::Link`], and the sources are removed once the store has the files.
    Move,
}

/// Options of [`Store::ingest`].
#[derive(Clone, Copy, Debug)]
pub struct IngestOptions {
    /// How files get into the directory; default a copy.
    pub transfer: Transfer,
    /// Whether every byte and the order of all entries are checked first; default yes. Without, damage is found when
    /// it is read.
    pub verify: bool,
}

impl Default for IngestOptions {
    fn default() -> Self {
        IngestOptions {
            transfer: Transfer::Copy,
            verify: true,
        }
    }
}

/// A file to ingest.
struct Candidate {
    source: PathBuf,
    facts: TableFacts,
}

impl Store {
    /// Takes tables written by [`ExternalTable`](crate::table::ExternalTable) into a family, all or none. For each
    /// key they hold they are newer than everything written before, and older than everything written after. The
    /// key ranges of the files must not overlap. What the family has in memory is flushed first.
    ///
    /// # Errors
    /// `InvalidArgument` if files overlap, have seqnos of a store, or hold operands and the family has no operator;
    /// `TargetExists` if the store has one of the files already; `TableCorrupt` with file and offset; `NotFound`;
    /// those of [`Store::flush`]; errors of the file system. The sources are as they were.
    pub fn ingest<P: AsRef<Path>>(&mut self, family: Family, files: &[P], options: IngestOptions) -> Result {
        self.check_open()?;
        let has_operator = self.owned(family)?.options.merge.is_some();
        let shared = self.shared.clone();
        let mut candidates = files
            .iter()
            .map(|file| candidate(&*shared.fs, file.as_ref(), has_operator))
            .collect::<Result<Vec<_>>>()?;
        if candidates.is_empty() {
            return Ok(());
        }
        candidates.sort_by(|a, b| a.facts.smallest.cmp(&b.facts.smallest));
        for pair in candidates.windows(2) {
            if let [a, b] = pair
                && a.facts.largest >= b.facts.smallest
            {
                return Err(Error::invalid("two ingested files overlap")
                    .in_file(&b.source)
                    .with("other", a.source.display()));
            }
        }
        // What is in memory is older, so it must lie in an older run.
        self.flush()?;
        let mut placed = Placed {
            shared: &shared,
            files: Vec::new(),
        };
        for candidate in &candidates {
            placed.place(candidate, options.transfer)?;
        }
        shared.fs.sync_dir(&shared.dir)?;
        self.take_in(family, &candidates, &mut placed, options)?;
        if options.transfer == Transfer::Move {
            // The store has them; what cannot be removed stays beside it.
            candidates
                .iter()
                .for_each(|candidate| drop(shared.fs.remove_file(&candidate.source)));
        }
        Ok(())
    }

    fn take_in(
        &mut self,
        family: Family,
        candidates: &[Candidate],
        placed: &mut Placed<'_>,
        options: IngestOptions,
    ) -> Result {
        let shared = self.shared.clone();
        let seqno = self.next_seqno;
        let (id, run) = {
            let mut state = shared.state.lock();
            state.next_run += 1;
            let run = state.next_run;
            let slot = state.families.get(family.0 as usize);
            (slot.map(|slot| (slot.id, slot.epoch)), run)
        };
        let (id, epoch) = id.ok_or_else(|| Error::invalid("there is no such family"))?;
        let origin = if options.transfer == Transfer::Copy {
            Origin::Own
        } else {
            Origin::Mounted
        };
        let table = |candidate: &Candidate| -> Result<Arc<LiveTable>> {
            let facts = &candidate.facts;
            let record = TableRecord {
                run,
                tier: 0,
                origin,
                facts: Arc::new(facts.clone()),
                seqno_base: seqno,
                visible: KeyRange {
                    start: facts.smallest.clone(),
                    end: Some([&facts.largest[..], &[0]].concat()),
                },
            };
            let path = shared.table_path(facts.id);
            let table = LiveTable::new(path, record, shared.graveyard.clone(), shared.opener.clone());
            let reader = table.reader()?;
            if options.verify {
                reader.verify_all()?;
            }
            Ok(Arc::new(table))
        };
        let tables = candidates.iter().map(table).collect::<Result<Vec<_>>>()?;
        let mut edit = Edit {
            changes: vec![Change::NextSeqno(seqno + 1)],
        };
        edit.changes.extend(
            tables
                .iter()
                .map(|table| Change::AddTable(id, table.record.clone())),
        );
        // From here on the manifest decides whether the files stay.
        placed.files.clear();
        self.next_seqno += 1;
        let installed = shared.install((id, epoch), &edit, tables, |_| {});
        shared.bury_the_dead();
        let installed = installed?;
        self.refresh();
        crate::compaction::work::schedule(&shared);
        if installed {
            Ok(())
        } else {
            Err(Error::invalid("the family was dropped"))
        }
    }
}

/// Looks at a file and refuses one that was not made for this.
fn candidate(fs: &dyn Fs, source: &Path, has_operator: bool) -> Result<Candidate> {
    let id = table_id_of(fs, source)?;
    let reader = TableReader::open(fs, source, id, BlockAccess::Stream)?;
    let facts = reader.facts().clone();
    if facts.seqno_max != 0 || facts.entries != facts.keys || facts.range_deletes > 0 {
        return Err(
            Error::invalid("the file is a table of a store, not one made to be ingested").in_file(source),
        );
    }
    if facts.merges > 0 && !has_operator {
        return Err(
            Error::invalid("the file holds operands, and the family has no merge operator").in_file(source),
        );
    }
    Ok(Candidate {
        source: source.to_path_buf(),
        facts,
    })
}

/// Files in the directory that no manifest names yet; removed when this is dropped.
struct Placed<'a> {
    shared: &'a Shared,
    files: Vec<PathBuf>,
}

impl Placed<'_> {
    fn place(&mut self, candidate: &Candidate, transfer: Transfer) -> Result {
        let fs = &*self.shared.fs;
        let target = self.shared.table_path(candidate.facts.id);
        let mut links = transfer != Transfer::Copy;
        if links && self.shared.is_durable() {
            // Somebody may have copied it there just now: the manifest must not outlive the bytes.
            match fs.append(&candidate.source).and_then(|mut file| file.sync()) {
                Err(error) if is_impossible(&error) => links = false,
                result => result?,
            }
        }
        transfer_file(fs, &candidate.source, &target, links).map_err(|error| match error.code() {
            Code::TargetExists => error.context("the store has this table already"),
            _ => error,
        })?;
        self.files.push(target);
        Ok(())
    }
}

impl Drop for Placed<'_> {
    fn drop(&mut self) {
        self.files
            .iter()
            .for_each(|file| self.shared.remove_quietly(file));
    }
}

/// Gives a file a second name, or copies it where that is impossible or not wanted; the bytes of a copy are durable.
pub(crate) fn transfer_file(fs: &dyn Fs, source: &Path, target: &Path, link: bool) -> Result {
    if link {
        match fs.link(source, target) {
            Err(error) if is_impossible(&error) => {}
            result => return result,
        }
    }
    fs.copy(source, target)?;
    let synced = fs.append(target).and_then(|mut file| file.sync());
    synced.inspect_err(|_| drop(fs.remove_file(target)))
}

fn is_impossible(error: &Error) -> bool {
    matches!(
        error.io_kind(),
        Some(CrossesDevices | Unsupported | PermissionDenied | TooManyLinks)
    )
}
