//! How many clients a region may have: each is counted where it is, and where its transaction may still lead.

use expect_test::expect;

use super::world::{Setup, check, transaction_mode};

fn one_a_region() -> Setup {
    Setup { clients_per_region: Some(1), ..transaction_mode() }
}

#[test]
fn a_session_is_counted_in_the_region_that_it_goes_to() {
    check(
        one_a_region(),
        "Q SET helios.region = 'eu'
         b> Q SET helios.region = 'eu'
         b> Q SET helios.region = 'us'
         P :SET helios.region = 'us' | B : | E | S
         Q SET helios.region = 'eu'
         Q BEGIN; SET LOCAL helios.region = 'us'; SELECT 1
         b> Q RESET helios.region
         P :SET helios.region = 'us' | B : | E | S
         b> Q SET helios.region = 'eu'
         Q SELECT 1
         b> X
         Q SET helios.region = 'eu'; SELECT 1",
        expect![[r#"
            Q SET helios.region = 'eu'
              C SET
              Z I
            b> Q SET helios.region = 'eu'
              b: E ERROR 53300: too many clients of region "eu" already (HINT)
              b: Z I
            b> Q SET helios.region = 'us'
              b: C SET
              b: Z I
            P :SET helios.region = 'us' | B : | E | S
              1
              2
              E ERROR 53300: too many clients of region "us" already (HINT)
              Z I
            Q SET helios.region = 'eu'
              C SET
              Z I
            Q BEGIN; SET LOCAL helios.region = 'us'; SELECT 1
              E ERROR 53300: too many clients of region "us" already (HINT)
              Z I
            b> Q RESET helios.region
              b: C RESET
              b: Z I
            P :SET helios.region = 'us' | B : | E | S
              1
              2
              C SET
              Z I
            b> Q SET helios.region = 'eu'
              b: C SET
              b: Z I
            Q SELECT 1
              T
              D us
              C SELECT 1
              Z I
                us: Q SELECT 1
            b> X
              b: closed
            Q SET helios.region = 'eu'; SELECT 1
              C SET
              T
              D eu
              C SELECT 1
              Z I
                eu: Q                         ; SELECT 1
        "#]],
    );
}

#[test]
fn a_place_that_a_rollback_leads_back_to_is_kept() {
    check(
        one_a_region(),
        "Q SET helios.region = 'eu'
         Q BEGIN; SET helios.region = 'us'; SELECT 1
         b> Q SET helios.region = 'eu'
         b> Q SET helios.region = 'us'
         Q ROLLBACK
         b> Q SET helios.region = 'us'
         b> Q RESET helios.region
         Q BEGIN; SET helios.region = 'us'; SELECT 1; COMMIT
         b> Q SET helios.region = 'eu'
         b> Q DISCARD ALL
         Q BEGIN; SET helios.region = 'eu'; EXECUTE nothing
         b> Q SET helios.region = 'eu'
         Q ROLLBACK
         b> Q SET helios.region = 'eu'",
        expect![[r#"
            Q SET helios.region = 'eu'
              C SET
              Z I
            Q BEGIN; SET helios.region = 'us'; SELECT 1
              C BEGIN
              C SET
              T
              D us
              C SELECT 1
              Z T
                us: Q BEGIN;                         ; SELECT 1
            b> Q SET helios.region = 'eu'
              b: E ERROR 53300: too many clients of region "eu" already (HINT)
              b: Z I
            b> Q SET helios.region = 'us'
              b: E ERROR 53300: too many clients of region "us" already (HINT)
              b: Z I
            Q ROLLBACK
              C ROLLBACK
              Z I
                us: Q ROLLBACK
            b> Q SET helios.region = 'us'
              b: C SET
              b: Z I
            b> Q RESET helios.region
              b: C RESET
              b: Z I
            Q BEGIN; SET helios.region = 'us'; SELECT 1; COMMIT
              C BEGIN
              C SET
              T
              D us
              C SELECT 1
              C COMMIT
              Z I
                us: Q BEGIN;                         ; SELECT 1; COMMIT
            b> Q SET helios.region = 'eu'
              b: C SET
              b: Z I
            b> Q DISCARD ALL
              b: C DISCARD ALL
              b: Z I
            Q BEGIN; SET helios.region = 'eu'; EXECUTE nothing
              N NOTICE 00000: this session keeps its server connection from now on: PREPARE (HINT)
              C BEGIN
              C SET
              E ERROR 26000: prepared statement "nothing" does not exist
              Z E
                eu: Q BEGIN;                         ; EXECUTE nothing
            b> Q SET helios.region = 'eu'
              b: E ERROR 53300: too many clients of region "eu" already (HINT)
              b: Z I
            Q ROLLBACK
              C ROLLBACK
              Z I
                eu: Q ROLLBACK
            b> Q SET helios.region = 'eu'
              b: C SET
              b: Z I
        "#]],
    );
}
