//! What a server sends: encoders, because the proxy answers clients itself, and decoders of the few bodies that it must read.
//!
//! Rows are never read here; a body is a message without its tag and length. A decoder answers `None` for a body that is not
//! what the protocol says, and the caller gives that backend up.

use bytes::Bytes;

use super::codec::{Fields, message, put_text, put_value};
use super::frame::Malformed;
use super::tag::backend as tag;

pub use super::authentication::{
    Authentication, authentication_cleartext, authentication_md5, authentication_ok, authentication_sasl,
    authentication_sasl_continue, authentication_sasl_final,
};

/// The OID of the type `text`.
const TEXT_OID: u32 = 25;
/// How short and long a cancellation key may be ("BackendKeyData"; it is four bytes before protocol 3.2).
const CANCEL_KEY_BYTES: std::ops::RangeInclusive<usize> = 4..=256;

/// Where a session stands, as ReadyForQuery says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TransactionStatus {
    /// `I`: in no transaction block.
    Idle,
    /// `T`: in a transaction block.
    InTransaction,
    /// `E`: in a transaction block that has failed; statements are refused until it ends.
    Failed,
}

impl TransactionStatus {
    /// The byte of ReadyForQuery.
    pub fn as_byte(self) -> u8 {
        match self {
            Self::Idle => b'I',
            Self::InTransaction => b'T',
            Self::Failed => b'E',
        }
    }
}

impl TryFrom<u8> for TransactionStatus {
    type Error = Malformed;

    fn try_from(byte: u8) -> Result<Self, Malformed> {
        match byte {
            b'I' => Ok(Self::Idle),
            b'T' => Ok(Self::InTransaction),
            b'E' => Ok(Self::Failed),
            _ => Err(Malformed::Body { tag: tag::READY_FOR_QUERY }),
        }
    }
}

/// ParameterStatus.
pub fn parameter_status(name: &str, value: &str) -> Bytes {
    message(tag::PARAMETER_STATUS, name.len() + value.len() + 2, |body| {
        put_text(body, name.as_bytes());
        put_text(body, value.as_bytes());
    })
}

/// BackendKeyData: what the client repeats in a CancelRequest.
pub fn backend_key_data(process_id: u32, secret: &[u8]) -> Bytes {
    message(tag::BACKEND_KEY_DATA, 4 + secret.len(), |body| {
        body.extend_from_slice(&process_id.to_be_bytes());
        body.extend_from_slice(secret);
    })
}

/// ReadyForQuery.
pub fn ready_for_query(status: TransactionStatus) -> Bytes {
    Bytes::from_static(match status {
        TransactionStatus::Idle => b"Z\0\0\0\x05I",
        TransactionStatus::InTransaction => b"Z\0\0\0\x05T",
        TransactionStatus::Failed => b"Z\0\0\0\x05E",
    })
}

/// CommandComplete with a command tag such as `SET` or `SELECT 1`.
pub fn command_complete(command: &str) -> Bytes {
    message(tag::COMMAND_COMPLETE, command.len() + 1, |body| put_text(body, command.as_bytes()))
}

/// EmptyQueryResponse.
pub fn empty_query_response() -> Bytes {
    Bytes::from_static(b"I\0\0\0\x04")
}

/// ParseComplete.
pub fn parse_complete() -> Bytes {
    Bytes::from_static(b"1\0\0\0\x04")
}

/// BindComplete.
pub fn bind_complete() -> Bytes {
    Bytes::from_static(b"2\0\0\0\x04")
}

/// CloseComplete.
pub fn close_complete() -> Bytes {
    Bytes::from_static(b"3\0\0\0\x04")
}

/// NoData.
pub fn no_data() -> Bytes {
    Bytes::from_static(b"n\0\0\0\x04")
}

/// PortalSuspended.
pub fn portal_suspended() -> Bytes {
    Bytes::from_static(b"s\0\0\0\x04")
}

/// ParameterDescription of a statement without parameters.
pub fn parameter_description_empty() -> Bytes {
    Bytes::from_static(b"t\0\0\0\x06\0\0")
}

/// RowDescription of one column of type `text` that belongs to no table. `format` is 0 for text, 1 for binary.
pub fn row_description_text(column: &str, format: i16) -> Bytes {
    message(tag::ROW_DESCRIPTION, column.len() + 21, |body| {
        body.extend_from_slice(&1_u16.to_be_bytes());
        put_text(body, column.as_bytes());
        body.extend_from_slice(&0_u32.to_be_bytes()); // no table
        body.extend_from_slice(&0_u16.to_be_bytes()); // no column of a table
        body.extend_from_slice(&TEXT_OID.to_be_bytes());
        body.extend_from_slice(&(-1_i16).to_be_bytes()); // of variable length
        body.extend_from_slice(&(-1_i32).to_be_bytes()); // no type modifier
        body.extend_from_slice(&format.to_be_bytes());
    })
}

/// DataRow of one column; `None` is NULL. The bytes of a `text` are the same in both formats.
pub fn data_row_text(value: Option<&str>) -> Bytes {
    message(tag::DATA_ROW, 6 + value.map_or(0, str::len), |body| {
        body.extend_from_slice(&1_u16.to_be_bytes());
        put_value(body, value.map(str::as_bytes));
    })
}

/// The status that a ReadyForQuery carries.
pub fn ready_for_query_status(body: &[u8]) -> Option<TransactionStatus> {
    match body {
        [status] => (*status).try_into().ok(),
        _ => None,
    }
}

/// Name and value of a ParameterStatus.
pub fn parameter_status_fields(body: &[u8]) -> Option<(&[u8], &[u8])> {
    let mut fields = Fields::new(body);
    let name = fields.text()?;
    let value = fields.text()?;
    fields.end()?;
    Some((name, value))
}

/// Name and type (OID, size and modifier, as they stand there) of the columns of a RowDescription.
pub fn row_description_columns(body: &[u8]) -> Option<Vec<(&[u8], &[u8])>> {
    let mut fields = Fields::new(body);
    let count = usize::from(fields.u16()?);
    let mut columns = Vec::new();
    for _ in 0..count {
        let name = fields.text()?;
        // Between them stand the table and the column that it comes from, and behind them the format.
        fields.bytes(6)?;
        columns.push((name, fields.bytes(10)?));
        fields.bytes(2)?;
    }
    Some(columns)
}

/// The values of a DataRow; `None` is NULL.
pub fn data_row_values(body: &[u8]) -> Option<Vec<Option<&[u8]>>> {
    let mut fields = Fields::new(body);
    let count = usize::from(fields.u16()?);
    let mut values = Vec::new();
    for _ in 0..count {
        values.push(match fields.u32()? {
            u32::MAX => None,
            length => Some(fields.bytes(usize::try_from(length).ok()?)?),
        });
    }
    fields.end()?;
    Some(values)
}

/// The command tag of a CommandComplete.
pub fn command_complete_tag(body: &[u8]) -> Option<&[u8]> {
    let mut fields = Fields::new(body);
    let command = fields.text()?;
    fields.end()?;
    Some(command)
}

/// Process ID and secret of a BackendKeyData.
pub fn backend_key_data_fields(body: &[u8]) -> Option<(u32, &[u8])> {
    let mut fields = Fields::new(body);
    let process_id = fields.u32()?;
    let secret = fields.rest();
    CANCEL_KEY_BYTES.contains(&secret.len()).then_some((process_id, secret))
}

#[cfg(test)]
mod tests {
    use expect_test::expect;
    use proptest::prelude::*;

    use super::*;
    use crate::wire::frame::body;

    #[test]
    fn messages_are_those_of_the_protocol() {
        let mut text = String::new();
        for message in [
            parameter_status("TimeZone", "UTC"),
            backend_key_data(1, b"abcd"),
            command_complete("SELECT 1"),
            row_description_text("helios.region", 1),
            data_row_text(Some("eu-west")),
            data_row_text(None),
        ] {
            text += &format!("{}\n", message.escape_ascii());
        }
        expect![[r#"
            S\x00\x00\x00\x11TimeZone\x00UTC\x00
            K\x00\x00\x00\x0c\x00\x00\x00\x01abcd
            C\x00\x00\x00\rSELECT 1\x00
            T\x00\x00\x00&\x00\x01helios.region\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x19\xff\xff\xff\xff\xff\xff\x00\x01
            D\x00\x00\x00\x11\x00\x01\x00\x00\x00\x07eu-west
            D\x00\x00\x00\n\x00\x01\xff\xff\xff\xff
        "#]]
        .assert_eq(&text);
    }

    #[test]
    fn a_status_is_one_of_three_bytes() {
        for status in [TransactionStatus::Idle, TransactionStatus::InTransaction, TransactionStatus::Failed] {
            assert_eq!(ready_for_query_status(body(&ready_for_query(status))), Some(status));
        }
        for wrong in [&b""[..], b"i", b"II", b"\0"] {
            assert_eq!(ready_for_query_status(wrong), None);
        }
    }

    #[test]
    fn bodies_are_taken_whole_or_not_at_all() {
        assert_eq!(parameter_status_fields(b"a\0b\0"), Some((&b"a"[..], &b"b"[..])));
        for wrong in [&b""[..], b"a", b"a\0", b"a\0b", b"a\0b\0c"] {
            assert_eq!(parameter_status_fields(wrong), None);
        }
        assert_eq!(command_complete_tag(b"SET\0"), Some(&b"SET"[..]));
        for wrong in [&b""[..], b"SET", b"SET\0x", b"SET\0\0"] {
            assert_eq!(command_complete_tag(wrong), None);
        }
        assert_eq!(backend_key_data_fields(b"\0\0\0\x07abcd"), Some((7, &b"abcd"[..])));
        assert_eq!(backend_key_data_fields(&[1; 4 + 256]), Some((0x0101_0101, &[1; 256][..])));
        for wrong in [&b""[..], b"\0\0\0", b"\0\0\0\x07abc", &[1; 4 + 257]] {
            assert_eq!(backend_key_data_fields(wrong), None);
        }
    }

    proptest! {
        #[test]
        fn what_is_written_reads_back(
            name in "[^\0]{0,70}",
            value in "[^\0]{0,200}",
            process_id in any::<u32>(),
            secret in prop::collection::vec(any::<u8>(), 4..=256),
        ) {
            let message = parameter_status(&name, &value);
            prop_assert_eq!(parameter_status_fields(body(&message)), Some((name.as_bytes(), value.as_bytes())));
            let message = command_complete(&name);
            prop_assert_eq!(command_complete_tag(body(&message)), Some(name.as_bytes()));
            let message = backend_key_data(process_id, &secret);
            prop_assert_eq!(backend_key_data_fields(body(&message)), Some((process_id, &secret[..])));
        }
    }
}
