//! Names of the calls of [`Fs`](super::Fs) and its files, for counting and for planning faults.

use std::fmt;

macro_rules! calls {
    ($($(#[$doc:meta])* $name:ident = $text:literal,)*) => {
        /// One kind of call into a file system.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum FsOp { $($(#[$doc])* $name,)* }

        impl FsOp {
            /// All kinds, in the order of their declaration.
            pub const ALL: &'static [FsOp] = &[$(FsOp::$name,)*];

            /// A word or two for messages and traces.
            pub fn as_str(self) -> &'static str {
                match self { $(FsOp::$name => $text,)* }
            }
        }
    };
}

calls! {
    /// [`Fs::open`](super::Fs::open).
    Open = "open",
    /// [`ReadFile::read_exact_at`](super::ReadFile::read_exact_at).
    Read = "read",
    /// [`ReadFile::will_read`](super::ReadFile::will_read).
    WillRead = "will-read",
    /// [`ReadFile::map`](super::ReadFile::map).
    Map = "map",
    /// [`Fs::create`](super::Fs::create).
    Create = "create",
    /// [`Fs::append`](super::Fs::append): opening, not writing.
    OpenAppend = "open-append",
    /// [`WriteFile::append`](super::WriteFile::append).
    Write = "write",
    /// [`WriteFile::reserve`](super::WriteFile::reserve).
    Reserve = "reserve",
    /// [`WriteFile::sync`](super::WriteFile::sync).
    Sync = "sync",
    /// [`Fs::sync_dir`](super::Fs::sync_dir).
    SyncDir = "sync-dir",
    /// [`Fs::truncate`](super::Fs::truncate).
    Truncate = "truncate",
    /// [`Fs::rename`](super::Fs::rename).
    Rename = "rename",
    /// [`Fs::link`](super::Fs::link).
    Link = "link",
    /// [`Fs::copy`](super::Fs::copy).
    Copy = "copy",
    /// [`Fs::remove_file`](super::Fs::remove_file).
    RemoveFile = "remove",
    /// [`Fs::create_dir`](super::Fs::create_dir).
    CreateDir = "create-dir",
    /// [`Fs::remove_dir`](super::Fs::remove_dir).
    RemoveDir = "remove-dir",
    /// [`Fs::list`](super::Fs::list).
    List = "list",
    /// [`Fs::facts`](super::Fs::facts).
    Facts = "facts",
    /// [`Fs::lock`](super::Fs::lock).
    Lock = "lock",
}

impl FsOp {
    /// Whether the call can change what is on the medium.
    pub fn modifies(self) -> bool {
        !matches!(
            self,
            FsOp::Open | FsOp::Read | FsOp::WillRead | FsOp::Map | FsOp::List | FsOp::Facts
        )
    }
}

impl fmt::Display for FsOp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
