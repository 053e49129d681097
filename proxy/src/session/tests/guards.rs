//! Statements that a guard denies: they reach no server, and the session lives on with the status that PostgreSQL would tell.

use expect_test::expect;

use super::world::{Setup, check, session_mode, source, transaction_mode};
use crate::sql::{Guard, GuardSet};

/// What the conversations here are under: those about what a LOAD leaves behind need one.
pub(super) fn all_but_load() -> GuardSet {
    Guard::ALL.into_iter().filter(|guard| *guard != Guard::Load).collect()
}

#[test]
fn a_guarded_query_runs_nowhere() {
    check(
        transaction_mode(),
        "
        Q SET helios.region = 'eu'
        Q COPY t TO PROGRAM 'x'
        Q SELECT 1; SELECT dblink('x')
        Q BEGIN; ALTER SYSTEM SET a = 1
        Q BEGIN
        Q SELECT 1
        Q SELECT pg_read_file('x')
        Q SELECT pg_read_file('x')
        Q ROLLBACK
        Q SELECT 1
    ",
        expect![[r#"
            Q SET helios.region = 'eu'
              C SET
              Z I
            Q COPY t TO PROGRAM 'x'
              audit: denied "eu" at Query by guards.copy_program
              E ERROR 42501: permission denied: this statement could move data out of its region (guards.copy_program) (HINT)
              Z I
            Q SELECT 1; SELECT dblink('x')
              audit: denied "eu" at Query by guards.dblink
              E ERROR 42501: permission denied: this statement could move data out of its region (guards.dblink) (HINT)
              Z I
            Q BEGIN; ALTER SYSTEM SET a = 1
              audit: denied "eu" at Query by guards.alter_system
              E ERROR 42501: permission denied: this statement could move data out of its region (guards.alter_system) (HINT)
              Z I
            Q BEGIN
              C BEGIN
              Z T
            Q SELECT 1
              T
              D eu
              C SELECT 1
              Z T
                eu: Q BEGIN
                eu: Q SELECT 1
            Q SELECT pg_read_file('x')
              audit: denied "eu" at Query by guards.server_files
              E ERROR 42501: permission denied: this statement could move data out of its region (guards.server_files) (HINT)
              Z E
                eu: E domicile: no such portal
                eu: S
            Q SELECT pg_read_file('x')
              E ERROR 25P02: current transaction is aborted, commands ignored until end of transaction block
              Z E
            Q ROLLBACK
              C ROLLBACK
              Z I
                eu: Q ROLLBACK
            Q SELECT 1
              T
              D eu
              C SELECT 1
              Z I
                eu: Q SELECT 1
        "#]],
    );
}

#[test]
fn a_guarded_statement_is_not_prepared() {
    for setup in [transaction_mode(), session_mode()] {
        check(
            setup,
            "
        Q SET helios.region = 'eu'
        P a:COPY t TO '/x' | B :a | E | S
        P :SELECT lo_import('x') | B : | E | S
        P :SELECT dblink('x') | B : | E | P :SELECT 1 | B : | E | S
        Q BEGIN
        P :SELECT 1 | B : | E | S
        P :SELECT dblink('x') | B : | E | S
        P :SELECT dblink('x') | B : | E | S
        Q ROLLBACK
        P :SELECT 1 | B : | E | S
    ",
            expect![[r#"
                Q SET helios.region = 'eu'
                  C SET
                  Z I
                P a:COPY t TO '/x' | B :a | E | S
                  audit: denied "eu" at Parse by guards.copy_file
                  E ERROR 42501: permission denied: this statement could move data out of its region (guards.copy_file) (HINT)
                  Z I
                P :SELECT lo_import('x') | B : | E | S
                  audit: denied "eu" at Parse by guards.large_object_files
                  E ERROR 42501: permission denied: this statement could move data out of its region (guards.large_object_files) (HINT)
                  Z I
                P :SELECT dblink('x') | B : | E | P :SELECT 1 | B : | E | S
                  audit: denied "eu" at Parse by guards.dblink
                  E ERROR 42501: permission denied: this statement could move data out of its region (guards.dblink) (HINT)
                  Z I
                Q BEGIN
                  C BEGIN
                  Z T
                P :SELECT 1 | B : | E | S
                  1
                  2
                  D eu
                  C SELECT 1
                  Z T
                    eu: Q BEGIN
                    eu: P :SELECT 1
                    eu: B :
                    eu: E 
                    eu: S
                P :SELECT dblink('x') | B : | E | S
                  audit: denied "eu" at Parse by guards.dblink
                  E ERROR 42501: permission denied: this statement could move data out of its region (guards.dblink) (HINT)
                  Z E
                    eu: E domicile: no such portal
                    eu: S
                P :SELECT dblink('x') | B : | E | S
                  E ERROR 25P02: current transaction is aborted, commands ignored until end of transaction block
                  Z E
                Q ROLLBACK
                  C ROLLBACK
                  Z I
                    eu: Q ROLLBACK
                P :SELECT 1 | B : | E | S
                  1
                  2
                  D eu
                  C SELECT 1
                  Z I
                    eu: P :SELECT 1
                    eu: B :
                    eu: E 
                    eu: S
            "#]],
        );
    }
}

#[test]
fn a_dry_run_serves_what_a_guard_would_deny() {
    let source = crate::policy::Source { enforce: false, default_region: Some("us".into()), ..source() };
    check(
        Setup { source, ..transaction_mode() },
        "
        Q SET helios.region = 'eu'
        Q SELECT dblink('x')
        P :SELECT dblink('x') | B : | E | S
    ",
        expect![[r#"
            Q SET helios.region = 'eu'
              C SET
              Z I
            Q SELECT dblink('x')
              audit: would block "eu" at Query by guards.dblink
              T
              D eu
              C SELECT 1
              Z I
                eu: Q SELECT dblink('x')
            P :SELECT dblink('x') | B : | E | S
              audit: would block "eu" at Parse by guards.dblink
              1
              2
              D eu
              C SELECT 1
              Z I
                eu: P :SELECT dblink('x')
                eu: B :
                eu: E 
                eu: S
        "#]],
    );
}

#[test]
fn a_function_call_is_guarded_by_its_number() {
    check(
        transaction_mode(),
        "
        Q SET helios.region = 'eu'
        F 952
        F 765
        F 16384
        Q BEGIN; SELECT 1
        F 2624
        F 2624
        Q ROLLBACK
    ",
        expect![[r#"
            Q SET helios.region = 'eu'
              C SET
              Z I
            F 952
              V
              Z I
                eu: F
            F 765
              audit: denied "eu" at FunctionCall by guards.large_object_files
              E ERROR 42501: permission denied: this statement could move data out of its region (guards.large_object_files) (HINT)
              Z I
            F 16384
              audit: denied "eu" at FunctionCall by guards.function_calls
              E ERROR 42501: permission denied: this statement could move data out of its region (guards.function_calls) (HINT)
              Z I
            Q BEGIN; SELECT 1
              C BEGIN
              T
              D eu
              C SELECT 1
              Z T
                eu: Q BEGIN; SELECT 1
            F 2624
              audit: denied "eu" at FunctionCall by guards.server_files
              E ERROR 42501: permission denied: this statement could move data out of its region (guards.server_files) (HINT)
              Z E
                eu: E domicile: no such portal
                eu: S
            F 2624
              E ERROR 25P02: current transaction is aborted, commands ignored until end of transaction block
              Z E
            Q ROLLBACK
              C ROLLBACK
              Z I
                eu: Q ROLLBACK
        "#]],
    );
}
