//! Bounded channels between two tasks: one producer, one consumer, credit in records.
//!
//! ```text
//!   Sender ── overdraft ──▶ [ queue: ELEMENTS_MAX entries, RECORDS_MAX records ] ──▶ Receiver
//!      ▲                                                                                │
//!      └────────────────────── wake when starved ◀── pop ───────────────────────────────┘
//! ```
//! Sending never blocks: what finds no credit waits, in order, in the sender's *overdraft*. A task whose outputs
//! hold an overdraft takes up no further input, so the overdraft is bounded by what one step emits.
//!
//! The two flags that make waiting safe: a sender that found no credit sets `starved`, then tries once more; a
//! receiver that popped reads `starved` after it. Both sides fence in between, so one of them sees the other.

use crate::element::Element;
use crossbeam_queue::ArrayQueue;
use keybed_env::Waker;
use parking_lot::Mutex;
use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering, fence},
    },
};

/// Entries of a channel's queue.
pub(crate) const ELEMENTS_MAX: usize = 64;
/// Records that may wait in a channel; one batch more where the last one crosses the line.
pub(crate) const RECORDS_MAX: usize = 4096;

#[derive(Debug)]
struct Shared<T> {
    queue: ArrayQueue<Element<T>>,
    /// Records in the queue: added by the sender before the push, taken off by the receiver after the pop.
    records: AtomicUsize,
    starved: AtomicBool,
    wakers: Mutex<Wakers>,
}

#[derive(Debug, Default)]
struct Wakers {
    sender: Option<Waker>,
    receiver: Option<Waker>,
}

/// The producing end.
#[derive(Debug)]
pub(crate) struct Sender<T> {
    shared: Arc<Shared<T>>,
    overdraft: VecDeque<Element<T>>,
}

/// The consuming end.
#[derive(Debug)]
pub(crate) struct Receiver<T> {
    shared: Arc<Shared<T>>,
}

/// A new channel.
pub(crate) fn channel<T>() -> (Sender<T>, Receiver<T>) {
    let shared = Arc::new(Shared {
        queue: ArrayQueue::new(ELEMENTS_MAX),
        records: AtomicUsize::new(0),
        starved: AtomicBool::new(false),
        wakers: Mutex::default(),
    });
    (
        Sender {
            shared: shared.clone(),
            overdraft: VecDeque::new(),
        },
        Receiver { shared },
    )
}

impl<T> Sender<T> {
    /// Who is to be woken when credit comes back.
    pub(crate) fn set_waker(&mut self, waker: &Waker) {
        self.shared.wakers.lock().sender = Some(waker.clone());
    }

    /// Sends in order; never blocks.
    pub(crate) fn send(&mut self, element: Element<T>) {
        self.overdraft.push_back(element);
        self.drain();
    }

    /// Moves the overdraft into the queue; true if nothing is left of it.
    pub(crate) fn drain(&mut self) -> bool {
        if self.overdraft.is_empty() {
            return true;
        }
        let mut pushed = self.push_all();
        if !self.overdraft.is_empty() {
            self.shared.starved.store(true, Ordering::Relaxed);
            // Pairs with the fence in `Receiver::pop`.
            fence(Ordering::SeqCst);
            pushed |= self.push_all();
        }
        if pushed {
            let waker = self.shared.wakers.lock().receiver.clone();
            if let Some(waker) = waker {
                waker.wake();
            }
        }
        self.overdraft.is_empty()
    }

    fn push_all(&mut self) -> bool {
        let mut pushed = false;
        while let Some(element) = self.overdraft.pop_front() {
            let records = element.records();
            // Marks need no credit; batches need some left.
            if records > 0 && self.shared.records.load(Ordering::Acquire) >= RECORDS_MAX {
                self.overdraft.push_front(element);
                break;
            }
            self.shared.records.fetch_add(records, Ordering::AcqRel);
            if let Err(element) = self.shared.queue.push(element) {
                self.shared.records.fetch_sub(records, Ordering::AcqRel);
                self.overdraft.push_front(element);
                break;
            }
            pushed = true;
        }
        pushed
    }
}

impl<T> Receiver<T> {
    /// Who is to be woken when something arrives. The lock orders it before every later push.
    pub(crate) fn set_waker(&mut self, waker: &Waker) {
        self.shared.wakers.lock().receiver = Some(waker.clone());
    }

    /// The oldest entry.
    pub(crate) fn pop(&mut self) -> Option<Element<T>> {
        let element = self.shared.queue.pop()?;
        self.shared.records.fetch_sub(element.records(), Ordering::AcqRel);
        // Pairs with the fence in `Sender::drain`.
        fence(Ordering::SeqCst);
        if self.shared.starved.load(Ordering::Relaxed) && self.shared.starved.swap(false, Ordering::AcqRel) {
            let waker = self.shared.wakers.lock().sender.clone();
            if let Some(waker) = waker {
                waker.wake();
            }
        }
        Some(element)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::element::{Control, Record};
    use keybed_env::{Scheduler, Step, Task, ThreadScheduler};
    use std::time::Duration;

    fn batch(values: std::ops::Range<u64>) -> Element<u64> {
        Element::Batch(values.map(|value| Record { timestamp: 0, value }).collect())
    }

    #[test]
    fn what_finds_no_credit_waits_in_order() {
        let (mut sender, mut receiver) = channel();
        let mut sent = 0;
        while sender.overdraft.is_empty() {
            sender.send(batch(sent..sent + 1000));
            sent += 1000;
        }
        assert_eq!(sent as usize, RECORDS_MAX.next_multiple_of(1000) + 1000);
        sender.send(Element::Control(Control::Watermark(1)));
        sender.send(batch(sent..sent + 1));
        let mut next = 0;
        let mut marks = Vec::new();
        loop {
            match receiver.pop() {
                Some(Element::Batch(records)) => {
                    for r in records {
                        assert_eq!(r.value, next);
                        next += 1;
                    }
                }
                Some(Element::Control(_)) => marks.push(next),
                None if sender.overdraft.is_empty() => break,
                None => {
                    sender.drain();
                }
            }
        }
        assert_eq!((next, marks), (sent + 1, vec![sent]));
    }

    struct Producer(Sender<u64>, u64, u64);
    impl Task for Producer {
        fn step(&mut self) -> Step {
            if !self.0.drain() {
                return Step::Park(None);
            }
            if self.1 >= self.2 {
                return Step::Done;
            }
            let n = (self.2 - self.1).min(97);
            self.0.send(batch(self.1..self.1 + n));
            self.1 += n;
            Step::Again
        }
    }

    struct Consumer(Receiver<u64>, u64, u64);
    impl Task for Consumer {
        fn step(&mut self) -> Step {
            let Some(element) = self.0.pop() else {
                return Step::Park(None);
            };
            let Element::Batch(records) = element else {
                panic!("only batches were sent")
            };
            for r in records {
                assert_eq!(r.value, self.1);
                self.1 += 1;
            }
            if self.1 == self.2 { Step::Done } else { Step::Again }
        }
    }

    #[test]
    fn no_wake_is_lost_between_two_threads() {
        let scheduler = ThreadScheduler::new(1);
        for n in [1, 1000, 500_000] {
            let (sender, receiver) = channel();
            let build = move |waker: Waker| {
                let mut producer = Producer(sender, 0, n);
                producer.0.set_waker(&waker);
                Box::new(producer) as Box<dyn Task>
            };
            let a = scheduler.spawn("producer", Box::new(build));
            let build = move |waker: Waker| {
                let mut consumer = Consumer(receiver, 0, n);
                consumer.0.set_waker(&waker);
                Box::new(consumer) as Box<dyn Task>
            };
            let b = scheduler.spawn("consumer", Box::new(build));
            let end = Some(keybed_env::sched::TaskEnd::Done);
            assert_eq!(
                (b.wait(Duration::from_secs(60)), a.wait(Duration::from_secs(60))),
                (end.clone(), end)
            );
        }
    }
}
