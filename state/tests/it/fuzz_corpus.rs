//! If this fails, bytes that once broke the reader of canonical files break it again.

use keybed_env::Random;
use keybed_state::canonical::fuzzing::canonical_savepoint;
use std::{fs, path::Path};

#[test]
fn committed_inputs_keep_their_promises() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus/canonical_savepoint");
    let mut replayed = 0;
    for entry in fs::read_dir(corpus).unwrap() {
        let path = entry.unwrap().path();
        println!("{}", path.display()); // the last one printed is the culprit
        canonical_savepoint(&fs::read(&path).unwrap());
        replayed += 1;
    }
    assert!(replayed >= 5, "there is a corpus");
}

#[test]
fn random_inputs_and_damaged_ones_keep_their_promises() {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus/canonical_savepoint");
    let seeds: Vec<_> = ["golden-sections", "block", "state"]
        .iter()
        .map(|name| fs::read(golden.join(name)).unwrap())
        .collect();
    let scale: u64 = std::env::var("KEYBED_SCALE").map_or(1, |text| text.parse().unwrap());
    for seed in 0..3000 * scale {
        let mut random = Random::from_seed(seed);
        println!("seed {seed}");
        let mut bytes = seeds[random.index(seeds.len())].clone();
        for _ in 0..random.below(4) {
            let at = random.index(bytes.len());
            match random.below(4) {
                0 => bytes[at] ^= 1 << random.below(8),
                1 => bytes[at] = [0, 1, 0x7f, 0x80, 0xff][random.index(5)],
                2 if bytes.len() > 1 => drop(bytes.remove(at)),
                _ => bytes.insert(at, random.below(256) as u8),
            }
        }
        canonical_savepoint(&bytes);
    }
}
