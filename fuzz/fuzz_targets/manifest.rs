//! See `keybed::lsm::fuzzing::manifest`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    keybed::lsm::fuzzing::manifest(bytes);
});
