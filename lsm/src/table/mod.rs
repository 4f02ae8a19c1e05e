//! Tables: immutable sorted files (`.sst`).
//!
//! ```text
//!   TableBuilder ──► ┌─────────────────────────────────────────────┐
//!                    │ block 0 │ block 1 │ …          16 KiB each   │
//!                    │ filter      (binary fuse, over key hashes)   │
//!                    │ …           (sections some tables have)      │
//!                    │ index       (fence: where each block starts) │
//!                    │ properties  (counts, ranges)                 │
//!                    │ footer      (which sections, where they lie) │
//!                    │ trailer     (keybed_format, kind "sst1")     │
//!                    └─────────────────────────────────────────────┘
//!                         ▲ TableReader: filter → fence → block hash → value
//!                         └─ TableView: the part of it that is visible ─► TableIter
//! ```
//! Every block and section ends in an xxh3-64 bound to (table id, offset). Whatever is opened from disk is hostile:
//! lengths are checked before use, and broken bytes are `TableCorrupt` with file and offset. Page:
//! docs/format/table.md.

mod block;
mod block_builder;
mod builder;
mod compress;
mod dump;
mod external;
mod fence;
mod filter;
pub(crate) mod filters;
mod footer;
mod iter;
pub(crate) mod open_files;
mod options;
mod properties;
mod reader;
mod source;
mod value;
mod verify;
mod view;
mod warm;

pub use block::Block;
pub use builder::TableBuilder;
pub use compress::{BlockPacker, unpack_block};
pub use dump::TableDump;
pub use external::{ExternalTable, table_id_of};
pub use iter::TableIter;
pub use options::{Compression, TableFacts, TableOptions};
pub use reader::{BlockAccess, TableReader};
pub use source::TableSource;
pub use value::{Found, Slice};
pub use view::TableView;
pub(crate) use warm::warm;

/// The parts of a table, for the checks of `fuzzing`.
pub(crate) mod inside {
    pub(crate) use super::{
        block::{BlockView, Geometry},
        block_builder::{BlockBuilder, check as check_block},
        compress::{COMPRESSED_FROM_BYTES_MAX, Compressor, Stored, TAIL_BYTES, open as open_stored},
        fence::{Fence, FenceBuilder},
        filter::{Filter, build as build_filter},
        filters::Filters,
        footer::{Footer, HEAD_BYTES, KIND, SectionId, head, seal},
        properties::{decode as decode_properties, encode as encode_properties},
        source::Source,
    };
}
