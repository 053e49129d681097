//! What a client sends from its first byte on: the startup packet and SASL. The properties stand in `domicile::login::fuzz::client`.
#![no_main]

use std::sync::LazyLock;

use domicile::login::{Rules, fuzz};

thread_local! {
    static RULES: LazyLock<Rules> = LazyLock::new(|| {
        let directory = std::env::temp_dir().join(format!("domicile-fuzz-{}", std::process::id()));
        std::fs::create_dir_all(&directory).expect("a directory");
        let rules = fuzz::rules(&directory);
        std::fs::remove_dir_all(&directory).expect("a directory to remove");
        rules
    });
}

libfuzzer_sys::fuzz_target!(|data: &[u8]| RULES.with(|rules| fuzz::client(rules, data)));
