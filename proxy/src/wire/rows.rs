//! Results that the proxy makes itself: any number of columns, of the few types that they need.
//!
//! A value is a number or a text; how it stands on the wire depends on its column's type and on the format that the client has
//! asked for. Nothing here knows what the columns mean.

use bytes::Bytes;

use super::codec::{message, put_text, put_value};
use super::tag::backend as tag;

/// The type of a column, as PostgreSQL names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ColumnType {
    /// `text`.
    Text,
    /// `int4`.
    Int4,
    /// `int8`.
    Int8,
    /// `numeric`; only whole numbers.
    Numeric,
}

/// A column of a result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Column {
    /// Its name.
    pub name: &'static str,
    /// Its type.
    pub of: ColumnType,
}

/// A value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// NULL.
    Null,
    /// For columns of type `text`.
    Text(Box<str>),
    /// For the others.
    Number(u64),
}

/// How values are written: as their text, or as PostgreSQL's `send` functions do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Format code 0.
    Text,
    /// Format code 1.
    Binary,
}

impl ColumnType {
    /// The OID (pg_type.dat).
    fn oid(self) -> u32 {
        match self {
            Self::Text => 25,
            Self::Int4 => 23,
            Self::Int8 => 20,
            Self::Numeric => 1700,
        }
    }

    /// Bytes of a value; -1 where they differ.
    fn length(self) -> i16 {
        match self {
            Self::Int4 => 4,
            Self::Int8 => 8,
            Self::Text | Self::Numeric => -1,
        }
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Text(text.into())
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Self::Text(text.into())
    }
}

impl From<u64> for Value {
    fn from(number: u64) -> Self {
        Self::Number(number)
    }
}

impl From<u32> for Value {
    fn from(number: u32) -> Self {
        Self::Number(number.into())
    }
}

impl From<usize> for Value {
    fn from(number: usize) -> Self {
        Self::Number(number as u64)
    }
}

impl From<bool> for Value {
    fn from(is_so: bool) -> Self {
        Self::Number(is_so.into())
    }
}

impl<T: Into<Self>> From<Option<T>> for Value {
    fn from(value: Option<T>) -> Self {
        value.map_or(Self::Null, Into::into)
    }
}

/// RowDescription. `format` says how the column of this number will be written.
pub fn row_description(columns: &[Column], format: impl Fn(usize) -> Format) -> Bytes {
    message(tag::ROW_DESCRIPTION, 2 + 32 * columns.len(), |body| {
        body.extend_from_slice(&count(columns.len()));
        for (index, column) in columns.iter().enumerate() {
            put_text(body, column.name.as_bytes());
            body.extend_from_slice(&[0; 6]); // of no table
            body.extend_from_slice(&column.of.oid().to_be_bytes());
            body.extend_from_slice(&column.of.length().to_be_bytes());
            body.extend_from_slice(&(-1_i32).to_be_bytes()); // no type modifier
            let code: i16 = match format(index) {
                Format::Text => 0,
                Format::Binary => 1,
            };
            body.extend_from_slice(&code.to_be_bytes());
        }
    })
}

/// DataRow.
pub fn data_row(columns: &[Column], values: &[Value], format: impl Fn(usize) -> Format) -> Bytes {
    debug_assert_eq!(columns.len(), values.len(), "a row has a value for each column");
    message(tag::DATA_ROW, 2 + 16 * values.len(), |body| {
        body.extend_from_slice(&count(values.len()));
        for (index, (column, value)) in columns.iter().zip(values).enumerate() {
            match (value, format(index), column.of) {
                (Value::Null, ..) => put_value(body, None),
                // The bytes of a text are the same in both formats.
                (Value::Text(text), ..) => put_value(body, Some(text.as_bytes())),
                (Value::Number(number), Format::Text, _) | (Value::Number(number), _, ColumnType::Text) => {
                    put_value(body, Some(number.to_string().as_bytes()));
                }
                (Value::Number(number), Format::Binary, ColumnType::Int4) => {
                    let number = i32::try_from(*number).unwrap_or(i32::MAX);
                    put_value(body, Some(&number.to_be_bytes()));
                }
                (Value::Number(number), Format::Binary, ColumnType::Int8) => {
                    let number = i64::try_from(*number).unwrap_or(i64::MAX);
                    put_value(body, Some(&number.to_be_bytes()));
                }
                (Value::Number(number), Format::Binary, ColumnType::Numeric) => put_value(body, Some(&numeric(*number))),
            }
        }
    })
}

fn count(columns: usize) -> [u8; 2] {
    u16::try_from(columns).unwrap_or(u16::MAX).to_be_bytes()
}

/// A whole number as `numeric_send` writes it: digits of base 10 000, their number, the weight of the first, sign and scale.
fn numeric(mut number: u64) -> Vec<u8> {
    let mut digits = Vec::new();
    while number > 0 {
        digits.push(u16::try_from(number % 10_000).unwrap_or_default());
        number /= 10_000;
    }
    let weight = u16::try_from(digits.len().saturating_sub(1)).unwrap_or_default();
    let head = [u16::try_from(digits.len()).unwrap_or_default(), weight, 0, 0];
    head.into_iter().chain(digits.into_iter().rev()).flat_map(u16::to_be_bytes).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const COLUMNS: [Column; 4] = [
        Column { name: "a", of: ColumnType::Text },
        Column { name: "b", of: ColumnType::Int4 },
        Column { name: "c", of: ColumnType::Int8 },
        Column { name: "d", of: ColumnType::Numeric },
    ];

    #[test]
    fn a_row_is_written_as_it_was_asked_for() {
        let row = ["x".into(), 7_u64.into(), 8_u64.into(), 120_003_u64.into()];
        assert_eq!(&data_row(&COLUMNS, &row, |_| Format::Text)[5..], b"\0\x04\0\0\0\x01x\0\0\0\x017\0\0\0\x018\0\0\0\x06120003");
        assert_eq!(
            &data_row(&COLUMNS, &row, |_| Format::Binary)[5..],
            b"\0\x04\0\0\0\x01x\0\0\0\x04\0\0\0\x07\0\0\0\x08\0\0\0\0\0\0\0\x08\0\0\0\x0c\0\x02\0\x01\0\0\0\0\0\x0c\0\x03"
        );
        let nulls = [Value::Null, Value::Null, Value::Null, Value::Null];
        assert!(data_row(&COLUMNS, &nulls, |_| Format::Text).ends_with(&[0xff; 4]));
    }

    #[test]
    fn a_description_names_types_and_formats() {
        let described = row_description(&COLUMNS[1..2], |_| Format::Binary);
        assert_eq!(&described[5..], b"\0\x01b\0\0\0\0\0\0\0\0\0\0\x17\0\x04\xff\xff\xff\xff\0\x01");
    }

    #[test]
    fn zero_has_no_digits() {
        assert_eq!(numeric(0), [0; 8]);
    }
}
