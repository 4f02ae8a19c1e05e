//! See `keybed_fuzz::claim`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    keybed_fuzz::claim(bytes);
});
