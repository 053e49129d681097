//! What servers send. The properties stand in `domicile::wire::fuzz::backend_frames`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| domicile::wire::fuzz::backend_frames(data));
