//! See `keybed::lsm::fuzzing::filter_block`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    keybed::lsm::fuzzing::filter_block(bytes);
});
