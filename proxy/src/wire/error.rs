//! ErrorResponse and NoticeResponse: what goes wrong, told in fields that each begin with a letter.
//!
//! Written with the few fields that the proxy has something to say in, always in the same order; read for the three that it
//! acts on. Which text a client may see is not decided here.

use bytes::Bytes;

use super::codec::{Fields, message, put_text};
use super::sqlstate::SqlState;
use super::tag::backend as tag;

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    /// The statement failed; the session goes on.
    Error,
    /// The session ends.
    Fatal,
    /// All sessions of the server end.
    Panic,
    /// Likely to be a mistake.
    Warning,
    /// Worth knowing.
    Notice,
    /// For those who look for a fault.
    Debug,
    /// What the client has asked to be told.
    Info,
    /// What is otherwise only logged.
    Log,
}

impl Severity {
    /// The word on the wire, which is never translated here.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Error => "ERROR",
            Self::Fatal => "FATAL",
            Self::Panic => "PANIC",
            Self::Warning => "WARNING",
            Self::Notice => "NOTICE",
            Self::Debug => "DEBUG",
            Self::Info => "INFO",
            Self::Log => "LOG",
        }
    }
}

/// What an ErrorResponse or NoticeResponse of ours says. A NUL in a text is left out on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Report<'a> {
    /// Fields S and V.
    pub severity: Severity,
    /// Field C.
    pub sqlstate: SqlState,
    /// Field M, one line.
    pub message: &'a str,
    /// Field D.
    pub detail: Option<&'a str>,
    /// Field H.
    pub hint: Option<&'a str>,
    /// Field P: the character of the statement's text that the error is at, counted from 1.
    pub position: Option<usize>,
}

/// What is read of an ErrorResponse or NoticeResponse.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ErrorFields {
    /// Field V, which is never translated; else field S.
    pub severity: String,
    /// Field C, if it is a SQLSTATE.
    pub sqlstate: Option<SqlState>,
    /// Field M. Bytes that are no UTF-8 are replaced.
    pub message: String,
}

/// ErrorResponse.
pub fn encode_error(report: &Report<'_>) -> Bytes {
    encode(tag::ERROR_RESPONSE, report)
}

/// NoticeResponse.
pub fn encode_notice(report: &Report<'_>) -> Bytes {
    encode(tag::NOTICE_RESPONSE, report)
}

/// An ErrorResponse whose body is given in parts, which are the caller's to get right.
pub fn error_of_parts(parts: &[&[u8]]) -> Bytes {
    message(tag::ERROR_RESPONSE, parts.iter().map(|part| part.len()).sum(), |body| {
        parts.iter().for_each(|part| body.extend_from_slice(part));
    })
}

fn encode(tag: u8, report: &Report<'_>) -> Bytes {
    let texts = report.message.len() + report.detail.map_or(0, str::len) + report.hint.map_or(0, str::len);
    message(tag, texts + 64, |body| {
        let mut field = |kind: u8, text: &str| {
            body.push(kind);
            put_text(body, text.as_bytes());
        };
        field(b'S', report.severity.as_str());
        field(b'V', report.severity.as_str());
        field(b'C', report.sqlstate.as_str());
        field(b'M', report.message);
        if let Some(detail) = report.detail {
            field(b'D', detail);
        }
        if let Some(hint) = report.hint {
            field(b'H', hint);
        }
        if let Some(position) = report.position {
            field(b'P', &position.to_string());
        }
        body.push(0);
    })
}

/// Reads the body of an ErrorResponse or NoticeResponse. `None` if it is malformed or lacks severity or message, which the
/// protocol says are always there. Fields with other letters are skipped, as the protocol asks.
pub fn parse_error(body: &[u8]) -> Option<ErrorFields> {
    let mut fields = Fields::new(body);
    let (mut severity, mut localized_severity, mut sqlstate, mut message) = (None, None, None, None);
    loop {
        match fields.u8()? {
            0 => break,
            b'V' => severity = Some(fields.text()?),
            b'S' => localized_severity = Some(fields.text()?),
            b'C' => sqlstate = SqlState::from_bytes(fields.text()?),
            b'M' => message = Some(fields.text()?),
            _ => {
                fields.text()?;
            }
        }
    }
    fields.end()?;
    let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
    Some(ErrorFields { severity: text(severity.or(localized_severity)?), sqlstate, message: text(message?) })
}

/// The SQLSTATE (field C) of an ErrorResponse or NoticeResponse of which `body` is the beginning; severity and SQLSTATE come first.
pub fn sqlstate_of(body: &[u8]) -> Option<SqlState> {
    let mut fields = Fields::new(body);
    loop {
        match fields.u8()? {
            0 => return None,
            b'C' => return SqlState::from_bytes(fields.text()?),
            _ => {
                fields.text()?;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;
    use crate::wire::frame::body;

    const PLAIN: Report<'static> = Report {
        severity: Severity::Error,
        sqlstate: SqlState::SYNTAX_ERROR_OR_ACCESS_RULE_VIOLATION,
        message: "Query blocked",
        detail: None,
        hint: None,
        position: None,
    };

    #[test]
    fn fields_stand_in_one_order() {
        let full =
            Report { severity: Severity::Fatal, detail: Some("why"), hint: Some("what to do"), position: Some(8), ..PLAIN };
        expect![[r#"E\x00\x00\x00)SERROR\x00VERROR\x00C42000\x00MQuery blocked\x00\x00"#]]
            .assert_eq(&encode_error(&PLAIN).escape_ascii().to_string());
        expect![[r#"N\x00\x00\x00=SFATAL\x00VFATAL\x00C42000\x00MQuery blocked\x00Dwhy\x00Hwhat to do\x00P8\x00\x00"#]]
            .assert_eq(&encode_notice(&full).escape_ascii().to_string());
    }

    #[test]
    fn a_text_can_not_forge_a_field() {
        let report = Report { message: "x\0C00000\0\0", ..PLAIN };
        let fields = parse_error(body(&encode_error(&report)));
        let expected = ErrorFields { severity: "ERROR".into(), sqlstate: Some(report.sqlstate), message: "xC00000".into() };
        assert_eq!(fields, Some(expected));
    }

    #[test]
    fn servers_may_say_more_or_less() {
        let fields = parse_error(b"SFEHLER\0VERROR\0C08P01\0Mm\xfc\0Wsome context\0Fpostgres.c\0L1\0\0");
        let expected =
            ErrorFields { severity: "ERROR".into(), sqlstate: Some(SqlState::PROTOCOL_VIOLATION), message: "m\u{fffd}".into() };
        assert_eq!(fields, Some(expected));
        let fields = parse_error(b"SFATAL\0Mno\0Cwhat\0\0");
        assert_eq!(fields, Some(ErrorFields { severity: "FATAL".into(), sqlstate: None, message: "no".into() }));
    }

    #[test]
    fn the_beginning_of_an_error_tells_its_sqlstate() {
        let body = b"SFEHLER\0VERROR\0C22001\0Mtoo long";
        for end in 0..body.len() {
            let expected = (end >= 22).then_some(SqlState::from_bytes(b"22001").unwrap());
            assert_eq!(sqlstate_of(&body[..end]), expected, "{end}");
        }
        assert_eq!(sqlstate_of(b"SERROR\0Mno\0\0C22001\0"), None);
        assert_eq!(sqlstate_of(b"SERROR\0Cwhat\0"), None);
    }

    #[test]
    fn malformed_bodies_are_refused() {
        for wrong in [&b""[..], b"\0", b"SERROR\0", b"SERROR\0Mx\0", b"SERROR\0Mx", b"SERROR\0Mx\0\0x", b"SERROR\0\0", b"Mx\0\0"]
        {
            assert_eq!(parse_error(wrong), None, "{}", wrong.escape_ascii());
        }
    }
}
