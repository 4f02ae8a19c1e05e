//! If two processes could hold one lock, both would write one directory.

use keybed_env::{Fs, OsFs, SimFs};
use keybed_format::Code;
use std::{
    env,
    io::{BufRead, BufReader},
    path::Path,
    process::{Command, Stdio},
};

const CHILD: &str = "KEYBED_TEST_LOCK";

#[test]
fn a_second_process_is_refused_until_the_first_dies() {
    if let Some(path) = env::var_os(CHILD) {
        return hold(Path::new(&path));
    }
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("LOCK");
    let mut child = Command::new(env::current_exe().unwrap())
        .args([
            "lock::a_second_process_is_refused_until_the_first_dies",
            "--exact",
            "--nocapture",
        ])
        .env(CHILD, &path)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let output = BufReader::new(child.stdout.take().unwrap());
    assert!(
        output.lines().any(|line| line.unwrap().contains("locked")),
        "the child never held the lock"
    );
    let error = OsFs.lock(&path).unwrap_err();
    assert_eq!(error.code(), Code::Locked);
    assert_eq!(error.fields(), [("pid", child.id().to_string())]);
    child.kill().unwrap();
    child.wait().unwrap();
    OsFs.lock(&path).unwrap();
}

/// The child: takes the lock, says so, and keeps it until it is killed or its parent is gone.
fn hold(path: &Path) {
    let _lock = OsFs.lock(path).unwrap();
    println!("locked");
    std::io::stdin().read_line(&mut String::new()).unwrap();
}

#[test]
fn simulated_processes_exclude_each_other_too() {
    let first = SimFs::new();
    let second = first.process();
    let path = Path::new("LOCK");
    let lock = first.lock(path).unwrap();
    let error = second.lock(path).unwrap_err();
    assert_eq!(error.fields(), [("pid", first.pid().to_string())]);
    first.kill();
    assert!(first.create(Path::new("a")).is_err(), "the dead write");
    let held = second.lock(path).unwrap();
    drop(lock);
    assert_eq!(
        first.process().lock(path).unwrap_err().code(),
        Code::Locked,
        "the dead released another's lock"
    );
    drop(held);
}
