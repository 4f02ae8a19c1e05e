//! See `keybed::lsm::fuzzing::sst_footer_index`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    keybed::lsm::fuzzing::sst_footer_index(bytes);
});
