//! What writes that are not in the store yet make of it: the memory of an `IndexedBatch` and of a `Transaction`.
//!
//! ```text
//! per family   key ─► Change: a value, its absence, or what is below, with operands on it
//!              ranges that were removed: keys inside that have no Change are absent
//! ```
//! Pure: knows no store. A later write to a key inside of a removed range stands on nothing.

use crate::{
    batch::WriteBatch,
    family::Family,
    key::KeyRange,
    merge_operator::{self, MergeOperator},
    range_delete::RangeDeletes,
};
use keybed_format::{Code, Error, Result};
use std::{
    collections::{BTreeMap, btree_map},
    ops::Bound,
};

/// Changes of any number of families, by their tokens.
#[derive(Clone, Debug, Default)]
pub(crate) struct Overlay {
    families: BTreeMap<u32, Layer>,
}

/// Changes of one family.
#[derive(Clone, Debug, Default)]
struct Layer {
    changes: BTreeMap<Vec<u8>, Change>,
    /// All with the same seqno: it is their union that counts.
    removed: RangeDeletes,
}

/// What writes make of a key.
#[derive(Clone, Debug, Default)]
pub(crate) struct Change {
    base: Base,
    /// Oldest first.
    operands: Vec<Operand>,
}

/// What the operands stand on.
#[derive(Clone, Debug, Default)]
enum Base {
    /// The value below.
    #[default]
    Below,
    Value(Vec<u8>),
    Absent,
}

#[derive(Clone, Debug)]
enum Operand {
    Merge(Vec<u8>),
    Append(Vec<u8>),
}

/// Any will do.
const REMOVED: u64 = 1;

static ABSENT: Change = Change {
    base: Base::Absent,
    operands: Vec::new(),
};

impl Change {
    /// Whether the value below matters.
    pub(crate) fn needs_below(&self) -> bool {
        matches!(self.base, Base::Below)
    }

    /// The value, given the one below.
    ///
    /// # Errors
    /// `MergeFailed`.
    pub(crate) fn apply(
        &self,
        below: Option<&[u8]>,
        operator: Option<&dyn MergeOperator>,
    ) -> Result<Option<Vec<u8>>> {
        let mut value = match &self.base {
            Base::Below => below.map(<[u8]>::to_vec),
            Base::Value(value) => Some(value.clone()),
            Base::Absent => None,
        };
        for operand in &self.operands {
            match operand {
                Operand::Append(bytes) => value.get_or_insert_default().extend_from_slice(bytes),
                Operand::Merge(operand) => {
                    let operator = operator
                        .ok_or_else(|| Error::new(Code::MergeFailed, "the family has no merge operator"))?;
                    let mut merged = Vec::new();
                    operator
                        .merge(value.as_deref(), operand, &mut merged)
                        .map_err(|error| merge_operator::failed(operator, error))?;
                    value = Some(merged);
                }
            }
        }
        Ok(value)
    }
}

impl Layer {
    fn is_removed(&self, key: &[u8]) -> bool {
        !self.removed.is_empty() && self.removed.covering(key).is_some()
    }

    fn change(&mut self, key: &[u8]) -> &mut Change {
        if !self.changes.contains_key(key) {
            let base = if self.is_removed(key) {
                Base::Absent
            } else {
                Base::Below
            };
            let change = Change {
                base,
                operands: Vec::new(),
            };
            self.changes.insert(key.to_vec(), change);
        }
        self.changes.get_mut(key).expect("it was just inserted")
    }
}

impl Overlay {
    /// Whether nothing was written.
    pub(crate) fn is_empty(&self) -> bool {
        self.families.is_empty()
    }

    /// Forgets everything.
    pub(crate) fn clear(&mut self) {
        self.families.clear();
    }

    fn set(&mut self, family: Family, key: &[u8], base: Base) {
        let change = Change {
            base,
            operands: Vec::new(),
        };
        let layer = self.families.entry(family.0).or_default();
        match layer.changes.get_mut(key) {
            Some(old) => *old = change,
            None => drop(layer.changes.insert(key.to_vec(), change)),
        }
    }

    /// Gives a key a value.
    pub(crate) fn put(&mut self, family: Family, key: &[u8], value: &[u8]) {
        self.set(family, key, Base::Value(value.to_vec()));
    }

    /// Removes a key.
    pub(crate) fn delete(&mut self, family: Family, key: &[u8]) {
        self.set(family, key, Base::Absent);
    }

    /// Changes a value by an operand of the family's operator.
    pub(crate) fn merge(&mut self, family: Family, key: &[u8], operand: &[u8]) {
        let layer = self.families.entry(family.0).or_default();
        layer.change(key).operands.push(Operand::Merge(operand.to_vec()));
    }

    /// Adds bytes behind a value.
    pub(crate) fn append(&mut self, family: Family, key: &[u8], bytes: &[u8]) {
        let layer = self.families.entry(family.0).or_default();
        layer.change(key).operands.push(Operand::Append(bytes.to_vec()));
    }

    /// Removes every key of a range.
    pub(crate) fn delete_range(&mut self, family: Family, range: &KeyRange) {
        if range.is_empty() {
            return;
        }
        let layer = self.families.entry(family.0).or_default();
        let inside: Vec<Vec<u8>> = layer
            .changes
            .range::<[u8], _>(bounds(range))
            .map(|(key, _)| key.clone())
            .collect();
        for key in inside {
            layer.changes.remove(&key);
        }
        layer.removed.insert(range, REMOVED);
    }

    /// What becomes of a key; `None` if it stays as it is below.
    pub(crate) fn change(&self, family: Family, key: &[u8]) -> Option<&Change> {
        let layer = self.families.get(&family.0)?;
        let change = layer.changes.get(key);
        change.or_else(|| layer.is_removed(key).then_some(&ABSENT))
    }

    /// Whether a range that was removed holds the key: what is below does not count.
    pub(crate) fn is_removed(&self, family: Family, key: &[u8]) -> bool {
        self.families
            .get(&family.0)
            .is_some_and(|layer| layer.is_removed(key))
    }

    /// The keys of a range that were written since they were removed, if they were.
    pub(crate) fn changes(&self, family: Family, range: &KeyRange) -> btree_map::Range<'_, Vec<u8>, Change> {
        let layer = self.families.get(&family.0).filter(|_| !range.is_empty());
        layer
            .map(|layer| layer.changes.range::<[u8], _>(bounds(range)))
            .unwrap_or_default()
    }

    /// The parts of a range that were not removed, ascending.
    pub(crate) fn kept(&self, family: Family, range: &KeyRange) -> Vec<KeyRange> {
        if range.is_empty() {
            return Vec::new();
        }
        let layer = self
            .families
            .get(&family.0)
            .filter(|layer| !layer.removed.is_empty());
        let Some(layer) = layer else {
            return vec![range.clone()];
        };
        let mut kept = Vec::new();
        let mut from = Some(range.start.clone());
        for fragment in layer.removed.clip(range).iter() {
            let Some(start) = from.take() else { break };
            kept.push(KeyRange {
                start,
                end: Some(fragment.start.to_vec()),
            });
            from = fragment.end.map(<[u8]>::to_vec);
        }
        kept.extend(from.map(|start| KeyRange {
            start,
            end: range.end.clone(),
        }));
        kept.retain(|part| !part.is_empty());
        kept
    }

    /// The writes, as few as they can be.
    pub(crate) fn batch(&self) -> WriteBatch {
        let mut batch = WriteBatch::new();
        for (number, layer) in &self.families {
            let family = Family(*number);
            for fragment in layer.removed.iter() {
                batch.delete_keys(family, &fragment.range());
            }
            for (key, change) in &layer.changes {
                match &change.base {
                    Base::Value(value) => batch.put(family, key, value),
                    Base::Absent if !layer.is_removed(key) => batch.delete(family, key),
                    Base::Absent | Base::Below => &mut batch,
                };
                for operand in &change.operands {
                    match operand {
                        Operand::Merge(operand) => batch.merge(family, key, operand),
                        Operand::Append(bytes) => batch.append(family, key, bytes),
                    };
                }
            }
        }
        batch
    }
}

fn bounds(range: &KeyRange) -> (Bound<&[u8]>, Bound<&[u8]>) {
    let end = range.end.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
    (Bound::Included(&range.start), end)
}
