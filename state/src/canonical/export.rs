//! From the logical content of a backend to the entries of a canonical file.
//!
//! ```text
//!   four scans in stored order ──by (key group, state)──▶ key-first states ────────────────────▶ writer
//!                                                         others ─▶ lengths, sort by key first ─▶ writer
//! ```
//! Lists leave their chunks here: the file holds elements.

use super::{
    header::CanonicalHeader,
    layout::{Layout, Parts, TIME_BYTES},
    sort::Sorter,
    writer::CanonicalWriter,
};
use crate::{
    StateFamily,
    backend::ContentScan,
    current::{PREFIX_BYTES, TIMERS},
    processor::{OpenList, state_of},
};
use keybed_format::{Code, Cursor, Error, Result, Sink};
use keybed_snapshot::{KeyGroup, StateId, StateKind};

/// Bytes of a chunk id.
const CHUNK_ID_BYTES: usize = 8;

/// Writes everything in `scans` (by [`StateFamily::ALL`]).
///
/// # Errors
/// `SnapshotCorrupt` if an entry is none that keyed state writes; errors of scans, sorter and writer.
pub(super) fn export(
    header: &CanonicalHeader,
    scans: [Box<dyn ContentScan + '_>; 4],
    sorter: &mut Sorter<'_>,
    writer: &mut CanonicalWriter<'_>,
) -> Result {
    let mut streams = Vec::new();
    for (family, scan) in StateFamily::ALL.into_iter().zip(scans) {
        let mut stream = Stream {
            family,
            scan,
            prefix: [0; PREFIX_BYTES],
            done: false,
        };
        stream.step()?;
        streams.push(stream);
    }
    let layouts = header.catalogue.entries().iter();
    let layouts: Vec<_> = layouts.map(|entry| Layout::of(&entry.state)).collect();
    loop {
        // Every state lies in one family, so the smallest prefix names the stream that has all of its entries.
        let live = streams.iter_mut().filter(|stream| !stream.done);
        let Some(stream) = live.min_by_key(|stream| stream.prefix) else {
            return Ok(());
        };
        let [high, low, id @ ..] = stream.prefix;
        let group = KeyGroup(u16::from_be_bytes([high, low]));
        if !header.range.contains(group) {
            return Err(corrupt("an entry belongs to no key group of its subtask").with("group", group.0));
        }
        let mut state = StateExport {
            group,
            id: StateId(0),
            kind: StateKind::Timer,
            layout: &Layout::AsStored,
            dropped: false,
            list: OpenList::default(),
        };
        let id = StateId(u16::from_be_bytes(id));
        if id != TIMERS {
            let known = state_of(&header.catalogue, stream.family, id)?;
            (state.id, state.kind, state.dropped) = (id, known.state.kind, known.dropped);
            state.layout = &layouts[usize::from(id.0) - 1];
        } else if stream.family != StateFamily::Timer {
            return Err(corrupt("a timer lies in a family of states"));
        }
        state.run(stream, sorter, writer)?;
    }
}

fn corrupt(message: &str) -> Error {
    Error::new(Code::SnapshotCorrupt, message)
}

/// A scan that stands on its next entry.
struct Stream<'a> {
    family: StateFamily,
    scan: Box<dyn ContentScan + 'a>,
    /// Key group and state of the entry.
    prefix: [u8; PREFIX_BYTES],
    done: bool,
}

impl Stream<'_> {
    fn step(&mut self) -> Result {
        if !self.scan.advance()? {
            self.done = true;
            return Ok(());
        }
        let prefix = self.scan.entry().0.first_chunk();
        self.prefix = *prefix.ok_or_else(|| corrupt("a logical key is shorter than its prefix"))?;
        Ok(())
    }
}

/// One state of one key group on its way out.
struct StateExport<'a> {
    group: KeyGroup,
    id: StateId,
    kind: StateKind,
    layout: &'a Layout,
    dropped: bool,
    list: OpenList,
}

impl StateExport<'_> {
    /// Writes the entries of the state, up to the first one of another.
    fn run(
        &mut self,
        stream: &mut Stream<'_>,
        sorter: &mut Sorter<'_>,
        writer: &mut CanonicalWriter<'_>,
    ) -> Result {
        let prefix = stream.prefix;
        let sorted = self.id == TIMERS || self.layout.is_rotated();
        let mut canonical = Sink::new();
        let mut lengths_and_value = Sink::new();
        while !stream.done && stream.prefix == prefix {
            let (key, value) = stream.scan.entry();
            if self.dropped {
                // Nobody can see it any more, so it need not be kept.
            } else if sorted {
                canonical.clear();
                lengths_and_value.clear();
                canonical.raw(&prefix);
                let parts = self.rotate(&key[PREFIX_BYTES..], value, &mut canonical)?;
                lengths_and_value.count(parts.key).count(parts.namespace);
                if self.id != TIMERS {
                    lengths_and_value.raw(value);
                }
                sorter.push(canonical.as_slice(), lengths_and_value.as_slice())?;
            } else {
                self.write(key, None, value, writer)?;
            }
            stream.step()?;
        }
        if sorted {
            sorter.drain(&mut |key, value| {
                let mut c = Cursor::new(value);
                let mut length = || c.varint().map(|n| usize::try_from(n).unwrap_or(usize::MAX));
                let (parts_key, namespace) = (length()?, length()?);
                let parts = Parts {
                    key: parts_key,
                    namespace,
                };
                self.write(key, Some(parts), c.take(c.remaining())?, writer)
            })?;
        }
        self.list.end()
    }

    /// Appends stored components in key-first order, and a list's chunk id behind them.
    fn rotate(&self, stored: &[u8], value: &[u8], out: &mut Sink) -> Result<Parts> {
        if self.id == TIMERS {
            let (time, rest) = stored
                .split_at_checked(TIME_BYTES)
                .ok_or_else(|| corrupt("the key of a timer is too short"))?;
            let mut c = Cursor::new(value);
            let key = usize::try_from(c.varint()?).unwrap_or(usize::MAX);
            let namespace = rest.len().checked_sub(key);
            let namespace = namespace.ok_or_else(|| corrupt("the key of a timer is too long"))?;
            out.raw(rest).raw(time);
            return Ok(Parts { key, namespace });
        }
        let chunk = if self.kind == StateKind::List {
            CHUNK_ID_BYTES
        } else {
            0
        };
        let (components, chunk) = stored
            .len()
            .checked_sub(chunk)
            .and_then(|at| stored.split_at_checked(at))
            .ok_or_else(|| corrupt("the key of a list is too short"))?;
        let parts = self.layout.parts(components);
        let parts = parts.map_err(|e| e.recode_malformed(Code::SnapshotCorrupt))?;
        let parts = parts.ok_or_else(|| corrupt("the state is written as it is stored"))?;
        let (namespace, rest) = components.split_at(parts.namespace);
        let (key, map_key) = rest.split_at(parts.key);
        out.raw(key).raw(namespace).raw(map_key).raw(chunk);
        Ok(parts)
    }

    /// Writes an entry whose key is whole: key group, state, components in their final order.
    fn write(
        &mut self,
        key: &[u8],
        parts: Option<Parts>,
        value: &[u8],
        writer: &mut CanonicalWriter<'_>,
    ) -> Result {
        let (group, id) = (self.group, self.id);
        if self.kind == StateKind::List {
            return self.list.read(key, value, &mut |components, _, element| {
                writer.add(group, id, components, parts, element)
            });
        }
        writer.add(group, id, &key[PREFIX_BYTES..], parts, value)
    }
}
