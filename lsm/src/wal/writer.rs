//! The owner's end of the log: one frame per write or batch, one write(2) per frame.
//!
//! Space is set aside ahead of the appends, so that a full medium is met before an append and not in it: then the
//! write is refused, nothing happened, and it can be repeated when there is space. An append that fails leaves nobody
//! knowing what the file holds: the store is poisoned until it is opened again.

use super::{Header, log_id, path, tidy::Closed};
use crate::{batch::Op, key::Seqno};
use keybed_env::{Fs, WriteFile};
use keybed_format::{Code, Error, Result, Sink, frame};
use std::{path::PathBuf, sync::Arc};

/// A file of this length is followed by the next one, whatever the options say.
pub(crate) const FILE_BYTES_MAX: u64 = 64 << 20;
const FILE_BYTES_MIN: u64 = 16 << 10;
/// Files that a log of its longest has at least: the shares in which its space becomes free.
const FILES_MIN: u64 = 8;
/// Space that is set aside at a time.
const RESERVE_BYTES_MIN: u64 = 64 << 10;
const RESERVE_BYTES_MAX: u64 = 4 << 20;
/// A buffer that grew beyond this for one frame is not kept.
const BUFFER_BYTES_MAX: usize = 1 << 20;

/// Why nothing was appended.
#[derive(Debug)]
pub(crate) enum Failure {
    /// Nothing happened: it may be tried again.
    Refused(Error),
    /// Nobody knows what the file holds.
    Broken(Error),
}

/// Appends frames.
#[derive(Debug)]
pub(crate) struct Writer {
    fs: Arc<dyn Fs>,
    dir: PathBuf,
    store_id: u128,
    /// Begun with the first write: an idle store has no log.
    current: Option<Current>,
    next_number: u64,
    /// Number and end of the file before the current one.
    previous: (u64, u64),
    /// A file of this length is followed by the next one.
    file_bytes_max: u64,
    /// The frame under construction.
    buffer: Sink,
    /// Bytes appended since the store was opened, headers included.
    position: u64,
    /// The newest seqno appended.
    seqno_max: Seqno,
}

/// The file that takes the appends.
#[derive(Debug)]
struct Current {
    file: Box<dyn WriteFile>,
    number: u64,
    id: u128,
    /// Up to here there is space for sure.
    reserved: u64,
    /// The position of its first byte.
    base: u64,
}

/// What a new file is, for whoever syncs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Begun {
    /// Number of the file.
    pub(crate) number: u64,
    /// The position of its first byte.
    pub(crate) base: u64,
}

impl Writer {
    /// Appends to new files from `next_number` on, behind the file `previous` (number, end), 0 = none.
    pub(crate) fn new(
        fs: Arc<dyn Fs>,
        dir: PathBuf,
        store_id: u128,
        next_number: u64,
        previous: (u64, u64),
        log_bytes_max: u64,
    ) -> Self {
        Writer {
            fs,
            dir,
            store_id,
            current: None,
            next_number,
            previous,
            file_bytes_max: (log_bytes_max / FILES_MIN).clamp(FILE_BYTES_MIN, FILE_BYTES_MAX),
            buffer: Sink::new(),
            position: 0,
            seqno_max: 0,
        }
    }

    /// Where the next frame will begin.
    pub(crate) fn position(&self) -> u64 {
        self.position
    }

    /// Whether the next append needs a new file first.
    #[inline]
    pub(crate) fn must_begin(&self) -> bool {
        self.current
            .as_ref()
            .is_none_or(|current| current.file.len() >= self.file_bytes_max)
    }

    /// Takes the current file out of use.
    pub(crate) fn close_current(&mut self) -> Option<Closed> {
        let current = self.current.take()?;
        self.previous = (current.number, current.file.len());
        Some(Closed {
            number: current.number,
            seqno_max: self.seqno_max,
            bytes: current.file.len(),
        })
    }

    /// Begins a new file; `synced` is the position up to which everything is durable.
    ///
    /// # Errors
    /// Those of the file system; the next attempt takes another number.
    pub(crate) fn begin(&mut self, first_seqno: Seqno, synced: u64) -> Result<Begun> {
        let number = self.next_number;
        self.next_number += 1;
        let (previous, previous_end) = self.previous;
        // The last byte of the file before lies right before this position.
        let unsynced = self.position.saturating_sub(synced);
        let header = Header {
            number,
            store_id: self.store_id,
            first_seqno,
            previous,
            previous_end,
            previous_synced: previous_end.saturating_sub(unsynced),
        };
        let path = path(&self.dir, number);
        let bytes = header.encode();
        let created = self.fs.create(&path).and_then(|mut file| {
            let reserved = RESERVE_BYTES_MIN.min(self.file_bytes_max);
            file.reserve(reserved)?;
            file.append(&bytes)?;
            Ok((file, reserved))
        });
        let (file, reserved) = created.inspect_err(|error| {
            if error.code() != Code::TargetExists {
                // A left-over has no frames; the next open removes what cannot be removed now.
                let _ = self.fs.remove_file(&path);
            }
        })?;
        let base = self.position;
        self.position += bytes.len() as u64;
        self.seqno_max = self.seqno_max.max(first_seqno.saturating_sub(1));
        self.current = Some(Current {
            file,
            number,
            id: log_id(self.store_id, number),
            reserved,
            base,
        });
        Ok(Begun { number, base })
    }

    /// Appends one frame with operations whose first has `seqno`; `family_id` gives the number of a token's family,
    /// `synced` is the position up to which everything is durable.
    #[inline]
    pub(crate) fn append<'a>(
        &mut self,
        seqno: Seqno,
        ops: impl Iterator<Item = Op<'a>>,
        family_id: impl Fn(u32) -> u32,
        synced: u64,
    ) -> Result<(), Failure> {
        let refused = |error: Error| Failure::Refused(error);
        let Some(current) = &mut self.current else {
            return Err(refused(Error::invalid("no log file was begun")));
        };
        self.buffer.clear();
        frame::begin(&mut self.buffer);
        self.buffer.u64(seqno);
        let mut count = 0;
        for op in ops {
            op.encode(family_id(op.family()), &mut self.buffer);
            count += 1;
        }
        let end = current.file.len();
        let synced = synced.saturating_sub(current.base).min(end);
        frame::finish(current.id, end, synced, &mut self.buffer, 0).map_err(refused)?;
        let bytes = self.buffer.len() as u64;
        if end + bytes > current.reserved {
            let more = (end / 2).clamp(RESERVE_BYTES_MIN, RESERVE_BYTES_MAX).max(bytes);
            current.file.reserve(more).map_err(|error| {
                refused(
                    error
                        .recode(Code::BackendReadOnly)
                        .context("the log has no space; the write can be repeated when there is some"),
                )
            })?;
            current.reserved = end + more;
        }
        let appended = current.file.append(self.buffer.as_slice());
        if self.buffer.len() > BUFFER_BYTES_MAX {
            self.buffer = Sink::new();
        }
        appended.map_err(Failure::Broken)?;
        self.position += bytes;
        self.seqno_max = seqno + count - 1;
        Ok(())
    }
}
