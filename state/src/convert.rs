//! A snapshot rewritten in the other format: native from canonical, canonical from tables, with no job running, no types
//! of the user, and in bounded memory.
//!
//! ```text
//!   SnapshotDir ─ of that format already? ─▶ export: files copied as they are
//!       └─ else: begin a savepoint ─ each subtask rewritten ─ publish ─▶ its directory
//! ```
//! Job, generation, id, time, states, operator state (source positions in it), finished subtasks and properties stay.
//! The logical digest stays, too; that is what a conversion is.

use crate::{
    BackendOptions,
    canonical::{self, CanonicalHeader, FAMILY},
    runs::Runs,
};
use keybed_env::{Fs, fs::FileKind, random::Ids};
use keybed_format::{Code, Error, Result};
use keybed_snapshot::{
    Birth, KeyedHandle, LocalFile, Metadata, ObjectName, OpenFiles, OperatorSnapshot, PutFiles,
    SavepointTarget, Scope, SnapshotDir, SnapshotKind, savepoint::export,
};
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

/// What a conversion may use.
#[derive(Clone, Debug)]
pub struct ConvertOptions {
    /// Memory in which windows and timers are sorted, in bytes; at most 32 MiB are used. Default 32 MiB. Smaller: more
    /// scratch files.
    pub memory_bytes: usize,
    /// Where ids of tables and objects come from. Default: entropy; anything else is for simulation only.
    pub ids: Ids,
}

impl Default for ConvertOptions {
    fn default() -> Self {
        ConvertOptions {
            memory_bytes: 32 << 20,
            ids: Ids::Entropy,
        }
    }
}

/// Writes `snapshot`, whatever kind it is and whichever backend wrote it, as a new savepoint of the kind `to` in
/// `target`, and returns its directory. Scratch files lie in that directory while it is written. Nothing is written to
/// the source.
///
/// # Errors
/// `InvalidArgument` if `to` is no kind of savepoint; those of [`SnapshotDir::hold`], before anything is
/// created; `SnapshotCorrupt` naming a damaged file; those of writing and publishing. A failed conversion leaves no
/// directory behind.
pub fn convert(
    snapshot: &SnapshotDir,
    to: SnapshotKind,
    target: &SavepointTarget,
    mut options: ConvertOptions,
) -> Result<PathBuf> {
    demand_savepoint(to)?;
    if is_in(snapshot.metadata(), to) {
        return export(snapshot, target, options.ids);
    }
    let held = snapshot.hold()?;
    let source = snapshot.metadata();
    let birth = Birth {
        generation: source.generation,
        checkpoint: source.checkpoint,
    };
    let writer = target.begin(source.job, birth, options.ids.fork())?;
    let name = ObjectName::temporary(birth, options.ids.fresh()?);
    let scratch = Scratch::create(target.fs().clone(), writer.directory().join(name.as_str()))?;
    let backend = BackendOptions {
        fs: target.fs().clone(),
        memtable_bytes: options.memory_bytes,
        ids: options.ids,
        ..BackendOptions::heap(&scratch.dir)
    };
    let converted = convert_states(source, &held, to, &*writer, backend)?;
    scratch.remove()?;
    writer.publish(&converted)?;
    Ok(writer.directory().to_path_buf())
}

/// The metadata of `source` as a savepoint of the kind `to`, its keyed state rewritten into `out`. Scratch files lie in
/// the directory of `options`, whose memory bounds sorting.
///
/// # Errors
/// `InvalidArgument` if `to` is no kind of savepoint; `SnapshotCorrupt`, `SnapshotIncomplete`; errors of `out` and of
/// the file system.
pub fn convert_states(
    source: &Metadata,
    files: &dyn OpenFiles,
    to: SnapshotKind,
    out: &dyn PutFiles,
    mut options: BackendOptions,
) -> Result<Metadata> {
    demand_savepoint(to)?;
    let mut metadata = Metadata {
        kind: to,
        externals: Vec::new(),
        ..source.clone()
    };
    for operator in &mut metadata.operators {
        let of = OperatorSnapshot {
            subtasks: Vec::new(),
            ..operator.clone()
        };
        for subtask in &mut operator.subtasks {
            let Some(keyed) = &mut subtask.keyed else {
                subtask.new_bytes = 0;
                continue;
            };
            options.kind = keyed.backend;
            *keyed = convert_keyed(keyed, &of, files, to, out, &mut options)
                .map_err(|e| e.context(format!("subtask {} of {}", subtask.index, of.uid)))?;
            let files: BTreeMap<_, _> = keyed.files().map(|file| (&file.object, file.length)).collect();
            subtask.new_bytes = files.into_values().fold(0, u64::saturating_add);
        }
    }
    Ok(metadata)
}

/// The keyed state of one subtask in the other format; what is in that format already is copied.
fn convert_keyed(
    keyed: &KeyedHandle,
    operator: &OperatorSnapshot,
    files: &dyn OpenFiles,
    to: SnapshotKind,
    out: &dyn PutFiles,
    options: &mut BackendOptions,
) -> Result<KeyedHandle> {
    if is_keyed_in(keyed, to) {
        return copy(keyed, files, out, options);
    }
    let (tables, mut parts) = canonical::separate(std::slice::from_ref(keyed), keyed.range)?;
    if tables.iter().any(|handle| !handle.families.is_empty()) && !parts.is_empty() {
        return Err(Error::new(
            Code::SnapshotCorrupt,
            "a subtask has tables and canonical files at once",
        ));
    }
    let (range, max_parallelism) = (keyed.range, operator.max_parallelism);
    if to == SnapshotKind::CanonicalSavepoint {
        let header = CanonicalHeader::new(range, max_parallelism, operator.catalogue.clone());
        let runs = Runs::combine(&tables, range)?;
        canonical::to_canonical(&runs, &header, files, options, out)
    } else {
        for part in &mut parts {
            part.max_parallelism = Some(max_parallelism);
        }
        canonical::to_tables(&parts, range, &operator.catalogue, files, options, out)
    }
}

/// The same files in another place.
fn copy(
    keyed: &KeyedHandle,
    files: &dyn OpenFiles,
    out: &dyn PutFiles,
    options: &mut BackendOptions,
) -> Result<KeyedHandle> {
    let mut copies = BTreeMap::new();
    let mut keyed = keyed.clone();
    for run in keyed.families.iter_mut().flat_map(|family| &mut family.runs) {
        for table in &mut run.tables {
            if !copies.contains_key(&table.file) {
                let path = options.dir.join(format!(
                    "copy-{}",
                    keybed_format::hex::encode(options.ids.fresh()?)
                ));
                files.fetch(&table.file, &*options.fs, &path)?;
                let (content, digest, bytes) = (table.file.content, table.file.digest, table.file.length);
                let copy = out.give_file(
                    Scope::Exclusive,
                    LocalFile {
                        fs: &*options.fs,
                        path: &path,
                        content,
                        digest,
                        bytes,
                    },
                )?;
                options.fs.remove_file(&path)?;
                copies.insert(table.file.clone(), copy);
            }
            if let Some(copy) = copies.get(&table.file) {
                table.file = copy.clone();
            }
        }
    }
    Ok(keyed)
}

fn demand_savepoint(to: SnapshotKind) -> Result {
    match to {
        SnapshotKind::NativeSavepoint | SnapshotKind::CanonicalSavepoint => Ok(()),
        _ => Err(Error::invalid("a snapshot is converted to a savepoint").with("to", format_args!("{to:?}"))),
    }
}

/// Whether all keyed state is in the format of that kind already.
fn is_in(metadata: &Metadata, to: SnapshotKind) -> bool {
    let subtasks = metadata.operators.iter().flat_map(|operator| &operator.subtasks);
    let mut keyed = subtasks.filter_map(|subtask| subtask.keyed.as_ref()).peekable();
    // Without any the kind alone tells them apart, which an export leaves as it is.
    match keyed.peek() {
        None => metadata.kind == to,
        Some(_) => keyed.all(|keyed| is_keyed_in(keyed, to)) && exports_as(metadata.kind, to),
    }
}

/// Whether the export of a snapshot is of the kind `to`.
fn exports_as(kind: SnapshotKind, to: SnapshotKind) -> bool {
    match kind {
        SnapshotKind::CanonicalSavepoint => to == SnapshotKind::CanonicalSavepoint,
        _ => to == SnapshotKind::NativeSavepoint,
    }
}

/// Whether the state of a subtask is in the format of that kind already; an empty one is in both.
fn is_keyed_in(keyed: &KeyedHandle, to: SnapshotKind) -> bool {
    let canonical = |family: &keybed_snapshot::FamilyHandle| family.name == FAMILY;
    match to {
        SnapshotKind::CanonicalSavepoint => {
            !keyed.families.is_empty() && keyed.families.iter().all(canonical)
        }
        _ => !keyed.families.iter().any(canonical),
    }
}

/// A directory for scratch files, gone with everything in it when it is dropped.
struct Scratch {
    fs: std::sync::Arc<dyn Fs>,
    dir: PathBuf,
}

impl Scratch {
    fn create(fs: std::sync::Arc<dyn Fs>, dir: PathBuf) -> Result<Scratch> {
        fs.create_dir(&dir)?;
        Ok(Scratch { fs, dir })
    }

    fn remove(self) -> Result {
        remove(&*self.fs, &self.dir)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // The error that ended the conversion is what matters; the name tells what a left-over directory is.
        let _ = remove(&*self.fs, &self.dir);
    }
}

fn remove(fs: &dyn Fs, dir: &Path) -> Result {
    if fs.facts(dir)?.is_none() {
        return Ok(());
    }
    for entry in fs.list(dir)? {
        if entry.kind == FileKind::File {
            fs.remove_file(&dir.join(&entry.name))?;
        }
    }
    fs.remove_dir(dir)
}
