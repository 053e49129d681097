//! COPY out of place, cut, refused, and with everything in it that does not belong there.

use domicile_tests::message as m;

use super::case::Case;
use super::peer::Peer;

const LOST: &str = "E 08006 / F 08P01 / closed";
const READS_ON: &str = "it tells a client that has stopped to speak";

/// Has a server wait for COPY data.
fn begin(peer: &mut Peer<'_>) {
    peer.login();
    peer.quietly("CREATE TEMPORARY TABLE abuse (a int)");
    peer.send(&m::query("COPY abuse FROM STDIN"));
    peer.skip_one(b'G');
}

/// What is sent while a server waits for COPY data.
fn inside(name: &str, expected: &'static str, bytes: impl Into<Vec<u8>>) -> Case {
    let bytes = bytes.into();
    Case::new(name, expected, move |peer| {
        begin(peer);
        peer.send(&bytes);
    })
}

/// The same in the extended protocol.
fn inside_unit(name: &str, expected: &'static str, bytes: impl Into<Vec<u8>>) -> Case {
    let bytes = bytes.into();
    Case::new(name, expected, move |peer| {
        peer.login();
        peer.quietly("CREATE TEMPORARY TABLE abuse (a int)");
        peer.send(&[m::parse("", "COPY abuse FROM STDIN"), m::bind("", "", &[]), m::execute("", 0), m::flush()].concat());
        peer.skip_one(b'G');
        peer.send(&bytes);
    })
}

pub fn cases() -> Vec<Case> {
    let data = m::copy_data;
    let done = m::copy_done;
    let one = "C COPY 1 / Z I / alive";
    let lost = "E 08P01 / F 08P01 / closed";
    vec![
        Case::sends(
            "copy_data_outside",
            "T ?column? / D 1 / C SELECT 1 / Z I / alive",
            [data("1\n"), m::query("SELECT 1")].concat(),
        ),
        Case::sends("copy_done_outside", "T ?column? / D 1 / C SELECT 1 / Z I / alive", [done(), m::query("SELECT 1")].concat()),
        Case::sends(
            "copy_fail_outside",
            "T ?column? / D 1 / C SELECT 1 / Z I / alive",
            [m::copy_fail("no"), m::query("SELECT 1")].concat(),
        ),
        Case::sends(
            "copy_flood_outside",
            "T ?column? / D 1 / C SELECT 1 / Z I / alive",
            [data("1\n").repeat(1000), m::query("SELECT 1")].concat(),
        ),
        inside("copyin_good", one, [data("1\n"), done()].concat()),
        inside("copyin_cut_into_bytes", one, [data("1"), data("\n"), data(""), done()].concat()),
        inside("copyin_no_data", "C COPY 0 / Z I / alive", done()),
        inside("copyin_fail", "E 57014 / Z I / alive", m::copy_fail("no")),
        inside("copyin_fail_without_nul", "E 08P01 / Z I / alive", m::message(b'f', b"no")),
        inside("copyin_done_with_body", one, [data("1\n"), m::message(b'c', b"more")].concat()),
        inside("copyin_bad_data", "E 22P02 / Z I / alive", [data("x\n"), done()].concat()),
        inside("copyin_bad_data_goes_on", "E 22P02 / Z I / alive", [data("x\n").repeat(1000), done()].concat()),
        inside("copyin_not_utf8", "E 22021 / Z I / alive", [m::message(b'd', b"\xff\xfe\n"), done()].concat()),
        inside("copyin_end_marker_then_more", one, [data("1\n\\.\n2\n"), data("x\n"), done()].concat()),
        inside("copyin_message_inside_data", "E 22021 / Z I / alive", [m::message(b'd', &m::query("SELECT 1")), done()].concat()),
        inside("copyin_sync_ignored", one, [m::sync().repeat(50), data("1\n"), m::flush(), m::sync(), done()].concat()),
        inside("copyin_sync_with_body", one, [m::message(b'S', b"x"), data("1\n"), done()].concat()),
        inside("copyin_flush_with_body", one, [m::message(b'H', b"x"), data("1\n"), done()].concat()),
        inside("copyin_query_inside", lost, m::query("SELECT 1")),
        inside("copyin_parse_inside", lost, m::parse("", "SELECT 1")),
        inside("copyin_terminate_inside", "closed", m::terminate()).directly(lost, "who says goodbye is told nothing"),
        inside("copyin_unknown_type_inside", "F 08P01 / closed", m::message(b'!', b"")).directly(lost, "there it is two errors"),
        inside("copyin_len_3_inside", "dropped", *b"d\0\0\0\x03").directly(LOST, READS_ON),
        inside("copyin_1g_then_wait", "waits", *b"d\x3f\xff\xff\xfesome"),
        inside("copyin_done_twice", one, [data("1\n"), done(), done()].concat()),
        inside("copyin_data_behind_done", one, [data("1\n"), done(), data("2\n")].concat()),
        inside(
            "copyin_query_behind_done",
            "C COPY 1 / Z I / T ?column? / D 7 / C SELECT 1 / Z I / alive",
            [data("1\n"), done(), m::query("SELECT 7")].concat(),
        ),
        Case::new("copyin_reset", "gone", |peer| {
            begin(peer);
            peer.send(&m::copy_data("1\n"));
            peer.reset_when_dropped();
        }),
        Case::new("copyin_half_close", "closed", |peer| {
            begin(peer);
            peer.send(&m::copy_data("1\n"));
            peer.half_close();
        })
        .directly(LOST, READS_ON),
        Case::new("copyin_byte_at_a_time", one, |peer| {
            begin(peer);
            peer.send_slowly(&[m::copy_data("1\n"), m::copy_done()].concat());
        }),
        inside_unit("copyin_extended_good", "C COPY 1 / Z I / alive", [data("1\n"), done(), m::sync()].concat()),
        inside_unit("copyin_extended_fail", "E 57014 / Z I / alive", [m::copy_fail("no"), m::sync()].concat()),
        inside_unit(
            "copyin_extended_fail_skips",
            "E 57014 / Z I / alive",
            [m::copy_fail("no"), m::prepared("", "SELECT 1"), m::sync()].concat(),
        ),
        inside_unit(
            "copyin_extended_sync_inside",
            "C COPY 1 / Z I / alive",
            [m::sync(), data("1\n"), done(), m::sync()].concat(),
        ),
        inside_unit("copyin_extended_bad_data", "E 22P02 / Z I / alive", [data("x\n"), data("y\n"), done(), m::sync()].concat()),
        Case::sends(
            "copyout_data_meanwhile",
            "H / d 1 / c / C COPY 1 / Z I / alive",
            [m::query("COPY (SELECT 1) TO STDOUT"), data("1\n"), done()].concat(),
        ),
        Case::within("copyout_reset", "gone", |peer| {
            peer.send(&m::query("COPY (SELECT repeat('x', 1000) FROM generate_series(1, 100000)) TO STDOUT"));
            peer.skip_one(b'H');
            peer.reset_when_dropped();
        }),
        Case::sends(
            "copyout_error_inside",
            "H / d 1 / E 22012 / Z I / alive",
            m::query("COPY (SELECT 1 / (2 - n) FROM generate_series(1, 3) n) TO STDOUT"),
        ),
    ]
}
