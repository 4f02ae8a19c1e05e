//! If the simulated disk answered otherwise than the real one in some corner, or lost something that was synced,
//! the crash tests of every layer would prove the wrong thing: random programs look for such corners.

use keybed_env::{
    Fs, OsFs, Random, SimFs,
    fs::{DirEntry, FileKind},
};
use keybed_format::{Code, Result};
use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

/// A path of at most three names, of which few exist.
fn draw_path(random: &mut Random) -> PathBuf {
    (0..=random.below(3))
        .map(|_| ["a", "b", "c"][random.index(3)])
        .collect()
}

#[derive(Debug, PartialEq, Eq)]
enum Answer {
    Done,
    Bytes(Vec<u8>),
    Names(Vec<DirEntry>),
    Facts(Option<(u64, FileKind)>),
}

/// One random call; equal states of `random` make equal calls.
fn call(fs: &dyn Fs, root: &Path, random: &mut Random) -> (String, Result<Answer>) {
    let (relative, other) = (draw_path(random), draw_path(random));
    let (path, to) = (root.join(&relative), root.join(&other));
    let number = random.below(2000);
    let bytes = vec![number as u8; number as usize];
    let write = |mut file: Box<dyn keybed_env::WriteFile>| {
        file.append(&bytes)?;
        if number.is_multiple_of(3) {
            file.sync()
        } else {
            Ok(())
        }
    };
    let done = |result: Result| result.map(|()| Answer::Done);
    let (what, answer) = match random.below(16) {
        0 | 1 => ("create", done(fs.create(&path).and_then(write))),
        2 => ("append", done(fs.append(&path).and_then(write))),
        3 => ("truncate", done(fs.truncate(&path, number))),
        4 | 5 => ("rename", done(fs.rename(&path, &to))),
        6 => ("link", done(fs.link(&path, &to))),
        7 => ("copy", done(fs.copy(&path, &to))),
        8 => ("remove_file", done(fs.remove_file(&path))),
        9 => ("remove_dir", done(fs.remove_dir(&path))),
        10 | 11 => ("create_dir", done(fs.create_dir(&path))),
        12 => ("list", fs.list(&path).map(Answer::Names)),
        13 => (
            "facts",
            fs.facts(&path)
                .map(|facts| Answer::Facts(facts.map(|facts| (facts.len, facts.kind)))),
        ),
        14 => ("sync_dir", done(fs.sync_dir(&path))),
        _ => ("read", fs.read(&path, 1 << 30).map(Answer::Bytes)),
    };
    (
        format!("{what} {} {} {number}", relative.display(), other.display()),
        answer,
    )
}

fn walk(fs: &dyn Fs, dir: &Path, found: &mut BTreeMap<PathBuf, Option<Vec<u8>>>) {
    for entry in fs.list(dir).unwrap() {
        let path = dir.join(&entry.name);
        if entry.kind == FileKind::Dir {
            found.insert(path.clone(), None);
            walk(fs, &path, found);
        } else {
            found.insert(path.clone(), Some(fs.read(&path, 1 << 30).unwrap()));
        }
    }
}

fn contents(fs: &dyn Fs, root: &Path) -> BTreeMap<PathBuf, Option<Vec<u8>>> {
    let mut found = BTreeMap::new();
    walk(fs, root, &mut found);
    found
        .into_iter()
        .map(|(path, bytes)| (path.strip_prefix(root).unwrap().to_path_buf(), bytes))
        .collect()
}

#[test]
fn the_simulated_disk_answers_as_the_real_one() {
    let mut succeeded = 0;
    for seed in 0..40 {
        let dir = tempfile::tempdir().unwrap();
        let sim = SimFs::new();
        sim.create_dir(Path::new("root")).unwrap();
        let mut random = Random::from_seed(seed);
        for step in 0..300 {
            let mut same = random.clone();
            let (call_text, real) = call(&OsFs, dir.path(), &mut random);
            let (_, simulated) = call(&sim, Path::new("root"), &mut same);
            succeeded += u32::from(real.is_ok());
            let codes = |result: Result<Answer>| result.map_err(|e| e.code());
            assert_eq!(
                codes(simulated),
                codes(real),
                "seed {seed}, step {step}: {call_text}"
            );
        }
        assert_eq!(
            contents(&sim, Path::new("root")),
            contents(&OsFs, dir.path()),
            "seed {seed}"
        );
    }
    assert!(succeeded > 2000, "{succeeded} calls did something");
}

/// Syncs every file, then every directory.
fn sync_all(fs: &SimFs) {
    for (path, bytes) in contents(fs, Path::new("/")) {
        match bytes {
            Some(_) => fs.append(&Path::new("/").join(path)).unwrap().sync().unwrap(),
            None => fs.sync_dir(&Path::new("/").join(path)).unwrap(),
        }
    }
    fs.sync_dir(Path::new("/")).unwrap();
}

#[test]
fn what_is_synced_survives_every_power_loss_and_nothing_is_made_up() {
    let mut images = 0;
    for seed in 0..40 {
        let mut random = Random::from_seed(seed);
        let fs = SimFs::new();
        // Every (offset, byte) that any file ever had.
        let mut written = BTreeSet::new();
        for _ in 0..120 {
            let _ = call(&fs, Path::new("/"), &mut random);
            for bytes in fs.tree().values() {
                written.extend(bytes.iter().copied().enumerate().step_by(101));
            }
            if random.one_in(40) {
                sync_all(&fs);
                let end = fs.op_count();
                assert_eq!(fs.strict_image(end).tree(), fs.tree(), "seed {seed}");
                assert_eq!(
                    fs.crash_image(end, &mut random).image_hash(),
                    fs.image_hash(),
                    "seed {seed}"
                );
            }
        }
        assert_eq!(fs.live_image_at(fs.op_count()).tree(), fs.tree(), "seed {seed}");
        images += fs.each_crash_image(3, &mut random, |at, image| {
            for (path, bytes) in image.tree() {
                let mut found = bytes.iter().copied().enumerate().step_by(101);
                let alien = found.find(|(offset, byte)| *byte != 0 && !written.contains(&(*offset, *byte)));
                assert_eq!(alien, None, "seed {seed}, operation {at}: {}", path.display());
            }
        });
    }
    assert!(images > 800, "{images} images");
}

#[test]
fn an_image_of_a_moment_does_not_depend_on_what_was_drawn_before() {
    let fs = SimFs::new();
    let mut random = Random::from_seed(5);
    for _ in 0..400 {
        let _ = call(&fs, Path::new("/"), &mut random);
    }
    let end = fs.op_count();
    let forward: Vec<u64> = (0..=end).map(|at| fs.strict_image(at).image_hash()).collect();
    for at in (0..=end).rev() {
        assert_eq!(
            fs.strict_image(at).image_hash(),
            forward[at as usize],
            "operation {at}"
        );
    }
}

#[test]
fn without_history_the_durable_state_is_the_same() {
    for seed in 0..10 {
        let (with, without) = (SimFs::new(), SimFs::without_history());
        for fs in [&with, &without] {
            let mut random = Random::from_seed(seed);
            for _ in 0..3000 {
                assert_ne!(
                    call(fs, Path::new("/"), &mut random).1.err().map(|e| e.code()),
                    Some(Code::Locked)
                );
            }
        }
        let (a, b) = (
            with.strict_image(with.op_count()),
            without.strict_image(without.op_count()),
        );
        assert_eq!(a.tree(), b.tree(), "seed {seed}");
        assert_eq!(with.tree(), without.tree(), "seed {seed}");
    }
}
