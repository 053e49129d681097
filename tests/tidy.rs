//! The checks of `cargo xtask tidy`, as a test.

#[test]
fn the_tree_is_tidy() {
    let findings = domicile_tests::tidy::check(domicile_tests::proxy::root());
    assert!(findings.is_empty(), "\n{}", findings.join("\n"));
}
