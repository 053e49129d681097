//! The first byte of every message after startup, under the protocol's own names ("Message Formats" in PostgreSQL's manual).
//!
//! The same byte means different things in the two directions, hence two modules and no common type.

/// Tags of what a client sends.
pub mod frontend {
    /// Bind: makes a portal from a prepared statement.
    pub const BIND: u8 = b'B';
    /// Close: forgets a prepared statement or a portal.
    pub const CLOSE: u8 = b'C';
    /// CopyData: a piece of a COPY stream.
    pub const COPY_DATA: u8 = b'd';
    /// CopyDone: the end of COPY data.
    pub const COPY_DONE: u8 = b'c';
    /// CopyFail: the client gives up its COPY.
    pub const COPY_FAIL: u8 = b'f';
    /// Describe: asks for the description of a prepared statement or a portal.
    pub const DESCRIBE: u8 = b'D';
    /// Execute: runs a portal.
    pub const EXECUTE: u8 = b'E';
    /// Flush: asks for the answers that are pending.
    pub const FLUSH: u8 = b'H';
    /// FunctionCall: calls a function by its OID.
    pub const FUNCTION_CALL: u8 = b'F';
    /// Parse: makes a prepared statement.
    pub const PARSE: u8 = b'P';
    /// PasswordMessage, SASLInitialResponse, SASLResponse and GSSResponse: told apart by what was asked for.
    pub const PASSWORD: u8 = b'p';
    /// Query: a text of one or more statements, answered up to ReadyForQuery.
    pub const QUERY: u8 = b'Q';
    /// Sync: the end of a unit of the extended protocol.
    pub const SYNC: u8 = b'S';
    /// Terminate: the client says goodbye.
    pub const TERMINATE: u8 = b'X';
}

/// Tags of what a server sends.
pub mod backend {
    /// Authentication…: a request of the login, or its success.
    pub const AUTHENTICATION: u8 = b'R';
    /// BackendKeyData: what a CancelRequest must repeat.
    pub const BACKEND_KEY_DATA: u8 = b'K';
    /// BindComplete.
    pub const BIND_COMPLETE: u8 = b'2';
    /// CloseComplete.
    pub const CLOSE_COMPLETE: u8 = b'3';
    /// CommandComplete: the end of one statement's answer.
    pub const COMMAND_COMPLETE: u8 = b'C';
    /// CopyBothResponse: the start of streaming replication.
    pub const COPY_BOTH_RESPONSE: u8 = b'W';
    /// CopyData: a piece of a COPY stream.
    pub const COPY_DATA: u8 = b'd';
    /// CopyDone: the end of COPY data.
    pub const COPY_DONE: u8 = b'c';
    /// CopyInResponse: the server waits for COPY data.
    pub const COPY_IN_RESPONSE: u8 = b'G';
    /// CopyOutResponse: COPY data follows.
    pub const COPY_OUT_RESPONSE: u8 = b'H';
    /// DataRow.
    pub const DATA_ROW: u8 = b'D';
    /// EmptyQueryResponse: the answer to a text without a statement.
    pub const EMPTY_QUERY_RESPONSE: u8 = b'I';
    /// ErrorResponse.
    pub const ERROR_RESPONSE: u8 = b'E';
    /// FunctionCallResponse.
    pub const FUNCTION_CALL_RESPONSE: u8 = b'V';
    /// NegotiateProtocolVersion: what was asked for at startup and is not to be had.
    pub const NEGOTIATE_PROTOCOL_VERSION: u8 = b'v';
    /// NoData: the described statement returns no rows.
    pub const NO_DATA: u8 = b'n';
    /// NoticeResponse.
    pub const NOTICE_RESPONSE: u8 = b'N';
    /// NotificationResponse: what LISTEN was for.
    pub const NOTIFICATION_RESPONSE: u8 = b'A';
    /// ParameterDescription: the parameter types of a described statement.
    pub const PARAMETER_DESCRIPTION: u8 = b't';
    /// ParameterStatus: a reported setting has a (new) value.
    pub const PARAMETER_STATUS: u8 = b'S';
    /// ParseComplete.
    pub const PARSE_COMPLETE: u8 = b'1';
    /// PortalSuspended: Execute reached its row limit.
    pub const PORTAL_SUSPENDED: u8 = b's';
    /// ReadyForQuery: the end of an answer, with the transaction status.
    pub const READY_FOR_QUERY: u8 = b'Z';
    /// RowDescription.
    pub const ROW_DESCRIPTION: u8 = b'T';
}
