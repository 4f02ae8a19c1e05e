//! One program on one configuration, every answer compared with the model's.

use super::{
    answer::{Disagreement, Done, Reached, Stop, same},
    config::{Config, HOUR},
    model::{FAMILIES, Map, Model},
    op::{Op, Write, text},
};
use crate::{Cursor, Family, Store, Transaction, Update, View, WriteBatch};
use keybed_env::{Clock, Fs, ManualClock, SimFs};
use keybed_format::{Error, Result};
use std::{
    collections::{HashMap, hash_map::Entry},
    ops::Bound,
    path::{Path, PathBuf},
    sync::Arc,
};

/// A cursor, what it saw, and where it should stand.
pub(super) struct OpenCursor {
    pub(super) cursor: Cursor,
    pub(super) entries: Vec<(Vec<u8>, Vec<u8>)>,
    pub(super) at: Option<usize>,
}

/// A store, what it should hold, and what is open on it.
pub(super) struct World<'c> {
    pub(super) config: &'c Config,
    pub(super) disk: Option<Arc<SimFs>>,
    pub(super) dir: PathBuf,
    /// What a simulated store looks at.
    pub(super) clock: Arc<ManualClock>,
    pub(super) opened: u64,
    pub(super) store: Store,
    pub(super) families: [Family; FAMILIES],
    pub(super) model: Model,
    pub(super) views: Vec<(View, [Map; FAMILIES])>,
    pub(super) cursors: Vec<OpenCursor>,
    pub(super) reached: Reached,
}

/// Runs a program.
///
/// # Errors
/// The first operation that the store and the model disagree on.
pub fn run(program: &[Op], config: &Config) -> std::result::Result<Reached, Disagreement> {
    let place = config.is_real.then(tempfile_dir);
    let disk = (!config.is_real).then(|| Arc::new(SimFs::new()));
    let dir = place
        .as_ref()
        .map_or_else(|| PathBuf::from("store"), |place| place.0.join("store"));
    let failed = |at: usize, stop: Stop| {
        let op = program.get(at..=at).map(text).unwrap_or_default();
        let what = match stop {
            Stop::Error(error) => error.to_string(),
            Stop::Wrong(what) => what,
        };
        Disagreement {
            at,
            what: format!("{op}{what}"),
        }
    };
    let mut world = World::open(config, disk, dir).map_err(|error| failed(0, error.into()))?;
    for (at, op) in program.iter().enumerate() {
        world.step(op).map_err(|stop| failed(at, stop))?;
        world.reached.operations += 1;
    }
    let end = program.len();
    world.check_views().map_err(|stop| failed(end, stop))?;
    world.check_all().map_err(|stop| failed(end, stop))?;
    world.reached.count(&world.store.stats());
    let reached = world.reached;
    world.close().map_err(|error| failed(end, error.into()))?;
    Ok(reached)
}

/// A directory of the system that goes with the value.
struct Place(PathBuf);

fn tempfile_dir() -> Place {
    let unique = format!(
        "keybed-differential-{}-{:?}",
        std::process::id(),
        std::thread::current().id()
    );
    let name: String = unique
        .chars()
        .filter(|c| c.is_ascii_alphanumeric() || *c == '-')
        .collect();
    Place(std::env::temp_dir().join(name))
}

impl Drop for Place {
    #[allow(
        clippy::disallowed_methods,
        reason = "the directory is this run's alone, by its name"
    )]
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

impl<'c> World<'c> {
    fn open(config: &'c Config, disk: Option<Arc<SimFs>>, dir: PathBuf) -> Result<World<'c>> {
        let clock = Arc::new(ManualClock::new());
        let (store, families) = open(config, disk.as_ref(), &dir, (1, &clock))?;
        Ok(World {
            clock,
            config,
            disk,
            dir,
            opened: 1,
            store,
            families,
            model: Model::new(config.ttl),
            views: Vec::new(),
            cursors: Vec::new(),
            reached: Reached::default(),
        })
    }

    fn step(&mut self, op: &Op) -> Done {
        match op {
            Op::Write(write) => self.write(write),
            Op::Batch(writes) => self.batch(writes),
            Op::Update(family, key, new) => self.update(*family, key, new.as_ref()),
            Op::UpdateInPlace(family, key) => self.update_in_place(*family, key),
            Op::Touch(family, key) => {
                let found = self.store.touch(self.families[*family], key)?;
                let value = self.model.families[*family].get(key).cloned();
                same(found, value.is_some(), "whether a touched key was there")?;
                if let Some(value) = value.filter(|_| self.config.ttl[*family].is_some()) {
                    self.model.set(*family, key, Some(value));
                }
                Ok(())
            }
            Op::GetStamped(family, key) => self.get_stamped(*family, key),
            Op::Advance(hours) => {
                if !self.config.is_real {
                    self.clock.advance(HOUR * *hours as u32);
                    self.model.pass(*hours);
                }
                Ok(())
            }
            Op::Clear(family) => {
                self.store.clear(self.families[*family])?;
                self.model.clear(*family);
                Ok(())
            }
            Op::Get(family, key) => {
                let found = self.store.get(self.families[*family], key)?;
                let found = found.map(|value| value.to_vec());
                self.reached.answers += 1;
                same(found.as_ref(), self.model.families[*family].get(key), "get")
            }
            Op::MultiGet(family, keys) => self.multi_get(*family, keys),
            Op::Range(family, start, end, down) => self.range(*family, start, end.as_deref(), *down),
            Op::Prefix(family, prefix, down) => self.prefix(*family, prefix, *down),
            Op::Flush => {
                self.store.flush()?;
                self.flushed();
                Ok(())
            }
            Op::Sync if self.is_logged() => {
                self.store.sync()?;
                self.model.settle();
                Ok(())
            }
            // Without a log there is nothing to sync.
            Op::Sync => Ok(()),
            Op::Pin => self.pin(),
            Op::Compact(family) => Ok(self.store.compact(self.families[*family])?),
            Op::CompactRange(family, a, b) => {
                let (start, end) = if a <= b { (a, b) } else { (b, a) };
                let bounds = (Bound::Included(start.as_slice()), Bound::Excluded(end.as_slice()));
                Ok(self.store.compact_range(self.families[*family], bounds)?)
            }
            Op::Settle => Ok(self.store.wait_for_background()?),
            Op::View => {
                if self.views.len() < 4 {
                    let view = self.store.view()?;
                    self.views.push((view, self.model.families.clone()));
                }
                Ok(())
            }
            Op::Views => self.check_views(),
            Op::DropView(at) => {
                if *at < self.views.len() {
                    self.views.remove(*at);
                }
                Ok(())
            }
            Op::Cursor(family, prefix) => self.cursor(*family, prefix),
            Op::Step(at, step) => self.step_cursor(*at, step),
            Op::DropCursor(at) => {
                if *at < self.cursors.len() {
                    self.cursors.remove(*at);
                }
                Ok(())
            }
            Op::Transaction(family, reads, writes) => self.transaction(*family, reads, writes),
            Op::Reopen => self.reopen(),
            Op::Kill => self.kill(),
            Op::PowerLoss(seed) => self.lose_power(*seed),
        }
    }

    fn write(&mut self, write: &Write) -> Done {
        let family = self.families[write.family()];
        match write {
            Write::Put(_, key, value) => self.store.put(family, key, value)?,
            Write::PutStamped(_, key, value, hours_ago) => {
                let stamp = self.stamp(*hours_ago);
                self.store.put_stamped(family, key, value, stamp)?;
            }
            Write::Delete(_, key) => self.store.delete(family, key)?,
            Write::Merge(_, key, operand) => self.store.merge(family, key, operand)?,
            Write::Append(_, key, more) => self.store.append(family, key, more)?,
            Write::DeleteRange(_, start, end) => {
                let bounds = (Bound::Included(start.as_slice()), Bound::Excluded(end.as_slice()));
                self.store.delete_range(family, bounds)?;
            }
            Write::DeletePrefix(_, prefix) => self.store.delete_prefix(family, prefix)?,
            Write::RaiseFloor(number, partition, bound) => {
                return self.raise_floor(*number, partition, bound, write);
            }
        }
        self.model.apply(std::slice::from_ref(write));
        Ok(())
    }

    /// The time so many hours ago.
    pub(super) fn stamp(&self, hours_ago: i64) -> u64 {
        self.clock.wall_millis() - (HOUR * hours_ago as u32).as_millis() as u64
    }

    fn batch(&mut self, writes: &[Write]) -> Done {
        let mut batch = WriteBatch::new();
        let mut effective = Vec::new();
        let mut floors = HashMap::new();
        for write in writes {
            if let Write::RaiseFloor(family, partition, bound) = write {
                let floor = match floors.entry((*family, partition.clone())) {
                    Entry::Occupied(floor) => floor.into_mut(),
                    Entry::Vacant(place) => {
                        place.insert(self.store.floor(self.families[*family], partition)?)
                    }
                };
                let rises = floor.as_ref().is_none_or(|floor| floor <= bound);
                *floor = floor.take().max(Some(bound.clone()));
                effective.extend(rises.then(|| write.clone()));
            } else {
                effective.push(write.clone());
            }
            let family = self.families[write.family()];
            match write {
                Write::Put(_, key, value) => batch.put(family, key, value),
                Write::PutStamped(_, key, value, hours_ago) => {
                    batch.put_stamped(family, key, value, self.stamp(*hours_ago))
                }
                Write::Delete(_, key) => batch.delete(family, key),
                Write::Merge(_, key, operand) => batch.merge(family, key, operand),
                Write::Append(_, key, more) => batch.append(family, key, more),
                Write::DeleteRange(_, start, end) => {
                    let bounds = (Bound::Included(start.as_slice()), Bound::Excluded(end.as_slice()));
                    batch.delete_range(family, bounds)
                }
                Write::DeletePrefix(_, prefix) => batch.delete_prefix(family, prefix),
                Write::RaiseFloor(_, partition, bound) => batch.raise_floor(family, partition, bound),
            };
        }
        self.store.write(&batch)?;
        self.model.apply(&effective);
        Ok(())
    }

    fn raise_floor(&mut self, family: usize, partition: &[u8], bound: &[u8], write: &Write) -> Done {
        let token = self.families[family];
        let before = self.store.floor(token, partition)?;
        let has_risen = self.store.raise_floor(token, partition, bound)?;
        let is_above = before.as_deref().is_some_and(|before| before > bound);
        let is_equal = before.as_deref() == Some(bound);
        same(has_risen || is_equal, !is_above, "whether a floor rises")?;
        if has_risen {
            self.model.apply(std::slice::from_ref(write));
            let now = self.store.floor(token, partition)?;
            same(now.as_deref(), Some(bound), "a floor that has risen")?;
        }
        Ok(())
    }

    fn update(&mut self, family: usize, key: &[u8], new: Option<&Vec<u8>>) -> Done {
        let expected = self.model.families[family].get(key).cloned();
        let mut found = None;
        self.store.update(self.families[family], key, |old| {
            found = old.map(<[u8]>::to_vec);
            new.map_or(Update::Delete, |new| Update::Put(new.clone()))
        })?;
        self.model.set(family, key, new.cloned());
        self.reached.answers += 1;
        same(found, expected, "the old value of an update")
    }

    fn update_in_place(&mut self, family: usize, key: &[u8]) -> Done {
        let found = self
            .store
            .update_in_place(self.families[family], key, <[u8]>::reverse)?;
        let mut value = self.model.families[family].get(key).cloned();
        self.reached.answers += 1;
        same(found, value.is_some(), "whether an updated value was there")?;
        if let Some(value) = &mut value {
            value.reverse();
            self.model.set(family, key, Some(value.clone()));
        }
        Ok(())
    }

    fn transaction(&mut self, family: usize, reads: &[Vec<u8>], writes: &[Write]) -> Done {
        let mut transaction = Transaction::new();
        let token = self.families[family];
        for key in reads {
            let found = transaction.get(&self.store, token, key)?;
            self.reached.answers += 1;
            same(
                found.as_ref(),
                self.model.families[family].get(key),
                "a transaction's read",
            )?;
        }
        for write in writes {
            match write {
                Write::Put(_, key, value) => {
                    transaction.put(token, key, value);
                    let found = transaction.get(&self.store, token, key)?;
                    same(found.as_ref(), Some(value), "a transaction's own write")?;
                }
                Write::Delete(_, key) => transaction.delete(token, key),
                Write::Merge(_, key, operand) => transaction.merge(token, key, operand),
                Write::DeletePrefix(_, prefix) => {
                    transaction.delete_prefix(token, prefix);
                    let left = transaction.prefix(&self.store, token, prefix)?.len();
                    same(left, 0, "what a transaction removed")?;
                }
                other => return Err(Stop::Wrong(format!("no write of a transaction: {other:?}"))),
            }
        }
        transaction.commit(&mut self.store)?;
        self.model.apply(writes);
        Ok(())
    }

    fn close(mut self) -> Result {
        self.let_go();
        self.store.close()
    }
}

/// Opens the store and its families.
pub(super) fn open(
    config: &Config,
    disk: Option<&Arc<SimFs>>,
    dir: &Path,
    (opened, clock): (u64, &Arc<ManualClock>),
) -> Result<(Store, [Family; FAMILIES])> {
    let fs = disk.map(|disk| disk.clone() as Arc<dyn Fs>);
    let mut store = Store::open(dir, config.store(fs, opened, clock))?;
    let mut families = Vec::new();
    for number in 0..FAMILIES {
        let (name, options) = config.family(number);
        families.push(store.family_with(&name, options)?);
    }
    let families = families.try_into().map_err(|_| Error::invalid("families"))?;
    Ok((store, families))
}
