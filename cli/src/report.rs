//! Errors as a person reads them at night, and as a program reads them.
//!
//! ```text
//! error: SnapshotCorrupt: the checksum of a MiB differs
//!   file      keybed-state/checkpoints/…/shared/…
//!   offset    0
//!   expected  1c…
//!   found     7a…
//!   hint      …
//! ```

use keybed::{Code, Error};
use serde_json::{Map, Value, json};
use std::path::Path;

/// Entries of a list that people are shown.
const ENTRIES_SHOWN: usize = 8;

/// The block for people: code, sentence, file, offset, further facts, hint.
pub(crate) fn block(error: &Error) -> String {
    let mut out = format!("error: {}: {}\n", error.code(), sentence(error));
    let mut fact = |name: &str, value: &dyn std::fmt::Display| {
        out += &format!("  {name:<9} {value}\n");
    };
    if let Some(file) = named_file(error) {
        fact("file", &file.display());
    }
    if let Some(offset) = error.offset() {
        fact("offset", &offset);
    }
    for (name, value) in error.fields() {
        match *name {
            "missing" => fact(name, &first_of_list(value)),
            _ => fact(name, value),
        }
    }
    if let Some(hint) = hint(error.code()) {
        fact("hint", &hint);
    }
    out
}

/// The first entries of a long list; the object for programs has all.
fn first_of_list(value: &str) -> String {
    let entries: Vec<&str> = value.split(", ").collect();
    match entries.len().checked_sub(ENTRIES_SHOWN) {
        Some(more @ 1..) => format!("{}, and {more} more", entries[..ENTRIES_SHOWN].join(", ")),
        _ => value.to_owned(),
    }
}

/// The object for programs; field names are stable.
pub(crate) fn object(error: &Error) -> Value {
    let fields: Map<String, Value> = error
        .fields()
        .iter()
        .map(|(name, value)| ((*name).to_owned(), Value::from(value.as_str())))
        .collect();
    json!({ "error": {
        "code": error.code().as_str(),
        "message": sentence(error),
        "file": named_file(error).map(|f| f.display().to_string()),
        "offset": error.offset(),
        "fields": fields,
        "hint": hint(error.code()),
        "exit_code": error.exit_code(),
    }})
}

/// The file, if the error is about one; what a network says is not.
fn named_file(error: &Error) -> Option<&Path> {
    error.file().filter(|file| !file.as_os_str().is_empty())
}

/// What was going on, outermost first, and what was wrong with it.
fn sentence(error: &Error) -> String {
    let mut text = String::new();
    for doing in error.contexts() {
        text += doing;
        text += ": ";
    }
    text + error.message()
}

/// What to do next, where that can be said without knowing more than the code.
fn hint(code: Code) -> Option<&'static str> {
    Some(match code {
        Code::InterruptedRun => {
            "`keybed run JOB --resume` goes on from the last checkpoint, `--restart` gives it up and starts anew"
        }
        // The pid of the other process is a field of its own.
        Code::Locked => "wait for the other process to end",
        Code::SnapshotCorrupt => {
            "restore another checkpoint; `keybed snapshot verify PATH` tells which ones are whole"
        }
        Code::SnapshotIncomplete => {
            "restore another checkpoint, or copy the whole directory of the job again"
        }
        Code::SnapshotClaimedByOther => {
            "`keybed claim --release PATH` gives it back when that job has ended; without --claim-mode claim it is only read"
        }
        Code::ManifestCorrupt => {
            "`keybed store repair DIR` tells what can be proved about the store, and changes nothing without --write"
        }
        Code::TableCorrupt | Code::TableMissing => {
            "bring the file back from a copy, or restore a checkpoint; `keybed store verify DIR` tells how far it goes"
        }
        Code::NotASnapshot => "give the directory of a savepoint, or chk-<n> of a completed checkpoint",
        Code::BadRecord => "mend the line, or leave such lines out with --on-bad-record skip",
        Code::InputUnreadable => "give a readable file, plain or zstd, with --input",
        Code::OutputUnwritable => "give a directory that can be written with --out",
        Code::UnsupportedFormatVersion => "read it with the keybed that wrote it, or a newer one",
        Code::TransactionLost => {
            "--out must be the directory that the run wrote to (`keybed sink ls DIR` tells what it holds); \
             with -s PATH, --accept-lost-transactions goes on without those lines"
        }
        Code::UnmappedOperatorState => {
            "--map OLD=NEW gives the state to an operator of another uid, -n leaves it out; --check looks first"
        }
        Code::StopCommitPending => {
            "remove what the sinks met, then `keybed run JOB --resume` commits; if that is lost for good, go on from the \
             savepoint with --restart -s PATH --accept-lost-transactions"
        }
        Code::NoTargetDirectory => {
            "`keybed savepoint JOB DIR`, `keybed stop JOB -p DIR`, or start the job with --savepoint-dir DIR"
        }
        Code::ParallelismExceedsMax => "choose -p no larger than the max parallelism of the snapshot",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Error {
        Error::new(Code::SnapshotCorrupt, "a checksum differs")
            .in_file("chk-3/_metadata")
            .at(40)
            .expected_found("1", "2")
            .context("restore")
    }

    #[test]
    fn the_block_names_everything() {
        assert_eq!(
            block(&sample()),
            "error: SnapshotCorrupt: restore: a checksum differs\n  \
             file      chk-3/_metadata\n  \
             offset    40\n  \
             expected  1\n  \
             found     2\n  \
             hint      restore another checkpoint; `keybed snapshot verify PATH` tells which ones are whole\n"
        );
    }

    #[test]
    fn of_a_long_list_people_see_the_beginning() {
        // Hundreds of missing files scrolled the sentence away.
        let all: Vec<String> = (1..=30).map(|n| format!("shared/{n}")).collect();
        let error = sample().with("missing", all.join(", "));
        let said = block(&error);
        assert!(said.contains("shared/8, and 22 more\n"), "{said}");
        assert!(object(&error).to_string().contains("shared/30"));
    }

    #[test]
    fn the_object_names_everything() {
        let object = object(&sample());
        let error = &object["error"];
        assert_eq!(error["code"], "SnapshotCorrupt");
        assert_eq!(error["file"], "chk-3/_metadata");
        assert_eq!(error["offset"], 40);
        assert_eq!(error["fields"]["found"], "2");
        assert_eq!(error["exit_code"], 3);
    }
}
