//! Every fixed bound of the program: its unit is the last word of its name, its reason stands above it.
//!
//! What an operator may want to change is configuration and does not stand here.

/// Declared regions over the life of a process, those that reloads removed included.
pub const REGIONS_MAX: usize = 1024;

/// Name of a region that a client chooses; no declared one is longer, and a name that nobody declared is kept by the session.
pub const REGION_NAME_BYTES_MAX: usize = 63;

/// A startup packet, length word included; PostgreSQL's own `MAX_STARTUP_PACKET_LENGTH`, which does not count that word.
pub const STARTUP_PACKET_BYTES_MAX: usize = 10_004;
/// One message of an authentication exchange; PostgreSQL's `PG_MAX_AUTH_TOKEN_LENGTH`.
pub const AUTH_MESSAGE_BYTES_MAX: usize = 65_535;
/// Encryption requests before the StartupMessage: one SSLRequest and one GSSENCRequest.
pub const ENCRYPTION_REQUESTS_MAX: usize = 2;

/// Body of Query and Parse, which are gathered whole before they are decided on. PostgreSQL allows 1 GiB; a text of this
/// length is held once per session that sends it, so the bound is lower.
pub const STATEMENT_BYTES_MAX: usize = 256 << 20;
/// Body of any other message that is streamed; PostgreSQL's `PQ_LARGE_MESSAGE_LIMIT`, one byte less than 1 GiB.
pub const MESSAGE_BYTES_MAX: usize = (1 << 30) - 2;
/// Body of the messages that carry no data (Sync, Execute, Describe, Close, Flush …); PostgreSQL's `PQ_SMALL_MESSAGE_LIMIT`.
pub const SMALL_MESSAGE_BYTES_MAX: usize = 10_000;
/// The two names at the head of a Bind, which are read before the parameters are streamed.
pub const BIND_NAMES_BYTES_MAX: usize = 10_000;
/// Body of a backend message that must be read whole: ErrorResponse, NoticeResponse, ParameterStatus, CommandComplete …
pub const BACKEND_MESSAGE_BYTES_MAX: usize = 1 << 20;
/// The longest that is written anew is one of these with other names in it, and its length is a number of 31 bits.
const _: () = assert!(MESSAGE_BYTES_MAX + BIND_NAMES_BYTES_MAX + BACKEND_MESSAGE_BYTES_MAX < 1 << 31);
/// Settings that a server reports (ParameterStatus). PostgreSQL 18 has 16 of them; extensions may add some.
pub const REPORTED_SETTINGS_MAX: usize = 256;
/// Their names and values together. The longest is a search_path, of any length; all others are short.
pub const REPORTED_SETTINGS_BYTES_MAX: usize = 1 << 20;

/// What a session may hold of its client's bytes while it waits for a backend or for an answer, beyond the one message that is
/// being gathered, before the client is no longer read. Reading stops late by up to one shot of the receive.
pub const SESSION_HELD_BYTES_MAX: usize = 256 << 10;
/// What a session may hold or gather of its client's bytes while memory is short, before the client is no longer read.
pub const BUFFERED_UNDER_PRESSURE_BYTES: usize = 64 << 10;
/// Replies a backend may owe before the session that asks for them is held back.
pub const OWED_REPLIES_MAX: usize = 16_384;
/// SET TRANSACTION statements kept behind a BEGIN that has not been sent yet.
pub const DEFERRED_STATEMENTS_MAX: usize = 16;
/// How long a server may go on with a statement that was cancelled for taking too long, before its connection is closed and the session
/// ends. It rolls back at once, unless it hangs or its host does.
pub const CANCELLED_STATEMENT_SECONDS_MAX: u64 = 10;
/// Savepoints of one transaction whose region values are remembered; past it the region can no longer change in the transaction.
pub const SAVEPOINTS_MAX: usize = 1024;
/// Statements and portals that the proxy answers itself, per session.
pub const LOCAL_STATEMENTS_MAX: usize = 1024;

/// Text of one of them, comments inside it included.
pub const LOCAL_STATEMENT_BYTES_MAX: usize = 8 << 10;

/// Databases, counted once a region, whose sums of what was done a worker keeps when nobody uses them any more.
pub const DATABASES_COUNTED_MAX: usize = 4096;
/// Sessions of the administration console at once.
pub const CONSOLE_SESSIONS_MAX: usize = 64;
/// Body of a message that the console reads; its commands are short.
pub const CONSOLE_MESSAGE_BYTES_MAX: usize = 16 << 10;
/// Prepared statements, and portals, of one session of the console.
pub const CONSOLE_STATEMENTS_MAX: usize = 64;
/// Databases that can be paused, or closed to new clients, by name.
pub const OPERATED_DATABASES_MAX: usize = 1024;
/// Texts of the prepared statements that one backend keeps for transaction pooling, together.
pub const BACKEND_STATEMENTS_BYTES_MAX: usize = 4 << 20;
/// Clients, each one address and one user, whose wrong passwords are remembered. Some 60 bytes each.
pub const LOGIN_FAILURES_REMEMBERED_MAX: usize = 16_384;
/// Tries to log in of one of them that wait because of those; each keeps a connection.
pub const LOGIN_ATTEMPTS_WAITING_MAX: u32 = 8;
/// Texts of prepared statements that a worker keeps for sessions to share; what is still in use beyond that is only not shared.
pub const SHARED_STATEMENTS_BYTES_MAX: usize = 16 << 20;

/// Iterations of PBKDF2 that a backend may ask for in SCRAM (RFC 7677 asks for at least 4096; PostgreSQL's default is 4096).
pub const SCRAM_ITERATIONS_MAX: u32 = if cfg!(fuzzing) { 5000 } else { 1_000_000 };
/// Characters of a SCRAM nonce that a backend may send.
pub const SCRAM_NONCE_BYTES_MAX: usize = 1024;

/// A text that the grammar reads. Reading takes up to about 100 times its bytes of memory and, at worst, some 200 ms of its
/// worker; texts that the pre-filter passes are not read and may be longer.
pub const SQL_TEXT_BYTES_MAX: usize = 1 << 20;
/// The SET, SHOW, BEGIN … statements of one text together, whose parse trees are looked into.
pub const SQL_CONTROL_BYTES_MAX: usize = 64 << 10;
/// Steps of PostgreSQL's scanner in runs of operator characters (`++++`, `/*/*/*`), which take it quadratic time.
pub const SQL_OPERATOR_STEPS_MAX: usize = 1 << 22;
/// Calls of `set_config`, and names in `U&` notation, that are looked into in one statement.
pub const SQL_CALLS_MAX: usize = 100;
/// Texts that a worker remembers the meaning of.
pub const SQL_CACHE_ENTRIES_MAX: usize = 4096;
/// Bytes of what a worker remembers of texts.
pub const SQL_CACHE_BYTES_MAX: usize = 8 << 20;
/// A text that is remembered; longer ones rarely come twice.
pub const SQL_CACHED_TEXT_BYTES_MAX: usize = 8 << 10;
