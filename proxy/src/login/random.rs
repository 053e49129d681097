//! The randomness of logins, drawn from the kernel. Everything else takes it as an argument.

use std::io;

use super::scram::NONCE_BYTES;
use crate::wire::CancelSecret;

/// What is left to chance in one client's login.
pub struct Chance {
    /// Of our nonce in SCRAM.
    pub nonce: [u8; NONCE_BYTES],
    /// Of an MD5 challenge.
    pub salt: [u8; 4],
    /// Process ID in BackendKeyData; positive as a signed number, as every process ID is.
    pub process_id: u32,
    /// Secret in BackendKeyData, cut to what the client's protocol takes.
    pub secret: [u8; CancelSecret::DRAWN_BYTES],
}

impl Chance {
    /// Draws.
    ///
    /// # Errors
    /// The kernel has no randomness to give, which happens before it has booted and never again.
    pub fn draw() -> io::Result<Self> {
        let process_id = u32::from_ne_bytes(bytes()?) >> 1;
        Ok(Self { nonce: bytes()?, salt: bytes()?, process_id: process_id.max(1), secret: bytes()? })
    }
}

/// Random bytes.
///
/// # Errors
/// As [`Chance::draw`].
pub fn bytes<const N: usize>() -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(|error| io::Error::other(error.to_string()))?;
    Ok(bytes)
}
