//! Query.

use expect_test::expect;

use super::world::{Setup, bound_to, check, session_mode, source, transaction_mode};
use crate::policy::NoRegion;

#[test]
fn the_seeds_calls() {
    check(
        transaction_mode(),
        "
        Q SET helios.region = 'eu'; SELECT 1
        Q SET helios.region = 'us'; SELECT 1
        Q SET helios.region = 'antarctica'; SELECT 1
        Q SELECT 2
        Q SET helios.region = 'us'
        Q SELECT 3
    ",
        expect![[r#"
        Q SET helios.region = 'eu'; SELECT 1
          C SET
          T
          D eu
          C SELECT 1
          Z I
            eu: Q                         ; SELECT 1
        Q SET helios.region = 'us'; SELECT 1
          C SET
          T
          D us
          C SELECT 1
          Z I
            us: Q                         ; SELECT 1
        Q SET helios.region = 'antarctica'; SELECT 1
          audit: denied "antarctica" at Query by residency.unbound
          C SET
          E ERROR 42000: blocked: no in-region replica for user
          Z I
        Q SELECT 2
          T
          D us
          C SELECT 1
          Z I
            us: Q SELECT 2
        Q SET helios.region = 'us'
          C SET
          Z I
        Q SELECT 3
          T
          D us
          C SELECT 1
          Z I
            us: Q SELECT 3
    "#]],
    );
}

#[test]
fn without_a_region_nothing_is_served_but_what_needs_no_backend() {
    check(
        transaction_mode(),
        "
        Q SELECT 1
        Q
        Q SHOW helios.region
        Q SHOW domicile.node
        Q BEGIN
        Q COMMIT
        Q ROLLBACK
        Q RESET ALL
        Q DISCARD ALL
        F
    ",
        expect![[r#"
        Q SELECT 1
          audit: denied "" at Query by residency.unbound
          E ERROR 42000: blocked: no region is set for this session
          Z I
        Q
          I
          Z I
        Q SHOW helios.region
          T
          D 
          C SHOW
          Z I
        Q SHOW domicile.node
          T
          D 
          C SHOW
          Z I
        Q BEGIN
          C BEGIN
          Z T
        Q COMMIT
          C COMMIT
          Z I
        Q ROLLBACK
          N WARNING 25P01: there is no transaction in progress
          C ROLLBACK
          Z I
        Q RESET ALL
          C RESET
          Z I
        Q DISCARD ALL
          C DISCARD ALL
          Z I
        F
          audit: denied "" at FunctionCall by residency.unbound
          E ERROR 42000: blocked: no region is set for this session
          Z I
    "#]],
    );
}

#[test]
fn the_default_region_serves_where_no_region_is_required() {
    let source = crate::policy::Source { no_region: NoRegion::Default, default_region: Some("us".into()), ..source() };
    check(
        Setup { source, ..transaction_mode() },
        "
        Q SELECT 1
        Q SET helios.region = ''; SELECT 2
        Q SET helios.region = 'antarctica'; SELECT 2
    ",
        expect![[r#"
        Q SELECT 1
          T
          D us
          C SELECT 1
          Z I
            us: Q SELECT 1
        Q SET helios.region = ''; SELECT 2
          C SET
          T
          D us
          C SELECT 1
          Z I
            us: Q                       ; SELECT 2
        Q SET helios.region = 'antarctica'; SELECT 2
          audit: denied "antarctica" at Query by residency.unbound
          C SET
          E ERROR 42000: blocked: no in-region replica for user
          Z I
    "#]],
    );
}

#[test]
fn a_dry_run_serves_and_says_so() {
    let source = crate::policy::Source { enforce: false, default_region: Some("us".into()), ..source() };
    check(
        Setup { source, ..transaction_mode() },
        "Q SET helios.region = 'antarctica'; SELECT 2",
        expect![[r#"
        Q SET helios.region = 'antarctica'; SELECT 2
          audit: would block "antarctica" at Query by residency.unbound
          C SET
          T
          D us
          C SELECT 1
          Z I
            us: Q                                 ; SELECT 2
    "#]],
    );
}

#[test]
fn a_grant_is_never_left() {
    check(
        Setup { source: bound_to(&["eu"]), ..transaction_mode() },
        "
        Q SELECT 1
        Q SET helios.region = 'us'
        Q SELECT 1; SET helios.region = 'us'
        Q SET helios.region = 'us'; SELECT 1
        Q SELECT set_config('helios.region', 'us', false)
        Q SHOW helios.region
    ",
        expect![[r#"
        Q SELECT 1
          T
          D eu
          C SELECT 1
          Z I
            eu: Q SELECT 1
        Q SET helios.region = 'us'
          audit: denied "us" at Query by residency.bind[0]
          E ERROR 42501: permission denied for region "us"
          Z I
        Q SELECT 1; SET helios.region = 'us'
          audit: denied "us" at Query by residency.bind[0]
          E ERROR 42501: permission denied for region "us"
          Z I
        Q SET helios.region = 'us'; SELECT 1
          audit: denied "us" at Query by residency.bind[0]
          E ERROR 42501: permission denied for region "us"
          Z I
        Q SELECT set_config('helios.region', 'us', false)
          audit: denied "us" at Query by residency.bind[0]
          E ERROR 42501: permission denied for region "us"
          Z I
        Q SHOW helios.region
          T
          D eu
          C SHOW
          Z I
    "#]],
    );
}

#[test]
fn answers_stand_in_the_order_of_their_statements() {
    check(transaction_mode(), "
        Q SET helios.region = 'eu'; SHOW helios.region; SELECT 1; SET helios.region = 'eu'; SHOW domicile.region; SELECT 2; RESET foo
        Q SELECT 1; SHOW helios.region; SELECT fail; SHOW helios.region; SELECT 2
        Q SELECT set_config('helios.region', 'us', false) AS x; SELECT 1
    ", expect![[r#"
        Q SET helios.region = 'eu'; SHOW helios.region; SELECT 1; SET helios.region = 'eu'; SHOW domicile.region; SELECT 2; RESET foo
          C SET
          T
          D eu
          C SHOW
          T
          D eu
          C SELECT 1
          C SET
          T
          D eu
          C SHOW
          T
          D eu
          C SELECT 1
          C RESET
          Z I
            eu: Q                         ;                   ; SELECT 1;                         ;                     ; SELECT 2; RESET foo
        Q SELECT 1; SHOW helios.region; SELECT fail; SHOW helios.region; SELECT 2
          T
          D eu
          C SELECT 1
          T
          D eu
          C SHOW
          E ERROR 01000: it fails
          Z I
            eu: Q SELECT 1;                   ; SELECT fail;                   ; SELECT 2
        Q SELECT set_config('helios.region', 'us', false) AS x; SELECT 1
          T
          D us
          C SELECT 1
          T
          D us
          C SELECT 1
          Z I
            us: Q                                                     ; SELECT 1
    "#]]);
}

#[test]
fn copy_in_and_out() {
    check(
        transaction_mode(),
        "
        d stray
        Q SET helios.region = 'eu'; COPY t FROM STDIN
        d 1 | d 2 | c
        Q COPY t FROM STDIN | d 1 | f no
        Q COPY t TO STDOUT
        Q SET helios.region = 'antarctica'; COPY t FROM STDIN
        d 1 | c
        Q SET helios.region = 'antarctica'; COPY t TO STDOUT
    ",
        expect![[r#"
        d stray
        Q SET helios.region = 'eu'; COPY t FROM STDIN
          C SET
          G
            eu: Q                         ; COPY t FROM STDIN
        d 1 | d 2 | c
          C COPY 1
          Z I
            eu: d
            eu: d
            eu: c
        Q COPY t FROM STDIN | d 1 | f no
          G
          E ERROR 57014: COPY from stdin failed
          Z I
            eu: Q COPY t FROM STDIN
            eu: d
            eu: f
        Q COPY t TO STDOUT
          H
          d
          c
          C COPY 1
          Z I
            eu: Q COPY t TO STDOUT
        Q SET helios.region = 'antarctica'; COPY t FROM STDIN
          audit: denied "antarctica" at Query by residency.unbound
          C SET
          E ERROR 42000: blocked: no in-region replica for user
          Z I
        d 1 | c
        Q SET helios.region = 'antarctica'; COPY t TO STDOUT
          audit: denied "antarctica" at Query by residency.unbound
          C SET
          E ERROR 42000: blocked: no in-region replica for user
          Z I
    "#]],
    );
}

#[test]
fn queries_may_be_sent_without_waiting() {
    check(transaction_mode(), "
        Q SET helios.region = 'eu'
        Q SELECT 1 | Q SELECT 2 | Q SET helios.region = 'us' | Q SELECT 3 | Q BEGIN | Q SELECT 4 | Q SELECT fail | Q SELECT 5 | Q ROLLBACK | Q SELECT 6
    ", expect![[r#"
        Q SET helios.region = 'eu'
          C SET
          Z I
        Q SELECT 1 | Q SELECT 2 | Q SET helios.region = 'us' | Q SELECT 3 | Q BEGIN | Q SELECT 4 | Q SELECT fail | Q SELECT 5 | Q ROLLBACK | Q SELECT 6
          T
          D eu
          C SELECT 1
          Z I
          T
          D eu
          C SELECT 1
          Z I
          C SET
          Z I
          T
          D us
          C SELECT 1
          Z I
          C BEGIN
          Z T
          T
          D us
          C SELECT 1
          Z T
          E ERROR 01000: it fails
          Z E
          E ERROR 25P02: aborted (says the server)
          Z E
          C ROLLBACK
          Z I
          T
          D us
          C SELECT 1
          Z I
            eu: Q SELECT 1
            eu: Q SELECT 2
            us: Q SELECT 3
            us: Q BEGIN
            us: Q SELECT 4
            us: Q SELECT fail
            us: Q SELECT 5
            us: Q ROLLBACK
            us: Q SELECT 6
    "#]]);
}

#[test]
fn session_mode_keeps_the_backend_and_resets_it() {
    check(
        session_mode(),
        "
        Q SET helios.region = 'eu'; SELECT 1
        Q SET work_mem = '1'
        Q RESET ALL
        Q SELECT 2
        Q DISCARD ALL
        Q SET helios.region = 'us'
        Q SELECT 3
        X
    ",
        expect![[r#"
        Q SET helios.region = 'eu'; SELECT 1
          C SET
          T
          D eu
          C SELECT 1
          Z I
            eu: Q                         ; SELECT 1
        Q SET work_mem = '1'
          C SET
          Z I
            eu: Q SET work_mem = '1'
        Q RESET ALL
          C RESET
          Z I
        Q SELECT 2
          audit: denied "" at Query by residency.unbound
          E ERROR 42000: blocked: no region is set for this session
          Z I
        Q DISCARD ALL
          audit: denied "" at Query by residency.unbound
          E ERROR 42000: blocked: no region is set for this session
          Z I
        Q SET helios.region = 'us'
          C SET
          Z I
        Q SELECT 3
          N NOTICE 00000: the session leaves its region; prepared statements, temporary tables and settings made there are gone
          T
          D us
          C SELECT 1
          Z I
            eu: Q DISCARD ALL
            us: Q SELECT 3
        X
          closed
            us: Q DISCARD ALL
    "#]],
    );
}

#[test]
fn a_function_call_passes_the_same_gate_in_every_state() {
    check(
        Setup { source: bound_to(&["eu", "us"]), ..transaction_mode() },
        "
        F
        Q SET helios.region = 'us'
        F
        Q BEGIN
        F
        Q SET helios.region = 'eu'
        F
        Q ROLLBACK
        Q BEGIN
        Q SELECT fail
        F
        Q ROLLBACK
        !grant eu
        F
        Q BEGIN
        F
        F
        Q ROLLBACK
        Q SET helios.region = 'eu'
        F
    ",
        expect![[r#"
            F
              V
              Z I
                eu: F
            Q SET helios.region = 'us'
              C SET
              Z I
            F
              V
              Z I
                us: F
            Q BEGIN
              C BEGIN
              Z T
            F
              V
              Z T
                us: Q BEGIN
                us: F
            Q SET helios.region = 'eu'
              E ERROR 25001: the region cannot change after a statement of the transaction has run (HINT)
              Z E
                us: E domicile: no such portal
                us: S
            F
              E ERROR 25P02: aborted (says the server)
              Z E
                us: F
            Q ROLLBACK
              C ROLLBACK
              Z I
                us: Q ROLLBACK
            Q BEGIN
              C BEGIN
              Z T
            Q SELECT fail
              E ERROR 01000: it fails
              Z E
                us: Q BEGIN
                us: Q SELECT fail
            F
              E ERROR 25P02: aborted (says the server)
              Z E
                us: F
            Q ROLLBACK
              C ROLLBACK
              Z I
                us: Q ROLLBACK
            !grant eu
            F
              audit: denied "us" at FunctionCall by residency.bind[0]
              E ERROR 42501: permission denied for region "us"
              Z I
            Q BEGIN
              C BEGIN
              Z T
            F
              audit: denied "us" at FunctionCall by residency.bind[0]
              E ERROR 42501: permission denied for region "us"
              Z E
            F
              E ERROR 25P02: current transaction is aborted, commands ignored until end of transaction block
              Z E
            Q ROLLBACK
              C ROLLBACK
              Z I
            Q SET helios.region = 'eu'
              C SET
              Z I
            F
              V
              Z I
                eu: F
        "#]],
    );
}
