//! Keyed operators: user code that sees one record at a time with the state of its key.

use crate::{
    element::{Barrier, Data, Purpose, Record},
    metrics::NodeCounters,
    output::Output,
    plan::{Build, Node, Role, SubtaskStart, Taps},
    stream::Keyed,
    task::{
        AsyncPart, Control, Shell,
        operator::{Logic, OperatorTask, OutputOf},
    },
    watermark,
    wiring::Edge,
};
use keybed_env::sched::TaskBuilder;
use keybed_format::{Code, Cursor, Error, Result, Sink};
use keybed_snapshot::{
    CheckpointId, KeyGroupRange, OperatorStateHandle, OperatorStateMode, SnapshotRequest, StateCatalogue,
    SubtaskState,
};
use keybed_state::{
    BackendOptions, KeyCodec, KeyedState, StateAccess, StateRegistry, backend::BackendStats, catalogue,
};
use std::sync::Arc;

/// User code with keyed state and event-time timers.
///
/// One instance per subtask; it is dropped and opened anew when the job restarts, so everything that must last
/// belongs into states.
pub trait KeyedOperator: Send + 'static {
    /// The key that the stream is grouped by.
    type Key: KeyCodec + Data;
    /// What comes in.
    type In: Data;
    /// What goes out.
    type Out: Data;

    /// Takes one record of `key`.
    ///
    /// # Errors
    /// An error fails the attempt; the job restarts from its last checkpoint as its restart strategy says.
    fn process(&mut self, key: &Self::Key, value: Self::In, ctx: &mut Context<'_, Self::Out>) -> Result;

    /// A timer of `key` is due: the watermark has reached `time`. A timer at `i64::MAX` fires at the end of input.
    ///
    /// # Errors
    /// As [`KeyedOperator::process`].
    fn on_timer(&mut self, _key: &Self::Key, _time: i64, _ctx: &mut Context<'_, Self::Out>) -> Result {
        Ok(())
    }
}

/// What an operator may use while it handles a record or timer: state of the current key, timers, output, time.
pub struct Context<'a, Out> {
    state: &'a mut KeyedState,
    output: &'a mut dyn Output<Out>,
    counters: &'a NodeCounters,
    timestamp: i64,
    watermark: i64,
}

impl<Out> StateAccess for Context<'_, Out> {
    fn keyed(&mut self) -> &mut KeyedState {
        self.state
    }
}

impl<Out> Context<'_, Out> {
    /// Sends a value on its way, with the timestamp of the record or timer being handled.
    pub fn emit(&mut self, value: Out) {
        self.output.record(Record {
            timestamp: self.timestamp,
            value,
        });
    }

    /// Sends a value on its way with a timestamp of its own.
    pub fn emit_at(&mut self, timestamp: i64, value: Out) {
        self.output.record(Record { timestamp, value });
    }

    /// Event time of the record or timer being handled, in milliseconds since 1970-01-01T00:00:00Z.
    pub fn timestamp(&self) -> i64 {
        self.timestamp
    }

    /// No record with a timestamp at or below is expected any more.
    pub fn watermark(&self) -> i64 {
        self.watermark
    }

    /// Has [`KeyedOperator::on_timer`] called for the current key once the watermark reaches `time`; registering
    /// the same time twice fires once.
    ///
    /// # Errors
    /// Those of writing state.
    pub fn register_event_timer(&mut self, time: i64) -> Result {
        self.state.register_timer(time, &[]).map(drop)
    }

    /// Takes a timer of the current key back.
    ///
    /// # Errors
    /// Those of writing state.
    pub fn delete_event_timer(&mut self, time: i64) -> Result {
        self.state.delete_timer(time, &[]).map(drop)
    }

    /// Counts a record that came too late and is dropped.
    pub fn count_late(&mut self) {
        NodeCounters::add(&self.counters.late, 1);
    }
}

/// How user code is made anew for every subtask.
type Open<Op> = Box<dyn Fn(&mut StateRegistry) -> Result<Op> + Send + Sync>;

/// The node of a keyed operator.
pub(crate) struct KeyedNode<Op: KeyedOperator> {
    open: Arc<Open<Op>>,
    input: Edge,
    output: Arc<Taps<Op::Out>>,
}

impl<Op: KeyedOperator> KeyedNode<Op> {
    pub(crate) fn new(
        open: impl Fn(&mut StateRegistry) -> Result<Op> + Send + Sync + 'static,
        input: Edge,
        output: Arc<Taps<Op::Out>>,
    ) -> Self {
        KeyedNode {
            open: Arc::new(Box::new(open)),
            input,
            output,
        }
    }
}

impl<Op: KeyedOperator> Node for KeyedNode<Op> {
    fn role(&self) -> Role {
        Role::Stateful
    }

    fn declare(&self, restored: &StateCatalogue) -> Result<Arc<StateCatalogue>, Vec<Error>> {
        catalogue::open(&Op::Key::key_schema(), restored, &*self.open).map(|(_, catalogue)| catalogue)
    }

    fn build(&self, build: Build<'_>) -> Result<TaskBuilder> {
        let Build {
            seed,
            place,
            catalogue,
            restore,
            wiring,
        } = build;
        let (node, subtask) = (self.input.to.0, seed.subtask);
        let max_parallelism = wiring.max_parallelism[node];
        let backend = place.options.backend.options(place, node, &seed);
        let logic = KeyedLogic::<Op> {
            open: self.open.clone(),
            alive: None,
            catalogue,
            range: KeyGroupRange::of_subtask(max_parallelism, seed.parallelism, subtask)?,
            max_parallelism,
            backend: Some(backend),
            restore: Some(restore),
            counters: seed.counters.clone(),
            counted: BackendStats::default(),
            key: Sink::new(),
        };
        let (inputs, output) = (
            wiring.receivers(self.input, subtask),
            self.output.output(wiring, subtask),
        );
        let task = OperatorTask::new(inputs, logic, output, seed.settled);
        Ok(Shell::builder(seed, Box::new(task)))
    }
}

struct KeyedLogic<Op: KeyedOperator> {
    open: Arc<Open<Op>>,
    alive: Option<(Op, KeyedState)>,
    catalogue: Arc<StateCatalogue>,
    range: KeyGroupRange,
    max_parallelism: u32,
    /// Until opened.
    backend: Option<BackendOptions>,
    restore: Option<SubtaskStart>,
    counters: Arc<NodeCounters>,
    /// What of the backend's counters is in there already.
    counted: BackendStats,
    key: Sink,
}

/// Operator state that remembers the watermark.
pub(crate) const WATERMARK: &str = "watermark";

impl<Op: KeyedOperator> KeyedLogic<Op> {
    fn alive(&mut self) -> Result<&mut (Op, KeyedState)> {
        self.alive
            .as_mut()
            .ok_or_else(|| Error::new(Code::Closed, "the operator is not open"))
    }
}

/// The smallest watermark that any old subtask remembers: a restored channel starts there.
fn restored_watermark(restore: &SubtaskStart) -> Result<i64> {
    let Some(operator) = &restore.operator else {
        return Ok(watermark::MIN);
    };
    let mut floor = watermark::MAX;
    for item in operator
        .subtasks
        .iter()
        .flat_map(|s| &s.operator)
        .filter(|o| o.name == WATERMARK)
    {
        for bytes in &item.items {
            let mut cursor = Cursor::new(bytes);
            let time = cursor
                .i64()
                .map_err(|e| e.recode_malformed(Code::SnapshotCorrupt))?;
            floor = floor.min(time);
        }
    }
    // The end of the input is not a time: whoever speaks again is not late.
    Ok(if floor == watermark::MAX {
        watermark::MIN
    } else {
        floor
    })
}

impl<Op: KeyedOperator> Logic for KeyedLogic<Op> {
    type In = Keyed<Op::Key, Op::In>;
    type Out = Op::Out;

    fn open(&mut self, _control: &Control) -> Result<i64> {
        let mut registry = StateRegistry::bind(&Op::Key::key_schema(), self.catalogue.clone());
        let op = (self.open)(&mut registry)?;
        let restore = self.restore.take().unwrap_or_default();
        let backend = self
            .backend
            .take()
            .ok_or_else(|| Error::new(Code::Closed, "the operator is open"))?;
        let (range, max, catalogue) = (self.range, self.max_parallelism, self.catalogue.clone());
        let state = match &restore.files {
            Some(files) if !restore.keyed.is_empty() => {
                KeyedState::restore(backend, range, max, catalogue, &restore.keyed, &**files)?
            }
            _ => KeyedState::create(backend, range, max, catalogue)?,
        };
        self.alive = Some((op, state));
        restored_watermark(&restore)
    }

    fn record(&mut self, record: Record<Self::In>, watermark: i64, out: &mut OutputOf<Self>) -> Result {
        let Record {
            timestamp,
            value: Keyed { key, value },
        } = record;
        self.key.clear();
        key.encode_key(&mut self.key);
        let (op, state) = self
            .alive
            .as_mut()
            .ok_or_else(|| Error::new(Code::Closed, "the operator is not open"))?;
        state.set_key(self.key.as_slice())?;
        let counters = &*self.counters;
        let mut ctx = Context {
            state,
            output: out,
            counters,
            timestamp,
            watermark,
        };
        op.process(&key, value, &mut ctx)
    }

    fn fire(&mut self, watermark: i64, limit: usize, out: &mut OutputOf<Self>) -> Result<bool> {
        let (op, state) = self
            .alive
            .as_mut()
            .ok_or_else(|| Error::new(Code::Closed, "the operator is not open"))?;
        for _ in 0..limit {
            let Some(timer) = state.pop_due(watermark)? else {
                return Ok(true);
            };
            let key: Op::Key = keybed_state::codec::decode_key(&timer.key)?;
            let counters = &*self.counters;
            let mut ctx = Context {
                state,
                output: &mut *out,
                counters,
                timestamp: timer.time,
                watermark,
            };
            op.on_timer(&key, timer.time, &mut ctx)?;
        }
        Ok(false)
    }

    fn prepare(
        &mut self,
        barrier: Barrier,
        watermark: i64,
        control: &Control,
        _out: &mut OutputOf<Self>,
    ) -> Result<AsyncPart> {
        let index = control.index();
        let stats = self.alive()?.1.stats();
        self.counters.add_backend(&self.counted, &stats);
        self.counted = stats;
        if control.seed.place_of.is_none() {
            return Ok(Box::new(move |_| Ok(SubtaskState::empty(index))));
        }
        let request = SnapshotRequest {
            checkpoint: barrier.checkpoint,
            kind: barrier.kind,
            timestamp_ms: barrier.timestamp_ms,
        };
        let pending = match self.alive()?.1.prepare(&request) {
            // A savepoint is not worth the task.
            Err(e) if barrier.purpose.is_savepoint() => return Ok(Box::new(move |_| Err(e.into()))),
            prepared => prepared?,
        };
        let mut item = Sink::new();
        item.i64(watermark);
        let remembered = OperatorStateHandle {
            name: WATERMARK.into(),
            mode: OperatorStateMode::Union,
            items: vec![item.into_vec()],
        };
        Ok(Box::new(move |place| {
            let place = place.ok_or_else(|| Error::new(Code::Closed, "there is no checkpoint storage"))?;
            let (keyed, new_bytes) = crate::options::write_pending(pending, place)?;
            Ok(SubtaskState {
                keyed: Some(keyed),
                operator: vec![remembered],
                new_bytes,
                ..SubtaskState::empty(index)
            })
        }))
    }

    fn on_complete(
        &mut self,
        checkpoint: CheckpointId,
        _purpose: Purpose,
        _control: &mut Control,
    ) -> Result<bool> {
        self.alive()?.1.notify_complete(checkpoint);
        Ok(true)
    }

    fn on_aborted(&mut self, checkpoint: CheckpointId, _control: &mut Control) {
        if let Some((_, state)) = &mut self.alive {
            state.notify_aborted(checkpoint);
        }
    }
}
