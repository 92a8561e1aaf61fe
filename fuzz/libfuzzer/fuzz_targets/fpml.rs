#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| fhirehose_fuzz::run("fpml", input));
