//! Statement text → facts: where the statements of a text begin and end, and what they do to the session's region, to its
//! transaction and to what a backend remembers.
//!
//! Most texts are ordinary single statements: a pre-filter proves that in a few dozen nanoseconds and nothing else happens.
//! Every other text is read by PostgreSQL's own grammar, once, and what was found is kept. What can not be read is refused:
//! this module never guesses, and it decides nothing else about a text. It knows no session, no region and no policy, and no other module
//! names the grammar.
#![forbid(unsafe_code)]

mod facts;

pub use facts::{Facts, Kind, Reading, Refusal, SessionState, Statement, SyntaxRefusal};
