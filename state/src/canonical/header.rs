//! What a canonical file says about itself before its first entry. Page: docs/format/canonical.md.

use super::layout::Layout;
use keybed_format::{Code, Cursor, Error, Result, Sink};
use keybed_snapshot::{
    KeyGroupRange, StateCatalogue, StateId, check_parallelism,
    key_group::KEY_HASH_ID,
    metadata::operator::{decode_catalogue, encode_catalogue},
};

/// Layout of entries without and with the lengths of key and namespace.
const AS_STORED: u8 = 1;
const ROTATED: u8 = 2;

/// The states of a canonical file and the key groups that it holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CanonicalHeader {
    /// Key groups whose keys it holds.
    pub range: KeyGroupRange,
    /// Number of key groups of the operator.
    pub max_parallelism: u32,
    /// The operator's states. Timers are no row of it; dropped states have no entries.
    pub catalogue: StateCatalogue,
    /// Whether the entries of a state carry the lengths of key and namespace, by state id − 1.
    rotated: Vec<bool>,
}

impl CanonicalHeader {
    /// The header of a new file.
    pub(crate) fn new(range: KeyGroupRange, max_parallelism: u32, catalogue: StateCatalogue) -> Self {
        let rotated = catalogue.entries().iter();
        let rotated = rotated
            .map(|entry| Layout::of(&entry.state).is_rotated())
            .collect();
        CanonicalHeader {
            range,
            max_parallelism,
            catalogue,
            rotated,
        }
    }

    /// Whether the entries of a state carry the lengths of key and namespace; those of timers do.
    pub(super) fn is_rotated(&self, state: StateId) -> bool {
        match usize::from(state.0).checked_sub(1) {
            None => true,
            Some(index) => self.rotated.get(index).copied().unwrap_or(false),
        }
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = Sink::new();
        out.u16(self.range.first.0)
            .u16(self.range.last.0)
            .u32(self.max_parallelism)
            .text(KEY_HASH_ID);
        encode_catalogue(&self.catalogue, &mut out);
        for rotated in &self.rotated {
            out.u8(if *rotated { ROTATED } else { AS_STORED });
        }
        out.into_vec()
    }

    /// # Errors
    /// `Malformed` with the offset in `bytes`; `UnsupportedFormatVersion` if keys were dealt by another hash.
    pub(super) fn decode(bytes: &[u8]) -> Result<Self> {
        let mut c = Cursor::new(bytes);
        let range = KeyGroupRange::new(c.u16()?, c.u16()?).map_err(|e| e.recode(Code::Malformed))?;
        let max_parallelism = c.u32()?;
        check_parallelism(max_parallelism, 1).map_err(|e| e.recode(Code::Malformed))?;
        if u32::from(range.last.0) >= max_parallelism {
            return Err(c.malformed("key groups do not exist").with("range", range));
        }
        let hash = c.text(64)?;
        if hash != KEY_HASH_ID {
            return Err(
                Error::new(Code::UnsupportedFormatVersion, "keys were dealt by another hash")
                    .expected_found(KEY_HASH_ID, hash.escape_debug()),
            );
        }
        let catalogue = decode_catalogue(&mut c)?;
        let layout = |c: &mut Cursor<'_>| match c.u8()? {
            AS_STORED => Ok(false),
            ROTATED => Ok(true),
            other => Err(c
                .malformed("a layout of entries is not known")
                .with("found", other)),
        };
        let rotated = catalogue
            .entries()
            .iter()
            .map(|_| layout(&mut c))
            .collect::<Result<_>>()?;
        c.finish()?;
        Ok(CanonicalHeader {
            range,
            max_parallelism,
            catalogue,
            rotated,
        })
    }
}
