//! Channels between the subtasks of one attempt, made when the first end asks for them.

use crate::channel::{Receiver, Sender, channel};
use std::{any::Any, collections::HashMap};

/// Number of a node in the order of the program.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct NodeId(pub(crate) usize);

/// Which subtasks of the producer reach which of the consumer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shape {
    /// Every one reaches every one.
    All,
    /// Each reaches its counterpart; both sides have equal parallelism.
    Counterpart,
}

/// A way from one node to another.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Edge {
    pub(crate) id: usize,
    pub(crate) from: NodeId,
    pub(crate) to: NodeId,
    pub(crate) shape: Shape,
}

/// Ends of the channels of one edge: `[producer][consumer]`.
struct Ends<T> {
    senders: Vec<Vec<Option<Sender<T>>>>,
    receivers: Vec<Vec<Option<Receiver<T>>>>,
}

/// All channels of one attempt.
pub(crate) struct Wiring {
    /// Subtasks by node.
    pub(crate) parallelism: Vec<u32>,
    /// Key groups of every keyed node.
    pub(crate) max_parallelism: Vec<u32>,
    edges: HashMap<usize, Box<dyn Any + Send>>,
}

impl Wiring {
    pub(crate) fn new(parallelism: Vec<u32>, max_parallelism: Vec<u32>) -> Self {
        Wiring {
            parallelism,
            max_parallelism,
            edges: HashMap::new(),
        }
    }

    fn ends<T: Send + 'static>(&mut self, edge: Edge) -> &mut Ends<T> {
        let (from, to) = (
            self.parallelism[edge.from.0] as usize,
            self.parallelism[edge.to.0] as usize,
        );
        let ends = self.edges.entry(edge.id).or_insert_with(|| {
            let mut senders: Vec<Vec<Option<Sender<T>>>> = (0..from).map(|_| none(to)).collect();
            let mut receivers: Vec<Vec<Option<Receiver<T>>>> = (0..from).map(|_| none(to)).collect();
            for (f, (senders, receivers)) in senders.iter_mut().zip(&mut receivers).enumerate() {
                for t in (0..to).filter(|&t| edge.shape == Shape::All || f == t) {
                    let (sender, receiver) = channel();
                    (senders[t], receivers[t]) = (Some(sender), Some(receiver));
                }
            }
            Box::new(Ends { senders, receivers })
        });
        ends.downcast_mut()
            .unwrap_or_else(|| panic!("an edge carries one type of record"))
    }

    /// The channels out of a producing subtask, by consuming subtask. Asked for once.
    pub(crate) fn senders<T: Send + 'static>(&mut self, edge: Edge, producer: u32) -> Vec<Sender<T>> {
        self.ends(edge).senders[producer as usize]
            .iter_mut()
            .filter_map(Option::take)
            .collect()
    }

    /// The channels into a consuming subtask, by producing subtask. Asked for once.
    pub(crate) fn receivers<T: Send + 'static>(&mut self, edge: Edge, consumer: u32) -> Vec<Receiver<T>> {
        self.ends(edge)
            .receivers
            .iter_mut()
            .filter_map(|row| row[consumer as usize].take())
            .collect()
    }
}

fn none<T>(count: usize) -> Vec<Option<T>> {
    (0..count).map(|_| None).collect()
}
