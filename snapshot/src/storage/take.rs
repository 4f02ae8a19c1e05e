//! Taking a finished local file in: linked or copied, of the announced length, its bytes durable.
//!
//! Once a sync of a linked file has failed, sources are copied instead, and the copy is checked by its trailer.

use super::copy_out;
use crate::LocalFile;
use keybed_env::{Fs, WriteFile};
use keybed_format::{Code, Error, Result, trailer};
use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

impl LocalFile<'_> {
    /// Content id, digest and bytes.
    pub(crate) fn names(&self) -> (u128, u64, u64) {
        (self.content, self.digest, self.bytes)
    }

    /// Refuses a file whose trailer is not the one announced: a wrong handle must not reach the metadata.
    ///
    /// # Errors
    /// `Malformed`; errors of the file system.
    pub(crate) fn demand_announced(&self) -> Result {
        let file = self.fs.open(self.path)?;
        let found = trailer::read(file.len(), &mut |offset, buffer| {
            file.read_exact_at(buffer, offset)
        })
        .map_err(|e| e.in_file(self.path))?;
        if (found.content_id, found.digest, file.len()) == (self.content, self.digest, self.bytes) {
            return Ok(());
        }
        Err(Error::new(Code::Malformed, "the file is not the one announced")
            .in_file(self.path)
            .expected_found(
                format_args!(
                    "{:032x}, digest {:016x}, {} bytes",
                    self.content, self.digest, self.bytes
                ),
                format_args!(
                    "{:032x}, digest {:016x}, {} bytes",
                    found.content_id,
                    found.digest,
                    file.len()
                ),
            ))
    }
}

/// Takes files in and remembers whether links can be trusted. Clones share that memory: whatever links the same local
/// files must, because a sync that succeeds says nothing of bytes that an earlier one lost, whoever asked for it.
#[derive(Clone, Debug, Default)]
pub struct Intake {
    /// A sync of a linked file failed: its source may have lost bytes that no later sync will write, though they
    /// can still be read. From then on sources are copied and checked. Relaxed: nothing else hangs on it.
    links_distrusted: Arc<AtomicBool>,
}

impl Intake {
    /// Makes `path` of `local`, `bytes` long, available as the new file `to` of `fs` with durable bytes: by link if
    /// `may_link` and where that is possible, else by copy. Tells whether it is a link.
    ///
    /// # Errors
    /// `TargetExists`; `Malformed` if the file has another length; errors of either side. On error `to` does not
    /// exist or is garbage of this call, unless it was taken.
    pub(crate) fn take(
        &self,
        (local, from): (&dyn Fs, &Path),
        bytes: u64,
        (fs, to): (&dyn Fs, &Path),
        may_link: bool,
    ) -> Result<bool> {
        let same = fs.namespace().is_some() && fs.namespace() == local.namespace();
        let distrusted = self.links_distrusted.load(Ordering::Relaxed);
        let shared = may_link && same && !distrusted && linked(fs, from, to)?;
        if !shared {
            if same {
                fs.copy(from, to)?;
            } else {
                copy_out(&*local.open(from)?, fs, to)?;
            }
        }
        let settle = || {
            let mut file = of_length(fs, (from, to), bytes)?;
            if distrusted {
                let copy = fs.open(to)?;
                trailer::verify(copy.len(), &mut |offset, buffer| {
                    copy.read_exact_at(buffer, offset)
                })
                .map_err(|e| e.in_file(from))?;
            }
            file.sync().inspect_err(|_| {
                if shared {
                    self.links_distrusted.store(true, Ordering::Relaxed);
                }
            })
        };
        settle().inspect_err(|_| {
            // Abandoned: never synced again under this name.
            let _ = fs.remove_file(to);
        })?;
        Ok(shared)
    }

    /// As [`Intake::take`], by link alone: `false`, with nothing changed, if the medium has none, or if the file is not
    /// ours to make durable.
    ///
    /// # Errors
    /// As [`Intake::take`].
    pub(crate) fn link(
        &self,
        (local, from): (&dyn Fs, &Path),
        bytes: u64,
        (fs, to): (&dyn Fs, &Path),
    ) -> Result<bool> {
        let same = fs.namespace().is_some() && fs.namespace() == local.namespace();
        if !same || self.links_distrusted.load(Ordering::Relaxed) || !linked(fs, from, to)? {
            return Ok(false);
        }
        let settled = of_length(fs, (from, to), bytes).and_then(|mut file| {
            file.sync().inspect_err(|_| {
                self.links_distrusted.store(true, Ordering::Relaxed);
            })
        });
        match settled {
            Ok(()) => Ok(true),
            Err(error) => {
                fs.remove_file(to)?;
                if links_impossible(&error) {
                    Ok(false)
                } else {
                    Err(error)
                }
            }
        }
    }
}

/// Opens a file that was taken in, if it has the announced length.
fn of_length(fs: &dyn Fs, (from, to): (&Path, &Path), bytes: u64) -> Result<Box<dyn WriteFile>> {
    let file = fs.append(to)?;
    if file.len() == bytes {
        return Ok(file);
    }
    Err(
        Error::new(Code::Malformed, "the file has another length than announced")
            .in_file(from)
            .expected_found(bytes, file.len()),
    )
}

/// Whether a link failed because of the medium, so that a copy may do.
pub(crate) fn links_impossible(error: &Error) -> bool {
    use std::io::ErrorKind::{CrossesDevices, PermissionDenied, TooManyLinks, Unsupported};
    matches!(
        error.io_kind(),
        Some(CrossesDevices | Unsupported | PermissionDenied | TooManyLinks)
    )
}

/// Links `from` of `fs` to `to`; `false` if only a copy can do.
pub(crate) fn linked(fs: &dyn Fs, from: &Path, to: &Path) -> Result<bool> {
    match fs.link(from, to) {
        Ok(()) => Ok(true),
        Err(e) if links_impossible(&e) => Ok(false),
        Err(e) => Err(e),
    }
}
