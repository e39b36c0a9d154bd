//! See `simpledynamo::fuzz::client_frames`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| simpledynamo::fuzz::client_frames(bytes));
