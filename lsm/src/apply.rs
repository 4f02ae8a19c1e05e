//! Writing a batch: check all of it, then apply all of it.
//!
//! Everything that can fail comes first: sizes, families, operands, and the reading of values that are appended to.
//! After that nothing can: an operand that the operator cannot fold into what is in the memtable is kept beside it,
//! as it would be if the value lay in a table, and the read that folds them tells.

use crate::{
    batch::{Op, WriteBatch},
    expiry::{self, Expiry},
    family::{Family, OwnedFamily},
    floor::Floor,
    key::{self, EntryKind, KEY_BYTES_MAX, KeyRange, Seqno, VALUE_BYTES_MAX, check_sizes},
    memtable::{Memtable, Probe},
    merge_operator,
    options::FamilyOptions,
    read::Value,
    store::Store,
    touch::{self, Addition, STAMP_BYTES_MAX},
    write::{Step, no_operator, too_large},
};
use keybed_format::{Code, Error, Result};
use std::{
    collections::{BTreeSet, HashSet},
    ops::ControlFlow,
};

/// Values that a batch appends to and that lie in no memtable, by the operation's place in the batch.
type Bases = Vec<(usize, Vec<u8>)>;

impl Store {
    /// Applies a batch: all of its operations, with consecutive seqnos, or none.
    ///
    /// # Errors
    /// `KeyTooLarge`, `ValueTooLarge`; `InvalidArgument` if a family is not of this store, if the batch is longer than
    /// [`BATCH_BYTES_MAX`](crate::BATCH_BYTES_MAX) (with what it appends to, where a log is kept and entries expire or are
    /// filtered), or if it appends in a family of another merge operator than
    /// [`Append`](crate::Append), or raises a floor that [`Store::raise_floor`] would refuse; `MergeFailed` if an operand
    /// is refused; as [`Store::get`] and [`Store::put`]. Nothing is written then.
    pub fn write(&mut self, batch: &WriteBatch) -> Result {
        batch.check()?;
        self.before_write_batch(batch)?;
        // Not before: what was sealed just now is flushed without what had expired by its seal, on which operands could
        // stand. A batch that seals midway keeps that for its own operands.
        let (stamped, now);
        let batch = if self.families.iter().any(|family| family.lifetime.is_some()) || batch.is_stamped() {
            now = self.shared.wall.now();
            stamped = self.stamp_batch(batch, now)?;
            stamped.check()?;
            &stamped
        } else {
            now = u64::MAX;
            batch
        };
        let bases = self.check_batch(batch)?;
        if batch.is_empty() {
            return Ok(());
        }
        let whole;
        let batch = if self.journal.is_on() && !bases.is_empty() {
            whole = self.with_bases(batch, &bases)?;
            whole.check()?;
            &whole
        } else {
            batch
        };
        if self.journal.is_on() {
            self.log_all(batch.ops())?;
        }
        let mut out = std::mem::take(&mut self.scratch);
        let first = self.next_seqno;
        self.applies_since = now;
        let mut bases = bases.iter().peekable();
        for (at, op) in batch.ops().enumerate() {
            let base = bases
                .next_if(|(of, _)| *of == at)
                .map(|(_, base)| (base.as_slice(), first));
            // What was in the memtable then may be removed by the batch itself, without a trace.
            let appends = self.families[op.family() as usize].appends;
            let base = base.or_else(|| (!appends).then_some((&[][..], first)));
            self.apply_one(op, base, &mut out)
                .expect("nothing of a batch that was checked can fail");
        }
        self.applies_since = u64::MAX;
        self.scratch = out;
        Ok(())
    }

    /// Says of each operation when it touches its key, where entries expire.
    fn stamp_batch(&self, batch: &WriteBatch, now: u64) -> Result<WriteBatch> {
        for op in batch.ops() {
            self.owned(Family(op.family()))?;
        }
        Ok(batch.restamped(|op| {
            let lifetime = self.families.get(op.family() as usize)?.lifetime.as_ref();
            lifetime.map(|_| op.stamp().unwrap_or(now))
        }))
    }

    /// The same batch with the values whole that it makes of what merges may remove, as expired or by a filter, before
    /// its memtable is flushed: the log is replayed without that then.
    fn with_bases(&self, batch: &WriteBatch, bases: &Bases) -> Result<WriteBatch> {
        let mut whole = WriteBatch::with_capacity(batch.bytes());
        let mut bases = bases.iter().peekable();
        let mut written: HashSet<(u32, &[u8])> = HashSet::new();
        let mut removed: Vec<(u32, KeyRange)> = Vec::new();
        for (at, op) in batch.ops().enumerate() {
            let base = bases.next_if(|(of, _)| *of == at);
            let owned = self.owned(Family(op.family()))?;
            let value = match op {
                Op::Append {
                    family, key, bytes, ..
                } if (owned.lifetime.is_some() || owned.options.filter.is_some())
                    && written.insert((family, key))
                    && !removed
                        .iter()
                        .any(|(of, range)| *of == family && range.contains(key)) =>
                {
                    base.map(|(_, base)| [base, bytes].concat())
                }
                Op::Put { family, key, .. } | Op::Delete { family, key } => {
                    written.insert((family, key));
                    None
                }
                Op::DeleteRange { family, start, end } => {
                    let (start, end) = (start.to_vec(), end.map(<[u8]>::to_vec));
                    removed.push((family, KeyRange { start, end }));
                    None
                }
                Op::RaiseFloor {
                    family,
                    partition,
                    bound,
                } => {
                    if self.would_raise(Family(family), partition, bound)? {
                        let end = Some([partition, bound].concat());
                        let start = partition.to_vec();
                        removed.push((family, KeyRange { start, end }));
                    }
                    None
                }
                Op::Append { .. } | Op::Merge { .. } => None,
            };
            match (op, &value) {
                (
                    Op::Append {
                        family, key, stamp, ..
                    },
                    Some(value),
                ) => whole.push(Op::Put {
                    family,
                    key,
                    stamp,
                    value,
                }),
                _ => whole.push(op),
            };
        }
        Ok(whole)
    }

    /// Refuses a batch of which some part could not be applied.
    fn check_batch(&self, batch: &WriteBatch) -> Result<Bases> {
        let mut bases = Bases::new();
        let mut floors = BTreeSet::new();
        for (at, op) in batch.ops().enumerate() {
            let owned = self.owned(Family(op.family()))?;
            if op.stamp().is_some() {
                touch::within_limit(body_bytes(&op))?;
            }
            match op {
                Op::Put { key, value, .. } => check_sizes(key, value)?,
                Op::Delete { key, .. } => check_sizes(key, &[])?,
                Op::DeleteRange { start, end, .. } => {
                    check_bound(start)?;
                    check_bound(end.unwrap_or_default())?;
                }
                Op::RaiseFloor { partition, bound, .. } => {
                    if !bound.is_empty() {
                        floors.insert((op.family(), partition));
                    }
                    self.would_raise(Family(op.family()), partition, bound)?;
                }
                Op::Merge { key, operand, .. } => {
                    check_sizes(key, operand)?;
                    let operator = owned.options.merge.as_deref().ok_or_else(no_operator)?;
                    operator
                        .check(operand)
                        .map_err(|error| merge_operator::failed(operator, error))?;
                    if owned.appends {
                        check_growth(batch, &op, key, value_bytes(owned, key))?;
                    }
                }
                Op::Append {
                    key, bytes, stamp, ..
                } => {
                    check_sizes(key, bytes)?;
                    if owned.options.merge.is_some() && !owned.appends {
                        return Err(Error::invalid(
                            "a batch appends only in a family without a merge operator, or with Append",
                        )
                        .with("family", &owned.name));
                    }
                    let mut old_bytes = value_bytes(owned, key);
                    let hash = key::hash(key);
                    if !owned.appends && owned.active.memtable.get(key, hash).is_none() {
                        let below = owned.below();
                        let now = stamp.unwrap_or(below.expiry.now);
                        let base = below
                            .at(now)
                            .get(key, hash)?
                            .map_or_else(Vec::new, Value::into_vec);
                        old_bytes = base.len();
                        bases.push((at, base));
                    }
                    check_growth(batch, &op, key, old_bytes)?;
                }
            }
        }
        self.check_floors(&floors)?;
        Ok(bases)
    }

    /// Applies an operation that was checked; `base` is what it appends to if no memtable holds that, and the first
    /// seqno of the batch it was read before.
    ///
    /// # Errors
    /// Those of reading what is appended to; not if `base` is given or a memtable holds it.
    pub(crate) fn apply_one(
        &mut self,
        op: Op<'_>,
        base: Option<(&[u8], Seqno)>,
        out: &mut Vec<u8>,
    ) -> Result {
        let family = Family(op.family());
        let owned = &self.families[op.family() as usize];
        let key = match op {
            Op::Put { key, .. } | Op::Delete { key, .. } | Op::Merge { key, .. } | Op::Append { key, .. } => {
                key
            }
            Op::DeleteRange { start, end, .. } => {
                let range = KeyRange {
                    start: start.to_vec(),
                    end: end.map(<[u8]>::to_vec),
                };
                let seqno = self.next_seqno;
                return self.cover(family, |memtable, _| {
                    memtable.delete_range(&range, seqno);
                    Ok(())
                });
            }
            Op::RaiseFloor { partition, bound, .. } => {
                let floor = Floor {
                    partition: partition.to_vec(),
                    bound: bound.to_vec(),
                    seqno: self.next_seqno,
                };
                return self.cover(family, |memtable, options| {
                    memtable.raise_floor(options.partition_prefix, floor).map(drop)
                });
            }
        };
        let hash = key::hash(key);
        let probe = owned.active.memtable.find(key, hash);
        out.clear();
        let (step, more) = match op {
            Op::DeleteRange { .. } | Op::RaiseFloor { .. } => return Ok(()),
            Op::Put {
                value,
                stamp: Some(stamp),
                ..
            } => {
                expiry::start_put(out, stamp);
                out.extend_from_slice(value);
                (Step::Replace(EntryKind::PutStamped), value)
            }
            Op::Put { value, .. } => (Step::Store(EntryKind::Put), value),
            Op::Delete { .. } => (Step::Store(EntryKind::Delete), &[][..]),
            Op::Merge {
                operand,
                stamp: Some(stamp),
                ..
            } => {
                let planned = owned.plan_touch(Addition::Merge, probe, (key, hash), operand, stamp, out);
                let step = planned.unwrap_or_else(|_| touch::beside(probe, operand, stamp, out));
                (step, operand)
            }
            Op::Merge { operand, .. } => {
                let planned = owned.plan_merge(probe, key, hash, operand, out);
                (planned.unwrap_or_else(|_| beside(probe)), operand)
            }
            Op::Append { bytes, stamp, .. } => match (probe, base) {
                (Probe::Vacant { .. }, Some((base, first))) => {
                    stamp.into_iter().for_each(|stamp| expiry::start_put(out, stamp));
                    if let ControlFlow::Continue(()) = owned.written_since((first, stamp), key, hash, out) {
                        out.extend_from_slice(base);
                    }
                    out.extend_from_slice(bytes);
                    let kind = stamp.map_or(EntryKind::Put, |_| EntryKind::PutStamped);
                    (Step::Replace(kind), bytes)
                }
                _ if let Some(stamp) = stamp => {
                    let planned = owned.plan_touch(Addition::Append, probe, (key, hash), bytes, stamp, out);
                    let step = match planned {
                        // In a chain that is too long to be folded without a read, which failed.
                        Err(_) if owned.appends => touch::beside(probe, bytes, stamp, out),
                        planned => planned?,
                    };
                    (step, bytes)
                }
                _ => (owned.plan_append(probe, key, hash, bytes, out)?, bytes),
            },
        };
        self.add_by(family, probe, key, step, more, out);
        Ok(())
    }
}

impl OwnedFamily {
    /// Appends to `out` what the writes from seqno `first` on made of a key of a family without operator, and breaks; or
    /// leaves it as it was before them. They are in memtables, of which some may be sealed already.
    fn written_since(
        &self,
        (first, stamp): (Seqno, Option<u64>),
        key: &[u8],
        hash: u64,
        out: &mut Vec<u8>,
    ) -> ControlFlow<()> {
        let expiry = stamp.map_or(Expiry::OFF, |stamp| self.expiry_at(stamp));
        let sources = self.sources();
        let floor = sources.floor(key);
        let written = sources.memtables().filter(|memtable| !memtable.is_empty());
        for memtable in written.take_while(|memtable| memtable.seqnos().1 >= first) {
            memtable.versions(key, hash, floor, &mut |entry| {
                if !expiry.is_gone(entry.kind, entry.value) {
                    out.extend_from_slice(expiry::bare(entry.kind, entry.value));
                }
                ControlFlow::Break(())
            })?;
        }
        if floor >= first {
            return ControlFlow::Break(());
        }
        ControlFlow::Continue(())
    }
}

impl Store {
    /// Removes many keys at once.
    fn cover(
        &mut self,
        family: Family,
        cover: impl FnOnce(&mut Memtable, &FamilyOptions) -> Result,
    ) -> Result {
        let owned = &mut self.families[family.0 as usize];
        let memtable = &mut owned.active.memtable;
        let before = memtable.bytes();
        cover(memtable, &owned.options)?;
        let grown = memtable.bytes() - before;
        self.after_write(family, grown);
        Ok(())
    }
}

/// Bytes of the value that an operation brings.
fn body_bytes(op: &Op<'_>) -> usize {
    match op {
        Op::Put { value: body, .. } | Op::Merge { operand: body, .. } | Op::Append { bytes: body, .. } => {
            body.len()
        }
        Op::Delete { .. } | Op::DeleteRange { .. } | Op::RaiseFloor { .. } => 0,
    }
}

/// Refuses the bound of a range that is longer than the first key behind a key.
fn check_bound(bound: &[u8]) -> Result {
    if bound.len() > KEY_BYTES_MAX + 1 {
        return Err(Error::new(Code::KeyTooLarge, "the bound of a range is too long")
            .expected_found(KEY_BYTES_MAX + 1, bound.len()));
    }
    Ok(())
}

/// Keeps an operand that cannot be folded now.
fn beside(probe: Probe) -> Step {
    match probe {
        Probe::Found { slot, place } => Step::Chain { slot, place },
        Probe::Vacant { .. } => Step::Store(EntryKind::Merge),
    }
}

/// Bytes of what the memtable holds of a key.
fn value_bytes(owned: &OwnedFamily, key: &[u8]) -> usize {
    let found = owned.active.memtable.get(key, key::hash(key));
    found.map_or(0, |(_, kind, value)| expiry::bare(kind, value).len())
}

/// Refuses a batch that makes the value of `key`, of `old_bytes` now, to which `grows` adds, longer than a value may be.
fn check_growth(batch: &WriteBatch, grows: &Op<'_>, key: &[u8], old_bytes: usize) -> Result {
    let bytes_max = VALUE_BYTES_MAX - grows.stamp().map_or(0, |_| STAMP_BYTES_MAX);
    if old_bytes.saturating_add(batch.bytes()) <= bytes_max {
        return Ok(());
    }
    let family = grows.family();
    let mut bytes = old_bytes;
    for op in batch.ops().filter(|op| op.family() == family) {
        match op {
            Op::Put {
                key: other, value, ..
            } if other == key => bytes = value.len(),
            Op::Delete { key: other, .. } if other == key => bytes = 0,
            Op::Merge {
                key: other,
                operand: more,
                ..
            }
            | Op::Append {
                key: other,
                bytes: more,
                ..
            } if other == key => {
                bytes += more.len();
            }
            _ => {}
        }
        if bytes > bytes_max {
            return Err(too_large(bytes));
        }
    }
    Ok(())
}
