//! Why a startup packet is refused, with PostgreSQL's SQLSTATEs and texts.

use std::fmt;

use crate::wire::sqlstate::SqlState;

/// Why a startup packet is refused. All of them are FATAL; the connection is closed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StartupError {
    /// The packet can not have this length.
    InvalidLength(u32),
    /// A protocol that is not spoken; also a request for encryption under a code that nobody has defined.
    UnsupportedVersion {
        /// Upper half of the version word.
        major: u16,
        /// Lower half of the version word.
        minor: u16,
    },
    /// The list of parameters does not end where the packet does.
    MissingTerminator,
    /// A name or value is no UTF-8.
    NotUtf8,
    /// No user, or an empty name.
    NoUser,
    /// `replication` has a value that is neither a boolean nor `database`.
    InvalidReplication(String),
    /// `options` has a word that no PostgreSQL server takes.
    InvalidOption(String),
    /// `options` has a switch of PostgreSQL's that is not a setting by name.
    UnsupportedOption(char),
    /// `options` names a setting without a value; the text is as the client wrote it, switch included.
    OptionWithoutValue(String),
    /// A setting with a name that is a word of the protocol, or empty.
    UnrecognizedParameter(String),
}

impl StartupError {
    /// What the client is told, where it is told anything.
    pub fn sqlstate(&self) -> SqlState {
        match self {
            Self::InvalidLength(_) | Self::MissingTerminator => SqlState::PROTOCOL_VIOLATION,
            Self::UnsupportedVersion { .. } | Self::UnsupportedOption(_) => SqlState::FEATURE_NOT_SUPPORTED,
            Self::NotUtf8 => SqlState::CHARACTER_NOT_IN_REPERTOIRE,
            Self::NoUser => SqlState::INVALID_AUTHORIZATION_SPECIFICATION,
            Self::InvalidReplication(_) => SqlState::INVALID_PARAMETER_VALUE,
            Self::InvalidOption(_) | Self::OptionWithoutValue(_) => SqlState::SYNTAX_ERROR,
            Self::UnrecognizedParameter(_) => SqlState::UNDEFINED_OBJECT,
        }
    }

    /// Whether the client gets an ErrorResponse. Where the bytes are not even a packet, PostgreSQL closes without a word, because
    /// whoever sent them would not understand one.
    pub fn answers(&self) -> bool {
        !matches!(self, Self::InvalidLength(_))
    }
}

impl fmt::Display for StartupError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::InvalidLength(_) => f.write_str("invalid length of startup packet"),
            Self::UnsupportedVersion { major, minor } => {
                write!(f, "unsupported frontend protocol {major}.{minor}: server supports 3.0 to 3.2")
            }
            Self::MissingTerminator => f.write_str("invalid startup packet layout: expected terminator as last byte"),
            Self::NotUtf8 => f.write_str("invalid byte sequence for encoding \"UTF8\" in startup packet"),
            Self::NoUser => f.write_str("no PostgreSQL user name specified in startup packet"),
            Self::InvalidReplication(value) => write!(f, "invalid value for parameter \"replication\": \"{value}\""),
            Self::InvalidOption(word) => write!(f, "invalid command-line argument for server process: {word}"),
            Self::UnsupportedOption(switch) => {
                write!(f, "server option \"-{switch}\" is not supported in \"options\": name the setting with -c")
            }
            Self::OptionWithoutValue(option) => write!(f, "{option} requires a value"),
            Self::UnrecognizedParameter(name) => write!(f, "unrecognized configuration parameter \"{name}\""),
        }
    }
}

impl std::error::Error for StartupError {}
