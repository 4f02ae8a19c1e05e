//! One program on one configuration, every answer compared with the model's.

use super::{
    config::Config,
    model::{FAMILIES, Map, Model},
    op::{Op, Step, Write, text},
};
use crate::{Cursor, Durability, Family, Store, StoreStats, Transaction, Update, View, WriteBatch};
use keybed_env::{Fs, Random, SimFs};
use keybed_format::{Error, Result};
use std::{
    ops::Bound,
    path::{Path, PathBuf},
    sync::Arc,
};

/// An answer that is not the model's.
#[derive(Debug)]
pub struct Disagreement {
    /// Index of the operation.
    pub at: usize,
    /// What was expected and found.
    pub what: String,
}

/// What a program made the store do: a program that reaches nothing proves nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct Reached {
    /// Operations done.
    pub operations: u64,
    /// Answers compared.
    pub answers: u64,
    /// Memtables flushed.
    pub flushes: u64,
    /// Merges of runs.
    pub compactions: u64,
    /// Times the store was opened again after a close.
    pub reopened: u64,
    /// Times it was opened again after its process or machine died.
    pub crashes: u64,
    /// Writes that a crash took.
    pub lost_writes: u64,
}

impl Reached {
    fn count(&mut self, stats: &StoreStats) {
        self.flushes += stats.counts.flushes;
        self.compactions += stats.counts.compactions;
    }

    /// Sums of both.
    #[must_use]
    pub fn plus(self, other: Reached) -> Reached {
        Reached {
            operations: self.operations + other.operations,
            answers: self.answers + other.answers,
            flushes: self.flushes + other.flushes,
            compactions: self.compactions + other.compactions,
            reopened: self.reopened + other.reopened,
            crashes: self.crashes + other.crashes,
            lost_writes: self.lost_writes + other.lost_writes,
        }
    }
}

/// Why a program stops: an error of the store, or an answer that is wrong.
enum Stop {
    Error(Error),
    Wrong(String),
}

impl From<Error> for Stop {
    fn from(error: Error) -> Self {
        Stop::Error(error)
    }
}

type Done = std::result::Result<(), Stop>;

struct OpenCursor {
    cursor: Cursor,
    /// What it saw, and where it should stand.
    entries: Vec<(Vec<u8>, Vec<u8>)>,
    at: Option<usize>,
}

struct World<'c> {
    config: &'c Config,
    disk: Option<Arc<SimFs>>,
    dir: PathBuf,
    opened: u64,
    store: Store,
    families: [Family; FAMILIES],
    model: Model,
    views: Vec<(View, [Map; FAMILIES])>,
    cursors: Vec<OpenCursor>,
    reached: Reached,
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
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn same<T: PartialEq + std::fmt::Debug>(found: T, expected: T, what: &str) -> Done {
    if found == expected {
        return Ok(());
    }
    Err(Stop::Wrong(format!(
        "{what}: expected {expected:?}, found {found:?}"
    )))
}

/// Entries of a model's family as a scan lists them.
fn listed<'m>(
    entries: impl DoubleEndedIterator<Item = (&'m Vec<u8>, &'m Vec<u8>)>,
    down: bool,
) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut all: Vec<_> = entries.map(|(key, value)| (key.clone(), value.clone())).collect();
    if down {
        all.reverse();
    }
    all
}

fn collect(range: crate::Range<'_>) -> Result<Vec<(Vec<u8>, Vec<u8>)>> {
    range.collect()
}

/// Compares two lists by their first difference: whole lists are unreadable.
fn same_list(found: &[(Vec<u8>, Vec<u8>)], expected: &[(Vec<u8>, Vec<u8>)], what: &str) -> Done {
    let at = found.iter().zip(expected).position(|(a, b)| a != b);
    match at {
        None if found.len() == expected.len() => Ok(()),
        None => Err(Stop::Wrong(format!(
            "{what}: expected {} entries, found {}; the first without a partner is {:?}",
            expected.len(),
            found.len(),
            found.get(expected.len()).or(expected.get(found.len()))
        ))),
        Some(at) => Err(Stop::Wrong(format!(
            "{what}, entry {at}: expected {:?}, found {:?}",
            expected[at], found[at]
        ))),
    }
}

impl<'c> World<'c> {
    fn open(config: &'c Config, disk: Option<Arc<SimFs>>, dir: PathBuf) -> Result<World<'c>> {
        let (store, families) = open(config, disk.as_ref(), &dir, 1)?;
        Ok(World {
            config,
            disk,
            dir,
            opened: 1,
            store,
            families,
            model: Model::default(),
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
            Op::Clear(family) => {
                self.store.clear(self.families[*family])?;
                self.model.clear(*family);
                Ok(())
            }
            Op::RaiseFloor(family, partition, bound) => self.raise_floor(*family, partition, bound),
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
            Write::Delete(_, key) => self.store.delete(family, key)?,
            Write::Merge(_, key, operand) => self.store.merge(family, key, operand)?,
            Write::Append(_, key, more) => self.store.append(family, key, more)?,
            Write::DeleteRange(_, start, end) => {
                let bounds = (Bound::Included(start.as_slice()), Bound::Excluded(end.as_slice()));
                self.store.delete_range(family, bounds)?;
            }
            Write::DeletePrefix(_, prefix) => self.store.delete_prefix(family, prefix)?,
        }
        self.model.apply(std::slice::from_ref(write));
        Ok(())
    }

    fn batch(&mut self, writes: &[Write]) -> Done {
        let mut batch = WriteBatch::new();
        for write in writes {
            let family = self.families[write.family()];
            match write {
                Write::Put(_, key, value) => batch.put(family, key, value),
                Write::Delete(_, key) => batch.delete(family, key),
                Write::Merge(_, key, operand) => batch.merge(family, key, operand),
                Write::Append(_, key, more) => batch.append(family, key, more),
                Write::DeleteRange(..) | Write::DeletePrefix(..) => &mut batch,
            };
        }
        self.store.write(&batch)?;
        self.model.apply(writes);
        Ok(())
    }

    fn raise_floor(&mut self, family: usize, partition: &[u8], bound: &[u8]) -> Done {
        let token = self.families[family];
        let before = self.store.floor(token, partition)?;
        let has_risen = self.store.raise_floor(token, partition, bound)?;
        let is_above = before.as_deref().is_some_and(|before| before > bound);
        let is_equal = before.as_deref() == Some(bound);
        same(has_risen || is_equal, !is_above, "whether a floor rises")?;
        if has_risen {
            self.model.raise_floor(family, partition, bound);
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

    fn multi_get(&mut self, family: usize, keys: &[Vec<u8>]) -> Done {
        let found = self.store.multi_get(self.families[family], keys)?;
        same(found.len(), keys.len(), "answers of a multi_get")?;
        for (key, value) in keys.iter().zip(found) {
            let value = value?.map(|value| value.to_vec());
            self.reached.answers += 1;
            same(value.as_ref(), self.model.families[family].get(key), "multi_get")?;
        }
        Ok(())
    }

    fn range(&mut self, family: usize, start: &[u8], end: Option<&[u8]>, down: bool) -> Done {
        let bounds = (
            Bound::Included(start),
            end.map_or(Bound::Unbounded, Bound::Excluded),
        );
        let token = self.families[family];
        let found = if down {
            self.store.range_rev(token, bounds)?
        } else {
            self.store.range(token, bounds)?
        };
        let inside = |key: &[u8]| key >= start && end.is_none_or(|end| key < end);
        let entries = self.model.families[family].iter().filter(|(key, _)| inside(key));
        let expected = listed(entries, down);
        self.reached.answers += 1;
        same_list(&collect(found)?, &expected, "range")
    }

    fn prefix(&mut self, family: usize, prefix: &[u8], down: bool) -> Done {
        let token = self.families[family];
        let found = if down {
            self.store.prefix_rev(token, prefix)?
        } else {
            self.store.prefix(token, prefix)?
        };
        let entries = self.model.families[family].iter();
        let expected = listed(entries.filter(|(key, _)| key.starts_with(prefix)), down);
        self.reached.answers += 1;
        same_list(&collect(found)?, &expected, "prefix")
    }

    fn check_views(&mut self) -> Done {
        for (view, models) in &self.views {
            for (number, model) in models.iter().enumerate() {
                let (name, _) = self.config.family(number);
                let family = view
                    .family(&name)
                    .ok_or_else(|| Stop::Wrong(format!("a view without the family {name}")))?;
                let down = number % 2 == 1;
                let found = if down {
                    view.range_rev(family, ..)?
                } else {
                    view.range(family, ..)?
                };
                same_list(&collect(found)?, &listed(model.iter(), down), "a view")?;
                if let Some((key, value)) = model.iter().nth(model.len() / 2) {
                    let found = view.get(family, key)?.map(|value| value.to_vec());
                    same(found.as_ref(), Some(value), "a key of a view")?;
                }
                self.reached.answers += 2;
            }
        }
        Ok(())
    }

    /// Pinned files are a store of their own.
    fn pin(&mut self) -> Done {
        let pinned = self.store.pin()?.finish()?;
        self.flushed();
        self.opened += 1;
        let copy = self.dir.with_extension(format!("copy-{}", self.opened));
        pinned.link_to(&copy)?;
        drop(pinned);
        let (mut store, families) = open(self.config, self.disk.as_ref(), &copy, self.opened)?;
        for (number, model) in self.model.families.iter().enumerate() {
            let found = collect(store.range(families[number], ..)?)?;
            same_list(&found, &listed(model.iter(), false), "a copy by links")?;
            self.reached.answers += 1;
        }
        // It lives on its own.
        store.put(families[0], b"only here", b"")?;
        Ok(store.close()?)
    }

    fn cursor(&mut self, family: usize, prefix: &[u8]) -> Done {
        if self.cursors.len() >= 4 {
            return Ok(());
        }
        let cursor = self.store.prefix_cursor(self.families[family], prefix)?;
        let entries = self.model.families[family].iter();
        self.cursors.push(OpenCursor {
            cursor,
            entries: listed(entries.filter(|(key, _)| key.starts_with(prefix)), false),
            at: None,
        });
        Ok(())
    }

    fn step_cursor(&mut self, at: usize, step: &Step) -> Done {
        let Some(OpenCursor { cursor, entries, at }) = self.cursors.get_mut(at) else {
            return Ok(());
        };
        let store = &self.store;
        let last = entries.len().checked_sub(1);
        let expected = match step {
            Step::First => last.map(|_| 0),
            Step::Last => last,
            Step::Seek(key) => {
                let found = entries.partition_point(|(other, _)| other < key);
                (found < entries.len()).then_some(found)
            }
            Step::SeekForPrev(key) => entries.partition_point(|(other, _)| other <= key).checked_sub(1),
            // A cursor that stands nowhere is moved by a seek alone.
            Step::Next | Step::Prev if at.is_none() => return Ok(()),
            Step::Next => at.map(|at| at + 1).filter(|at| *at < entries.len()),
            Step::Prev => at.and_then(|at| at.checked_sub(1)),
        };
        let found = match step {
            Step::First => cursor.seek_to_first(store)?,
            Step::Last => cursor.seek_to_last(store)?,
            Step::Seek(key) => cursor.seek(store, key)?,
            Step::SeekForPrev(key) => cursor.seek_for_prev(store, key)?,
            Step::Next => cursor.next(store)?,
            Step::Prev => cursor.prev(store)?,
        };
        *at = expected;
        self.reached.answers += 1;
        same(found, expected.is_some(), "whether a cursor stands at an entry")?;
        let stands_at = found.then(|| (cursor.key().to_vec(), cursor.value().to_vec()));
        same(
            stands_at.as_ref(),
            expected.map(|at| &entries[at]),
            "the entry of a cursor",
        )
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
            if let Write::Put(_, key, value) = write {
                transaction.put(token, key, value);
                let found = transaction.get(&self.store, token, key)?;
                same(found.as_ref(), Some(value), "a transaction's own write")?;
            }
        }
        transaction.commit(&mut self.store)?;
        self.model.apply(writes);
        Ok(())
    }

    /// Everything is compared, in both directions.
    fn check_all(&mut self) -> Done {
        for (number, model) in self.model.families.iter().enumerate() {
            let family = self.families[number];
            let up = collect(self.store.range(family, ..)?)?;
            same_list(&up, &listed(model.iter(), false), "everything")?;
            let down = collect(self.store.range_rev(family, ..)?)?;
            same_list(&down, &listed(model.iter(), true), "everything, downwards")?;
            self.reached.answers += 2;
        }
        Ok(())
    }

    /// Lets go of what borrows the store's life.
    fn let_go(&mut self) {
        self.views.clear();
        self.cursors.clear();
        self.reached.count(&self.store.stats());
    }

    fn open_again(&mut self) -> Result {
        self.opened += 1;
        (self.store, self.families) = open(self.config, self.disk.as_ref(), &self.dir, self.opened)?;
        Ok(())
    }

    fn reopen(&mut self) -> Done {
        self.let_go();
        self.reached.reopened += 1;
        self.store.flush()?;
        self.store.shut_down();
        self.open_again()?;
        self.model.settle();
        self.check_all()
    }

    /// Whether writes are in a log before they return.
    fn is_logged(&self) -> bool {
        self.config.durability != Durability::None
    }

    /// Without a log, what was flushed is what the death of the process leaves.
    fn flushed(&mut self) {
        if !self.is_logged() {
            self.model.settle();
        }
    }

    fn kill(&mut self) -> Done {
        self.let_go();
        self.reached.crashes += 1;
        self.store.shut_down();
        self.open_again()?;
        let found = self.content()?;
        if self.is_logged() {
            // A log survives the death of the process whole; what a power loss may take afterwards is unchanged.
            return self.check_all();
        }
        let before = self.model.log_len();
        let kept = self.model.rewind_each_to(&found);
        self.found(kept, before, &found)
    }

    fn lose_power(&mut self, seed: u64) -> Done {
        // Without a log nothing is promised but that damage is named, which other tests look at.
        let Some(disk) = self.disk.clone().filter(|_| self.is_logged()) else {
            return self.kill();
        };
        self.let_go();
        self.reached.crashes += 1;
        let image = disk.crash_image(disk.op_count(), &mut Random::from_seed(seed));
        self.store.shut_down();
        self.disk = Some(Arc::new(image));
        self.open_again()?;
        let found = self.content()?;
        if self.config.durability == Durability::Sync {
            self.model.settle();
        }
        let before = self.model.log_len();
        let kept = self.model.rewind_to(&found);
        self.found(kept, before, &found)
    }

    /// What the families hold.
    fn content(&self) -> Result<[Map; FAMILIES]> {
        let mut found: [Map; FAMILIES] = std::array::from_fn(|_| Map::new());
        for (number, map) in found.iter_mut().enumerate() {
            *map = self
                .store
                .range(self.families[number], ..)?
                .collect::<Result<_>>()?;
        }
        Ok(found)
    }

    /// Judges what was found after a crash, `kept` of the `before` writes that could be lost.
    fn found(&mut self, kept: Option<usize>, before: usize, found: &[Map; FAMILIES]) -> Done {
        let Some(kept) = kept else {
            for (number, model) in self.model.families.iter().enumerate() {
                let what = format!("after a crash, no moment's content; against the last, family {number}");
                same_list(
                    &listed(found[number].iter(), false),
                    &listed(model.iter(), false),
                    &what,
                )?;
            }
            return Err(Stop::Wrong(
                "after a crash, families of different moments".to_owned(),
            ));
        };
        self.reached.lost_writes += (before - kept) as u64;
        self.check_all()
    }

    fn close(mut self) -> Result {
        self.let_go();
        self.store.close()
    }
}

fn open(
    config: &Config,
    disk: Option<&Arc<SimFs>>,
    dir: &Path,
    opened: u64,
) -> Result<(Store, [Family; FAMILIES])> {
    let fs = disk.map(|disk| disk.clone() as Arc<dyn Fs>);
    let mut store = Store::open(dir, config.store(fs, opened))?;
    let mut families = Vec::new();
    for number in 0..FAMILIES {
        let (name, options) = config.family(number);
        families.push(store.family_with(&name, options)?);
    }
    let families = families.try_into().map_err(|_| Error::invalid("families"))?;
    Ok((store, families))
}
