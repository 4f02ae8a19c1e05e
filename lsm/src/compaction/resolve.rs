//! Which versions of a key go into a new table.
//!
//! Nobody reads an old version from a new table: a `View` and `PinnedFiles` hold the memtables and tables they saw.
//! So of each key the newest version is written, and what it stands on:
//!
//! | newest first | nothing older can hold the key | something older may |
//! |---|---|---|
//! | put … | the put | the put |
//! | delete … | nothing | the delete |
//! | merges, then put or delete | a put: the fold | a put: the fold |
//! | merges, then nothing | a put: the fold on nothing | the merges, combined where the operator can |
//!
//! In a family whose entries expire, a key that has expired counts as deleted, and an operand as one that stands on
//! nothing if what is older had expired when it was written. In one whose entries do so no longer, stamps are left out.
//!
//! Versions that a range delete or a floor covers were left out by the merge. A range delete is written as far as older
//! runs reach.
//!
//! A fold or combination that would be longer than a value may be is not made, and none without the operator: operands
//! and base stay apart.

use super::filter::{CompactionFilter, Verdict};
use crate::{
    expiry::{self, Expiry, Stamps},
    iter::MergeIter,
    key::{self, Entry, EntryKind, KeyRange, Seqno, VALUE_BYTES_MAX},
    merge_operator::{self, MergeOperator},
    planted,
    range_delete::RangeDeletes,
    touch::STAMP_BYTES_MAX,
    version::{Run, may_hold},
};
use keybed_format::Result;
use std::cell::Cell;

/// Takes the versions that are kept, in order.
pub(crate) trait Keep {
    /// Writes one version.
    fn keep(&mut self, entry: Entry<'_>) -> Result;
}

/// What is needed to decide.
pub(crate) struct Resolver<'a> {
    /// The family's operator.
    pub(crate) operator: Option<&'a dyn MergeOperator>,
    /// All runs older than the input; what some of them hold may stand in others again.
    pub(crate) older: &'a [&'a [Run]],
    /// What has expired, and may be forgotten: no newer operand that is not among the input stands on it.
    pub(crate) expiry: Expiry,
    /// Keys that had expired.
    pub(crate) expired: Cell<u64>,
    /// The family's filter, and the time it is told.
    pub(crate) filter: Option<(&'a dyn CompactionFilter, u64)>,
    /// Told now and then how many bytes were looked at since; true ends the work.
    pub(crate) stops: &'a dyn Fn(u64) -> bool,
}

/// Keys, and bytes of them and their values, between two questions whether to go on.
const KEYS_PER_QUESTION: u32 = 1024;
const BYTES_PER_QUESTION: u64 = 256 << 10;

/// How the work ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// All keys were written.
    Complete,
    /// It was told to stop; the merge stands at the first key that was not written.
    Stopped,
}

impl Resolver<'_> {
    /// Writes what is kept of all keys from where `merge` stands to `end`.
    ///
    /// # Errors
    /// Those of reading, writing and merging.
    pub(crate) fn run(
        &self,
        merge: &mut MergeIter<'_>,
        end: Option<&[u8]>,
        out: &mut impl Keep,
    ) -> Result<Outcome> {
        let mut key = Vec::new();
        let (mut keys, mut bytes) = (0_u32, 0_u64);
        while let Some(entry) = merge.top() {
            if end.is_some_and(|end| entry.key >= end) {
                break;
            }
            key.clear();
            key.extend_from_slice(entry.key);
            bytes += (entry.key.len() + entry.value.len()) as u64;
            match entry.kind {
                EntryKind::Put if self.expiry.is_off() => {
                    self.put(entry, out)?;
                    merge.step_key()?;
                }
                _ if self.expiry.is_gone(entry.kind, entry.value) => {
                    self.expired.set(self.expired.get() + 1);
                    self.gone(entry, out)?;
                    merge.step_key()?;
                }
                EntryKind::Put | EntryKind::PutStamped => {
                    self.put(self.stripped(entry), out)?;
                    merge.step_key()?;
                }
                EntryKind::Delete => {
                    if self.may_be_older(&key) && !planted::is("tombstone-dropped-early") {
                        out.keep(entry)?;
                    }
                    merge.step_key()?;
                }
                EntryKind::Merge | EntryKind::MergeStamped => self.merges(merge, &key, out)?,
            }
            keys += 1;
            if keys >= KEYS_PER_QUESTION || bytes >= BYTES_PER_QUESTION {
                if (self.stops)(bytes) {
                    return Ok(Outcome::Stopped);
                }
                (keys, bytes) = (0, 0);
            }
        }
        Ok(Outcome::Complete)
    }

    /// Without its stamp, if entries do not expire any more.
    fn stripped<'e>(&self, entry: Entry<'e>) -> Entry<'e> {
        match entry.kind {
            EntryKind::PutStamped if self.expiry.is_off() => Entry {
                kind: EntryKind::Put,
                value: expiry::bare(entry.kind, entry.value),
                ..entry
            },
            _ => entry,
        }
    }

    /// Writes a value, unless the filter decides otherwise.
    #[inline]
    fn put(&self, entry: Entry<'_>, out: &mut impl Keep) -> Result {
        match self.filter {
            None => out.keep(entry),
            Some((filter, now)) => self.filtered(entry, filter, now, out),
        }
    }

    #[cold]
    fn filtered(
        &self,
        entry: Entry<'_>,
        filter: &dyn CompactionFilter,
        now: u64,
        out: &mut impl Keep,
    ) -> Result {
        let value = expiry::bare(entry.kind, entry.value);
        let stamp = (!self.expiry.is_off())
            .then(|| expiry::stamps(entry.kind, entry.value, self.expiry.since).touched);
        match filter.filter_stamped(entry.key, value, stamp, now) {
            Verdict::Keep => out.keep(entry),
            Verdict::Change(value) => {
                let stamps = entry.value.get(..entry.kind.stamp_bytes()).unwrap_or_default();
                out.keep(Entry {
                    value: &[stamps, &value].concat(),
                    ..entry
                })
            }
            Verdict::Remove => self.gone(entry, out),
        }
    }

    /// Leaves a key out; an older value of it must not come back.
    #[cold]
    fn gone(&self, entry: Entry<'_>, out: &mut impl Keep) -> Result {
        if !self.may_be_older(entry.key) {
            return Ok(());
        }
        out.keep(Entry {
            kind: EntryKind::Delete,
            value: &[],
            ..entry
        })
    }

    /// A value must leave room for its stamps.
    fn value_bytes_max(&self) -> usize {
        match self.expiry.is_off() {
            true => VALUE_BYTES_MAX,
            false => VALUE_BYTES_MAX - STAMP_BYTES_MAX,
        }
    }

    fn may_be_older(&self, key: &[u8]) -> bool {
        let hash = self
            .older
            .iter()
            .any(|runs| !runs.is_empty())
            .then(|| key::hash(key));
        hash.is_some_and(|hash| self.older.iter().any(|runs| may_hold(runs, key, hash)))
    }

    /// Of range deletes what can hide something older: each as far as older runs reach.
    pub(crate) fn kept_range_deletes(&self, deletes: &RangeDeletes) -> RangeDeletes {
        let mut kept = RangeDeletes::new();
        if planted::is("range-delete-dropped-early") {
            return kept;
        }
        for fragment in deletes.iter() {
            let range = fragment.range();
            let runs = self.older.iter().flat_map(|runs| runs.iter());
            let hulls = runs.filter_map(|run| run.hull_within(&range));
            let hull = hulls.reduce(|a, b| KeyRange {
                start: a.start.min(b.start),
                end: a.end.zip(b.end).map(|(a, b)| a.max(b)),
            });
            if let Some(hull) = hull {
                kept.insert(&range.clip(&hull), fragment.seqno);
            }
        }
        kept
    }

    /// Handles a key whose newest version is an operand that has not expired.
    fn merges(&self, merge: &mut MergeIter<'_>, key: &[u8], out: &mut impl Keep) -> Result {
        let mut operands: Vec<Operand> = Vec::new();
        let mut base: Option<(Seqno, EntryKind, Vec<u8>)> = None;
        while let Some(entry) = merge.top().filter(|entry| key::equal(entry.key, key)) {
            let stamps = expiry::stamps(entry.kind, entry.value, self.expiry.since);
            let newer = operands.last().map(|newer| newer.stamps.first);
            if newer.is_some_and(|newer| self.expiry.ended_by(stamps.touched, newer)) {
                base = Some((entry.seqno, EntryKind::Delete, Vec::new()));
            } else if entry.kind.is_merge() {
                operands.push(Operand {
                    seqno: entry.seqno,
                    stamps,
                    is_stamped: entry.kind.stamp_bytes() > 0 && !self.expiry.is_off(),
                    value: expiry::bare(entry.kind, entry.value).to_vec(),
                });
            } else {
                let entry = self.stripped(entry);
                base = Some((entry.seqno, entry.kind, entry.value.to_vec()));
            }
            if base.is_some() {
                merge.step_key()?;
                break;
            }
            merge.advance()?;
        }
        let newest = operands.first().map_or(0, |newest| newest.seqno);
        let stamp = operands.first().filter(|newest| newest.is_stamped);
        let stamp = stamp.map(|newest| newest.stamps.touched);
        if base.is_none() && self.may_be_older(key) {
            return self.keep_operands(key, operands, out);
        }
        let values: Vec<&[u8]> = operands.iter().map(|operand| operand.value.as_slice()).collect();
        let below = base.as_ref().filter(|(_, kind, _)| *kind != EntryKind::Delete);
        let below = below.map(|(_, kind, value)| expiry::bare(*kind, value));
        // An operator that the program has not named yet folds nothing: operands may come from the log before that.
        let folded = match self.operator {
            Some(_) => Some(merge_operator::fold(self.operator, below, &values)?),
            None => None,
        };
        let Some(value) = folded.filter(|value| value.len() <= self.value_bytes_max()) else {
            self.keep_operands(key, operands, out)?;
            return match base {
                Some((seqno, kind, value)) if kind != EntryKind::Delete || self.may_be_older(key) => out
                    .keep(Entry {
                        key,
                        seqno,
                        kind,
                        value: &value,
                    }),
                _ => Ok(()),
            };
        };
        let value = match stamp {
            Some(stamp) => [&stamp.to_le_bytes()[..], &value].concat(),
            None => value,
        };
        let folded = Entry {
            key,
            seqno: newest,
            kind: stamp.map_or(EntryKind::Put, |_| EntryKind::PutStamped),
            value: &value,
        };
        self.put(folded, out)
    }

    /// Writes operands, newest first, neighbours combined where the operator can.
    fn keep_operands(&self, key: &[u8], operands: Vec<Operand>, out: &mut impl Keep) -> Result {
        let mut kept: Vec<Operand> = Vec::new();
        // From the oldest on: each operand is combined into its older neighbour.
        for operand in operands.into_iter().rev() {
            if let (Some(operator), Some(older)) = (self.operator, kept.last_mut()) {
                let mut both = Vec::new();
                let combined = operator
                    .combine(&older.value, &operand.value, &mut both)
                    .map_err(|error| merge_operator::failed(operator, error))?;
                if combined && both.len() <= self.value_bytes_max() {
                    older.seqno = operand.seqno;
                    older.stamps.touched = operand.stamps.touched;
                    older.is_stamped |= operand.is_stamped;
                    older.value = both;
                    continue;
                }
            }
            kept.push(operand);
        }
        kept.iter().rev().try_for_each(|operand| {
            let mut value = Vec::new();
            if operand.is_stamped {
                expiry::start_merge(&mut value, operand.stamps);
            }
            value.extend_from_slice(&operand.value);
            out.keep(Entry {
                key,
                seqno: operand.seqno,
                kind: if operand.is_stamped {
                    EntryKind::MergeStamped
                } else {
                    EntryKind::Merge
                },
                value: &value,
            })
        })
    }
}

/// An operand that waits for what it stands on.
struct Operand {
    seqno: Seqno,
    stamps: Stamps,
    is_stamped: bool,
    value: Vec<u8>,
}
