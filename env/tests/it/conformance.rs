//! If file systems differ, what was proved on the simulated one does not hold on the real one: the same
//! assertions run against all of them.

use keybed_env::{
    CountFs, FaultFs, Fs, OsFs, SimFs,
    fs::{DirEntry, FileKind},
};
use keybed_format::{Code, ErrorKind, Result};
use std::{path::Path, sync::Arc};

fn on_every_file_system(check: impl Fn(&dyn Fs, &Path)) {
    let dir = tempfile::tempdir().unwrap();
    check(&OsFs, dir.path());
    let root = Path::new("/work");
    let sims: [Arc<dyn Fs>; 2] = [Arc::new(SimFs::new()), Arc::new(SimFs::without_history())];
    for sim in sims {
        sim.create_dir(root).unwrap();
        check(&*sim, root);
    }
    let sim = Arc::new(SimFs::new());
    sim.create_dir(root).unwrap();
    check(&CountFs::new(sim), root);
    let sim = Arc::new(SimFs::new());
    sim.create_dir(root).unwrap();
    check(&FaultFs::new(sim), root);
}

fn write(fs: &dyn Fs, path: &Path, bytes: &[u8]) {
    let mut file = fs.create(path).unwrap();
    file.append(bytes).unwrap();
    file.sync().unwrap();
}

fn read(fs: &dyn Fs, path: &Path) -> Vec<u8> {
    fs.read(path, 1 << 20).unwrap()
}

fn code<T>(result: Result<T>) -> Code {
    result.map(drop).unwrap_err().code()
}

#[test]
fn create_never_truncates_and_append_goes_on_at_the_end() {
    on_every_file_system(|fs, root| {
        let path = root.join("a");
        let mut file = fs.create(&path).unwrap();
        assert!(file.is_empty());
        file.append(b"one").unwrap();
        file.append(b"").unwrap();
        file.append(b"two").unwrap();
        assert_eq!(file.len(), 6);
        file.sync().unwrap();
        assert_eq!(code(fs.create(&path)), Code::TargetExists);
        let mut file = fs.append(&path).unwrap();
        assert_eq!(file.len(), 6);
        file.append(b"three").unwrap();
        assert_eq!(file.len(), 11);
        assert_eq!(read(fs, &path), b"onetwothree");
        assert_eq!(code(fs.append(&root.join("none"))), Code::NotFound);
        assert_eq!(code(fs.create(&root.join("none/a"))), Code::NotFound);
        assert_eq!(fs.create(&path.join("b")).unwrap_err().kind(), ErrorKind::Io);
    });
}

#[test]
fn reads_are_exact_or_fail_with_the_offset() {
    on_every_file_system(|fs, root| {
        let path = root.join("a");
        write(fs, &path, b"0123456789");
        let file = fs.open(&path).unwrap();
        assert_eq!(file.len(), 10);
        let mut part = [0; 4];
        file.read_exact_at(&mut part, 6).unwrap();
        assert_eq!(&part, b"6789");
        file.read_exact_at(&mut [], 10).unwrap();
        let error = file.read_exact_at(&mut part, 7).unwrap_err();
        assert_eq!(
            (error.code(), error.offset(), error.file()),
            (Code::Malformed, Some(7), Some(&*path))
        );
        assert!(file.read_exact_at(&mut part, u64::MAX - 1).is_err());
        assert_eq!(code(fs.read(&path, 9)), Code::Malformed);
        assert_eq!(code(fs.open(&root.join("none"))), Code::NotFound);
        assert_eq!(code(fs.open(root)), Code::IoFailed);
        if let Some(map) = file.map().unwrap() {
            assert_eq!(&*map, b"0123456789");
        }
    });
}

#[test]
fn an_open_file_survives_its_name() {
    on_every_file_system(|fs, root| {
        let (a, b) = (root.join("a"), root.join("b"));
        write(fs, &a, b"old");
        write(fs, &b, b"new");
        let open = fs.open(&a).unwrap();
        fs.rename(&b, &a).unwrap();
        let mut bytes = [0; 3];
        open.read_exact_at(&mut bytes, 0).unwrap();
        assert_eq!(&bytes, b"old");
        let open = fs.open(&a).unwrap();
        let mut writer = fs.append(&a).unwrap();
        fs.remove_file(&a).unwrap();
        open.read_exact_at(&mut bytes, 0).unwrap();
        assert_eq!(&bytes, b"new");
        writer.append(b"into the void").unwrap();
        writer.sync().unwrap();
        assert_eq!(fs.facts(&a).unwrap(), None);
    });
}

#[test]
fn rename_replaces_files_and_empty_directories_only() {
    on_every_file_system(|fs, root| {
        let (a, b, dir) = (root.join("a"), root.join("b"), root.join("dir"));
        write(fs, &a, b"a");
        write(fs, &b, b"b");
        fs.create_dir(&dir).unwrap();
        fs.rename(&a, &b).unwrap();
        assert_eq!(read(fs, &b), b"a");
        assert_eq!(fs.facts(&a).unwrap(), None);
        assert_eq!(code(fs.rename(&a, &b)), Code::NotFound);
        assert!(fs.rename(&b, &dir).is_err());
        assert!(fs.rename(&dir, &b).is_err());
        assert!(fs.rename(&dir, &dir.join("inside")).is_err());
        fs.rename(&b, &b).unwrap();
        let full = root.join("full");
        fs.create_dir(&full).unwrap();
        fs.rename(&b, &full.join("b")).unwrap();
        assert!(fs.rename(&dir, &full).is_err());
        fs.rename(&full, &dir).unwrap();
        assert_eq!(read(fs, &dir.join("b")), b"a");
        assert_eq!(fs.facts(&full).unwrap(), None);
    });
}

#[test]
fn a_link_never_replaces_and_is_the_same_file() {
    on_every_file_system(|fs, root| {
        let (a, b, c) = (root.join("a"), root.join("b"), root.join("c"));
        write(fs, &a, b"a");
        write(fs, &c, b"c");
        fs.link(&a, &b).unwrap();
        assert_eq!(code(fs.link(&a, &c)), Code::TargetExists);
        assert_eq!(code(fs.link(&root.join("none"), &root.join("d"))), Code::NotFound);
        assert!(fs.link(root, &root.join("d")).is_err());
        fs.append(&b).unwrap().append(b"b").unwrap();
        assert_eq!(read(fs, &a), b"ab");
        fs.remove_file(&a).unwrap();
        assert_eq!(read(fs, &b), b"ab");
    });
}

#[test]
fn a_copy_is_another_file() {
    on_every_file_system(|fs, root| {
        let (a, b) = (root.join("a"), root.join("b"));
        write(fs, &a, &[7; 5000]);
        fs.copy(&a, &b).unwrap();
        fs.append(&a).unwrap().append(b"more").unwrap();
        assert_eq!(read(fs, &b), [7; 5000]);
        assert_eq!(code(fs.copy(&a, &b)), Code::TargetExists);
        assert_eq!(code(fs.copy(&root.join("none"), &root.join("c"))), Code::NotFound);
        assert_eq!(fs.facts(&root.join("c")).unwrap(), None);
        assert!(fs.copy(root, &root.join("c")).is_err());
    });
}

#[test]
fn truncation_cuts_and_never_grows() {
    on_every_file_system(|fs, root| {
        let path = root.join("a");
        write(fs, &path, b"0123456789");
        fs.truncate(&path, 4).unwrap();
        assert_eq!(code(fs.truncate(&path, 5)), Code::InvalidArgument);
        let mut file = fs.append(&path).unwrap();
        file.append(b"x").unwrap();
        file.sync().unwrap();
        assert_eq!(read(fs, &path), b"0123x");
        assert_eq!(code(fs.truncate(&root.join("none"), 0)), Code::NotFound);
        assert!(fs.truncate(root, 0).is_err());
    });
}

#[test]
fn directories_list_sorted_and_go_only_when_empty() {
    on_every_file_system(|fs, root| {
        let dir = root.join("dir");
        fs.create_dir(&dir).unwrap();
        assert_eq!(code(fs.create_dir(&dir)), Code::TargetExists);
        assert_eq!(code(fs.create_dir(&root.join("none/dir"))), Code::NotFound);
        for name in ["b", "a", "c", "B"] {
            write(fs, &dir.join(name), name.as_bytes());
        }
        fs.create_dir(&dir.join("aa")).unwrap();
        let entry = |name: &str, kind| DirEntry {
            name: name.into(),
            kind,
        };
        let expected = [
            entry("B", FileKind::File),
            entry("a", FileKind::File),
            entry("aa", FileKind::Dir),
            entry("b", FileKind::File),
            entry("c", FileKind::File),
        ];
        assert_eq!(fs.list(&dir).unwrap(), expected);
        assert_eq!(fs.remove_dir(&dir).unwrap_err().kind(), ErrorKind::Io);
        assert!(fs.remove_file(&dir).is_err());
        assert!(fs.remove_dir(&dir.join("a")).is_err());
        for name in ["a", "b", "c", "B"] {
            fs.remove_file(&dir.join(name)).unwrap();
        }
        fs.remove_dir(&dir.join("aa")).unwrap();
        fs.remove_dir(&dir).unwrap();
        assert_eq!(code(fs.list(&dir)), Code::NotFound);
        assert_eq!(code(fs.remove_dir(&dir)), Code::NotFound);
        assert_eq!(code(fs.remove_file(&dir)), Code::NotFound);
        assert_eq!(code(fs.sync_dir(&dir)), Code::NotFound);
    });
}

#[test]
fn facts_answer_without_opening() {
    on_every_file_system(|fs, root| {
        let path = root.join("a");
        write(fs, &path, b"abc");
        let facts = |path: &Path| fs.facts(path).unwrap().map(|facts| (facts.len, facts.kind));
        assert_eq!(facts(&path), Some((3, FileKind::File)));
        assert_eq!(facts(root), Some((0, FileKind::Dir)));
        assert_eq!(fs.facts(&root.join("none/deeper")).unwrap(), None);
        assert_eq!(fs.facts(&path.join("below a file")).unwrap(), None);
    });
}

#[test]
fn a_lock_is_refused_while_it_is_held() {
    on_every_file_system(|fs, root| {
        let path = root.join("LOCK");
        let held = fs.lock(&path).unwrap();
        let error = fs.lock(&path).unwrap_err();
        assert_eq!(error.code(), Code::Locked);
        let written = String::from_utf8(read(fs, &path)).unwrap();
        assert_eq!(error.fields(), [("pid", written.trim_end().to_owned())]);
        drop(held);
        let held = fs.lock(&path).unwrap();
        assert_eq!(code(fs.lock(&path)), Code::Locked);
        assert_eq!(code(fs.hold(&path)), Code::Locked);
        drop(held);
        assert!(fs.lock(root).is_err());
        assert!(fs.hold(root).is_err());
        // Who only looks leaves the text as it is.
        let signed = read(fs, &path);
        fs.append(&path).unwrap().append(b"!").unwrap();
        let held = fs.hold(&path).unwrap();
        assert_eq!(code(fs.lock(&path)), Code::Locked);
        assert_eq!(read(fs, &path), [&signed[..], b"!"].concat());
        drop(held);
        drop(fs.hold(&root.join("new")).unwrap());
        assert_eq!(code(fs.lock(&root.join("none/LOCK"))), Code::NotFound);
    });
}

#[test]
fn missing_directories_are_created_together() {
    on_every_file_system(|fs, root| {
        let deep = root.join("x/y/z");
        fs.create_dir_all(&deep).unwrap();
        fs.create_dir_all(&deep).unwrap();
        assert_eq!(fs.facts(&deep).unwrap().unwrap().kind, FileKind::Dir);
        write(fs, &deep.join("file"), b"");
        assert_eq!(code(fs.create_dir_all(&deep.join("file"))), Code::TargetExists);
        assert!(fs.create_dir_all(&deep.join("file/below")).is_err());
    });
}

#[test]
fn an_atomic_write_replaces_and_sweeps_its_temporary_name() {
    on_every_file_system(|fs, root| {
        let (path, temporary) = (root.join("CURRENT"), root.join("CURRENT.tmp"));
        write(fs, &temporary, b"left by a crash");
        for content in [&b"one"[..], b"two, longer", b"3"] {
            fs.write_atomic(&path, &temporary, content).unwrap();
            assert_eq!(read(fs, &path), content);
            assert_eq!(fs.facts(&temporary).unwrap(), None);
        }
        // A directory cannot be replaced by a file: the rename fails and nothing is left behind.
        let dir = root.join("dir");
        fs.create_dir(&dir).unwrap();
        assert!(fs.write_atomic(&dir, &temporary, b"x").is_err());
        assert_eq!(fs.facts(&temporary).unwrap(), None);
    });
}

#[test]
fn the_real_file_system_follows_no_link_and_waits_for_no_pipe() {
    let dir = tempfile::tempdir().unwrap();
    let (target, link, pipe) = (
        dir.path().join("target"),
        dir.path().join("link"),
        dir.path().join("pipe"),
    );
    write(&OsFs, &target, b"secret");
    std::os::unix::fs::symlink(&target, &link).unwrap();
    assert!(
        std::process::Command::new("mkfifo")
            .arg(&pipe)
            .status()
            .unwrap()
            .success()
    );
    for path in [&link, &pipe] {
        assert_eq!(OsFs.open(path).unwrap_err().kind(), ErrorKind::Io);
        assert_eq!(OsFs.append(path).unwrap_err().kind(), ErrorKind::Io);
        assert_eq!(OsFs.truncate(path, 0).unwrap_err().kind(), ErrorKind::Io);
        assert_eq!(
            OsFs.copy(path, &dir.path().join("copy")).unwrap_err().kind(),
            ErrorKind::Io
        );
        assert_eq!(
            OsFs.link(path, &dir.path().join("second")).unwrap_err().kind(),
            ErrorKind::Io
        );
        assert_eq!(OsFs.lock(path).unwrap_err().kind(), ErrorKind::Io);
        assert_eq!(OsFs.facts(path).unwrap().unwrap().kind, FileKind::Other);
        assert_eq!(code(OsFs.create(path)), Code::TargetExists);
    }
    assert_eq!(
        OsFs.list(dir.path())
            .unwrap()
            .iter()
            .filter(|e| e.kind == FileKind::Other)
            .count(),
        2
    );
    assert_eq!(read(&OsFs, &target), b"secret");
}

#[test]
fn a_relative_path_can_be_told_to_another_process() {
    let here = std::env::current_dir().unwrap();
    let path = Path::new("no/such ärea");
    assert_eq!(OsFs.absolute(path).unwrap(), here.join(path));
    assert_eq!(OsFs.absolute(&here).unwrap(), here);
}

#[test]
fn reserving_space_changes_neither_length_nor_bytes() {
    on_every_file_system(|fs, root| {
        let path = root.join("log");
        let mut file = fs.create(&path).unwrap();
        file.reserve(1 << 20).unwrap();
        assert_eq!(file.len(), 0);
        file.append(b"one").unwrap();
        file.reserve(0).unwrap();
        file.append(b"two").unwrap();
        file.sync().unwrap();
        assert_eq!(read(fs, &path), b"onetwo");
        assert_eq!(fs.append(&path).unwrap().len(), 6);
    });
}
