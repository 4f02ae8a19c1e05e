//! See `keybed::lsm::fuzzing::wal_replay`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    keybed::lsm::fuzzing::wal_replay(bytes);
});
