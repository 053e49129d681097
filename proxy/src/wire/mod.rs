//! Bytes to PostgreSQL messages and back: protocol 3, both directions.
//!
//! Knows lengths, tags and names. Knows no policy and no SQL, keeps no state beyond one half-received message, and never sees a
//! socket. What a peer sends is data: every decoder here answers with a value or an error, never with a panic, and reserves no
//! memory because a length was announced. Where PostgreSQL refuses a message, the decoder refuses it too, so that nothing is
//! ever decided about bytes that the server would read differently.

#![forbid(unsafe_code)]

pub mod backend;
pub mod error;
pub mod frame;
pub mod frontend;
pub mod fuzz;
pub mod rows;
pub mod sqlstate;
pub mod startup;
pub mod tag;

mod authentication;
mod codec;
mod secret;

pub use backend::{Authentication, TransactionStatus};
pub use error::{ErrorFields, Report, Severity, encode_error, encode_notice, parse_error};
pub use frame::{Frame, Malformed, Mode, Splitter};
pub use secret::CancelSecret;
pub use sqlstate::SqlState;
