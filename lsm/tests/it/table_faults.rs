//! If this fails, a table that could not be written or read is taken for a good one.

use crate::tables::{Version, cached, entry, get, scan};
use keybed_env::{
    Fs, Random, SimFs,
    fs::{Fault, FaultFs, FaultPlan},
};
use keybed_format::{ErrorKind, Result};
use keybed_lsm::{
    EntryKind, TableId,
    table::{TableBuilder, TableFacts, TableOptions, TableReader, TableView},
};
use std::{path::Path, sync::Arc};

const ID: TableId = TableId(5);

fn path() -> &'static Path {
    Path::new("/t.sst")
}

fn entries() -> Vec<Version> {
    let value = |i: u32| vec![i as u8; (i % 40) as usize];
    (0..3_000_u32)
        .map(|i| (i.to_be_bytes().to_vec(), u64::from(i), EntryKind::Put, value(i)))
        .collect()
}

fn write(fs: &dyn Fs, all: &[Version]) -> Result<TableFacts> {
    let options = TableOptions {
        block_bytes: 4096,
        ..TableOptions::default()
    };
    let mut builder = TableBuilder::new(fs, path(), ID, options)?;
    for version in all {
        builder.add(entry(version))?;
    }
    let facts = builder.finish(true)?;
    fs.sync_dir(Path::new("/"))?;
    Ok(facts)
}

fn read(fs: &dyn Fs, all: &[Version]) -> Result {
    let view = TableView::whole(TableReader::open(fs, path(), ID, cached())?);
    assert_eq!(get(&view, &all[7].0, 7)?.as_ref(), Some(&all[7]));
    assert_eq!(scan(&view)?, all);
    view.reader.verify_all()
}

#[test]
fn every_failing_call_is_reported_and_never_answered() {
    let all = entries();
    let (mut runs, mut without_filter) = (0, 0);
    for &fault in Fault::ALL {
        for nth in 1.. {
            let disk = Arc::new(SimFs::new());
            let fs = FaultFs::new(disk.clone());
            fs.arm(FaultPlan::new(fault, nth));
            let written = write(&fs, &all);
            let known = written.is_ok();
            let outcome = written.and_then(|_| read(&fs, &all));
            if fs.triggered() == 0 {
                outcome.unwrap();
                break;
            }
            runs += 1;
            match outcome {
                Err(error) => {
                    assert_ne!(error.kind(), ErrorKind::InvalidInput, "{fault:?} {nth}: {error}");
                }
                // A filter that cannot be read is done without; every answer was right.
                Ok(()) => without_filter += 1,
            }
            fs.heal();
            if known {
                read(&fs, &all).unwrap_or_else(|e| panic!("{fault:?} {nth}: later reads fail: {e}"));
            }
        }
    }
    assert!(runs > 30, "{runs} runs");
    assert!(
        without_filter <= Fault::ALL.len(),
        "{without_filter} failed calls go unnoticed"
    );
}

#[test]
fn after_a_power_loss_a_table_is_whole_or_does_not_open() {
    let all = entries();
    let disk = SimFs::new();
    write(&disk, &all).unwrap();
    let end = disk.op_count();
    let mut whole = 0;
    for op in 0..=end {
        for seed in 0..20 {
            let image = disk.crash_image(op, &mut Random::from_seed(seed));
            match TableReader::open(&image, path(), ID, cached()) {
                Ok(reader) => {
                    // The trailer may be there while a block is not: never answered with other bytes.
                    let sound = reader.verify_all().is_ok();
                    match scan(&TableView::whole(reader)) {
                        Ok(found) => assert_eq!(found, all, "op {op} seed {seed}"),
                        Err(e) => assert!(
                            !sound && e.kind() == ErrorKind::Corruption,
                            "op {op} seed {seed}: {e}"
                        ),
                    }
                    whole += u32::from(sound);
                }
                Err(e) => {
                    assert!(op < end, "a synced table is lost: {e}");
                    assert!(
                        matches!(e.kind(), ErrorKind::Corruption | ErrorKind::NotFound),
                        "{e}"
                    );
                }
            }
        }
    }
    assert!(whole >= 20, "{whole} whole tables");
}
