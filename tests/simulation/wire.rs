//! Messages as the model servers and clients of the simulation see them: framing, and the replies of a server in both directions.
//!
//! Written from the chapter "Message Formats" of PostgreSQL's documentation, like the harness's own encoders, and not with those of
//! the product.

use domicile_tests::message::message;

/// A byte stream that is taken apart into messages.
#[derive(Clone, Default)]
pub struct Stream(Vec<u8>);

/// One message, without its header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    pub tag: u8,
    pub body: Vec<u8>,
}

impl Stream {
    pub fn push(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }

    pub fn next(&mut self) -> Option<Message> {
        let header: [u8; 4] = self.0.get(1..5)?.try_into().ok()?;
        let end = 1 + u32::from_be_bytes(header) as usize;
        assert!((5..1 << 24).contains(&end), "a message of a length that nobody sends: {end}");
        if self.0.len() < end {
            return None;
        }
        let rest = self.0.split_off(end);
        let whole = std::mem::replace(&mut self.0, rest);
        Some(Message { tag: whole[0], body: whole[5..].to_vec() })
    }

    /// Whether no message has begun that has not ended.
    pub fn at_boundary(&self) -> bool {
        self.0.is_empty()
    }
}

/// What a server says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    ParseComplete,
    BindComplete,
    CloseComplete,
    NoData,
    Parameters,
    Columns(String),
    Row(String),
    Complete(String),
    Empty,
    Suspended,
    Error { fatal: bool, code: String, text: String },
    Ready(u8),
    CopyIn,
    CopyOut,
    CopyData(String),
    CopyDone,
    Result(String),
    Notification { channel: String, payload: String },
    Setting { name: String, value: String },
    Notice(String),
}

impl Reply {
    pub fn error(code: &str, text: impl Into<String>) -> Self {
        Self::Error { fatal: false, code: code.to_owned(), text: text.into() }
    }

    /// Whether it may come at any time.
    pub fn is_asynchronous(&self) -> bool {
        matches!(self, Self::Setting { .. } | Self::Notice(_))
    }

    /// Whether a client has no way to tell the two apart that matters: the words of an error are free.
    pub fn same_as(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Error { fatal, code, .. }, Self::Error { fatal: other_fatal, code: other_code, .. }) => {
                fatal == other_fatal && code == other_code
            }
            _ => self == other,
        }
    }

    pub fn encode(&self) -> Vec<u8> {
        match self {
            Self::ParseComplete => message(b'1', &[]),
            Self::BindComplete => message(b'2', &[]),
            Self::CloseComplete => message(b'3', &[]),
            Self::NoData => message(b'n', &[]),
            Self::Parameters => message(b't', &[0, 0]),
            Self::Columns(name) => {
                let column = [&[0, 1], name.as_bytes(), &[0], &[0; 6], &25u32.to_be_bytes(), &[255; 6], &[0, 0]].concat();
                message(b'T', &column)
            }
            Self::Row(value) => message(b'D', &[&[0, 1][..], &counted(value)].concat()),
            Self::Complete(tag) => message(b'C', &text(tag)),
            Self::Empty => message(b'I', &[]),
            Self::Suspended => message(b's', &[]),
            Self::Error { fatal, code, text: words } => {
                let severity = if *fatal { "FATAL" } else { "ERROR" };
                message(b'E', &fields(&[(b'S', severity), (b'V', severity), (b'C', code), (b'M', words)]))
            }
            Self::Ready(status) => message(b'Z', &[*status]),
            Self::CopyIn => message(b'G', &[0, 0, 1, 0, 0]),
            Self::CopyOut => message(b'H', &[0, 0, 1, 0, 0]),
            Self::CopyData(data) => message(b'd', data.as_bytes()),
            Self::CopyDone => message(b'c', &[]),
            Self::Result(value) => message(b'V', &counted(value)),
            Self::Notification { channel, payload } => {
                message(b'A', &[&[0, 0, 0, 1][..], &text(channel), &text(payload)].concat())
            }
            Self::Setting { name, value } => message(b'S', &[text(name), text(value)].concat()),
            Self::Notice(words) => message(b'N', &fields(&[(b'S', "NOTICE"), (b'V', "NOTICE"), (b'C', "00000"), (b'M', words)])),
        }
    }

    /// Reads what came from the proxy.
    pub fn decode(message: &Message) -> Self {
        let body = &message.body[..];
        let texts = |from: usize| -> Vec<String> { body[from.min(body.len())..].split(|byte| *byte == 0).map(lossy).collect() };
        let field = |kind: char| {
            let all = texts(0);
            all.iter().find_map(|text| text.strip_prefix(kind)).unwrap_or_default().to_owned()
        };
        match message.tag {
            b'1' => Self::ParseComplete,
            b'2' => Self::BindComplete,
            b'3' => Self::CloseComplete,
            b'n' => Self::NoData,
            b't' => Self::Parameters,
            b'T' => Self::Columns(texts(2).swap_remove(0)),
            b'D' => Self::Row(lossy(&body[6..])),
            b'C' => Self::Complete(texts(0).swap_remove(0)),
            b'I' => Self::Empty,
            b's' => Self::Suspended,
            b'E' => Self::Error { fatal: field('V') != "ERROR", code: field('C'), text: field('M') },
            b'N' => Self::Notice(field('M')),
            b'Z' => Self::Ready(body[0]),
            b'G' => Self::CopyIn,
            b'H' => Self::CopyOut,
            b'd' => Self::CopyData(lossy(body)),
            b'c' => Self::CopyDone,
            b'V' => Self::Result(lossy(&body[4..])),
            b'A' => {
                let [channel, payload, ..] = &texts(4)[..] else { panic!("a NotificationResponse of one text") };
                Self::Notification { channel: channel.clone(), payload: payload.clone() }
            }
            b'S' => {
                let [name, value, ..] = &texts(0)[..] else { panic!("a ParameterStatus of one text") };
                Self::Setting { name: name.clone(), value: value.clone() }
            }
            other => panic!("a client got a message of type {:?}", other as char),
        }
    }
}

/// The NUL-terminated texts at the head of a message of a client.
pub fn texts(body: &[u8]) -> Vec<String> {
    body.split(|byte| *byte == 0).map(lossy).collect()
}

fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn text(text: &str) -> Vec<u8> {
    [text.as_bytes(), &[0]].concat()
}

fn counted(value: &str) -> Vec<u8> {
    let length = u32::try_from(value.len()).expect("a short value");
    [&length.to_be_bytes()[..], value.as_bytes()].concat()
}

fn fields(fields: &[(u8, &str)]) -> Vec<u8> {
    let mut body: Vec<u8> = fields.iter().flat_map(|(kind, value)| [vec![*kind], text(value)].concat()).collect();
    body.push(0);
    body
}
