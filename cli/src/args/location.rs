//! Paths as people paste them: Flink's command line and the control endpoint say `file:/savepoints/…`.

use clap::builder::{PathBufValueParser, TypedValueParser};
use std::path::{Path, PathBuf};

/// Reads a path, or a `file:` location of this machine.
pub(crate) fn location() -> impl TypedValueParser<Value = PathBuf> {
    PathBufValueParser::new().map(|path| plain(&path))
}

/// The path without `file:`, `file://` or `file://localhost`; nothing is percent-encoded.
fn plain(path: &Path) -> PathBuf {
    let rest = path.to_str().and_then(|text| text.strip_prefix("file:"));
    let local = rest.map(|rest| match rest.strip_prefix("//") {
        None => rest,
        Some(rest) => rest.strip_prefix("localhost").unwrap_or(rest),
    });
    // Anything else is a path that happens to begin so.
    local
        .filter(|local| local.starts_with('/'))
        .map_or_else(|| path.to_path_buf(), PathBuf::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn locations_are_paths_and_paths_stay_as_they_are() {
        for (typed, meant) in [
            ("file:/sp/a%20 b", "/sp/a%20 b"),
            ("file:///sp/a", "/sp/a"),
            ("file://localhost/sp", "/sp"),
            ("file://host/sp", "file://host/sp"),
            ("file:sp", "file:sp"),
            ("/sp", "/sp"),
            ("sp/file:/x", "sp/file:/x"),
        ] {
            assert_eq!(plain(Path::new(typed)), Path::new(meant));
        }
    }
}
