//! Barrier alignment as a pure state machine: which channels are blocked, when to snapshot, what was overtaken.
//!
//! ```text
//!            barrier(id)                       last live channel delivered
//!   idle ───────────────▶ aligning(id) ─────────────────────────────────▶ idle, snapshot(id)
//!    ▲                       │  │ newer barrier: abort (subsumed), align the newer one
//!    └───────────────────────┘  │
//!         cancel marker: abort, forward the marker
//! ```
//! Rules (one checkpoint at a time):
//! - A channel is blocked from its barrier until the snapshot is taken or the checkpoint is aborted.
//! - A channel that ended counts as having delivered every barrier.
//! - A barrier or marker that is not newer than what was completed, aborted or is being aligned on that channel
//!   is ignored.

use keybed_snapshot::CheckpointId;

/// Why an alignment ended without a snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Aborted {
    /// A barrier of a newer checkpoint arrived first.
    Subsumed,
    /// A cancel marker of this checkpoint (or of a newer one) arrived.
    Cancelled,
}

/// What the task must do after an event, in this order: report the aborted checkpoint, forward the marker,
/// snapshot. At most one of `cancel` and `snapshot` is set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// This checkpoint will not be taken here; decline it.
    pub aborted: Option<(CheckpointId, Aborted)>,
    /// Forward a cancel marker of this checkpoint.
    pub cancel: Option<CheckpointId>,
    /// Take the snapshot of this checkpoint now and forward its barrier before any later record.
    pub snapshot: Option<CheckpointId>,
}

/// Aligns the barriers of one task's input channels.
#[derive(Clone, Debug)]
pub struct Aligner {
    channels: Vec<Channel>,
    /// The checkpoint being aligned.
    current: Option<CheckpointId>,
    /// The newest checkpoint that was snapshot or aborted.
    settled: CheckpointId,
}

#[derive(Clone, Copy, Debug, Default)]
struct Channel {
    delivered: bool,
    ended: bool,
}

impl Aligner {
    /// For a task with `channels` input channels; checkpoints with ids up to `settled` are ignored (id 0 for none).
    pub fn new(channels: usize, settled: CheckpointId) -> Self {
        Aligner {
            channels: vec![Channel::default(); channels],
            current: None,
            settled,
        }
    }

    /// Whether nothing may be read from the channel now.
    pub fn is_blocked(&self, channel: usize) -> bool {
        self.channels[channel].delivered
    }

    /// The checkpoint being aligned, if any.
    pub fn aligning(&self) -> Option<CheckpointId> {
        self.current
    }

    /// A barrier of checkpoint `id` arrived on `channel`.
    pub fn on_barrier(&mut self, channel: usize, id: CheckpointId) -> Outcome {
        let mut outcome = Outcome::default();
        if id <= self.settled || self.current.is_some_and(|current| id < current) {
            return outcome;
        }
        if let Some(older) = self.current.filter(|&current| current < id) {
            outcome.aborted = Some((older, Aborted::Subsumed));
            self.settle(older);
        }
        self.current = Some(id);
        self.channels[channel].delivered = true;
        outcome.snapshot = self.complete();
        outcome
    }

    /// A marker that cancels checkpoint `id` arrived on `channel`.
    pub fn on_cancel(&mut self, _channel: usize, id: CheckpointId) -> Outcome {
        let mut outcome = Outcome::default();
        if id <= self.settled || self.current.is_some_and(|current| id < current) {
            return outcome;
        }
        if let Some(current) = self.current {
            let why = if current == id {
                Aborted::Cancelled
            } else {
                Aborted::Subsumed
            };
            outcome.aborted = Some((current, why));
        }
        self.settle(id);
        outcome.cancel = Some(id);
        outcome
    }

    /// The coordinator gave checkpoint `id` up: nothing of it will be snapshot any more.
    pub fn on_abort(&mut self, id: CheckpointId) {
        if self.current.is_some_and(|current| current <= id) || self.settled < id && self.current.is_none() {
            self.settle(id);
        }
    }

    /// The channel ended for good.
    pub fn on_end(&mut self, channel: usize) -> Outcome {
        self.channels[channel].ended = true;
        Outcome {
            snapshot: self.complete(),
            ..Outcome::default()
        }
    }

    fn complete(&mut self) -> Option<CheckpointId> {
        let id = self.current?;
        let all = self.channels.iter().all(|c| c.delivered || c.ended);
        all.then(|| {
            self.settle(id);
            id
        })
    }

    fn settle(&mut self, id: CheckpointId) {
        self.settled = id;
        self.current = None;
        self.channels.iter_mut().for_each(|c| c.delivered = false);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn c(id: u64) -> CheckpointId {
        CheckpointId(id)
    }

    fn snapshot(id: CheckpointId) -> Outcome {
        Outcome {
            snapshot: Some(id),
            ..Outcome::default()
        }
    }

    #[test]
    fn a_channel_is_blocked_until_the_last_barrier_arrives() {
        let mut a = Aligner::new(2, c(0));
        assert_eq!(a.on_barrier(0, c(1)), Outcome::default());
        assert!(a.is_blocked(0) && !a.is_blocked(1));
        assert_eq!(a.on_barrier(1, c(1)), snapshot(c(1)));
        assert!(!a.is_blocked(0) && !a.is_blocked(1));
    }

    #[test]
    fn a_newer_barrier_overtakes_and_leaves_no_channel_blocked() {
        let mut a = Aligner::new(3, c(0));
        a.on_barrier(0, c(5));
        a.on_barrier(1, c(5));
        let outcome = a.on_barrier(2, c(6));
        assert_eq!(outcome.aborted, Some((c(5), Aborted::Subsumed)));
        assert!(!a.is_blocked(0) && !a.is_blocked(1) && a.is_blocked(2));
        a.on_barrier(0, c(6));
        assert_eq!(a.on_barrier(1, c(6)), snapshot(c(6)));
        assert!((0..3).all(|c| !a.is_blocked(c)));
    }

    #[test]
    fn a_cancel_marker_unblocks_and_is_forwarded_once() {
        let mut a = Aligner::new(2, c(0));
        a.on_barrier(0, c(5));
        let outcome = a.on_cancel(1, c(5));
        assert_eq!(
            (outcome.aborted, outcome.cancel),
            (Some((c(5), Aborted::Cancelled)), Some(c(5)))
        );
        assert!(!a.is_blocked(0));
        assert_eq!(a.on_cancel(0, c(5)), Outcome::default());
        assert_eq!(
            a.on_barrier(1, c(5)),
            Outcome::default(),
            "a barrier after the marker is late"
        );
    }

    #[test]
    fn a_channel_that_ends_counts_as_having_delivered() {
        let mut a = Aligner::new(2, c(0));
        a.on_barrier(0, c(1));
        assert_eq!(a.on_end(1), snapshot(c(1)));
        assert_eq!(
            a.on_barrier(0, c(2)),
            snapshot(c(2)),
            "an ended channel delivers nothing more"
        );
    }

    #[test]
    fn older_barriers_are_ignored() {
        let mut a = Aligner::new(2, c(7));
        assert_eq!(a.on_barrier(0, c(7)), Outcome::default());
        assert!(!a.is_blocked(0));
        a.on_barrier(0, c(9));
        assert_eq!(a.on_barrier(1, c(8)), Outcome::default());
        assert!(!a.is_blocked(1));
    }

    #[test]
    fn what_the_coordinator_gave_up_unblocks_the_task() {
        let mut a = Aligner::new(2, c(0));
        a.on_barrier(0, c(3));
        a.on_abort(c(3));
        assert!(!a.is_blocked(0));
        assert_eq!(a.on_barrier(1, c(3)), Outcome::default());
        a.on_barrier(0, c(4));
        a.on_abort(c(3));
        assert!(
            a.is_blocked(0),
            "giving up an older checkpoint does not touch the newer"
        );
    }

    #[derive(Clone, Copy, Debug)]
    enum Event {
        Barrier(usize, u64),
        Cancel(usize, u64),
        End(usize),
    }

    /// What the aligner promises, said differently: for every checkpoint the set of channels that delivered it.
    #[derive(Default)]
    struct Spec {
        seen: std::collections::BTreeMap<u64, std::collections::BTreeSet<usize>>,
        ended: std::collections::BTreeSet<usize>,
        floor: u64,
    }

    impl Spec {
        fn newest(&self) -> u64 {
            self.seen.keys().next_back().copied().unwrap_or(0).max(self.floor)
        }

        fn apply(&mut self, channels: usize, event: Event) -> Option<u64> {
            match event {
                Event::Barrier(c, id) if id > self.floor && id >= self.newest() => {
                    self.seen.retain(|&other, _| other == id);
                    self.seen.entry(id).or_default().insert(c);
                }
                Event::Cancel(_, id) if id > self.floor && id >= self.newest() => {
                    self.floor = id;
                    self.seen.clear();
                }
                Event::End(c) => {
                    self.ended.insert(c);
                }
                _ => {}
            }
            let (&id, seen) = self.seen.iter().next_back()?;
            let done = (0..channels).all(|c| seen.contains(&c) || self.ended.contains(&c));
            done.then(|| {
                self.floor = id;
                self.seen.clear();
                id
            })
        }
    }

    fn event(channels: usize) -> impl Strategy<Value = Event> {
        prop_oneof![
            8 => (0..channels, 1..8u64).prop_map(|(c, id)| Event::Barrier(c, id)),
            1 => (0..channels, 1..8u64).prop_map(|(c, id)| Event::Cancel(c, id)),
            1 => (0..channels).prop_map(Event::End),
        ]
    }

    proptest! {
        #[test]
        fn agrees_with_the_specification(events in proptest::collection::vec(event(3), 0..60)) {
            let (mut aligner, mut spec) = (Aligner::new(3, c(0)), Spec::default());
            let mut ended = [false; 3];
            for event in events {
                let channel = match event {
                    Event::Barrier(c, _) | Event::Cancel(c, _) | Event::End(c) => c,
                };
                if aligner.is_blocked(channel) || ended[channel] {
                    continue; // the task does not read there
                }
                let outcome = match event {
                    Event::Barrier(channel, id) => aligner.on_barrier(channel, c(id)),
                    Event::Cancel(channel, id) => aligner.on_cancel(channel, c(id)),
                    Event::End(channel) => {
                        ended[channel] = true;
                        aligner.on_end(channel)
                    }
                };
                prop_assert_eq!(outcome.snapshot.map(|id| id.0), spec.apply(3, event));
                for c in 0..3 {
                    let blocked = spec.seen.values().any(|seen| seen.contains(&c));
                    prop_assert_eq!(aligner.is_blocked(c), blocked);
                }
                prop_assert!(outcome.snapshot.is_none() || outcome.cancel.is_none());
            }
        }
    }
}
