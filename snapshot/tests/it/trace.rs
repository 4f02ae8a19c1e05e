//! If this fails, the order of calls that makes a checkpoint durable has changed: read the difference with care, then
//! rewrite the trace with `UPDATE=1`.

use crate::support::*;
use keybed_env::{Fs, SimFs};
use std::{path::Path, sync::Arc};

/// Names of objects by the order of their appearance, so that the trace shows which is which.
fn readable(trace: &[String]) -> String {
    let mut seen: Vec<String> = Vec::new();
    let mut text = String::new();
    for line in trace.iter().map(|line| line.replace(&JOB.to_string(), "JOB")) {
        let words: Vec<String> = line
            .split(' ')
            .map(|word| {
                let Some((head, random)) = word.rsplit_once('-').filter(|(_, random)| random.len() == 32)
                else {
                    return word.to_owned();
                };
                let known = seen.iter().position(|s| s == random);
                let index = known.unwrap_or_else(|| {
                    seen.push(random.to_owned());
                    seen.len() - 1
                });
                format!("{head}-#{index}")
            })
            .collect();
        text.push_str(&words.join(" "));
        text.push('\n');
    }
    text
}

#[test]
fn the_calls_of_a_checkpoint_and_of_the_cleanup_after_it() {
    let sim = SimFs::new();
    sim.create_dir_all(Path::new(WORK)).unwrap();
    let fs: Arc<dyn Fs> = Arc::new(sim.clone());
    let mut job = TinyJob::new(fs.clone(), resume(&fs, 1, 1).unwrap());
    job.checkpoint(1, 1).unwrap();
    sim.settle();
    let before = sim.trace().len();
    job.checkpoint(1, 1).unwrap();
    job.root.cleanup();
    let found = readable(&sim.trace()[before..]);
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/traces/checkpoint.txt");
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(&path, &found).unwrap();
    }
    let expected = std::fs::read_to_string(&path).unwrap();
    assert!(found == expected, "found\n{found}\nexpected\n{expected}");
}
