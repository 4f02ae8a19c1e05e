//! Where a task's records go: chained functions first, then the channels of one or several consumers.
//!
//! An output is a small tree built anew for every subtask of every attempt: `Fan` where a stream has several
//! consumers, `Map`/`Filter`/`FlatMap` for fused stateless functions, `Exchange` and `Forward` at the leaves.

use crate::{
    channel::Sender,
    element::{Control, Data, Element, Record},
};
use keybed_env::Waker;
use std::sync::Arc;

/// Records that a batch is filled up to before it is sent.
pub(crate) const BATCH_RECORDS: usize = 256;

/// A place to emit records and marks to; never blocks.
pub(crate) trait Output<T>: Send {
    /// Takes one record.
    fn record(&mut self, record: Record<T>);
    /// Takes a mark; everything emitted before goes before it.
    fn control(&mut self, control: Control);
    /// Sends incomplete batches on their way.
    fn flush(&mut self);
    /// Moves what waited for credit; true if nothing waits any more and further input may be taken up.
    fn drain(&mut self) -> bool;
    /// Who is woken when credit comes back.
    fn set_waker(&mut self, waker: &Waker);
}

/// Every consumer gets everything; without consumers records vanish.
pub(crate) struct Fan<T>(pub(crate) Vec<Box<dyn Output<T>>>);

impl<T: Data> Output<T> for Fan<T> {
    fn record(&mut self, record: Record<T>) {
        if let Some((last, others)) = self.0.split_last_mut() {
            for output in others {
                output.record(record.clone());
            }
            last.record(record);
        }
    }

    fn control(&mut self, control: Control) {
        self.0.iter_mut().for_each(|o| o.control(control));
    }

    fn flush(&mut self) {
        self.0.iter_mut().for_each(|o| o.flush());
    }

    fn drain(&mut self) -> bool {
        let mut all = true;
        for output in &mut self.0 {
            all &= output.drain();
        }
        all
    }

    fn set_waker(&mut self, waker: &Waker) {
        self.0.iter_mut().for_each(|o| o.set_waker(waker));
    }
}

macro_rules! pass_on {
    () => {
        fn control(&mut self, control: Control) {
            self.next.control(control);
        }

        fn flush(&mut self) {
            self.next.flush();
        }

        fn drain(&mut self) -> bool {
            self.next.drain()
        }

        fn set_waker(&mut self, waker: &Waker) {
            self.next.set_waker(waker);
        }
    };
}

/// One record in, one out.
pub(crate) struct Map<F, U> {
    pub(crate) function: Arc<F>,
    pub(crate) next: Box<dyn Output<U>>,
}

impl<T, U, F: Fn(T) -> U + Send + Sync> Output<T> for Map<F, U> {
    fn record(&mut self, record: Record<T>) {
        let Record { timestamp, value } = record;
        self.next.record(Record {
            timestamp,
            value: (self.function)(value),
        });
    }
    pass_on!();
}

/// Lets some records through.
pub(crate) struct Filter<F, T> {
    pub(crate) predicate: Arc<F>,
    pub(crate) next: Box<dyn Output<T>>,
}

impl<T, F: Fn(&T) -> bool + Send + Sync> Output<T> for Filter<F, T> {
    fn record(&mut self, record: Record<T>) {
        if (self.predicate)(&record.value) {
            self.next.record(record);
        }
    }
    pass_on!();
}

/// One record in, any number out.
pub(crate) struct FlatMap<F, U> {
    pub(crate) function: Arc<F>,
    pub(crate) next: Box<dyn Output<U>>,
}

impl<T, U, I: IntoIterator<Item = U>, F: Fn(T) -> I + Send + Sync> Output<T> for FlatMap<F, U> {
    fn record(&mut self, record: Record<T>) {
        let Record { timestamp, value } = record;
        for value in (self.function)(value) {
            self.next.record(Record { timestamp, value });
        }
    }
    pass_on!();
}

/// One batch under construction for one channel.
struct Lane<T> {
    sender: Sender<T>,
    batch: Vec<Record<T>>,
}

impl<T> Lane<T> {
    fn record(&mut self, record: Record<T>) {
        self.batch.push(record);
        if self.batch.len() >= BATCH_RECORDS {
            self.flush();
        }
    }

    fn flush(&mut self) {
        if !self.batch.is_empty() {
            self.sender.send(Element::Batch(std::mem::take(&mut self.batch)));
        }
    }
}

/// To one of several channels, chosen by the record; marks go to all.
pub(crate) struct Exchange<T, C> {
    lanes: Vec<Lane<T>>,
    choose: C,
}

impl<T, C> Exchange<T, C> {
    /// `choose` gives the index of the channel.
    pub(crate) fn new(senders: Vec<Sender<T>>, choose: C) -> Self {
        let lanes = senders
            .into_iter()
            .map(|sender| Lane {
                sender,
                batch: Vec::new(),
            })
            .collect();
        Exchange { lanes, choose }
    }
}

impl<T: Send, C: FnMut(&T) -> usize + Send> Output<T> for Exchange<T, C> {
    fn record(&mut self, record: Record<T>) {
        let lane = (self.choose)(&record.value);
        self.lanes[lane].record(record);
    }

    fn control(&mut self, control: Control) {
        for lane in &mut self.lanes {
            lane.flush();
            lane.sender.send(Element::Control(control));
        }
    }

    fn flush(&mut self) {
        self.lanes.iter_mut().for_each(Lane::flush);
    }

    fn drain(&mut self) -> bool {
        let mut all = true;
        for lane in &mut self.lanes {
            all &= lane.sender.drain();
        }
        all
    }

    fn set_waker(&mut self, waker: &Waker) {
        self.lanes
            .iter_mut()
            .for_each(|lane| lane.sender.set_waker(waker));
    }
}
