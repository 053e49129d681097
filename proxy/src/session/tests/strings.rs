//! Texts that mean something else under `standard_conforming_strings = off`: each is read as the server will read it, or waits, or is
//! refused.

use expect_test::expect;

use super::world::{Setup, check, session_mode, transaction_mode};

#[test]
fn a_backslash_begins_an_escape_when_it_does_so_for_the_server() {
    check(
        session_mode(),
        r"
        Q SET helios.region = 'eu'
        Q SELECT '\'; SET helios.region = 'us'; SELECT 'on
        Q SET standard_conforming_strings = off
        Q SELECT '\'; SET helios.region = ''us''; SELECT off'
        Q SHOW helios.region
        Q SET helios.region = 'e\165'; SELECT 'escaped'
        Q SELECT 1; SELECT U&'no'
        Q SET standard_conforming_strings = on
        Q SELECT '\'; SET helios.region = 'us'
    ",
        expect![[r#"
            Q SET helios.region = 'eu'
              C SET
              Z I
            Q SELECT '\'; SET helios.region = 'us'; SELECT 'on
              E ERROR 42601: unterminated quoted string at or near "'on"
              Z I
                eu: Q SELECT 1
                eu: P :SELECT '\'; SET helios.region = 'us'; SELECT 'on
                eu: E domicile: no such portal
                eu: S
            Q SET standard_conforming_strings = off
              C SET
              S standard_conforming_strings=off
              Z I
                eu: Q SET standard_conforming_strings = off
            Q SELECT '\'; SET helios.region = ''us''; SELECT off'
              T
              D eu
              C SELECT 1
              C SET
              T
              D eu
              C SELECT 1
              Z I
                eu: Q SELECT '\'; SET helios.region = ''us''; SELECT off'
            Q SHOW helios.region
              T
              D eu
              C SHOW
              Z I
            Q SET helios.region = 'e\165'; SELECT 'escaped'
              C SET
              T
              D eu
              C SELECT 1
              Z I
                eu: Q                            ; SELECT 'escaped'
            Q SELECT 1; SELECT U&'no'
              E ERROR 0A000: unsafe use of string constant with Unicode escapes
              Z I
                eu: P :SELECT 1; SELECT U&'no'
                eu: E domicile: no such portal
                eu: S
            Q SET standard_conforming_strings = on
              C SET
              S standard_conforming_strings=on
              Z I
                eu: Q SET standard_conforming_strings = on
            Q SELECT '\'; SET helios.region = 'us'
              E ERROR 25001: the region cannot change after a statement of the transaction has run (HINT)
              Z I
        "#]],
    );
}

#[test]
fn what_may_change_before_the_text_comes_there_is_waited_for_or_refused() {
    check(
        session_mode(),
        r"
        Q SET helios.region = 'eu'
        Q SET standard_conforming_strings = off | Q SELECT '\'; SET helios.region = ''us''; SELECT off' | Q SET standard_conforming_strings = on | Q SELECT '\'; SELECT 'on'
        Q SELECT 1
        P :SET standard_conforming_strings = off | B : | E | P :SELECT '\'; SELECT 2 --' | B : | E | S
        P :SELECT 3 | B : | E | S | P :SELECT '\'; SELECT 4 --' | B : | E | S
        P :SELECT E'\'; SELECT 5 --' | B : | E | P :SELECT '\n' | B : | E | S
    ",
        expect![[r#"
        Q SET helios.region = 'eu'
          C SET
          Z I
        Q SET standard_conforming_strings = off | Q SELECT '\'; SET helios.region = ''us''; SELECT off' | Q SET standard_conforming_strings = on | Q SELECT '\'; SELECT 'on'
          C SET
          S standard_conforming_strings=off
          Z I
          T
          D eu
          C SELECT 1
          C SET
          T
          D eu
          C SELECT 1
          Z I
          C SET
          S standard_conforming_strings=on
          Z I
          T
          D eu
          C SELECT 1
          T
          D eu
          C SELECT 1
          Z I
            eu: Q SET standard_conforming_strings = off
            eu: Q SELECT '\'; SET helios.region = ''us''; SELECT off'
            eu: Q SET standard_conforming_strings = on
            eu: Q SELECT '\'; SELECT 'on'
        Q SELECT 1
          T
          D eu
          C SELECT 1
          Z I
            eu: Q SELECT 1
        P :SET standard_conforming_strings = off | B : | E | P :SELECT '\'; SELECT 2 --' | B : | E | S
          1
          2
          C SET
          E ERROR 0A000: the meaning of this text depends on standard_conforming_strings (HINT)
          S standard_conforming_strings=off
          Z I
            eu: P :SET standard_conforming_strings = off
            eu: B :
            eu: E 
            eu: E domicile: no such portal
            eu: S
        P :SELECT 3 | B : | E | S | P :SELECT '\'; SELECT 4 --' | B : | E | S
          1
          2
          D eu
          C SELECT 1
          Z I
          1
          2
          D eu
          C SELECT 1
          Z I
            eu: P :SELECT 3
            eu: B :
            eu: E 
            eu: S
            eu: P :SELECT '\'; SELECT 4 --'
            eu: B :
            eu: E 
            eu: S
        P :SELECT E'\'; SELECT 5 --' | B : | E | P :SELECT '\n' | B : | E | S
          1
          2
          D eu
          C SELECT 1
          1
          2
          D eu
          C SELECT 1
          Z I
            eu: P :SELECT E'\'; SELECT 5 --'
            eu: B :
            eu: E 
            eu: P :SELECT '\n'
            eu: B :
            eu: E 
            eu: S
    "#]],
    );
}

#[test]
fn in_transaction_mode_each_session_has_its_own() {
    check(
        Setup { size: 1, ..transaction_mode() },
        r"
        Q SET helios.region = 'eu'
        b> Q SET helios.region = 'eu'
        Q SET standard_conforming_strings = off
        b> Q SET standard_conforming_strings = on
        Q SELECT '\'; SELECT off'
        b> Q SELECT '\'; SELECT 'on'
        P s:SELECT '\'; SELECT off' | B :s | E | S
        b> P s:SELECT '\' | B :s | E | S
        B :s | E | S
    ",
        expect![[r#"
        Q SET helios.region = 'eu'
          C SET
          Z I
        b> Q SET helios.region = 'eu'
          b: C SET
          b: Z I
        Q SET standard_conforming_strings = off
          C SET
          S standard_conforming_strings=off
          Z I
            eu: Q SET standard_conforming_strings = off
        b> Q SET standard_conforming_strings = on
          b: C SET
          b: Z I
            eu: Q SELECT pg_catalog.set_config('standard_conforming_strings', 'on', false)
            eu: Q SET standard_conforming_strings = on
        Q SELECT '\'; SELECT off'
          T
          D eu
          C SELECT 1
          T
          D eu
          C SELECT 1
          Z I
            eu: Q SELECT pg_catalog.set_config('standard_conforming_strings', 'off', false)
            eu: Q SELECT '\'; SELECT off'
        b> Q SELECT '\'; SELECT 'on'
          b: T
          b: D eu
          b: C SELECT 1
          b: T
          b: D eu
          b: C SELECT 1
          b: Z I
            eu: Q SELECT pg_catalog.set_config('standard_conforming_strings', 'on', false)
            eu: Q SELECT '\'; SELECT 'on'
        P s:SELECT '\'; SELECT off' | B :s | E | S
          1
          2
          D eu
          C SELECT 1
          Z I
            eu: Q SELECT pg_catalog.set_config('standard_conforming_strings', 'off', false)
            eu: P domicile_b5ccefbd2947b652997268a27466fb53:SELECT '\'; SELECT off'
            eu: B :domicile_b5ccefbd2947b652997268a27466fb53
            eu: E 
            eu: S
        b> P s:SELECT '\' | B :s | E | S
          b: 1
          b: 2
          b: D eu
          b: C SELECT 1
          b: Z I
            eu: Q SELECT pg_catalog.set_config('standard_conforming_strings', 'on', false)
            eu: P domicile_c9f53dc5b2fafea8a91817ebad106435:SELECT '\'
            eu: B :domicile_c9f53dc5b2fafea8a91817ebad106435
            eu: E 
            eu: S
        B :s | E | S
          2
          D eu
          C SELECT 1
          Z I
            eu: Q SELECT pg_catalog.set_config('standard_conforming_strings', 'off', false)
            eu: B :domicile_b5ccefbd2947b652997268a27466fb53
            eu: E 
            eu: S
    "#]],
    );
}
