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
//! | [`options`], [`mod@restore`], [`check`], [`event`], [`job`] | how it is started, watched, stopped |
//! | `server` (feature) | the control endpoint: HTTP on the loopback interface |
//! | [`element`], `channel`, `output`, `wiring` | what flows, and through what |
//! | `task` | one subtask, stepped by the scheduler |
//! | [`align`], [`watermark`], [`coordinator`], [`restart`] | the decisions, as pure state machines |
//!
//! ```
//! use keybed_runtime::{
//!     Backend, Context, FileSink, JobOptions, KeyedOperator, Pipeline, Polled, Source, SourceReader, SplitStart,
//! };
//! use keybed_state::{StateRegistry, ValueState};
//! use keybed_format::Result;
//! use std::sync::Arc;
//!
//! /// Numbers below 100, in one split that can be read again from any position.
//! struct Numbers;
//! struct Reader(u64, u64);
//!
//! impl Source for Numbers {
//!     type Record = u64;
//!     fn splits(&self) -> u32 {
//!         1
//!     }
//!     fn open(&self, _: &Arc<dyn keybed_env::Fs>, splits: &[SplitStart]) -> Result<Box<dyn SourceReader<u64>>> {
//!         Ok(Box::new(splits.first().map_or(Reader(100, 100), |split| Reader(split.position, 100))))
//!     }
//! }
//!
//! impl SourceReader<u64> for Reader {
//!     fn poll_next(&mut self) -> Result<Polled<u64>> {
//!         let value = self.0;
//!         if value == self.1 {
//!             return Ok(Polled::End);
//!         }
//!         self.0 += 1;
//!         Ok(Polled::Record { split: 0, next: self.0, timestamp: value as i64, value })
//!     }
//! }
//!
//! /// The sum of each last digit, emitted at the end of the input.
//! struct Sums(ValueState<u64>);
//!
//! impl KeyedOperator for Sums {
//!     type Key = u64;
//!     type In = u64;
//!     type Out = String;
//!
//!     fn process(&mut self, _digit: &u64, value: u64, ctx: &mut Context<'_, String>) -> Result {
//!         self.0.update(ctx, |sum| sum.unwrap_or(0) + value)?;
//!         ctx.register_event_timer(i64::MAX)
//!     }
//!
//!     fn on_timer(&mut self, digit: &u64, _time: i64, ctx: &mut Context<'_, String>) -> Result {
//!         let sum = self.0.get(ctx)?.unwrap_or(0);
//!         ctx.emit(format!("{digit},{sum}"));
//!         Ok(())
//!     }
//! }
//!
//! # let dir = tempfile::tempdir().expect("a temporary directory");
//! # let dir = dir.path();
//! let mut pipeline = Pipeline::new("sums");
//! pipeline
//!     .source("numbers", Numbers)
//!     .key_by(|n| n % 10)
//!     .operator("sums", |states: &mut StateRegistry| Ok(Sums(states.value("sum")?)))
//!     .sink(
//!         "sums-out",
//!         FileSink::new(dir, |line: &String| line.clone()).sorted_file("sums.csv", "digit,sum", str::to_owned),
//!     );
//! let options =
//!     JobOptions { parallelism: 2, backend: Backend::Heap, work_dir: dir.join("work"), ..JobOptions::default() };
//! pipeline.start(options)?.wait()?;
//! assert!(std::fs::read_to_string(dir.join("sums.csv")).unwrap().starts_with("digit,sum\n0,450\n1,460\n"));
//! # Ok::<(), keybed_format::Error>(())
//! ```
#![forbid(unsafe_code)]

pub mod align;
mod channel;
pub mod check;
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
pub mod restore;
#[cfg(feature = "server")]
pub mod server;
pub mod sink;
pub mod source;
pub mod stream;
mod task;
pub mod watermark;
pub mod window;
mod wiring;

pub use check::{CheckReport, CheckedSnapshot, OperatorCheck, OperatorStanding, RestoreWarning};
pub use element::{CheckpointScope, Data, Purpose, Record, SavepointFormat};
pub use event::{JobEvent, JobReport, Outcome, SplitOffset};
pub use job::{
    CheckpointTicket, Job, JobHandle, JobState, SavepointOptions, SavepointReport, SavepointTicket,
};
pub use keybed_snapshot::{ClaimMode, OperatorUid};
pub use metrics::NodeMetrics;
pub use operator::{Context, KeyedOperator};
pub use options::{Backend, Checkpoints, JobOptions, OnEvent};
pub use pipeline::Pipeline;
pub use restart::RestartStrategy;
pub use restore::{AllowNonRestored, Restore};
pub use sink::FileSink;
pub use source::{Polled, Source, SourceReader, SplitStart};
pub use stream::{KeyedStream, Stream};
pub use window::{Aggregate, Tumbling, Window};
