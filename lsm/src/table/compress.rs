//! Blocks as they are stored: compressed or not, behind them what they are and their checksum.
//!
//! ```text
//! stored block   payload · codec u8 (0 as it is, 1 LZ4, 2 zstd) · bytes before compression u32 · xxh3-64 u64
//! ```
//! The checksum covers payload, codec and length, and is bound to (table id, offset of the block).

use super::Compression;
use crate::{key::TableId, planted};
use keybed_format::{Code, Cursor, Error, Result, checksum};
use std::borrow::Cow;

/// Bytes behind the payload.
pub(crate) const TAIL_BYTES: usize = 13;
/// Largest block that is compressed, and so the largest that is decompressed, 16 MiB.
pub(crate) const COMPRESSED_FROM_BYTES_MAX: usize = 16 << 20;

const AS_IT_IS: u8 = 0;
const LZ4: u8 = 1;
const ZSTD: u8 = 2;

/// Compresses blocks; one per builder. Keeps the memory that compressed blocks are made in.
pub(crate) enum Compressor {
    None,
    Lz4(Vec<u8>),
    #[cfg(feature = "zstd")]
    Zstd(zstd::bulk::Compressor<'static>, Vec<u8>),
}

impl std::fmt::Debug for Compressor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Compressor::None => "None",
            Compressor::Lz4(_) => "Lz4",
            #[cfg(feature = "zstd")]
            Compressor::Zstd(..) => "Zstd",
        })
    }
}

impl Compression {
    /// Refuses what this build cannot write.
    ///
    /// # Errors
    /// `InvalidArgument`.
    pub(crate) fn check(self) -> Result {
        match self {
            Compression::Zstd(_) if !cfg!(feature = "zstd") => Err(Error::invalid(
                "zstd compression needs the feature `zstd`, which this build lacks",
            )),
            Compression::Zstd(level) if !(-7..=22).contains(&level) => {
                Err(Error::invalid("the zstd level is out of its bounds").expected_found("-7 to 22", level))
            }
            _ => Ok(()),
        }
    }
}

impl Compressor {
    pub(crate) fn new(compression: Compression) -> Result<Compressor> {
        compression.check()?;
        match compression {
            Compression::None => Ok(Compressor::None),
            Compression::Lz4 => Ok(Compressor::Lz4(Vec::new())),
            #[cfg(feature = "zstd")]
            Compression::Zstd(level) => zstd::bulk::Compressor::new(level)
                .map(|zstd| Compressor::Zstd(zstd, Vec::new()))
                .map_err(|e| Error::invalid(format!("zstd refuses level {level}: {e}"))),
            #[cfg(not(feature = "zstd"))]
            Compression::Zstd(_) => Ok(Compressor::None),
        }
    }

    /// Turns `out[start..]` into the stored block that lies at `offset` of table `id`. Compression that saves less than
    /// an eighth is not worth decompressing.
    pub(crate) fn store(&mut self, out: &mut Vec<u8>, start: usize, id: TableId, offset: u64) {
        let raw = out.get(start..).unwrap_or_default();
        let raw_bytes = raw.len();
        let packed = self.compress(raw);
        let packed = packed.filter(|(_, packed)| packed.len() <= raw_bytes - raw_bytes / 8);
        let codec = match packed {
            Some((codec, packed)) => {
                out.truncate(start);
                out.extend_from_slice(packed);
                codec
            }
            None => AS_IT_IS,
        };
        out.push(codec);
        out.extend_from_slice(&(raw_bytes as u32).to_le_bytes());
        let sum = checksum::bound(out.get(start..).unwrap_or_default(), id.0, offset);
        out.extend_from_slice(&sum.to_le_bytes());
    }

    /// Codec and compressed payload; `None` if there is none.
    fn compress(&mut self, raw: &[u8]) -> Option<(u8, &[u8])> {
        if raw.len() > COMPRESSED_FROM_BYTES_MAX {
            return None;
        }
        match self {
            Compressor::None => None,
            Compressor::Lz4(packed) => {
                grow(packed, lz4_flex::block::get_maximum_output_size(raw.len()));
                let written = lz4_flex::block::compress_into(raw, packed).ok()?;
                Some((LZ4, packed.get(..written)?))
            }
            #[cfg(feature = "zstd")]
            Compressor::Zstd(zstd, packed) => {
                grow(packed, zstd::zstd_safe::compress_bound(raw.len()));
                let written = zstd.compress_to_buffer(raw, packed.as_mut_slice()).ok()?;
                Some((ZSTD, packed.get(..written)?))
            }
        }
    }
}

/// Makes room without setting again what is there.
fn grow(buffer: &mut Vec<u8>, bytes: usize) {
    if buffer.len() < bytes {
        buffer.resize(bytes, 0);
    }
}

/// Makes stored blocks for other file formats that want the compression and the checksums of tables.
#[derive(Debug)]
pub struct BlockPacker(Compressor);

impl BlockPacker {
    /// A packer of one file.
    ///
    /// # Errors
    /// `InvalidArgument` if the compression is out of its bounds or not in this build.
    pub fn new(compression: Compression) -> Result<Self> {
        Compressor::new(compression).map(BlockPacker)
    }

    /// Turns `out[start..]` (below 4 GiB) into the stored block that lies at `offset` of the file named `id`.
    pub fn pack(&mut self, out: &mut Vec<u8>, start: usize, id: u128, offset: u64) {
        self.0.store(out, start, TableId(id), offset);
    }
}

/// What [`BlockPacker::pack`] was given, its checksum being right; allocates at most 16 MiB.
///
/// # Errors
/// `Malformed` with the offset; `UnsupportedFormatVersion` for zstd without its feature.
pub fn unpack_block(stored: &[u8], id: u128, offset: u64) -> Result<Cow<'_, [u8]>> {
    match open(stored, TableId(id), offset)? {
        Stored::Raw(raw) => Ok(Cow::Borrowed(raw)),
        Stored::Packed(packed) => packed.unpack().map(Cow::Owned),
    }
}

/// What a stored block turned out to be, its checksum being right.
pub(crate) enum Stored<'a> {
    /// The block itself.
    Raw(&'a [u8]),
    /// A payload to be given to [`Packed::unpack`].
    Packed(Packed<'a>),
}

/// A compressed payload.
pub(crate) struct Packed<'a> {
    payload: &'a [u8],
    codec: u8,
    raw_bytes: usize,
    offset: u64,
}

/// Checks a stored block that lies at `offset` of table `id`.
///
/// # Errors
/// `Malformed` with the offset.
pub(crate) fn open(stored: &[u8], id: TableId, offset: u64) -> Result<Stored<'_>> {
    let short = || Error::new(Code::Malformed, "a block is shorter than its tail").at(offset);
    let payload_bytes = stored.len().checked_sub(TAIL_BYTES).ok_or_else(short)?;
    let (payload, tail) = stored.split_at_checked(payload_bytes).ok_or_else(short)?;
    let mut tail = Cursor::with_base(tail, offset + payload_bytes as u64);
    let (codec, raw_bytes, found) = (tail.u8()?, tail.u32()? as usize, tail.u64()?);
    let summed = stored.get(..stored.len() - 8).ok_or_else(short)?;
    let expected = checksum::bound(summed, id.0, offset);
    if found != expected && !planted::is("checksum-not-checked") {
        return Err(Error::new(Code::Malformed, "the checksum of a block differs")
            .at(offset)
            .expected_found(format_args!("{expected:016x}"), format_args!("{found:016x}")));
    }
    match codec {
        AS_IT_IS if raw_bytes == payload.len() => Ok(Stored::Raw(payload)),
        LZ4 | ZSTD if raw_bytes <= COMPRESSED_FROM_BYTES_MAX => Ok(Stored::Packed(Packed {
            payload,
            codec,
            raw_bytes,
            offset,
        })),
        _ => Err(
            Error::new(Code::Malformed, "a block's codec or length is impossible")
                .at(offset)
                .with("codec", codec)
                .with("bytes", raw_bytes),
        ),
    }
}

impl Packed<'_> {
    /// The block in a vector of exactly its length.
    ///
    /// # Errors
    /// `Malformed` if the payload does not decompress to exactly the recorded length; `UnsupportedFormatVersion`
    /// for zstd without its feature.
    pub(crate) fn unpack(&self) -> Result<Vec<u8>> {
        let mut raw = vec![0; self.raw_bytes];
        let unpacked = match self.codec {
            LZ4 => lz4_flex::block::decompress_into(self.payload, &mut raw).ok(),
            _ => unpack_zstd(self.payload, &mut raw)?,
        };
        if unpacked == Some(self.raw_bytes) {
            Ok(raw)
        } else {
            Err(Error::new(Code::Malformed, "a block does not decompress")
                .at(self.offset)
                .with("codec", self.codec))
        }
    }
}

#[cfg(feature = "zstd")]
fn unpack_zstd(payload: &[u8], raw: &mut [u8]) -> Result<Option<usize>> {
    use std::cell::RefCell;
    use zstd::bulk::Decompressor;
    thread_local! {
        /// A context costs more to make than a block costs to decompress.
        static CONTEXT: RefCell<Option<Decompressor<'static>>> = const { RefCell::new(None) };
    }
    CONTEXT.with_borrow_mut(|context| {
        let context = match context {
            Some(context) => context,
            None => context.insert(
                Decompressor::new()
                    .map_err(|e| Error::new(Code::IoFailed, format!("zstd has no memory: {e}")))?,
            ),
        };
        Ok(context.decompress_to_buffer(payload, raw).ok())
    })
}

#[cfg(not(feature = "zstd"))]
fn unpack_zstd(_payload: &[u8], _raw: &mut [u8]) -> Result<Option<usize>> {
    Err(Error::new(
        Code::UnsupportedFormatVersion,
        "the block is compressed with zstd, and this build lacks the feature `zstd`",
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: TableId = TableId(3);

    fn all() -> Vec<Compression> {
        let mut all = vec![Compression::None, Compression::Lz4];
        if cfg!(feature = "zstd") {
            all.extend([Compression::Zstd(-5), Compression::Zstd(1), Compression::Zstd(19)]);
        }
        all
    }

    fn unpacked(stored: &[u8]) -> Result<Vec<u8>> {
        match open(stored, ID, 5)? {
            Stored::Raw(raw) => Ok(raw.to_vec()),
            Stored::Packed(packed) => packed.unpack(),
        }
    }

    /// A stored block with a right checksum, whatever it says.
    fn stored(payload: &[u8], codec: u8, raw_bytes: u32) -> Vec<u8> {
        let mut out = [payload, &[codec], &raw_bytes.to_le_bytes()].concat();
        let sum = checksum::bound(&out, ID.0, 5);
        out.extend(sum.to_le_bytes());
        out
    }

    #[test]
    fn blocks_come_back_and_bad_savings_are_not_kept() {
        let text: Vec<u8> = (0..20_000_u32).flat_map(|i| (i / 7).to_le_bytes()).collect();
        let noise: Vec<u8> = (0..5_000_u64)
            .flat_map(|i| checksum::hash(&i.to_le_bytes()).to_le_bytes())
            .collect();
        for compression in all() {
            let mut compressor = Compressor::new(compression).unwrap();
            for raw in [&text, &noise, &vec![], &vec![9; 3]] {
                let mut out = [b"before", raw.as_slice()].concat();
                compressor.store(&mut out, 6, ID, 5);
                assert_eq!(unpacked(&out[6..]).unwrap(), *raw, "{compression:?}");
                assert!(out.len() <= 6 + raw.len() + TAIL_BYTES);
            }
            let mut out = text.clone();
            compressor.store(&mut out, 0, ID, 5);
            assert_eq!(
                out.len() < text.len() / 2,
                compression != Compression::None,
                "{compression:?}"
            );
        }
    }

    #[test]
    fn lengths_that_lie_are_refused() {
        let packed = lz4_flex::block::compress(&[1; 1000]);
        assert_eq!(unpacked(&stored(&packed, LZ4, 1000)).unwrap(), [1; 1000]);
        for raw_bytes in [
            0,
            999,
            1001,
            COMPRESSED_FROM_BYTES_MAX as u32,
            COMPRESSED_FROM_BYTES_MAX as u32 + 1,
            u32::MAX,
        ] {
            assert!(unpacked(&stored(&packed, LZ4, raw_bytes)).is_err(), "{raw_bytes}");
        }
        assert!(unpacked(&stored(b"abc", AS_IT_IS, 4)).is_err());
        assert!(unpacked(&stored(b"abc", 3, 3)).is_err());
        let garbage = unpacked(&stored(b"abc", ZSTD, 3)).unwrap_err();
        let expected = if cfg!(feature = "zstd") {
            Code::Malformed
        } else {
            Code::UnsupportedFormatVersion
        };
        assert_eq!(garbage.code(), expected);
    }

    #[test]
    #[cfg(not(feature = "zstd"))]
    fn zstd_without_its_feature_is_named() {
        let error = Compressor::new(Compression::Zstd(1)).unwrap_err();
        assert_eq!(error.code(), Code::InvalidArgument);
        assert!(error.to_string().contains("feature `zstd`"), "{error}");
    }
}
