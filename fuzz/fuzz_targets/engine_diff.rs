//! See `keybed::lsm::differential::fuzz::engine_diff`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    keybed::lsm::differential::fuzz::engine_diff(bytes);
});
