//! The program with a mistake in it, made on purpose (feature `misroute`): it connects to another region than was decided. It is for
//! the test that the kernel stops it, and for nothing else.

use std::process::ExitCode;

#[path = "main.rs"]
mod program;

fn main() -> ExitCode {
    program::main()
}
