//! Keyed state for tests.

use keybed_format::Result;
use keybed_snapshot::{KeyGroupRange, StateCatalogue};
use keybed_state::{BackendOptions, KeyCodec, KeyedState, StateRegistry, catalogue};
use std::path::PathBuf;

/// Runs `test` with the tokens that `open` declares and an empty state on every backend.
pub(crate) fn on_every_backend<T: Copy>(
    open: impl Fn(&mut StateRegistry) -> Result<T>,
    test: impl Fn(T, &mut KeyedState) -> Result,
) {
    on_backend(BackendOptions::heap, &open, &test);
    on_backend(BackendOptions::lsm, &open, &test);
}

fn on_backend<T: Copy>(
    make: fn(PathBuf) -> BackendOptions,
    open: impl Fn(&mut StateRegistry) -> Result<T>,
    test: impl Fn(T, &mut KeyedState) -> Result,
) {
    let dir = tempfile::tempdir().unwrap();
    let mut options = make(dir.path().join("work"));
    options.memtable_bytes = 32 << 10;
    let opened = catalogue::open(&u64::key_schema(), &StateCatalogue::new(), open);
    let (tokens, catalogue) = opened.expect("they are declared well");
    let kind = options.kind;
    let all = KeyGroupRange::all(128).unwrap();
    let mut state = KeyedState::create(options, all, 128, catalogue).unwrap();
    test(tokens, &mut state).unwrap_or_else(|e| panic!("on {kind:?}: {e}"));
}

pub(crate) fn set_key(state: &mut KeyedState, key: u64) -> Result {
    state.set_key(&keybed_state::codec::encode_key(&key))
}
