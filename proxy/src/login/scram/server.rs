//! The server's side of SCRAM: checks a client without learning its password.
//!
//! Follows PostgreSQL's `auth-scram.c` message by message. It does not decide who the client is: the name inside the SCRAM
//! message is ignored, the StartupMessage's counts.

use super::{Attributes, Channel, KEY_BYTES, Keys, ScramError, Verifier};
use super::{decode_base64, encode_base64, equal, hmac, nonce_is_printable, xor};

/// Waits for the client-first-message.
pub struct ServerFirst {
    verifier: Verifier,
    doomed: bool,
    nonce: String,
    /// What the client can be bound to: the hash of the own certificate.
    end_point: Option<Box<[u8]>>,
    /// The client has chosen to be.
    is_bound: bool,
}

impl ServerFirst {
    /// Checks against `verifier`. A `doomed` exchange fails at its end whatever the client proves; up to there it looks like
    /// any other, so that nobody learns which users exist. `nonce` is fresh and random, see [`super::nonce`]. With an `end_point`
    /// the client has been offered channel binding.
    pub fn new(verifier: Verifier, doomed: bool, nonce: String, end_point: Option<Box<[u8]>>) -> Self {
        Self { verifier, doomed, nonce, end_point, is_bound: false }
    }

    /// The mechanisms that the client may choose from.
    pub fn mechanisms(&self) -> &'static [&'static str] {
        if self.end_point.is_some() { &[super::MECHANISM_PLUS, super::MECHANISM] } else { &[super::MECHANISM] }
    }

    /// The client has chosen a mechanism. `None`: it was not offered.
    pub fn choose(self, mechanism: &[u8]) -> Option<Self> {
        let chosen = self.mechanisms().iter().find(|offered| offered.as_bytes() == mechanism)?;
        Some(Self { is_bound: *chosen == super::MECHANISM_PLUS, ..self })
    }

    /// Takes the client-first-message and gives the server-first-message.
    ///
    /// # Errors
    /// The message is malformed, is about channel binding in another way than was chosen, or asks for another authorization identity
    /// or an extension.
    pub fn receive(self, message: &[u8]) -> Result<(ServerFinal, Vec<u8>), ScramError> {
        let (channel, rest) = match (message, self.is_bound, self.end_point) {
            ([b'n', b',', rest @ ..], false, _) => (Channel::None, rest),
            // The client could bind, but saw no -PLUS mechanism: true only if none was offered.
            ([b'y', b',', rest @ ..], false, None) => (Channel::NotOffered, rest),
            ([b'y', ..], false, Some(_)) => return Err(ScramError::Downgraded),
            ([b'p', ..], false, _) => {
                return Err(ScramError::Malformed(
                    "The client selected SCRAM-SHA-256 without channel binding, but the SCRAM message includes channel binding data.",
                ));
            }
            ([b'p', b'=', binding @ ..], true, Some(end_point)) => match binding.strip_prefix(b"tls-server-end-point,") {
                Some(rest) => (Channel::EndPoint(end_point), rest),
                None => return Err(ScramError::Malformed("Unsupported SCRAM channel-binding type.")),
            },
            ([b'n' | b'y', ..], true, _) => {
                return Err(ScramError::Malformed(
                    "The client selected SCRAM-SHA-256-PLUS, but the SCRAM message does not include channel binding data.",
                ));
            }
            _ => return Err(ScramError::Malformed("Unexpected channel-binding flag.")),
        };
        let bare = match rest {
            [b',', bare @ ..] => bare,
            [b'a', ..] => {
                return Err(ScramError::Unsupported("client uses authorization identity, but it is not supported"));
            }
            _ => return Err(ScramError::Malformed("Unexpected attribute in client-first-message.")),
        };
        let mut attributes = Attributes::new(bare);
        attributes.named(b'n')?;
        let client_nonce = attributes.named(b'r')?;
        if !nonce_is_printable(client_nonce) {
            return Err(ScramError::Malformed("Non-printable characters in SCRAM nonce."));
        }
        while !attributes.at_end() {
            attributes.any()?;
        }

        let nonce = [client_nonce, self.nonce.as_bytes()].concat();
        let salt = encode_base64(&self.verifier.salt);
        let answer = [b"r=", &nonce[..], format!(",s={salt},i={}", self.verifier.iterations).as_bytes()].concat();
        let transcript = [bare, b",", &answer].concat();
        Ok((ServerFinal { verifier: self.verifier, doomed: self.doomed, channel, nonce, transcript }, answer))
    }
}

/// Waits for the client-final-message.
pub struct ServerFinal {
    verifier: Verifier,
    doomed: bool,
    channel: Channel,
    nonce: Vec<u8>,
    /// Client-first-message-bare, a comma, server-first-message.
    transcript: Vec<u8>,
}

impl ServerFinal {
    /// Takes the client-final-message and gives the server-final-message, which says that the client is who it says, and the keys that
    /// it has shown: with them servers can be logged in to that have the same verifier.
    ///
    /// # Errors
    /// [`ScramError::Mismatch`] for a wrong password or a doomed exchange, otherwise the message is malformed.
    pub fn receive(self, message: &[u8]) -> Result<(Vec<u8>, Keys), ScramError> {
        let mut attributes = Attributes::new(message);
        // The header of the first message once more, with what it is bound to.
        if !equal(attributes.named(b'c')?, self.channel.attribute().as_bytes()) {
            return Err(match self.channel {
                Channel::EndPoint(_) => ScramError::OtherChannel,
                Channel::None | Channel::NotOffered => {
                    ScramError::Malformed("Unexpected SCRAM channel-binding attribute in client-final-message.")
                }
            });
        }
        if !equal(attributes.named(b'r')?, &self.nonce) {
            return Err(ScramError::Malformed("Nonce does not match."));
        }
        let (without_proof, proof) = loop {
            let before = attributes.at - 1;
            if let (b'p', value) = attributes.any()? {
                break (&message[..before], value);
            }
        };
        if !attributes.at_end() {
            return Err(ScramError::Malformed("Garbage found at the end of client-final-message."));
        }
        let proof: [u8; KEY_BYTES] = decode_base64(proof)
            .and_then(|proof| proof.try_into().ok())
            .ok_or(ScramError::Malformed("Malformed proof in client-final-message."))?;

        let signed: [&[u8]; 3] = [&self.transcript, b",", without_proof];
        let client_signature = hmac(&self.verifier.stored_key, &signed);
        let keys = Keys { client_key: xor(&proof, &client_signature), server_key: self.verifier.server_key };
        if !keys.open(&self.verifier.stored_key) | self.doomed {
            return Err(ScramError::Mismatch);
        }
        Ok((format!("v={}", encode_base64(&hmac(&keys.server_key, &signed))).into_bytes(), keys))
    }
}
