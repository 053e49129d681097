//! Sessions for replication: data in both directions, a backend of their own, and one region.

use expect_test::expect;

use super::world::{Setup, bound_to, check, transaction_mode};

fn bound() -> Setup {
    Setup { source: bound_to(&["eu", "us"]), ..transaction_mode() }
}

#[test]
fn data_goes_both_ways_until_both_sides_have_ended_it() {
    check(
        bound(),
        "
        !replicate a physical
        Q IDENTIFY_SYSTEM
        Q START_REPLICATION SLOT s PHYSICAL 0/1 TIMELINE 1
        d status | d status
        !server eu wal
        c
        Q START_REPLICATION 0/1 ends
        d late
        c
        Q START_REPLICATION 0/1 fails
        d late | c
        Q IDENTIFY_SYSTEM
        X
    ",
        expect![[r#"
            !replicate a physical
              open: eu, for physical replication
            Q IDENTIFY_SYSTEM
              C IDENTIFY_SYSTEM
              Z I
                eu: Q IDENTIFY_SYSTEM
            Q START_REPLICATION SLOT s PHYSICAL 0/1 TIMELINE 1
              W
              d
                eu: Q START_REPLICATION SLOT s PHYSICAL 0/1 TIMELINE 1
            d status | d status
              d
              d
                eu: d status
                eu: d status
            !server eu wal
              d
            c
              c
              C COPY 0
              C START_REPLICATION
              Z I
                eu: c
            Q START_REPLICATION 0/1 ends
              W
              d
              c
                eu: Q START_REPLICATION 0/1 ends
            d late
                eu: d late
            c
              C COPY 0
              C START_REPLICATION
              Z I
                eu: c
            Q START_REPLICATION 0/1 fails
              W
              d
              E ERROR 01000: it fails
              Z I
                eu: Q START_REPLICATION 0/1 fails
            d late | c
            Q IDENTIFY_SYSTEM
              C IDENTIFY_SYSTEM
              Z I
                eu: Q IDENTIFY_SYSTEM
            X
              closed
                eu: closed: Terminate
        "#]],
    );
}

#[test]
fn what_has_no_place_in_a_stream_ends_the_session() {
    check(
        bound(),
        "
        !replicate a physical
        Q START_REPLICATION 0/1
        Q SELECT 1
        !kill eu
    ",
        expect![[r#"
            !replicate a physical
              open: eu, for physical replication
            Q START_REPLICATION 0/1
              W
              d
                eu: Q START_REPLICATION 0/1
            Q SELECT 1
              E FATAL 08P01: invalid standby message type
                eu: Q SELECT 1
            !kill eu
              closed
        "#]],
    );
    check(
        bound(),
        "
        !replicate a physical
        Q START_REPLICATION 0/1
        f enough
    ",
        expect![[r#"
            !replicate a physical
              open: eu, for physical replication
            Q START_REPLICATION 0/1
              W
              d
                eu: Q START_REPLICATION 0/1
            f enough
              E FATAL 08P01: invalid standby message type
                eu: f enough
        "#]],
    );
}

#[test]
fn its_texts_are_not_read_and_its_region_stays() {
    check(
        bound(),
        "
        !replicate a logical us
        Q SET domicile.region = 'eu'
        Q SHOW domicile.region
        Q CREATE_REPLICATION_SLOT s LOGICAL test_decoding (SNAPSHOT 'nothing
        P :SELECT 1 | B : | E | S
        F
        Q IDENTIFY_SYSTEM
    ",
        expect![[r#"
            !replicate a logical us
              open: us, for logical replication
            Q SET domicile.region = 'eu'
              C SET
              Z I
                us: Q SET domicile.region = 'eu'
            Q SHOW domicile.region
              C SHOW
              Z I
                us: Q SHOW domicile.region
            Q CREATE_REPLICATION_SLOT s LOGICAL test_decoding (SNAPSHOT 'nothing
              C CREATE_REPLICATION_SLOT
              Z I
                us: Q CREATE_REPLICATION_SLOT s LOGICAL test_decoding (SNAPSHOT 'nothing
            P :SELECT 1 | B : | E | S
              1
              2
              D us
              C SELECT 1
              Z I
                us: P :SELECT 1
                us: B :
                us: E 
                us: S
            F
              V
              Z I
                us: F
            Q IDENTIFY_SYSTEM
              C IDENTIFY_SYSTEM
              Z I
                us: Q IDENTIFY_SYSTEM
        "#]],
    );
}

#[test]
fn nobody_else_gets_its_backend() {
    check(
        bound(),
        "
        !replicate a physical
        a> Q IDENTIFY_SYSTEM
        b> Q SELECT 1
        !replicate c physical
        c> Q IDENTIFY_SYSTEM
        !replicate d logical
        d> Q IDENTIFY_SYSTEM
        a> X
        !replicate e physical
        e> Q IDENTIFY_SYSTEM
        e> Q START_REPLICATION 0/1
        !leave e
        b> Q SELECT 1
    ",
        expect![[r#"
            !replicate a physical
              open: eu, for physical replication
            a> Q IDENTIFY_SYSTEM
              C IDENTIFY_SYSTEM
              Z I
                eu: Q IDENTIFY_SYSTEM
            b> Q SELECT 1
              b: T
              b: D eu
              b: C SELECT 1
              b: Z I
                eu: Q SELECT 1
            !replicate c physical
              open: eu, for physical replication
            c> Q IDENTIFY_SYSTEM
              c: C IDENTIFY_SYSTEM
              c: Z I
                eu: Q IDENTIFY_SYSTEM
            !replicate d logical
              open: eu, for logical replication
            d> Q IDENTIFY_SYSTEM
              d: C IDENTIFY_SYSTEM
              d: Z I
                eu: Q IDENTIFY_SYSTEM
            a> X
              closed
                eu: closed: Terminate
            !replicate e physical
              open: eu, for physical replication
            e> Q IDENTIFY_SYSTEM
              e: C IDENTIFY_SYSTEM
              e: Z I
                eu: Q IDENTIFY_SYSTEM
            e> Q START_REPLICATION 0/1
              e: W
              e: d
                eu: Q START_REPLICATION 0/1
            !leave e
                eu: closed: Abrupt
            b> Q SELECT 1
              b: T
              b: D eu
              b: C SELECT 1
              b: Z I
                eu: Q SELECT 1
        "#]],
    );
}

#[test]
fn a_region_that_is_not_granted_is_denied() {
    check(
        bound(),
        "
        !replicate a physical eu
        Q IDENTIFY_SYSTEM
        !grant us
        Q IDENTIFY_SYSTEM
        !grant-only-queries eu us
        Q IDENTIFY_SYSTEM
        !grant eu us
        Q IDENTIFY_SYSTEM
    ",
        expect![[r#"
            !replicate a physical eu
              open: eu, for physical replication
            Q IDENTIFY_SYSTEM
              C IDENTIFY_SYSTEM
              Z I
                eu: Q IDENTIFY_SYSTEM
            !grant us
            Q IDENTIFY_SYSTEM
              audit: denied "eu" at Query by residency.bind[0]
              E ERROR 42501: permission denied for region "eu"
              Z I
            !grant-only-queries eu us
            Q IDENTIFY_SYSTEM
              E ERROR 0A000: replication connections are not permitted for this login (HINT)
              Z I
            !grant eu us
            Q IDENTIFY_SYSTEM
              C IDENTIFY_SYSTEM
              Z I
                eu: Q IDENTIFY_SYSTEM
        "#]],
    );
}

#[test]
fn a_stream_ends_when_its_region_is_withdrawn() {
    check(
        bound(),
        "
        !replicate a physical
        Q START_REPLICATION 0/1
        !grant eu
        !server eu wal
        d status
        !grant us
        !server eu wal
    ",
        expect![[r#"
            !replicate a physical
              open: eu, for physical replication
            Q START_REPLICATION 0/1
              W
              d
                eu: Q START_REPLICATION 0/1
            !grant eu
            !server eu wal
              d
            d status
              d
                eu: d status
            !grant us
            !server eu wal
              audit: denied "eu" at CopyData by residency.bind[0]
              E FATAL 42501: permission denied for region "eu"
              closed
                eu: closed: Abrupt
        "#]],
    );
    check(
        bound(),
        "
        !replicate a physical
        Q START_REPLICATION 0/1
        !grant-only-queries eu us
        d status
    ",
        expect![[r#"
            !replicate a physical
              open: eu, for physical replication
            Q START_REPLICATION 0/1
              W
              d
                eu: Q START_REPLICATION 0/1
            !grant-only-queries eu us
            d status
              E FATAL 0A000: replication connections are not permitted for this login (HINT)
              closed
                eu: d status
                eu: closed: Abrupt
        "#]],
    );
}

#[test]
fn the_end_of_work_ends_a_stream_and_lets_other_commands_end() {
    check(
        bound(),
        "
        !replicate a physical
        Q START_REPLICATION 0/1
        !replicate b physical
        !freeze
        b> Q BASE_BACKUP
        !drain
        !thaw
    ",
        expect![[r#"
            !replicate a physical
              open: eu, for physical replication
            Q START_REPLICATION 0/1
              W
              d
                eu: Q START_REPLICATION 0/1
            !replicate b physical
              open: eu, for physical replication
            !freeze
            b> Q BASE_BACKUP
                eu: Q BASE_BACKUP
            !drain
              E FATAL 57P01: terminating connection due to administrator command
              closed
                eu: closed: Abrupt
            !thaw
              b: C BASE_BACKUP
              b: Z I
                eu: closed: Terminate
              b: E FATAL 57P01: terminating connection due to administrator command
              b: closed
        "#]],
    );
    check(
        bound(),
        "
        !replicate a physical
        !freeze
        Q START_REPLICATION 0/1
        !drain
        !thaw
    ",
        expect![[r#"
            !replicate a physical
              open: eu, for physical replication
            !freeze
            Q START_REPLICATION 0/1
                eu: Q START_REPLICATION 0/1
            !drain
            !thaw
              W
              E FATAL 57P01: terminating connection due to administrator command
              closed
                eu: closed: Abrupt
        "#]],
    );
}
