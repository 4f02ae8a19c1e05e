//! The entries of a snapshot as the program sees them: by state name, list elements one by one.

use super::RunMerge;
use crate::{
    StateFamily, Timer,
    canonical::{self, CanonicalPart},
    chunk::{Chunk, TAIL},
    current::{PREFIX_BYTES, TIMERS, family_of, group_of_entry},
    runs::Runs,
};
use keybed_format::{Code, Cursor, Error, Result};
use keybed_snapshot::{
    CatalogueEntry, KeyGroup, KeyGroupRange, KeyedHandle, OpenFiles, StateCatalogue, StateId, StateKind,
};

/// One entry of keyed state.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LogicalEntry {
    /// The state's name; empty for timers.
    pub state: String,
    /// What the state is.
    pub kind: StateKind,
    /// The key's group.
    pub group: KeyGroup,
    /// The components in the state's order: key, namespace, map key; of timers time, key, namespace.
    pub components: Vec<u8>,
    /// Of lists: the element's index. Else 0.
    pub index: u64,
    /// The value, map value or element; of timers empty.
    pub value: Vec<u8>,
}

/// Hands every entry of an operator's keyed state to `visit`: handle by handle, family by family, in key order, lists
/// in list order. Entries of dropped states are passed over.
///
/// # Errors
/// `SnapshotCorrupt` if a file is damaged or an entry is none that keyed state writes; `SnapshotIncomplete` if a file
/// is missing; errors of `visit`.
pub fn read_entries(
    catalogue: &StateCatalogue,
    handles: &[KeyedHandle],
    files: &dyn OpenFiles,
    visit: &mut dyn FnMut(LogicalEntry) -> Result,
) -> Result {
    for handle in handles {
        let (tables, parts) = canonical::separate(std::slice::from_ref(handle), handle.range)?;
        let runs = Runs::combine(&tables, handle.range)?;
        for (family, runs) in StateFamily::ALL.into_iter().zip(&runs.families) {
            let mut reader = FamilyReader {
                catalogue,
                range: handle.range,
                family,
                list: OpenList::default(),
            };
            let mut merge = RunMerge::open(runs, files)?;
            while let Some((key, value)) = merge.next_entry()? {
                let context = || {
                    format!(
                        "reading the entry {} of family {}",
                        key.escape_ascii(),
                        family.name()
                    )
                };
                let read = reader.read(key, value, visit);
                read.map_err(|e| e.recode_malformed(Code::SnapshotCorrupt).context(context()))?;
            }
            reader.list.end()?;
        }
        read_canonical(catalogue, handle.range, &parts, files, visit)?;
    }
    Ok(())
}

/// The entries of canonical files, by key group and state.
fn read_canonical(
    catalogue: &StateCatalogue,
    range: KeyGroupRange,
    parts: &[CanonicalPart],
    files: &dyn OpenFiles,
    visit: &mut dyn FnMut(LogicalEntry) -> Result,
) -> Result {
    let mut readers = StateFamily::ALL.map(|family| FamilyReader {
        catalogue,
        range,
        family,
        list: OpenList::default(),
    });
    canonical::stored_entries(catalogue, parts, files, &mut |family, key, value| {
        let read = readers[family.index()].read(key, value, visit);
        read.map_err(|e| e.recode_malformed(Code::SnapshotCorrupt))
    })?;
    readers.iter().try_for_each(|reader| reader.list.end())
}

/// Takes components, index and bytes of a list's element.
pub(crate) type ElementVisitor<'a> = dyn FnMut(&[u8], u64, &[u8]) -> Result + 'a;

struct FamilyReader<'a> {
    catalogue: &'a StateCatalogue,
    range: KeyGroupRange,
    family: StateFamily,
    list: OpenList,
}

/// The list whose chunks are being read.
#[derive(Debug, Default)]
pub(crate) struct OpenList {
    /// What all keys of its chunks start with; empty if no list is open.
    prefix: Vec<u8>,
    chunks: u64,
    elements: u64,
}

fn corrupt(message: &str) -> Error {
    Error::new(Code::SnapshotCorrupt, message)
}

impl OpenList {
    /// Between lists, and at the end, the last chunk must have been a tail.
    pub(crate) fn end(&self) -> Result {
        if self.prefix.is_empty() {
            Ok(())
        } else {
            Err(corrupt("a list has no tail"))
        }
    }
}

impl FamilyReader<'_> {
    fn read(&mut self, key: &[u8], value: &[u8], visit: &mut dyn FnMut(LogicalEntry) -> Result) -> Result {
        let group = group_of_entry(key)?;
        if !self.range.contains(group) {
            return Err(corrupt("an entry belongs to no key group of its subtask").with("group", group.0));
        }
        let mut cursor = Cursor::new(key);
        cursor.take(2)?;
        let id = StateId(u16::from_be_bytes(cursor.array()?));
        let components = &key[PREFIX_BYTES..];
        if id == TIMERS {
            return self.read_timer(group, key, value, visit);
        }
        let known = state_of(self.catalogue, self.family, id)?;
        let state = &known.state;
        if known.dropped {
            return Ok(());
        }
        let entry = |components: &[u8], index, value: &[u8]| LogicalEntry {
            state: state.name.clone(),
            kind: state.kind,
            group,
            components: components.to_vec(),
            index,
            value: value.to_vec(),
        };
        if state.kind == StateKind::List {
            self.list.read(key, value, &mut |components, index, element| {
                visit(entry(components, index, element))
            })
        } else {
            visit(entry(components, 0, value))
        }
    }

    fn read_timer(
        &self,
        group: KeyGroup,
        key: &[u8],
        value: &[u8],
        visit: &mut dyn FnMut(LogicalEntry) -> Result,
    ) -> Result {
        if self.family != StateFamily::Timer {
            return Err(corrupt("a timer lies in a family of states"));
        }
        Timer::of_entry(key, value)?;
        let components = key[PREFIX_BYTES..].to_vec();
        visit(LogicalEntry {
            state: String::new(),
            kind: StateKind::Timer,
            group,
            components,
            index: 0,
            value: Vec::new(),
        })
    }
}

/// The state of that id, if its entries belong into this family.
pub(crate) fn state_of(
    catalogue: &StateCatalogue,
    family: StateFamily,
    id: StateId,
) -> Result<&CatalogueEntry> {
    let index = usize::from(id.0).checked_sub(1);
    let known = index.and_then(|index| catalogue.entries().get(index));
    known
        .filter(|known| family_of(known.state.kind, known.state.order) == family)
        .ok_or_else(|| corrupt("an entry belongs to no state of the catalogue").with("state_id", id.0))
}

impl OpenList {
    /// Reads one chunk.
    pub(crate) fn read(&mut self, key: &[u8], value: &[u8], visit: &mut ElementVisitor<'_>) -> Result {
        let Some((prefix, id)) = key
            .split_last_chunk::<8>()
            .filter(|(prefix, _)| prefix.len() >= PREFIX_BYTES)
        else {
            return Err(corrupt("the key of a list is too short"));
        };
        if self.prefix != prefix {
            self.end()?;
            *self = OpenList {
                prefix: prefix.to_vec(),
                chunks: 0,
                elements: 0,
            };
        }
        let (id, chunk) = (u64::from_be_bytes(*id), Chunk::parse(value)?);
        let expected = if id == TAIL { TAIL } else { self.chunks };
        if id != expected || u64::from(chunk.number) != self.chunks {
            return Err(
                corrupt("a chunk of a list is missing or out of place").expected_found(self.chunks, id)
            );
        }
        let mut elements = chunk.elements();
        while let Some(element) = elements.next_element()? {
            visit(&prefix[PREFIX_BYTES..], self.elements, element)?;
            self.elements += 1;
        }
        self.chunks += 1;
        if id == TAIL {
            *self = OpenList::default();
        }
        Ok(())
    }
}
