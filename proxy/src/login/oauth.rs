//! OAUTHBEARER (RFC 7628), as PostgreSQL 18 speaks it: the client's first message carries a token.

use super::refusal::Refusal;
use crate::observe::LoginOutcome;
use crate::wire::SqlState;

/// The mechanism's name.
pub(super) const MECHANISM: &str = "OAUTHBEARER";
/// What parts the pairs of a message, and all that a client answers to an error.
pub(super) const SEPARATOR: u8 = 0x01;

/// The token of the client's first message; `None` if it only asks where it could get one.
///
/// # Errors
/// 08P01 if the message is malformed, 0A000 if it asks for what PostgreSQL does not have either.
pub(super) fn token(message: &[u8]) -> Result<Option<&[u8]>, Refusal> {
    let malformed = |detail| Refusal::malformed("malformed OAUTHBEARER message").with_detail(detail);
    let rest = match message {
        [b'n' | b'y', b',', rest @ ..] => rest,
        [b'p', ..] => {
            return Err(malformed(
                "The server does not support channel binding for OAuth, but the client message includes channel binding data.",
            ));
        }
        _ => return Err(malformed("Unexpected channel-binding flag.")),
    };
    let pairs = match rest {
        [b',', SEPARATOR, pairs @ ..] => pairs,
        [b'a', ..] => {
            let what = "client uses authorization identity, but it is not supported";
            return Err(Refusal::new(LoginOutcome::Unsupported, SqlState::FEATURE_NOT_SUPPORTED, what));
        }
        _ => return Err(malformed("Key-value separator expected.")),
    };
    let mut authorization = None;
    let mut rest = pairs;
    while rest != [SEPARATOR] {
        let end = rest
            .iter()
            .position(|byte| *byte == SEPARATOR)
            .ok_or_else(|| malformed("Message did not contain a final terminator."))?;
        let (pair, behind) = (&rest[..end], &rest[end + 1..]);
        let equals =
            pair.iter().position(|byte| *byte == b'=').ok_or_else(|| malformed("Message contains a key without a value."))?;
        if equals == 0 {
            return Err(malformed("Message contains an empty key name."));
        }
        if &pair[..equals] == b"auth" && authorization.replace(&pair[equals + 1..]).is_some() {
            return Err(malformed("Message contains multiple auth values."));
        }
        rest = behind;
    }
    let authorization = authorization.ok_or_else(|| malformed("Message does not contain an auth value."))?;
    if authorization.is_empty() {
        return Ok(None);
    }
    // Schemes are compared without regard to case (RFC 7235).
    let (scheme, token) = authorization.split_at_checked("Bearer ".len()).unwrap_or((authorization, b""));
    let token = token.trim_ascii_start();
    let is_token = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._~+/=".contains(byte);
    if !scheme.eq_ignore_ascii_case(b"Bearer ") || token.is_empty() || !token.iter().all(is_token) {
        return Err(malformed("Bearer token is malformed."));
    }
    Ok(Some(token))
}

/// What a client is told whose token is not good: why in RFC 6750's words, and who gives good ones.
pub(super) fn error(issuer: Option<&str>) -> Vec<u8> {
    let mut error = serde_json::Map::new();
    error.insert("status".to_owned(), "invalid_token".into());
    if let Some(issuer) = issuer {
        let place = format!("{}/.well-known/openid-configuration", issuer.trim_end_matches('/'));
        error.insert("openid-configuration".to_owned(), place.into());
    }
    serde_json::Value::Object(error).to_string().into_bytes()
}
