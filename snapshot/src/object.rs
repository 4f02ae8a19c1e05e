//! Object names: which place a physical copy has, as opposed to which content it holds.
//!
//! A content id ([`FileHandle::content`](crate::FileHandle)) names bytes and is kept by every copy. An object name
//! names one physical copy and is never used twice. It carries the owner generation and the checkpoint under which
//! it was created, so that garbage is decided by names, not by clocks:
//!
//! ```text
//!   g<generation>-c<checkpoint id>-<32 hexadecimal digits, random>
//!   tmp-g<generation>-c<checkpoint id>-<32 hexadecimal digits, random>      while a document is being written
//! ```
//! Page: docs/format/job-root.md.

use crate::{CheckpointId, Generation};
use keybed_format::{Error, Result, hex};
use std::fmt;

/// Longest object name, in bytes.
pub const NAME_BYTES_MAX: usize = 128;
const TEMPORARY_PREFIX: &str = "tmp-";

/// A validated name without separators: `[a-z0-9_][a-z0-9._-]{0,127}`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ObjectName(String);

/// What an object's name says about its birth.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Birth {
    /// Owner generation that created the object.
    pub generation: Generation,
    /// Checkpoint for which it was created.
    pub checkpoint: CheckpointId,
}

impl ObjectName {
    /// Checks and takes a name.
    ///
    /// # Errors
    /// `InvalidArgument` unless it has the shape above; so no name can leave its folder.
    pub fn new(text: impl Into<String>) -> Result<Self> {
        let text = text.into();
        let first = |b: &u8| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'_');
        let rest = |b: &u8| first(b) || matches!(b, b'.' | b'-');
        let bytes = text.as_bytes();
        if bytes.len() <= NAME_BYTES_MAX && bytes.first().is_some_and(first) && bytes.iter().all(rest) {
            Ok(ObjectName(text))
        } else {
            Err(
                Error::invalid("an object name has the shape [a-z0-9_][a-z0-9._-]{0,127}")
                    .with("found", text.escape_debug()),
            )
        }
    }

    /// The name of a new object; `random` must be fresh.
    pub fn of(birth: Birth, random: u128) -> Self {
        ObjectName(format!(
            "g{}-c{}-{}",
            birth.generation,
            birth.checkpoint,
            hex::encode(random)
        ))
    }

    /// A name under which a document is written before it gets its own.
    pub fn temporary(birth: Birth, random: u128) -> Self {
        ObjectName(format!("{TEMPORARY_PREFIX}{}", Self::of(birth, random)))
    }

    /// Whether it is a name of [`ObjectName::temporary`].
    pub fn is_temporary(&self) -> bool {
        self.0.starts_with(TEMPORARY_PREFIX) && self.birth().is_some()
    }

    /// The birth that the name tells; `None` for names of another shape.
    pub fn birth(&self) -> Option<Birth> {
        let name = self.0.strip_prefix(TEMPORARY_PREFIX).unwrap_or(&self.0);
        let mut parts = name.splitn(3, '-');
        let generation = parts.next()?.strip_prefix('g')?.parse().ok()?;
        let checkpoint = parts.next()?.strip_prefix('c')?.parse().ok()?;
        hex::decode(parts.next()?).ok()?;
        Some(Birth {
            generation,
            checkpoint,
        })
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ObjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_tells_its_birth() {
        let birth = Birth {
            generation: Generation(3),
            checkpoint: CheckpointId(17),
        };
        let name = ObjectName::of(birth, 0xff);
        assert_eq!(name.as_str(), "g3-c17-000000000000000000000000000000ff");
        assert_eq!(name.birth(), Some(birth));
        let temporary = ObjectName::temporary(birth, 0xff);
        assert_eq!(
            (temporary.birth(), temporary.is_temporary(), name.is_temporary()),
            (Some(birth), true, false)
        );
        for odd in [
            "g03-c17-000000000000000000000000000000ff",
            "g3-c17-ff",
            "g3-c17",
            "_metadata",
            "x3-c1-0",
        ] {
            assert_eq!(ObjectName::new(odd).unwrap().birth(), None, "{odd}");
        }
    }

    #[test]
    fn nothing_that_could_be_a_path_is_a_name() {
        for bad in [
            "",
            ".",
            "..",
            "../x",
            "a/b",
            "a\\b",
            ".hidden",
            "-x",
            "A",
            "a\0",
            "ä",
            &"a".repeat(129),
        ] {
            assert!(ObjectName::new(bad).is_err(), "{bad:?}");
        }
        assert!(ObjectName::new("a".repeat(128)).is_ok());
    }
}
