//! The five characters that name an error (SQLSTATE), checked once and then carried as a value.
//!
//! Only the codes that the proxy itself sends or compares with have names; the whole table stands in PostgreSQL's manual,
//! appendix "PostgreSQL Error Codes".

use std::fmt;
use std::str::FromStr;

/// A SQLSTATE: five characters of `0-9A-Z`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SqlState([u8; 5]);

/// Why a text is no SQLSTATE.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InvalidSqlState;

impl SqlState {
    /// Class 00.
    pub const SUCCESSFUL_COMPLETION: Self = Self(*b"00000");
    /// Class 01.
    pub const WARNING: Self = Self(*b"01000");
    /// Class 08, without a more exact reason.
    pub const CONNECTION_EXCEPTION: Self = Self(*b"08000");
    /// A connection could not be made.
    pub const CLIENT_UNABLE_TO_ESTABLISH_CONNECTION: Self = Self(*b"08001");
    /// A connection was lost, or its other side is not to be reached.
    pub const CONNECTION_FAILURE: Self = Self(*b"08006");
    /// A connection was lost while a COMMIT was on its way.
    pub const TRANSACTION_RESOLUTION_UNKNOWN: Self = Self(*b"08007");
    /// The peer broke the protocol.
    pub const PROTOCOL_VIOLATION: Self = Self(*b"08P01");
    /// What was asked for is not to be had here.
    pub const FEATURE_NOT_SUPPORTED: Self = Self(*b"0A000");
    /// Bytes that are no text in the encoding they should have.
    pub const CHARACTER_NOT_IN_REPERTOIRE: Self = Self(*b"22021");
    /// A setting can not have this value.
    pub const INVALID_PARAMETER_VALUE: Self = Self(*b"22023");
    /// The statement may not stand inside the running transaction.
    pub const ACTIVE_SQL_TRANSACTION: Self = Self(*b"25001");
    /// The statement needs a running transaction.
    pub const NO_ACTIVE_SQL_TRANSACTION: Self = Self(*b"25P01");
    /// The transaction has failed and waits for its ROLLBACK.
    pub const IN_FAILED_SQL_TRANSACTION: Self = Self(*b"25P02");
    /// Nothing has happened in the transaction for too long.
    pub const IDLE_IN_TRANSACTION_SESSION_TIMEOUT: Self = Self(*b"25P03");
    /// The transaction has lasted for too long.
    pub const TRANSACTION_TIMEOUT: Self = Self(*b"25P04");
    /// No such prepared statement.
    pub const INVALID_SQL_STATEMENT_NAME: Self = Self(*b"26000");
    /// This user may not log in like this.
    pub const INVALID_AUTHORIZATION_SPECIFICATION: Self = Self(*b"28000");
    /// The password is wrong, or there is no such user.
    pub const INVALID_PASSWORD: Self = Self(*b"28P01");
    /// No such portal.
    pub const INVALID_CURSOR_NAME: Self = Self(*b"34000");
    /// No such savepoint.
    pub const INVALID_SAVEPOINT_SPECIFICATION: Self = Self(*b"3B001");
    /// No such database.
    pub const INVALID_CATALOG_NAME: Self = Self(*b"3D000");
    /// Class 42, without a more exact reason; what a blocked statement is answered with by default.
    pub const SYNTAX_ERROR_OR_ACCESS_RULE_VIOLATION: Self = Self(*b"42000");
    /// The grant does not allow it.
    pub const INSUFFICIENT_PRIVILEGE: Self = Self(*b"42501");
    /// The grammar refuses the text.
    pub const SYNTAX_ERROR: Self = Self(*b"42601");
    /// No such setting.
    pub const UNDEFINED_OBJECT: Self = Self(*b"42704");
    /// The portal exists already.
    pub const DUPLICATE_CURSOR: Self = Self(*b"42P03");
    /// The prepared statement exists already.
    pub const DUPLICATE_PREPARED_STATEMENT: Self = Self(*b"42P05");
    /// There is no memory for it.
    pub const OUT_OF_MEMORY: Self = Self(*b"53200");
    /// No connection is free.
    pub const TOO_MANY_CONNECTIONS: Self = Self(*b"53300");
    /// A bound of the program is reached.
    pub const PROGRAM_LIMIT_EXCEEDED: Self = Self(*b"54000");
    /// The statement is nested too deeply.
    pub const STATEMENT_TOO_COMPLEX: Self = Self(*b"54001");
    /// What the command is about is not in a state for it.
    pub const OBJECT_NOT_IN_PREREQUISITE_STATE: Self = Self(*b"55000");
    /// 55006 `object_in_use`.
    pub const OBJECT_IN_USE: Self = Self(*b"55006");
    /// The statement was cancelled.
    pub const QUERY_CANCELED: Self = Self(*b"57014");
    /// The server shuts down.
    pub const ADMIN_SHUTDOWN: Self = Self(*b"57P01");
    /// The server ended this connection because another one crashed.
    pub const CRASH_SHUTDOWN: Self = Self(*b"57P02");
    /// The server is starting up, shutting down or otherwise not to be used now.
    pub const CANNOT_CONNECT_NOW: Self = Self(*b"57P03");
    /// The session was idle for too long.
    pub const IDLE_SESSION_TIMEOUT: Self = Self(*b"57P05");
    /// The configuration file is wrong.
    pub const CONFIG_FILE_ERROR: Self = Self(*b"F0000");
    /// Reading or writing failed.
    pub const IO_ERROR: Self = Self(*b"58030");
    /// A rule of our own program was broken.
    pub const INTERNAL_ERROR: Self = Self(*b"XX000");

    /// The code of exactly five characters `0-9A-Z`.
    pub fn from_bytes(code: &[u8]) -> Option<Self> {
        let code: [u8; 5] = code.try_into().ok()?;
        code.iter().all(|byte| byte.is_ascii_digit() || byte.is_ascii_uppercase()).then_some(Self(code))
    }

    /// The five characters.
    pub fn as_str(&self) -> &str {
        // Every constructor checks for ASCII, so the fallback is never taken; it spares a panic, not a case.
        str::from_utf8(&self.0).unwrap_or("XX000")
    }
}

impl fmt::Display for SqlState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for SqlState {
    type Err = InvalidSqlState;

    fn from_str(code: &str) -> Result<Self, InvalidSqlState> {
        Self::from_bytes(code.as_bytes()).ok_or(InvalidSqlState)
    }
}

impl TryFrom<&str> for SqlState {
    type Error = InvalidSqlState;

    fn try_from(code: &str) -> Result<Self, InvalidSqlState> {
        code.parse()
    }
}

impl fmt::Display for InvalidSqlState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a SQLSTATE is five characters of 0-9 and A-Z")
    }
}

impl std::error::Error for InvalidSqlState {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn five_digits_or_capitals_and_nothing_else() {
        assert_eq!("42501".parse(), Ok(SqlState::INSUFFICIENT_PRIVILEGE));
        assert_eq!(SqlState::try_from("08P01"), Ok(SqlState::PROTOCOL_VIOLATION));
        assert_eq!(SqlState::PROTOCOL_VIOLATION.to_string(), "08P01");
        for wrong in ["", "4250", "425011", "08p01", "42 01", "4250\u{e9}", "4250\0"] {
            assert_eq!(wrong.parse::<SqlState>(), Err(InvalidSqlState), "{wrong:?}");
        }
    }
}
