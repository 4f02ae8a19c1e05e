//! The families of a keyed backend: few, by access pattern, whatever the number of states.
//!
//! | family | holds | memtable |
//! |---|---|---|
//! | `point` | value states | hash |
//! | `prefix` | list and map states | by prefix: group, state and key |
//! | `window` | every namespace-first state | ordered |
//! | `timer` | timers | ordered |
//!
//! A state's family follows from its kind and its component order; a family is created by the first write.

use keybed_format::{Code, Error, Result};

/// One of the four families.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum StateFamily {
    /// Value states: point look-ups only.
    Point,
    /// List and map states: short scans of a prefix.
    Prefix,
    /// Namespace-first states: a fired window is one contiguous range per key group.
    Window,
    /// Timers in time order per key group.
    Timer,
}

impl StateFamily {
    /// All families, in the order in which snapshots list them.
    pub const ALL: [StateFamily; 4] = [
        StateFamily::Point,
        StateFamily::Prefix,
        StateFamily::Window,
        StateFamily::Timer,
    ];

    /// The name in the store and in snapshots.
    pub fn name(self) -> &'static str {
        match self {
            StateFamily::Point => "point",
            StateFamily::Prefix => "prefix",
            StateFamily::Window => "window",
            StateFamily::Timer => "timer",
        }
    }

    /// The family of that name.
    ///
    /// # Errors
    /// `SnapshotCorrupt` if a snapshot names another one.
    pub fn named(name: &str) -> Result<StateFamily> {
        StateFamily::ALL
            .into_iter()
            .find(|family| family.name() == name)
            .ok_or_else(|| {
                Error::new(
                    Code::SnapshotCorrupt,
                    "a snapshot names a family of keyed state that does not exist",
                )
                .with("family", name)
            })
    }

    /// Position in [`StateFamily::ALL`].
    pub(crate) fn index(self) -> usize {
        self as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_lead_back_to_their_families() {
        for (index, family) in StateFamily::ALL.into_iter().enumerate() {
            assert_eq!(StateFamily::named(family.name()).unwrap(), family);
            assert_eq!(family.index(), index);
        }
        assert_eq!(
            StateFamily::named("pint").unwrap_err().code(),
            Code::SnapshotCorrupt
        );
    }
}
