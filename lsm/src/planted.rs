//! Mistakes that are built in on purpose, to see that the tests find them (`ci/full`, stage `planted`).
//!
//! Only a build with `--cfg planted` knows how to make them, and makes the one that the environment variable
//! `KEYBED_PLANTED` names. Everywhere else the question has a constant answer, and nothing of it is left.

/// Whether the mistake of this name is to be made.
#[cfg(not(planted))]
#[inline(always)]
pub(crate) const fn is(_: &str) -> bool {
    false
}

/// Whether the mistake of this name is to be made.
#[cfg(planted)]
pub(crate) fn is(mistake: &str) -> bool {
    static CHOSEN: std::sync::LazyLock<Option<String>> =
        std::sync::LazyLock::new(|| std::env::var("KEYBED_PLANTED").ok());
    CHOSEN.as_deref() == Some(mistake)
}
