//! See `simpledynamo::fuzz::peer_frames`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| simpledynamo::fuzz::peer_frames(bytes));
