//! What a store should answer: a map per family, and the writes since its content was last known to be durable.

use super::op::Write;
use std::collections::BTreeMap;

/// Content of a family.
pub type Map = BTreeMap<Vec<u8>, Vec<u8>>;

/// Families of every program; [`Config::family`](super::Config::family) says what each is.
pub const FAMILIES: usize = 5;
/// Nothing can be merged.
pub(super) const PLAIN: usize = 0;
/// Operands are appended.
pub(super) const APPENDS: usize = 1;
/// Values are little-endian `i64`; operands are added.
pub(super) const SUMS: usize = 2;
/// Operands that cannot be combined.
pub(super) const CHAINS: usize = 3;

/// Values, and when they were touched last, in hours since the program began.
type Touched = BTreeMap<Vec<u8>, (Vec<u8>, i64)>;

/// What changed together: family, key, new value and when it was touched.
type Change = Vec<(usize, Vec<u8>, Option<(Vec<u8>, i64)>)>;

/// The expected content.
#[derive(Clone, Debug, Default)]
pub struct Model {
    /// What readers see now.
    pub families: [Map; FAMILIES],
    /// The same with its stamps.
    touched: [Touched; FAMILIES],
    /// When everything was last known to be durable.
    base: [Touched; FAMILIES],
    /// Since then, oldest first.
    log: Vec<Change>,
    /// Hours that entries live after they were touched; more than half an hour longer, really, so that what a store
    /// itself takes of the time does not matter.
    ttl: [Option<i64>; FAMILIES],
    /// It is this late.
    hour: i64,
}

/// What merging an operand does, said a second time.
pub(super) fn merged(family: usize, old: Option<&Vec<u8>>, operand: &[u8]) -> Vec<u8> {
    let old = old.map(Vec::as_slice).unwrap_or_default();
    match family {
        SUMS => {
            let number = |bytes: &[u8]| bytes.try_into().map_or(0, i64::from_le_bytes);
            number(old).wrapping_add(number(operand)).to_le_bytes().to_vec()
        }
        CHAINS => [operand, b"<", old].concat(),
        _ => [old, operand].concat(),
    }
}

impl Model {
    /// Empty; says for how many hours the entries of each family live.
    pub(super) fn new(ttl: [Option<i64>; FAMILIES]) -> Self {
        Model {
            ttl,
            ..Model::default()
        }
    }

    /// What `write` changes.
    fn change(&self, write: &Write) -> Change {
        let family = &self.families[write.family()];
        let one = |key: &Vec<u8>, value: Vec<u8>, ago: i64| {
            vec![(write.family(), key.clone(), Some((value, self.hour - ago)))]
        };
        let gone = |keys: Vec<&Vec<u8>>| {
            keys.into_iter()
                .map(|key| (write.family(), key.clone(), None))
                .collect()
        };
        match write {
            Write::Put(_, key, value) => one(key, value.clone(), 0),
            Write::PutStamped(_, key, value, hours_ago) => one(key, value.clone(), *hours_ago),
            Write::Delete(_, key) => gone(vec![key]),
            Write::Merge(number, key, operand) => one(key, merged(*number, family.get(key), operand), 0),
            Write::DeleteRange(_, start, end) => gone(
                family
                    .range(start.clone()..end.clone())
                    .map(|(key, _)| key)
                    .collect(),
            ),
            Write::DeletePrefix(_, prefix) => {
                gone(family.keys().filter(|key| key.starts_with(prefix)).collect())
            }
            // One that rises: the keys of the partition below the bound go.
            Write::RaiseFloor(_, partition, bound) => {
                let is_below = |key: &[u8]| {
                    key.strip_prefix(&partition[..])
                        .is_some_and(|rest| rest < &bound[..])
                };
                gone(family.keys().filter(|key| is_below(key)).collect())
            }
            Write::Append(_, key, more) => {
                let old = family.get(key).map(Vec::as_slice).unwrap_or_default();
                one(key, [old, more].concat(), 0)
            }
        }
    }

    /// Does what is written together.
    pub(super) fn apply(&mut self, writes: &[Write]) {
        let mut all = Change::new();
        for write in writes {
            let change = self.change(write);
            self.redo_now(&change);
            all.extend(change);
        }
        self.log.push(all);
    }

    fn redo_now(&mut self, change: &Change) {
        redo(&mut self.touched, change);
        for (family, key, _) in change {
            match self.touched[*family].get(key) {
                Some((value, stamp)) if self.lives(*family, *stamp) => {
                    self.families[*family].insert(key.clone(), value.clone())
                }
                _ => self.families[*family].remove(key),
            };
        }
    }

    fn lives(&self, family: usize, stamp: i64) -> bool {
        self.ttl[family].is_none_or(|ttl| self.hour - stamp <= ttl)
    }

    /// What readers see of a content now.
    fn living(&self, number: usize, content: &Touched) -> Map {
        let entries = content
            .iter()
            .filter(|(_, (_, stamp))| self.lives(number, *stamp));
        entries
            .map(|(key, (value, _))| (key.clone(), value.clone()))
            .collect()
    }

    /// Time passes.
    pub(super) fn pass(&mut self, hours: i64) {
        self.hour += hours;
        for number in 0..FAMILIES {
            self.families[number] = self.living(number, &self.touched[number]);
        }
    }

    /// How many hours ago a key that is there was touched last.
    pub(super) fn hours_ago(&self, family: usize, key: &[u8]) -> Option<i64> {
        self.families[family].get(key)?;
        self.touched[family].get(key).map(|(_, stamp)| self.hour - stamp)
    }

    /// Replaces one value.
    pub(super) fn set(&mut self, family: usize, key: &[u8], value: Option<Vec<u8>>) {
        let change = vec![(family, key.to_vec(), value.map(|value| (value, self.hour)))];
        self.redo_now(&change);
        self.log.push(change);
    }

    /// Empties a family for good: a crash does not bring it back.
    pub(super) fn clear(&mut self, family: usize) {
        self.families[family].clear();
        self.touched[family].clear();
        self.base[family].clear();
        for change in &mut self.log {
            change.retain(|(number, ..)| *number != family);
        }
    }

    /// Everything is durable now.
    pub(super) fn settle(&mut self) {
        self.base = self.touched.clone();
        self.log.clear();
    }

    /// Writes since everything was known to be durable.
    pub(super) fn log_len(&self) -> usize {
        self.log.len()
    }

    /// Goes back to what was found after a crash: the content after some number of the writes since everything was
    /// durable. None if it never was.
    pub(super) fn rewind_to(&mut self, found: &[Map; FAMILIES]) -> Option<usize> {
        let mut content = self.base.clone();
        let mut kept = 0;
        let is_it = |content: &[Touched; FAMILIES]| {
            let mut all = content.iter().zip(found).enumerate();
            all.all(|(number, (content, found))| self.living(number, content) == *found)
        };
        while !is_it(&content) {
            redo(&mut content, self.log.get(kept)?);
            kept += 1;
        }
        (self.touched, self.families) = (content, found.clone());
        self.settle();
        Some(kept)
    }

    /// As [`Model::rewind_to`], each family on its own.
    pub(super) fn rewind_each_to(&mut self, found: &[Map; FAMILIES]) -> Option<usize> {
        let mut kept = 0;
        for (number, found) in found.iter().enumerate() {
            let mut content = self.base.clone();
            let mut at = 0;
            while self.living(number, &content[number]) != *found {
                redo(&mut content, self.log.get(at)?);
                at += 1;
            }
            self.families[number] = found.clone();
            self.touched[number] = std::mem::take(&mut content[number]);
            kept = kept.max(at);
        }
        self.settle();
        Some(kept)
    }
}

fn redo(families: &mut [Touched; FAMILIES], change: &Change) {
    for (family, key, value) in change {
        match value {
            Some(value) => families[*family].insert(key.clone(), value.clone()),
            None => families[*family].remove(key),
        };
    }
}
