//! The one error type of the workspace.
//!
//! An [`Error`] is one machine word. [`Error::kind`] tells a caller what to do, [`Error::code`] names the case
//! for ever (it is printed, documented and tested), and the remaining facts (file, byte offset, expected, found,
//! further fields) are there for the person who reads it at night and for the program that reads `--json`.

use std::{
    fmt, io,
    path::{Path, PathBuf},
};

/// Result of every fallible operation of keybed; the success type defaults to `()`.
pub type Result<T = (), E = Error> = std::result::Result<T, E>;

/// What a caller can do about an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// Bytes are not what was written: restore another copy. Exit code 3.
    Corruption,
    /// The operating system refused; may pass by itself. Exit code 1.
    Io,
    /// The program and the snapshot do not fit each other. Exit code 5.
    Incompatible,
    /// The caller passed something that cannot be meant. Exit code 2.
    InvalidInput,
    /// Input records or files of the user are bad. Exit code 1.
    BadInput,
    /// Somebody else owns it, or it is busy: later. Exit code 4.
    Locked,
    /// Doing it would lose data or break somebody's right. Exit code 5.
    Refused,
    /// It is not there. Exit code 1.
    NotFound,
    /// The handle was closed or poisoned: open it again. Exit code 1.
    Closed,
    /// Stopped on request or overtaken by something newer. Exit code 1.
    Aborted,
    /// User code failed. Exit code 1.
    User,
}

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident => $kind:ident,)*) => {
        /// Stable name of an error case; printed as its identifier, never renamed.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[non_exhaustive]
        pub enum Code { $($(#[$doc])* $name,)* }

        impl Code {
            /// All codes, in the order of the catalogue.
            pub const ALL: &'static [Code] = &[$(Code::$name,)*];

            /// The identifier that is printed, for example `SnapshotCorrupt`.
            pub fn as_str(self) -> &'static str {
                match self { $(Code::$name => stringify!($name),)* }
            }

            /// What a caller can do about errors of this code.
            pub fn kind(self) -> ErrorKind {
                match self { $(Code::$name => ErrorKind::$kind,)* }
            }
        }
    };
}

codes! {
    /// The path holds no snapshot.
    NotASnapshot => BadInput,
    /// Written by a newer (or unknown) format version.
    UnsupportedFormatVersion => Incompatible,
    /// A byte of a snapshot differs from what was written.
    SnapshotCorrupt => Corruption,
    /// Files that the snapshot names are missing.
    SnapshotIncomplete => Corruption,
    /// Another job claimed the snapshot.
    SnapshotClaimedByOther => Refused,
    /// The place cannot be claimed (read-only or no permission).
    CannotClaim => Refused,
    /// A newer owner generation exists; this process must not write any more.
    Fenced => Refused,
    /// A savepoint was asked for without a target and there is no default.
    NoTargetDirectory => InvalidInput,
    /// The target exists already; nothing is overwritten.
    TargetExists => Refused,
    /// The snapshot holds state of an operator that the program lacks.
    UnmappedOperatorState => Incompatible,
    /// Two operators carry the same uid.
    DuplicateUid => InvalidInput,
    /// A stateful operator has no uid.
    MissingUid => InvalidInput,
    /// Two states of one operator carry the same name.
    DuplicateStateName => InvalidInput,
    /// A state was restored with another kind (value, list, map).
    StateKindChanged => Incompatible,
    /// The key's schema differs from the snapshot's.
    KeySchemaIncompatible => Incompatible,
    /// The namespace's schema differs from the snapshot's.
    NamespaceSchemaIncompatible => Incompatible,
    /// The map key's schema differs from the snapshot's.
    MapKeySchemaChanged => Incompatible,
    /// The value's schema cannot be read by the program's.
    ValueSchemaIncompatible => Incompatible,
    /// A family of a store was written with another merge operator.
    MergeOperatorChanged => Incompatible,
    /// Max parallelism of program and snapshot differ.
    MaxParallelismMismatch => Incompatible,
    /// More subtasks than key groups were asked for.
    ParallelismExceedsMax => Incompatible,
    /// In-flight records have nowhere to go.
    InFlightUnroutable => Incompatible,
    /// A checkpoint took longer than its timeout.
    CheckpointExpired => Aborted,
    /// A checkpoint was declined; the reason is in the text.
    CheckpointDeclined => Aborted,
    /// Too many checkpoint requests are waiting.
    TooManyRequests => Locked,
    /// Subtasks disagree about broadcast state.
    BroadcastStateDiverged => Corruption,
    /// One object name stands for two contents.
    RegistryConflict => Corruption,
    /// Writes are refused until the medium recovers; reads go on.
    BackendReadOnly => Io,
    /// A key is longer than the limit.
    KeyTooLarge => InvalidInput,
    /// A value is longer than the limit.
    ValueTooLarge => InvalidInput,
    /// The pipeline has a cycle.
    CyclicGraph => InvalidInput,
    /// Garbage collection would not be safe.
    GcRefused => Refused,
    /// A stop published its savepoint but could not commit yet.
    StopCommitPending => Refused,
    /// A sink transaction named by the snapshot is gone.
    TransactionLost => Refused,
    /// Another process uses the directory.
    Locked => Locked,
    /// A named limit is reached; retry later.
    Busy => Locked,
    /// A byte of a table differs from what was written.
    TableCorrupt => Corruption,
    /// A table that the manifest names is missing.
    TableMissing => Corruption,
    /// The medium is read-only.
    ReadOnlyMedium => Io,
    /// The process ran out of file descriptors.
    TooManyOpenFiles => Io,
    /// An input record cannot be understood.
    BadRecord => BadInput,
    /// The input cannot be opened or decoded.
    InputUnreadable => BadInput,
    /// The output place cannot be written.
    OutputUnwritable => Io,
    /// There is no job of that name.
    UnknownJob => InvalidInput,
    /// An earlier run was interrupted; say `--resume` or `--restart`.
    InterruptedRun => Refused,

    /// A byte of a manifest, log or CURRENT differs from what was written.
    ManifestCorrupt => Corruption,
    /// Bytes cannot be decoded; the layer above names the file.
    Malformed => Corruption,
    /// The operating system refused an operation on a file.
    IoFailed => Io,
    /// The file or object is not there.
    NotFound => NotFound,
    /// An argument or option is out of its bounds.
    InvalidArgument => InvalidInput,
    /// The handle was closed.
    Closed => Closed,
    /// A failed write or sync poisoned the store; open it again.
    Poisoned => Closed,
    /// Somebody wrote what a transaction had read; run it again.
    Conflict => Aborted,
    /// Stopped on request.
    Cancelled => Aborted,
    /// A merge operator refused its operands.
    MergeFailed => User,
    /// An operator of the user returned an error or panicked.
    OperatorFailed => User,
    /// The job gave up after its restart strategy was exhausted.
    JobFailed => User,
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The error of the workspace; one machine word, opaque.
///
/// ```
/// use keybed_format::{Code, Error, ErrorKind};
/// let e = Error::new(Code::TableCorrupt, "block checksum differs").in_file("a.sst").at(4096).expected_found(1, 2);
/// assert_eq!(e.kind(), ErrorKind::Corruption);
/// assert_eq!(e.to_string(), "TableCorrupt: block checksum differs [file a.sst, offset 4096, expected 1, found 2]");
/// assert_eq!(e.exit_code(), 3);
/// ```
pub struct Error(Box<Repr>);

#[derive(Debug)]
struct Repr {
    code: Code,
    message: String,
    file: Option<PathBuf>,
    offset: Option<u64>,
    fields: Vec<(&'static str, String)>,
    context: Vec<String>,
    io: Option<io::Error>,
}

impl Error {
    /// An error of `code`; `message` is a sentence for people, without file and offset.
    #[cold]
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Error(Box::new(Repr {
            code,
            message: message.into(),
            file: None,
            offset: None,
            fields: Vec::new(),
            context: Vec::new(),
            io: None,
        }))
    }

    /// An operating-system error met while doing `what` to `file`.
    ///
    /// Not-found, read-only and descriptor exhaustion become their own codes.
    #[cold]
    pub fn io(what: &str, file: impl AsRef<Path>, source: io::Error) -> Self {
        let code = match source.kind() {
            io::ErrorKind::NotFound => Code::NotFound,
            io::ErrorKind::ReadOnlyFilesystem => Code::ReadOnlyMedium,
            _ if matches!(source.raw_os_error(), Some(23 | 24)) => Code::TooManyOpenFiles,
            _ => Code::IoFailed,
        };
        let mut error = Error::new(code, format!("{what}: {source}")).in_file(file.as_ref());
        error.0.io = Some(source);
        error
    }

    /// Shorthand for [`Code::InvalidArgument`].
    #[cold]
    pub fn invalid(message: impl Into<String>) -> Self {
        Error::new(Code::InvalidArgument, message)
    }

    /// Names the file, unless a layer below named one already.
    #[must_use]
    pub fn in_file(mut self, file: impl Into<PathBuf>) -> Self {
        self.0.file.get_or_insert(file.into());
        self
    }

    /// Names the byte offset in the file, unless known already.
    #[must_use]
    pub fn at(mut self, offset: u64) -> Self {
        self.0.offset.get_or_insert(offset);
        self
    }

    /// Adds a machine-readable field.
    #[must_use]
    pub fn with(mut self, name: &'static str, value: impl fmt::Display) -> Self {
        self.0.fields.push((name, value.to_string()));
        self
    }

    /// Adds what was expected and what was found.
    #[must_use]
    pub fn expected_found(self, expected: impl fmt::Display, found: impl fmt::Display) -> Self {
        self.with("expected", expected).with("found", found)
    }

    /// Adds a sentence about what was going on; the outermost is printed first.
    #[must_use]
    pub fn context(mut self, doing: impl Into<String>) -> Self {
        self.0.context.push(doing.into());
        self
    }

    /// Replaces the code where a layer knows better what broken bytes mean (a table, a manifest, a snapshot).
    ///
    /// Everything else (file, offset, cause) is kept.
    #[must_use]
    pub fn recode(mut self, code: Code) -> Self {
        self.0.code = code;
        self
    }

    /// As [`Error::recode`], for [`Code::Malformed`] only: gives undecodable bytes the name of their file kind.
    #[must_use]
    pub fn recode_malformed(self, code: Code) -> Self {
        if self.code() == Code::Malformed {
            self.recode(code)
        } else {
            self
        }
    }

    /// The stable name of the case.
    pub fn code(&self) -> Code {
        self.0.code
    }

    /// What a caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        self.0.code.kind()
    }

    /// The sentence without code, file and fields.
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// What was going on when it happened, outermost first.
    pub fn contexts(&self) -> impl Iterator<Item = &str> {
        self.0.context.iter().rev().map(String::as_str)
    }

    /// The file concerned, if any.
    pub fn file(&self) -> Option<&Path> {
        self.0.file.as_deref()
    }

    /// The byte offset in that file, if known.
    pub fn offset(&self) -> Option<u64> {
        self.0.offset
    }

    /// Machine-readable fields in the order they were added.
    pub fn fields(&self) -> &[(&'static str, String)] {
        &self.0.fields
    }

    /// The operating system's error kind, if the system caused this error.
    pub fn io_kind(&self) -> Option<io::ErrorKind> {
        self.0.io.as_ref().map(io::Error::kind)
    }

    /// Exit code of a command that ends with this error: 1 failed, 2 usage, 3 corruption, 4 busy or locked,
    /// 5 refused.
    pub fn exit_code(&self) -> u8 {
        match self.kind() {
            ErrorKind::InvalidInput => 2,
            ErrorKind::Corruption => 3,
            ErrorKind::Locked => 4,
            ErrorKind::Incompatible | ErrorKind::Refused => 5,
            _ => 1,
        }
    }

    /// A copy that can be handed to several waiters; the operating system's error survives as its kind.
    #[must_use]
    pub fn duplicate(&self) -> Self {
        let r = &self.0;
        Error(Box::new(Repr {
            code: r.code,
            message: r.message.clone(),
            file: r.file.clone(),
            offset: r.offset,
            fields: r.fields.clone(),
            context: r.context.clone(),
            io: r.io.as_ref().map(|e| io::Error::from(e.kind())),
        }))
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.0.code)?;
        for doing in self.contexts() {
            write!(f, "{doing}: ")?;
        }
        f.write_str(&self.0.message)?;
        let mut facts = Vec::new();
        if let Some(file) = &self.0.file {
            facts.push(format!("file {}", file.display()));
        }
        if let Some(offset) = self.0.offset {
            facts.push(format!("offset {offset}"));
        }
        facts.extend(
            self.0
                .fields
                .iter()
                .map(|(name, value)| format!("{name} {value}")),
        );
        if facts.is_empty() {
            Ok(())
        } else {
            write!(f, " [{}]", facts.join(", "))
        }
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.io.as_ref().map(|e| e as _)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_one_word() {
        assert_eq!(size_of::<Error>(), size_of::<usize>());
        assert_eq!(size_of::<Result>(), size_of::<usize>());
    }

    #[test]
    fn innermost_file_and_offset_win() {
        let e = Error::new(Code::Malformed, "m")
            .in_file("inner")
            .at(7)
            .in_file("outer")
            .at(9);
        assert_eq!((e.file(), e.offset()), (Some(Path::new("inner")), Some(7)));
    }

    #[test]
    fn context_is_printed_outermost_first() {
        let e = Error::new(Code::Closed, "gone").context("inner").context("outer");
        assert_eq!(e.to_string(), "Closed: outer: inner: gone");
        assert_eq!(e.contexts().collect::<Vec<_>>(), ["outer", "inner"]);
    }

    #[test]
    fn names_of_codes_are_unique() {
        let mut names: Vec<_> = Code::ALL.iter().map(|c| c.as_str()).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), Code::ALL.len());
    }

    #[test]
    fn descriptor_exhaustion_has_its_own_code() {
        let e = Error::io("open", "x", io::Error::from_raw_os_error(24));
        assert_eq!(e.code(), Code::TooManyOpenFiles);
    }
}
