//! `keybed store`: looks into a store, checks and repairs it. Looking locks nothing and disturbs no owner.
//!
//! | file | idea |
//! |---|---|
//! | [`stats`] | what a store says about itself |
//! | [`scan`] | entries in order, and the value of one key |
//! | [`compact`] | everything merged into the bottom |
//! | [`verify`] | every byte read and compared |
//! | [`repair`] | a damaged CURRENT or manifest |

pub(crate) mod compact;
pub(crate) mod repair;
pub(crate) mod scan;
pub(crate) mod stats;
pub(crate) mod verify;

use crate::{args::StoreCommand, say};
use keybed::{
    Code, Error, Result, Store, StoreOptions,
    env::{Fs, OsFs},
    lsm::{Durability, Family},
};
use std::{path::Path, process::ExitCode};

/// Obeys.
///
/// # Errors
/// `NotFound` if the directory holds no store; `Locked`; `ManifestCorrupt`, `TableCorrupt`, `TableMissing` with file and
/// offset; as the verbs say.
pub(crate) fn run(command: StoreCommand, json: bool) -> Result<ExitCode> {
    match command {
        StoreCommand::Stats { dir, prometheus } => stats::run(&dir, prometheus, json),
        StoreCommand::Scan(args) => scan::run(&args, json),
        StoreCommand::Get { dir, key, family } => scan::get(&dir, &key, &family, json),
        StoreCommand::Compact { dir, family } => compact::run(&dir, family.as_deref(), json),
        StoreCommand::Verify { dir } => verify::run(&dir, json),
        StoreCommand::Repair {
            dir,
            write,
            one_family,
            merge_operator,
        } => repair::run(&dir, write, one_family, merge_operator, json),
    }
}

/// Opens a store that is there, to change it; nothing is merged by itself.
fn open(dir: &Path) -> Result<Store> {
    let is_there = |name: &str| Ok::<bool, Error>(OsFs.facts(&dir.join(name))?.is_some());
    if !is_there("CURRENT")? && !is_there("LOCK")? {
        return Err(Error::new(Code::NotFound, "there is no store in this directory").in_file(dir));
    }
    Store::open(
        dir,
        StoreOptions {
            durability: Durability::None,
            compaction: false,
            ..StoreOptions::default()
        },
    )
    .map_err(|error| match error.code() {
        Code::Locked => error.context("only its owner may change a store"),
        _ => error,
    })
}

/// Opens a store to look at it; its owner may go on writing.
fn look(dir: &Path) -> Result<Store> {
    Store::open_read_only(dir, StoreOptions::default())
}

/// What a look at `store` may not show.
fn caveat(store: &Store) -> Option<&'static str> {
    (!store.sees_unflushed()).then_some(
        "this store keeps no log: if a process has it open, what that process wrote since its last flush is not seen",
    )
}

/// Tells people what a look may not show, beside the output.
fn tell_caveat(store: &Store) {
    if let Some(caveat) = caveat(store) {
        say::err(format_args!("note: {caveat}\n"));
    }
}

/// The family of a name, or the only one.
fn family(store: &mut Store, name: Option<&str>) -> Result<Family> {
    let names: Vec<String> = store.family_names().map(str::to_owned).collect();
    let name = match (name, names.as_slice()) {
        (Some(name), names) if names.iter().any(|other| other == name) => name.to_owned(),
        (None, [only]) => only.clone(),
        (Some(_), names) => {
            return Err(Error::invalid("the store has no such family").with("families", names.join(", ")));
        }
        (None, names) => {
            return Err(Error::invalid("say which family with --family").with("families", names.join(", ")));
        }
    };
    store.family(&name)
}

/// Bytes as they are printed: hexadecimal, or text in which everything else is escaped.
fn shown(bytes: &[u8], hex: bool) -> String {
    if hex {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    } else {
        bytes.escape_ascii().to_string()
    }
}

/// Bytes as they are given.
fn given(text: &str, hex: bool) -> Result<Vec<u8>> {
    if !hex {
        return Ok(text.as_bytes().to_vec());
    }
    let refused =
        || Error::invalid("a key with --hex consists of pairs of hexadecimal digits").with("key", text);
    if !text.len().is_multiple_of(2) || !text.is_ascii() {
        return Err(refused());
    }
    let pair = |at: usize| u8::from_str_radix(text.get(at..at + 2).unwrap_or_default(), 16);
    (0..text.len())
        .step_by(2)
        .map(|at| pair(at).map_err(|_| refused()))
        .collect()
}
