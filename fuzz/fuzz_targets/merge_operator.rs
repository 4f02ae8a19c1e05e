//! See `keybed::lsm::differential::fuzz::merge_operator`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    keybed::lsm::differential::fuzz::merge_operator(bytes);
});
