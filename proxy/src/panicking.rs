//! The program in which a client can have its worker panic, by sending `domicile_panic` (feature `panic`). It is for the test that
//! nobody else notices, and for nothing else.

use std::process::ExitCode;

#[path = "main.rs"]
mod program;

fn main() -> ExitCode {
    program::main()
}
