//! A sink's writer subtask: collects lines into parts.
//!
//! A part lies in memory until its barrier or [`PART_BYTES_MAX`], whichever is first. At a barrier its name, length
//! and digest go to the committer ahead of the barrier, and the file is written and synced in the asynchronous part;
//! a full part is written and synced at once. A part that could not be written fails the task: its lines exist
//! nowhere else.

use super::{FileSink, SinkPlace, part::Lineage, part::Part, unwritable};
use crate::{
    element::{Barrier, Data, Record},
    output::Exchange,
    plan::{Build, Node, Role},
    task::{
        AsyncFailure, AsyncPart, Control, Shell,
        operator::{Logic, OperatorTask, OutputOf},
    },
    watermark,
    wiring::Edge,
};
use keybed_env::{Fs, sched::TaskBuilder};
use keybed_format::{Error, Result, checksum};
use keybed_snapshot::{JobId, OperatorUid, SubtaskState};
use std::sync::Arc;

/// Bytes of lines that a part holds at most, plus one line: what a writer keeps in memory.
const PART_BYTES_MAX: usize = 8 << 20;

/// The node of the writers.
pub(crate) struct SinkWriterNode<T> {
    pub(crate) uid: OperatorUid,
    pub(crate) sink: Arc<FileSink<T>>,
    pub(crate) input: Edge,
    pub(crate) output: Edge,
}

impl<T: Data> Node for SinkWriterNode<T> {
    fn role(&self) -> Role {
        Role::Stateless
    }

    fn check(&self, fs: &dyn Fs, job: JobId) -> Result {
        self.sink.place.prepare(fs, job, &self.uid)
    }

    fn build(&self, build: Build<'_>) -> Result<TaskBuilder> {
        let Build {
            seed,
            place,
            restore,
            wiring,
            ..
        } = build;
        let lineage = super::committer::lineage(&restore, place.job, &self.uid)?.0;
        let logic = Writer {
            sink: self.sink.clone(),
            fs: seed.fs.clone(),
            lineage,
            lines: Vec::new(),
            bytes: 0,
            sequence: 0,
        };
        let inputs = wiring.receivers(self.input, seed.subtask);
        let output = Exchange::new(wiring.senders(self.output, seed.subtask), |_: &Part| 0_usize);
        let task = OperatorTask::new(inputs, logic, Box::new(output), seed.settled);
        Ok(Shell::builder(seed, Box::new(task)))
    }
}

struct Writer<T> {
    sink: Arc<FileSink<T>>,
    fs: Arc<dyn Fs>,
    lineage: Lineage,
    /// Lines of the part under construction.
    lines: Vec<String>,
    bytes: usize,
    sequence: u64,
}

/// A part and its content.
struct Closed {
    part: Part,
    content: Vec<u8>,
}

impl<T> Writer<T> {
    /// Closes the part under construction; `None` if it has no lines.
    fn close(&mut self, control: &Names) -> Option<Closed> {
        if self.lines.is_empty() {
            return None;
        }
        let mut lines = std::mem::take(&mut self.lines);
        if let Some(sorted) = &self.sink.place.sorted {
            let mut keyed: Vec<_> = lines
                .into_iter()
                .map(|line| ((sorted.key)(&line), line))
                .collect();
            keyed.sort_unstable();
            lines = keyed.into_iter().map(|(_, line)| line).collect();
        }
        let mut content = Vec::with_capacity(self.bytes);
        for line in &lines {
            content.extend_from_slice(line.as_bytes());
            content.push(b'\n');
        }
        self.bytes = 0;
        let name = self.lineage.name(control.subtask, control.attempt, self.sequence);
        self.sequence += 1;
        let part = Part {
            name,
            length: content.len() as u64,
            digest: checksum::hash(&content),
            lines: lines.len() as u64,
        };
        Some(Closed { part, content })
    }
}

/// What names are made of.
struct Names {
    subtask: u32,
    attempt: u64,
}

impl Closed {
    /// Writes the file and makes it durable, name included.
    fn store(&self, fs: &dyn Fs, place: &SinkPlace) -> Result {
        let path = place.pending().join(&self.part.name);
        let write = || {
            let mut file = place.in_folders(fs, || fs.create(&path))?;
            file.append(&self.content)?;
            file.sync()?;
            drop(file);
            fs.sync_dir(&place.pending())
        };
        write().map_err(|e| unwritable(e, &path))
    }
}

impl<T: Data> Logic for Writer<T> {
    type In = T;
    type Out = Part;

    fn open(&mut self, _control: &Control) -> Result<i64> {
        Ok(watermark::MIN)
    }

    fn record(&mut self, record: Record<T>, _watermark: i64, _out: &mut OutputOf<Self>) -> Result {
        let line = (self.sink.line)(&record.value);
        if line.contains(['\n', '\r']) {
            return Err(
                Error::invalid("a line to be written holds a line end").with("line", line.escape_debug())
            );
        }
        self.bytes += line.len() + 1;
        self.lines.push(line);
        Ok(())
    }

    fn is_full(&self) -> bool {
        self.bytes >= PART_BYTES_MAX
    }

    fn relieve(&mut self, control: &Control, out: &mut OutputOf<Self>) -> Result {
        let names = Names {
            subtask: control.seed.subtask,
            attempt: control.seed.attempt,
        };
        if let Some(closed) = self.close(&names) {
            closed.store(&*self.fs, &self.sink.place)?;
            out.record(Record {
                timestamp: 0,
                value: closed.part,
            });
        }
        Ok(())
    }

    fn prepare(
        &mut self,
        _barrier: Barrier,
        _watermark: i64,
        control: &Control,
        out: &mut OutputOf<Self>,
    ) -> Result<AsyncPart> {
        let names = Names {
            subtask: control.seed.subtask,
            attempt: control.seed.attempt,
        };
        let closed = self.close(&names);
        if let Some(closed) = &closed {
            out.record(Record {
                timestamp: 0,
                value: closed.part.clone(),
            });
        }
        let (fs, place, index) = (self.fs.clone(), self.sink.place.clone(), control.index());
        Ok(Box::new(move |_| {
            if let Some(closed) = closed {
                closed.store(&*fs, &place).map_err(AsyncFailure::Fail)?;
            }
            Ok(SubtaskState::empty(index))
        }))
    }
}
