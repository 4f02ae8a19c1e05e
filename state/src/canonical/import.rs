//! From the entries of a canonical file to the entries that a backend stores.

use super::{
    CanonicalPart,
    layout::{Layout, Parts, TIME_BYTES},
    reader::{CanonicalEntry, CanonicalFile},
};
use crate::{
    StateFamily,
    chunk::{ChunkBuilder, TAIL},
    current::{PREFIX_BYTES, family_of},
};
use keybed_format::{Code, Error, Result, Sink};
use keybed_snapshot::{CatalogueEntry, KeyGroup, OpenFiles, StateCatalogue, StateKind, key_group_of};

/// Takes family, logical key and value of an entry as backends store it.
pub(crate) type StoredVisitor<'a> = dyn FnMut(StateFamily, &[u8], &[u8]) -> Result + 'a;

/// Hands what `parts` hold to `visit`: by key group and state; inside of a state in key-first order, which is the stored
/// order of the families `point` and `prefix` and of no other. States that `catalogue` says are dropped are passed over.
///
/// # Errors
/// `SnapshotCorrupt` with file and offset; `SnapshotIncomplete`; errors of `visit`.
pub(crate) fn stored_entries(
    catalogue: &StateCatalogue,
    parts: &[CanonicalPart],
    files: &dyn OpenFiles,
    visit: &mut StoredVisitor<'_>,
) -> Result {
    for part in parts {
        let file = part.open(catalogue, files)?;
        let mut import = Import {
            max_parallelism: file.header().max_parallelism,
            layouts: file
                .header()
                .catalogue
                .entries()
                .iter()
                .map(|entry| Layout::of(&entry.state))
                .collect(),
            states: catalogue.entries(),
            list: GatheredList {
                family: StateFamily::Prefix,
                key: Vec::new(),
                chunk: ChunkBuilder::default(),
            },
            key: Sink::new(),
            value: Sink::new(),
        };
        let name = |e: Error| e.in_file(part.file.object.as_str());
        file.read(part.range, &mut |entry| import.entry(entry, visit).map_err(name))?;
        import.end_list(visit).map_err(name)?;
    }
    Ok(())
}

impl CanonicalPart {
    /// Opens the file and compares its states with those of the snapshot.
    pub(super) fn open(&self, catalogue: &StateCatalogue, files: &dyn OpenFiles) -> Result<CanonicalFile> {
        let file = CanonicalFile::open(&self.file, files.open(&self.file)?)?;
        let refused =
            |message: &str| Error::new(Code::SnapshotCorrupt, message).in_file(self.file.object.as_str());
        if file.header().range.intersection(self.range) != Some(self.range) {
            return Err(refused("the file holds other key groups than its handle says")
                .expected_found(self.range, file.header().range));
        }
        let found = file.header().max_parallelism;
        if let Some(expected) = self.max_parallelism.filter(|expected| *expected != found) {
            return Err(
                refused("the keys of the file were dealt to another number of key groups")
                    .expected_found(expected, found),
            );
        }
        let theirs = file.header().catalogue.entries();
        for (index, theirs) in theirs.iter().enumerate() {
            let ours = catalogue.entries().get(index);
            if ours.is_none_or(|ours| !is_same_state(ours, theirs)) {
                return Err(refused("the states of the file are not those of the snapshot")
                    .with("state", theirs.state.name.escape_debug()));
            }
        }
        Ok(file)
    }
}

/// Values may have been given another schema since; the rest of a state never changes.
fn is_same_state(ours: &CatalogueEntry, theirs: &CatalogueEntry) -> bool {
    let (a, b) = (&ours.state, &theirs.state);
    (&a.name, a.kind, a.order) == (&b.name, b.kind, b.order)
        && (&a.key_schema, &a.namespace_schema, &a.map_key_schema)
            == (&b.key_schema, &b.namespace_schema, &b.map_key_schema)
}

struct Import<'a> {
    max_parallelism: u32,
    layouts: Vec<Layout>,
    states: &'a [CatalogueEntry],
    list: GatheredList,
    key: Sink,
    value: Sink,
}

/// The list whose elements are being gathered in chunks; kept for its memory when it ends.
struct GatheredList {
    family: StateFamily,
    /// All of its keys, without a chunk id; empty if no list is open.
    key: Vec<u8>,
    chunk: ChunkBuilder,
}

fn corrupt(message: &str) -> Error {
    Error::new(Code::SnapshotCorrupt, message)
}

impl Import<'_> {
    fn entry(&mut self, entry: CanonicalEntry<'_>, visit: &mut StoredVisitor<'_>) -> Result {
        let index = usize::from(entry.state.0).checked_sub(1);
        let Some(index) = index else {
            self.end_list(visit)?;
            self.timer_key(&entry)?;
            self.value.clear();
            self.value.count(entry.parts.map_or(0, |parts| parts.key));
            return visit(StateFamily::Timer, self.key.as_slice(), self.value.as_slice());
        };
        let Some(known) = self.states.get(index) else {
            return Err(corrupt("an entry belongs to no state of the snapshot"));
        };
        if known.dropped {
            return Ok(());
        }
        if let Some(parts) = entry.parts {
            self.rotated_key(index, &entry, parts)?;
        }
        let (kind, family) = (known.state.kind, family_of(known.state.kind, known.state.order));
        let made = std::mem::take(&mut self.key);
        let key = match entry.parts {
            None => entry.prefixed,
            Some(_) => made.as_slice(),
        };
        let passed = if kind == StateKind::List {
            self.element(family, key, entry.value, visit)
        } else {
            self.end_list(visit)
                .and_then(|()| visit(family, key, entry.value))
        };
        self.key = made;
        passed
    }

    /// Makes the logical key (of a list, without chunk id) of an entry that lies in the file in another order.
    fn rotated_key(&mut self, index: usize, entry: &CanonicalEntry<'_>, parts: Parts) -> Result {
        let (key, rest) = split(entry.components, parts.key)?;
        let (namespace, map_key) = split(rest, parts.namespace)?;
        self.begin_key(entry);
        self.key.raw(namespace).raw(key).raw(map_key);
        let stored = self.key.as_slice().get(PREFIX_BYTES..).unwrap_or_default();
        let layout = self.layouts.get(index).unwrap_or(&Layout::AsStored);
        let again = layout.parts(stored);
        if again.map_err(|e| e.recode_malformed(Code::SnapshotCorrupt))? != Some(parts) {
            return Err(corrupt("key and namespace are not of their schemas"));
        }
        self.check_group(key, entry.group)
    }

    fn begin_key(&mut self, entry: &CanonicalEntry<'_>) {
        self.key.clear();
        self.key
            .raw(&entry.group.prefix())
            .raw(&entry.state.0.to_be_bytes());
    }

    fn timer_key(&mut self, entry: &CanonicalEntry<'_>) -> Result {
        let components = entry.components;
        let (rest, time) = split(components, components.len().saturating_sub(TIME_BYTES))?;
        self.begin_key(entry);
        self.key.raw(time).raw(rest);
        let key = entry.parts.map_or(0, |parts| parts.key);
        self.check_group(split(rest, key)?.0, entry.group)
    }

    fn check_group(&self, key: &[u8], group: KeyGroup) -> Result {
        let found = key_group_of(key, self.max_parallelism);
        if found == group {
            return Ok(());
        }
        Err(corrupt("a key lies in another key group than its own").expected_found(group.0, found.0))
    }

    fn element(
        &mut self,
        family: StateFamily,
        key: &[u8],
        element: &[u8],
        visit: &mut StoredVisitor<'_>,
    ) -> Result {
        if self.list.key != key {
            self.end_list(visit)?;
            self.list.family = family;
            self.list.key.extend_from_slice(key);
        }
        let list = &mut self.list;
        if !list.chunk.has_room(element) {
            self.value.clear();
            let id = list.chunk.seal(&mut self.value)?;
            let length = list.key.len();
            list.key.extend(u64::from(id).to_be_bytes());
            let passed = visit(family, &list.key, self.value.as_slice());
            list.key.truncate(length);
            passed?;
        }
        list.chunk.push(element);
        Ok(())
    }

    /// Hands out the last chunk of the open list, if there is one.
    fn end_list(&mut self, visit: &mut StoredVisitor<'_>) -> Result {
        let list = &mut self.list;
        if list.key.is_empty() {
            return Ok(());
        }
        self.value.clear();
        list.chunk.write(&mut self.value);
        list.chunk.clear();
        list.key.extend(TAIL.to_be_bytes());
        let passed = visit(list.family, &list.key, self.value.as_slice());
        list.key.clear();
        passed
    }
}

fn split(bytes: &[u8], at: usize) -> Result<(&[u8], &[u8])> {
    bytes
        .split_at_checked(at)
        .ok_or_else(|| corrupt("the components of an entry are too short"))
}
