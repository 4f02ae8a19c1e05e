//! Entries that expire: what a stamp is, and what it means at one moment.
//!
//! ```text
//! PutStamped     touched u64 · value
//! MergeStamped   touched u64 · first touched u64 · operand        little-endian milliseconds since 1970
//!
//! put @3     merge @5     merge @9          time to live 6: at 9 the value of 5 still lived, so 9 stands on 5, 5 on 3
//! put @3                  merge @9          at 9 nothing lived any more: 9 stands on nothing
//! ```
//! A key is gone once the newest touch of it is as old as the time to live. An operand stands on what is older only if
//! that lived when the operand was written; so the answer does not depend on who folds what, and when. Operands that
//! were combined keep their first stamp for this question. Versions without a stamp count from the moment when entries
//! of the family first began to expire. Why stamps travel in the kind of a version: docs/decisions/ttl.md.

use crate::{
    key::{Entry, EntryKind},
    merge_operator::{MergeOperator, fold},
};
use keybed_env::Clock;
use keybed_format::Result;
use std::{
    ops::ControlFlow,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

/// Expired bytes stay on disk at most this long by default, and never longer than the time to live.
const EXPIRED_AGE_MAX: Duration = Duration::from_secs(24 * 3600);

/// Longest time to live that can be recorded; longer ones count as this: 34,000 years.
const TTL_MILLIS_MAX: u64 = 1 << 50;

/// Wall time that never goes back, not even over a restart: what has expired once has expired.
#[derive(Debug)]
pub(crate) struct WallTime {
    clock: Arc<dyn Clock>,
    /// The largest time that anybody was told. Relaxed: nothing else is read on the strength of it.
    latest: AtomicU64,
}

impl WallTime {
    /// Time that is not before `earliest`.
    pub(crate) fn new(clock: Arc<dyn Clock>, earliest: u64) -> Self {
        WallTime {
            clock,
            latest: AtomicU64::new(earliest),
        }
    }

    /// Milliseconds since 1970.
    #[inline]
    pub(crate) fn now(&self) -> u64 {
        let (now, latest) = (self.clock.wall_millis(), self.latest.load(Ordering::Relaxed));
        if now > latest {
            self.latest.fetch_max(now, Ordering::Relaxed);
        }
        now.max(latest)
    }
}

/// That the entries of a family expire, as the manifest remembers it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TtlRecord {
    /// Time to live in milliseconds, at least 1.
    pub ttl_millis: u64,
    /// When entries of the family began to expire, in milliseconds since 1970: the stamp of versions without one.
    pub since_millis: u64,
}

/// The time to live of a family that takes writes.
#[derive(Clone, Debug)]
pub(crate) struct Lifetime {
    pub(crate) record: TtlRecord,
    pub(crate) wall: Arc<WallTime>,
    /// Expired bytes stay on disk at most this long, in milliseconds.
    pub(crate) expired_age_max: u64,
}

impl Lifetime {
    pub(crate) fn new(record: TtlRecord, wall: &Arc<WallTime>, expired_age_max: Option<Duration>) -> Self {
        let age = expired_age_max.unwrap_or(EXPIRED_AGE_MAX);
        let age = u64::try_from(age.as_millis()).unwrap_or(u64::MAX);
        Lifetime {
            expired_age_max: match expired_age_max {
                Some(_) => age,
                None => age.min(record.ttl_millis),
            },
            record,
            wall: wall.clone(),
        }
    }

    /// What has expired now; looks at the clock.
    #[inline]
    pub(crate) fn expiry(&self) -> Expiry {
        self.expiry_at(self.wall.now())
    }

    /// What has expired at a moment.
    #[inline]
    pub(crate) fn expiry_at(&self, now: u64) -> Expiry {
        Expiry {
            ttl: self.record.ttl_millis,
            since: self.record.since_millis,
            now,
        }
    }
}

/// Milliseconds of a time to live.
pub(crate) fn ttl_millis(ttl: Duration) -> u64 {
    u64::try_from(ttl.as_millis())
        .unwrap_or(u64::MAX)
        .clamp(1, TTL_MILLIS_MAX)
}

/// Which versions of a family have expired at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Expiry {
    /// 0 = nothing expires.
    pub(crate) ttl: u64,
    pub(crate) since: u64,
    pub(crate) now: u64,
}

impl Expiry {
    /// Nothing expires.
    pub(crate) const OFF: Expiry = Expiry {
        ttl: 0,
        since: 0,
        now: 0,
    };

    /// Whether nothing expires.
    #[inline(always)]
    pub(crate) fn is_off(&self) -> bool {
        self.ttl == 0
    }

    /// Whether what was touched last at `stamp` is gone.
    #[inline]
    pub(crate) fn is_over(&self, stamp: u64) -> bool {
        self.ended_by(stamp, self.now)
    }

    /// Whether what was touched at `stamp` was gone at `moment`.
    #[inline]
    pub(crate) fn ended_by(&self, stamp: u64, moment: u64) -> bool {
        self.ttl != 0 && stamp.saturating_add(self.ttl) <= moment
    }

    /// Whether a version is gone, seen alone: the newest one of its key.
    #[inline]
    pub(crate) fn is_gone(&self, kind: EntryKind, value: &[u8]) -> bool {
        self.ttl != 0 && kind != EntryKind::Delete && self.is_over(stamps(kind, value, self.since).touched)
    }
}

/// When a version was touched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stamps {
    /// Last.
    pub(crate) touched: u64,
    /// First, where operands were combined; else the same.
    pub(crate) first: u64,
}

#[inline]
fn word(bytes: &[u8], at: usize) -> u64 {
    let word = bytes.get(at..).and_then(|rest| rest.first_chunk::<8>());
    u64::from_le_bytes(*word.expect("whoever made or read this version checked that it has its stamps"))
}

/// The stamps of a version; one without counts from `since`.
#[inline]
pub(crate) fn stamps(kind: EntryKind, value: &[u8], since: u64) -> Stamps {
    match kind {
        EntryKind::PutStamped => {
            let touched = word(value, 0);
            Stamps {
                touched,
                first: touched,
            }
        }
        EntryKind::MergeStamped => Stamps {
            touched: word(value, 0),
            first: word(value, 8),
        },
        EntryKind::Put | EntryKind::Delete | EntryKind::Merge => Stamps {
            touched: since,
            first: since,
        },
    }
}

/// The value or operand of a version, without stamps.
#[inline]
pub(crate) fn bare(kind: EntryKind, value: &[u8]) -> &[u8] {
    value.get(kind.stamp_bytes()..).unwrap_or_default()
}

/// Puts the stamp of a value that was touched at `stamp` into `out`, which is empty; the value follows.
#[inline]
pub(crate) fn start_put(out: &mut Vec<u8>, stamp: u64) {
    out.extend_from_slice(&stamp.to_le_bytes());
}

/// As [`start_put`], for an operand.
#[inline]
pub(crate) fn start_merge(out: &mut Vec<u8>, stamps: Stamps) {
    out.extend_from_slice(&stamps.touched.to_le_bytes());
    out.extend_from_slice(&stamps.first.to_le_bytes());
}

/// Folds the versions of one key, shown newest first, into what a reader sees.
#[derive(Debug)]
pub(crate) struct Fold {
    expiry: Expiry,
    operands: Vec<Vec<u8>>,
    base: Option<Vec<u8>>,
    /// Of the newest version and of the oldest one so far.
    seen: Option<(u64, u64)>,
}

impl Fold {
    pub(crate) fn new(expiry: Expiry) -> Self {
        Fold {
            expiry,
            operands: Vec::new(),
            base: None,
            seen: None,
        }
    }

    /// Takes the next older version; breaks when it has seen enough.
    pub(crate) fn see(&mut self, entry: &Entry<'_>) -> ControlFlow<()> {
        if entry.kind == EntryKind::Delete {
            return ControlFlow::Break(());
        }
        let stamps = stamps(entry.kind, entry.value, self.expiry.since);
        let (newest, at) = self.seen.unwrap_or((stamps.touched, self.expiry.now));
        if self.expiry.ended_by(stamps.touched, at) {
            return ControlFlow::Break(());
        }
        self.seen = Some((newest, stamps.first));
        let value = bare(entry.kind, entry.value).to_vec();
        if entry.kind.is_merge() {
            self.operands.push(value);
            return ControlFlow::Continue(());
        }
        self.base = Some(value);
        ControlFlow::Break(())
    }

    /// The value, and when it was touched last; `None` if the key is absent.
    ///
    /// # Errors
    /// Those of the operator.
    pub(crate) fn value(self, operator: Option<&dyn MergeOperator>) -> Result<Option<(Vec<u8>, u64)>> {
        let Some((newest, _)) = self.seen else {
            return Ok(None);
        };
        if self.operands.is_empty() {
            return Ok(self.base.map(|base| (base, newest)));
        }
        let value = fold(operator, self.base.as_deref(), &self.operands)?;
        Ok(Some((value, newest)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::merge_operator::Append;
    use keybed_env::ManualClock;

    fn merge(touched: u64, first: u64, operand: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        start_merge(&mut out, Stamps { touched, first });
        [&out[..], operand].concat()
    }

    fn folded(now: u64, versions: &[(EntryKind, Vec<u8>)]) -> Option<(Vec<u8>, u64)> {
        let mut fold = Fold::new(Expiry {
            ttl: 6,
            since: 1,
            now,
        });
        for (kind, value) in versions {
            let entry = Entry {
                key: b"k",
                seqno: 1,
                kind: *kind,
                value,
            };
            if fold.see(&entry).is_break() {
                break;
            }
        }
        fold.value(Some(&Append)).unwrap()
    }

    #[test]
    fn an_operand_stands_on_what_lived_when_it_was_written() {
        let put = |stamp: u64| (EntryKind::PutStamped, [&stamp.to_le_bytes()[..], b"a"].concat());
        let operand = |touched, first, bytes: &[u8]| (EntryKind::MergeStamped, merge(touched, first, bytes));
        let kept = [operand(9, 9, b"c"), operand(5, 5, b"b"), put(3)];
        assert_eq!(folded(14, &kept), Some((b"abc".to_vec(), 9)));
        assert_eq!(folded(15, &kept), None);
        assert_eq!(
            folded(14, &[operand(9, 5, b"bc"), put(3)]),
            Some((b"abc".to_vec(), 9))
        );
        assert_eq!(
            folded(14, &[operand(9, 9, b"c"), put(3)]),
            Some((b"c".to_vec(), 9))
        );
        // Without a stamp: as old as the beginning.
        let bare = (EntryKind::Put, b"a".to_vec());
        assert_eq!(folded(6, std::slice::from_ref(&bare)), Some((b"a".to_vec(), 1)));
        assert_eq!(folded(7, &[bare]), None);
    }

    #[test]
    fn wall_time_never_goes_back() {
        let clock = Arc::new(ManualClock::new());
        let start = clock.wall_millis();
        let wall = WallTime::new(clock.clone(), start + 5);
        assert_eq!(wall.now(), start + 5);
        clock.advance(Duration::from_millis(7));
        assert_eq!(wall.now(), start + 7);
    }
}
