//! Families: key spaces of one store with memtables and runs of their own.

use crate::{
    budget::WriteMemory,
    compaction::{CompactionPause, picker::Wishes, work},
    expiry::{Expiry, Lifetime, TtlRecord, WallTime, ttl_millis},
    key::{EntryKind, Seqno},
    memtable::{Active, Memtable, Probe, Sealed},
    merge_operator::{APPEND, Append, MergeOperator, SumI64, SumU64},
    options::FamilyOptions,
    read::Sources,
    shared::SharedFamily,
    store::{LONG, Store},
    version::{
        Version,
        edit::{Change, Edit, FamilyRecord, NAME_BYTES_MAX},
        may_hold,
    },
};
use keybed_env::Priority;
use keybed_format::{Code, Error, Result};
use std::sync::Arc;

/// Token of a family: small, copyable, valid for the store that gave it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Family(pub(crate) u32);

/// A family, as the owner sees it.
#[derive(Debug)]
pub(crate) struct OwnedFamily {
    /// Number in the manifest.
    pub(crate) id: u32,
    pub(crate) name: Arc<str>,
    pub(crate) options: FamilyOptions,
    /// The operator is [`Append`]: merging is adding bytes.
    pub(crate) appends: bool,
    /// Takes the writes.
    pub(crate) active: Active,
    /// Wait for their flush, newest first.
    pub(crate) sealed: Vec<Arc<Sealed>>,
    /// The newest version the owner has taken notice of.
    pub(crate) version: Arc<Version>,
    pub(crate) dropped: bool,
    /// How often it was cleared.
    pub(crate) epoch: u64,
    /// For how long its entries live; none = they do not expire.
    pub(crate) lifetime: Option<Box<Lifetime>>,
}

impl OwnedFamily {
    /// Around a shared family, with an empty memtable.
    pub(crate) fn new(shared: &SharedFamily, seed: u64, memory: &WriteMemory) -> Self {
        let mut family = OwnedFamily {
            id: shared.id,
            name: shared.name.as_str().into(),
            options: FamilyOptions::default(),
            appends: false,
            active: Active::new(
                Memtable::within(shared.options.memtable, seed, memory).with_floors(shared.floors.clone()),
            ),
            sealed: shared.sealed.clone(),
            version: shared.version.clone(),
            dropped: shared.dropped,
            epoch: shared.epoch,
            lifetime: shared.lifetime.clone(),
        };
        family.set_options(shared.options.clone());
        family
    }

    fn set_options(&mut self, options: FamilyOptions) {
        self.appends = options
            .merge
            .as_ref()
            .is_some_and(|operator| operator.name() == APPEND);
        self.options = options;
    }

    /// Everything a read looks at.
    #[inline]
    pub(crate) fn sources(&self) -> Sources<'_> {
        Sources {
            active: Some(&self.active),
            ..self.below()
        }
    }

    /// Everything below the active memtable.
    #[inline]
    pub(crate) fn below(&self) -> Sources<'_> {
        Sources {
            active: None,
            sealed: &self.sealed,
            version: &self.version,
            floors: self.active.memtable.floors().map(Arc::as_ref),
            operator: self.options.merge.as_deref(),
            expiry: self.expiry(),
        }
    }

    /// What has expired now.
    #[inline]
    pub(crate) fn expiry(&self) -> Expiry {
        match &self.lifetime {
            Some(lifetime) => lifetime.expiry(),
            None => Expiry::OFF,
        }
    }

    /// Everything a read looks at, at a moment.
    pub(crate) fn sources_at(&self, now: u64) -> Sources<'_> {
        self.sources().at(now)
    }

    /// Whether there is nothing below the active memtable.
    pub(crate) fn is_bare(&self) -> bool {
        self.sealed.is_empty() && self.version.runs.is_empty()
    }

    /// Deletes a key. Nothing of it stays in the memtable if nothing of it lies below.
    #[inline]
    pub(crate) fn delete(&mut self, probe: Probe, key: &[u8], hash: u64, seqno: Seqno) {
        if self.is_bare() || self.is_new(probe, key, hash) {
            self.active.memtable.remove(probe, key, seqno);
        } else {
            let memtable = &mut self.active.memtable;
            memtable.write(probe, key, seqno, EntryKind::Delete, &[]);
        }
    }

    /// Whether a key that was found in the active memtable lies in no older source, as filters know it. Asked where that
    /// saves more than it costs: the order of the keys, and those who walk it, are spared a tombstone.
    fn is_new(&self, probe: Probe, key: &[u8], hash: u64) -> bool {
        let is_vacant = |probe| matches!(probe, Probe::Vacant { .. });
        self.active.memtable.is_ordered()
            && !is_vacant(probe)
            && self
                .sealed
                .iter()
                .all(|sealed| is_vacant(sealed.memtable.find(key, hash)))
            && !may_hold(&self.version.runs, key, hash)
    }
}

/// What options say about the life of entries, once it is known when it began.
pub(crate) fn ttl_record(options: &FamilyOptions) -> Option<TtlRecord> {
    Some(TtlRecord {
        ttl_millis: ttl_millis(options.ttl?),
        since_millis: options.ttl_since?,
    })
}

/// For how long entries live, by options that know when that began.
pub(crate) fn lifetime(options: &FamilyOptions, wall: &Arc<WallTime>) -> Option<Box<Lifetime>> {
    let record = ttl_record(options)?;
    Some(Box::new(Lifetime::new(record, wall, options.expired_age_max)))
}

/// The built-in operator of a name.
pub(crate) fn built_in(name: &str) -> Option<Arc<dyn MergeOperator>> {
    let all: [Arc<dyn MergeOperator>; 3] = [Arc::new(Append), Arc::new(SumI64), Arc::new(SumU64)];
    all.into_iter().find(|operator| operator.name() == name)
}

fn other_operator(name: &str, recorded: Option<&str>, given: Option<&str>) -> Error {
    Error::new(
        Code::MergeOperatorChanged,
        "the family was written with another merge operator",
    )
    .with("family", name)
    .expected_found(recorded.unwrap_or("none"), given.unwrap_or("none"))
}

impl Store {
    /// The family of this name, created with default options if it is missing. An existing family keeps the options
    /// it was created with.
    ///
    /// # Errors
    /// `MergeOperatorChanged` if the family has a merge operator that is not built in and was not named yet by
    /// [`Store::family_with`]; `Poisoned`; errors of the file system.
    pub fn family(&mut self, name: &str) -> Result<Family> {
        self.check_open()?;
        let Some(number) = self.find_family(name) else {
            return self.create_family(name, FamilyOptions::default());
        };
        let state = self.shared.state.lock();
        match state.families.get(number) {
            Some(slot) if slot.operator_missing => {
                Err(other_operator(name, slot.operator_name.as_deref(), None))
            }
            _ => Ok(Family(number as u32)),
        }
    }

    /// The family of this name, created with `options` if it is missing. The flavour of the memtable of an existing
    /// family changes with its next memtable.
    ///
    /// # Errors
    /// `MergeOperatorChanged` if the family was created with a merge operator of another name; `InvalidArgument` if
    /// an option or the name is out of its bounds; `Poisoned`; errors of the file system; as [`Store::compact`] where
    /// entries begin to expire again.
    pub fn family_with(&mut self, name: &str, options: FamilyOptions) -> Result<Family> {
        self.check_open()?;
        options.check()?;
        let Some(number) = self.find_family(name) else {
            return self.create_family(name, options);
        };
        let given = options.merge.as_ref().map(|operator| operator.name());
        {
            let state = self.shared.state.lock();
            let recorded = state
                .families
                .get(number)
                .map(|slot| slot.operator_name.as_deref());
            if recorded != Some(given) {
                return Err(other_operator(name, recorded.flatten(), given));
            }
        }
        let (options, pause) = self.settle_ttl(number, options)?;
        let mut state = self.shared.state.lock();
        let (Some(slot), Some(family)) = (state.families.get_mut(number), self.families.get_mut(number))
        else {
            return Err(Error::invalid("there is no such family"));
        };
        slot.operator_missing = false;
        slot.lifetime = lifetime(&options, &self.shared.wall);
        family.lifetime = slot.lifetime.clone();
        slot.options = options.clone();
        family.set_options(options);
        if family.active.memtable.is_empty() {
            let seed = self.random.u64();
            let fresh = family.active.memtable.successor(family.options.memtable, seed);
            family.active = Active::new(fresh);
        }
        state.note_empty(&self.families);
        drop(state);
        drop(pause);
        if self.families[number].lifetime.is_some() && !self.is_read_only {
            work::schedule(&self.shared);
        }
        Ok(Family(number as u32))
    }

    /// Records what `options` say about the life of the entries of an existing family, if that is new; returns them with
    /// the moment when its entries began to expire. No merge may run until the family has them.
    fn settle_ttl(
        &mut self,
        number: usize,
        mut options: FamilyOptions,
    ) -> Result<(FamilyOptions, Option<CompactionPause>)> {
        let known = self.families[number]
            .lifetime
            .as_ref()
            .map(|lifetime| lifetime.record);
        let begins = known.is_none() && options.ttl.is_some() && options.ttl_since.is_none();
        if begins && !self.is_read_only {
            self.forget_stamps(number, &options)?;
        }
        let wanted = options.ttl.map(|ttl| TtlRecord {
            ttl_millis: ttl_millis(ttl),
            since_millis: match known {
                Some(known) => known.since_millis,
                None => options.ttl_since.unwrap_or_else(|| self.shared.wall.now()),
            },
        });
        let mut pause = None;
        if wanted != known && !self.is_read_only {
            // What had expired so far goes before readers see it again, or it would go under their eyes.
            pause = match known {
                Some(_) => {
                    self.flush()?;
                    let pause = self.pause_compaction();
                    self.shared
                        .wait(Priority::Bottom, LONG, |state| !state.compacting);
                    Some(pause)
                }
                None => None,
            };
            let id = self.families[number].id;
            self.shared.alter(|_| Edit {
                changes: vec![Change::Expire(id, wanted)],
            })?;
        }
        options.ttl_since = wanted.map(|wanted| wanted.since_millis);
        Ok((options, pause))
    }

    /// Rewrites the tables of a family whose entries do not expire yet if some have stamps of a time when they did: what
    /// was written before counts from the new beginning.
    fn forget_stamps(&mut self, number: usize, options: &FamilyOptions) -> Result {
        self.refresh();
        let runs = &self.families[number].version.runs;
        let mut tables = runs.iter().flat_map(|run| &run.tables);
        if !tables.any(|live| live.table.record.facts.has_stamps()) {
            return Ok(());
        }
        if let Some(slot) = self.shared.state.lock().families.get_mut(number) {
            // It is the recorded one.
            slot.options.merge.clone_from(&options.merge);
            slot.operator_missing = false;
        }
        self.compact(Family(number as u32))
    }

    /// Names of the families, in the order of their creation.
    pub fn family_names(&self) -> impl Iterator<Item = &str> {
        self.families
            .iter()
            .filter(|family| !family.dropped)
            .map(|family| &*family.name)
    }

    /// Removes a family and everything in it. `View`s and `PinnedFiles` taken before keep what they saw; a
    /// `Pinning` that still waits for its flush fails.
    ///
    /// # Errors
    /// `InvalidArgument` if the token is not of this store; `Poisoned`; errors of the file system.
    pub fn drop_family(&mut self, family: Family) -> Result {
        self.check_open()?;
        let id = self.shared_id(family)?;
        self.check_writable()?;
        // What comes earlier, in other families, must not be lost where this is kept.
        self.shared.sync_whole_log()?;
        self.shared.alter(|_| Edit {
            changes: vec![Change::DropFamily(id)],
        })?;
        let number = family.0 as usize;
        {
            let mut state = self.shared.state.lock();
            state.queue.retain(|(other, _)| *other != number);
            if let Some(slot) = state.families.get_mut(number) {
                (slot.dropped, slot.sealed, slot.version) = (true, Vec::new(), Version::empty());
            }
        }
        self.shared.announce();
        self.refresh();
        self.shared.bury_the_dead();
        Ok(())
    }

    pub(crate) fn shared_id(&self, family: Family) -> Result<u32> {
        self.owned(family)?;
        let state = self.shared.state.lock();
        match state.families.get(family.0 as usize) {
            Some(slot) => Ok(slot.id),
            None => Err(Error::invalid("there is no such family")),
        }
    }

    fn find_family(&self, name: &str) -> Option<usize> {
        self.families
            .iter()
            .position(|family| !family.dropped && &*family.name == name)
    }

    fn create_family(&mut self, name: &str, mut options: FamilyOptions) -> Result<Family> {
        let operator_name = options.merge.as_ref().map(|operator| operator.name().to_owned());
        let too_long = |text: &str| text.is_empty() || text.len() > NAME_BYTES_MAX;
        if too_long(name) || operator_name.as_deref().is_some_and(too_long) {
            return Err(
                Error::invalid("the name of a family or operator has 1 to 255 bytes").with("family", name),
            );
        }
        let now = self.shared.wall.now();
        options.ttl_since = options.ttl.map(|_| options.ttl_since.unwrap_or(now));
        let mut id = 0;
        self.shared.alter(|set| {
            id = set.next_family();
            let create = Change::CreateFamily(FamilyRecord {
                id,
                name: name.to_owned(),
                merge: operator_name.clone(),
                memtable: options.memtable,
                partition_prefix: options.partition_prefix,
                cut_prefix: options.cut_prefix,
                prefix_bytes: options.prefix_bytes,
                bottom_filter: options.bottom_filter,
            });
            let expire = ttl_record(&options).map(|record| Change::Expire(id, Some(record)));
            Edit {
                changes: [create].into_iter().chain(expire).collect(),
            }
        })?;
        let shared = SharedFamily {
            id,
            name: name.to_owned(),
            lifetime: lifetime(&options, &self.shared.wall),
            active_since: now,
            options,
            operator_missing: false,
            operator_name,
            version: Version::empty(),
            sealed: Vec::new(),
            wishes: Wishes::default(),
            density: None,
            dropped: false,
            floors: None,
            covers_changed: false,
            epoch: 0,
        };
        let seed = self.random.u64();
        self.families
            .push(OwnedFamily::new(&shared, seed, &self.shared.write_memory));
        self.shared.state.lock().families.push(shared);
        Ok(Family(self.families.len() as u32 - 1))
    }
}
