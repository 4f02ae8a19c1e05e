//! Mails to a task: small, rare messages beside the channels (triggers, completions, outcomes of jobs).
//!
//! Bounded by the protocol rather than by a number: a coordinator sends a task at most three mails per checkpoint
//! and one cancellation per attempt, a task sends the driver at most one answer to each, and every background job
//! sends one outcome.

use keybed_env::Waker;
use parking_lot::Mutex;
use std::{collections::VecDeque, sync::Arc};

#[derive(Debug)]
struct State<M> {
    mails: VecDeque<M>,
    waker: Option<Waker>,
}

/// A mailbox with any number of senders; clones are the same box.
#[derive(Debug)]
pub(crate) struct Mailbox<M>(Arc<Mutex<State<M>>>);

impl<M> Clone for Mailbox<M> {
    fn clone(&self) -> Self {
        Mailbox(self.0.clone())
    }
}

impl<M> Mailbox<M> {
    pub(crate) fn new() -> Self {
        Mailbox(Arc::new(Mutex::new(State {
            mails: VecDeque::new(),
            waker: None,
        })))
    }

    /// Who reads the box.
    pub(crate) fn set_waker(&self, waker: &Waker) {
        self.0.lock().waker = Some(waker.clone());
    }

    /// Puts a mail in and wakes the reader.
    pub(crate) fn post(&self, mail: M) {
        let waker = {
            let mut state = self.0.lock();
            state.mails.push_back(mail);
            state.waker.clone()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// The oldest mail.
    pub(crate) fn take(&self) -> Option<M> {
        self.0.lock().mails.pop_front()
    }
}
