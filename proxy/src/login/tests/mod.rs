//! Logins without sockets: conversations with a [`ClientLogin`], and of a [`BackendLogin`](super::backend_login::BackendLogin)
//! with servers that are good, confused or malicious.

mod backend;
mod client;
mod console;
mod encryption;
mod hba;
mod nodes;
mod passwords;
mod sockets;
mod tokens;
mod versions;

use tokio::time::Instant;

use super::*;

/// Of alice: `SCRAM-SHA-256$<iterations>:<salt>$<StoredKey>:<ServerKey>` made from the password `pencil` (RFC 7677, section 3).
const USERS: &str = concat!(
    "\"alice\" \"SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==$",
    "WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=:wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU=\"\n",
    "\"bob\" \"secret\"\n",
    "\"carol\" \"md55eb5ffe0ee4ae5c6b0f9c7b8d3e1cafe\"\n",
);

/// Rules of a configuration that has two regions, two nodes and the rules that `more` adds.
fn rules(method: &str, more: &str) -> Rules {
    rules_of(&format!("method = \"{method}\""), more, &[])
}

/// The same with these lines in `[auth]`, and these files beside the configuration.
fn rules_of(auth: &str, more: &str, files: &[(&str, &str)]) -> Rules {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("domicile.toml");
    for (name, text) in [&[("users.txt", USERS)], files].concat() {
        std::fs::write(directory.path().join(name), text).unwrap();
    }
    let text = format!(
        "listen = [\"127.0.0.1:6432\"]\n\
         [auth]\n{auth}\nusers = \"users.txt\"\n\
         [residency]\nunbound = \"client\"\n\
         [regions.eu-west]\n[regions.us-east]\n\
         [[nodes]]\nname = \"pg-eu-west\"\nregion = \"eu-west\"\naddress = \"127.0.0.1:5433\"\n\
         [[nodes]]\nname = \"pg-us-east\"\nregion = \"us-east\"\naddress = \"127.0.0.1:5434\"\nuser = \"prober\"\n{more}\n"
    );
    std::fs::write(&path, text).unwrap();
    let config = crate::config::load(&path, &|_| None).unwrap_or_else(|mistakes| panic!("{mistakes}"));
    let policy = Arc::new(Policy::compile(&config.policy_source(), None).unwrap());
    Rules::new(config, policy, [7; 32], None, Instant::now())
}
