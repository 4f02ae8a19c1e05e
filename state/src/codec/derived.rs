//! What derived codecs call; no interface for people.

use keybed_format::{Cursor, Error, Sink};
use keybed_snapshot::schema::{SCHEMA_DEPTH_MAX, Schema};
use std::cell::Cell;

pub use keybed_format;
pub use keybed_snapshot::schema;

thread_local! {
    /// Schemas of types under construction around the current one, and whether one of them contains itself.
    static NESTED: Cell<(usize, bool)> = const { Cell::new((0, false)) };
}

/// The schema of a derived type. A type that contains itself gets one that is nested too deeply, and refused.
pub fn nested(build: impl FnOnce() -> Schema) -> Schema {
    let (depth, endless) = NESTED.get();
    if endless || depth >= SCHEMA_DEPTH_MAX {
        NESTED.set((depth, true));
        return (0..SCHEMA_DEPTH_MAX).fold(Schema::VOID, |inner, _| inner.optional());
    }
    NESTED.set((depth + 1, endless));
    let schema = build();
    NESTED.set(if depth == 0 {
        (0, false)
    } else {
        (depth, NESTED.get().1)
    });
    schema
}

/// Bytes of a default.
pub fn bytes(encode: impl FnOnce(&mut Sink)) -> Vec<u8> {
    let mut out = Sink::new();
    encode(&mut out);
    out.into_vec()
}

/// A variant that the type does not have.
pub fn unknown_variant(input: &Cursor<'_>, id: u64) -> Error {
    input
        .malformed("a variant is unknown to the program")
        .with("found", id)
}
