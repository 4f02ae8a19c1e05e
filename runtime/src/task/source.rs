//! The task of a source subtask: reads its splits, makes watermarks, puts barriers between records.

use super::{Body, Control, Mail, What};
use crate::{
    element::{Barrier, Control as Mark, Data, Purpose, Record},
    metrics::NodeCounters,
    output::Output,
    source::{
        Polled, Source, SourceReader, SplitStart, Throttle,
        split::{self, SplitState},
    },
    watermark::{self, OutOfOrderness},
};
use keybed_env::{Step, Waker};
use keybed_format::{Error, Result};
use keybed_snapshot::{CheckpointId, SubtaskState};
use std::{collections::BTreeMap, sync::Arc, time::Duration};

pub(crate) struct SourceTask<S: Source> {
    source: Arc<S>,
    reader: Option<Box<dyn SourceReader<S::Record>>>,
    splits: BTreeMap<u32, Split>,
    output: Box<dyn Output<S::Record>>,
    throttle: Option<Arc<Throttle>>,
    /// Records emitted in one step at most.
    step_records: usize,
    watermark: i64,
    phase: Phase,
    /// Events that the throttle has granted and that were not emitted yet.
    granted: u64,
}

struct Split {
    position: u64,
    times: OutOfOrderness,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    Reading,
    /// The input is at its end; barriers still flow.
    Drained,
    /// The barrier of a stop was emitted: nothing may follow it.
    Held,
    /// As `Held`, by a stop whose failure lets the source go on where it was.
    HeldFor(CheckpointId, Resumed),
    /// The last checkpoint is complete.
    Finished,
}

/// Where a source goes on.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Resumed {
    Reading,
    Drained,
}

impl<S: Source> SourceTask<S> {
    pub(crate) fn new(
        source: Arc<S>,
        splits: &[SplitState],
        output: Box<dyn Output<S::Record>>,
        throttle: Option<Arc<Throttle>>,
        step_records: usize,
    ) -> Self {
        let bound = i64::try_from(source.out_of_orderness().as_millis()).unwrap_or(i64::MAX);
        let split = |s: &SplitState| {
            (
                s.split,
                Split {
                    position: s.position,
                    times: OutOfOrderness::new(bound, s.max_timestamp),
                },
            )
        };
        SourceTask {
            source,
            reader: None,
            splits: splits.iter().map(split).collect(),
            output,
            throttle,
            step_records: step_records.max(1),
            watermark: watermark::MIN,
            phase: Phase::Reading,
            granted: 0,
        }
    }

    /// Reads up to a step's records; what the step ends with.
    fn read(&mut self, control: &Control) -> Result<Step> {
        let reader = self
            .reader
            .as_mut()
            .ok_or_else(|| Error::invalid("the source was not opened"))?;
        let (mut emitted, mut skipped) = (0, 0);
        let step = loop {
            if emitted as usize >= self.step_records {
                break Step::Again;
            }
            if let Some(throttle) = self.throttle.as_ref().filter(|_| self.granted == 0) {
                let (granted, wait) = throttle.take(16);
                if granted == 0 {
                    break Step::Park(Some(wait));
                }
                self.granted = granted;
            }
            match reader.poll_next()? {
                Polled::Record {
                    split,
                    next,
                    timestamp,
                    value,
                } => {
                    let split = split_of(&mut self.splits, split)?;
                    split.position = next;
                    split.times.on_record(timestamp);
                    self.output.record(Record { timestamp, value });
                    self.granted = self.granted.saturating_sub(1);
                    emitted += 1;
                }
                Polled::Skipped { split, next } => {
                    split_of(&mut self.splits, split)?.position = next;
                    skipped += 1;
                }
                Polled::SplitEnd(split) => split_of(&mut self.splits, split)?.times.end(),
                Polled::Pending(wait) => break Step::Park(Some(wait)),
                Polled::End => {
                    self.splits.values_mut().for_each(|s| s.times.end());
                    self.reader = None;
                    break Step::Again;
                }
            }
        };
        NodeCounters::add(&control.seed.counters.records, emitted);
        NodeCounters::add(&control.seed.counters.skipped, skipped);
        Ok(step)
    }

    fn promise(&mut self) {
        let time = self
            .splits
            .values()
            .map(|s| s.times.watermark())
            .min()
            .unwrap_or(watermark::MAX);
        if time > self.watermark {
            self.watermark = time;
            self.output.control(Mark::Watermark(time));
        }
    }

    fn snapshot(&mut self, barrier: Barrier, control: &mut Control) {
        let state = self.splits.iter().map(|(&split, s)| SplitState {
            split,
            position: s.position,
            max_timestamp: s.times.max_timestamp(),
        });
        let operator = vec![split::to_state(state)];
        let state = SubtaskState {
            finished: self.phase == Phase::Drained,
            operator,
            ..SubtaskState::empty(control.index())
        };
        if barrier.purpose.drains() && self.watermark < watermark::MAX {
            self.watermark = watermark::MAX;
            self.output.control(Mark::Watermark(watermark::MAX));
        }
        self.output.control(Mark::Barrier(barrier));
        self.phase = match (barrier.purpose, self.phase) {
            (Purpose::StopWithSavepoint { drain: false, .. }, Phase::Reading) => {
                Phase::HeldFor(barrier.checkpoint, Resumed::Reading)
            }
            (Purpose::StopWithSavepoint { drain: false, .. }, Phase::Drained) => {
                Phase::HeldFor(barrier.checkpoint, Resumed::Drained)
            }
            (Purpose::StopWithSavepoint { .. } | Purpose::Stop, _) => Phase::Held,
            (_, phase) => phase,
        };
        control.snapshot(barrier.checkpoint, Box::new(move |_| Ok(state)));
    }
}

fn split_of(splits: &mut BTreeMap<u32, Split>, split: u32) -> Result<&mut Split> {
    splits.get_mut(&split).ok_or_else(|| {
        Error::invalid("the reader gave a record of a split it was not asked for").with("split", split)
    })
}

impl<S: Source> Body for SourceTask<S>
where
    S::Record: Data,
{
    fn open(&mut self, waker: &Waker, control: &mut Control) -> Result {
        self.output.set_waker(waker);
        let starts: Vec<_> = self
            .splits
            .iter()
            .map(|(&split, s)| SplitStart {
                split,
                position: s.position,
            })
            .collect();
        self.reader = Some(self.source.open(&control.seed.fs, &starts)?);
        // What was promised before the restore is promised again before any record.
        self.promise();
        Ok(())
    }

    fn step(&mut self, control: &mut Control) -> Result<Step> {
        if !self.output.drain() || self.phase != Phase::Reading {
            return Ok(Step::Park(None));
        }
        let step = self.read(control)?;
        self.promise();
        if self.reader.is_none() {
            self.output.control(Mark::EndOfInput);
            self.phase = Phase::Drained;
            control.report(What::Drained);
        }
        self.output.flush();
        Ok(match step {
            Step::Park(Some(wait)) => Step::Park(Some(wait.max(Duration::from_micros(50)))),
            other => other,
        })
    }

    fn mail(&mut self, mail: Mail, control: &mut Control) -> Result {
        match mail {
            Mail::Trigger(barrier) => self.snapshot(barrier, control),
            Mail::Complete(_, purpose) if purpose.ends_the_job() => {
                self.phase = Phase::Finished;
                control.report(What::Finished);
            }
            Mail::Aborted(checkpoint) => {
                self.phase = match self.phase {
                    Phase::HeldFor(held, Resumed::Reading) if held == checkpoint => Phase::Reading,
                    Phase::HeldFor(held, Resumed::Drained) if held == checkpoint => Phase::Drained,
                    phase => phase,
                };
            }
            Mail::CleanUp => control.report(What::CleanedUp),
            _ => {}
        }
        Ok(())
    }
}
