//! If this fails, a damaged log is replayed as if nothing were wrong, or what had been durable is dropped in silence.

use crate::logged::{Logged, Models, Program};
use crate::support::{disk, scale};
use keybed_env::{Fs, Random, SimFs};
use keybed_format::{Code, ErrorKind};
use keybed_lsm::Durability;
use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

/// A store that was killed with some files of log, of which all but the last writes had been synced; or none of it.
struct Killed {
    fs: Arc<SimFs>,
    models: Vec<Models>,
    /// Writes that were synced before the last ones.
    synced: usize,
    logs: Vec<PathBuf>,
}

fn killed(seed: u64, writes: usize, synced: usize) -> Killed {
    let fs = disk();
    let mut options = Logged::options(fs.clone(), seed, Durability::Buffered);
    options.memtable_bytes = 1 << 20;
    options.wal_bytes_max = 128 << 10;
    let mut logged = Logged::open_with(options).unwrap();
    let mut random = Random::from_seed(seed);
    let mut program = Program::default();
    let mut models = vec![program.models.clone()];
    for n in 0..writes {
        if synced == 0 {
            // Nothing that would sync the log, as a clear does.
            let (family, key) = (n % 2, (n as u64 % 50).to_be_bytes());
            logged
                .store
                .put(logged.families[family], &key, &[n as u8; 60])
                .unwrap();
            program.models[family].insert(key.to_vec(), vec![n as u8; 60]);
        } else {
            program.step(&mut logged, &mut random).unwrap();
        }
        models.push(program.models.clone());
        if n + 1 == synced {
            logged.store.sync().unwrap();
        }
    }
    drop(logged);
    let names = fs
        .list(Path::new("s"))
        .unwrap()
        .into_iter()
        .map(|entry| entry.name);
    let logs = names.filter(|name| name.starts_with("WAL-"));
    Killed {
        logs: logs.map(|name| Path::new("s").join(name)).collect(),
        fs,
        models,
        synced,
    }
}

#[derive(Default, Debug)]
struct Counts {
    errors: usize,
    whole: usize,
    /// Fewer writes than were made, but all that had been synced.
    torn: usize,
    /// Fewer than had been synced: exempt where no witness is left.
    older: usize,
}

impl Counts {
    fn tell(&self) {
        let Counts {
            errors,
            whole,
            torn,
            older,
        } = self;
        let all = errors + whole + torn + older;
        println!(
            "{all} cases: {} right, {errors} refused, {older} older logs, 0 wrong",
            whole + torn
        );
    }
}

impl Killed {
    /// Opens a damaged image.
    fn check(&self, image: SimFs, may_be_older: bool, what: &str, counts: &mut Counts) {
        let opened = Logged::open(Arc::new(image), 99, Durability::Buffered);
        let content = opened.and_then(|logged| logged.content());
        match content {
            Ok(content) => {
                let after = self.models.iter().rposition(|model| *model == content);
                let after = after.unwrap_or_else(|| panic!("{what}: a content that never was"));
                if after + 1 == self.models.len() {
                    counts.whole += 1;
                } else if after >= self.synced {
                    counts.torn += 1;
                } else {
                    assert!(
                        may_be_older,
                        "{what}: only {after} of {} synced writes",
                        self.synced
                    );
                    counts.older += 1;
                }
            }
            Err(error) => {
                let known = matches!(error.kind(), ErrorKind::Corruption | ErrorKind::Incompatible);
                assert!(known && error.file().is_some(), "{what}: {error}");
                counts.errors += 1;
            }
        }
    }

    fn damage(&self, path: &Path, change: impl FnOnce(&mut Vec<u8>)) -> SimFs {
        let image = self.fs.live_image();
        image.corrupt(path, change).unwrap();
        image
    }
}

#[test]
fn flipped_bits_are_found_or_lie_in_the_torn_end() {
    let killed = killed(1, 260, 230);
    assert!(killed.logs.len() >= 2, "{:?}", killed.logs);
    let (mut counts, mut random) = (Counts::default(), Random::from_seed(1));
    for path in &killed.logs {
        let bytes = killed.fs.read(path, 1 << 20).unwrap().len();
        let all_of_the_start = (0..140 * 8).map(|bit| bit as usize);
        let some = (0..scale(600))
            .map(|_| random.index(bytes * 8))
            .collect::<Vec<_>>();
        for bit in all_of_the_start.chain(some).filter(|bit| *bit < bytes * 8) {
            let image = killed.damage(path, |bytes| bytes[bit / 8] ^= 1 << (bit % 8));
            killed.check(
                image,
                false,
                &format!("{}, bit {bit}", path.display()),
                &mut counts,
            );
        }
    }
    counts.tell();
    assert!(counts.errors > 1000 && counts.older == 0, "{counts:?}");
    assert!(counts.torn > 0, "{counts:?}");
}

#[test]
fn lost_and_moved_bytes_are_found_or_leave_an_older_state() {
    let killed = killed(2, 260, 230);
    let mut counts = Counts::default();
    let first = killed.fs.read(&killed.logs[0], 1 << 20).unwrap();
    let mut other = killed_bytes(3);
    for path in &killed.logs {
        let bytes = killed.fs.read(path, 1 << 20).unwrap().len();
        let what = |text: String| format!("{}, {text}", path.display());
        for length in (0..bytes).filter(|length| length % 512 == 0 || *length < 100 || length + 100 > bytes) {
            let image = killed.damage(path, |bytes| bytes.truncate(length));
            killed.check(image, true, &what(format!("{length} bytes")), &mut counts);
        }
        for sector in 0..bytes / 512 {
            let at = sector * 512..(sector + 1) * 512;
            let image = killed.damage(path, |bytes| bytes[at.clone()].fill(0));
            killed.check(
                image,
                false,
                &what(format!("sector {sector} zeroed")),
                &mut counts,
            );
            if sector > 0 {
                let image = killed.damage(path, |bytes| {
                    let (before, after) = bytes.split_at_mut(at.start);
                    before[at.start - 512..].swap_with_slice(&mut after[..512]);
                });
                killed.check(
                    image,
                    false,
                    &what(format!("sector {sector} swapped")),
                    &mut counts,
                );
            }
        }
        for garbage in [vec![0; 700], vec![0xff; 33], first[..200].to_vec()] {
            let image = killed.damage(path, |bytes| bytes.extend(&garbage));
            killed.check(image, false, &what("garbage behind".into()), &mut counts);
        }
        let image = killed.damage(path, |bytes| std::mem::swap(bytes, &mut other));
        killed.check(image, false, &what("of another store".into()), &mut counts);
        if *path != killed.logs[0] {
            let image = killed.damage(path, |bytes| bytes.clone_from(&first));
            killed.check(image, false, &what("the file before".into()), &mut counts);
        }
        let image = killed.fs.live_image();
        image.remove_file(path).unwrap();
        killed.check(image, false, &what("missing".into()), &mut counts);
    }
    counts.tell();
    assert!(
        counts.errors > 50 && counts.whole > 5 && counts.torn > 2,
        "{counts:?}"
    );
}

fn killed_bytes(seed: u64) -> Vec<u8> {
    let killed = killed(seed, 30, 10);
    killed.fs.read(&killed.logs[0], 1 << 20).unwrap()
}

#[test]
fn a_newer_log_without_the_older_one_is_a_hole() {
    // RocksDB PR 12489: the newer log was synced, the older one not, and recovery ran past the hole.
    let killed = killed(4, 700, 0);
    assert!(killed.logs.len() >= 3);
    for lost in &killed.logs[..killed.logs.len() - 1] {
        let image = Arc::new(killed.fs.live_image());
        image.remove_file(lost).unwrap();
        let logged = Logged::open(image.clone(), 99, Durability::Buffered).unwrap();
        let content = logged.content().unwrap();
        let after = killed.models.iter().position(|model| *model == content);
        assert!(
            after.is_some_and(|after| after < killed.models.len() - 10),
            "{lost:?}: {after:?}"
        );
        assert!(logged.store.stats().torn_bytes > 1000);
        // And what was dropped does not come back.
        drop(logged);
        let logged = Logged::open(image, 100, Durability::Buffered).unwrap();
        assert_eq!(
            (logged.content().unwrap(), logged.store.stats().torn_bytes),
            (content, 0)
        );
    }
}

#[test]
fn a_log_of_a_newer_version_is_refused() {
    let killed = killed(5, 20, 0);
    let image = killed.damage(&killed.logs[0], |bytes| {
        bytes[8] = 9;
        let sum = keybed_format::checksum::hash(&bytes[..68]);
        bytes[68..76].copy_from_slice(&sum.to_le_bytes());
    });
    let error = Logged::open(Arc::new(image), 9, Durability::Buffered)
        .map(drop)
        .unwrap_err();
    assert_eq!(error.code(), Code::UnsupportedFormatVersion, "{error}");
    assert_eq!(error.file(), Some(killed.logs[0].as_path()));
}
