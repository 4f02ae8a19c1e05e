//! See `keybed_fuzz::checkpoint_metadata`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    keybed_fuzz::checkpoint_metadata(bytes);
});
