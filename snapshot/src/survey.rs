//! What lies in a job root: everything read once, nothing decided.

use crate::{
    CheckpointId, CheckpointStorage, FinishedRecord, Generation, JobId, Metadata, ObjectPath, OwnerRecord,
    Place, RootId, StopRecord,
    claim::{ClaimList, newest_list},
    finished::FINISHED_BYTES_MAX,
    metadata::{METADATA_BYTES_MAX, decode},
    owner::{OWNER_BYTES_MAX, Owners, missing_record},
    stop::STOP_BYTES_MAX,
};
use keybed_env::fs::FileKind;
use keybed_format::{Code, Error, Result};
use std::collections::{BTreeMap, BTreeSet};

/// What a folder `chk-<n>` holds.
#[derive(Debug)]
pub enum Found {
    /// No `_metadata`: being written, aborted, or half deleted.
    Unpublished,
    /// A readable snapshot of this root.
    Published(Box<Metadata>),
    /// `_metadata` is there but cannot be used; the error names file and offset.
    Unreadable(Error),
}

/// The content of a job root.
#[derive(Debug)]
pub struct Survey {
    /// Owner records.
    pub owners: Owners,
    /// Folders of checkpoints.
    pub checkpoints: BTreeMap<CheckpointId, Found>,
    /// Every file whose name is ours, but for records and metadata.
    pub objects: Vec<ObjectPath>,
    /// Names that are not ours, with their folder: never touched.
    pub unknown: Vec<String>,
    /// Folders of checkpoints that hold such names.
    pub occupied: BTreeSet<CheckpointId>,
    /// Whether and how the job ended, by the newest generation.
    pub finished: Option<FinishedRecord>,
    /// The stop with a savepoint that was begun and not undone.
    pub stop: Option<FoundStop>,
    /// Who claimed which of its checkpoints; `None` if nobody ever did.
    pub claims: Option<ClaimList>,
}

/// A stop with a savepoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FoundStop {
    /// What was recorded when it began.
    pub record: StopRecord,
    /// Whether it was recorded, too, that the savepoint exists: sinks may have committed what it names.
    pub confirmed: bool,
}

impl Survey {
    fn empty() -> Survey {
        Survey {
            owners: Owners::default(),
            checkpoints: BTreeMap::new(),
            objects: Vec::new(),
            unknown: Vec::new(),
            occupied: BTreeSet::new(),
            finished: None,
            stop: None,
            claims: None,
        }
    }

    /// Reads the root of `job`.
    ///
    /// # Errors
    /// Errors of the storage; `SnapshotCorrupt` if an owner or FINISHED record is damaged or of another job;
    /// `SnapshotIncomplete` if an owner record is missing.
    pub fn read(storage: &dyn CheckpointStorage, job: JobId) -> Result<Survey> {
        let mut survey = Survey::empty();
        survey.owners = survey.read_owners(storage)?;
        survey.read_claims(storage)?;
        if let Some(owner) = survey.owners.newest().filter(|owner| owner.job != job) {
            return Err(
                Error::new(Code::SnapshotCorrupt, "the root belongs to another job")
                    .in_file(storage.describe(&ObjectPath::Owner(owner.generation)))
                    .expected_found(job, owner.job),
            );
        }
        let mut stopping = false;
        for listed in storage.list(Place::Root)? {
            match (
                listed.kind,
                Place::checkpoint_of(&listed.name),
                Place::Root.object(&listed.name),
            ) {
                (FileKind::Dir, Some(id), _) => {
                    let found = survey.read_checkpoint(storage, id)?;
                    survey.checkpoints.insert(id, found);
                }
                (FileKind::File, _, Some(path @ ObjectPath::Finished)) => {
                    let record = FinishedRecord::decode(&storage.read(&path, FINISHED_BYTES_MAX)?)
                        .and_then(|record| survey.demand_ours(record, job));
                    let record = record.map_err(|e| e.in_file(storage.describe(&path)))?;
                    // That of an older generation was written by a fenced owner, or the job was gone on with.
                    survey.finished = (Some(record.generation) == survey.generation()).then_some(record);
                }
                // Read together below.
                (FileKind::File, _, Some(ObjectPath::Stop)) => stopping = true,
                (FileKind::File, _, Some(ObjectPath::Stopped)) => {}
                (FileKind::File, _, Some(path)) => survey.objects.push(path),
                _ if Place::Root.is_fixture(&listed.name) => {}
                _ => survey.unknown.push(listed.name),
            }
        }
        if stopping {
            survey.stop = survey.read_stop(storage, job)?;
        }
        for place in [Place::Shared, Place::TaskOwned] {
            survey.read_objects(storage, place)?;
        }
        // A generation publishes after its record is durable. Without the record its checkpoints would count as
        // abandoned, and the job would go on from older state or from none.
        match survey.published().into_values().max() {
            published if published > survey.generation() => {
                Err(missing_record(published.unwrap_or_default()))
            }
            _ => Ok(survey),
        }
    }

    /// The id of the root, given by its first generation.
    pub fn root(&self) -> Option<RootId> {
        self.owners.newest().map(|owner| owner.root)
    }

    /// The newest generation; `None` for a new root.
    fn generation(&self) -> Option<Generation> {
        self.owners.newest().map(|owner| owner.generation)
    }

    /// Generation of every published checkpoint.
    pub fn published(&self) -> BTreeMap<CheckpointId, Generation> {
        let generation = |(id, found): (&CheckpointId, &Found)| match found {
            Found::Published(metadata) => Some((*id, metadata.generation)),
            _ => None,
        };
        self.checkpoints.iter().filter_map(generation).collect()
    }

    /// The next id that was never seen in this root.
    pub fn next_id(&self) -> CheckpointId {
        let folders = self.checkpoints.keys().map(|id| id.0);
        let births = self
            .objects
            .iter()
            .filter_map(ObjectPath::birth)
            .map(|birth| birth.checkpoint.0);
        // An id that only the newest generation's record knows was not given out yet.
        let first = self
            .owners
            .newest()
            .map(|owner| owner.first_checkpoint.0.saturating_sub(1));
        let stop = self.stop.iter().map(|stop| stop.record.checkpoint.0);
        let claims = self.claims.iter().flat_map(|list| list.claims.keys());
        let known = claims.map(|id| id.0).chain(stop);
        let seen = folders.chain(births).chain(first).chain(known).max().unwrap_or(0);
        CheckpointId(seen.saturating_add(1))
    }

    /// A FINISHED record ends the job that it names, in the root that it names.
    fn demand_ours(&self, record: FinishedRecord, job: JobId) -> Result<FinishedRecord> {
        if Some(record.generation) > self.generation() && record.job == job {
            return Err(missing_record(record.generation));
        }
        if record.job == job && self.root().is_none_or(|root| root == record.root) {
            return Ok(record);
        }
        Err(Error::new(
            Code::SnapshotCorrupt,
            "the FINISHED record is of another job or root",
        )
        .expected_found(job, record.job))
    }

    /// The stop record, with what confirms it. That of a fenced owner came to nothing.
    fn read_stop(&self, storage: &dyn CheckpointStorage, job: JobId) -> Result<Option<FoundStop>> {
        let read = |path: &ObjectPath| match storage.read(path, STOP_BYTES_MAX) {
            Ok(bytes) => StopRecord::decode(&bytes).map(Some),
            Err(e) if e.code() == Code::NotFound => Ok(None),
            Err(e) => Err(e),
        };
        let name = |path: ObjectPath, e: Error| e.in_file(storage.describe(&path));
        let Some(record) = read(&ObjectPath::Stop).map_err(|e| name(ObjectPath::Stop, e))? else {
            return Ok(None);
        };
        if record.job != job || self.root().is_some_and(|root| root != record.root) {
            let what = "the stop record is of another job or root";
            let error = Error::new(Code::SnapshotCorrupt, what).expected_found(job, record.job);
            return Err(name(ObjectPath::Stop, error));
        }
        if Some(record.generation) > self.generation() {
            return Err(missing_record(record.generation));
        }
        if self.owners.is_void(record.generation, record.checkpoint) {
            return Ok(None);
        }
        let confirmation = read(&ObjectPath::Stopped).map_err(|e| name(ObjectPath::Stopped, e))?;
        let confirmed = confirmation.is_some_and(|other| other == record);
        Ok(Some(FoundStop { record, confirmed }))
    }

    fn read_owners(&mut self, storage: &dyn CheckpointStorage) -> Result<Owners> {
        let mut records = Vec::new();
        for listed in storage.list(Place::Owner)? {
            match Place::Owner
                .object(&listed.name)
                .filter(|_| listed.kind == FileKind::File)
            {
                Some(path @ ObjectPath::Owner(generation)) => {
                    let record = OwnerRecord::decode(&storage.read(&path, OWNER_BYTES_MAX)?)
                        .map_err(|e| e.in_file(storage.describe(&path)))?;
                    if record.generation != generation {
                        return Err(Error::new(
                            Code::SnapshotCorrupt,
                            "the owner record is of another generation",
                        )
                        .in_file(storage.describe(&path))
                        .expected_found(generation, record.generation));
                    }
                    records.push(record);
                }
                Some(path) => self.objects.push(path),
                None => self.unknown.push(Place::Owner.describe(&listed.name)),
            }
        }
        Owners::new(records)
    }

    /// Takes note of the names in `claims/` and reads the newest list. Without it nobody knows which checkpoints are
    /// still the job's own.
    fn read_claims(&mut self, storage: &dyn CheckpointStorage) -> Result {
        for listed in storage.list(Place::Claims)? {
            match Place::Claims
                .object(&listed.name)
                .filter(|_| listed.kind == FileKind::File)
            {
                Some(ObjectPath::Claims(_)) => {}
                Some(path) => self.objects.push(path),
                None => self.unknown.push(Place::Claims.describe(&listed.name)),
            }
        }
        self.claims = newest_list(storage)?;
        match (&self.claims, self.owners.newest()) {
            (Some(list), Some(owner)) if (list.job, list.root) != (owner.job, owner.root) => Err(Error::new(
                Code::SnapshotCorrupt,
                "the list of claims is of another job or root",
            )
            .in_file(storage.describe(&ObjectPath::Claims(list.number)))
            .expected_found(owner.job, list.job)),
            _ => Ok(()),
        }
    }

    fn read_checkpoint(&mut self, storage: &dyn CheckpointStorage, id: CheckpointId) -> Result<Found> {
        let metadata = ObjectPath::Metadata(id);
        let mut found = Found::Unpublished;
        if self.read_objects(storage, Place::Checkpoint(id))? {
            found = match read_metadata(storage, id, self.root()) {
                Ok(metadata) => Found::Published(Box::new(metadata)),
                // Gone since it was listed: somebody else deletes, which his own generation answers for.
                Err(e) if e.code() == Code::NotFound => Found::Unpublished,
                Err(e) => Found::Unreadable(e.in_file(storage.describe(&metadata))),
            };
        }
        Ok(found)
    }

    /// Takes note of the names in a place; `true` if `_metadata` is among them.
    fn read_objects(&mut self, storage: &dyn CheckpointStorage, place: Place) -> Result<bool> {
        let mut published = false;
        for listed in storage.list(place)? {
            match place
                .object(&listed.name)
                .filter(|_| listed.kind == FileKind::File)
            {
                Some(ObjectPath::Metadata(_)) => published = true,
                Some(path) if path.birth().is_some() => self.objects.push(path),
                // No regular file, but somebody's metadata: reading it will fail and keep everything.
                _ if matches!(place.object(&listed.name), Some(ObjectPath::Metadata(_))) => published = true,
                _ => {
                    self.unknown.push(place.describe(&listed.name));
                    if let Place::Checkpoint(id) = place {
                        self.occupied.insert(id);
                    }
                }
            }
        }
        Ok(published)
    }
}

/// The owner records of a root, whosever it is.
pub(crate) fn read_owners(storage: &dyn CheckpointStorage) -> Result<Owners> {
    Survey::empty().read_owners(storage)
}

/// Reads the metadata of a checkpoint and checks that it belongs where it lies.
///
/// # Errors
/// `NotFound`; those of [`decode`]; `SnapshotIncomplete` if it was written for another root, because the shared files
/// it names are that root's; `SnapshotCorrupt` if it is another checkpoint's.
pub fn read_metadata(
    storage: &dyn CheckpointStorage,
    id: CheckpointId,
    root: Option<RootId>,
) -> Result<Metadata> {
    let path = ObjectPath::Metadata(id);
    let name = |e: Error| {
        e.recode_malformed(Code::SnapshotCorrupt)
            .in_file(storage.describe(&path))
    };
    let metadata = storage
        .read(&path, METADATA_BYTES_MAX)
        .and_then(|bytes| decode(&bytes))
        .map_err(name)?;
    if root.is_some_and(|root| root != metadata.root) {
        return Err(name(
            Error::new(
                Code::SnapshotIncomplete,
                "the snapshot was written for another root, which has its files",
            )
            .with("root", metadata.root),
        ));
    }
    if metadata.checkpoint != id {
        return Err(name(
            Error::new(Code::SnapshotCorrupt, "the metadata is another checkpoint's")
                .at(0)
                .expected_found(id, metadata.checkpoint),
        ));
    }
    Ok(metadata)
}
