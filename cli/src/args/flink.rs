//! The command line as people type it for Flink: long options behind a single dash, which no other parser takes.
//!
//! ```text
//!   -claimMode CLAIM     ─▶  --claim-mode CLAIM            words of the table, before `--`
//!   -restoreMode=legacy  ─▶  --claim-mode=legacy
//!   -yid x               ─▶  refused with a sentence
//! ```
//! Long options behind two dashes are aliases in the definitions. Words that are neither pass unchanged, so `-cm` is
//! never taken for `-c -m`.

use std::ffi::{OsStr, OsString};

/// Flink's word and keybed's.
const OPTIONS: &[(&str, &str)] = &[
    ("-cm", "--claim-mode"),
    ("-rm", "--claim-mode"),
    ("-claimMode", "--claim-mode"),
    ("-restoreMode", "--claim-mode"),
    ("-fromSavepoint", "--from"),
    ("-allowNonRestoredState", "--allow-non-restored-state"),
    ("-parallelism", "--parallelism"),
    ("-type", "--type"),
    ("-detached", "--detached"),
    ("-drain", "--drain"),
    ("-full", "--full"),
    ("-all", "--all"),
    ("-running", "--running"),
    ("-dispose", "--dispose"),
    ("-savepointPath", "--savepointPath"),
    ("-withSavepoint", "--withSavepoint"),
    ("-jobmanager", "--jobmanager"),
];

/// Words that mean something which keybed does not have, and what to do instead.
const REFUSED: &[(&str, &str)] = &[
    ("-yid", YARN),
    ("--yarnapplicationId", YARN),
    ("-yarnapplicationId", YARN),
];

const YARN: &str =
    "keybed jobs do not run on YARN, so there is no application to name: a job is found by its name or id";

/// The words with Flink's options under keybed's names; the first is the program.
///
/// # Errors
/// The sentence of a refused option.
pub(crate) fn rewrite(words: impl IntoIterator<Item = OsString>) -> Result<Vec<OsString>, String> {
    let mut literal = false;
    words
        .into_iter()
        .map(|word| {
            literal |= word == "--";
            if literal { Ok(word) } else { one(word) }
        })
        .collect()
}

fn one(word: OsString) -> Result<OsString, String> {
    let Some(text) = word.to_str() else {
        return Ok(word);
    };
    let (name, value) = match text.split_once('=') {
        Some((name, value)) => (name, Some(value)),
        None => (text, None),
    };
    if let Some((name, why)) = REFUSED.iter().find(|(known, _)| *known == name) {
        return Err(format!("{name}: {why}"));
    }
    Ok(match OPTIONS.iter().find(|(known, _)| *known == name) {
        None => word,
        Some((_, ours)) => match value {
            None => OsStr::new(ours).to_owned(),
            Some(value) => format!("{ours}={value}").into(),
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rewritten(text: &str) -> Result<String, String> {
        let words = rewrite(text.split(' ').map(OsString::from))?;
        Ok(words.join(OsStr::new(" ")).into_string().unwrap())
    }

    #[test]
    fn the_table_of_single_dashes() {
        for (typed, meant) in [
            ("run -claimMode CLAIM f", "run --claim-mode CLAIM f"),
            ("run -cm claim", "run --claim-mode claim"),
            ("run -restoreMode=LEGACY", "run --claim-mode=LEGACY"),
            ("run -c -m -s /p -n", "run -c -m -s /p -n"),
            ("run --claim-mode no_claim", "run --claim-mode no_claim"),
            ("x -- -claimMode", "x -- -claimMode"),
        ] {
            assert_eq!(rewritten(typed).unwrap(), meant);
        }
    }

    #[test]
    fn yarn_is_refused_with_a_sentence() {
        for typed in [
            "list -yid application_1",
            "list --yarnapplicationId=application_1",
        ] {
            assert!(
                rewritten(typed).unwrap_err().contains("do not run on YARN"),
                "{typed}"
            );
        }
        assert!(rewritten("x -- -yid").is_ok());
    }
}
