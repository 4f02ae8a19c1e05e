//! The conformance suite of [`CheckpointStorage`]; test support, public so that every storage runs the same one.
//!
//! Each case gets an empty root from the factory. A case that fails panics with a sentence.

use crate::{Birth, CheckpointId, CheckpointStorage, Generation, ObjectName, ObjectPath, Place};
use keybed_env::Fs;
use keybed_format::{Code, Error, Result};
use std::{path::Path, sync::Arc, thread};

/// What the suite needs of a storage.
pub struct Subject {
    /// An empty root.
    pub storage: Arc<dyn CheckpointStorage>,
    /// A second handle on the same root, as another process would have it.
    pub other: Arc<dyn CheckpointStorage>,
    /// Where local files are put from and fetched to.
    pub fs: Arc<dyn Fs>,
    /// An empty directory of `fs`.
    pub local: std::path::PathBuf,
}

type Case = fn(&Subject) -> Result;

/// Runs every case, each on a fresh subject.
///
/// # Panics
/// If the storage breaks a rule.
pub fn check(factory: &dyn Fn() -> Subject) {
    let cases: [(&str, Case); 9] = [
        ("what was put is read", put_then_read),
        ("nothing is replaced", nothing_is_replaced),
        ("a checkpoint is created once", a_checkpoint_is_created_once),
        ("files travel both ways", files_travel),
        ("a file is linked whole or not at all", a_link_is_whole_or_nothing),
        ("a wrong length is refused", a_wrong_length_is_refused),
        ("deleting is idempotent", deleting_is_idempotent),
        ("the lock has one holder", the_lock_has_one_holder),
        ("of many writers one wins", of_many_writers_one_wins),
    ];
    for (name, case) in cases {
        if let Err(error) = case(&factory()) {
            panic!("{name}: {error}");
        }
    }
}

fn name(n: u64) -> ObjectName {
    ObjectName::of(
        Birth {
            generation: Generation(1),
            checkpoint: CheckpointId(1),
        },
        u128::from(n),
    )
}

fn temporary(n: u64) -> ObjectName {
    ObjectName::temporary(
        Birth {
            generation: Generation(1),
            checkpoint: CheckpointId(1),
        },
        u128::from(n),
    )
}

fn refused<T>(code: Code, result: Result<T>) -> Result {
    match result {
        Err(e) if e.code() == code => Ok(()),
        Err(e) => Err(e.context(format!("{code} was expected"))),
        Ok(_) => Err(Error::invalid(format!("{code} was expected, but it succeeded"))),
    }
}

fn names(storage: &dyn CheckpointStorage, place: Place) -> Result<Vec<String>> {
    Ok(storage
        .list(place)?
        .into_iter()
        .map(|listed| listed.name)
        .collect())
}

fn write(subject: &Subject, file: &str, bytes: &[u8]) -> Result<std::path::PathBuf> {
    let path = subject.local.join(file);
    subject.fs.create(&path)?.append(bytes)?;
    Ok(path)
}

fn put_then_read(s: &Subject) -> Result {
    s.storage.create_checkpoint(CheckpointId(1))?;
    for (n, path) in [
        ObjectPath::Owner(Generation(1)),
        ObjectPath::Finished,
        ObjectPath::Shared(name(1)),
        ObjectPath::TaskOwned(name(2)),
        ObjectPath::Metadata(CheckpointId(1)),
        ObjectPath::Private(CheckpointId(1), name(3)),
    ]
    .into_iter()
    .enumerate()
    {
        refused(Code::NotFound, s.storage.open(&path))?;
        let bytes = vec![n as u8; 10 + n];
        s.storage.put_new(&path, &bytes, &temporary(n as u64))?;
        assert_eq!(s.other.read(&path, 100)?, bytes, "{path}");
        refused(Code::Malformed, s.other.read(&path, 9))?;
        assert!(
            names(&*s.other, path.place())?.contains(&path.name()),
            "{path} is listed"
        );
        assert_eq!(path.place().object(&path.name()), Some(path));
    }
    assert_eq!(
        names(&*s.storage, Place::Checkpoint(CheckpointId(1)))?.len(),
        2,
        "nothing temporary is left"
    );
    let root = names(&*s.storage, Place::Root)?;
    assert!(
        root.iter()
            .any(|n| Place::checkpoint_of(n) == Some(CheckpointId(1))),
        "the folder is listed"
    );
    Ok(())
}

fn nothing_is_replaced(s: &Subject) -> Result {
    let path = ObjectPath::Shared(name(1));
    s.storage.put_new(&path, b"first", &temporary(1))?;
    refused(
        Code::TargetExists,
        s.other.put_new(&path, b"second", &temporary(2)),
    )?;
    let file = write(s, "third", b"third")?;
    refused(Code::TargetExists, s.other.put_file(&path, &*s.fs, &file, 5))?;
    assert_eq!(s.storage.read(&path, 100)?, b"first");
    assert_eq!(
        names(&*s.storage, Place::Shared)?,
        [path.name()],
        "a loser leaves nothing behind"
    );
    Ok(())
}

fn a_checkpoint_is_created_once(s: &Subject) -> Result {
    let id = CheckpointId(7);
    s.storage.create_checkpoint(id)?;
    refused(Code::TargetExists, s.other.create_checkpoint(id))?;
    let path = ObjectPath::Private(id, name(1));
    s.storage.put_new(&path, b"x", &temporary(1))?;
    assert!(!s.storage.remove_checkpoint(id)?, "a folder with content stays");
    s.storage.delete(&path)?;
    assert!(s.storage.remove_checkpoint(id)?);
    assert!(
        s.storage.remove_checkpoint(id)?,
        "removing what is missing is success"
    );
    assert!(names(&*s.storage, Place::Checkpoint(id))?.is_empty());
    refused(Code::NotFound, s.storage.put_new(&path, b"x", &temporary(2)))
}

fn files_travel(s: &Subject) -> Result {
    let bytes: Vec<u8> = (0..3_000_000_u32).map(|i| (i % 251) as u8).collect();
    for (n, content) in [(1, &bytes[..]), (2, b"")] {
        let from = write(s, &format!("from-{n}"), content)?;
        let path = ObjectPath::Shared(name(n));
        s.storage.put_file(&path, &*s.fs, &from, content.len() as u64)?;
        s.storage.sync(Place::Shared)?;
        s.fs.remove_file(&from)?;
        let read = s.other.read(&path, u64::MAX)?;
        assert!(read == content, "the object outlives the local file");
        let to = s.local.join(format!("to-{n}"));
        s.other.fetch(&path, &*s.fs, &to)?;
        refused(Code::TargetExists, s.other.fetch(&path, &*s.fs, &to))?;
        s.storage.delete(&path)?;
        assert!(
            s.fs.read(&to, u64::MAX)? == content,
            "the local file outlives the object"
        );
    }
    refused(
        Code::NotFound,
        s.storage
            .fetch(&ObjectPath::Shared(name(3)), &*s.fs, &s.local.join("x")),
    )
}

fn a_link_is_whole_or_nothing(s: &Subject) -> Result {
    let local = write(s, "linked", b"content")?;
    let path = ObjectPath::Shared(name(1));
    // A storage may be unable to link; then nothing is there.
    if s.storage.link_file(&path, &*s.fs, &local, 7)? {
        assert_eq!(s.other.read(&path, 7)?, b"content");
        refused(Code::TargetExists, s.storage.link_file(&path, &*s.fs, &local, 7))?;
        refused(
            Code::Malformed,
            s.storage
                .link_file(&ObjectPath::Shared(name(2)), &*s.fs, &local, 8),
        )?;
    } else {
        refused(Code::NotFound, s.other.open(&path))?;
    }
    refused(Code::NotFound, s.other.open(&ObjectPath::Shared(name(2))))?;
    assert_eq!(s.fs.read(&local, 7)?, b"content", "the file itself stays");
    Ok(())
}

fn a_wrong_length_is_refused(s: &Subject) -> Result {
    let from = write(s, "from", b"four")?;
    let path = ObjectPath::Shared(name(1));
    refused(Code::Malformed, s.storage.put_file(&path, &*s.fs, &from, 5))?;
    refused(Code::NotFound, s.storage.open(&path))?;
    refused(
        Code::NotFound,
        s.storage.put_file(&path, &*s.fs, Path::new("/nowhere/at/all"), 5),
    )
}

fn deleting_is_idempotent(s: &Subject) -> Result {
    let path = ObjectPath::Shared(name(1));
    s.storage.delete(&path)?;
    s.storage.put_new(&path, b"x", &temporary(1))?;
    s.storage.delete(&path)?;
    s.storage.delete(&path)?;
    s.storage
        .delete(&ObjectPath::Private(CheckpointId(99), name(1)))?;
    s.storage.sync(Place::Shared)?;
    refused(Code::NotFound, s.other.open(&path))
}

fn the_lock_has_one_holder(s: &Subject) -> Result {
    let held = s.storage.lock()?;
    let error = s
        .other
        .lock()
        .err()
        .map(|e| (e.code(), e.fields().iter().any(|(name, _)| *name == "pid")));
    assert_eq!(
        error,
        Some((Code::Locked, true)),
        "the second holder is refused and told who has it"
    );
    drop(held);
    s.other.lock().map(drop)
}

fn of_many_writers_one_wins(s: &Subject) -> Result {
    for round in 0..20 {
        let path = ObjectPath::Owner(Generation(round));
        let results: Vec<(u64, Result, Result)> = thread::scope(|scope| {
            let writers: Vec<_> = (0..4)
                .map(|n| {
                    let storage = if n % 2 == 0 { &s.storage } else { &s.other };
                    let path = &path;
                    scope.spawn(move || {
                        let put = storage.put_new(path, &[n as u8; 100], &temporary(round * 4 + n));
                        (n, put, storage.create_checkpoint(CheckpointId(round + 1)))
                    })
                })
                .collect();
            writers
                .into_iter()
                .filter_map(|writer| writer.join().ok())
                .collect()
        });
        assert_eq!(results.len(), 4, "no writer panicked");
        let winners: Vec<u64> = results
            .iter()
            .filter(|(_, put, _)| put.is_ok())
            .map(|(n, ..)| *n)
            .collect();
        assert_eq!(winners.len(), 1, "exactly one put wins");
        assert_eq!(
            s.storage.read(&path, 100)?,
            [winners[0] as u8; 100],
            "the winner's bytes are there"
        );
        assert_eq!(
            results.iter().filter(|(_, _, created)| created.is_ok()).count(),
            1,
            "exactly one create wins"
        );
        for (_, put, created) in results {
            for loser in [put, created].into_iter().filter(Result::is_err) {
                refused(Code::TargetExists, loser)?;
            }
        }
    }
    Ok(())
}
