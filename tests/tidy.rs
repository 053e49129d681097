//! The checks of `cargo xtask tidy`, as a test.

use std::path::Path;

#[test]
fn the_tree_is_tidy() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("this package has a folder in the workspace");
    let findings = domicile_tests::tidy::check(root);
    assert!(findings.is_empty(), "\n{}", findings.join("\n"));
}
