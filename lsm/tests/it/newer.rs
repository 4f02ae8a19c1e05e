//! If this fails, a release takes files of a later one for damaged ones, and somebody repairs what was not broken.

use crate::support::{disk, simulated};
use keybed_env::{Fs, SimFs};
use keybed_format::{Code, ErrorKind, checksum, trailer::TAIL_BYTES};
use keybed_lsm::Store;
use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

/// A closed store of one key, and its only file whose name is like that.
fn store(name: impl Fn(&str) -> bool) -> (Arc<SimFs>, PathBuf) {
    let fs = disk();
    let mut store = Store::open("s", simulated(fs.clone(), 1)).unwrap();
    let family = store.family("f").unwrap();
    store.put(family, b"k", b"v").unwrap();
    store.close().unwrap();
    let files = fs.list(Path::new("s")).unwrap();
    let file = files.iter().find(|entry| name(&entry.name)).unwrap();
    (fs, Path::new("s").join(&file.name))
}

/// It is refused as news, by name, and nothing is changed by trying.
fn refused(fs: &Arc<SimFs>, path: &Path) {
    let before = fs.tree();
    let error = Store::open("s", simulated(fs.clone(), 2))
        .and_then(|mut store| {
            let family = store.family("f")?;
            store.get(family, b"k").map(drop)
        })
        .unwrap_err();
    assert_eq!(error.code(), Code::UnsupportedFormatVersion, "{error}");
    assert_eq!(error.kind(), ErrorKind::Incompatible);
    assert!(
        error
            .file()
            .is_some_and(|file| file.ends_with(path.file_name().unwrap())),
        "{error}"
    );
    let after = fs.tree();
    let kept = before
        .iter()
        .filter(|(path, _)| !path.ends_with("CURRENT") && !path.to_string_lossy().contains("MANIFEST"));
    for (path, bytes) in kept {
        assert!(
            after.get(path) == Some(bytes),
            "{} is no longer what it was",
            path.display()
        );
    }
}

#[test]
fn a_manifest_of_a_newer_version_is_refused() {
    let (fs, path) = store(|name| name.starts_with("MANIFEST"));
    fs.corrupt(&path, |bytes| {
        bytes[8] = 9;
        let sum = checksum::hash(&bytes[..36]);
        bytes[36..44].copy_from_slice(&sum.to_le_bytes());
    })
    .unwrap();
    refused(&fs, &path);
}

#[test]
fn a_table_of_a_newer_version_is_refused() {
    let (fs, path) = store(|name| name.ends_with(".sst"));
    fs.corrupt(&path, |bytes| {
        let tail = bytes.len() - TAIL_BYTES;
        bytes[tail + 36] = 9;
        // Less than a MiB: one sum.
        let summed = [&bytes[tail - 8..tail + 24], &bytes[tail + 32..tail + 40]].concat();
        bytes[tail + 24..tail + 32].copy_from_slice(&checksum::hash(&summed).to_le_bytes());
    })
    .unwrap();
    refused(&fs, &path);
}
