//! `cargo xtask tidy`: the invariants that the compiler does not keep. The checks themselves stand in the test harness, because
//! they are a test too.

use domicile_tests::proxy::root;
use domicile_tests::tidy;

/// Prints every finding as `file:line: what is wrong`.
pub fn run() -> Result<(), String> {
    let findings = tidy::check(root());
    if findings.is_empty() { Ok(()) } else { Err(findings.join("\n")) }
}
