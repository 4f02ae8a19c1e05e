//! See `keybed::lsm::differential::fuzz::engine_crash`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    keybed::lsm::differential::fuzz::engine_crash(bytes);
});
