//! The manifest: a log of version edits, and CURRENT, which names it.
//!
//! ```text
//! CURRENT            "MANIFEST-000007 0123456789abcdef\n"      name, xxh3-64 of the name
//! MANIFEST-000007    header (44)  magic "KBMANIF1" · version u32 · number u64 · store id u128 · xxh3-64
//!                    frames       keybed_format::frame, log id = store id ^ number; one edit each,
//!                                 the first builds the whole set
//! ```
//! A store that is opened, and a manifest that reaches [`ROLL_BYTES`], start a new manifest: header and full edit
//! are written and synced, then CURRENT is replaced by rename: that rename makes it visible. A crash before leaves
//! the old manifest in charge and a stray file that the next open removes. A torn last frame is dropped at open.
//! A failed append poisons: what the file holds is unknown. Page: docs/format/manifest.md.

use super::{edit::Edit, set::VersionSet};
use crate::read_only::NoFile;
use keybed_env::{Fs, WriteFile};
use keybed_format::{Code, Cursor, Error, Result, Sink, checksum, frame};
use std::path::{Path, PathBuf};

/// Name of the file that names the manifest.
pub const CURRENT: &str = "CURRENT";
const CURRENT_TEMPORARY: &str = "CURRENT.tmp";
const CURRENT_BYTES_MAX: u64 = 256;
const MAGIC: [u8; 8] = *b"KBMANIF1";
/// Newest version of the manifest's layout.
pub const VERSION: u32 = 1;
/// Bytes before the first frame.
pub const HEADER_BYTES: usize = 44;
/// A manifest of this length is replaced by a full edit.
pub const ROLL_BYTES: u64 = 1 << 20;
/// Longest manifest that is read: far above what [`ROLL_BYTES`] and one full edit can give.
const MANIFEST_BYTES_MAX: u64 = 256 << 20;
/// Space that is set aside at a time.
const RESERVE_BYTES: u64 = 16 << 10;

/// Name of manifest `number`.
pub fn file_name(number: u64) -> String {
    format!("MANIFEST-{number:06}")
}

/// The number in a manifest's name.
pub fn file_number(name: &str) -> Option<u64> {
    let digits = name.strip_prefix("MANIFEST-")?;
    let number = digits.parse().ok()?;
    (file_name(number) == name).then_some(number)
}

/// What a manifest was found to say.
#[derive(Debug)]
pub struct Recovered {
    /// Number of the manifest.
    pub number: u64,
    /// Names the store for its life.
    pub store_id: u128,
    /// The set after the last good edit.
    pub set: VersionSet,
    /// Bytes dropped behind the last good edit.
    pub torn_bytes: u64,
}

/// Reads CURRENT; `None` if there is none.
///
/// # Errors
/// `ManifestCorrupt` if its bytes are not what was written.
pub fn read_current(fs: &dyn Fs, dir: &Path) -> Result<Option<String>> {
    let path = dir.join(CURRENT);
    if fs.facts(&path)?.is_none() {
        return Ok(None);
    }
    let corrupt = || {
        Error::new(Code::ManifestCorrupt, "CURRENT does not name a manifest")
            .in_file(&path)
            .at(0)
    };
    let bytes = fs
        .read(&path, CURRENT_BYTES_MAX)
        .map_err(|e| e.recode_malformed(Code::ManifestCorrupt))?;
    let text = std::str::from_utf8(&bytes).map_err(|_| corrupt())?;
    let name = text.split(' ').next().unwrap_or_default();
    if text != current_text(name) || file_number(name).is_none() {
        return Err(corrupt());
    }
    Ok(Some(name.to_owned()))
}

fn current_text(name: &str) -> String {
    format!("{name} {:016x}\n", checksum::hash(name.as_bytes()))
}

fn log_id(store_id: u128, number: u64) -> u128 {
    store_id ^ u128::from(number)
}

fn header(number: u64, store_id: u128) -> Vec<u8> {
    let mut out = Sink::with_capacity(HEADER_BYTES);
    out.raw(&MAGIC).u32(VERSION).u64(number).u128(store_id);
    let sum = checksum::hash(out.as_slice());
    out.u64(sum);
    out.into_vec()
}

/// Decodes the bytes of the manifest `number`.
///
/// # Errors
/// `Malformed` with the offset; `UnsupportedFormatVersion` if it is newer.
pub fn decode(number: u64, bytes: &[u8]) -> Result<Recovered> {
    let mut c = Cursor::new(bytes);
    let head = c.clone().take(HEADER_BYTES - 8)?;
    if c.array::<8>()? != MAGIC {
        return Err(Error::new(Code::Malformed, "the manifest's magic number is another one").at(0));
    }
    let (version, found_number, store_id, sum) = (c.u32()?, c.u64()?, c.u128()?, c.u64()?);
    if sum != checksum::hash(head) {
        return Err(Error::new(Code::Malformed, "the checksum of the manifest's header differs").at(0));
    }
    if version != VERSION {
        return Err(Error::new(
            Code::UnsupportedFormatVersion,
            "the manifest's version is not known",
        )
        .at(8)
        .expected_found(VERSION, version));
    }
    if found_number != number {
        return Err(
            Error::new(Code::Malformed, "the manifest has another number than its name")
                .at(12)
                .expected_found(number, found_number),
        );
    }
    let replay = frame::replay(log_id(store_id, number), bytes, HEADER_BYTES as u64)?;
    if replay.payloads.is_empty() {
        return Err(Error::new(Code::Malformed, "the manifest has no full edit").at(HEADER_BYTES as u64));
    }
    let mut set = VersionSet::default();
    for (at, payload) in &replay.payloads {
        let edit = Edit::decode(payload, at + frame::HEADER_BYTES as u64)?;
        set.apply(&edit).map_err(|e| e.at(*at))?;
    }
    Ok(Recovered {
        number,
        store_id,
        set,
        torn_bytes: replay.torn_bytes,
    })
}

/// Reads the manifest that CURRENT names.
///
/// # Errors
/// `ManifestCorrupt` with file and offset; errors of the file system.
pub fn recover(fs: &dyn Fs, dir: &Path, name: &str) -> Result<Recovered> {
    let path = dir.join(name);
    let bytes = fs.read(&path, MANIFEST_BYTES_MAX).map_err(|e| match e.code() {
        Code::NotFound => e
            .recode(Code::ManifestCorrupt)
            .context("CURRENT names a manifest that is missing"),
        _ => e.recode_malformed(Code::ManifestCorrupt),
    })?;
    decode(file_number(name).unwrap_or(0), &bytes)
        .map_err(|e| e.in_file(path).recode_malformed(Code::ManifestCorrupt))
}

/// The manifest that is being written, with the set it describes.
#[derive(Debug)]
pub struct Manifest {
    dir: PathBuf,
    number: u64,
    store_id: u128,
    set: VersionSet,
    file: Box<dyn WriteFile>,
    /// Bytes known to be durable: a witness for the reader.
    synced: u64,
    /// Up to here there is space for sure.
    reserved: u64,
    /// Length after the full edit it began with.
    first_bytes: u64,
}

impl Manifest {
    /// Starts manifest `number` with a full edit of `set` and makes it current.
    ///
    /// # Errors
    /// Errors of the file system; the old manifest, if any, may still be in charge.
    pub fn create(fs: &dyn Fs, dir: &Path, number: u64, store_id: u128, set: VersionSet) -> Result<Manifest> {
        let manifest = Manifest::prepare(fs, dir, number, store_id, set)?;
        manifest.make_current(fs)?;
        Ok(manifest)
    }

    /// Writes manifest `number` with a full edit of `set`, of which nobody knows yet.
    fn prepare(fs: &dyn Fs, dir: &Path, number: u64, store_id: u128, set: VersionSet) -> Result<Manifest> {
        let name = file_name(number);
        let path = dir.join(&name);
        if fs.facts(&path)?.is_some() {
            // Left by a crash before CURRENT named it.
            fs.remove_file(&path)?;
        }
        let mut file = fs.create(&path)?;
        let mut bytes = header(number, store_id);
        bytes.extend(frame::write(
            log_id(store_id, number),
            HEADER_BYTES as u64,
            0,
            &set.full_edit().encode(),
        ));
        file.append(&bytes)?;
        file.sync()?;
        // write_atomic syncs the directory after the rename, which covers the manifest's name as well; but the name
        // must be durable before CURRENT mentions it.
        fs.sync_dir(dir)?;
        let synced = file.len();
        Ok(Manifest {
            dir: dir.to_path_buf(),
            number,
            store_id,
            set,
            file,
            synced,
            reserved: synced,
            first_bytes: synced,
        })
    }

    /// A manifest that is only looked at.
    pub(crate) fn unwritten(dir: &Path, number: u64, store_id: u128, set: VersionSet) -> Manifest {
        Manifest {
            dir: dir.to_path_buf(),
            number,
            store_id,
            set,
            file: Box::new(NoFile),
            synced: 0,
            reserved: 0,
            first_bytes: 0,
        }
    }

    /// Makes CURRENT name this manifest.
    fn make_current(&self, fs: &dyn Fs) -> Result {
        let temporary = self.dir.join(CURRENT_TEMPORARY);
        if fs.facts(&temporary)?.is_some() {
            fs.remove_file(&temporary)?;
        }
        let text = current_text(&file_name(self.number));
        fs.write_atomic(&self.dir.join(CURRENT), &temporary, text.as_bytes())
    }

    /// What the manifest says.
    pub fn set(&self) -> &VersionSet {
        &self.set
    }

    /// Sets space aside for an edit, so that appending it does not meet a full medium.
    ///
    /// # Errors
    /// Errors of the file system, usually a full one: nothing happened.
    pub fn reserve(&mut self, edit: &Edit) -> Result {
        let bytes = (frame::HEADER_BYTES + edit.encode().len()) as u64;
        let end = self.file.len();
        if end + bytes > self.reserved {
            let more = bytes.max(RESERVE_BYTES);
            self.file.reserve(more)?;
            self.reserved = end + more;
        }
        Ok(())
    }

    /// Makes every edit durable.
    ///
    /// # Errors
    /// Errors of the file system: the manifest must not be written any more.
    pub fn sync(&mut self) -> Result {
        if self.synced < self.file.len() {
            self.file.sync()?;
            self.synced = self.file.len();
        }
        Ok(())
    }

    /// Applies an edit and appends it. Durable after [`Manifest::sync`]; a torn tail is dropped at open.
    ///
    /// # Errors
    /// Errors of the file system: the manifest must not be written any more.
    ///
    /// # Panics
    /// If the edit contradicts the set: edits made here are right by construction.
    pub fn append(&mut self, edit: &Edit) -> Result {
        if let Err(error) = self.set.apply(edit) {
            panic!("an edit contradicts the version set: {error}");
        }
        let at = self.file.len();
        let bytes = frame::write(
            log_id(self.store_id, self.number),
            at,
            self.synced,
            &edit.encode(),
        );
        self.file.append(&bytes)
    }

    /// Starts the next manifest if this one has grown long.
    ///
    /// # Errors
    /// Those of replacing CURRENT: the manifest must not be written any more.
    pub fn roll(&mut self, fs: &dyn Fs, at_bytes: u64) -> Result<bool> {
        // A set whose full edit alone is long is not written again with every edit.
        if self.file.len() < at_bytes.max(2 * self.first_bytes) {
            return Ok(false);
        }
        let number = self.number + 1;
        let Ok(next) = Manifest::prepare(fs, &self.dir, number, self.store_id, self.set.clone()) else {
            // Nobody knows of the new one: this one is as good as before, and the next edit tries again.
            let _ = fs.remove_file(&self.dir.join(file_name(number)));
            return Ok(false);
        };
        next.make_current(fs)?;
        let old = self.dir.join(file_name(self.number));
        *self = next;
        // Removing the old one is tidiness; the next open does it otherwise.
        let _ = fs.remove_file(&old);
        Ok(true)
    }
}
