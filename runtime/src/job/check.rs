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
use keybed_format::{Error, Result};
use keybed_snapshot::{
    ClaimMode, Metadata, SnapshotDir, check_parallelism, inspect::sizes, key_group::MAX_PARALLELISM_MAX,
};
use std::collections::{BTreeMap, BTreeSet};

/// Property of a savepoint that was taken of a drained job.
const DRAINED: &str = "drained";

/// How closely files are looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Depth {
    /// Whether they are there, with their lengths.
    Presence,
    /// Every byte.
    Bytes,
}

/// Looks.
pub(crate) fn check(nodes: &[Named], options: &JobOptions, depth: Depth) -> CheckReport {
    let mut report = CheckReport::default();
    let mut renamed = None;
    let source = Source::of(options);
    if let Some(source) = &source {
        match source.look() {
            Ok(opened) => renamed = Some(report.look_at(&opened, source, depth)),
            Err(problem) => report.problems.push(problem),
        }
    }
    let program: BTreeSet<_> = nodes
        .iter()
        .filter(|n| n.node.role() != Role::Stateless)
        .map(|n| &n.uid)
        .collect();
    if let Some(source) = &source {
        report
            .problems
            .extend(unknown_targets(&source.restore.renames, &program));
    }
    // A snapshot that cannot be read says nothing about the program's states.
    let Deal {
        operators,
        warnings,
        problems,
        ..
    } = restore::deal(nodes, &Wanted::of(options), renamed.as_ref());
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
    let old_names: BTreeMap<_, _> = source
        .iter()
        .flat_map(|s| &s.restore.renames)
        .map(|(old, new)| (new, old))
        .collect();
    for operator in report.operators.iter_mut().filter(|o| o.parallelism.is_some()) {
        operator.renamed_from = old_names.get(&operator.uid).map(|old| (*old).clone());
    }
    report
}

impl CheckReport {
    /// Takes the facts of the snapshot itself; gives its content as the program names it.
    fn look_at(&mut self, opened: &SnapshotDir, source: &Source, depth: Depth) -> Metadata {
        let metadata = opened.metadata();
        let files = sizes(metadata, &[]);
        let location = opened.directory().to_path_buf();
        self.snapshot = Some(CheckedSnapshot {
            location: location.clone(),
            job: metadata.job,
            checkpoint: metadata.checkpoint,
            kind: metadata.kind,
            timestamp_ms: metadata.timestamp_ms,
            files: files.files,
            bytes: files.total_bytes,
        });
        self.problems.extend(whole(opened, depth).err());
        if is_drained(metadata) {
            self.warnings.push(RestoreWarning::Drained {
                location: location.clone(),
            });
        }
        if source.restore.claim == ClaimMode::Legacy {
            self.warnings.push(RestoreWarning::Legacy { location });
        }
        let (renamed, problems) = rename(metadata, &source.restore.renames);
        self.problems.extend(problems);
        renamed
    }
}

/// Checks that the snapshot can be read from where it lies.
fn whole(opened: &SnapshotDir, depth: Depth) -> Result {
    opened.check_complete()?;
    match depth {
        Depth::Presence => Ok(()),
        Depth::Bytes => keybed_snapshot::verify(opened.metadata(), opened).verdict(),
    }
}

fn is_drained(metadata: &Metadata) -> bool {
    metadata
        .properties
        .get(DRAINED)
        .is_some_and(|value| value == "true")
}
