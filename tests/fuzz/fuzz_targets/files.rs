//! Configuration, users, HBA and ident files. The properties stand in `domicile::config::fuzz::file`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| domicile::config::fuzz::file(data));
