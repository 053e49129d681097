//! The messages of a login, both directions. They carry the mechanisms' bytes and know nothing of what those prove.
//!
//! Reached through `backend` (what a server asks) and `frontend` (what a client answers).

use bytes::Bytes;

use super::codec::{Fields, message, put_text, put_value};
use super::frame::Malformed;
use super::tag::{backend, frontend};

/// AuthenticationOk.
const OK: u32 = 0;
/// AuthenticationCleartextPassword.
const CLEARTEXT: u32 = 3;
/// AuthenticationMD5Password.
const MD5: u32 = 5;
/// AuthenticationSASL.
const SASL: u32 = 10;
/// AuthenticationSASLContinue.
const SASL_CONTINUE: u32 = 11;
/// AuthenticationSASLFinal.
const SASL_FINAL: u32 = 12;

/// What a server asks of the one who logs in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Authentication<'a> {
    /// Nothing more: the login has succeeded.
    Ok,
    /// The password itself.
    Cleartext,
    /// The password, hashed with this salt.
    Md5([u8; 4]),
    /// A SASL exchange by one of these mechanisms, the server's favourite first.
    Sasl(Vec<&'a str>),
    /// The next step of the exchange.
    SaslContinue(&'a [u8]),
    /// The last word of the exchange, before `Ok`.
    SaslFinal(&'a [u8]),
    /// A method that is not spoken here (Kerberos, GSSAPI, SSPI and whatever comes after them), by its number.
    Other(u32),
}

impl<'a> Authentication<'a> {
    /// Reads the body of an Authentication… message; `None` if it is malformed.
    pub fn parse(body: &'a [u8]) -> Option<Self> {
        let mut fields = Fields::new(body);
        let request = match fields.u32()? {
            OK => Self::Ok,
            CLEARTEXT => Self::Cleartext,
            MD5 => Self::Md5(fields.array()?),
            SASL => {
                let mut mechanisms = Vec::new();
                loop {
                    let mechanism = fields.text()?;
                    if mechanism.is_empty() {
                        break;
                    }
                    mechanisms.push(str::from_utf8(mechanism).ok()?);
                }
                Self::Sasl(mechanisms)
            }
            SASL_CONTINUE => return Some(Self::SaslContinue(fields.rest())),
            SASL_FINAL => return Some(Self::SaslFinal(fields.rest())),
            other => return Some(Self::Other(other)),
        };
        fields.end()?;
        Some(request)
    }
}

/// AuthenticationOk.
pub fn authentication_ok() -> Bytes {
    Bytes::from_static(b"R\0\0\0\x08\0\0\0\0")
}

/// AuthenticationCleartextPassword.
pub fn authentication_cleartext() -> Bytes {
    Bytes::from_static(b"R\0\0\0\x08\0\0\0\x03")
}

/// AuthenticationMD5Password.
pub fn authentication_md5(salt: [u8; 4]) -> Bytes {
    request(MD5, &salt)
}

/// AuthenticationSASL with the mechanisms on offer, the favourite first.
pub fn authentication_sasl(mechanisms: &[&str]) -> Bytes {
    message(backend::AUTHENTICATION, 4 + 64, |body| {
        body.extend_from_slice(&SASL.to_be_bytes());
        // An empty name would end the list.
        for mechanism in mechanisms.iter().filter(|mechanism| !mechanism.is_empty()) {
            put_text(body, mechanism.as_bytes());
        }
        body.push(0);
    })
}

/// AuthenticationSASLContinue.
pub fn authentication_sasl_continue(data: &[u8]) -> Bytes {
    request(SASL_CONTINUE, data)
}

/// AuthenticationSASLFinal.
pub fn authentication_sasl_final(data: &[u8]) -> Bytes {
    request(SASL_FINAL, data)
}

fn request(kind: u32, data: &[u8]) -> Bytes {
    message(backend::AUTHENTICATION, 4 + data.len(), |body| {
        body.extend_from_slice(&kind.to_be_bytes());
        body.extend_from_slice(data);
    })
}

/// PasswordMessage: the password, or its hash, as text.
pub fn password(password: &[u8]) -> Bytes {
    message(frontend::PASSWORD, password.len() + 1, |body| put_text(body, password))
}

/// SASLInitialResponse: the chosen mechanism and the client's first word.
pub fn sasl_initial(mechanism: &str, data: &[u8]) -> Bytes {
    message(frontend::PASSWORD, mechanism.len() + 1 + 4 + data.len(), |body| {
        put_text(body, mechanism.as_bytes());
        put_value(body, Some(data));
    })
}

/// SASLResponse: the client's next word.
pub fn sasl_response(data: &[u8]) -> Bytes {
    message(frontend::PASSWORD, data.len(), |body| body.extend_from_slice(data))
}

/// The text of a PasswordMessage, without its NUL. It may be empty; PostgreSQL then refuses the login (28P01), not the message.
pub fn password_text(body: &[u8]) -> Result<&[u8], Malformed> {
    let mut fields = Fields::new(body);
    fields.text().and_then(|password| fields.end().map(|()| password)).ok_or(Malformed::Body { tag: frontend::PASSWORD })
}

/// Mechanism and first word of a SASLInitialResponse; without a first word (length -1) it is `None`.
pub fn sasl_initial_fields(body: &[u8]) -> Result<(&[u8], Option<&[u8]>), Malformed> {
    let read = || {
        let mut fields = Fields::new(body);
        let mechanism = fields.text()?;
        let data = fields.value()?;
        fields.end()?;
        Some((mechanism, data))
    };
    read().ok_or(Malformed::Body { tag: frontend::PASSWORD })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::frame::body;

    #[test]
    fn requests_read_back_as_they_were_written() {
        let check = |message: Bytes, expected| assert_eq!(Authentication::parse(body(&message)), Some(expected));
        check(authentication_ok(), Authentication::Ok);
        check(authentication_cleartext(), Authentication::Cleartext);
        check(authentication_md5(*b"\0\x01\x02\x03"), Authentication::Md5(*b"\0\x01\x02\x03"));
        check(
            authentication_sasl(&["SCRAM-SHA-256-PLUS", "SCRAM-SHA-256"]),
            Authentication::Sasl(vec!["SCRAM-SHA-256-PLUS", "SCRAM-SHA-256"]),
        );
        check(authentication_sasl_continue(b"r=x"), Authentication::SaslContinue(b"r=x"));
        check(authentication_sasl_final(b"v=y"), Authentication::SaslFinal(b"v=y"));
    }

    #[test]
    fn malformed_requests_are_refused() {
        for wrong in [
            &b""[..],
            b"\0\0\0",
            b"\0\0\0\0x",
            b"\0\0\0\x03x",
            b"\0\0\0\x05abc",
            b"\0\0\0\x05abcde",
            b"\0\0\0\x0aSCRAM-SHA-256",
            b"\0\0\0\x0aSCRAM-SHA-256\0",
            b"\0\0\0\x0aSCRAM-SHA-256\0\0x",
            b"\0\0\0\x0a\xff\0\0",
        ] {
            assert_eq!(Authentication::parse(wrong), None, "{}", wrong.escape_ascii());
        }
        assert_eq!(Authentication::parse(b"\0\0\0\x07whatever"), Some(Authentication::Other(7)));
    }

    #[test]
    fn answers_read_back_as_they_were_written() {
        assert_eq!(password_text(body(&password(b"secret"))), Ok(&b"secret"[..]));
        assert_eq!(password_text(body(&password(b""))), Ok(&b""[..]));
        assert_eq!(
            sasl_initial_fields(body(&sasl_initial("SCRAM-SHA-256", b"n,,"))),
            Ok((&b"SCRAM-SHA-256"[..], Some(&b"n,,"[..])))
        );
        assert_eq!(sasl_initial_fields(b"X\0\xff\xff\xff\xff"), Ok((&b"X"[..], None)));
        assert_eq!(body(&sasl_response(b"c=biws")), b"c=biws");
    }

    #[test]
    fn malformed_answers_are_refused() {
        let refused = Malformed::Body { tag: b'p' };
        for wrong in [&b""[..], b"secret", b"sec\0ret", b"secret\0x", b"secret\0\0"] {
            assert_eq!(password_text(wrong), Err(refused), "{}", wrong.escape_ascii());
        }
        // The lengths -2, 2 GiB - 1 and one too many; a length without its word; bytes behind the word.
        for wrong in
            [&b"X\0\xff\xff\xff\xfe"[..], b"X\0\x7f\xff\xff\xffab", b"X\0\0\0\0\x03ab", b"X\0\0\0\0", b"X\0\0\0\0\x01ab", b"X"]
        {
            assert_eq!(sasl_initial_fields(wrong), Err(refused), "{}", wrong.escape_ascii());
        }
    }
}
