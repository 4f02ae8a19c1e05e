//! The model: plain sets that know what must exist. It shares no code with registry, survey and owner records.
//!
//! A snapshot is *sure* once somebody was told that it exists. One that may exist counts when its `_metadata` lies on
//! the disk, and then completely.

use super::claims::Claims;
use keybed_snapshot::{
    Anchor, CheckpointId, ClaimMode, FileHandle, Folder, JobId, Metadata, SnapshotOwner, metadata::decode,
};
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// Why the world is not as it must be.
pub(crate) type Violation = String;

macro_rules! demand {
    ($holds:expr, $($why:tt)*) => {
        if !$holds {
            return Err(format!($($why)*));
        }
    };
}
pub(crate) use demand;

/// All files of a disk by their path.
pub(crate) type Files = HashMap<String, Vec<u8>>;

/// A snapshot that exists or may exist.
#[derive(Clone, Debug)]
pub(crate) struct Known {
    pub(crate) metadata: Metadata,
    /// Root in whose `chk-<n>` it lies; `None` if it belongs to the user.
    pub(crate) root: Option<usize>,
    pub(crate) sure: bool,
    /// Bytes of `_metadata`, once they were found to say what they must.
    bytes: Option<Vec<u8>>,
}

/// What a generation continued.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Restored {
    Nothing,
    Checkpoint(CheckpointId),
    Snapshot(String, ClaimMode),
}

/// One job root.
#[derive(Clone, Debug)]
pub(crate) struct RootLedger {
    pub(crate) job: JobId,
    /// Generations that are known to exist.
    pub(crate) generations: usize,
    /// What each generation was last tried to be started from; the last ones may not have come to be.
    pub(crate) tried: Vec<Restored>,
    pub(crate) retain: usize,
    /// FINISHED may lie there.
    pub(crate) ending: bool,
    /// FINISHED lies there.
    pub(crate) finished: bool,
    /// Its retained checkpoints may go.
    pub(crate) retains_none: bool,
    /// The snapshot that it was told to own.
    pub(crate) claimed: Option<String>,
    /// Most checkpoints that its timeline ever held.
    pub(crate) completed_most: usize,
}

impl RootLedger {
    pub(crate) fn new(job: JobId) -> Self {
        RootLedger {
            job,
            generations: 0,
            tried: Vec::new(),
            retain: 1,
            ending: false,
            finished: false,
            retains_none: false,
            claimed: None,
            completed_most: 0,
        }
    }

    pub(crate) fn dir(&self) -> String {
        format!("/ckpt/{}", self.job)
    }

    pub(crate) fn checkpoint(&self, id: CheckpointId) -> String {
        format!("{}/chk-{id}", self.dir())
    }

    /// What the newest generation started from.
    pub(crate) fn source(&self) -> Option<&Restored> {
        self.tried.get(self.generations.checked_sub(1)?)
    }

    /// The snapshot that it has to be started from again, if its timeline is empty.
    pub(crate) fn awaits(&self, timeline: &[CheckpointId]) -> Option<String> {
        match self.source() {
            Some(Restored::Snapshot(source, _)) if timeline.is_empty() => Some(source.clone()),
            _ => None,
        }
    }

    /// What is gone on from, newest first. `of` tells who wrote a checkpoint, also of one that is gone.
    pub(crate) fn timeline(
        &self,
        published: &BTreeMap<CheckpointId, u64>,
        of: impl Fn(CheckpointId) -> Option<u64>,
    ) -> Vec<CheckpointId> {
        let mut timeline = Vec::new();
        let (mut generation, mut id_max) = (self.generations, CheckpointId(u64::MAX));
        while generation > 0 {
            for (id, of) in published.range(..=id_max).rev() {
                if *of as usize == generation {
                    timeline.push(*id);
                }
            }
            let Restored::Checkpoint(source) = self.tried[generation - 1] else {
                break;
            };
            (generation, id_max) = (of(source).unwrap_or(0) as usize, source);
        }
        timeline
    }
}

/// Everything that is known.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ledger {
    /// Whole files by content id.
    pub(crate) contents: HashMap<u128, Vec<u8>>,
    /// Snapshots by their directory.
    pub(crate) known: BTreeMap<String, Known>,
    pub(crate) roots: Vec<RootLedger>,
    /// Claims as they stood after the last step.
    pub(crate) claims: Claims,
}

impl Ledger {
    /// Somebody is about to publish a snapshot.
    pub(crate) fn tries(&mut self, directory: String, root: Option<usize>, metadata: Metadata) {
        let known = Known {
            metadata,
            root,
            sure: false,
            bytes: None,
        };
        self.known.insert(directory, known);
    }

    /// Somebody was told that it exists.
    pub(crate) fn sure(&mut self, directory: &str) {
        if let Some(known) = self.known.get_mut(directory) {
            known.sure = true;
        }
    }

    /// From now on it may exist or not.
    pub(crate) fn unsure(&mut self, directory: &str) {
        if let Some(known) = self.known.get_mut(directory) {
            known.sure = false;
        }
    }

    /// A root is gone, with everything in it.
    pub(crate) fn forget(&mut self, root: usize) {
        self.roots.remove(root);
        self.known.retain(|_, known| known.root != Some(root));
        for known in self.known.values_mut() {
            known.root = known.root.map(|at| at - usize::from(at > root));
        }
    }

    pub(crate) fn is_there(&self, directory: &str, files: &Files) -> bool {
        files.contains_key(&format!("{directory}/_metadata"))
    }

    /// Checkpoints of a root that exist, with their generations.
    pub(crate) fn published(&self, root: usize, files: &Files) -> BTreeMap<CheckpointId, u64> {
        let mut published = BTreeMap::new();
        for (directory, known) in &self.known {
            if known.root == Some(root) && (known.sure || self.is_there(directory, files)) {
                published.insert(known.metadata.checkpoint, known.metadata.generation.0);
            }
        }
        published
    }

    /// Checkpoints that a root goes on from, newest first, and older ones that are not deleted yet.
    pub(crate) fn timeline(&self, root: usize, files: &Files) -> Vec<CheckpointId> {
        let ledger = &self.roots[root];
        let of = |id| {
            self.known
                .get(&ledger.checkpoint(id))
                .map(|known| known.metadata.generation.0)
        };
        ledger.timeline(&self.published(root, files), of)
    }

    /// Checkpoints of a root that must not go: the newest of the timeline, and all that are not on it.
    pub(crate) fn retained(&self, root: usize, files: &Files) -> BTreeSet<CheckpointId> {
        let ledger = &self.roots[root];
        let published = self.published(root, files);
        let timeline = self.timeline(root, files);
        let kept = if ledger.retains_none { 0 } else { ledger.retain };
        let subsumed = timeline.iter().skip(kept);
        let may_go: BTreeSet<_> = subsumed
            .filter(|id| self.claimant(root, **id).is_none())
            .collect();
        published
            .keys()
            .filter(|id| !may_go.contains(id))
            .copied()
            .collect()
    }

    /// Where a file of a snapshot lies.
    pub(crate) fn path(&self, directory: &str, file: &FileHandle) -> Result<String, Violation> {
        let object = file.object.as_str();
        match (file.anchor, file.folder) {
            (Anchor::SelfDir, Folder::Private) => Ok(format!("{directory}/{object}")),
            (Anchor::Root, Folder::Shared) => {
                let (root, _) = directory.rsplit_once('/').ok_or("a snapshot without a root")?;
                Ok(format!("{root}/shared/{object}"))
            }
            (Anchor::External(id), folder) => {
                let rows = &self.known[directory].metadata.externals;
                let row = rows.iter().find(|row| row.id == id).ok_or("no such anchor")?;
                let at = row
                    .url
                    .strip_prefix("file://")
                    .ok_or("an address of another kind")?;
                let (around, _) = at.rsplit_once('/').ok_or("an address without a directory")?;
                match folder {
                    Folder::Private => Ok(format!("{at}/{object}")),
                    Folder::Shared => Ok(format!("{around}/shared/{object}")),
                    Folder::TaskOwned => Err(format!("an unexpected reference to {object}")),
                }
            }
            other => Err(format!("an unexpected reference {other:?} in {directory}")),
        }
    }

    /// A file that must be there with the bytes that were written.
    pub(crate) fn demand_file(
        &self,
        directory: &str,
        file: &FileHandle,
        files: &Files,
        why: &str,
    ) -> Result<(), Violation> {
        let path = self.path(directory, file)?;
        match files.get(&path) {
            Some(bytes) if *bytes == self.contents[&file.content] => Ok(()),
            Some(_) => Err(format!("{path} was changed, needed by {directory}: {why}")),
            None => Err(format!("{path} is missing, needed by {directory}: {why}")),
        }
    }

    /// Everything that can be addressed is whole, and everything that must exist can be addressed. Takes note of
    /// snapshots that were allowed to go and went.
    pub(crate) fn check(
        &mut self,
        files: &Files,
        pinned: &BTreeSet<String>,
        counts: &mut BTreeMap<&'static str, u64>,
    ) -> Result<(), Violation> {
        let found: Vec<String> = files
            .keys()
            .filter_map(|path| path.strip_suffix("/_metadata").map(str::to_owned))
            .collect();
        for directory in found {
            let bytes = &files[&format!("{directory}/_metadata")];
            if !self.known.contains_key(&directory) {
                self.meet(&directory, bytes)?;
            }
            let known = self.known.get_mut(&directory).ok_or("just met")?;
            if known.bytes.as_ref() != Some(bytes) {
                let metadata = decode(bytes).map_err(|e| format!("{directory}: {e}"))?;
                let mut expected = known.metadata.clone();
                expected.properties.clone_from(&metadata.properties);
                // Addresses are what the library writes; that they lead to the bytes is looked at below.
                expected.externals.clone_from(&metadata.externals);
                demand!(
                    metadata == expected,
                    "{directory} holds other metadata: {metadata:?} instead of {expected:?}"
                );
                known.metadata = metadata;
                known.bytes = Some(bytes.clone());
            }
            let known = &self.known[&directory];
            for file in known.metadata.files() {
                self.demand_file(&directory, file, files, "it can be addressed")?;
            }
        }
        for root in 0..self.roots.len() {
            let completed = self.timeline(root, files).len();
            let most = &mut self.roots[root].completed_most;
            *most = (*most).max(completed);
        }
        self.take_leave(files, pinned, counts)?;
        self.demand_claims(files)
    }

    /// Finds that what is gone was allowed to go.
    fn take_leave(
        &mut self,
        files: &Files,
        pinned: &BTreeSet<String>,
        counts: &mut BTreeMap<&'static str, u64>,
    ) -> Result<(), Violation> {
        let mut must = pinned.clone();
        for (index, root) in self.roots.iter().enumerate() {
            let retained = self.retained(index, files).into_iter();
            must.extend(retained.map(|id| root.checkpoint(id)));
        }
        let gone: Vec<String> = self
            .known
            .iter()
            .filter(|(directory, known)| known.sure && !self.is_there(directory, files))
            .map(|(directory, _)| directory.clone())
            .collect();
        for directory in gone {
            let root = self.known[&directory].root;
            if let Some(by) = self.claims.get(&directory)
                && self.is_subsumed(&directory, *by, files)
            {
                *counts.entry("claimed snapshots gone").or_default() += 1;
                self.unsure(&directory);
                continue;
            }
            demand!(
                root.is_some() && !must.contains(&directory),
                "{directory} must exist and is gone"
            );
            *counts.entry("subsumed checkpoints gone").or_default() += 1;
            for (other, known) in &mut self.known {
                if *other == directory {
                    // Its deletion may not be durable yet: then a power loss brings it back.
                    known.sure = false;
                } else if known.root == root && must.contains(other) {
                    // It took that one's place, so from now on it is there for good.
                    known.sure = true;
                }
            }
        }
        Ok(())
    }

    /// A snapshot whose metadata nobody could know before: an export.
    fn meet(&mut self, directory: &str, bytes: &[u8]) -> Result<(), Violation> {
        demand!(
            directory.starts_with("/exported/"),
            "{directory} was never published"
        );
        let metadata = decode(bytes).map_err(|e| format!("{directory}: {e}"))?;
        demand!(
            metadata.kind.owner() == SnapshotOwner::User,
            "{directory} is an export of kind {:?}",
            metadata.kind
        );
        let contents = |metadata: &Metadata| metadata.files().map(|f| f.content).collect::<BTreeSet<_>>();
        let same = |known: &Known| {
            let names = |m: &Metadata| (m.job, m.generation, m.checkpoint);
            names(&known.metadata) == names(&metadata) && contents(&known.metadata) == contents(&metadata)
        };
        demand!(
            self.known.values().any(same),
            "{directory} is an export of nothing that was ever published"
        );
        self.tries(directory.to_owned(), None, metadata);
        Ok(())
    }
}
