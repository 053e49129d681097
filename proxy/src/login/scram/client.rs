//! The client's side of SCRAM: proves a password to a backend and makes the backend prove that it knows it too.
//!
//! The backend is not trusted before its signature is checked: its nonce, salt and iteration count are bounded, because they
//! come from whoever answers at the node's address (CVE-2026-6665 was a pooler that believed a backend's nonce).

use super::{Attributes, Channel, KEY_BYTES, Keys, ScramError};
use super::{decode_base64, encode_base64, equal, hmac, nonce_is_printable, sha256, xor};
use crate::limits::{SCRAM_ITERATIONS_MAX, SCRAM_NONCE_BYTES_MAX};

/// Bytes of salt that a backend may send, in base64. PostgreSQL's salts have 24.
const SALT_TEXT_BYTES_MAX: usize = 1024;

/// Waits for the server-first-message.
pub struct ClientFirst {
    nonce: String,
    bare: String,
    channel: Channel,
}

impl ClientFirst {
    /// Begins an exchange that is bound to `channel` and gives the client-first-message. `nonce` is fresh and random, see
    /// [`super::nonce`].
    pub fn begin(nonce: String, channel: Channel) -> (Self, Vec<u8>) {
        // The user is named by the StartupMessage; PostgreSQL ignores the one here.
        let state = Self::of_user("", nonce, channel);
        let message = format!("{}{}", state.channel.header(), state.bare).into_bytes();
        (state, message)
    }

    pub(super) fn of_user(user: &str, nonce: String, channel: Channel) -> Self {
        Self { bare: format!("n={user},r={nonce}"), nonce, channel }
    }

    /// Takes the server-first-message. The password is to be stretched with its salt and iteration count, which have been checked
    /// against the bounds.
    ///
    /// # Errors
    /// The message is malformed, its nonce does not extend ours, or it asks for more work than
    /// [`SCRAM_ITERATIONS_MAX`] rounds.
    pub fn receive(self, message: &[u8]) -> Result<ClientChallenged, ScramError> {
        let mut attributes = Attributes::new(message);
        let nonce = attributes.named(b'r')?;
        if nonce.len() > SCRAM_NONCE_BYTES_MAX {
            return Err(ScramError::Malformed("The nonce is too long."));
        }
        if !nonce.starts_with(self.nonce.as_bytes()) || nonce.len() == self.nonce.len() || !nonce_is_printable(nonce) {
            return Err(ScramError::Malformed("The nonce does not extend the client's."));
        }
        let salt = Some(attributes.named(b's')?)
            .filter(|salt| salt.len() <= SALT_TEXT_BYTES_MAX)
            .and_then(decode_base64)
            .filter(|salt| !salt.is_empty())
            .ok_or(ScramError::Malformed("The salt is not usable."))?;
        let iterations = std::str::from_utf8(attributes.named(b'i')?)
            .ok()
            .and_then(|text| text.parse::<u32>().ok())
            .filter(|iterations| (1..=SCRAM_ITERATIONS_MAX).contains(iterations))
            .ok_or(ScramError::Malformed("The iteration count is not usable."))?;

        let without_proof = [b"c=", self.channel.attribute().as_bytes(), b",r=", nonce].concat();
        let signed = [self.bare.as_bytes(), b",", message, b",", &without_proof].concat();
        Ok(ClientChallenged { salt, iterations, without_proof, signed })
    }
}

/// Waits for the stretched password.
pub struct ClientChallenged {
    /// What it is salted with; not empty.
    pub salt: Vec<u8>,
    /// Rounds of PBKDF2.
    pub iterations: u32,
    without_proof: Vec<u8>,
    signed: Vec<u8>,
}

impl ClientChallenged {
    /// Gives the client-final-message.
    pub fn answer(self, keys: &Keys) -> (ClientFinal, Vec<u8>) {
        let signed: [&[u8]; 1] = [&self.signed];
        let proof = xor(&keys.client_key, &hmac(&sha256(&keys.client_key), &signed));
        let answer = [&self.without_proof[..], b",p=", encode_base64(&proof).as_bytes()].concat();
        (ClientFinal { server_signature: hmac(&keys.server_key, &signed) }, answer)
    }
}

/// Waits for the server-final-message.
pub struct ClientFinal {
    server_signature: [u8; KEY_BYTES],
}

impl ClientFinal {
    /// Takes the server-final-message: `Ok` says that the server knows the password too.
    ///
    /// # Errors
    /// [`ScramError::Mismatch`] for a wrong signature or an error told by the server; otherwise the message is malformed.
    pub fn receive(self, message: &[u8]) -> Result<(), ScramError> {
        let mut attributes = Attributes::new(message);
        let signature = match attributes.any()? {
            (b'v', signature) => signature,
            (b'e', _) => return Err(ScramError::Mismatch),
            _ => return Err(ScramError::Malformed("Unexpected attribute.")),
        };
        let signature = decode_base64(signature).ok_or(ScramError::Malformed("The signature is not base64."))?;
        if equal(&signature, &self.server_signature) { Ok(()) } else { Err(ScramError::Mismatch) }
    }
}
