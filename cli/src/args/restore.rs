//! What can be said about the snapshot that `keybed run` starts from.

use super::location::location;
use clap::{Args, ValueEnum};
use keybed::{
    Error, Result,
    runtime::{AllowNonRestored, ClaimMode, OperatorUid, Restore},
};
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

/// Options of a start from a snapshot; those of Flink under Flink's names, too.
#[derive(Args, Clone, Debug)]
pub(crate) struct RestoreArgs {
    /// Start anew from a snapshot: a savepoint wherever it lies, or a checkpoint.
    #[arg(
        short = 's',
        long,
        visible_alias = "fromSavepoint",
        value_name = "PATH",
        value_parser = location(),
        conflicts_with = "resume"
    )]
    pub(crate) from: Option<PathBuf>,
    /// Leave out state that the program has no operator for: all of it, or that of the operators listed.
    #[arg(
        short = 'n',
        long,
        alias = "allowNonRestoredState",
        value_name = "UID,…",
        requires = "from",
        conflicts_with = "resume"
    )]
    #[arg(num_args = 0..=1, require_equals = true, default_missing_value = "")]
    allow_non_restored_state: Option<String>,
    /// What the job may do with the snapshot: only read it, own it from now on, or (deprecated) refer to it for ever.
    /// Also -cm, -claimMode, -restoreMode.
    #[arg(long, aliases = ["claimMode", "restoreMode"], value_name = "MODE", requires = "from", conflicts_with = "resume")]
    #[arg(value_enum, ignore_case = true, default_value_t = Mode::NoClaim)]
    claim_mode: Mode,
    /// Give the state of the operator OLD of the snapshot to NEW of the program; may be repeated.
    #[arg(long, value_name = "OLD=NEW", value_parser = rename, requires = "from", conflicts_with = "resume")]
    map: Vec<(OperatorUid, OperatorUid)>,
    /// Where a directory lies now that the snapshot refers to by number (see `snapshot inspect`); may be repeated.
    #[arg(long, value_name = "ID=PATH", value_parser = anchor)]
    anchor: Vec<(u32, PathBuf)>,
    /// Start although output that the snapshot counts on is gone: it is missing from the result.
    #[arg(long, requires = "from", conflicts_with = "resume")]
    accept_lost_transactions: bool,
    /// Only look whether the job would start, and print everything that is wrong; nothing is written.
    #[arg(long, requires = "from", conflicts_with = "resume")]
    pub(crate) check: bool,
}

/// A claim mode by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Mode {
    /// Only read it; the first checkpoint copies what the job needs.
    #[value(name = "no_claim", aliases = ["no-claim", "noclaim"])]
    NoClaim,
    /// Own it: it is deleted when the job needs it no more.
    #[value(name = "claim")]
    Claim,
    /// Refer to its files, never delete them; deprecated.
    #[value(name = "legacy")]
    Legacy,
}

impl RestoreArgs {
    /// What was asked for; paths absolute.
    ///
    /// # Errors
    /// `InvalidArgument` if one thing was said twice, or a uid cannot be one.
    pub(crate) fn restore(&self) -> Result<Option<Restore>> {
        let Some(from) = &self.from else {
            return Ok(None);
        };
        let mut restore = Restore::from(absolute(from)?).claim(match self.claim_mode {
            Mode::NoClaim => ClaimMode::NoClaim,
            Mode::Claim => ClaimMode::Claim,
            Mode::Legacy => ClaimMode::Legacy,
        });
        restore.allow_non_restored = allowed(self.allow_non_restored_state.as_deref())?;
        for (old, new) in &self.map {
            if restore.renames.insert(old.clone(), new.clone()).is_some() {
                return Err(Error::invalid("--map names an operator of the snapshot twice").with("uid", old));
            }
        }
        restore.anchors = self.anchors()?;
        restore.accept_lost_transactions = self.accept_lost_transactions;
        Ok(Some(restore))
    }

    /// Directories that were moved, absolute: those that the snapshot refers to or, in a resume, the job's checkpoints.
    ///
    /// # Errors
    /// `InvalidArgument` if one was named twice.
    pub(crate) fn anchors(&self) -> Result<BTreeMap<u32, PathBuf>> {
        let mut anchors = BTreeMap::new();
        for (id, path) in &self.anchor {
            if anchors.insert(*id, absolute(path)?).is_some() {
                return Err(Error::invalid("--anchor names a number twice").with("anchor", id));
            }
        }
        Ok(anchors)
    }
}

fn allowed(uids: Option<&str>) -> Result<AllowNonRestored> {
    Ok(match uids {
        None => AllowNonRestored::None,
        Some("") => AllowNonRestored::All,
        Some(uids) => AllowNonRestored::Uids(uids.split(',').map(OperatorUid::new).collect::<Result<_>>()?),
    })
}

fn rename(text: &str) -> Result<(OperatorUid, OperatorUid), String> {
    let (old, new) = text.split_once('=').ok_or("OLD=NEW is expected")?;
    let uid = |text: &str| OperatorUid::new(text).map_err(|e| e.message().to_owned());
    Ok((uid(old)?, uid(new)?))
}

fn anchor(text: &str) -> Result<(u32, PathBuf), String> {
    let (id, path) = text.split_once('=').ok_or("ID=PATH is expected")?;
    let id = id
        .parse()
        .map_err(|_| "the number of an anchor is expected before `=`")?;
    if path.is_empty() {
        return Err("a path is expected behind `=`".into());
    }
    Ok((id, path.into()))
}

fn absolute(path: &Path) -> Result<PathBuf> {
    std::path::absolute(path).map_err(|e| Error::io("resolve", path, e))
}

#[cfg(test)]
mod tests {
    use super::super::{Command, CommandLine};
    use super::*;
    use std::ffi::OsString;

    fn parse(words: &str) -> Result<RestoreArgs, String> {
        let words = ["keybed", "run", "flights"]
            .into_iter()
            .chain(words.split(' ').filter(|w| !w.is_empty()));
        let line = CommandLine::read(words.map(OsString::from)).map_err(|e| e.to_string())?;
        match line.into_command() {
            Command::Run(run) => Ok(run.restore),
            other => panic!("{other:?}"),
        }
    }

    fn restore(words: &str) -> Restore {
        parse(words).unwrap().restore().unwrap().unwrap()
    }

    fn uid(text: &str) -> OperatorUid {
        OperatorUid::new(text).unwrap()
    }

    #[test]
    fn keybeds_words_and_flinks_mean_the_same() {
        let plain = Restore::from("/sp");
        assert_eq!(restore("-s /sp"), plain);
        assert_eq!(restore("--fromSavepoint /sp"), plain);
        let all = plain.clone().allow_non_restored(AllowNonRestored::All);
        for words in [
            "-n -s /sp",
            "-s /sp --allowNonRestoredState",
            "--allow-non-restored-state --from /sp",
        ] {
            assert_eq!(restore(words), all, "{words}");
        }
        let claim = plain.clone().claim(ClaimMode::Claim);
        for words in [
            "-s /sp -cm CLAIM",
            "-s /sp -claimMode claim",
            "-s /sp -restoreMode=Claim",
            "-s /sp --claim-mode claim",
            "-s /sp --claimMode CLAIM",
        ] {
            assert_eq!(restore(words), claim, "{words}");
        }
        assert_eq!(restore("-s /sp -restoreMode LEGACY").claim, ClaimMode::Legacy);
        assert_eq!(restore("-s /sp -claimMode NO_CLAIM"), plain);
    }

    #[test]
    fn lists_and_pairs_are_read() {
        let some = restore("-s /sp -n=a,b --map old=new --map x=y --anchor 2=/elsewhere");
        let uids = AllowNonRestored::Uids([uid("a"), uid("b")].into());
        let expected = Restore::from("/sp")
            .allow_non_restored(uids)
            .rename(uid("old"), uid("new"))
            .rename(uid("x"), uid("y"))
            .anchor(2, "/elsewhere");
        assert_eq!(some, expected);
        assert!(restore("-s /sp --accept-lost-transactions").accept_lost_transactions);
    }

    #[test]
    fn what_cannot_be_meant_is_refused() {
        for words in [
            "-n",
            "--map a=b",
            "-cm claim",
            "--check",
            "-s /sp -cm perhaps",
            "-s /sp --map a",
            "-s /sp --map =b",
            "-s /sp --anchor x=/p",
            "-s /sp --anchor 1=",
            "-s /sp -yid application_1",
            "--resume -n",
            "--resume --map a=b",
            "--resume -cm claim",
            "--resume --check",
            "--resume --accept-lost-transactions",
        ] {
            assert!(parse(words).is_err(), "{words}");
        }
        for words in [
            "-s /sp --map a=b --map a=c",
            "-s /sp --anchor 1=/a --anchor 1=/b",
            "-s /sp -n=a,,b",
        ] {
            let error = parse(words).unwrap().restore().unwrap_err();
            assert_eq!(error.exit_code(), 2, "{words}");
        }
        assert_eq!(parse("").unwrap().restore().unwrap(), None);
    }
}
