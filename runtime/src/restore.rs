//! The snapshot that a new job starts from, and what may become of it.
//!
//! | mode | deletes files of the snapshot | later checkpoints refer to them | first checkpoint |
//! |---|---|---|---|
//! | [`ClaimMode::NoClaim`] | never | never | a full one |
//! | [`ClaimMode::Claim`] | once nothing needs them | yes | as any other |
//! | [`ClaimMode::Legacy`] | never | yes | as any other |

use keybed_snapshot::{ClaimMode, OperatorUid};
use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
};

/// State of the snapshot that the program has no operator for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum AllowNonRestored {
    /// The job is refused.
    #[default]
    None,
    /// It is left out.
    All,
    /// That of these operators is left out, any other refused. Uids of the snapshot, before renaming.
    Uids(BTreeSet<OperatorUid>),
}

impl AllowNonRestored {
    /// Whether the state of this operator may be left out.
    pub fn allows(&self, uid: &OperatorUid) -> bool {
        match self {
            AllowNonRestored::None => false,
            AllowNonRestored::All => true,
            AllowNonRestored::Uids(uids) => uids.contains(uid),
        }
    }
}

/// A snapshot to start from.
///
/// ```
/// use keybed_runtime::{ClaimMode, JobOptions, Restore};
/// let restore = Restore::from("savepoints/savepoint-a1b2c3-d4e5f6").claim(ClaimMode::NoClaim);
/// let options = JobOptions { parallelism: 4, restore: Some(restore), ..JobOptions::default() };
/// # assert!(options.restore.is_some());
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Restore {
    /// Directory or metadata file: a savepoint wherever it lies now, or a checkpoint in its root.
    pub path: PathBuf,
    /// What the job may do with the files of the snapshot. Default [`ClaimMode::NoClaim`]: read them, until its first
    /// checkpoint has copies of its own.
    pub claim: ClaimMode,
    /// What becomes of state that the program has no operator for. Default: the job is refused.
    pub allow_non_restored: AllowNonRestored,
    /// Operators that carry another uid in the program: uid in the snapshot → uid in the program. Default: none.
    pub renames: BTreeMap<OperatorUid, OperatorUid>,
    /// Where directories lie now that the snapshot names by number and that were moved. Default: none.
    pub anchors: BTreeMap<u32, PathBuf>,
    /// Start although output that the snapshot names is gone. Default: no.
    pub accept_lost_transactions: bool,
}

impl Restore {
    /// From the snapshot at `path`, which stays its owner's.
    pub fn from(path: impl Into<PathBuf>) -> Self {
        Restore {
            path: path.into(),
            claim: ClaimMode::NoClaim,
            allow_non_restored: AllowNonRestored::None,
            renames: BTreeMap::new(),
            anchors: BTreeMap::new(),
            accept_lost_transactions: false,
        }
    }

    /// Sets what the job may do with the files.
    #[must_use]
    pub fn claim(self, claim: ClaimMode) -> Self {
        Restore { claim, ..self }
    }

    /// Sets what becomes of state that the program has no operator for.
    #[must_use]
    pub fn allow_non_restored(self, allow_non_restored: AllowNonRestored) -> Self {
        Restore {
            allow_non_restored,
            ..self
        }
    }

    /// Gives state of the snapshot to an operator that carries another uid now.
    #[must_use]
    pub fn rename(mut self, old: OperatorUid, new: OperatorUid) -> Self {
        self.renames.insert(old, new);
        self
    }

    /// Names the place of a directory that was moved.
    #[must_use]
    pub fn anchor(mut self, id: u32, path: impl Into<PathBuf>) -> Self {
        self.anchors.insert(id, path.into());
        self
    }

    /// Starts although output that the snapshot names is gone.
    #[must_use]
    pub fn accept_lost_transactions(self) -> Self {
        Restore {
            accept_lost_transactions: true,
            ..self
        }
    }
}
