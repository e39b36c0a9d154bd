//! See `simpledynamo::fuzz::stored_records`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| simpledynamo::fuzz::stored_records(bytes));
