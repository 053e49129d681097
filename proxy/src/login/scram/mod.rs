//! SCRAM-SHA-256 (RFC 5802, RFC 7677) as PostgreSQL speaks it, both sides, with channel binding (RFC 5929's
//! `tls-server-end-point`) where there is TLS.
//!
//! Each state of an exchange is a value that is used up by the message that ends it, so a message can not be answered twice.
//! Nothing here reads a socket, a clock or a source of randomness: nonces come in as arguments. A message is bytes, because
//! PostgreSQL never asks for UTF-8 in it; its length is bounded by whoever frames it.

mod client;
mod server;
#[cfg(test)]
mod tests;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, Mac as _};
use sha2::{Digest as _, Sha256};
use zeroize::{Zeroize, ZeroizeOnDrop};

pub use client::{ClientChallenged, ClientFinal, ClientFirst};
pub use server::{ServerFinal, ServerFirst};

/// The mechanism's name in AuthenticationSASL and SASLInitialResponse.
pub const MECHANISM: &str = "SCRAM-SHA-256";
/// The same with channel binding.
pub const MECHANISM_PLUS: &str = "SCRAM-SHA-256-PLUS";
/// Random bytes of a nonce, before base64; PostgreSQL's `SCRAM_RAW_NONCE_LEN`.
pub const NONCE_BYTES: usize = 18;
/// Bytes of salt that PostgreSQL gives a password; `SCRAM_DEFAULT_SALT_LEN`.
pub const SALT_BYTES: usize = 16;
/// Rounds of PBKDF2 for verifiers made here where none are stored; PostgreSQL's `SCRAM_SHA_256_DEFAULT_ITERATIONS`, the least that RFC 7677 allows.
pub const ITERATIONS: u32 = 4096;

const KEY_BYTES: usize = 32;

/// Why an exchange ended without success.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ScramError {
    /// The peer's message breaks the grammar of RFC 5802, section 7, or contradicts an earlier one. The text says how.
    Malformed(&'static str),
    /// The peer asks for something of the RFC that PostgreSQL does not have either.
    Unsupported(&'static str),
    /// The peer does not know the password: a client's proof or a server's signature is wrong.
    Mismatch,
    /// The client believes that no channel binding was offered: somebody between may have taken it out.
    Downgraded,
    /// The client has bound itself to another TLS connection: somebody stands between.
    OtherChannel,
}

/// The channel binding of a client (RFC 5802, section 6): how it begins its first message, and what follows in its last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Channel {
    /// There is nothing to be bound to.
    None,
    /// There is, but the server has not offered it.
    NotOffered,
    /// The hash of the server's certificate.
    EndPoint(Box<[u8]>),
}

impl Channel {
    /// The GS2 header.
    fn header(&self) -> &'static str {
        match self {
            Self::None => "n,,",
            Self::NotOffered => "y,,",
            Self::EndPoint(_) => "p=tls-server-end-point,,",
        }
    }

    /// What the attribute `c` of the client-final-message is.
    fn attribute(&self) -> String {
        let data: &[u8] = match self {
            Self::None | Self::NotOffered => &[],
            Self::EndPoint(hash) => hash,
        };
        encode_base64(&[self.header().as_bytes(), data].concat())
    }
}

/// What a password becomes once salted and stretched. It is as good as the password towards one server.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct Keys {
    client_key: [u8; KEY_BYTES],
    server_key: [u8; KEY_BYTES],
}

impl Keys {
    /// Stretches a password: `iterations` rounds of PBKDF2, about half a microsecond each.
    pub fn derive(password: &[u8], salt: &[u8], iterations: u32) -> Self {
        let prepared = prepare(password);
        let mut salted = [0; KEY_BYTES];
        pbkdf2::pbkdf2_hmac::<Sha256>(&prepared, salt, iterations, &mut salted);
        let keys = Self { client_key: hmac(&salted, &[b"Client Key"]), server_key: hmac(&salted, &[b"Server Key"]) };
        salted.zeroize();
        keys
    }

    /// Whether they are those that a verifier with this `stored_key` was made from.
    pub fn open(&self, stored_key: &[u8; KEY_BYTES]) -> bool {
        equal(&sha256(&self.client_key), stored_key)
    }

    /// What a server stores to check this password.
    pub fn verifier(&self, salt: &[u8], iterations: u32) -> Verifier {
        Verifier { iterations, salt: salt.to_vec(), stored_key: sha256(&self.client_key), server_key: self.server_key }
    }
}

/// What a server knows of a password: enough to check it, not enough to use it (RFC 5803).
#[derive(Clone, PartialEq, Eq, Zeroize, ZeroizeOnDrop)]
pub struct Verifier {
    /// Rounds of PBKDF2.
    pub iterations: u32,
    /// Salt of PBKDF2.
    pub salt: Vec<u8>,
    /// `H(ClientKey)`.
    pub stored_key: [u8; KEY_BYTES],
    /// Signs the server's last message.
    pub server_key: [u8; KEY_BYTES],
}

/// A nonce, as it stands in messages, from random bytes.
pub fn nonce(random: &[u8; NONCE_BYTES]) -> String {
    encode_base64(random)
}

/// Bytes that are compared in the same time whether they are equal or not.
pub fn equal(left: &[u8], right: &[u8]) -> bool {
    subtle::ConstantTimeEq::ct_eq(left, right).into()
}

/// HMAC-SHA-256 of the parts, one after the other.
pub fn hmac(key: &[u8], parts: &[&[u8]]) -> [u8; KEY_BYTES] {
    // HMAC takes a key of any length; the error is for other constructions behind the same trait.
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(key) else { unreachable!("HMAC accepts keys of every length") };
    parts.iter().for_each(|part| mac.update(part));
    mac.finalize().into_bytes().into()
}

fn sha256(bytes: &[u8]) -> [u8; KEY_BYTES] {
    Sha256::digest(bytes).into()
}

fn xor(left: &[u8; KEY_BYTES], right: &[u8; KEY_BYTES]) -> [u8; KEY_BYTES] {
    std::array::from_fn(|index| left[index] ^ right[index])
}

/// SASLprep (RFC 4013); a password that is not UTF-8 or has forbidden characters is taken as it is, as PostgreSQL does.
fn prepare(password: &[u8]) -> zeroize::Zeroizing<Vec<u8>> {
    let prepared = std::str::from_utf8(password).ok().and_then(|text| stringprep::saslprep(text).ok());
    zeroize::Zeroizing::new(prepared.map_or_else(|| password.to_vec(), |text| text.into_owned().into_bytes()))
}

/// The `a=value` fields of a SCRAM message, in order.
struct Attributes<'a> {
    message: &'a [u8],
    at: usize,
}

impl<'a> Attributes<'a> {
    fn new(message: &'a [u8]) -> Self {
        Self { message, at: 0 }
    }

    /// The next field, whatever its name.
    fn any(&mut self) -> Result<(u8, &'a [u8]), ScramError> {
        let [name, b'=', value @ ..] = self.message.get(self.at..).unwrap_or_default() else {
            return Err(ScramError::Malformed("Attribute expected."));
        };
        if !name.is_ascii_alphabetic() {
            return Err(ScramError::Malformed("Attribute name expected."));
        }
        let length = memchr::memchr(b',', value).unwrap_or(value.len());
        self.at += 2 + length + 1;
        Ok((*name, &value[..length]))
    }

    /// The next field, which must have this name.
    fn named(&mut self, name: u8) -> Result<&'a [u8], ScramError> {
        match self.any()? {
            (found, value) if found == name => Ok(value),
            // RFC 5802, section 5.1: `m` announces an extension that must be understood.
            (b'm', _) => Err(ScramError::Unsupported("the peer requires an unsupported SCRAM extension")),
            _ => Err(ScramError::Malformed("Unexpected attribute.")),
        }
    }

    fn at_end(&self) -> bool {
        self.at >= self.message.len()
    }
}

/// A nonce is printable ASCII without the comma (RFC 5802, section 7).
fn nonce_is_printable(nonce: &[u8]) -> bool {
    nonce.iter().all(|byte| matches!(byte, 0x21..=0x2b | 0x2d..=0x7e))
}

fn decode_base64(text: &[u8]) -> Option<Vec<u8>> {
    STANDARD.decode(text).ok()
}

fn encode_base64(bytes: &[u8]) -> String {
    STANDARD.encode(bytes)
}
