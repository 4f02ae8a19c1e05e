//! The barrier-aligned operator runtime: streams, keyed operators, checkpoints, exactly-once sinks.
//!
//! ```text
//!   Pipeline ── start ──▶ Job ── driver ─┬─ coordinator   when checkpoints are taken      (pure)
//!                                        ├─ restarts      whether and when to start again (pure)
//!                                        └─ attempt       the tasks between two restarts
//!   source task ──▶ exchange ──▶ operator task ──▶ sink writer ──▶ sink committer
//! ```
//!
//! | file | idea |
//! |---|---|
//! | [`pipeline`], [`stream`] | how a program is written down |
//! | [`source`], [`operator`], [`window`], [`sink`] | what it is made of |
//! | [`options`], [`event`], [`job`] | how it is started, watched, stopped |
//! | [`element`], `channel`, `output`, `wiring` | what flows, and through what |
//! | `task` | one subtask, stepped by the scheduler |
//! | [`align`], [`watermark`], [`coordinator`], [`restart`] | the decisions, as pure state machines |
#![forbid(unsafe_code)]

pub mod align;
mod channel;
pub mod coordinator;
pub mod element;
pub mod event;
pub mod job;
mod mailbox;
pub mod metrics;
pub mod operator;
pub mod options;
mod output;
pub mod pipeline;
mod plan;
mod promise;
pub mod restart;
pub mod sink;
pub mod source;
pub mod stream;
mod task;
pub mod watermark;
pub mod window;
mod wiring;

pub use element::{Data, Purpose, Record};
pub use event::{JobEvent, JobReport, Outcome, SplitOffset};
pub use job::{CheckpointTicket, Job};
pub use metrics::NodeMetrics;
pub use operator::{Context, KeyedOperator};
pub use options::{Backend, Checkpoints, JobOptions};
pub use pipeline::Pipeline;
pub use restart::RestartStrategy;
pub use sink::FileSink;
pub use source::{Polled, Source, SourceReader, SplitStart};
pub use stream::{KeyedStream, Stream};
pub use window::{Aggregate, Tumbling, Window};
