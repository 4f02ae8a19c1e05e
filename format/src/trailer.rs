//! The trailer of every immutable file: one xxh3-64 per MiB and a digest over them.
//!
//! Any crate can verify any file with it, to the MiB, without knowing its content.
//!
//! ```text
//! content                                     `content length` bytes
//! chunk sums     u64 × ⌈content length / 1 MiB⌉   bound to (content id, offset of the chunk)
//! tail (48)      content id u128 · content length u64 · digest u64 · kind u32 · version u32 · magic "KBTRAIL1"
//! ```
//! The digest is the xxh3-64 of the chunk sums followed by the first 24 and the next 8 bytes of the tail (content
//! id, content length, kind, version), so every byte of the file is under a sum. Page: docs/format/trailer.md.

use crate::{
    Code, Cursor, Error, Result, Sink,
    checksum::{self, BoundHasher},
};

/// Bytes of content under one sum.
pub const CHUNK_BYTES: usize = 1 << 20;
/// Length of the fixed tail.
pub const TAIL_BYTES: usize = 48;
/// Newest version of the trailer.
pub const VERSION: u32 = 1;
const MAGIC: [u8; 8] = *b"KBTRAIL1";

/// What the trailer says about its file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trailer {
    /// Names the content; every copy of the bytes keeps it.
    pub content_id: u128,
    /// Bytes before the trailer.
    pub content_bytes: u64,
    /// Digest over all sums.
    pub digest: u64,
    /// Kind of file, four ASCII letters by convention.
    pub kind: u32,
}

impl Trailer {
    /// Length of the whole file: content, sums and tail.
    pub fn file_bytes(&self) -> u64 {
        self.content_bytes + sums_bytes(self.content_bytes) + TAIL_BYTES as u64
    }
}

fn sums_bytes(content_bytes: u64) -> u64 {
    content_bytes.div_ceil(CHUNK_BYTES as u64) * 8
}

/// Sums the content while it is written.
#[derive(Debug)]
pub struct TrailerBuilder {
    content_id: u128,
    kind: u32,
    content_bytes: u64,
    /// What the open MiB holds so far; `None` where one begins.
    chunk: Option<BoundHasher>,
    sums: Vec<u64>,
}

impl TrailerBuilder {
    /// For a file of `kind` whose bytes are named `content_id`.
    pub fn new(content_id: u128, kind: u32) -> Self {
        TrailerBuilder {
            content_id,
            kind,
            content_bytes: 0,
            chunk: None,
            sums: Vec::new(),
        }
    }

    /// Takes note of bytes appended to the file.
    pub fn update(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let filled = (self.content_bytes % CHUNK_BYTES as u64) as usize;
            let (now, later) = bytes.split_at(bytes.len().min(CHUNK_BYTES - filled));
            let chunk = match &mut self.chunk {
                Some(chunk) => chunk,
                None => self
                    .chunk
                    .insert(BoundHasher::new(self.content_id, self.content_bytes)),
            };
            chunk.update(now);
            self.content_bytes += now.len() as u64;
            if filled + now.len() == CHUNK_BYTES {
                self.seal();
            }
            bytes = later;
        }
    }

    fn seal(&mut self) {
        self.sums.extend(self.chunk.take().map(|chunk| chunk.finish()));
    }

    /// The bytes to append after the content, and what they say.
    pub fn finish(mut self) -> (Vec<u8>, Trailer) {
        self.seal();
        let mut out = Sink::with_capacity(self.sums.len() * 8 + TAIL_BYTES);
        for sum in &self.sums {
            out.u64(*sum);
        }
        let digest = digest(out.as_slice(), self.content_id, self.content_bytes, self.kind);
        out.u128(self.content_id)
            .u64(self.content_bytes)
            .u64(digest)
            .u32(self.kind)
            .u32(VERSION)
            .raw(&MAGIC);
        let trailer = Trailer {
            content_id: self.content_id,
            content_bytes: self.content_bytes,
            digest,
            kind: self.kind,
        };
        (out.into_vec(), trailer)
    }
}

fn digest(sums: &[u8], content_id: u128, content_bytes: u64, kind: u32) -> u64 {
    let mut facts = Sink::new();
    facts.u128(content_id).u64(content_bytes).u32(kind).u32(VERSION);
    let mut hasher = checksum::Hasher::new();
    hasher.update(sums);
    hasher.update(facts.as_slice());
    hasher.finish()
}

/// Reads bytes of a file at an offset; all of `buffer` or an error.
pub type ReadAt<'a> = dyn FnMut(u64, &mut [u8]) -> Result + 'a;

fn corrupt(message: &str, offset: u64) -> Error {
    Error::new(Code::Malformed, message).at(offset)
}

/// Reads and checks the trailer of a file of `file_bytes` bytes without reading its content.
///
/// # Errors
/// `Malformed` with the offset if the trailer is damaged, cut off or belongs to another length;
/// `UnsupportedFormatVersion` if it is newer.
pub fn read(file_bytes: u64, read_at: &mut ReadAt<'_>) -> Result<Trailer> {
    Ok(ChunkSums::read(file_bytes, read_at)?.trailer)
}

/// A trailer with its sums: what verifies a file a MiB at a time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChunkSums {
    trailer: Trailer,
    sums: Vec<u64>,
}

impl ChunkSums {
    /// As [`read`].
    ///
    /// # Errors
    /// As [`read`].
    pub fn read(file_bytes: u64, read_at: &mut ReadAt<'_>) -> Result<ChunkSums> {
        let (trailer, sums) = read_with_sums(file_bytes, read_at)?;
        Ok(ChunkSums { trailer, sums })
    }

    /// What the trailer says.
    pub fn trailer(&self) -> &Trailer {
        &self.trailer
    }

    /// Bytes of the MiB that starts at `offset`: less at the end of the content, none behind it.
    pub fn chunk_bytes(&self, offset: u64) -> usize {
        self.trailer
            .content_bytes
            .saturating_sub(offset)
            .min(CHUNK_BYTES as u64) as usize
    }

    /// Checks the whole MiB that starts at `offset`.
    ///
    /// # Errors
    /// `Malformed` with the offset.
    pub fn check(&self, offset: u64, chunk: &[u8]) -> Result {
        let found = checksum::bound(chunk, self.trailer.content_id, offset);
        let index = usize::try_from(offset / CHUNK_BYTES as u64).unwrap_or(usize::MAX);
        match self.sums.get(index) {
            Some(expected) if *expected == found => Ok(()),
            Some(expected) => Err(corrupt("the checksum of a MiB differs", offset)
                .expected_found(format_args!("{expected:016x}"), format_args!("{found:016x}"))),
            None => Err(corrupt("the content has no such MiB", offset)),
        }
    }
}

fn read_with_sums(file_bytes: u64, read_at: &mut ReadAt<'_>) -> Result<(Trailer, Vec<u64>)> {
    let Some(tail_at) = file_bytes.checked_sub(TAIL_BYTES as u64) else {
        return Err(corrupt("the file is shorter than a trailer", 0).with("bytes", file_bytes));
    };
    let mut tail = [0; TAIL_BYTES];
    read_at(tail_at, &mut tail)?;
    let mut c = Cursor::with_base(&tail, tail_at);
    let (content_id, content_bytes, found, kind, version) =
        (c.u128()?, c.u64()?, c.u64()?, c.u32()?, c.u32()?);
    if c.array::<8>()? != MAGIC {
        return Err(corrupt("the trailer's magic number is another one", tail_at + 40));
    }
    if version == 0 {
        return Err(corrupt("the trailer has no version", tail_at + 36));
    }
    let sums = verified_sums((content_id, content_bytes, kind, found), tail_at, read_at);
    if version != VERSION {
        // What verifies as this version is not newer: the word was damaged.
        return Err(match sums {
            Ok(_) => corrupt(
                "the trailer's version is another one than was written",
                tail_at + 36,
            )
            .expected_found(VERSION, version),
            Err(e) if e.code() != Code::Malformed => e,
            Err(_) => Error::new(
                Code::UnsupportedFormatVersion,
                "the trailer's version is not known",
            )
            .at(tail_at + 36)
            .expected_found(VERSION, version),
        });
    }
    let sums = sums?;
    let mut c = Cursor::new(&sums);
    let mut list = Vec::with_capacity(sums.len() / 8);
    while !c.is_empty() {
        list.push(c.u64()?);
    }
    Ok((
        Trailer {
            content_id,
            content_bytes,
            digest: found,
            kind,
        },
        list,
    ))
}

/// The bytes of the sums that the tail at `tail_at` vouches for.
fn verified_sums(
    (content_id, content_bytes, kind, found): (u128, u64, u32, u64),
    tail_at: u64,
    read_at: &mut ReadAt<'_>,
) -> Result<Vec<u8>> {
    if content_bytes > tail_at || tail_at - content_bytes != sums_bytes(content_bytes) {
        return Err(
            corrupt("the trailer belongs to a file of another length", tail_at + 16)
                .expected_found(tail_at, content_bytes),
        );
    }
    let mut sums = vec![0; (tail_at - content_bytes) as usize];
    read_at(content_bytes, &mut sums)?;
    let expected = digest(&sums, content_id, content_bytes, kind);
    if expected == found {
        return Ok(sums);
    }
    Err(corrupt("the digest of the trailer differs", tail_at + 24)
        .expected_found(format_args!("{expected:016x}"), format_args!("{found:016x}")))
}

/// Reads the whole file and checks every byte of it.
///
/// # Errors
/// As [`read`]; damage in the content is reported at the start of the damaged MiB.
pub fn verify(file_bytes: u64, read_at: &mut ReadAt<'_>) -> Result<Trailer> {
    verify_parts(file_bytes, &[(0, u64::MAX)], read_at)
}

/// As [`verify`], for the MiBs that meet one of `parts` (start, end) of the content: what a reader of a part needs.
///
/// # Errors
/// As [`verify`].
pub fn verify_parts(file_bytes: u64, parts: &[(u64, u64)], read_at: &mut ReadAt<'_>) -> Result<Trailer> {
    let sums = ChunkSums::read(file_bytes, read_at)?;
    let mut chunk = vec![0; sums.chunk_bytes(0)];
    for offset in (0..sums.trailer.content_bytes).step_by(CHUNK_BYTES) {
        let meets = |(start, end): &(u64, u64)| *start < offset + CHUNK_BYTES as u64 && *end > offset;
        if !parts.iter().any(meets) {
            continue;
        }
        let chunk = &mut chunk[..sums.chunk_bytes(offset)];
        read_at(offset, chunk)?;
        sums.check(offset, chunk)?;
    }
    Ok(sums.trailer)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(content: &[u8]) -> (Vec<u8>, Trailer) {
        let mut builder = TrailerBuilder::new(42, u32::from_le_bytes(*b"test"));
        for piece in content.chunks(1000) {
            builder.update(piece);
        }
        let (tail, trailer) = builder.finish();
        ([content, &tail].concat(), trailer)
    }

    fn check(bytes: &[u8]) -> Result<Trailer> {
        verify(bytes.len() as u64, &mut |offset, buffer| {
            let start = offset as usize;
            let part = bytes.get(start..start + buffer.len());
            buffer.copy_from_slice(part.ok_or_else(|| corrupt("read past the end", offset))?);
            Ok(())
        })
    }

    #[test]
    fn round_trip_at_the_edges_of_a_chunk() {
        for n in [
            0,
            1,
            CHUNK_BYTES - 1,
            CHUNK_BYTES,
            CHUNK_BYTES + 1,
            3 * CHUNK_BYTES,
        ] {
            let (bytes, trailer) = file(&vec![7; n]);
            assert_eq!(check(&bytes).unwrap(), trailer, "{n} bytes");
            assert_eq!(trailer.file_bytes(), bytes.len() as u64);
        }
    }

    #[test]
    fn pieces_do_not_matter() {
        let content = vec![3; 2 * CHUNK_BYTES + 5];
        let mut whole = TrailerBuilder::new(42, u32::from_le_bytes(*b"test"));
        whole.update(&content);
        assert_eq!(whole.finish().1, file(&content).1);
    }

    #[test]
    fn every_flipped_bit_is_found() {
        let (good, _) = file(b"some content");
        for bit in 0..good.len() * 8 {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(check(&bad).unwrap_err().code(), Code::Malformed, "bit {bit}");
        }
    }

    #[test]
    fn every_truncation_is_found() {
        let (good, _) = file(b"some content");
        for n in 0..good.len() {
            assert!(check(&good[..n]).is_err(), "length {n}");
        }
    }

    #[test]
    fn parts_are_checked_without_the_rest() {
        let (mut bytes, trailer) = file(&vec![5; 3 * CHUNK_BYTES]);
        bytes[CHUNK_BYTES + 9] ^= 1;
        let parts = |parts: &[(u64, u64)]| {
            verify_parts(bytes.len() as u64, parts, &mut |offset, buffer| {
                let start = offset as usize;
                buffer.copy_from_slice(&bytes[start..start + buffer.len()]);
                Ok(())
            })
        };
        let mib = CHUNK_BYTES as u64;
        assert_eq!(parts(&[(0, mib), (2 * mib, 2 * mib + 1)]).unwrap(), trailer);
        assert_eq!(parts(&[(mib - 1, mib + 1)]).unwrap_err().offset(), Some(mib));
    }

    #[test]
    fn a_damaged_version_is_damage_and_a_newer_one_is_news() {
        let (good, _) = file(b"some content");
        let (version_at, digest_at) = (good.len() - 12, good.len() - 24);
        for version in [0, 2, 3, 0x81] {
            let mut bad = good.clone();
            bad[version_at] = version;
            let error = check(&bad).unwrap_err();
            assert_eq!(
                (error.code(), error.offset()),
                (Code::Malformed, Some(version_at as u64)),
                "{version}"
            );
        }
        // A newer writer covers its own version by the digest.
        let mut newer = good;
        newer[version_at] = 2;
        newer[digest_at] ^= 0xff;
        assert_eq!(check(&newer).unwrap_err().code(), Code::UnsupportedFormatVersion);
    }

    #[test]
    fn damage_is_named_to_the_chunk() {
        let (mut bytes, _) = file(&vec![1; 2 * CHUNK_BYTES]);
        bytes[CHUNK_BYTES + 17] ^= 1;
        assert_eq!(check(&bytes).unwrap_err().offset(), Some(CHUNK_BYTES as u64));
    }
}
