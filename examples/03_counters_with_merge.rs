//! 03: merge operators say how a value changes, so that a write need not read it.
//!
//! `cargo run -p keybed --example 03_counters_with_merge`

use keybed::{
    lsm::{Append, FamilyOptions, MergeOperator, SumU64},
    prelude::*,
};
use std::sync::Arc;

/// The largest operand wins; operands and values are text.
#[derive(Debug)]
struct Latest;

impl MergeOperator for Latest {
    // Recorded with the family: a store is never opened with another operator than it was written with.
    fn name(&self) -> &str {
        "example.latest"
    }

    fn merge(&self, existing: Option<&[u8]>, operand: &[u8], out: &mut Vec<u8>) -> Result {
        out.extend_from_slice(existing.map_or(operand, |existing| existing.max(operand)));
        Ok(())
    }

    // Two operands become one, in memory and in tables; without this they are kept side by side.
    fn combine(&self, older: &[u8], newer: &[u8], out: &mut Vec<u8>) -> Result<bool> {
        out.extend_from_slice(older.max(newer));
        Ok(true)
    }
}

fn with(operator: impl MergeOperator) -> FamilyOptions {
    FamilyOptions {
        merge: Some(Arc::new(operator)),
        ..FamilyOptions::default()
    }
}

/// Runs the example in a directory that goes with it.
pub(crate) fn main() -> Result {
    let dir = tempfile::tempdir().expect("the system has a place for temporary files");
    let mut store = Store::open(dir.path().join("visits"), StoreOptions::default())?;
    let visits = store.family_with("visits", with(SumU64))?;
    let latest = store.family_with("latest", with(Latest))?;
    let pages = store.family_with("pages", with(Append))?;

    for (user, page, day) in [("ada", "/a", "05"), ("bob", "/b", "04"), ("ada", "/c", "03")] {
        store.merge(visits, user.as_bytes(), &1_u64.to_le_bytes())?;
        store.merge(latest, user.as_bytes(), day.as_bytes())?;
        store.append(pages, user.as_bytes(), page.as_bytes())?;
        // As if much had happened in between: the next operand is merged without reading this one back.
        store.flush()?;
    }
    assert_eq!(store.get(visits, b"ada")?.unwrap(), 2_u64.to_le_bytes());
    assert_eq!(store.get(latest, b"ada")?.unwrap(), b"05");
    assert_eq!(store.get(pages, b"ada")?.unwrap(), b"/a/c");

    // An operand that the operator does not understand is refused when it is written.
    let error = store.merge(visits, b"ada", b"one").unwrap_err();
    assert_eq!(error.code(), Code::MergeFailed);
    println!("{error}");
    store.close()
}
