//! Writing a savepoint: files are put into its own directory, `_metadata` makes it exist, a failure removes it.
//!
//! ```text
//!  create directory ─ put files (each synced) ─ sync directory and target ─ `_metadata`: temporary, sync, rename, sync
//!                                                                                                        ↑ exists
//!  crash before the rename: a directory of that name without `_metadata`, only names that tell their birth
//!  crash after it: the savepoint exists, every byte it names is durable
//! ```
//! A failure before the rename is certain: what this writer created is removed, and nothing else. A failure after it is
//! looked up, never undone.

use super::{SHARES_STORAGE_WITH, SavepointTarget, target::remove_parents};
use crate::{
    Anchor, Birth, FileHandle, Folder, JobId, LocalFile, Metadata, ObjectName, OpenFiles, PutFiles, Scope,
    SnapshotOwner,
    held::HeldSnapshot,
    metadata::encode,
    storage::{layout, take::linked},
    verify::verify_content,
};
use keybed_env::{Fs, fs::FileKind, random::Ids};
use keybed_format::{Code, Error, Result};
use parking_lot::Mutex;
use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

/// A savepoint that is being written. Shared by the subtasks that put files; when the last one lets it go
/// unpublished, its directory is removed.
#[derive(Debug)]
pub struct SavepointWriter {
    target: SavepointTarget,
    directory: PathBuf,
    /// Directories around it that did not exist before, innermost first.
    parents: Vec<PathBuf>,
    job: JobId,
    birth: Birth,
    ids: Mutex<Ids>,
    /// Locked for decisions only, never across I/O.
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    phase: Phase,
    /// Files being put now.
    putting: usize,
    /// Every name that this writer may have created, with its file once that is complete.
    names: BTreeMap<ObjectName, Option<FileHandle>>,
    linked_from: BTreeSet<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Open,
    Publishing,
    Published,
    /// `_metadata` may exist: nothing is removed.
    Unknown,
    /// It never existed and never will.
    Abandoned,
}

impl SavepointWriter {
    pub(super) fn new(
        target: SavepointTarget,
        directory: PathBuf,
        parents: Vec<PathBuf>,
        (job, birth, ids): (JobId, Birth, Ids),
    ) -> Self {
        SavepointWriter {
            target,
            directory,
            parents,
            job,
            birth,
            ids: Mutex::new(ids),
            state: Mutex::new(State {
                phase: Phase::Open,
                putting: 0,
                names: BTreeMap::new(),
                linked_from: BTreeSet::new(),
            }),
        }
    }

    /// The savepoint's directory: the location to tell the user once it is published.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Makes the savepoint exist: writes `_metadata` durably, completely or not at all. Files that were put and are
    /// not referenced are removed; [`SHARES_STORAGE_WITH`] is set if files were linked.
    ///
    /// # Errors
    /// `InvalidArgument` if the metadata is another snapshot's or references anything that was not put here;
    /// `SnapshotIncomplete` if a file is gone; `CheckpointDeclined` if the savepoint was given up; errors of the file
    /// system. The savepoint is then certain not to exist and its directory is removed (field `left` names it if that
    /// was impossible), unless [`SavepointWriter::is_unknown`] says otherwise.
    pub fn publish(&self, metadata: &Metadata) -> Result {
        self.enter_publishing()?;
        let bytes = match self.prepare(metadata) {
            Ok(bytes) => bytes,
            Err(error) => return Err(self.fail(error)),
        };
        let file = layout::document(&self.directory, layout::METADATA_NAME);
        let written = self.temporary_name().and_then(|temporary| {
            self.state.lock().names.insert(temporary.clone(), None);
            let temporary_file = layout::private(&self.directory, &temporary);
            self.fs().write_atomic(&file, &temporary_file, &bytes)
        });
        let Err(error) = written else {
            self.state.lock().phase = Phase::Published;
            return Ok(());
        };
        match self.fs().read(&file, bytes.len() as u64) {
            Err(e) if e.code() == Code::NotFound => Err(self.fail(error)),
            Ok(found) if found == bytes && self.fs().sync_dir(&self.directory).is_ok() => {
                self.state.lock().phase = Phase::Published;
                Ok(())
            }
            _ => {
                self.state.lock().phase = Phase::Unknown;
                Err(error
                    .context("whether the savepoint exists is unknown")
                    .with("left", self.directory.display()))
            }
        }
    }

    /// Whether publishing failed in a way that leaves open whether the savepoint exists; then its directory was left
    /// as it is: open it to find out.
    pub fn is_unknown(&self) -> bool {
        self.state.lock().phase == Phase::Unknown
    }

    /// Gives the savepoint up and removes its directory; if files are being put, the last one does. May be repeated.
    ///
    /// # Errors
    /// `InvalidArgument` if it is published or may be; errors of the file system, and if somebody else put files into
    /// the directory: it stays, holding them.
    pub fn abandon(&self) -> Result {
        {
            let mut state = self.state.lock();
            match state.phase {
                Phase::Open | Phase::Abandoned => state.phase = Phase::Abandoned,
                Phase::Publishing | Phase::Published | Phase::Unknown => {
                    return Err(
                        Error::invalid("the savepoint is published or may be").in_file(&self.directory)
                    );
                }
            }
            if state.putting > 0 {
                return Ok(());
            }
        }
        self.remove()
    }

    fn fs(&self) -> &dyn Fs {
        &*self.target.fs
    }

    fn temporary_name(&self) -> Result<ObjectName> {
        Ok(ObjectName::temporary(self.birth, self.ids.lock().fresh()?))
    }

    fn enter_publishing(&self) -> Result {
        let mut state = self.state.lock();
        match state.phase {
            Phase::Open if state.putting == 0 => {
                state.phase = Phase::Publishing;
                Ok(())
            }
            Phase::Open => {
                // Whoever puts the last file removes everything.
                state.phase = Phase::Abandoned;
                Err(Error::invalid("a file of the savepoint is still being put"))
            }
            Phase::Abandoned => Err(given_up()),
            Phase::Publishing | Phase::Published | Phase::Unknown => {
                Err(Error::invalid("the savepoint was published before").in_file(&self.directory))
            }
        }
    }

    /// Everything before the first byte of `_metadata`.
    fn prepare(&self, metadata: &Metadata) -> Result<Vec<u8>> {
        let found = (metadata.job, metadata.generation, metadata.checkpoint);
        if found != (self.job, self.birth.generation, self.birth.checkpoint)
            || metadata.kind.owner() != SnapshotOwner::User
        {
            return Err(
                Error::invalid("the metadata is not that of this savepoint").with("checkpoint", found.2)
            );
        }
        self.demand_inside(metadata)?;
        let mut metadata = metadata.clone();
        metadata.properties.remove(SHARES_STORAGE_WITH);
        if let Some(text) = shares_storage_with(&self.state.lock().linked_from) {
            metadata.properties.insert(SHARES_STORAGE_WITH.to_owned(), text);
        }
        let bytes = encode(&metadata)?;
        self.fs().sync_dir(&self.directory)?;
        self.fs().sync_dir(&self.target.directory)?;
        let file = layout::document(&self.directory, layout::METADATA_NAME);
        match self.fs().facts(&file)? {
            None => Ok(bytes),
            Some(_) => Err(Error::new(Code::TargetExists, "somebody else's metadata is there").in_file(file)),
        }
    }

    /// Checks that every reference is one of the files put here, and removes those that nothing references.
    fn demand_inside(&self, metadata: &Metadata) -> Result {
        let referenced: BTreeSet<&FileHandle> = metadata.files().collect();
        let put: BTreeMap<_, _> = self.state.lock().names.clone();
        for file in &referenced {
            if put.get(&file.object).and_then(Option::as_ref) != Some(file) {
                return Err(Error::invalid(
                    "a savepoint references a file that was not put into its directory",
                )
                .with("object", &file.object));
            }
            let path = layout::private(&self.directory, &file.object);
            let facts = self.fs().facts(&path)?;
            if facts.is_none_or(|facts| (facts.kind, facts.len) != (FileKind::File, file.length)) {
                return Err(Error::new(
                    Code::SnapshotIncomplete,
                    "a file of the savepoint is gone or was changed",
                )
                .with("missing", path.display())
                .in_file(path));
            }
        }
        for (name, file) in &put {
            if file.as_ref().is_none_or(|file| !referenced.contains(file)) {
                self.remove_name(name)?;
            }
        }
        Ok(())
    }

    /// Certain not to exist: removes what is there and completes the error.
    fn fail(&self, error: Error) -> Error {
        self.state.lock().phase = Phase::Abandoned;
        match self.remove() {
            Ok(()) => error,
            Err(_) => error.with("left", self.directory.display()),
        }
    }

    fn remove_name(&self, name: &ObjectName) -> Result {
        match self.fs().remove_file(&layout::private(&self.directory, name)) {
            Err(e) if e.code() != Code::NotFound => return Err(e),
            _ => {}
        }
        self.state.lock().names.remove(name);
        Ok(())
    }

    /// Removes the names that this writer created, then its directory, then the directories created for it. Only
    /// where `_metadata` never existed.
    fn remove(&self) -> Result {
        let names: Vec<ObjectName> = self.state.lock().names.keys().cloned().collect();
        let mut first = Ok(());
        for name in &names {
            first = first.and(self.remove_name(name));
        }
        first?;
        match self.fs().remove_dir(&self.directory) {
            Err(e) if e.code() != Code::NotFound => return Err(e),
            _ => {}
        }
        // A power loss may bring the empty directory back; its name tells what it is.
        let _ = self.fs().sync_dir(&self.target.directory);
        remove_parents(self.fs(), &self.parents);
        Ok(())
    }
}

impl PutFiles for SavepointWriter {
    fn location(&self) -> Option<&Path> {
        Some(&self.directory)
    }

    fn put_file(&self, scope: Scope, file: LocalFile<'_>) -> Result<FileHandle> {
        self.take_in(scope, file, false)
    }

    fn give_file(&self, scope: Scope, file: LocalFile<'_>) -> Result<FileHandle> {
        self.take_in(scope, file, true)
    }
}

impl SavepointWriter {
    /// Takes a file in; one that was given stays with nobody else, so a link to it shares nothing.
    fn take_in(&self, scope: Scope, offered: LocalFile<'_>, given: bool) -> Result<FileHandle> {
        let from = offered.path;
        if scope == Scope::Shared {
            return Err(Error::invalid("a savepoint shares no files").in_file(from));
        }
        offered.demand_announced()?;
        let folder = from.parent().unwrap_or(Path::new(""));
        self.put(offered.names(), folder, |to| {
            let may_link = given || self.target.hard_links;
            let target = (self.fs(), to);
            let linked = self
                .target
                .intake
                .take((offered.fs, from), offered.bytes, target, may_link)?;
            Ok(linked && !given)
        })
    }

    /// Copies a file of another snapshot in, or links it if the target allows that and it is possible; it is read
    /// completely either way.
    ///
    /// # Errors
    /// Those of opening it; `SnapshotCorrupt` naming the source if its bytes are not those of the handle.
    pub(super) fn put_copy(&self, from: &HeldSnapshot<'_>, handle: &FileHandle) -> Result<FileHandle> {
        let names = (handle.content, handle.digest, handle.length);
        let source = from.snapshot().path(handle)?;
        let folder = source.parent().unwrap_or(Path::new(""));
        self.put(names, folder, |to| {
            let is_link = self.link(from, (handle, &source), to)?;
            if !is_link {
                from.fetch(handle, self.fs(), to)?;
            }
            verify_content(handle, &*self.fs().open(to)?, &from.describe(handle))?;
            self.fs().append(to)?.sync()?;
            Ok(is_link)
        })
    }

    /// Links a file of another snapshot in; `false` if only a copy can do.
    fn link(
        &self,
        from: &HeldSnapshot<'_>,
        (handle, source): (&FileHandle, &Path),
        to: &Path,
    ) -> Result<bool> {
        let there = from.snapshot().fs().namespace();
        let whole = handle.offset == 0;
        if !(self.target.hard_links && whole && there.is_some() && there == self.fs().namespace()) {
            return Ok(false);
        }
        match linked(self.fs(), source, to) {
            // Its owner took the name away.
            Err(e) if e.code() == Code::NotFound => Ok(false),
            other => other,
        }
    }

    /// Makes a new object of (content, digest, bytes) by `take`, which tells whether it is a link into `folder`.
    fn put(
        &self,
        (content, digest, length): (u128, u64, u64),
        folder: &Path,
        take: impl FnOnce(&Path) -> Result<bool>,
    ) -> Result<FileHandle> {
        let object = ObjectName::of(self.birth, self.ids.lock().fresh()?);
        {
            let mut state = self.state.lock();
            if state.phase != Phase::Open {
                return Err(given_up());
            }
            // Known before the first byte, so that it is removed whatever happens.
            state.names.insert(object.clone(), None);
            state.putting += 1;
        }
        let taken = take(&layout::private(&self.directory, &object));
        let handle = FileHandle {
            content,
            anchor: Anchor::SelfDir,
            folder: Folder::Private,
            object,
            offset: 0,
            length,
            digest,
        };
        self.ends(taken, handle, folder)
    }

    /// The end of a put: takes note of the file, or removes it if it failed or came too late.
    fn ends(&self, taken: Result<bool>, handle: FileHandle, folder: &Path) -> Result<FileHandle> {
        let (phase, putting) = {
            let mut state = self.state.lock();
            state.putting -= 1;
            if let (Ok(linked), Phase::Open) = (&taken, state.phase) {
                state.names.insert(handle.object.clone(), Some(handle.clone()));
                if *linked {
                    state.linked_from.insert(folder.display().to_string());
                }
                return Ok(handle);
            }
            (state.phase, state.putting)
        };
        // The failure is what the caller must hear of; the name is known and removed with the directory.
        let _ = match (phase, putting) {
            (Phase::Abandoned, 0) => self.remove(),
            _ => self.remove_name(&handle.object),
        };
        taken.and_then(|_| Err(given_up()))
    }
}

impl Drop for SavepointWriter {
    fn drop(&mut self) {
        let state = self.state.get_mut();
        let leftovers = !state.names.is_empty() || state.phase == Phase::Open;
        if matches!(state.phase, Phase::Open | Phase::Abandoned) && leftovers {
            // What cannot be removed is recognised by its names.
            let _ = self.remove();
        }
    }
}

/// Directories named in [`SHARES_STORAGE_WITH`]; further ones are only counted.
const SHARES_STORAGE_LINES_MAX: usize = 64;
/// Longest of its lines, in characters.
const SHARES_STORAGE_LINE_CHARS_MAX: usize = 200;

fn shares_storage_with(linked_from: &BTreeSet<String>) -> Option<String> {
    let line = |text: &String| {
        text.chars()
            .take(SHARES_STORAGE_LINE_CHARS_MAX)
            .collect::<String>()
    };
    let mut lines: Vec<String> = linked_from
        .iter()
        .take(SHARES_STORAGE_LINES_MAX)
        .map(line)
        .collect();
    match linked_from.len().saturating_sub(lines.len()) {
        0 => {}
        more => lines.push(format!("and {more} more")),
    }
    (!lines.is_empty()).then(|| lines.join("\n"))
}

fn given_up() -> Error {
    Error::new(Code::CheckpointDeclined, "the savepoint was given up")
}
