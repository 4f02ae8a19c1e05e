//! The work directory: local stores of the tasks, never trusted after an attempt.
//!
//! ```text
//! <work dir>/<attempt>-<node>-<subtask>/...      one store each
//! ```
//! Only names of this shape are removed.

use keybed_env::{Fs, fs::FileKind};
use keybed_format::{Code, Result};
use std::path::Path;

/// Folders within folders that are followed.
const DEPTH_MAX: u32 = 4;

/// Name of one task's directory.
pub(crate) fn name(attempt: u64, node: usize, subtask: u32) -> String {
    format!("{attempt}-{node}-{subtask}")
}

fn is_ours(name: &str) -> bool {
    let fields: Vec<_> = name.split('-').collect();
    fields.len() == 3
        && fields
            .iter()
            .all(|f| !f.is_empty() && f.bytes().all(|b| b.is_ascii_digit()))
}

/// Removes the directories of all tasks; nobody may use them any more.
///
/// # Errors
/// What could not be removed; a start may go on all the same, because no attempt uses the name of another.
pub(super) fn wipe(fs: &dyn Fs, work_dir: &Path) -> Result {
    let entries = match fs.list(work_dir) {
        Err(e) if e.code() == Code::NotFound => return Ok(()),
        other => other?,
    };
    for entry in entries
        .iter()
        .filter(|e| e.kind == FileKind::Dir && is_ours(&e.name))
    {
        remove(fs, &work_dir.join(&entry.name), DEPTH_MAX)?;
    }
    Ok(())
}

fn remove(fs: &dyn Fs, dir: &Path, depth: u32) -> Result {
    for entry in fs.list(dir)? {
        let path = dir.join(&entry.name);
        match entry.kind {
            FileKind::Dir if depth > 0 => remove(fs, &path, depth - 1)?,
            FileKind::Dir => {}
            _ => fs.remove_file(&path)?,
        }
    }
    fs.remove_dir(dir)
}

#[cfg(test)]
mod tests {
    use super::*;
    use keybed_env::fs::SimFs;

    #[test]
    fn removes_stores_and_nothing_else() {
        let fs = SimFs::new();
        for dir in [
            "work/1-2-0/tables",
            "work/17-0-3",
            "work/mine",
            "work/1-2",
            "other/1-2-0",
        ] {
            fs.create_dir_all(Path::new(dir)).unwrap();
            drop(fs.create(&Path::new(dir).join("file")).unwrap());
        }
        wipe(&fs, Path::new("work")).unwrap();
        let left: Vec<_> = fs
            .tree()
            .into_keys()
            .map(|p| p.to_string_lossy().into_owned())
            .collect();
        assert_eq!(left, ["other/1-2-0/file", "work/1-2/file", "work/mine/file"]);
        wipe(&fs, Path::new("nowhere")).unwrap();
    }
}
