//! The committed corpora of all fuzz targets, replayed without a fuzzer.

use std::{fs, path::Path};

#[allow(
    unreachable_pub,
    reason = "the same file is the library of the fuzz workspace"
)]
#[path = "../../fuzz/src/lib.rs"]
mod properties;

#[test]
fn every_committed_input_keeps_its_promise() {
    // What a fuzzer once found could come back unnoticed where no fuzzer is installed.
    let corpora = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus");
    for (target, check) in properties::TARGETS {
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

#[test]
fn every_target_is_listed_in_the_manifest_of_the_fuzz_workspace() {
    // A target that nobody builds would look like proof.
    let fuzz = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz");
    let manifest = fs::read_to_string(fuzz.join("Cargo.toml")).unwrap();
    let files = fs::read_dir(fuzz.join("fuzz_targets")).unwrap().count();
    assert_eq!(files, properties::TARGETS.len());
    for (target, _) in properties::TARGETS {
        assert!(manifest.contains(&format!("name = \"{target}\"")), "{target}");
        assert!(fuzz.join(format!("fuzz_targets/{target}.rs")).exists());
    }
}
