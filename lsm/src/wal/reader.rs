//! Which files and frames of a log are good, and what is in them.
//!
//! ```text
//! examine   bytes of one file ─► facts: header, where the good frames end, what it witnesses     (pure)
//! decide    facts of all files ─► what to replay, to cut off, to remove; or corruption           (pure)
//! replay    good frames of a file ─► (seqno, operation) …
//! ```
//! The rule: the log is read up to the first damage or hole. Below anything known to have been durable that is
//! corruption; else everything behind is dropped, even if it can be read, and counted. Witnesses are frames (`synced`,
//! which for a file says that all earlier files are durable whole), headers (how far the file before was durable) and
//! the manifest (names of files, and a seqno, known to be durable).

use super::{FILE_BYTES_MAX, HEADER_BYTES, Header, file_number, log_id, path};
use crate::{
    batch::{Op, Ops, SEQNO_BYTES},
    key::{SEQNO_MAX, Seqno},
};
use keybed_env::Fs;
use keybed_format::{Code, Cursor, Error, Result, frame};
use std::path::Path;

/// What the manifest knows about the log.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Known {
    /// Names the store.
    pub(crate) store_id: u128,
    /// Files below are not needed any more.
    pub(crate) floor: u64,
    /// Names of files up to this one were durable.
    pub(crate) durable: u64,
    /// Writes up to this one were durable.
    pub(crate) synced_seqno: Seqno,
    /// The number of the next family: frames that name it or a larger one came after what the manifest knows.
    pub(crate) next_family: u32,
}

/// What the bytes of one file say.
#[derive(Debug)]
pub(crate) struct Facts {
    pub(crate) number: u64,
    pub(crate) bytes: u64,
    pub(crate) header: Result<Header>,
    /// End of the last good frame.
    pub(crate) end: u64,
    /// The newest write up to there, in this file or before.
    pub(crate) seqno_max: Seqno,
    /// What lies at `end`, if the file does not end there.
    pub(crate) torn: Option<Error>,
    /// Some frame of it knew that bytes of this file, and so all earlier files, were durable.
    pub(crate) is_witness: bool,
}

/// A good file, or the good part of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Good {
    pub(crate) number: u64,
    pub(crate) end: u64,
    pub(crate) seqno_max: Seqno,
    /// The file is longer: something torn is to be cut off.
    pub(crate) is_cut: bool,
}

/// What a log was found to hold.
#[derive(Debug, Default)]
pub(crate) struct Found {
    /// What to replay, in order.
    pub(crate) good: Vec<Good>,
    /// Files that hold nothing to replay.
    pub(crate) dropped: Vec<u64>,
    /// Bytes that are lost with what was torn.
    pub(crate) torn_bytes: u64,
    /// The largest number in use.
    pub(crate) number_max: u64,
}

/// Looks at the log files in `dir`; changes nothing.
///
/// # Errors
/// `ManifestCorrupt` with file and offset if something that was durable is damaged or missing;
/// `UnsupportedFormatVersion`; errors of the file system.
pub(crate) fn find(fs: &dyn Fs, dir: &Path, names: &[String], known: &Known) -> Result<Found> {
    let mut numbers: Vec<u64> = names.iter().filter_map(|name| file_number(name)).collect();
    numbers.sort_unstable();
    let number_max = numbers.last().copied().unwrap_or(0);
    let in_file = |number, error: Error| {
        error
            .in_file(path(dir, number))
            .recode_malformed(Code::ManifestCorrupt)
    };
    let mut all = Vec::new();
    for number in numbers.into_iter().filter(|number| *number >= known.floor) {
        let bytes = fs
            .read(&path(dir, number), FILE_BYTES_MAX)
            .map_err(|error| error.recode_malformed(Code::ManifestCorrupt))?;
        all.push(examine(number, &bytes, known).map_err(|error| in_file(number, error))?);
    }
    let mut found = decide(&all, known).map_err(|(number, error)| in_file(number, error))?;
    found.number_max = number_max.max(known.durable);
    Ok(found)
}

/// What the bytes of the file `number` say.
///
/// # Errors
/// `Malformed` with the offset if bytes known to have been durable are damaged, or if good frames contradict
/// themselves; `UnsupportedFormatVersion`.
pub(crate) fn examine(number: u64, bytes: &[u8], known: &Known) -> Result<Facts> {
    let mut facts = Facts {
        number,
        bytes: bytes.len() as u64,
        header: Header::decode(bytes, number, known.store_id),
        end: HEADER_BYTES as u64,
        seqno_max: 0,
        torn: None,
        is_witness: false,
    };
    let id = log_id(known.store_id, number);
    let header = match &facts.header {
        Ok(header) => header,
        Err(error) if error.code() == Code::UnsupportedFormatVersion => return Err(error.duplicate()),
        Err(_) => {
            facts.end = 0;
            facts.is_witness = frame::witness(id, bytes, 0) > 0;
            return Ok(facts);
        }
    };
    facts.seqno_max = header.first_seqno.saturating_sub(1);
    let replay = frame::replay(id, bytes, HEADER_BYTES as u64)?;
    let last_synced = replay.payloads.last().map_or(0, |(at, _)| synced_of(bytes, *at));
    facts.is_witness = last_synced > 0 || frame::witness(id, bytes, replay.end) > 0;
    for (at, payload) in &replay.payloads {
        let unknown = match check_frame(*at, payload, facts.seqno_max, known.next_family) {
            Ok(Checked::Good(seqno_max)) => {
                facts.seqno_max = seqno_max;
                facts.end = at + (frame::HEADER_BYTES + payload.len()) as u64;
                continue;
            }
            Ok(Checked::UnknownFamily(family)) => family,
            Err(error) => return Err(error),
        };
        let error = Error::new(
            Code::Malformed,
            "a frame names a family that the manifest does not know",
        )
        .at(*at)
        .with("family", unknown);
        // The manifest is synced before the log.
        if synced_max(bytes, &replay, *at) > *at {
            return Err(error);
        }
        facts.torn = Some(error);
        return Ok(facts);
    }
    if replay.torn_bytes > 0 {
        facts.torn = Some(Error::new(Code::Malformed, "a frame of the log is damaged").at(replay.end));
    }
    Ok(facts)
}

/// The field `synced` of the good frame at `at`.
fn synced_of(bytes: &[u8], at: u64) -> u64 {
    let at = usize::try_from(at).unwrap_or(usize::MAX).saturating_add(4);
    bytes
        .get(at..)
        .and_then(|rest| rest.first_chunk())
        .map_or(0, |word| u64::from_le_bytes(*word))
}

fn synced_max(bytes: &[u8], replay: &frame::Replay<'_>, from: u64) -> u64 {
    let behind = replay.payloads.iter().filter(|(at, _)| *at >= from);
    behind.map(|(at, _)| synced_of(bytes, *at)).max().unwrap_or(0)
}

enum Checked {
    /// The newest write up to here.
    Good(Seqno),
    UnknownFamily(u32),
}

/// Checks the payload of the frame at `at`, before which `seqno_max` was the newest write.
fn check_frame(at: u64, payload: &[u8], seqno_max: Seqno, next_family: u32) -> Result<Checked> {
    let (first, ops) = payload_of(at, payload)?;
    let mut count = 0;
    for op in ops {
        let family = op?.family();
        if family >= next_family {
            return Ok(Checked::UnknownFamily(family));
        }
        count += 1;
    }
    if first <= seqno_max || first.saturating_add(count) > SEQNO_MAX || count == 0 {
        return Err(Error::new(Code::Malformed, "the seqnos of the log do not rise")
            .at(at)
            .expected_found(format_args!("more than {seqno_max}"), first));
    }
    Ok(Checked::Good(first + count - 1))
}

/// First seqno and operations of the frame at `at`.
pub(crate) fn payload_of(at: u64, payload: &[u8]) -> Result<(Seqno, Ops<'_>)> {
    let base = at + frame::HEADER_BYTES as u64;
    let seqno = Cursor::with_base(payload, base).u64()?;
    let ops = payload.get(SEQNO_BYTES..).unwrap_or_default();
    Ok((seqno, Ops::new(ops, base + SEQNO_BYTES as u64)))
}

/// Where the log cannot be read on.
struct Damage {
    number: u64,
    at: u64,
    why: Error,
}

/// Decides what of the files is good.
///
/// # Errors
/// The file and `Malformed` with the offset of damage below what was durable.
pub(crate) fn decide(files: &[Facts], known: &Known) -> Result<Found, (u64, Error)> {
    let mut found = Found::default();
    let mut damage = None;
    for (index, file) in files.iter().enumerate() {
        if let Some(first) = accept(&mut found, &files[index..], known) {
            damage = Some(first);
            break;
        }
        debug_assert!(
            file.number >= known.floor,
            "files below the floor are not looked at"
        );
    }
    let last = found.good.last().map_or(0, |good| good.number);
    let seqno_max = found.good.last().map_or(0, |good| good.seqno_max);
    if let Some(damage) = damage {
        if let Some(witness) = witness_of(&damage, files, known, seqno_max) {
            return Err((damage.number, damage.why.with("durable_by", witness)));
        }
        drop_rest(&mut found, files, &damage);
        return Ok(found);
    }
    if known.durable >= known.floor.max(last + 1) && known.durable > 0 {
        let missing = Error::new(Code::Malformed, "a log file that was durable is missing").at(0);
        return Err((known.durable, missing));
    }
    if !files.is_empty() && seqno_max < known.synced_seqno && last > 0 {
        let end = found.good.last().map_or(0, |good| good.end);
        let missing = Error::new(Code::Malformed, "the log ends before a write that was durable")
            .at(end)
            .expected_found(known.synced_seqno, seqno_max);
        return Err((last, missing));
    }
    Ok(found)
}

/// Takes the first of `files` for good, or says why the log ends before or in it.
fn accept(found: &mut Found, files: &[Facts], known: &Known) -> Option<Damage> {
    let (file, later) = files.split_first()?;
    let header = match &file.header {
        Ok(header) => header,
        Err(error) => {
            let continued = |header: &Header| header.previous == file.number;
            let next = later.iter().find_map(|file| file.header.as_ref().ok());
            if next.is_some_and(|next| !continued(next)) {
                // Its beginning failed, and the log went on in the next file.
                found.dropped.push(file.number);
                found.torn_bytes += file.bytes;
                return None;
            }
            return Some(Damage {
                number: file.number,
                at: 0,
                why: error.duplicate(),
            });
        }
    };
    let hole = |number, at| {
        let why = Error::new(Code::Malformed, "a part of the log is missing")
            .at(at)
            .with("before", file.number);
        Some(Damage { number, at, why })
    };
    let is_empty = |good: &Good| good.end == HEADER_BYTES as u64;
    if found
        .good
        .last()
        .is_some_and(|last| header.previous < last.number && is_empty(last))
    {
        // It was never written to: its beginning failed, and could not be undone.
        let left_over = found.good.pop().map(|last| last.number);
        found.dropped.extend(left_over);
    }
    match found.good.last() {
        Some(last) if header.previous != last.number => return hole(header.previous, 0),
        Some(last) if header.previous_end != last.end => return hole(last.number, last.end),
        None if header.previous >= known.floor.max(1) => return hole(header.previous, 0),
        _ => {}
    }
    found.good.push(Good {
        number: file.number,
        end: file.end,
        seqno_max: file
            .seqno_max
            .max(found.good.last().map_or(0, |last| last.seqno_max)),
        is_cut: file.bytes > file.end,
    });
    let why = file.torn.as_ref()?;
    let next = later.iter().find_map(|file| file.header.as_ref().ok());
    if next.is_some_and(|next| (next.previous, next.previous_end) == (file.number, file.end)) {
        // An earlier opening cut this off, and a crash brought it back.
        return None;
    }
    Some(Damage {
        number: file.number,
        at: file.end,
        why: why.duplicate(),
    })
}

/// What knows that the damaged place had been durable.
fn witness_of(damage: &Damage, files: &[Facts], known: &Known, seqno_max: Seqno) -> Option<&'static str> {
    let later = || files.iter().filter(|file| file.number > damage.number);
    let in_header = |header: &Header| {
        (header.previous == damage.number && header.previous_synced > damage.at)
            || (header.previous > damage.number && header.previous_synced > 0)
    };
    let unread = damage.at < HEADER_BYTES as u64;
    if later().any(|file| file.is_witness)
        || (unread
            && files
                .iter()
                .any(|file| file.number == damage.number && file.is_witness))
    {
        Some("a frame")
    } else if later().any(|file| file.header.as_ref().is_ok_and(in_header)) {
        Some("a header")
    } else if known.durable > damage.number
        || (known.durable == damage.number && unread)
        || known.synced_seqno > seqno_max && !unread
    {
        Some("the manifest")
    } else {
        None
    }
}

/// Everything behind the damage is lost.
fn drop_rest(found: &mut Found, files: &[Facts], damage: &Damage) {
    for file in files {
        let good = found.good.iter().find(|good| good.number == file.number);
        match good {
            Some(good) if good.number == damage.number => found.torn_bytes += file.bytes - good.end,
            Some(_) => {}
            None if found.dropped.contains(&file.number) => {}
            None => {
                found.dropped.push(file.number);
                found.torn_bytes += file.bytes;
            }
        }
    }
}

/// Shows every operation in the good part of a file with its seqno.
///
/// # Errors
/// `ManifestCorrupt` if the file is not what it was when it was looked at; those of `each` and of the file system.
pub(crate) fn replay_file(
    fs: &dyn Fs,
    dir: &Path,
    good: &Good,
    store_id: u128,
    mut each: impl FnMut(Seqno, Op<'_>) -> Result,
) -> Result {
    let path = path(dir, good.number);
    let bytes = fs
        .read(&path, FILE_BYTES_MAX)
        .map_err(|error| error.recode_malformed(Code::ManifestCorrupt))?;
    let corrupt = |error: Error| error.in_file(&path).recode_malformed(Code::ManifestCorrupt);
    let end = usize::try_from(good.end).unwrap_or(usize::MAX);
    let bytes = bytes.get(..end).unwrap_or(&bytes);
    let replay = frame::replay(log_id(store_id, good.number), bytes, HEADER_BYTES as u64).map_err(corrupt)?;
    if replay.end != good.end {
        return Err(corrupt(
            Error::new(Code::Malformed, "the log changed while it was read").at(replay.end),
        ));
    }
    for (at, payload) in replay.payloads {
        let (first, ops) = payload_of(at, payload).map_err(corrupt)?;
        for (seqno, op) in (first..).zip(ops) {
            each(seqno, op.map_err(corrupt)?)?;
        }
    }
    Ok(())
}
