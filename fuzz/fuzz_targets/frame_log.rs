//! See `keybed_fuzz::frame_log`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    keybed_fuzz::frame_log(bytes);
});
