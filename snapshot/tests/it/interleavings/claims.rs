//! Who owns a snapshot that another wrote, as the ledger sees it: from the claims that lie on the disk, and from what
//! claimants were told.

use super::ledger::{Files, Ledger, Violation, demand};
use keybed_snapshot::{CheckpointId, ClaimRecord, JobId, claim::ClaimList};
use std::collections::BTreeMap;

/// Living claims by the directory of the snapshot.
pub(crate) type Claims = BTreeMap<String, JobId>;

const FILE: &str = "file://";

impl Ledger {
    /// The claims that stand on the disk.
    pub(crate) fn claims_on(&self, files: &Files) -> Result<Claims, Violation> {
        let mut claims = Claims::new();
        let mut lists: BTreeMap<&str, (u64, &Vec<u8>)> = BTreeMap::new();
        for (path, bytes) in files {
            if let Some(directory) = path.strip_suffix("/CLAIMED") {
                let record = ClaimRecord::decode(bytes).map_err(|e| format!("{path}: {e}"))?;
                claims.insert(directory.to_owned(), record.claimant.job);
            }
            if let Some((root, number)) = path.split_once("/claims/")
                && let Ok(number) = number.parse::<u64>()
            {
                let newest = lists.entry(root).or_insert((number, bytes));
                if newest.0 < number {
                    *newest = (number, bytes);
                }
            }
        }
        for (root, (number, bytes)) in lists {
            let list = ClaimList::decode(bytes).map_err(|e| format!("{root}/claims/{number}: {e}"))?;
            for record in list.all_live() {
                claims.insert(format!("{root}/chk-{}", record.checkpoint), record.claimant.job);
            }
        }
        Ok(claims)
    }

    /// Directories of other snapshots that the checkpoints of a root refer to.
    pub(crate) fn outside_of(&self, root: usize, files: &Files) -> Vec<String> {
        let here = self
            .known
            .iter()
            .filter(|(d, k)| k.root == Some(root) && self.is_there(d, files));
        let rows = here.flat_map(|(_, known)| &known.metadata.externals);
        rows.filter_map(|row| row.url.strip_prefix(FILE).map(str::to_owned))
            .collect()
    }

    /// Whether any root needs that snapshot, or files below that directory, without owning it.
    pub(crate) fn is_referenced(&self, directory: &str, files: &Files) -> bool {
        let inside = format!("{directory}/");
        (0..self.roots.len()).any(|root| {
            let refers = self.outside_of(root, files);
            let here = |d: &String| *d == directory || d.starts_with(&inside);
            let awaited = self.roots[root].awaits(&self.timeline(root, files));
            refers.iter().any(here) || awaited.is_some_and(|d| here(&d))
        })
    }

    /// Whether a claimed snapshot may go: its owner completed as many checkpoints as it retains, and none that is kept
    /// refers to it.
    pub(crate) fn is_subsumed(&self, directory: &str, by: JobId, files: &Files) -> bool {
        let Some(root) = self.roots.iter().position(|root| root.job == by) else {
            return false;
        };
        let ledger = &self.roots[root];
        ledger.completed_most >= ledger.retain && !self.outside_of(root, files).iter().any(|d| d == directory)
    }

    /// What a claimant was told holds, until the snapshot goes.
    pub(crate) fn demand_claims(&mut self, files: &Files) -> Result<(), Violation> {
        let claims = self.claims_on(files)?;
        for root in &self.roots {
            let Some(directory) = &root.claimed else { continue };
            let there = self.is_there(directory, files);
            demand!(
                !there || claims.get(directory) == Some(&root.job),
                "{} was told that it owns {directory}, which says {:?}",
                root.dir(),
                claims.get(directory)
            );
        }
        self.claims = claims;
        Ok(())
    }

    /// Names that may lie in a root because a claimant is deleting its snapshot there.
    pub(crate) fn being_removed(&self, root: usize) -> Result<Vec<String>, Violation> {
        let mut names = Vec::new();
        for directory in self.claims.keys() {
            let Some(known) = self.known.get(directory).filter(|known| known.root == Some(root)) else {
                continue;
            };
            names.push(format!("{directory}/_disposing"));
            for file in known.metadata.files() {
                names.push(self.path(directory, file)?);
            }
        }
        Ok(names)
    }

    /// The claimant of a checkpoint of a root.
    pub(crate) fn claimant(&self, root: usize, id: CheckpointId) -> Option<JobId> {
        self.claims.get(&self.roots[root].checkpoint(id)).copied()
    }
}
