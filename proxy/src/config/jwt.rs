//! `[auth.jwt]`: whose tokens are good, and what they are read for.

use std::fmt;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::Duration;

use jsonwebtoken::{Algorithm, DecodingKey};

use super::auth::text_of;
use super::document::Section;
use super::mistake::Findings;

/// How far clocks may be apart.
const LEEWAY: RangeInclusive<Duration> = Duration::ZERO..=Duration::from_secs(600);
const BEGIN: &str = "-----BEGIN PUBLIC KEY-----";
const END: &str = "-----END PUBLIC KEY-----";

/// How tokens are checked.
#[derive(Clone, Debug)]
pub struct Jwt {
    /// The file of the keys.
    pub path: PathBuf,
    /// One of them must have signed a token.
    pub keys: Vec<JwtKey>,
    /// Whom a token must be for (`aud`).
    pub audience: String,
    /// Whom it must be from (`iss`), if that is asked.
    pub issuer: Option<String>,
    /// The claim that is the user.
    pub user_claim: String,
    /// The claim that is the regions, if tokens grant any.
    pub regions_claim: Option<String>,
    /// How far clocks may be apart.
    pub leeway: Duration,
}

impl Jwt {
    /// What stands in for a section that is wrong: no token is good.
    pub(super) fn stand_in() -> Self {
        Self {
            path: PathBuf::new(),
            keys: Vec::new(),
            audience: String::new(),
            issuer: None,
            user_claim: String::new(),
            regions_claim: Some(String::new()),
            leeway: Duration::ZERO,
        }
    }
}

/// A public key, and the one algorithm that it is for.
#[derive(Clone)]
pub struct JwtKey {
    /// RS256 or ES256.
    pub algorithm: Algorithm,
    /// The key.
    pub key: DecodingKey,
}

impl fmt::Debug for JwtKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "JwtKey({:?})", self.algorithm)
    }
}

/// Reads the section. Where it is wrong, which has been reported then, what stands in for it asks for nothing more to be reported.
pub(super) fn read(section: &Section<'_>) -> Jwt {
    let text = |key: &'static str| section.entry(key).and_then(|entry| entry.text()).map(str::to_owned);
    let keys = section.required("keys", "\"jwt.pem\"", |entry| {
        let (path, text) = text_of(entry)?;
        let keys = keys(&path, &text, entry.document.findings);
        if keys.is_empty() {
            entry.mistake(format!("{}: {} has no \"{BEGIN}\"", entry.name, path.display()));
        }
        Some((path, keys))
    });
    let audience = section.required("audience", "\"domicile\"", |entry| entry.text().map(str::to_owned));
    let (issuer, user_claim, regions_claim) = (text("issuer"), text("user_claim"), text("regions_claim"));
    let leeway = section.entry("leeway").and_then(|entry| entry.duration(LEEWAY)).unwrap_or(Duration::from_secs(30));
    let user_claim = user_claim.unwrap_or_else(|| "sub".to_owned());
    let regions_claim = if keys.is_some() && audience.is_some() { regions_claim } else { Jwt::stand_in().regions_claim };
    let ((path, keys), audience) = (keys.unwrap_or_default(), audience.unwrap_or_default());
    Jwt { path, keys, audience, issuer, user_claim, regions_claim, leeway }
}

/// The public keys of a file in PEM. What stands between them is a comment.
fn keys(path: &Path, text: &str, findings: &Findings) -> Vec<JwtKey> {
    let mut keys = Vec::new();
    for (at, _) in text.match_indices(BEGIN) {
        let line = 1 + text[..at].matches('\n').count();
        let block = text[at..].split_inclusive(END).next().unwrap_or_default().as_bytes();
        let rsa = || DecodingKey::from_rsa_pem(block).map(|key| JwtKey { algorithm: Algorithm::RS256, key });
        let ec = || DecodingKey::from_ec_pem(block).map(|key| JwtKey { algorithm: Algorithm::ES256, key });
        match rsa().or_else(|_| ec()) {
            Ok(key) => keys.push(key),
            Err(_) => findings.mistake(path, Some(line), "this is no public key of RSA, nor of the curve P-256"),
        }
    }
    keys
}
