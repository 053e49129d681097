//! What a client sends: decoders, because decisions are made about it, and encoders, because the proxy talks to backends itself.
//!
//! A body is a message without its tag and length. A decoder refuses what PostgreSQL refuses with 08P01, so that nothing hides
//! behind a NUL and no count disagrees with what the server would count. Names and texts are bytes: their encoding is the
//! client's, and only the bytes are compared.

use bytes::{BufMut, Bytes, BytesMut};
use smallvec::SmallVec;

use super::codec::{Fields, length_word, message, put_text, put_value};
use super::frame::Malformed;
use super::tag::frontend as tag;

pub use super::authentication::{password, password_text, sasl_initial, sasl_initial_fields, sasl_response};

/// What a Describe or Close is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// A prepared statement.
    Statement,
    /// A portal.
    Portal,
}

impl Target {
    fn as_byte(self) -> u8 {
        match self {
            Self::Statement => b'S',
            Self::Portal => b'P',
        }
    }
}

/// The fields of a Parse.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ParseFields<'a> {
    /// The prepared statement; empty for the unnamed one.
    pub name: &'a [u8],
    /// The statement, without its NUL.
    pub text: &'a [u8],
    /// OIDs of the parameter types, as many as the message says, each in network order; zero leaves the type open.
    pub types: &'a [[u8; 4]],
}

/// The names at the head of a Bind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BindNames<'a> {
    /// The portal; empty for the unnamed one.
    pub portal: &'a [u8],
    /// The prepared statement; empty for the unnamed one.
    pub statement: &'a [u8],
    /// Bytes of the body that the two names take, their NULs included.
    pub len: usize,
}

/// The fields of a Bind, the values of its parameters left out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BindFields<'a> {
    /// The portal; empty for the unnamed one.
    pub portal: &'a [u8],
    /// The prepared statement; empty for the unnamed one.
    pub statement: &'a [u8],
    /// How many parameters have a value (NULL is one).
    pub parameters: usize,
    /// The formats asked for: none (all columns as text), one for all columns, or one a column. Not checked to be 0 or 1.
    pub result_formats: SmallVec<[i16; 4]>,
}

/// The text of a Query: one NUL, at its end.
pub fn query_text(body: &[u8]) -> Result<&[u8], Malformed> {
    match memchr::memchr(0, body) {
        Some(end) if end + 1 == body.len() => body.get(..end).ok_or(Malformed::Body { tag: tag::QUERY }),
        _ => Err(Malformed::Body { tag: tag::QUERY }),
    }
}

/// The fields of a Parse.
pub fn parse_fields(body: &[u8]) -> Result<ParseFields<'_>, Malformed> {
    decode(tag::PARSE, body, |mut fields| {
        let name = fields.text()?;
        let text = fields.text()?;
        let count = usize::from(fields.u16()?);
        let (types, []) = fields.rest().as_chunks() else { return None };
        (types.len() == count).then_some(ParseFields { name, text, types })
    })
}

/// The names at the head of a Bind, from the first bytes of its body. `None`: the NUL of the second one is not there (yet).
pub fn bind_names(prefix: &[u8]) -> Option<BindNames<'_>> {
    let mut fields = Fields::new(prefix);
    let portal = fields.text()?;
    let statement = fields.text()?;
    Some(BindNames { portal, statement, len: portal.len() + statement.len() + 2 })
}

/// The fields of a whole Bind, every count checked against what is there. The parameter formats must be none, one, or one a parameter.
pub fn bind_counts(body: &[u8]) -> Result<BindFields<'_>, Malformed> {
    decode(tag::BIND, body, |mut fields| {
        let portal = fields.text()?;
        let statement = fields.text()?;
        let formats = usize::from(fields.u16()?);
        fields.bytes(2 * formats)?;
        let parameters = usize::from(fields.u16()?);
        if formats > 1 && formats != parameters {
            return None;
        }
        for _ in 0..parameters {
            fields.value()?;
        }
        let count = usize::from(fields.u16()?);
        let (formats, []) = fields.rest().as_chunks() else { return None };
        let result_formats: SmallVec<[i16; 4]> = formats.iter().map(|format| i16::from_be_bytes(*format)).collect();
        (result_formats.len() == count).then_some(BindFields { portal, statement, parameters, result_formats })
    })
}

/// What a Describe is about, and its name.
pub fn describe_fields(body: &[u8]) -> Result<(Target, &[u8]), Malformed> {
    decode(tag::DESCRIBE, body, target_fields)
}

/// What a Close is about, and its name.
pub fn close_fields(body: &[u8]) -> Result<(Target, &[u8]), Malformed> {
    decode(tag::CLOSE, body, target_fields)
}

/// The portal of an Execute and the rows it may return; zero or less: all of them.
pub fn execute_fields(body: &[u8]) -> Result<(&[u8], i32), Malformed> {
    decode(tag::EXECUTE, body, |mut fields| {
        let portal = fields.text()?;
        let max_rows = fields.i32()?;
        fields.end()?;
        Some((portal, max_rows))
    })
}

/// Checks the body of a message that has none: Sync, Flush.
pub fn no_fields(tag: u8, body: &[u8]) -> Result<(), Malformed> {
    decode(tag, body, Fields::end)
}

fn target_fields(mut fields: Fields<'_>) -> Option<(Target, &[u8])> {
    let target = match fields.u8()? {
        b'S' => Target::Statement,
        b'P' => Target::Portal,
        _ => return None,
    };
    let name = fields.text()?;
    fields.end()?;
    Some((target, name))
}

fn decode<'a, T>(tag: u8, body: &'a [u8], read: impl FnOnce(Fields<'a>) -> Option<T>) -> Result<T, Malformed> {
    read(Fields::new(body)).ok_or(Malformed::Body { tag })
}

/// Query.
pub fn query(text: &[u8]) -> Bytes {
    message(tag::QUERY, text.len() + 1, |body| put_text(body, text))
}

/// Parse. `types` are OIDs of parameter types; PostgreSQL finds out those that are missing or zero. At most 65 535 of them are sent.
pub fn parse(name: &[u8], text: &[u8], types: &[u32]) -> Bytes {
    message(tag::PARSE, name.len() + text.len() + 4 + 4 * types.len(), |body| {
        put_text(body, name);
        put_text(body, text);
        let count = u16::try_from(types.len()).unwrap_or(u16::MAX);
        body.extend_from_slice(&count.to_be_bytes());
        for oid in types.iter().take(usize::from(count)) {
            body.extend_from_slice(&oid.to_be_bytes());
        }
    })
}

/// Parse with a body that another one had behind its name.
pub fn parse_definition(name: &[u8], definition: &[u8]) -> Bytes {
    message(tag::PARSE, name.len() + 1 + definition.len(), |body| {
        put_text(body, name);
        body.extend_from_slice(definition);
    })
}

/// The beginning of a Bind whose body has `len` bytes in all: header and names. What follows the names is the caller's.
pub fn bind_head(into: &mut BytesMut, len: usize, names: &BindNames<'_>) {
    into.reserve(5 + names.portal.len() + names.statement.len() + 2);
    into.put_u8(tag::BIND);
    into.put_slice(&length_word(len + 4));
    for name in [names.portal, names.statement] {
        into.put_slice(name);
        into.put_u8(0);
    }
}

/// Bind without parameters; every column of the result as text.
pub fn bind(portal: &[u8], statement: &[u8]) -> Bytes {
    bind_texts(portal, statement, &[])
}

/// Bind with parameters as text; every column of the result as text.
pub fn bind_texts(portal: &[u8], statement: &[u8], values: &[&[u8]]) -> Bytes {
    let values_bytes: usize = values.iter().map(|value| 4 + value.len()).sum();
    message(tag::BIND, portal.len() + statement.len() + 8 + values_bytes, |body| {
        put_text(body, portal);
        put_text(body, statement);
        body.extend_from_slice(&[0; 2]); // no parameter formats: all are texts
        let count = u16::try_from(values.len()).unwrap_or(u16::MAX);
        body.extend_from_slice(&count.to_be_bytes());
        values.iter().take(usize::from(count)).for_each(|value| put_value(body, Some(value)));
        body.extend_from_slice(&[0; 2]); // no result formats
    })
}

/// Describe of a prepared statement.
pub fn describe_statement(name: &[u8]) -> Bytes {
    about(tag::DESCRIBE, Target::Statement, name)
}

/// Describe of a portal.
pub fn describe_portal(name: &[u8]) -> Bytes {
    about(tag::DESCRIBE, Target::Portal, name)
}

/// Close of a prepared statement.
pub fn close_statement(name: &[u8]) -> Bytes {
    about(tag::CLOSE, Target::Statement, name)
}

/// Close of a portal.
pub fn close_portal(name: &[u8]) -> Bytes {
    about(tag::CLOSE, Target::Portal, name)
}

/// Execute; `max_rows` zero asks for all rows.
pub fn execute(portal: &[u8], max_rows: i32) -> Bytes {
    message(tag::EXECUTE, portal.len() + 5, |body| {
        put_text(body, portal);
        body.extend_from_slice(&max_rows.to_be_bytes());
    })
}

/// Sync.
pub fn sync() -> Bytes {
    Bytes::from_static(b"S\0\0\0\x04")
}

/// Flush.
pub fn flush() -> Bytes {
    Bytes::from_static(b"H\0\0\0\x04")
}

/// Terminate.
pub fn terminate() -> Bytes {
    Bytes::from_static(b"X\0\0\0\x04")
}

fn about(tag: u8, target: Target, name: &[u8]) -> Bytes {
    message(tag, name.len() + 2, |body| {
        body.push(target.as_byte());
        put_text(body, name);
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::wire::frame::body;

    fn refused<T: std::fmt::Debug + PartialEq>(tag: u8, decode: impl Fn(&[u8]) -> Result<T, Malformed>, bodies: &[&[u8]]) {
        for wrong in bodies {
            assert_eq!(decode(wrong), Err(Malformed::Body { tag }), "{}", wrong.escape_ascii());
        }
    }

    #[test]
    fn a_query_ends_with_its_only_nul() {
        assert_eq!(query_text(body(&query(b"SELECT 1"))), Ok(&b"SELECT 1"[..]));
        assert_eq!(query_text(b"\0"), Ok(&b""[..]));
        refused(
            tag::QUERY,
            |body| query_text(body).map(<[u8]>::to_vec),
            &[b"", b"SELECT 1", b"SELECT 1\0DROP TABLE t\0", b"SELECT 1\0\0", b"\0SELECT 1"],
        );
    }

    #[test]
    fn a_parse_has_the_types_it_counts() {
        let message = parse(b"s", b"SELECT $1", &[23, 0]);
        let expected = ParseFields { name: b"s", text: b"SELECT $1", types: &[[0, 0, 0, 23], [0; 4]] };
        assert_eq!(parse_fields(body(&message)), Ok(expected));
        refused(
            tag::PARSE,
            |body| parse_fields(body).map(|fields| fields.types.len()),
            &[
                b"",
                b"s\0",
                b"s\0SELECT 1",
                b"s\0SELECT 1\0",
                b"s\0SELECT 1\0\0",
                b"s\0SELECT 1\0\0\x01",
                b"s\0SELECT 1\0\0\x01\0\0\0",
                b"s\0SELECT 1\0\0\0\0\0\0\0",
                b"s\0SELECT 1\0\0\x01\0\0\0\0x",
                b"s\0SELECT 1\0hidden\0\0\0",
                b"s\0SELECT 1\0\xff\xff\0\0\0\0",
            ],
        );
    }

    #[test]
    fn the_names_of_a_bind_can_be_read_early() {
        let bytes = b"portal\0statement\0\0\x01 and so on";
        for end in 0..17 {
            assert_eq!(bind_names(&bytes[..end]), None);
        }
        for end in 17..=bytes.len() {
            let names = bind_names(&bytes[..end]);
            assert_eq!(names, Some(BindNames { portal: b"portal", statement: b"statement", len: 17 }));
        }
    }

    #[test]
    fn a_bind_has_all_that_it_counts() {
        let fields = |parameters, result_formats: &[i16]| {
            Ok(BindFields { portal: b"p", statement: b"s", parameters, result_formats: result_formats.into() })
        };
        assert_eq!(bind_counts(body(&bind(b"p", b"s"))), fields(0, &[]));
        // One format for both parameters; a value, NULL; two result formats.
        assert_eq!(bind_counts(b"p\0s\0\0\x01\0\x01\0\x02\0\0\0\x01x\xff\xff\xff\xff\0\x02\0\0\0\x01"), fields(2, &[0, 1]));
        // One format for no parameter is allowed.
        assert_eq!(bind_counts(b"p\0s\0\0\x01\0\x01\0\0\0\0"), fields(0, &[]));
        refused(
            tag::BIND,
            |body| bind_counts(body).map(|fields| fields.parameters),
            &[
                b"",
                b"p\0s\0",
                b"p\0s\0\0\0\0\0",
                b"p\0s\0\0\0\0\0\0\0x",
                b"p\0s\0\0\0\0\0\0\x01\0",
                b"p\0s\0\0\0\0\0\0\x02\0\0",
                b"p\0s\0\0\0\0\x01\0\0",                           // no value where one is counted
                b"p\0s\0\0\0\0\x01\xff\xff\xff\xfe\0\0",           // length -2
                b"p\0s\0\0\0\0\x01\x7f\xff\xff\xff\0\0",           // length 2 GiB - 1
                b"p\0s\0\0\x02\0\0\0\0\0\x01\xff\xff\xff\xff\0\0", // two formats, one parameter
                b"p\0s\0\xff\xff\0\0\0\0",
                b"p\0s\0\0\0\xff\xff\0\0",
            ],
        );
    }

    #[test]
    fn describe_close_and_execute_end_with_their_last_field() {
        assert_eq!(describe_fields(body(&describe_statement(b"s"))), Ok((Target::Statement, &b"s"[..])));
        assert_eq!(describe_fields(body(&describe_portal(b""))), Ok((Target::Portal, &b""[..])));
        assert_eq!(close_fields(body(&close_statement(b"\xff"))), Ok((Target::Statement, &b"\xff"[..])));
        assert_eq!(close_fields(body(&close_portal(b"p"))), Ok((Target::Portal, &b"p"[..])));
        let wrong: &[&[u8]] = &[b"", b"S", b"Sname", b"Xname\0", b"sname\0", b"Sname\0x", b"Sname\0\0", b"\0"];
        refused(tag::DESCRIBE, |body| describe_fields(body).map(|(target, _)| target), wrong);
        refused(tag::CLOSE, |body| close_fields(body).map(|(target, _)| target), wrong);
        assert_eq!(execute_fields(body(&execute(b"p", 7))), Ok((&b"p"[..], 7)));
        assert_eq!(execute_fields(b"\0\xff\xff\xff\xff"), Ok((&b""[..], -1)));
        refused(
            tag::EXECUTE,
            |body| execute_fields(body).map(|(_, rows)| rows),
            &[b"", b"p\0", b"p\0\0\0\0", b"p\0\0\0\0\0x", b"pppp"],
        );
    }

    #[test]
    fn a_message_without_fields_has_none() {
        assert_eq!(no_fields(tag::SYNC, body(&sync())), Ok(()));
        assert_eq!(no_fields(tag::FLUSH, body(&flush())), Ok(()));
        assert_eq!(body(&terminate()), b"");
        refused(tag::SYNC, |body| no_fields(tag::SYNC, body), &[b"\0", b"x"]);
    }

    #[test]
    fn a_nul_in_a_text_shifts_nothing() {
        assert_eq!(execute_fields(body(&execute(b"a\0b", 1))), Ok((&b"ab"[..], 1)));
    }

    proptest! {
        #[test]
        fn what_is_written_reads_back(
            name in "[^\0]{0,70}",
            text in "[^\0]{0,200}",
            types in prop::collection::vec(any::<u32>(), 0..20),
            max_rows in any::<i32>(),
        ) {
            let (name, text) = (name.as_bytes(), text.as_bytes());
            let message = query(text);
            prop_assert_eq!(query_text(body(&message)), Ok(text));
            let message = parse(name, text, &types);
            let fields = parse_fields(body(&message)).unwrap();
            prop_assert_eq!((fields.name, fields.text), (name, text));
            prop_assert_eq!(fields.types.iter().map(|oid| u32::from_be_bytes(*oid)).collect::<Vec<_>>(), types);
            let message = bind(name, text);
            let names = bind_names(body(&message)).unwrap();
            prop_assert_eq!((names.portal, names.statement), (name, text));
            let message = execute(name, max_rows);
            prop_assert_eq!(execute_fields(body(&message)), Ok((name, max_rows)));
        }
    }
}
