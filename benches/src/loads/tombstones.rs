//! A prefix of ten entries beside a million tombstones: what is asked about the prefix must not pay for its
//! neighbours.

use super::Flags;
use crate::{
    engines::{Engine, Setup, contender},
    measure::median,
};
use std::{process::ExitCode, time::Instant};

const TOMBSTONES: u64 = 1_000_000;
const ENTRIES: u64 = 10;
/// How much dearer a neighbour may make it.
const FACTOR: f64 = 3.0;
/// Times each question is asked.
const TIMES: usize = 201;

/// Where the tombstones are when the questions are asked.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    Nowhere,
    Memory,
    Files,
}

fn key(neighbour: u8, i: u64) -> Vec<u8> {
    let mut key = vec![0, 5, b'p', neighbour];
    key.extend_from_slice(&i.to_be_bytes());
    key
}

/// Nanoseconds to iterate over the prefix, to see whether it is empty, and to clear it.
fn ask(engine: &mut dyn Engine, place: Place) -> [f64; 3] {
    let prefix = [0, 5, b'p', b'm'];
    let fill = |engine: &mut dyn Engine| (0..ENTRIES).for_each(|i| engine.put(&key(b'm', i), b"value"));
    if place != Place::Nowhere {
        for neighbour in [b'l', b'n'] {
            (0..TOMBSTONES / 2).for_each(|i| engine.put(&key(neighbour, i), b"value"));
        }
    }
    fill(engine);
    engine.flush();
    if place != Place::Nowhere {
        for neighbour in [b'l', b'n'] {
            (0..TOMBSTONES / 2).for_each(|i| engine.delete(&key(neighbour, i)));
        }
    }
    if place == Place::Files {
        engine.flush();
    }
    let mut nanos = [const { Vec::new() }; 3];
    for _ in 0..TIMES {
        let mut entries = 0;
        let start = Instant::now();
        engine.prefix(&prefix, &mut |_, _| {
            entries += 1;
            true
        });
        nanos[0].push(start.elapsed().as_nanos() as f64);
        assert_eq!(entries, ENTRIES, "the prefix has its entries");
        let mut empty = true;
        let start = Instant::now();
        engine.prefix(&prefix, &mut |_, _| {
            empty = false;
            false
        });
        nanos[1].push(start.elapsed().as_nanos() as f64);
        assert!(!empty, "the prefix is not empty");
        let start = Instant::now();
        engine.delete_prefix(&prefix);
        engine.prefix(&prefix, &mut |_, _| {
            empty = true;
            false
        });
        nanos[2].push(start.elapsed().as_nanos() as f64);
        assert!(!empty, "a cleared prefix shows nothing");
        fill(engine);
    }
    nanos.map(median)
}

pub fn run(words: &[String]) -> Result<ExitCode, String> {
    let flags = Flags(words);
    flags.check(&["--dir"])?;
    let setup = Setup {
        cache_bytes: 512 << 20,
        memtable_bytes: 64 << 20,
        budget_bytes: None,
        ordered: true,
        queue_bytes: 0,
        prefix_bytes: 0,
        appends: false,
    };
    let mut met = true;
    println!("medians in ns, and in multiples of the clean case");
    for name in ["keybed", "keybed-unmapped", "rocksdb-flink"] {
        let Some(contender) = contender(name) else {
            continue;
        };
        let mut clean = [0.0; 3];
        for (place, title) in [
            (Place::Nowhere, "clean"),
            (Place::Memory, "tombstones in memory"),
            (Place::Files, "tombstones in files"),
        ] {
            let dir = tempfile::tempdir_in(flags.dir()).map_err(|error| error.to_string())?;
            let mut engine = (contender.open)(dir.path(), &setup);
            let nanos = ask(engine.as_mut(), place);
            if place == Place::Nowhere {
                clean = nanos;
            }
            let cells: Vec<String> = ["iterate", "is empty", "clear and look"]
                .iter()
                .zip(nanos.iter().zip(&clean))
                .map(|(what, (ns, clean))| format!("{what} {ns:.0} ({:.1}×)", ns / clean))
                .collect();
            let worst = nanos
                .iter()
                .zip(&clean)
                .map(|(ns, clean)| ns / clean)
                .fold(0.0, f64::max);
            let judged = contender.peer != "rocksdb";
            met &= !judged || worst <= FACTOR;
            let verdict = match (judged, worst <= FACTOR) {
                (false, _) => "",
                (true, true) => "met",
                (true, false) => "MISSED",
            };
            println!("{name:<16} {title:<22} {}  {verdict}", cells.join(", "));
        }
    }
    Ok(ExitCode::from(u8::from(!met)))
}
