//! SCRAM-SHA-256 (RFC 5802, RFC 7677), without channel binding: the client's half, and what a server has to prove.

use std::collections::HashMap;
use std::sync::Mutex;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use hmac::{Hmac, Mac};
use sha2::{Digest, Sha256};

/// One exchange.
pub struct Scram {
    nonce: String,
}

/// The client's last message, and what the server must answer to it.
pub struct Proof {
    /// The client-final-message.
    pub message: String,
    /// The server-final-message.
    pub server_signature: String,
}

impl Scram {
    /// An exchange with a fresh nonce.
    pub fn new() -> Result<Self, String> {
        let mut random = [0; 18];
        getrandom::fill(&mut random).map_err(|error| error.to_string())?;
        Ok(Self { nonce: BASE64.encode(random) })
    }

    /// The client-first-message.
    pub fn first(&self) -> String {
        format!("n,,{}", self.first_bare())
    }

    fn first_bare(&self) -> String {
        format!("n=,r={}", self.nonce)
    }

    /// The client-final-message that answers a server-first-message.
    pub fn last(&self, password: &str, server_first: &str) -> Result<Proof, String> {
        let part = |name: &str| {
            let found = server_first.split(',').find_map(|part| part.strip_prefix(name));
            found.ok_or_else(|| format!("no {name} in the server's first message"))
        };
        let nonce = part("r=")?;
        if !nonce.starts_with(&self.nonce) || nonce.len() == self.nonce.len() {
            return Err("the server's nonce does not continue ours".to_owned());
        }
        let salt = BASE64.decode(part("s=")?).map_err(|error| error.to_string())?;
        let iterations = part("i=")?.parse().map_err(|_| "iterations are no number")?;

        let salted = salted_password(password, &salt, iterations);
        let without_proof = format!("c=biws,r={nonce}");
        let signed = format!("{},{server_first},{without_proof}", self.first_bare());
        let client_key = keyed(&salted, b"Client Key");
        let signature = keyed(&Sha256::digest(client_key), signed.as_bytes());
        let proof: Vec<u8> = client_key.iter().zip(signature).map(|(key, signature)| key ^ signature).collect();
        let server_signature = keyed(&keyed(&salted, b"Server Key"), signed.as_bytes());
        Ok(Proof {
            message: format!("{without_proof},p={}", BASE64.encode(proof)),
            server_signature: format!("v={}", BASE64.encode(server_signature)),
        })
    }
}

/// The server-final-message of a server that knows the password, after these three messages of an exchange, the last without its proof.
pub fn server_final(
    password: &str,
    salt: &[u8],
    iterations: u32,
    [first_bare, server_first, without_proof]: [&str; 3],
) -> String {
    let signed = format!("{first_bare},{server_first},{without_proof}");
    let salted = salted_password(password, salt, iterations);
    format!("v={}", BASE64.encode(keyed(&keyed(&salted, b"Server Key"), signed.as_bytes())))
}

/// What PostgreSQL keeps instead of a password, with a salt that is always the same.
pub fn verifier(password: &str) -> String {
    let salt = b"always the same.";
    let salted = salted_password(password, salt, 4096);
    let stored = BASE64.encode(Sha256::digest(keyed(&salted, b"Client Key")));
    let server = BASE64.encode(keyed(&salted, b"Server Key"));
    format!("SCRAM-SHA-256$4096:{}${stored}:{server}", BASE64.encode(salt))
}

/// Thousands of hashes: worth keeping, because tests log in with the same password over and over.
fn salted_password(password: &str, salt: &[u8], iterations: u32) -> [u8; 32] {
    type Known = HashMap<(String, Vec<u8>, u32), [u8; 32]>;
    static KNOWN: Mutex<Option<Known>> = Mutex::new(None);
    let key = (password.to_owned(), salt.to_owned(), iterations);
    let known = || KNOWN.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    if let Some(salted) = known().as_ref().and_then(|known| known.get(&key).copied()) {
        return salted;
    }
    let mut salted = [0; 32];
    pbkdf2::pbkdf2::<Hmac<Sha256>>(password.as_bytes(), salt, iterations, &mut salted).expect("HMAC takes a key of any length");
    known().get_or_insert_default().insert(key, salted);
    salted
}

fn keyed(key: &[u8], text: &[u8]) -> [u8; 32] {
    let mut hmac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes a key of any length");
    hmac.update(text);
    hmac.finalize().into_bytes().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of RFC 7677, section 3, with PostgreSQL's empty user name left as the RFC has it.
    #[test]
    fn the_proof_of_the_rfc() {
        let salt = BASE64.decode("W22ZaJ0SNY7soEsUEjb6gQ==").unwrap();
        let salted = salted_password("pencil", &salt, 4096);
        let signed = "n=user,r=rOprNGfwEbeRWgbNEkqO,\
                      r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096,\
                      c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0";
        let signature = keyed(&keyed(&salted, b"Server Key"), signed.as_bytes());
        assert_eq!(BASE64.encode(signature), "6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=");
    }

    #[test]
    fn a_nonce_that_is_not_ours_is_refused() {
        let scram = Scram::new().unwrap();
        assert!(scram.last("x", "r=abc,s=AAAA,i=4096").is_err());
    }
}
