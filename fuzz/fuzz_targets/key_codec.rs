//! See `keybed_fuzz::key_codec`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    keybed_fuzz::key_codec(bytes);
});
