//! What a server sends while the proxy logs in to it. The properties stand in `domicile::login::fuzz::server`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| domicile::login::fuzz::server(data));
