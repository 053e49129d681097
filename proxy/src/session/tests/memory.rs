//! When memory is short, those who send much are not read, and then end; others do not notice.

use expect_test::expect;

use super::world::{Cut, World, transaction_mode};
use crate::session::Pressure;

/// `!memory high` and so on.
pub(super) fn pressure(word: &str) -> Pressure {
    match word {
        "none" => Pressure::None,
        "high" => Pressure::High,
        "full" => Pressure::Full,
        other => panic!("{other}"),
    }
}

/// `begin 1000`: the first 1000 bytes of the text of a Query that is longer.
pub(super) fn begin(bytes: &str) -> Vec<u8> {
    let bytes: usize = bytes.parse().unwrap();
    let length = u32::try_from(bytes * 2 + 5).unwrap();
    [&b"Q"[..], &length.to_be_bytes(), &vec![b' '; bytes]].concat()
}

#[test]
fn the_one_that_keeps_most_ends_at_once_when_nothing_is_left_and_later_when_little_is() {
    let script = "
        begin 100000
        b> begin 200000
        c> begin 300000
        d> begin 1000
        e> Q SET helios.region = 'eu'
        !memory full
        !tick 1
        !memory high
        !tick 1
        !tick 1
        e> Q SELECT 1
        !tick 1
        !memory none
        !tick 1
        !memory high
        !tick 1
        !tick 1
        !memory none
        !tick 60
    ";
    expect![[r#"
        begin 100000
        b> begin 200000
        c> begin 300000
        d> begin 1000
        e> Q SET helios.region = 'eu'
          e: C SET
          e: Z I
        !memory full
        !tick 1
          c: E FATAL 53200: out of memory (HINT)
          c: closed
        !memory high
        !tick 1
        !tick 1
          b: E FATAL 53200: out of memory (HINT)
          b: closed
        e> Q SELECT 1
          e: T
          e: D eu
          e: C SELECT 1
          e: Z I
            eu: Q SELECT 1
        !tick 1
          E FATAL 53200: out of memory (HINT)
          closed
        !memory none
        !tick 1
        !memory high
        !tick 1
        !tick 1
        !memory none
        !tick 60
    "#]]
    .assert_eq(&World::new(&transaction_mode()).play(script, Cut::Whole));
}
