//! Cancel requests: of nobody, of the wrong one, malformed, doubled, and with more behind them.

use domicile_tests::message as m;

use super::case::Case;
use super::peer::Peer;

/// Process ID and secret.
type Key = (u32, Vec<u8>);

/// Sends a cancel request by itself and waits until its connection is closed.
fn cancel(peer: &Peer<'_>, (process_id, secret): (u32, &[u8])) -> String {
    let mut other = peer.another();
    other.send(&m::cancel_request(process_id, secret));
    other.outcome("closed")
}

/// A session sleeps; the key of `change` is shown; the statement goes on for as long as it would.
fn unharmed(name: &str, change: fn(Key) -> Key) -> Case {
    Case::within(name, "closed / T pg_sleep / D  / C SELECT 1 / Z I / alive", move |peer| {
        peer.send(&m::query("SELECT pg_sleep(0.3)"));
        let (process_id, secret) = change(peer.key.clone());
        let said = cancel(peer, (process_id, &secret));
        peer.found(said);
    })
}

pub fn cases() -> Vec<Case> {
    let any = m::cancel_request(4711, b"none");
    vec![
        Case::bytes("cancel_random_key", "closed", any.clone()),
        Case::bytes("cancel_process_0", "closed", m::cancel_request(0, b"none")),
        Case::bytes("cancel_process_max", "closed", m::cancel_request(u32::MAX, &[0xff; 4])),
        Case::bytes("cancel_short", "closed", m::packet(80_877_102, &[0, 0, 0, 1])),
        Case::bytes("cancel_shorter", "closed", m::packet(80_877_102, &[])),
        Case::bytes("cancel_key_256", "closed", m::cancel_request(1, &[7; 256])),
        Case::bytes("cancel_key_4000", "closed", m::cancel_request(1, &[7; 4000])),
        Case::bytes("cancel_truncated_wait", "waits", any[..12].to_vec()),
        Case::bytes("cancel_trailing_query", "closed", [any.clone(), m::query("SELECT 1")].concat()),
        Case::bytes("cancel_twice_glued", "closed", [any.clone(), any].concat()),
        Case::new("cancel_byte_at_a_time", "closed", |peer| peer.send_slowly(&m::cancel_request(4711, b"none"))),
        Case::within("cancel_while_idle", "closed / alive", |peer| {
            let said = cancel(peer, (peer.key.0, &peer.key.1));
            peer.found(said);
        }),
        Case::within("cancel_running", "closed / E 57014 / Z I / alive", |peer| {
            // A notice is sent at once.
            peer.send(&m::query("DO $$BEGIN RAISE NOTICE 'begun'; PERFORM pg_sleep(60); END$$"));
            peer.skip_notice("begun");
            let said = cancel(peer, (peer.key.0, &peer.key.1));
            peer.found(said);
            peer.until(b'Z');
        }),
        Case::within("cancel_idle_in_transaction", "closed / alive", |peer| {
            peer.quietly("BEGIN; SELECT 1");
            let said = cancel(peer, (peer.key.0, &peer.key.1));
            peer.found(said);
        }),
        Case::within("cancel_stale_key_hits_nobody", "closed / alive", |peer| {
            let mut left = peer.another();
            left.login();
            let key = left.key.clone();
            left.send(&m::terminate());
            assert_eq!(left.outcome("closed"), "closed");
            let said = cancel(peer, (key.0, &key.1));
            peer.found(said);
        }),
        unharmed("cancel_wrong_secret", |(process_id, mut secret)| {
            secret[0] ^= 1;
            (process_id, secret)
        }),
        unharmed("cancel_longer_secret", |(process_id, mut secret)| {
            secret.push(0);
            (process_id, secret)
        }),
        unharmed("cancel_shorter_secret", |(process_id, mut secret)| {
            secret.pop();
            (process_id, secret)
        }),
        unharmed("cancel_wrong_process", |(process_id, secret)| (process_id ^ 1, secret)),
    ]
}
