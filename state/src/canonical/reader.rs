//! Reading a canonical file, or only some of its key groups. Page: docs/format/canonical.md.

use super::{
    FOOTER_BYTES, FOOTER_MAGIC, HEAD_BYTES, KIND, MAGIC, VERSION,
    frame::{self, LENGTH_BYTES, RawEntry},
    header::CanonicalHeader,
    layout::{Parts, TIME_BYTES},
    window::Window,
};
use crate::current::PREFIX_BYTES;
use keybed_env::ReadFile;
use keybed_format::{Code, Cursor, Error, Result, checksum, trailer};
use keybed_snapshot::{FileHandle, KeyGroup, KeyGroupRange, StateId, StateKind};
use std::sync::Arc;

/// An entry as it lies in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct CanonicalEntry<'a> {
    pub(super) group: KeyGroup,
    /// 0 for timers.
    pub(super) state: StateId,
    /// Key group, state and components: the logical key, if there are no `parts`.
    pub(super) prefixed: &'a [u8],
    /// In key-first order, if `parts` are given; else as stored. Without a chunk id.
    pub(super) components: &'a [u8],
    pub(super) parts: Option<Parts>,
    /// Of lists, one element.
    pub(super) value: &'a [u8],
}

/// Where a key group lies.
#[derive(Clone, Copy, Debug)]
struct GroupPlace {
    start: u64,
    end: u64,
    entries: u64,
}

/// An open canonical file.
#[derive(Debug)]
pub(super) struct CanonicalFile {
    file: Arc<dyn ReadFile>,
    name: String,
    header: CanonicalHeader,
    id: u128,
    groups: Vec<GroupPlace>,
}

impl CanonicalFile {
    /// Opens the file that `handle` names: checks trailer, header, directory and footer; entries are checked when they
    /// are read.
    ///
    /// # Errors
    /// `SnapshotCorrupt` with file and offset; `UnsupportedFormatVersion`.
    pub(super) fn open(handle: &FileHandle, file: Arc<dyn ReadFile>) -> Result<Self> {
        let name = handle.object.to_string();
        let opened = Self::check_handle(handle, &*file).and_then(|()| Self::parse(file, name.clone()));
        opened.map_err(|e| damage(e, &name))
    }

    fn check_handle(handle: &FileHandle, file: &dyn ReadFile) -> Result {
        let length = file.len();
        if length != handle.length {
            return Err(Error::new(
                Code::SnapshotCorrupt,
                "the file has another length than its handle says",
            )
            .at(length.min(handle.length))
            .expected_found(handle.length, length));
        }
        let found = trailer::read(length, &mut |at, buffer| file.read_exact_at(buffer, at))?;
        if (found.content_id, found.digest) == (handle.content, handle.digest) {
            return Ok(());
        }
        Err(Error::new(
            Code::SnapshotCorrupt,
            "the file is intact but not the one its handle names",
        )
        .at(length - trailer::TAIL_BYTES as u64)
        .expected_found(
            format_args!("{:032x} {:016x}", handle.content, handle.digest),
            format_args!("{:032x} {:016x}", found.content_id, found.digest),
        ))
    }

    /// Opens a file of any name.
    ///
    /// # Errors
    /// `Malformed` with the offset; `UnsupportedFormatVersion`.
    pub(super) fn parse(file: Arc<dyn ReadFile>, name: String) -> Result<Self> {
        let mut read_at = |at: u64, buffer: &mut [u8]| file.read_exact_at(buffer, at);
        let found = trailer::read(file.len(), &mut read_at)?;
        let malformed = |message: &str, at| Error::new(Code::Malformed, message).at(at);
        if found.kind != KIND {
            return Err(malformed("the file is of another kind", file.len() - 16)
                .expected_found(format_args!("{KIND:08x}"), format_args!("{:08x}", found.kind)));
        }
        let end = found.content_bytes;
        let footer_at = end.checked_sub(FOOTER_BYTES).filter(|at| *at > HEAD_BYTES);
        let footer_at = footer_at.ok_or_else(|| malformed("the file is too short", end))?;
        // Versions are believed only if nobody changed them.
        trailer::verify_parts(file.len(), &[(0, HEAD_BYTES), (footer_at, end)], &mut read_at)?;
        let mut head = [0; HEAD_BYTES as usize];
        read_at(0, &mut head)?;
        let mut c = Cursor::new(&head);
        if c.array::<8>()? != MAGIC {
            return Err(malformed("the magic number is another one", 0));
        }
        let version = c.u32()?;
        if version != VERSION || c.u32()? != 0 {
            return Err(Error::new(
                Code::UnsupportedFormatVersion,
                "the version of the canonical file is not known",
            )
            .at(8)
            .expected_found(VERSION, version));
        }
        let header_frame = frame::read(&*file, frame::HEADER_ID, HEAD_BYTES, footer_at)?;
        let header = CanonicalHeader::decode(&header_frame.raw).map_err(|e| inside(&e, HEAD_BYTES))?;
        let id = u128::from(checksum::hash(&header_frame.raw));
        let mut footer = [0; FOOTER_BYTES as usize];
        file.read_exact_at(&mut footer, footer_at)?;
        let directory_at = read_footer(&footer, id, footer_at)?;
        let directory = frame::read(&*file, id, directory_at, footer_at)?;
        if directory.end != footer_at {
            return Err(malformed("bytes lie between directory and footer", directory.end));
        }
        let groups = read_directory(&directory.raw, &header, header_frame.end, directory_at)
            .map_err(|e| inside(&e, directory_at))?;
        Ok(CanonicalFile {
            file,
            name,
            header,
            id,
            groups,
        })
    }

    pub(super) fn header(&self) -> &CanonicalHeader {
        &self.header
    }

    /// Hands the entries of `range` to `visit`, in order. Nothing else is read, and nothing of a MiB is believed before
    /// all of it was verified.
    ///
    /// # Errors
    /// `SnapshotCorrupt` with file and offset; errors of `visit`.
    pub(super) fn read(
        &self,
        range: KeyGroupRange,
        visit: &mut dyn FnMut(CanonicalEntry<'_>) -> Result,
    ) -> Result {
        let all = self.header.range;
        let Some(range) = all.intersection(range) else {
            return Ok(());
        };
        let first = usize::from(range.first.0 - all.first.0);
        let places = self
            .groups
            .get(first..first + range.count() as usize)
            .unwrap_or_default();
        let Some(low) = places.first() else {
            return Ok(());
        };
        let mut window = Window::at(&*self.file, low.start).map_err(|e| damage(e, &self.name))?;
        let mut order = Order::new(&self.header);
        for (group, place) in (range.first.0..=range.last.0).map(KeyGroup).zip(places) {
            self.read_group(group, *place, (&mut window, &mut order), visit)?;
        }
        Ok(())
    }

    fn read_group(
        &self,
        group: KeyGroup,
        place: GroupPlace,
        (window, order): (&mut Window<'_>, &mut Order<'_>),
        visit: &mut dyn FnMut(CanonicalEntry<'_>) -> Result,
    ) -> Result {
        order.begin(group);
        let of_file = |e| damage(e, &self.name);
        let (mut at, mut entries) = (place.start, 0);
        while at < place.end {
            frame::demand_length(at, place.end).map_err(of_file)?;
            let length = window.get(at, LENGTH_BYTES as usize).map_err(of_file)?;
            let length = length.first_chunk().copied().unwrap_or_default();
            let bytes = frame::stored_bytes(length, at, place.end).map_err(of_file)?;
            let stored = window.get(at + LENGTH_BYTES, bytes).map_err(of_file)?;
            let raw = frame::unpack(stored, self.id, at).map_err(of_file)?;
            let mut c = Cursor::new(&raw);
            let found = c.u16().map_err(|e| of_file(inside(&e, at)))?;
            if found != group.0 {
                let error = Error::new(Code::SnapshotCorrupt, "a block is of another key group");
                return Err(of_file(error.at(at).expected_found(group.0, found)));
            }
            let mut first = true;
            while !c.is_empty() {
                let entry = order.read(&mut c, first).map_err(|e| of_file(inside(&e, at)))?;
                first = false;
                entries += 1;
                visit(entry)?;
            }
            at += LENGTH_BYTES + bytes as u64;
        }
        if entries != place.entries {
            let error = Error::new(Code::SnapshotCorrupt, "a key group has another number of entries");
            return Err(of_file(
                error.at(place.start).expected_found(place.entries, entries),
            ));
        }
        Ok(())
    }
}

/// What the entries before say about the next one of a key group.
struct Order<'a> {
    header: &'a CanonicalHeader,
    group: KeyGroup,
    /// Key group, state and components of the last entry; only the key group before the first one.
    last: Vec<u8>,
    state: StateId,
    kind: StateKind,
    parts: Option<Parts>,
}

/// Bytes of the key group before what a file calls a key.
const GROUP_BYTES: usize = 2;

impl<'a> Order<'a> {
    fn new(header: &'a CanonicalHeader) -> Self {
        Order {
            header,
            group: KeyGroup(0),
            last: Vec::new(),
            state: StateId(0),
            kind: StateKind::Timer,
            parts: None,
        }
    }

    /// Stands before the first entry of a key group.
    fn begin(&mut self, group: KeyGroup) {
        self.group = group;
        self.last.clear();
        self.last.extend(group.prefix());
        (self.state, self.kind, self.parts) = (StateId(0), StateKind::Timer, None);
    }

    /// Reads and checks the next entry; the first of a block shares nothing with what lies before.
    fn read<'s, 'e: 's>(
        &'s mut self,
        c: &mut Cursor<'e>,
        first_of_block: bool,
    ) -> Result<CanonicalEntry<'s>> {
        let last = self.last.get(GROUP_BYTES..).unwrap_or_default();
        let known = if first_of_block { &[] } else { last };
        let entry = RawEntry::read(c, known, |state| self.header.is_rotated(state))?;
        let (kind, is_first) = (self.kind_of(entry.state)?, last.is_empty());
        // Where the keys begin alike, what follows decides.
        let last = last.get(entry.shared..).unwrap_or_default();
        let is_list = entry.state != StateId(0) && kind == StateKind::List;
        let repeats = is_list && !is_first && last == entry.rest && self.parts == entry.parts;
        if !repeats && !is_first {
            if is_list && entry.rest.starts_with(last) {
                // Backends put a chunk id behind the key, so it must be self-delimiting.
                return Err(malformed("the key of a list is the beginning of another"));
            }
            if !keybed_lsm::key::less(last, entry.rest) {
                return Err(malformed("the entries are not in order"));
            }
        }
        self.last.truncate(GROUP_BYTES + entry.shared);
        self.last.extend_from_slice(entry.rest);
        (self.state, self.kind, self.parts) = (entry.state, kind, entry.parts);
        let components = self.last.get(PREFIX_BYTES..).unwrap_or_default();
        keybed_lsm::key::check_sizes(components, entry.value).map_err(|e| e.recode(Code::Malformed))?;
        if let Some(parts) = entry.parts {
            self.check_parts(parts, components, entry.value)?;
        }
        Ok(CanonicalEntry {
            group: self.group,
            state: self.state,
            prefixed: &self.last,
            components,
            parts: entry.parts,
            value: entry.value,
        })
    }

    fn kind_of(&self, state: StateId) -> Result<StateKind> {
        if state == self.state {
            return Ok(self.kind);
        }
        let index = usize::from(state.0).checked_sub(1);
        let known = index.and_then(|index| self.header.catalogue.entries().get(index));
        known
            .filter(|known| !known.dropped)
            .map(|known| known.state.kind)
            .ok_or_else(|| malformed("an entry belongs to no state of the file").with("state_id", state.0))
    }

    fn check_parts(&self, Parts { key, namespace }: Parts, components: &[u8], value: &[u8]) -> Result {
        let known = key.saturating_add(namespace);
        let fits = match (self.state.0, self.kind) {
            (0, _) => known.checked_add(TIME_BYTES) == Some(components.len()) && value.is_empty(),
            (_, StateKind::Map) => known <= components.len(),
            _ => known == components.len(),
        };
        if fits {
            Ok(())
        } else {
            Err(malformed("the lengths of key and namespace are impossible"))
        }
    }
}

fn malformed(message: &str) -> Error {
    Error::new(Code::Malformed, message)
}

fn read_footer(footer: &[u8], id: u128, at: u64) -> Result<u64> {
    let (facts, sum) = footer.split_at(FOOTER_BYTES as usize - 8);
    let mut c = Cursor::with_base(facts, at);
    let (directory_at, version, zero, magic) = (c.u64()?, c.u32()?, c.u32()?, c.array::<8>()?);
    let found = Cursor::new(sum).u64()?;
    let expected = checksum::bound(facts, id, at);
    if found != expected || (version, zero, magic) != (VERSION, 0, FOOTER_MAGIC) {
        return Err(Error::new(Code::Malformed, "the footer is damaged")
            .at(at)
            .expected_found(format_args!("{expected:016x}"), format_args!("{found:016x}")));
    }
    Ok(directory_at)
}

fn read_directory(raw: &[u8], header: &CanonicalHeader, start: u64, end: u64) -> Result<Vec<GroupPlace>> {
    let mut c = Cursor::new(raw);
    let count = c.count(2)?;
    if count != header.range.count() as usize {
        return Err(c
            .malformed("the directory has another number of key groups")
            .expected_found(header.range.count(), count));
    }
    let mut groups = Vec::with_capacity(count);
    let mut at = start;
    for _ in 0..count {
        let (bytes, entries) = (c.varint()?, c.varint()?);
        let next = at.checked_add(bytes).filter(|next| *next <= end);
        let next = next.ok_or_else(|| c.malformed("a key group is longer than the file"))?;
        groups.push(GroupPlace {
            start: at,
            end: next,
            entries,
        });
        at = next;
    }
    if at != end {
        return Err(c
            .malformed("bytes belong to no key group")
            .expected_found(end, at));
    }
    c.finish()?;
    Ok(groups)
}

/// An error inside of a decompressed frame: the offset that can be named is that of the frame.
fn inside(error: &Error, frame_at: u64) -> Error {
    let named = Error::new(error.code(), error.message()).at(frame_at);
    match error.offset() {
        Some(offset) => named.with("offset_inside", offset),
        None => named,
    }
}

/// Names the file, and what broken bytes in it mean.
fn damage(error: Error, name: &str) -> Error {
    error.recode_malformed(Code::SnapshotCorrupt).in_file(name)
}
