//! Names of jobs, roots, checkpoints, owner generations, operators and subtasks.
//!
//! Ids are newtypes, so that a checkpoint id is never passed where a generation is meant. Texts of ids are
//! canonical: 32 lower-case hexadecimal digits or a decimal number without leading zeros.

use keybed_format::{Error, Result, checksum, hex};
use std::{fmt, str::FromStr};

/// Longest operator uid, in bytes.
pub const UID_BYTES_MAX: usize = 512;

macro_rules! hex_id {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        $($(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(pub u128);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&hex::encode(self.0))
            }
        }

        impl FromStr for $name {
            type Err = Error;

            /// # Errors
            /// `InvalidArgument` unless the text is 32 lower-case hexadecimal digits.
            fn from_str(text: &str) -> Result<Self> {
                hex::decode(text).map($name)
            }
        })*
    };
}

hex_id! {
    /// Names a job; random, stable over `--resume`, fresh for a fresh start.
    JobId,
    /// Names a job root (the directory), so that a copied `_metadata` cannot take another root's files for its own.
    RootId,
    /// Names an operator inside snapshots: a hash of its uid.
    OperatorId,
}

macro_rules! number_id {
    ($($(#[$doc:meta])* $name:ident: $type:ty,)*) => {
        $($(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(pub $type);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl FromStr for $name {
            type Err = Error;

            /// # Errors
            /// `InvalidArgument` unless the text is a decimal number without sign and leading zeros.
            fn from_str(text: &str) -> Result<Self> {
                match text.parse::<$type>() {
                    Ok(n) if n.to_string() == text => Ok($name(n)),
                    _ => Err(Error::invalid("a number without sign and leading zeros is expected").with("found", text)),
                }
            }
        })*
    };
}

number_id! {
    /// Number of a checkpoint or savepoint of one job, from 1; never reused, not even after a crash between
    /// allocation and use.
    CheckpointId: u64,
    /// Number of one ownership of a job root, from 1; every process that takes the root over gets the next one.
    Generation: u64,
    /// Position of a subtask among those of its operator, from 0.
    SubtaskIndex: u32,
}

/// The text by which users name an operator, for ever: 1–[`UID_BYTES_MAX`] bytes without control characters.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct OperatorUid(String);

impl OperatorUid {
    /// Checks and takes the text.
    ///
    /// # Errors
    /// `InvalidArgument` if it is empty, too long or holds control characters.
    pub fn new(text: impl Into<String>) -> Result<Self> {
        let text = text.into();
        if text.is_empty() || text.len() > UID_BYTES_MAX || text.chars().any(char::is_control) {
            return Err(Error::invalid(format!(
                "a uid is 1–{UID_BYTES_MAX} bytes without control characters"
            ))
            .with("found", text.escape_debug()));
        }
        Ok(OperatorUid(text))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The id under which snapshots file the operator: xxh3-64 of the text in the upper half, the same bound to
    /// place (1, 0) in the lower. Part of the format.
    pub fn id(&self) -> OperatorId {
        let text = self.0.as_bytes();
        OperatorId((u128::from(checksum::hash(text)) << 64) | u128::from(checksum::bound(text, 1, 0)))
    }
}

impl fmt::Display for OperatorUid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_canonical() {
        assert_eq!("7".parse::<CheckpointId>().unwrap(), CheckpointId(7));
        for bad in ["", "07", "+7", "-1", "7 ", "18446744073709551616"] {
            assert!(bad.parse::<CheckpointId>().is_err(), "{bad}");
        }
        let id = JobId(0xabc);
        assert_eq!(id.to_string().parse::<JobId>().unwrap(), id);
        assert!("ABC".parse::<JobId>().is_err());
    }

    #[test]
    fn golden_operator_ids_pin_the_format() {
        let uid = OperatorUid::new("totals").unwrap();
        assert_eq!(uid.id().to_string(), "e1c18c9f4c80c9dce380ddc1aa9ddbae");
        assert_ne!(uid.id(), OperatorUid::new("total").unwrap().id());
    }

    #[test]
    fn odd_uids_are_refused() {
        for bad in ["", "a\nb", &"x".repeat(513)] {
            assert!(OperatorUid::new(bad).is_err());
        }
        assert!(OperatorUid::new("Umsätze je Kunde").is_ok());
    }
}
