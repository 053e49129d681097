//! What clients send. The properties stand in `domicile::wire::fuzz::frontend_frames`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| domicile::wire::fuzz::frontend_frames(data));
