//! If this fails, a power loss or a failing call while a savepoint is written leaves half of one that can be opened,
//! loses one that was reported, or leaves files behind that nobody can recognise.

use crate::support::*;
use keybed_env::{
    FaultFs, Fs, Random, SimFs,
    fs::{Fault, FaultPlan, FileKind},
};
use keybed_format::Result;
use keybed_snapshot::{
    CheckpointId, LocalFile, Metadata, ObjectName, SavepointTarget, Scope, SnapshotDir, storage::layout,
};
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
};

const TARGET: &str = "/sp/of/mine";

struct Run {
    sim: SimFs,
    acknowledged: Vec<(u64, PathBuf)>,
    tried: BTreeMap<PathBuf, Metadata>,
}

/// A checkpoint, a savepoint, an abandoned savepoint, a checkpoint, a savepoint with a file that is not needed.
fn run(hard_links: bool) -> Run {
    let sim = SimFs::new();
    sim.create_dir_all(Path::new(WORK)).unwrap();
    let fs: Arc<dyn Fs> = Arc::new(sim.clone());
    let mut job = TinyJob::new(fs.clone(), resume(&fs, 2, 1).unwrap());
    sim.settle();
    let mut target = SavepointTarget::new(fs, TARGET);
    if hard_links {
        target = target.with_hard_links();
    }
    let (mut acknowledged, mut tried) = (Vec::new(), BTreeMap::new());
    for id in [11, 12, 13] {
        job.checkpoint(1, 2).unwrap();
        let writer = job.begin_savepoint(&target, CheckpointId(id)).unwrap();
        let mut tables = vec![job.put_into(&writer).unwrap(), job.put_into(&writer).unwrap()];
        if id == 12 {
            writer.abandon().unwrap();
            continue;
        }
        if id == 13 {
            tables.pop();
        }
        let mut metadata = job.savepoint_metadata(CheckpointId(id), tables);
        writer.publish(&metadata).unwrap();
        if hard_links {
            let name = keybed_snapshot::savepoint::SHARES_STORAGE_WITH;
            metadata.properties.insert(name.into(), WORK.into());
        }
        tried.insert(writer.directory().to_path_buf(), metadata);
        acknowledged.push((sim.op_count(), writer.directory().to_path_buf()));
    }
    Run {
        sim,
        acknowledged,
        tried,
    }
}

/// Directories in the target.
fn savepoints(fs: &dyn Fs) -> Vec<PathBuf> {
    match fs.facts(Path::new(TARGET)).unwrap() {
        None => Vec::new(),
        Some(_) => {
            let entries = fs.list(Path::new(TARGET)).unwrap();
            entries.iter().map(|e| Path::new(TARGET).join(&e.name)).collect()
        }
    }
}

/// Whether a directory holds a savepoint, which is whole then; if not, it can be recognised.
fn is_whole(fs: &Arc<dyn Fs>, directory: &Path, what: &str) -> Option<Metadata> {
    let name = directory.file_name().unwrap().to_str().unwrap();
    assert!(layout::is_savepoint_name(name), "{what}: {name}");
    let entries = fs.list(directory).unwrap();
    for entry in &entries {
        let ours = ObjectName::new(entry.name.as_str()).is_ok_and(|name| name.birth().is_some());
        assert!(
            entry.kind == FileKind::File && (ours || entry.name == "_metadata"),
            "{what}: {entry:?}"
        );
    }
    if entries.iter().all(|e| e.name != "_metadata") {
        SnapshotDir::open(fs.clone(), directory).unwrap_err();
        return None;
    }
    let metadata = check_snapshot(fs, directory).unwrap_or_else(|e| panic!("{what}: {e}"));
    Some(metadata)
}

#[test]
fn every_crash_image_holds_whole_savepoints_or_recognisable_remains() {
    for hard_links in [false, true] {
        let run = run(hard_links);
        let mut counts = [0_u64; 3];
        let distinct = run
            .sim
            .each_crash_image(300, &mut Random::from_seed(5), |at, image| {
                let fs: Arc<dyn Fs> = Arc::new(image.clone());
                let what = format!("after {at}, links {hard_links}");
                let mut whole = 0;
                for directory in savepoints(image) {
                    if let Some(metadata) = is_whole(&fs, &directory, &what) {
                        assert_eq!(metadata, run.tried[&directory], "{what}");
                        whole += 1;
                    }
                }
                let promised = run.acknowledged.iter().filter(|(op, _)| *op <= at).count();
                assert!(whole >= promised, "{what}: a reported savepoint is lost");
                counts[whole] += 1;
            });
        assert!(distinct > 3000, "{distinct} images, {counts:?}");
        assert!(counts.iter().all(|n| *n > 0), "{counts:?}");
    }
}

/// One savepoint of two tables; tells whether its outcome is unknown.
fn attempt(job: &mut TinyJob, target: &SavepointTarget, id: u64) -> (Result<PathBuf>, bool) {
    let writer = match job.begin_savepoint(target, CheckpointId(id)) {
        Ok(writer) => writer,
        Err(error) => return (Err(error), false),
    };
    let mut publish = || {
        let tables = vec![job.put_into(&writer)?, job.put_into(&writer)?];
        writer.publish(&job.savepoint_metadata(CheckpointId(id), tables))
    };
    let published = publish();
    (
        published.map(|()| writer.directory().to_path_buf()),
        writer.is_unknown(),
    )
}

/// Fails the n-th call for every n until a savepoint does not reach it any more.
fn sweep(fault: Fault, forever: bool, hard_links: bool, unknowns: &mut u64) -> u64 {
    for nth in 1.. {
        let sim = SimFs::new();
        sim.create_dir_all(Path::new(WORK)).unwrap();
        let faulty = FaultFs::new(Arc::new(sim.clone()));
        let fs: Arc<dyn Fs> = Arc::new(faulty.clone());
        let mut job = TinyJob::new(fs.clone(), resume(&fs, 1, 1).unwrap());
        job.checkpoint(1, 2).unwrap();
        sim.settle();
        let mut target = SavepointTarget::new(fs.clone(), TARGET);
        if hard_links {
            target = target.with_hard_links();
        }
        let plan = FaultPlan::new(fault, nth);
        faulty.arm(if forever { plan.forever() } else { plan });
        let what = format!("{fault:?} at call {nth}, forever {forever}, links {hard_links}");
        let (first, unknown) = attempt(&mut job, &target, 11);
        *unknowns += u64::from(unknown);
        let reached = faulty.triggered() > 0;
        faulty.heal();
        for image in [sim.clone(), sim.strict_image(sim.op_count())] {
            let fs: Arc<dyn Fs> = Arc::new(image.clone());
            let found = savepoints(&image);
            let whole = found.iter().filter_map(|path| is_whole(&fs, path, &what)).count();
            match &first {
                Ok(path) => assert_eq!((whole, &found), (1, &vec![path.clone()]), "{what}"),
                Err(_) => assert!(unknown || whole == 0, "{what}"),
            }
        }
        if let Err(error) = &first
            && !unknown
            && !forever
        {
            // Not even the directories that were created for it.
            let left = sim.facts(Path::new("/sp")).unwrap();
            assert!(left.is_none(), "{what}: {error}: {:?}", savepoints(&sim));
        }
        // The job is unharmed: the same target works, and links of lost bytes are not trusted.
        let again = attempt(&mut job, &target, 12)
            .0
            .unwrap_or_else(|e| panic!("{what}: {e}"));
        job.checkpoint(1, 2).unwrap();
        let durable: Arc<dyn Fs> = Arc::new(sim.strict_image(sim.op_count()));
        check_snapshot(&durable, &again).unwrap_or_else(|e| panic!("{what}: {e}"));
        if !reached {
            first.unwrap_or_else(|e| panic!("{what}: {e}"));
            return nth;
        }
    }
    unreachable!("the run is finite")
}

#[test]
fn any_failing_call_costs_the_savepoint_and_leaves_no_directory() {
    let (mut runs, mut unknowns) = (0, 0);
    for fault in Fault::ALL {
        for (forever, hard_links) in [(false, false), (true, false), (false, true)] {
            runs += sweep(*fault, forever, hard_links, &mut unknowns);
        }
    }
    assert!(runs > 200, "{runs} runs");
    assert!(unknowns > 0, "an unknown outcome was met");
}

#[test]
fn a_link_whose_bytes_were_lost_is_not_taken_for_durable_by_the_next_savepoint() {
    let sim = SimFs::new();
    sim.create_dir_all(Path::new(WORK)).unwrap();
    let faulty = FaultFs::new(Arc::new(sim.clone()));
    let fs: Arc<dyn Fs> = Arc::new(faulty.clone());
    let mut job = TinyJob::new(fs.clone(), resume(&fs, 1, 1).unwrap());
    let target = SavepointTarget::new(fs.clone(), TARGET).with_hard_links();
    let table = Path::new(WORK).join("t.sst");
    let trailer = write_table(&*fs, &table, 77, &[7; 5000]).unwrap();
    let mut put = |id: u64| {
        use keybed_snapshot::PutFiles;
        let writer = job.begin_savepoint(&target, CheckpointId(id))?;
        let bytes = trailer.file_bytes();
        let file = writer.put_file(
            Scope::Exclusive,
            LocalFile {
                fs: &*fs,
                path: &table,
                content: 77,
                digest: trailer.digest,
                bytes,
            },
        )?;
        let handle = keybed_snapshot::TableHandle {
            file,
            ..job.put_into(&writer)?
        };
        writer.publish(&job.savepoint_metadata(CheckpointId(id), vec![handle]))?;
        Ok::<_, keybed_format::Error>(writer.directory().to_path_buf())
    };
    faulty.arm(FaultPlan::new(Fault::FailedSync, 1).only(&[keybed_env::fs::FsOp::Sync]));
    put(1).unwrap_err();
    faulty.heal();
    let path = put(2).unwrap();
    let durable: Arc<dyn Fs> = Arc::new(sim.strict_image(sim.op_count()));
    let metadata = check_snapshot(&durable, &path).unwrap();
    assert!(metadata.properties.is_empty(), "it holds copies: {metadata:?}");
}

#[test]
fn a_sync_that_failed_a_checkpoint_is_remembered_by_the_savepoint_and_the_reverse() {
    // A table whose bytes a failed sync lost would be linked by the other one and vanish with the power.
    use keybed_snapshot::{PutFiles, SnapshotKind};
    for savepoint_first in [false, true] {
        let sim = SimFs::new();
        sim.create_dir_all(Path::new(WORK)).unwrap();
        let faulty = FaultFs::new(Arc::new(sim.clone()));
        let fs: Arc<dyn Fs> = Arc::new(faulty.clone());
        let job = TinyJob::new(fs.clone(), resume(&fs, 1, 1).unwrap());
        let target = job.root.savepoint_target(fs.clone(), TARGET).with_hard_links();
        let path = Path::new(WORK).join("t.sst");
        let trailer = write_table(&*fs, &path, 77, &[7; 5000]).unwrap();
        let table = |file| keybed_snapshot::TableHandle {
            file,
            visible_start: Vec::new(),
            visible_end: None,
            entries: 1,
        };
        let savepoint = || {
            let id = CheckpointId(50);
            let writer = job.begin_savepoint(&target, id)?;
            let file = writer.put_file(
                Scope::Exclusive,
                LocalFile {
                    fs: &*fs,
                    path: &path,
                    content: 77,
                    digest: trailer.digest,
                    bytes: trailer.file_bytes(),
                },
            )?;
            writer.publish(&job.savepoint_metadata(id, vec![table(file)]))?;
            Ok::<_, keybed_format::Error>(writer.directory().to_path_buf())
        };
        let checkpoint = || {
            let id = job.root.allocate(SnapshotKind::Checkpoint, 5)?.checkpoint;
            let put = job.root.put_files(id);
            let file = put.put_file(
                Scope::Shared,
                LocalFile {
                    fs: &*fs,
                    path: &path,
                    content: 77,
                    digest: trailer.digest,
                    bytes: trailer.file_bytes(),
                },
            )?;
            job.root.publish(&job.metadata(id, vec![table(file)]))?;
            Ok::<_, keybed_format::Error>(job_root().join(format!("chk-{id}")))
        };
        let both: [&dyn Fn() -> Result<PathBuf>; 2] = [&checkpoint, &savepoint];
        faulty.arm(FaultPlan::new(Fault::FailedSync, 1).only(&[keybed_env::fs::FsOp::Sync]));
        both[usize::from(savepoint_first)]().unwrap_err();
        faulty.heal();
        let directory = both[usize::from(!savepoint_first)]().unwrap();
        let durable: Arc<dyn Fs> = Arc::new(sim.strict_image(sim.op_count()));
        check_snapshot(&durable, &directory).unwrap_or_else(|e| panic!("first {savepoint_first}: {e}"));
    }
}
