//! See `simpledynamo::fuzz::cluster_toml`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| simpledynamo::fuzz::cluster_toml(bytes));
