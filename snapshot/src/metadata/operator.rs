//! Bytes of one operator in `_metadata`: catalogue, subtasks, handles. Page: docs/format/metadata.md.

use super::{OperatorSnapshot, codec::FileTable};
use crate::{
    BackendKind, CatalogueEntry, ComponentOrder, FamilyHandle, KeyGroupRange, KeyedHandle,
    OperatorStateHandle, OperatorStateMode, OperatorUid, RunHandle, StateCatalogue, StateDeclaration,
    StateId, StateKind, SubtaskIndex, SubtaskState, TableHandle,
    catalogue::{SCHEMA_BYTES_MAX, STATE_NAME_BYTES_MAX},
    id::UID_BYTES_MAX,
};
use keybed_format::{Code, Cursor, Result, Sink};

/// Bytes of an operator at least.
pub(super) const BYTES_MIN: usize = 2 + 4 + 4 + 1 + 1;
/// Longest name of a family or an operator state, in bytes.
pub const NAME_BYTES_MAX: usize = 255;

pub(super) fn encode(operator: &OperatorSnapshot, files: &FileTable, out: &mut Sink) {
    out.text(operator.uid.as_str())
        .u32(operator.parallelism)
        .u32(operator.max_parallelism);
    encode_catalogue(&operator.catalogue, out);
    out.count(operator.subtasks.len());
    for subtask in &operator.subtasks {
        encode_subtask(subtask, files, out);
    }
}

pub(super) fn decode(c: &mut Cursor<'_>, files: &mut FileTable) -> Result<OperatorSnapshot> {
    let at = c.offset();
    let uid = OperatorUid::new(c.text(UID_BYTES_MAX)?).map_err(|e| e.recode(Code::Malformed).at(at))?;
    let (parallelism, max_parallelism) = (c.u32()?, c.u32()?);
    let catalogue = decode_catalogue(c)?;
    let count = c.count(4 + 1 + 1 + 1 + 1)?;
    let mut subtasks = Vec::with_capacity(count);
    for _ in 0..count {
        subtasks.push(decode_subtask(c, files)?);
    }
    Ok(OperatorSnapshot {
        uid,
        parallelism,
        max_parallelism,
        catalogue,
        subtasks,
    })
}

/// Appends a catalogue: count varint, states.
pub fn encode_catalogue(catalogue: &StateCatalogue, out: &mut Sink) {
    let entries = catalogue.entries();
    out.count(entries.len());
    for entry in entries {
        encode_state(entry, out);
    }
}

/// Reads what [`encode_catalogue`] wrote.
///
/// # Errors
/// `Malformed` with the offset.
pub fn decode_catalogue(c: &mut Cursor<'_>) -> Result<StateCatalogue> {
    let at = c.offset();
    let count = c.count(2 + 2 + 1 + 1 + 4 + 1)?;
    let mut entries = Vec::with_capacity(count);
    for _ in 0..count {
        entries.push(decode_state(c)?);
    }
    StateCatalogue::from_entries(entries).map_err(|e| e.at(at))
}

fn encode_state(entry: &CatalogueEntry, out: &mut Sink) {
    let state = &entry.state;
    out.u16(entry.id.0).text(&state.name);
    out.u8(match state.kind {
        StateKind::Value => 1,
        StateKind::List => 2,
        StateKind::Map => 3,
        StateKind::Timer => 4,
        StateKind::Reducing => 5,
        StateKind::Aggregating => 6,
    });
    out.u8(match state.order {
        ComponentOrder::KeyFirst => 1,
        ComponentOrder::NamespaceFirst => 2,
        ComponentOrder::TimeFirst => 3,
    });
    out.text(&state.key_schema)
        .text(&state.namespace_schema)
        .text(&state.map_key_schema)
        .text(&state.value_schema);
    out.bool(entry.dropped);
}

fn decode_state(c: &mut Cursor<'_>) -> Result<CatalogueEntry> {
    let (id, name) = (StateId(c.u16()?), c.text(STATE_NAME_BYTES_MAX)?.to_owned());
    let kind = match c.u8()? {
        1 => StateKind::Value,
        2 => StateKind::List,
        3 => StateKind::Map,
        4 => StateKind::Timer,
        5 => StateKind::Reducing,
        6 => StateKind::Aggregating,
        other => return Err(c.malformed("a kind of state is not known").with("found", other)),
    };
    let order = match c.u8()? {
        1 => ComponentOrder::KeyFirst,
        2 => ComponentOrder::NamespaceFirst,
        3 => ComponentOrder::TimeFirst,
        other => {
            return Err(c
                .malformed("an order of components is not known")
                .with("found", other));
        }
    };
    let mut schema = || c.text(SCHEMA_BYTES_MAX).map(ToOwned::to_owned);
    let (key_schema, namespace_schema, map_key_schema, value_schema) =
        (schema()?, schema()?, schema()?, schema()?);
    let state = StateDeclaration {
        name,
        kind,
        order,
        key_schema,
        namespace_schema,
        map_key_schema,
        value_schema,
    };
    Ok(CatalogueEntry {
        id,
        state,
        dropped: c.bool()?,
    })
}

fn encode_subtask(subtask: &SubtaskState, files: &FileTable, out: &mut Sink) {
    out.u32(subtask.index.0)
        .bool(subtask.finished)
        .varint(subtask.new_bytes)
        .bool(subtask.keyed.is_some());
    if let Some(keyed) = &subtask.keyed {
        encode_keyed(keyed, files, out);
    }
    out.count(subtask.operator.len());
    for state in &subtask.operator {
        out.text(&state.name);
        out.u8(match state.mode {
            OperatorStateMode::Split => 1,
            OperatorStateMode::Union => 2,
            OperatorStateMode::Broadcast => 3,
        });
        out.count(state.items.len());
        for item in &state.items {
            out.bytes(item);
        }
    }
}

fn decode_subtask(c: &mut Cursor<'_>, files: &mut FileTable) -> Result<SubtaskState> {
    let (index, finished, new_bytes) = (SubtaskIndex(c.u32()?), c.bool()?, c.varint()?);
    let keyed = if c.bool()? {
        Some(decode_keyed(c, files)?)
    } else {
        None
    };
    let count = c.count(1 + 1 + 1)?;
    let mut operator = Vec::with_capacity(count);
    for _ in 0..count {
        let name = c.text(NAME_BYTES_MAX)?.to_owned();
        let mode = match c.u8()? {
            1 => OperatorStateMode::Split,
            2 => OperatorStateMode::Union,
            3 => OperatorStateMode::Broadcast,
            other => {
                return Err(c
                    .malformed("a mode of operator state is not known")
                    .with("found", other));
            }
        };
        let items = (0..c.count(1)?)
            .map(|_| c.bytes().map(<[u8]>::to_vec))
            .collect::<Result<_>>()?;
        operator.push(OperatorStateHandle { name, mode, items });
    }
    Ok(SubtaskState {
        index,
        keyed,
        operator,
        finished,
        new_bytes,
    })
}

fn encode_keyed(keyed: &KeyedHandle, files: &FileTable, out: &mut Sink) {
    out.u16(keyed.range.first.0).u16(keyed.range.last.0);
    out.u8(match keyed.backend {
        BackendKind::Lsm => 1,
        BackendKind::Heap => 2,
    });
    out.varint(keyed.next_seqno).count(keyed.families.len());
    for family in &keyed.families {
        out.text(&family.name).count(family.runs.len());
        for run in &family.runs {
            out.u8(run.tier).count(run.tables.len());
            for table in &run.tables {
                out.count(files.row(&table.file))
                    .bytes(&table.visible_start)
                    .bool(table.visible_end.is_some());
                if let Some(end) = &table.visible_end {
                    out.bytes(end);
                }
                out.varint(table.entries);
            }
        }
    }
}

fn decode_keyed(c: &mut Cursor<'_>, files: &mut FileTable) -> Result<KeyedHandle> {
    let at = c.offset();
    let range = KeyGroupRange::new(c.u16()?, c.u16()?).map_err(|e| e.recode(Code::Malformed).at(at))?;
    let backend = match c.u8()? {
        1 => BackendKind::Lsm,
        2 => BackendKind::Heap,
        other => return Err(c.malformed("a backend is not known").with("found", other)),
    };
    let next_seqno = c.varint()?;
    let mut families = Vec::new();
    for _ in 0..c.count(2)? {
        let name = c.text(NAME_BYTES_MAX)?.to_owned();
        let mut runs = Vec::new();
        for _ in 0..c.count(2)? {
            let tier = c.u8()?;
            let tables = (0..c.count(4)?)
                .map(|_| decode_table(c, files))
                .collect::<Result<_>>()?;
            runs.push(RunHandle { tier, tables });
        }
        families.push(FamilyHandle { name, runs });
    }
    Ok(KeyedHandle {
        range,
        backend,
        next_seqno,
        families,
    })
}

fn decode_table(c: &mut Cursor<'_>, files: &mut FileTable) -> Result<TableHandle> {
    let (file, visible_start) = (files.take(c)?, c.bytes()?.to_vec());
    let visible_end = if c.bool()? {
        Some(c.bytes()?.to_vec())
    } else {
        None
    };
    Ok(TableHandle {
        file,
        visible_start,
        visible_end,
        entries: c.varint()?,
    })
}
