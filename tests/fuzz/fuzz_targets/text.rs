//! Texts of statements. The properties stand in `domicile::sql::fuzz::text`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| domicile::sql::fuzz::text(data));
