//! Where requests may write and what they may remove: locations as clients spell them, and the directories that are
//! allowed.
//!
//! Accepted are `file:/p`, `file:///p`, `file://localhost/p` and plain paths; as in Flink nothing in them is
//! percent-encoded. Answers say `file:/p`. A location must lie below the savepoint directory, the checkpoint root or
//! an allowed root **after** all links in it are resolved; what is used is the resolved path, so that a link that is
//! changed afterwards changes nothing.

use super::request::shown;
use keybed_format::{Error, Result};
use std::{
    io::ErrorKind,
    path::{Path, PathBuf},
};

/// Longest location.
const LOCATION_BYTES_MAX: usize = 4096;

/// The path that a client means; `None` for an empty text.
///
/// # Errors
/// `InvalidArgument` if it is no path of this machine, too long, or holds control characters.
pub(super) fn parse(text: &str) -> Result<Option<PathBuf>> {
    let refuse = |what: &str| Err(Error::invalid(what).with("found", shown(text)));
    if text.len() > LOCATION_BYTES_MAX {
        return refuse("the path is too long");
    }
    if text.chars().any(char::is_control) {
        return refuse("a path must not hold control characters");
    }
    let path = match text.split_once(':') {
        Some(("file", rest)) => match rest.strip_prefix("//") {
            None => rest,
            Some(rest) => rest.strip_prefix("localhost").unwrap_or(rest),
        },
        Some((_, rest)) if rest.starts_with("//") => {
            return refuse("only paths and file: locations are supported");
        }
        _ => return Ok(Some(PathBuf::from(text)).filter(|path| !path.as_os_str().is_empty())),
    };
    if !path.starts_with('/') {
        return refuse("a file: location names this machine and an absolute path: file:/directory");
    }
    Ok(Some(PathBuf::from(path)))
}

/// A path as answers spell it.
pub(super) fn location(path: &Path) -> String {
    format!("file:{}", path.display())
}

/// Directories below which requests may write and remove.
#[derive(Clone, Debug, Default)]
pub(super) struct Roots {
    /// Where relative paths begin.
    pub(super) here: PathBuf,
    /// Absolute.
    pub(super) allowed: Vec<PathBuf>,
}

impl Roots {
    /// The path with all links resolved.
    ///
    /// # Errors
    /// `InvalidArgument`, naming the setting, if it lies outside the roots.
    pub(super) fn admit(&self, path: &Path) -> Result<PathBuf> {
        let path = self.here.join(path);
        let real = resolve(&path)?;
        let inside = |root: &PathBuf| resolve(&self.here.join(root)).is_ok_and(|root| real.starts_with(root));
        if self.allowed.iter().any(inside) {
            return Ok(real);
        }
        let what = "the path lies outside the directories that requests may use: start the job with \
                    `--allowed-root DIR` (setting allowed-roots) to add one";
        let roots: Vec<String> = self
            .allowed
            .iter()
            .map(|root| self.here.join(root).display().to_string())
            .collect();
        Err(Error::invalid(what)
            .with("path", shown(&path.display().to_string()))
            .with("allowed", roots.join(", ")))
    }
}

/// The real path of what is there, and the rest as it is said; the rest never goes up again.
fn resolve(path: &Path) -> Result<PathBuf> {
    let mut rest = Vec::new();
    let mut at = path.to_path_buf();
    loop {
        match std::fs::canonicalize(&at) {
            Ok(mut real) => {
                real.extend(rest.iter().rev());
                return Ok(real);
            }
            Err(e) if e.kind() == ErrorKind::NotFound && at.symlink_metadata().is_err() => {}
            Err(e) => return Err(Error::invalid(format!("the path leads nowhere: {e}")).in_file(&at)),
        }
        match at.file_name() {
            Some(name) => rest.push(name.to_owned()),
            None => return Err(Error::invalid("the path goes up from what is not there").in_file(path)),
        }
        at.pop();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_spellings_mean_one_path_and_answers_use_one() {
        for text in [
            "file:/sp/ä b%20",
            "file:///sp/ä b%20",
            "file://localhost/sp/ä b%20",
            "/sp/ä b%20",
        ] {
            let path = parse(text).unwrap().unwrap();
            assert_eq!(path, Path::new("/sp/ä b%20"), "{text}");
            assert_eq!(location(&path), "file:/sp/ä b%20");
        }
        assert_eq!(parse("sp/a:b").unwrap(), Some("sp/a:b".into()));
        assert_eq!(parse("").unwrap(), None);
    }

    #[test]
    fn other_machines_and_schemes_are_refused() {
        for text in [
            "file:sp",
            "file:",
            "file://",
            "file://host/sp",
            "file://localhostess/sp",
            "file://localhost",
            "s3://bucket/x",
            "hdfs://h:1/x",
            "http://h/x",
            "/sp\0/x",
            "/sp\r\nx",
            &"/a".repeat(3000),
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn only_what_lies_below_a_root_after_links_is_admitted() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path().canonicalize().unwrap();
        std::fs::create_dir_all(dir.join("in/deep")).unwrap();
        std::fs::create_dir_all(dir.join("in-not")).unwrap();
        std::os::unix::fs::symlink("../in-not", dir.join("in/out")).unwrap();
        std::os::unix::fs::symlink("deep", dir.join("in/link")).unwrap();
        std::os::unix::fs::symlink("nowhere", dir.join("in/dangling")).unwrap();
        std::fs::write(dir.join("in/file"), "").unwrap();
        let roots = Roots {
            here: dir.clone(),
            allowed: vec!["in".into(), dir.join("later")],
        };
        for (path, real) in [
            ("in", "in"),
            ("in/deep/new/newer", "in/deep/new/newer"),
            ("in/link/new", "in/deep/new"),
            ("in/deep/../new", "in/new"),
            ("later/x", "later/x"),
        ] {
            let path = dir.join(path);
            assert_eq!(roots.admit(&path).unwrap(), dir.join(real), "{}", path.display());
        }
        assert_eq!(
            roots.admit(Path::new("in/new")).unwrap(),
            dir.join("in/new"),
            "relative"
        );
        for path in [
            "in-not",
            ".",
            "in/..",
            "in/out/new",
            "in/out",
            "in/new/../../../etc",
            "in/new/../x",
            "in/dangling",
            "in/dangling/x",
            "in/file/x",
            "../x",
            "/",
            "/etc/x",
            "laterx",
        ] {
            let error = roots.admit(Path::new(path)).unwrap_err();
            assert_eq!(error.exit_code(), 2, "{path}: {error}");
        }
        let error = roots.admit(Path::new("/etc")).unwrap_err().to_string();
        assert!(error.contains("allowed-roots"), "{error}");
    }
}
