//! What a server answered, in a form that a test can state and a newcomer can read.
//!
//! One message is one short item: `C SET`, `D pg-eu-west`, `E 42000 Query blocked …`, `Z I`. A transcript also says how it
//! ended, so that "closed without a word" and "said nothing" are answers like any other.

use std::fmt;

/// One message from a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// Its type.
    pub tag: u8,
    /// What follows the length.
    pub body: Vec<u8>,
}

/// How a transcript ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// With the message that was waited for.
    Reached,
    /// The server closed the connection.
    Closed,
    /// The server said nothing more for as long as the client was ready to wait.
    Silent,
    /// The connection could not be had, or what came is no protocol.
    Broken(String),
}

/// Messages from a server, in order, and how they ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transcript {
    /// Every message.
    pub messages: Vec<Message>,
    /// How it ended.
    pub end: End,
}

/// What an ErrorResponse or NoticeResponse says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Every field in the order it came: its type and its text.
    pub fields: Vec<(char, String)>,
}

impl Report {
    /// The text of one field, empty when the message has none of it.
    pub fn field(&self, kind: char) -> &str {
        self.fields.iter().find(|(field, _)| *field == kind).map_or("", |(_, text)| text)
    }

    /// The SQLSTATE.
    pub fn sqlstate(&self) -> &str {
        self.field('C')
    }

    /// The message text.
    pub fn message(&self) -> &str {
        self.field('M')
    }
}

impl Message {
    /// The fields of an ErrorResponse or NoticeResponse.
    pub fn report(&self) -> Option<Report> {
        if !matches!(self.tag, b'E' | b'N') {
            return None;
        }
        let fields = self.body.split(|byte| *byte == 0).filter_map(|field| {
            let (kind, text) = field.split_first()?;
            Some((char::from(*kind), String::from_utf8_lossy(text).into_owned()))
        });
        Some(Report { fields: fields.collect() })
    }

    /// The columns of a DataRow, NULL as `NULL`.
    pub fn row(&self) -> Option<Vec<String>> {
        let mut cursor = Cursor(&self.body);
        let columns = (self.tag == b'D').then(|| cursor.u16())??;
        (0..columns)
            .map(|_| match cursor.u32()? {
                u32::MAX => Some("NULL".to_owned()),
                length => cursor.take(usize::try_from(length).ok()?).map(text),
            })
            .collect()
    }

    fn column_names(&self) -> Option<Vec<String>> {
        let mut cursor = Cursor(&self.body);
        let columns = cursor.u16()?;
        (0..columns)
            .map(|_| {
                let name = cursor.string()?;
                cursor.take(18)?;
                Some(name)
            })
            .collect()
    }

    fn authentication(&self) -> Option<String> {
        let mut cursor = Cursor(&self.body);
        let code = cursor.u32()?;
        let rest = text(cursor.0);
        Some(match code {
            10 => format!("R 10 {}", rest.split('\0').filter(|name| !name.is_empty()).collect::<Vec<_>>().join(",")),
            // Nonce and salt differ between two logins; what must not differ is the salt's length and the iterations.
            11 => {
                let part = |name| rest.split(',').find_map(|part| part.strip_prefix(name)).unwrap_or("");
                format!("R 11 salt of {} characters, {} iterations", part("s=").len(), part("i="))
            }
            other => format!("R {other}"),
        })
    }
}

impl fmt::Display for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut cursor = Cursor(&self.body);
        let tag = char::from(self.tag);
        let detail = match self.tag {
            b'C' => cursor.string(),
            b'D' => self.row().map(|row| row.join("|")),
            b'T' => self.column_names().map(|names| names.join("|")),
            b'Z' => cursor.take(1).map(text),
            b'd' => Some(text(&self.body).trim_end().to_owned()),
            b'S' => cursor.string().and_then(|name| Some(format!("{name}={}", cursor.string()?))),
            b'R' => return f.write_str(&self.authentication().unwrap_or_else(|| "R".to_owned())),
            b'E' | b'N' => self.report().map(|report| match (self.tag, report.field('V')) {
                (b'E', "ERROR") => format!("{} {}", report.sqlstate(), report.message()),
                (_, severity) => format!("{severity} {} {}", report.sqlstate(), report.message()),
            }),
            b'V' => cursor.u32().map(|length| if length == u32::MAX { "NULL".to_owned() } else { text(cursor.0) }),
            _ => None,
        };
        match detail {
            Some(detail) => write!(f, "{tag} {detail}"),
            None => write!(f, "{tag}"),
        }
    }
}

impl Transcript {
    /// The first ErrorResponse.
    pub fn error(&self) -> Option<Report> {
        self.messages.iter().filter(|message| message.tag == b'E').find_map(Message::report)
    }

    /// The SQLSTATE of the first ErrorResponse, else an empty text.
    pub fn sqlstate(&self) -> String {
        self.error().map(|report| report.sqlstate().to_owned()).unwrap_or_default()
    }

    /// The transaction status of the last ReadyForQuery, `-` when there is none.
    pub fn status(&self) -> char {
        let ready = self.messages.iter().rev().find(|message| message.tag == b'Z');
        ready.and_then(|message| message.body.first()).map_or('-', |status| char::from(*status))
    }

    /// Every row.
    pub fn rows(&self) -> Vec<Vec<String>> {
        self.messages.iter().filter_map(Message::row).collect()
    }

    /// The first column of the first row.
    pub fn value(&self) -> Option<String> {
        self.rows().into_iter().next()?.into_iter().next()
    }

    /// The same without what a server may say at any time: notices, parameter changes and notifications.
    pub fn replies(&self) -> Self {
        let reply = |message: &&Message| !matches!(message.tag, b'N' | b'S' | b'A');
        Self { messages: self.messages.iter().filter(reply).cloned().collect(), end: self.end.clone() }
    }

    /// The value of a ParameterStatus.
    pub fn parameter(&self, name: &str) -> Option<String> {
        let prefix = format!("S {name}=");
        self.messages
            .iter()
            .filter(|message| message.tag == b'S')
            .find_map(|message| message.to_string().strip_prefix(&prefix).map(str::to_owned))
    }
}

impl fmt::Display for Transcript {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let end = match &self.end {
            End::Reached => None,
            End::Closed => Some("closed".to_owned()),
            End::Silent => Some("silent".to_owned()),
            End::Broken(why) => Some(format!("broken: {why}")),
        };
        let items: Vec<String> = self.messages.iter().map(Message::to_string).chain(end).collect();
        f.write_str(&items.join(" / "))
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Takes fields from the front of a body; `None` when it is too short.
struct Cursor<'a>(&'a [u8]);

impl<'a> Cursor<'a> {
    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }

    fn u16(&mut self) -> Option<u16> {
        self.take(2).and_then(|bytes| bytes.try_into().ok()).map(u16::from_be_bytes)
    }

    fn u32(&mut self) -> Option<u32> {
        self.take(4).and_then(|bytes| bytes.try_into().ok()).map(u32::from_be_bytes)
    }

    fn string(&mut self) -> Option<String> {
        let length = self.0.iter().position(|byte| *byte == 0)?;
        let text = self.take(length).map(text);
        self.take(1)?;
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(tag: u8, body: &[u8]) -> String {
        Message { tag, body: body.to_vec() }.to_string()
    }

    #[test]
    fn messages_are_shown_in_one_short_item() {
        assert_eq!(shown(b'C', b"SET\0"), "C SET");
        assert_eq!(shown(b'D', b"\0\x02\0\0\0\x02eu\xff\xff\xff\xff"), "D eu|NULL");
        assert_eq!(shown(b'Z', b"I"), "Z I");
        assert_eq!(shown(b'1', b""), "1");
        assert_eq!(shown(b'S', b"TimeZone\0UTC\0"), "S TimeZone=UTC");
        assert_eq!(shown(b'E', b"SERROR\0VERROR\0C42000\0Mno\0\0"), "E 42000 no");
        assert_eq!(shown(b'E', b"SFATAL\0VFATAL\0C28P01\0Mno\0\0"), "E FATAL 28P01 no");
        assert_eq!(shown(b'R', b"\0\0\0\x0aSCRAM-SHA-256\0\0"), "R 10 SCRAM-SHA-256");
        assert_eq!(shown(b'R', b"\0\0\0\x0br=x,s=abcd,i=4096"), "R 11 salt of 4 characters, 4096 iterations");
    }

    #[test]
    fn a_body_that_is_too_short_is_shown_by_its_tag() {
        assert_eq!(shown(b'D', b"\0\x02\0\0\0\x09eu"), "D");
        assert_eq!(shown(b'C', b"SET"), "C");
    }

    #[test]
    fn a_transcript_says_how_it_ended() {
        let ready = Message { tag: b'Z', body: b"T".to_vec() };
        let transcript = Transcript { messages: vec![ready], end: End::Closed };
        assert_eq!(transcript.to_string(), "Z T / closed");
        assert_eq!(transcript.status(), 'T');
        assert_eq!(transcript.sqlstate(), "");
    }
}
