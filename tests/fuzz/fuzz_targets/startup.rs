//! The packets before login. The properties stand in `domicile::wire::fuzz::startup`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| domicile::wire::fuzz::startup(data));
