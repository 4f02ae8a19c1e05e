//! If this fails, the list of snapshots leaves one out or says of one what it is not, or the person who asks who needs a
//! file gets an answer that loses state.

use crate::support::*;
use keybed_env::{Fs, SimFs};
use keybed_format::Code;
use keybed_snapshot::{
    CheckpointId, SavepointTarget, Scope, SnapshotKind, SnapshotStanding,
    browse::find,
    ownership::{FileOwner, FileRole, ownership},
};
use std::{path::Path, sync::Arc};

/// A job that went on from an older checkpoint, and savepoints in a directory of their own.
fn disk() -> (SimFs, Arc<dyn Fs>) {
    let sim = SimFs::without_history();
    let fs: Arc<dyn Fs> = Arc::new(sim.clone());
    sim.create_dir_all(Path::new(WORK)).unwrap();
    let mut job = TinyJob::new(fs.clone(), resume(&fs, 9, 1).unwrap());
    for _ in 0..3 {
        job.checkpoint(1, 3).unwrap();
    }
    let tables = job.tables[..1].to_vec();
    drop(job);
    let opened = open(&fs).unwrap();
    let mut job = TinyJob::new(
        fs.clone(),
        opened.start(options(Some(CheckpointId(1)), 9, 2)).unwrap(),
    );
    job.tables = tables;
    job.checkpoint(1, 3).unwrap();
    let lost = job.root.allocate(SnapshotKind::Checkpoint, 5).unwrap().checkpoint;
    job.put(lost, Scope::Shared).unwrap();
    let target = SavepointTarget::new(fs.clone(), "/sp/deep er");
    job.savepoint(&target, 21).unwrap();
    // What a process that died left of another one.
    let unfinished = Path::new("/sp/deep er/savepoint-000000-0123456789ab");
    sim.create_dir(unfinished).unwrap();
    drop(
        sim.create(&unfinished.join("g2-c22-000000000000000000000000000000ff"))
            .unwrap(),
    );
    (sim, fs)
}

fn standings(fs: &Arc<dyn Fs>, path: &Path) -> Vec<(String, SnapshotStanding)> {
    let found = find(fs, path).unwrap();
    let name = |path: &Path| path.file_name().unwrap().to_str().unwrap().to_owned();
    found
        .iter()
        .map(|found| (name(&found.directory), found.standing))
        .collect()
}

#[test]
fn every_snapshot_below_any_directory_is_listed_as_it_stands() {
    use SnapshotStanding::{Abandoned, Savepoint, Stray, Timeline, Unfinished, Unreadable};
    let (sim, fs) = disk();
    let all = [
        ("chk-1", Timeline),
        ("chk-2", Abandoned),
        ("chk-3", Abandoned),
        ("chk-4", Timeline),
    ];
    let all = all.map(|(name, standing)| (name.to_owned(), standing));
    let before = sim.tree();
    for path in [&job_root(), Path::new(CHECKPOINTS)] {
        assert_eq!(standings(&fs, path), all, "{}", path.display());
    }
    let one = find(&fs, &job_root().join("chk-4/_metadata")).unwrap();
    let facts = one[0].facts.as_ref().unwrap();
    assert_eq!(
        (one[0].standing, facts.checkpoint, facts.job),
        (Timeline, CheckpointId(4), JOB)
    );
    assert_eq!(
        facts.depends_on,
        [job_root().join("shared").display().to_string()]
    );
    // One table is shared with the first checkpoint; the private one and the new one are its own.
    assert!(facts.sizes.shared_bytes > 0 && facts.sizes.exclusive_bytes > facts.sizes.shared_bytes);
    let savepoints: Vec<_> = standings(&fs, Path::new("/sp"))
        .into_iter()
        .map(|(_, standing)| standing)
        .collect();
    assert_eq!(savepoints.len(), 2);
    assert!(
        savepoints.contains(&Savepoint) && savepoints.contains(&Unfinished),
        "{savepoints:?}"
    );
    assert_eq!(standings(&fs, Path::new("/")).len(), 6);
    assert_eq!(standings(&fs, Path::new(WORK)), []);
    assert_eq!(
        find(&fs, Path::new("/nowhere")).unwrap_err().code(),
        Code::NotASnapshot
    );
    assert_eq!(sim.tree(), before);

    copy_dir(&sim, &job_root().join("chk-4"), Path::new("/copy/chk-4"));
    assert_eq!(standings(&fs, Path::new("/copy")), [("chk-4".to_owned(), Stray)]);
    sim.corrupt(job_root().join("chk-2/_metadata"), |bytes| bytes[60] ^= 1)
        .unwrap();
    let found = find(&fs, &job_root()).unwrap();
    assert_eq!(found[1].standing, Unreadable);
    assert_eq!(found[1].error.as_ref().unwrap().code(), Code::SnapshotCorrupt);
    assert_eq!(found[3].standing, Timeline, "the others are listed all the same");
    sim.remove_file(&job_root().join("owner/1")).unwrap();
    assert!(
        find(&fs, &job_root())
            .unwrap()
            .iter()
            .all(|found| found.standing == Unreadable)
    );
}

#[test]
fn a_file_is_answered_for_with_who_needs_it_and_what_deletes_it() {
    let (sim, fs) = disk();
    let before = sim.tree();
    let ask = |path: &Path| ownership(&fs, path).unwrap();
    let mut roles = std::collections::BTreeMap::new();
    for path in before.keys().map(|path| Path::new("/").join(path)) {
        if path.starts_with(WORK) {
            assert_eq!(ownership(&fs, &path).unwrap_err().code(), Code::NotASnapshot);
            continue;
        }
        let told = ask(&path);
        let needed = needed(&before);
        let of_unfinished = told.needed_by.is_empty() && path.starts_with("/sp");
        if matches!(told.role, FileRole::Metadata | FileRole::Object) && !of_unfinished {
            let name = path.strip_prefix("/").unwrap().display().to_string();
            let is_needed = needed.contains(&name) || path.starts_with("/sp");
            assert_eq!(!told.needed_by.is_empty(), is_needed, "{told:?}");
        }
        *roles
            .entry((format!("{:?}", told.role), told.verdict.may_go))
            .or_insert(0) += 1;
    }
    // One upload of the checkpoint that was never completed may go; nothing else.
    assert_eq!(roles[&("Object".to_owned(), true)], 1, "{roles:?}");
    assert_eq!(roles.keys().filter(|(_, may_go)| *may_go).count(), 1, "{roles:?}");
    assert_eq!(sim.tree(), before);

    // A shared table of the first checkpoint: both that have it are named.
    let first = keybed_snapshot::SnapshotDir::open(fs.clone(), &job_root().join("chk-1")).unwrap();
    let shared = first
        .metadata()
        .files()
        .find(|file| file.anchor == keybed_snapshot::Anchor::Root)
        .unwrap();
    let shared = job_root().join("shared").join(shared.object.as_str());
    let told = ask(&shared);
    let needing: Vec<_> = told.needed_by.iter().map(|need| need.directory.clone()).collect();
    assert_eq!(needing, [1, 2, 3, 4].map(|n| job_root().join(format!("chk-{n}"))));
    assert!(!told.verdict.may_go && told.bytes.is_some());
    let FileOwner::Job { job, live, .. } = &told.owner else {
        panic!("{told:?}")
    };
    assert_eq!((*job, live), (JOB, &None));
    // Missing, it is answered for by its name.
    sim.remove_file(&shared).unwrap();
    let told = ask(&shared);
    assert_eq!((told.needed_by.len(), told.bytes), (4, None));
    // A living owner decides itself.
    let root = resume(&fs, 9, 5).unwrap();
    let orphan = before
        .keys()
        .map(|path| Path::new("/").join(path))
        .find(|path| path.to_str().unwrap().contains("/shared/g2-c5"));
    let told = ask(&orphan.clone().unwrap());
    assert!(
        !told.verdict.may_go && told.verdict.because.contains("owns the root"),
        "{told:?}"
    );
    drop(root);
    // Nobody knows who needs what as long as something cannot be read.
    sim.corrupt(job_root().join("chk-2/_metadata"), |bytes| bytes[60] ^= 1)
        .unwrap();
    let told = ask(&orphan.unwrap());
    assert!(
        !told.verdict.may_go && told.verdict.because.contains("cannot be read"),
        "{told:?}"
    );
    for nobodys in ["/nowhere", "/sp/notes", "/"] {
        assert_eq!(
            ownership(&fs, Path::new(nobodys)).unwrap_err().code(),
            Code::NotASnapshot,
            "{nobodys}"
        );
    }
}
