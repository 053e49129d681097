//! A token in place of a password: who has signed it, whom it is for, whether it is still good, and what it claims (RFC 7519).
//!
//! Nothing of a token goes into a log, an error or a record; why one is refused is said in words of our own.

use std::collections::BTreeMap;

use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{Algorithm, Validation, decode, decode_header};
use serde_json::{Map, Value};

use crate::config::Jwt;
use crate::policy::Claims;

const MALFORMED: &str = "the token is malformed";
const OTHER_ALGORITHM: &str = "the token is signed by no algorithm that a key is for";
const OTHER_SIGNER: &str = "the token is not signed by any of the keys";
const EXPIRED: &str = "the token has expired";
const IMMATURE: &str = "the token is not good yet";
const OTHER_AUDIENCE: &str = "the token is for somebody else (aud)";
const OTHER_ISSUER: &str = "the token is from somebody else (iss)";
const INCOMPLETE: &str = "the token lacks exp, aud or iss";
const OTHER_USER: &str = "the token is of another user";
const NO_REGIONS: &str = "the token does not say regions";

/// What a good token claims that names somebody who `is_user`.
///
/// # Errors
/// Why it is not good, for the log.
pub(super) fn check(jwt: &Jwt, token: &[u8], is_user: impl Fn(&str) -> bool) -> Result<Claims, &'static str> {
    let token = std::str::from_utf8(token).map_err(|_| MALFORMED)?;
    let algorithm = decode_header(token).map_err(|error| why(error.kind()))?.alg;
    let validation = validation(jwt, algorithm);
    let mut refusal = OTHER_ALGORITHM;
    for key in jwt.keys.iter().filter(|key| key.algorithm == algorithm) {
        match decode::<Map<String, Value>>(token, &key.key, &validation) {
            Ok(found) => return claims(jwt, found.claims, is_user),
            // Another key may be the one. What is said of a token that one has signed is the truth about it.
            Err(error) if matches!(error.kind(), ErrorKind::InvalidSignature) => refusal = OTHER_SIGNER,
            Err(error) => return Err(why(error.kind())),
        }
    }
    Err(refusal)
}

fn validation(jwt: &Jwt, algorithm: Algorithm) -> Validation {
    let mut validation = Validation::new(algorithm);
    validation.leeway = jwt.leeway.as_secs();
    validation.validate_nbf = true;
    validation.set_audience(&[&jwt.audience]);
    let mut required = vec!["exp", "aud"];
    if let Some(issuer) = &jwt.issuer {
        validation.set_issuer(&[issuer]);
        required.push("iss");
    }
    validation.set_required_spec_claims(&required);
    validation
}

fn claims(jwt: &Jwt, claims: Map<String, Value>, is_user: impl Fn(&str) -> bool) -> Result<Claims, &'static str> {
    let texts: BTreeMap<String, Vec<String>> =
        claims.into_iter().filter_map(|(name, value)| Some((name, texts(value)?))).collect();
    // A list of users is no user.
    match texts.get(&jwt.user_claim).map(Vec::as_slice) {
        Some([only]) if is_user(only) => {}
        Some(_) | None => return Err(OTHER_USER),
    }
    let regions = match &jwt.regions_claim {
        Some(name) => Some(texts.get(name).cloned().ok_or(NO_REGIONS)?),
        None => None,
    };
    Ok(Claims { regions, texts })
}

/// A text, or a list of texts and nothing else.
fn texts(value: Value) -> Option<Vec<String>> {
    match value {
        Value::String(text) => Some(vec![text]),
        Value::Array(values) => values.into_iter().map(|value| value.as_str().map(str::to_owned)).collect(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_) => None,
    }
}

fn why(kind: &ErrorKind) -> &'static str {
    match kind {
        ErrorKind::InvalidSignature => OTHER_SIGNER,
        ErrorKind::ExpiredSignature => EXPIRED,
        ErrorKind::ImmatureSignature => IMMATURE,
        ErrorKind::InvalidAudience => OTHER_AUDIENCE,
        ErrorKind::InvalidIssuer => OTHER_ISSUER,
        ErrorKind::MissingRequiredClaim(_) => INCOMPLETE,
        ErrorKind::InvalidAlgorithm => OTHER_ALGORITHM,
        _ => MALFORMED,
    }
}
