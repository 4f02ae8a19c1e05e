//! Looking at a snapshot with the eyes of a program before anything is locked, written or claimed.
//!
//! ```text
//!   open ─▶ files there? ─▶ rename ─▶ deal to the nodes ─▶ report: every problem, every warning
//! ```

use super::{
    outside,
    rename::{rename, unknown_targets},
    restore::{self, Deal, Wanted},
    storage::Source,
};
use crate::{
    check::{CheckReport, CheckedSnapshot, RestoreWarning},
    options::JobOptions,
    plan::{Named, Role},
};
use keybed_format::{Code, Error, Result};
use keybed_snapshot::{
    ClaimMode, ClaimRecord, ForeignSnapshot, Metadata, OpenFiles, check_parallelism, inspect::sizes,
    key_group::MAX_PARALLELISM_MAX, verify,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

/// Property of a savepoint that was taken of a drained job.
pub(super) const DRAINED: &str = "drained";

/// How closely files are looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Depth {
    /// Whether they are there, with their lengths.
    Presence,
    /// Every byte.
    Bytes,
}

/// Looks; gives the snapshot that was looked at.
pub(crate) fn check(nodes: &[Named], options: &JobOptions, depth: Depth) -> (CheckReport, Option<Source>) {
    let mut report = CheckReport::default();
    let (mut renamed, mut source) = (None, None);
    let restore = options.restore.as_ref();
    match restore.map(|restore| Source::open(options.fs.clone(), restore)) {
        Some(Ok(opened)) => {
            renamed = Some(report.look_at(&opened, options, depth));
            source = Some(opened);
        }
        Some(Err(problem)) => report.problems.push(problem),
        None => {}
    }
    let program: BTreeSet<_> = nodes
        .iter()
        .filter(|n| n.node.role() != Role::Stateless)
        .map(|n| &n.uid)
        .collect();
    if let Some(restore) = restore {
        report
            .problems
            .extend(unknown_targets(&restore.renames, &program));
    }
    let files = source.as_ref().map(|source| &source.snapshot as &dyn OpenFiles);
    let dealt = renamed.as_ref().zip(files);
    // A snapshot that cannot be read says nothing about the program's states.
    let Deal {
        operators,
        warnings,
        problems,
        ..
    } = restore::deal(nodes, &Wanted::of(options), dealt);
    let said: BTreeSet<_> = problems.iter().map(Error::code).collect();
    let widest = options.max_parallelism.unwrap_or(MAX_PARALLELISM_MAX);
    let width = check_parallelism(widest, options.parallelism).err();
    report
        .problems
        .extend(width.filter(|e| !said.contains(&e.code())));
    report.problems.extend(problems);
    let accepts_lost = source
        .as_ref()
        .is_some_and(|s| s.restore.accept_lost_transactions);
    if let Some(metadata) = renamed.as_ref().filter(|_| !accepts_lost) {
        let lost = outside::problems(&*options.fs, nodes, &metadata.operators);
        report.problems.extend(lost);
    }
    report.warnings.extend(warnings);
    report.operators = operators;
    let old_names: BTreeMap<_, _> = restore
        .iter()
        .flat_map(|restore| &restore.renames)
        .map(|(old, new)| (new, old))
        .collect();
    for operator in report.operators.iter_mut().filter(|o| o.parallelism.is_some()) {
        operator.renamed_from = old_names.get(&operator.uid).map(|old| (*old).clone());
    }
    (report, source)
}

impl CheckReport {
    /// Takes the facts of the snapshot itself; gives its content as the program names it.
    fn look_at(&mut self, source: &Source, options: &JobOptions, depth: Depth) -> Metadata {
        let Source { restore, snapshot } = source;
        let metadata = snapshot.metadata();
        let files = sizes(metadata, &[]);
        let location = snapshot.location().to_path_buf();
        self.snapshot = Some(CheckedSnapshot {
            location: location.clone(),
            job: metadata.job,
            checkpoint: metadata.checkpoint,
            kind: metadata.kind,
            timestamp_ms: metadata.timestamp_ms,
            files: files.files,
            bytes: files.total_bytes,
        });
        self.problems.extend(whole(snapshot, depth).err());
        if is_drained(metadata) {
            let location = location.clone();
            self.warnings.push(RestoreWarning::Drained { location });
        }
        if restore.claim == ClaimMode::Legacy {
            let location = location.clone();
            self.warnings.push(RestoreWarning::Legacy { location });
        }
        self.look_for_owner(source, options);
        let (renamed, problems) = rename(metadata, &restore.renames);
        self.problems.extend(problems);
        renamed
    }

    /// A snapshot that another job claimed is its own: it cannot be claimed again, and may go at any time.
    fn look_for_owner(&mut self, source: &Source, options: &JobOptions) {
        let location = source.snapshot.location();
        let claim = source.restore.claim == ClaimMode::Claim;
        if claim && options.checkpoints.is_none() {
            let what = "a job without checkpoints cannot claim a snapshot: it would never need it less";
            self.problems.push(Error::invalid(what).in_file(location));
        }
        match source.snapshot.claimed_by() {
            Ok(Some(record)) if options.job != Some(record.claimant.job) => {
                if claim {
                    self.problems.push(claimed_by_other(&record, location));
                } else {
                    self.warnings.push(RestoreWarning::Claimed {
                        location: location.to_path_buf(),
                        owner: record.claimant.job,
                    });
                }
            }
            Ok(_) => {}
            Err(problem) => self.problems.push(problem),
        }
    }
}

/// Checks that the snapshot can be read from where it lies.
fn whole(snapshot: &ForeignSnapshot, depth: Depth) -> Result {
    snapshot.check_complete()?;
    match depth {
        Depth::Presence => Ok(()),
        Depth::Bytes => verify(snapshot.metadata(), snapshot).verdict(),
    }
}

fn claimed_by_other(record: &ClaimRecord, place: &Path) -> Error {
    Error::new(Code::SnapshotClaimedByOther, "another job claimed the snapshot")
        .in_file(place)
        .with("owner", record.claimant.job)
        .with("owner_root", &record.claimant.path)
        .with("since", record.since_ms)
}

fn is_drained(metadata: &Metadata) -> bool {
    metadata
        .properties
        .get(DRAINED)
        .is_some_and(|value| value == "true")
}
