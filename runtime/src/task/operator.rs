//! The task of everything that has inputs: aligns barriers, follows watermarks, feeds a [`Logic`].

use super::{AsyncPart, Body, Control, Mail, What};
use crate::{
    align::{Aligner, Outcome},
    channel::Receiver,
    element::{Barrier, Control as Mark, Element, Purpose, Record},
    metrics::NodeCounters,
    output::Output,
    watermark::{self, Watermarks},
};
use keybed_env::{Step, Waker};
use keybed_format::{Code, Error, Result};
use keybed_snapshot::{CheckpointId, SubtaskState};

/// Timers that fire in one step at most.
const FIRE_MAX: usize = 256;

/// What a kind of operator does with records.
pub(crate) trait Logic: Send {
    type In: Send;
    type Out;

    /// Restores state. Returns the watermark that the snapshot remembers.
    fn open(&mut self, control: &Control) -> Result<i64>;

    /// Takes one record; `watermark` is the task's.
    fn record(&mut self, record: Record<Self::In>, watermark: i64, out: &mut OutputOf<Self>) -> Result;

    /// Whether [`Logic::relieve`] is to be called before the next record.
    fn is_full(&self) -> bool {
        false
    }

    /// Brings the memory that the logic holds back into its bounds.
    fn relieve(&mut self, _control: &Control, _out: &mut OutputOf<Self>) -> Result {
        Ok(())
    }

    /// Fires timers due at `watermark`, at most `limit`; false if more are due.
    fn fire(&mut self, _watermark: i64, _limit: usize, _out: &mut OutputOf<Self>) -> Result<bool> {
        Ok(true)
    }

    /// The synchronous part of a snapshot; what it emits goes before the barrier.
    fn prepare(
        &mut self,
        barrier: Barrier,
        watermark: i64,
        control: &Control,
        out: &mut OutputOf<Self>,
    ) -> Result<AsyncPart>;

    /// The checkpoint exists. True if its consequences are dealt with; else [`Logic::on_mail`] will tell.
    fn on_complete(
        &mut self,
        _checkpoint: CheckpointId,
        _purpose: Purpose,
        _control: &mut Control,
    ) -> Result<bool> {
        Ok(true)
    }

    /// The checkpoint will never exist.
    fn on_aborted(&mut self, _checkpoint: CheckpointId, _control: &mut Control) {}

    /// A job ended, or clean-up was asked for. Gives back what the driver must hear.
    fn on_mail(&mut self, mail: Mail, _control: &mut Control) -> Result<Option<What>> {
        Ok(matches!(mail, Mail::CleanUp).then_some(What::CleanedUp))
    }
}

/// The output of a logic.
pub(crate) type OutputOf<L> = dyn Output<<L as Logic>::Out>;

pub(crate) struct OperatorTask<L: Logic> {
    inputs: Vec<Receiver<L::In>>,
    logic: L,
    output: Box<OutputOf<L>>,
    aligner: Aligner,
    /// The barrier being aligned (its purpose and time travel with it).
    barrier: Option<Barrier>,
    watermarks: Watermarks,
    /// A watermark whose timers are not all fired yet.
    firing: Option<i64>,
    ended: Vec<bool>,
    drained: bool,
    /// Input to look at next.
    turn: usize,
}

impl<L: Logic> OperatorTask<L> {
    pub(crate) fn new(
        inputs: Vec<Receiver<L::In>>,
        logic: L,
        output: Box<OutputOf<L>>,
        settled: CheckpointId,
    ) -> Self {
        let count = inputs.len();
        OperatorTask {
            inputs,
            logic,
            output,
            aligner: Aligner::new(count, settled),
            barrier: None,
            watermarks: Watermarks::new(count, watermark::MIN),
            firing: None,
            ended: vec![false; count],
            drained: false,
            turn: 0,
        }
    }

    /// The oldest entry of the next channel that has one and is not blocked.
    fn next(&mut self) -> Option<(usize, Element<L::In>)> {
        let count = self.inputs.len();
        for i in 0..count {
            let channel = (self.turn + i) % count;
            if self.aligner.is_blocked(channel) {
                continue;
            }
            if let Some(element) = self.inputs[channel].pop() {
                self.turn = (channel + 1) % count;
                return Some((channel, element));
            }
        }
        None
    }

    fn mark(&mut self, channel: usize, mark: Mark, control: &mut Control) -> Result {
        match mark {
            Mark::Watermark(time) => self.firing = self.watermarks.advance(channel, time),
            Mark::Barrier(barrier) => {
                let outcome = self.aligner.on_barrier(channel, barrier.checkpoint);
                if self.aligner.aligning() == Some(barrier.checkpoint) || outcome.snapshot.is_some() {
                    self.barrier = Some(barrier);
                }
                self.settle(outcome, control)?;
            }
            Mark::Cancel(id) => {
                let outcome = self.aligner.on_cancel(channel, id);
                self.settle(outcome, control)?;
            }
            Mark::EndOfInput => {
                self.ended[channel] = true;
                self.drain_if_ended(control);
            }
        }
        Ok(())
    }

    fn drain_if_ended(&mut self, control: &Control) {
        if !self.drained && self.firing.is_none() && self.ended.iter().all(|&e| e) {
            self.drained = true;
            self.output.control(Mark::EndOfInput);
            control.report(What::Drained);
        }
    }

    fn settle(&mut self, outcome: Outcome, control: &mut Control) -> Result {
        if let Some((checkpoint, why)) = outcome.aborted {
            let why = Error::new(Code::CheckpointDeclined, format!("{why:?}"));
            control.report(What::Decline {
                checkpoint,
                why,
                counts: false,
            });
        }
        if let Some(id) = outcome.cancel {
            self.output.control(Mark::Cancel(id));
        }
        let barrier = self.barrier.take_if(|b| outcome.snapshot == Some(b.checkpoint));
        if let Some(barrier) = barrier {
            let part = self
                .logic
                .prepare(barrier, self.watermarks.current(), control, &mut *self.output)?;
            self.output.control(Mark::Barrier(barrier));
            let finished = self.drained;
            let part = move |place: Option<&dyn keybed_snapshot::PutFiles>| {
                let state = part(place)?;
                Ok(SubtaskState { finished, ..state })
            };
            control.snapshot(barrier.checkpoint, Box::new(part));
        }
        Ok(())
    }
}

impl<L: Logic> Body for OperatorTask<L> {
    fn open(&mut self, waker: &Waker, control: &mut Control) -> Result {
        self.output.set_waker(waker);
        self.inputs.iter_mut().for_each(|input| input.set_waker(waker));
        let floor = self.logic.open(control)?;
        self.watermarks = Watermarks::new(self.inputs.len(), floor);
        Ok(())
    }

    fn step(&mut self, control: &mut Control) -> Result<Step> {
        if !self.output.drain() {
            return Ok(Step::Park(None));
        }
        if let Some(time) = self.firing {
            if self.logic.fire(time, FIRE_MAX, &mut *self.output)? {
                self.firing = None;
                self.output.control(Mark::Watermark(time));
                self.drain_if_ended(control);
            }
            return Ok(Step::Again);
        }
        let Some((channel, element)) = self.next() else {
            self.output.flush();
            return Ok(Step::Park(None));
        };
        match element {
            Element::Batch(records) => {
                NodeCounters::add(&control.seed.counters.records, records.len() as u64);
                let watermark = self.watermarks.current();
                for record in records {
                    self.logic.record(record, watermark, &mut *self.output)?;
                    if self.logic.is_full() {
                        self.logic.relieve(control, &mut *self.output)?;
                    }
                }
            }
            Element::Control(mark) => self.mark(channel, mark, control)?,
        }
        Ok(Step::Again)
    }

    fn mail(&mut self, mail: Mail, control: &mut Control) -> Result {
        match mail {
            Mail::Complete(id, purpose) => {
                if self.logic.on_complete(id, purpose, control)? && purpose.ends_the_job() {
                    control.report(What::Finished);
                }
            }
            Mail::Aborted(id) => {
                self.aligner.on_abort(id);
                self.logic.on_aborted(id, control);
            }
            Mail::Trigger(_) | Mail::Cancel => {}
            other => {
                if let Some(what) = self.logic.on_mail(other, control)? {
                    control.report(what);
                }
            }
        }
        Ok(())
    }
}
