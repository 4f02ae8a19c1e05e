//! `keybed store scan` and `get`: entries in the order of their keys, and the value of one.

use super::{caveat, family, given, look, shown, tell_caveat};
use crate::{
    args::{FamilyArgs, ScanArgs},
    say,
};
use keybed::{
    Code, Error, Result, Store,
    lsm::{Family, Range},
};
use serde_json::{Value, json};
use std::{ops::Bound, path::Path, process::ExitCode};

/// Prints entries.
///
/// # Errors
/// Those of opening the store; `InvalidArgument` if the family or a key makes no sense.
pub(crate) fn run(args: &ScanArgs, json: bool) -> Result<ExitCode> {
    let mut store = look(&args.dir)?;
    let family = family(&mut store, args.family.family.as_deref())?;
    let printed = print(&store, family, args, json);
    printed.and(store.close())?;
    Ok(ExitCode::SUCCESS)
}

fn print(store: &Store, family: Family, args: &ScanArgs, json: bool) -> Result {
    let hex = args.family.hex;
    let key = |text: &Option<String>| text.as_deref().map(|text| given(text, hex)).transpose();
    let (from, to, prefix) = (key(&args.from)?, key(&args.to)?, key(&args.prefix)?);
    let mut range = match &prefix {
        Some(prefix) if args.reverse => store.prefix_rev(family, prefix)?,
        Some(prefix) => store.prefix(family, prefix)?,
        None => between(store, family, (from.as_deref(), to.as_deref()), args.reverse)?,
    };
    let mut entries: Vec<Value> = Vec::new();
    for _ in 0..args.limit.unwrap_or(usize::MAX) {
        let Some((key, value)) = range.next_entry()? else {
            break;
        };
        let (key, value) = (shown(key, hex), shown(value, hex));
        if json {
            entries.push(json!({ "key": key, "value": value }));
        } else {
            say::out(format!("{key}\t{value}"));
        }
    }
    if json {
        say::out(json!({ "entries": entries, "caveat": caveat(store) }));
    } else {
        tell_caveat(store);
    }
    Ok(())
}

fn between<'s>(
    store: &'s Store,
    family: Family,
    (from, to): (Option<&[u8]>, Option<&[u8]>),
    reverse: bool,
) -> Result<Range<'s>> {
    let range = (
        from.map_or(Bound::Unbounded, Bound::Included),
        to.map_or(Bound::Unbounded, Bound::Excluded),
    );
    if reverse {
        store.range_rev(family, range)
    } else {
        store.range(family, range)
    }
}

/// Prints the value of `key`.
///
/// # Errors
/// `NotFound` if the key is absent; as [`run`].
pub(crate) fn get(dir: &Path, key: &str, args: &FamilyArgs, json: bool) -> Result<ExitCode> {
    let mut store = look(dir)?;
    let family = family(&mut store, args.family.as_deref())?;
    let value = store.get_with(family, &given(key, args.hex)?, |value| shown(value, args.hex))?;
    let Some(value) = value else {
        let error = Error::new(Code::NotFound, "the key is absent").with("key", key);
        return Err(match caveat(&store) {
            Some(caveat) => error.with("note", caveat),
            None => error,
        });
    };
    if json {
        say::out(json!({ "key": key, "value": value, "caveat": caveat(&store) }));
    } else {
        say::out(value);
        tell_caveat(&store);
    }
    store.close()?;
    Ok(ExitCode::SUCCESS)
}
