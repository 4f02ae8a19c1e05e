//! A checkpoint that waits for the acknowledgements of its tasks.

use crate::element::Purpose;
use keybed_snapshot::CheckpointId;
use std::time::Duration;

#[derive(Debug)]
pub(super) struct Pending<P> {
    pub(super) id: CheckpointId,
    pub(super) purpose: Purpose,
    pub(super) since: Duration,
    acks: Vec<Option<P>>,
}

impl<P> Pending<P> {
    pub(super) fn new(id: CheckpointId, purpose: Purpose, since: Duration, tasks: usize) -> Self {
        Pending {
            id,
            purpose,
            since,
            acks: (0..tasks).map(|_| None).collect(),
        }
    }

    /// Takes an acknowledgement; gives it back if the task is unknown or has acknowledged before.
    pub(super) fn ack(&mut self, task: usize, payload: P) -> Option<P> {
        match self.acks.get_mut(task) {
            Some(slot @ None) => {
                *slot = Some(payload);
                None
            }
            _ => Some(payload),
        }
    }

    pub(super) fn is_complete(&self) -> bool {
        self.acks.iter().all(Option::is_some)
    }

    /// All acknowledgements by task; the pending checkpoint is empty afterwards.
    pub(super) fn take(&mut self) -> Vec<P> {
        self.acks.iter_mut().filter_map(Option::take).collect()
    }

    #[cfg(test)]
    pub(super) fn has(&self, task: usize) -> bool {
        self.acks[task].is_some()
    }

    pub(super) fn into_acks(self) -> Vec<P> {
        self.acks.into_iter().flatten().collect()
    }
}
