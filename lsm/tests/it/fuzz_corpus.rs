//! If this fails, a byte sequence that once broke the engine breaks it again.

use keybed_lsm::{differential::fuzz, fuzzing};
use std::{fs, path::Path};

#[test]
fn committed_inputs_keep_their_promises() {
    type Check = fn(&[u8]) -> bool;
    let targets: [(&str, Check); 8] = [
        ("engine_diff", fuzz::engine_diff),
        ("engine_crash", fuzz::engine_crash),
        ("merge_operator", fuzz::merge_operator),
        ("wal_replay", fuzzing::wal_replay),
        ("manifest", fuzzing::manifest),
        ("sst_block", fuzzing::sst_block),
        ("sst_footer_index", fuzzing::sst_footer_index),
        ("filter_block", fuzzing::filter_block),
    ];
    let corpora = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus");
    for (target, check) in targets {
        let (mut replayed, mut accepted) = (0, 0);
        for entry in fs::read_dir(corpora.join(target)).unwrap() {
            let path = entry.unwrap().path();
            println!("{}", path.display()); // the last one printed is the culprit
            accepted += u64::from(check(&fs::read(&path).unwrap()));
            replayed += 1;
        }
        println!("{target}: {accepted} of {replayed} inputs are accepted");
        assert!(replayed >= 3, "{target} has a corpus");
        assert!(accepted > 0, "nothing gets into what {target} decodes");
    }
}
