//! See `keybed::state::canonical::fuzzing::canonical_savepoint`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    keybed::state::canonical::fuzzing::canonical_savepoint(bytes);
});
