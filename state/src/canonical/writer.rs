//! Writing a canonical file. Page: docs/format/canonical.md.

use super::{
    CanonicalFacts, FOOTER_BYTES, FOOTER_MAGIC, HEAD_BYTES, KIND, MAGIC, VERSION, frame,
    header::CanonicalHeader, layout::Parts,
};
use keybed_env::{Fs, WriteFile};
use keybed_format::{
    Error, Result, Sink,
    checksum::{self, Hasher},
    trailer::{CHUNK_BYTES, TrailerBuilder},
};
use keybed_lsm::{
    key::check_sizes,
    table::{BlockPacker, Compression},
};
use keybed_snapshot::{KeyGroup, KeyGroupRange, StateId, StateKind};
use std::path::{Path, PathBuf};

/// A block is closed before it grows above this; only one of a single entry may be larger.
const BLOCK_BYTES: usize = 64 << 10;
/// Longest frame before compression: leaves room for what a stored block adds.
const RAW_BYTES_MAX: u64 = frame::FRAME_BYTES_MAX - (1 << 10);
/// Bytes collected before they are handed to the file.
const WRITE_BYTES: usize = 256 << 10;

/// Writes the entries of one subtask, which come by key group, state id and components.
///
/// Equal entries under an equal header give equal bytes. In memory stay one block and a row per key group. A writer
/// that met an error or is dropped leaves a file without trailer, which its caller removes.
#[derive(Debug)]
pub(crate) struct CanonicalWriter<'a> {
    fs: &'a dyn Fs,
    path: PathBuf,
    file: Box<dyn WriteFile>,
    packer: BlockPacker,
    range: KeyGroupRange,
    id: u128,
    /// Bytes on their way to the file, behind them the open block; without the block they end at `written`.
    pending: Sink,
    written: u64,
    /// The checksums of all frames, from which the content's name is made.
    names: [Hasher; 2],
    /// Where the frame of the open block starts in `pending`; no block is open if it has no entries.
    block_at: usize,
    block_entries: u64,
    /// States of lists, whose elements share a key.
    lists: Vec<StateId>,
    /// State id and components of the last entry of the key group; empty before the first.
    last_key: Vec<u8>,
    /// Bytes and entries of the groups before the open one, which starts at `group_at`.
    directory: Vec<(u64, u64)>,
    group_at: u64,
    group_entries: u64,
    entries: u64,
}

impl<'a> CanonicalWriter<'a> {
    /// Creates the file `path`, which must not exist.
    ///
    /// # Errors
    /// Errors of `fs`; `InvalidArgument` for a compression that this build lacks.
    pub(crate) fn create(
        fs: &'a dyn Fs,
        path: &Path,
        header: &CanonicalHeader,
        compression: Compression,
    ) -> Result<Self> {
        let packer = BlockPacker::new(compression)?;
        let encoded = header.encode();
        let mut name = [Hasher::new(), Hasher::new()];
        name[1].update(&[1]);
        let states = header.catalogue.entries().iter();
        let lists = states.filter(|entry| entry.state.kind == StateKind::List);
        let mut writer = CanonicalWriter {
            fs,
            path: path.into(),
            file: fs.create(path)?,
            packer,
            range: header.range,
            id: frame::HEADER_ID,
            pending: Sink::with_capacity(WRITE_BYTES + 2 * BLOCK_BYTES),
            written: 0,
            names: name,
            block_at: 0,
            block_entries: 0,
            lists: lists.map(|entry| entry.id).collect(),
            last_key: Vec::new(),
            directory: Vec::new(),
            group_at: 0,
            group_entries: 0,
            entries: 0,
        };
        let mut head = Sink::new();
        head.raw(&MAGIC).u32(VERSION).u32(0);
        writer.write(head.as_slice())?;
        writer.write_frame(&encoded)?;
        writer.id = u128::from(checksum::hash(&encoded));
        writer.group_at = writer.written;
        Ok(writer)
    }

    /// Adds the next entry: of a list, the next element.
    ///
    /// # Errors
    /// `InvalidArgument` if the group is none of the file's, or the entry comes too late: keys of the program that are
    /// not self-delimiting, say; `KeyTooLarge`, `ValueTooLarge`;
    /// `IoFailed`.
    pub(super) fn add(
        &mut self,
        group: KeyGroup,
        state: StateId,
        components: &[u8],
        parts: Option<Parts>,
        value: &[u8],
    ) -> Result {
        check_sizes(components, value)?;
        self.turn_to(group)?;
        let key = Key {
            state: state.0.to_be_bytes(),
            components,
        };
        let shared = key.shared_with(&self.last_key);
        let repeats = shared == key.len() && shared == self.last_key.len();
        let in_order = match (self.last_key.get(shared), key.at(shared)) {
            (None, None) => self.lists.contains(&state),
            (last, next) => last < next,
        };
        if !in_order {
            return Err(Error::invalid(
                "an entry comes too late: its key sorts otherwise than self-delimiting components do",
            )
            .with("state_id", state.0)
            .with("components", components.escape_ascii()));
        }
        let bytes = key.len() + value.len() + 32;
        if self.block_entries > 0 && self.block_bytes() + bytes > BLOCK_BYTES {
            self.end_block()?;
        }
        if self.block_entries == 0 {
            self.block_at = frame::begin(self.pending.as_mut_vec());
            self.pending.u16(group.0);
            key.write_behind(0, &mut self.pending);
        } else {
            key.write_behind(shared, &mut self.pending);
        }
        if let Some(parts) = parts {
            self.pending.count(parts.key).count(parts.namespace);
        }
        self.pending.bytes(value);
        if !repeats {
            key.replace(shared, &mut self.last_key);
        }
        self.block_entries += 1;
        self.group_entries += 1;
        self.entries += 1;
        Ok(())
    }

    /// Bytes of the open block before compression.
    fn block_bytes(&self) -> usize {
        self.pending.len() - self.block_at - frame::LENGTH_BYTES as usize
    }

    /// Writes bytes as a block of a group, whatever they are.
    #[cfg(test)]
    pub(super) fn forge(&mut self, group: KeyGroup, raw: &[u8], entries: u64) -> Result {
        self.turn_to(group)?;
        self.end_block()?;
        self.group_entries += entries;
        self.write_frame(raw)
    }

    /// Ends the groups before `group`.
    fn turn_to(&mut self, group: KeyGroup) -> Result {
        let index = group.0.checked_sub(self.range.first.0).map(usize::from);
        match index.filter(|index| self.range.contains(group) && *index >= self.directory.len()) {
            Some(index) if index == self.directory.len() => Ok(()),
            Some(index) => {
                self.end_block()?;
                while self.directory.len() < index {
                    self.end_group();
                }
                Ok(())
            }
            None => Err(
                Error::invalid("a key group is none of the file's or comes too late")
                    .expected_found(self.range, group.0),
            ),
        }
    }

    fn end_group(&mut self) {
        let bytes = self.written - self.group_at;
        self.directory.push((bytes, self.group_entries));
        (self.group_at, self.group_entries) = (self.written, 0);
        self.last_key.clear();
    }

    fn end_block(&mut self) -> Result {
        if self.block_entries > 0 {
            self.block_entries = 0;
            self.end_frame(self.block_at)
        } else {
            Ok(())
        }
    }

    fn write_frame(&mut self, raw: &[u8]) -> Result {
        let start = frame::begin(self.pending.as_mut_vec());
        self.pending.raw(raw);
        self.end_frame(start)
    }

    /// Ends the frame that begins at `start` of what is pending.
    fn end_frame(&mut self, start: usize) -> Result {
        let raw_bytes = self.pending.len() - start - frame::LENGTH_BYTES as usize;
        if raw_bytes as u64 > RAW_BYTES_MAX {
            // A reader would refuse it, when it is too late. Entries are far smaller; the schemas of many states may be.
            return Err(
                Error::invalid("the states of the operator have too much to say about themselves")
                    .expected_found(format_args!("at most {RAW_BYTES_MAX} bytes"), raw_bytes),
            );
        }
        let pending = self.pending.as_mut_vec();
        frame::end(&mut self.packer, self.id, self.written, pending, start);
        // A frame ends in its checksum.
        if let Some(sum) = pending.last_chunk::<8>() {
            self.names.iter_mut().for_each(|name| name.update(sum));
        }
        self.written += (self.pending.len() - start) as u64;
        self.push(WRITE_BYTES)
    }

    fn write(&mut self, bytes: &[u8]) -> Result {
        self.pending.raw(bytes);
        self.written += bytes.len() as u64;
        self.push(WRITE_BYTES)
    }

    fn push(&mut self, from: usize) -> Result {
        if self.pending.len() >= from {
            self.file.append(self.pending.as_slice())?;
            self.pending.clear();
        }
        Ok(())
    }

    /// Writes directory, footer and trailer. The content is named by its own checksums, so the sums of the trailer,
    /// which are bound to that name, are made from the file once it is written.
    ///
    /// # Errors
    /// `IoFailed`: the file must be abandoned.
    pub(crate) fn finish(mut self) -> Result<CanonicalFacts> {
        self.end_block()?;
        while self.directory.len() < self.range.count() as usize {
            self.end_group();
        }
        let directory_at = self.written;
        let mut directory = Sink::new();
        directory.count(self.directory.len());
        for (bytes, entries) in &self.directory {
            directory.varint(*bytes).varint(*entries);
        }
        self.write_frame(directory.as_slice())?;
        let mut footer = Sink::new();
        footer.u64(directory_at).u32(VERSION).u32(0).raw(&FOOTER_MAGIC);
        let sum = checksum::bound(footer.as_slice(), self.id, self.written);
        footer.u64(sum);
        self.write(footer.as_slice())?;
        self.push(0)?;
        let [high, low] = self.names.each_ref().map(|name| u128::from(name.finish()));
        let content = high << 64 | low;
        let mut trailer = TrailerBuilder::new(content, KIND);
        let file = self.fs.open(&self.path)?;
        let (mut at, mut chunk) = (0, vec![0; CHUNK_BYTES]);
        while at < self.written {
            let length = (self.written - at).min(CHUNK_BYTES as u64) as usize;
            file.read_exact_at(&mut chunk[..length], at)?;
            trailer.update(&chunk[..length]);
            at += length as u64;
        }
        let (tail, trailer) = trailer.finish();
        self.file.append(&tail)?;
        Ok(CanonicalFacts {
            content,
            digest: trailer.digest,
            bytes: trailer.file_bytes(),
            entries: self.entries,
        })
    }
}

/// What a file calls the key of an entry: state id and components.
#[derive(Clone, Copy)]
struct Key<'a> {
    state: [u8; 2],
    components: &'a [u8],
}

impl Key<'_> {
    fn len(&self) -> usize {
        self.state.len() + self.components.len()
    }

    fn at(&self, index: usize) -> Option<&u8> {
        match index.checked_sub(self.state.len()) {
            Some(index) => self.components.get(index),
            None => self.state.get(index),
        }
    }

    /// Length of the longest prefix shared with another key, which may be empty.
    fn shared_with(&self, other: &[u8]) -> usize {
        match other.split_first_chunk::<2>() {
            Some((state, components)) if *state == self.state => {
                2 + shared_bytes(components, self.components)
            }
            Some((state, _)) => usize::from(state[0] == self.state[0]),
            None => 0,
        }
    }

    /// The two parts of what lies behind the first `shared` bytes.
    fn behind(&self, shared: usize) -> (&[u8], &[u8]) {
        match shared.checked_sub(self.state.len()) {
            Some(shared) => (&[], &self.components[shared..]),
            None => (&self.state[shared..], self.components),
        }
    }

    /// Appends the number of shared bytes and the rest of the key.
    fn write_behind(&self, shared: usize, out: &mut Sink) {
        let (state, components) = self.behind(shared);
        out.count(shared).count(state.len() + components.len());
        out.raw(state).raw(components);
    }

    /// Makes this key of `last`, whose first `shared` bytes are right.
    fn replace(&self, shared: usize, last: &mut Vec<u8>) {
        let (state, components) = self.behind(shared);
        last.truncate(shared);
        last.extend_from_slice(state);
        last.extend_from_slice(components);
    }
}

/// Length of the longest common prefix, a word at a time.
fn shared_bytes(a: &[u8], b: &[u8]) -> usize {
    let words = a.as_chunks::<8>().0.iter().zip(b.as_chunks::<8>().0);
    let shared = 8 * words.take_while(|(a, b)| a == b).count();
    let rest = a[shared..].iter().zip(&b[shared..]);
    shared + rest.take_while(|(a, b)| a == b).count()
}

const _: () = assert!(HEAD_BYTES == 16 && FOOTER_BYTES == 32, "as the page says");
