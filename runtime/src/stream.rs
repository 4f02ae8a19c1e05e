//! Streams: how a program attaches functions, operators and sinks to what flows.

use crate::{
    element::{Data, Record},
    operator::{KeyedNode, KeyedOperator},
    output::{Exchange, Filter, FlatMap, Map, Output},
    plan::{Plan, Taps},
    sink::{FileSink, SinkCommitterNode, SinkWriterNode},
    window::{Aggregate, Tumbling, WindowOperator},
    wiring::{Edge, NodeId, Shape, Wiring},
};
use keybed_env::Waker;
use keybed_format::{Result, Sink};
use keybed_snapshot::key_group_of;
use keybed_state::{KeyCodec, StateRegistry};
use parking_lot::Mutex;
use std::sync::Arc;

/// Records of type `T` on their way; clones are the same stream, and every consumer gets every record.
///
/// Functions (`map`, `filter`, `flat_map`) run inside the task that produces the stream. They must be pure: after a
/// failure records are processed again.
pub struct Stream<T> {
    plan: Arc<Mutex<Plan>>,
    node: NodeId,
    taps: Arc<Taps<T>>,
}

impl<T> Clone for Stream<T> {
    fn clone(&self) -> Self {
        Stream {
            plan: self.plan.clone(),
            node: self.node,
            taps: self.taps.clone(),
        }
    }
}

impl<T: Data> Stream<T> {
    pub(crate) fn new(plan: Arc<Mutex<Plan>>, node: NodeId, taps: Arc<Taps<T>>) -> Self {
        Stream { plan, node, taps }
    }

    /// Replaces each value; timestamps stay.
    pub fn map<U: Data>(&self, function: impl Fn(T) -> U + Send + Sync + 'static) -> Stream<U> {
        let function = Arc::new(function);
        self.chain(move |next| {
            Box::new(Map {
                function: function.clone(),
                next,
            })
        })
    }

    /// Keeps the values for which `predicate` holds.
    pub fn filter(&self, predicate: impl Fn(&T) -> bool + Send + Sync + 'static) -> Stream<T> {
        let predicate = Arc::new(predicate);
        self.chain(move |next| {
            Box::new(Filter {
                predicate: predicate.clone(),
                next,
            })
        })
    }

    /// Replaces each value by any number of values (an `Option` is one way to say 0 or 1); timestamps stay.
    pub fn flat_map<U: Data, I: IntoIterator<Item = U> + 'static>(
        &self,
        function: impl Fn(T) -> I + Send + Sync + 'static,
    ) -> Stream<U> {
        let function = Arc::new(function);
        self.chain(move |next| {
            Box::new(FlatMap {
                function: function.clone(),
                next,
            })
        })
    }

    fn chain<U: Data>(
        &self,
        link: impl Fn(Box<dyn Output<U>>) -> Box<dyn Output<T>> + Send + Sync + 'static,
    ) -> Stream<U> {
        let taps = Taps::new();
        let next = taps.clone();
        self.taps.push(Box::new(move |wiring, subtask| {
            link(next.output(wiring, subtask))
        }));
        Stream::new(self.plan.clone(), self.node, taps)
    }

    /// Groups records by key: all records of one key reach the same subtask of the operator that follows.
    pub fn key_by<K: KeyCodec + Data>(
        &self,
        key: impl Fn(&T) -> K + Send + Sync + 'static,
    ) -> KeyedStream<K, T> {
        KeyedStream {
            stream: self.clone(),
            key: Arc::new(key),
        }
    }

    /// Ends the stream in files, exactly once. The uid names the sink's state in snapshots.
    pub fn sink(&self, uid: &str, sink: FileSink<T>) {
        let sink = Arc::new(sink);
        let mut plan = self.plan.lock();
        let uid = plan.uid(uid);
        let (writer, committer) = (plan.reserve(), plan.reserve());
        let lines = plan.edge(self.node, writer, Shape::Counterpart);
        let parts = plan.edge(writer, committer, Shape::All);
        let writer_node = SinkWriterNode {
            uid: uid.clone(),
            sink: sink.clone(),
            input: lines,
            output: parts,
        };
        plan.put(writer, uid.clone(), Arc::new(writer_node));
        plan.put(
            committer,
            uid.clone(),
            Arc::new(SinkCommitterNode {
                uid,
                place: sink.place(),
                input: parts,
            }),
        );
        drop(plan);
        let to_writer = move |wiring: &mut Wiring, subtask| {
            Box::new(Exchange::new(wiring.senders(lines, subtask), |_: &T| 0_usize)) as Box<dyn Output<T>>
        };
        self.taps.push(Box::new(to_writer));
    }
}

/// A value on its way to the subtask that owns its key.
#[derive(Clone, Debug)]
pub(crate) struct Keyed<K, T> {
    pub(crate) key: K,
    pub(crate) value: T,
}

/// A stream whose records are grouped by key.
pub struct KeyedStream<K, T> {
    stream: Stream<T>,
    key: Arc<dyn Fn(&T) -> K + Send + Sync>,
}

impl<K, T> Clone for KeyedStream<K, T> {
    fn clone(&self) -> Self {
        KeyedStream {
            stream: self.stream.clone(),
            key: self.key.clone(),
        }
    }
}

impl<K: KeyCodec + Data, T: Data> KeyedStream<K, T> {
    /// Processes each record with the state of its key. `open` declares the states; it runs once before the job
    /// starts and once on every subtask. The uid names the operator's state in snapshots for ever.
    pub fn operator<Op>(
        &self,
        uid: &str,
        open: impl Fn(&mut StateRegistry) -> Result<Op> + Send + Sync + 'static,
    ) -> Stream<Op::Out>
    where
        Op: KeyedOperator<Key = K, In = T>,
    {
        let plan = &self.stream.plan;
        let taps = Taps::new();
        let (node, edge) = {
            let mut plan = plan.lock();
            let uid = plan.uid(uid);
            let node = plan.reserve();
            let edge = plan.edge(self.stream.node, node, Shape::All);
            plan.put(node, uid, Arc::new(KeyedNode::new(open, edge, taps.clone())));
            (node, edge)
        };
        let key = self.key.clone();
        self.stream.taps.push(Box::new(move |wiring, subtask| {
            Box::new(by_key(wiring, edge, subtask, key.clone()))
        }));
        Stream::new(plan.clone(), node, taps)
    }

    /// Aggregates each key's records per tumbling event-time window; one result when the window is over. Records
    /// that come later than that are dropped and counted.
    pub fn window<A>(&self, uid: &str, windows: Tumbling, aggregate: A) -> Stream<A::Out>
    where
        A: Aggregate<Key = K, In = T>,
    {
        let aggregate = Arc::new(aggregate);
        self.operator(uid, move |states| {
            WindowOperator::open(states, windows, aggregate.clone())
        })
    }
}

/// Finds the key, then the subtask that owns it.
struct ByKey<K, T, C> {
    key: Arc<dyn Fn(&T) -> K + Send + Sync>,
    exchange: Exchange<Keyed<K, T>, C>,
}

fn by_key<K: KeyCodec + Data, T: Data>(
    wiring: &mut Wiring,
    edge: Edge,
    subtask: u32,
    key: Arc<dyn Fn(&T) -> K + Send + Sync>,
) -> impl Output<T> + use<K, T> {
    let (max, parallelism) = (wiring.max_parallelism[edge.to.0], wiring.parallelism[edge.to.0]);
    let mut component = Sink::new();
    let choose = move |keyed: &Keyed<K, T>| {
        component.clear();
        keyed.key.encode_key(&mut component);
        key_group_of(component.as_slice(), max).subtask(max, parallelism) as usize
    };
    ByKey {
        key,
        exchange: Exchange::new(wiring.senders(edge, subtask), choose),
    }
}

impl<K: Send, T: Send, C: FnMut(&Keyed<K, T>) -> usize + Send> Output<T> for ByKey<K, T, C> {
    fn record(&mut self, record: Record<T>) {
        let Record { timestamp, value } = record;
        let key = (self.key)(&value);
        self.exchange.record(Record {
            timestamp,
            value: Keyed { key, value },
        });
    }

    fn control(&mut self, control: crate::element::Control) {
        self.exchange.control(control);
    }

    fn flush(&mut self) {
        self.exchange.flush();
    }

    fn drain(&mut self) -> bool {
        self.exchange.drain()
    }

    fn set_waker(&mut self, waker: &Waker) {
        self.exchange.set_waker(waker);
    }
}
