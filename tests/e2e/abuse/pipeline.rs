//! Much at once: long pipelines, answers that nobody reads, and clients that leave in the middle.

use domicile_tests::message as m;

use super::case::Case;
use super::peer::Peer;

const END_OF_STREAM: &str = "to the proxy a client that ends its side has left, although it may still be reading";

/// Messages of each type that come until the count of the first one is reached.
fn counted(peer: &mut Peer<'_>, tag: u8, count: usize) {
    let mut came = 0;
    while came < count && peer.skip_one(tag) {
        came += 1;
    }
    peer.found(format!("{came} {}", char::from(tag)));
}

pub fn cases() -> Vec<Case> {
    vec![
        Case::within("pipeline_queries_2000", "2000 Z / alive", |peer| {
            peer.send(&m::query("SELECT 1").repeat(2000));
            counted(peer, b'Z', 2000);
        }),
        Case::within("pipeline_syncs_10000", "10000 Z / alive", |peer| {
            peer.send(&m::sync().repeat(10_000));
            counted(peer, b'Z', 10_000);
        }),
        Case::within("pipeline_units_1000", "1000 Z / alive", |peer| {
            peer.send(&[m::prepared("", "SELECT 1"), m::sync()].concat().repeat(1000));
            counted(peer, b'Z', 1000);
        }),
        Case::within("pipeline_one_unit_of_1000", "1000 C / Z I / alive", |peer| {
            peer.send(&[m::prepared("", "SELECT 1").repeat(1000), m::sync()].concat());
            counted(peer, b'C', 1000);
        }),
        Case::within("pipeline_errors_1000", "1000 E / Z I / alive", |peer| {
            peer.send(&[m::parse("", "SELEC"), m::sync()].concat().repeat(1000));
            counted(peer, b'E', 1000);
        }),
        Case::within(
            "pipeline_mixed",
            "Z I / 1 / 2 / T ?column? / D 2 / C SELECT 1 / Z I / E 42601 / Z I / I / Z I / alive",
            |peer| {
                peer.send(
                    &[m::sync(), m::prepared("", "SELECT 2"), m::sync(), m::parse("", "SELEC"), m::sync(), m::query("")].concat(),
                );
            },
        ),
        Case::within("pipeline_then_half_close", "0 Z / closed", |peer| {
            peer.send(&m::query("SELECT 1").repeat(50));
            peer.half_close();
            counted(peer, b'Z', 50);
        })
        .directly("50 Z / closed", END_OF_STREAM)
        // The end is a record of its own there, which comes when it comes.
        .unencrypted(),
        Case::within("half_close_after_query", "closed", |peer| {
            peer.send(&m::query("SELECT 1"));
            peer.half_close();
        })
        .directly("T ?column? / D 1 / C SELECT 1 / Z I / closed", END_OF_STREAM),
        Case::within("half_close_during_query", "closed", |peer| {
            peer.send(&m::query("SELECT pg_sleep(0.2)"));
            peer.half_close();
        })
        .directly("T pg_sleep / D  / C SELECT 1 / Z I / closed", END_OF_STREAM),
        Case::within("half_close_in_transaction", "closed", |peer| {
            peer.quietly("BEGIN; SELECT 1");
            peer.send(&m::query("SELECT 1"));
            peer.half_close();
        })
        .directly("T ?column? / D 1 / C SELECT 1 / Z T / closed", END_OF_STREAM),
        Case::within("half_close_without_sync", "1 / closed | closed", |peer| {
            peer.send(&[m::parse("", "SELECT 1"), m::flush()].concat());
            peer.half_close();
        }),
        Case::within("rst_during_query", "gone", |peer| {
            peer.send(&m::query("SELECT pg_sleep(0.1)"));
            peer.reset_when_dropped();
        }),
        Case::within("rst_in_the_middle_of_a_result", "gone", |peer| {
            peer.send(&m::query("SELECT repeat('x', 1000) FROM generate_series(1, 200000)"));
            peer.skip_one(b'D');
            peer.reset_when_dropped();
        }),
        Case::within("close_in_the_middle_of_a_result", "gone", |peer| {
            peer.send(&m::query("SELECT repeat('x', 1000) FROM generate_series(1, 200000)"));
            peer.skip_one(b'D');
        }),
        Case::within("result_never_read", "gone", |peer| {
            peer.send(&m::query("SELECT repeat('x', 1000) FROM generate_series(1, 100000)").repeat(20));
            peer.reset_when_dropped();
        }),
        Case::within("rst_in_the_middle_of_a_pipeline", "gone", |peer| {
            peer.send(&[m::prepared("", "SELECT 1"), m::sync()].concat().repeat(500));
            peer.skip_one(b'C');
            peer.reset_when_dropped();
        }),
        Case::within("slow_reader", "1 C / Z I / alive", |peer| {
            peer.send(&m::query("SELECT repeat('x', 100) FROM generate_series(1, 20000)"));
            counted(peer, b'C', 1);
        }),
        Case::within("prepared_flood_3000", "3000 1 / Z I / alive", |peer| {
            let parses: Vec<u8> = (0..3000).flat_map(|number| m::parse(&format!("s{number}"), "SELECT 1")).collect();
            peer.send(&[parses, m::sync()].concat());
            counted(peer, b'1', 3000);
        }),
        Case::within("portal_flood_3000", "3000 2 / Z I / alive", |peer| {
            let binds: Vec<u8> = (0..3000).flat_map(|number| m::bind(&format!("p{number}"), "", &[])).collect();
            peer.send(&[m::parse("", "SELECT 1"), binds, m::sync()].concat());
            counted(peer, b'2', 3000);
        }),
        Case::within("local_portal_flood_900", "900 2 / Z I / alive", |peer| {
            let binds: Vec<u8> = (0..900).flat_map(|number| m::bind(&format!("p{number}"), "", &[])).collect();
            peer.send(&[m::parse("", "BEGIN"), binds, m::sync()].concat());
            counted(peer, b'2', 900);
        }),
        Case::within("savepoint_flood_2000", "2000 Z / alive", |peer| {
            peer.quietly("BEGIN");
            peer.send(&m::query("SAVEPOINT s").repeat(2000));
            counted(peer, b'Z', 2000);
        }),
        Case::within("begin_flood_1000", "1000 Z / alive", |peer| {
            peer.send(&m::query("BEGIN").repeat(1000));
            counted(peer, b'Z', 1000);
        }),
        Case::within("setting_flood_1000", "1000 Z / alive", |peer| {
            let texts: Vec<u8> = (0..1000).flat_map(|number| m::query(&format!("SET abuse.s{number} = 'x'"))).collect();
            peer.send(&texts);
            counted(peer, b'Z', 1000);
        }),
        Case::within("notice_flood", "C DO / Z I / alive", |peer| {
            peer.send(&m::query("DO $$BEGIN FOR n IN 1..20000 LOOP RAISE NOTICE 'x'; END LOOP; END$$"));
        }),
        Case::within("parameter_status_flood", "C DO / Z I / alive", |peer| {
            let flood =
                "DO $$BEGIN FOR n IN 1..2000 LOOP PERFORM set_config('application_name', n::text, false); END LOOP; END$$";
            peer.send(&m::query(flood));
        }),
    ]
}
