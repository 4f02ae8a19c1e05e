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

/// What changed together: family, key, new value.
type Change = Vec<(usize, Vec<u8>, Option<Vec<u8>>)>;

/// The expected content.
#[derive(Clone, Debug, Default)]
pub struct Model {
    /// Now.
    pub families: [Map; FAMILIES],
    /// When everything was last known to be durable.
    base: [Map; FAMILIES],
    /// Since then, oldest first.
    log: Vec<Change>,
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
    /// What `write` changes.
    fn change(&self, write: &Write) -> Change {
        let family = &self.families[write.family()];
        let one = |key: &Vec<u8>, value| vec![(write.family(), key.clone(), value)];
        let gone = |keys: Vec<&Vec<u8>>| {
            keys.into_iter()
                .map(|key| (write.family(), key.clone(), None))
                .collect()
        };
        match write {
            Write::Put(_, key, value) => one(key, Some(value.clone())),
            Write::Delete(_, key) => one(key, None),
            Write::Merge(number, key, operand) => one(key, Some(merged(*number, family.get(key), operand))),
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
                one(key, Some([old, more].concat()))
            }
        }
    }

    /// Does what is written together.
    pub(super) fn apply(&mut self, writes: &[Write]) {
        let mut all = Change::new();
        for write in writes {
            let change = self.change(write);
            redo(&mut self.families, &change);
            all.extend(change);
        }
        self.log.push(all);
    }

    /// Replaces one value.
    pub(super) fn set(&mut self, family: usize, key: &[u8], value: Option<Vec<u8>>) {
        let change = vec![(family, key.to_vec(), value)];
        redo(&mut self.families, &change);
        self.log.push(change);
    }

    /// Empties a family for good: a crash does not bring it back.
    pub(super) fn clear(&mut self, family: usize) {
        self.families[family].clear();
        self.base[family].clear();
        for change in &mut self.log {
            change.retain(|(number, ..)| *number != family);
        }
    }

    /// Everything is durable now.
    pub(super) fn settle(&mut self) {
        self.base = self.families.clone();
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
        while content != *found {
            redo(&mut content, self.log.get(kept)?);
            kept += 1;
        }
        self.families = content;
        self.settle();
        Some(kept)
    }

    /// As [`Model::rewind_to`], each family on its own.
    pub(super) fn rewind_each_to(&mut self, found: &[Map; FAMILIES]) -> Option<usize> {
        let mut kept = 0;
        for (number, found) in found.iter().enumerate() {
            let mut content = self.base.clone();
            let mut at = 0;
            while content[number] != *found {
                redo(&mut content, self.log.get(at)?);
                at += 1;
            }
            self.families[number] = found.clone();
            kept = kept.max(at);
        }
        self.settle();
        Some(kept)
    }
}

fn redo(families: &mut [Map; FAMILIES], change: &Change) {
    for (family, key, value) in change {
        match value {
            Some(value) => families[*family].insert(key.clone(), value.clone()),
            None => families[*family].remove(key),
        };
    }
}
