#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| callbridge_fuzz::connection::check(input));
