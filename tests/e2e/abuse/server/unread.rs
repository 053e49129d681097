//! Servers that say more than anybody reads, or nothing any more.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use domicile_tests::client::Client;
use domicile_tests::fake::{Conversation, FakeServer, columns, row};
use domicile_tests::message as m;
use domicile_tests::process::wait_for;
use domicile_tests::proxy::{Configuration, Proxy};
use domicile_tests::skip::{available, io_uring};
use domicile_tests::transcript::End;

use super::{BYSTANDER_PATIENCE, PATIENCE, brief, bystander, client_of, configuration, good_server};
use crate::world::{start, tail, while_running};

/// Clients that do not read.
const CLIENTS: usize = 64;
/// What they may cost: the receive buffers of two workers, which are used for the first time here and hold what waits to be sent, and
/// something for each of them. What they are sent is without end.
const GROWTH_KIB_MAX: u64 = (32 << 10) + 64 * 128;

/// A server that answers every Query of database `hostile` by `script`.
fn server(script: impl Fn(&mut Conversation) -> io::Result<()> + Send + Sync + 'static) -> FakeServer {
    let conversation = move |with: &mut Conversation| {
        with.begin()?;
        with.admit()?;
        if with.startup.get("database").is_none_or(|name| name != "hostile") {
            return with.serve(|_, _, _| Ok(false));
        }
        with.serve_until(b'Q')?;
        script(with)
    };
    FakeServer::start(conversation).expect("a listening socket")
}

/// A proxy before a good server and this one, whose region is `hostile`.
fn proxy(hostile: &FakeServer, good: &FakeServer, more: &str) -> Proxy {
    let servers = [("good".to_owned(), good), ("hostile".to_owned(), hostile)];
    let pools = format!("size = {CLIENTS}\n");
    start(&Configuration { pools, more: more.to_owned(), ..configuration("transaction", "", &servers) })
}

/// Asks once, and reads nothing.
fn asks(proxy: &Proxy) -> Client {
    let mut client = client_of(proxy, "hostile", "hostile");
    client.set_patience(PATIENCE);
    client.send(&m::query("SELECT 1"));
    client
}

#[test]
fn endless_rows_that_nobody_reads_take_no_memory_and_end_with_their_client() {
    if available(io_uring()).is_none() {
        return;
    }
    let sent = Arc::new(AtomicU64::new(0));
    let counts = Arc::clone(&sent);
    let hostile = server(move |with| {
        with.send(&columns())?;
        let rows = row(&"x".repeat(1000)).repeat(64);
        loop {
            with.send(&rows)?;
            counts.fetch_add(rows.len() as u64, Ordering::Relaxed);
        }
    });
    let good = good_server(None);
    let proxy = proxy(&hostile, &good, "");
    drop(client_of(&proxy, "good", "demo"));
    let before = proxy.memory_kib();
    let (beside, ()) = while_running(
        |goes_on| bystander(&proxy, goes_on),
        || {
            let mut clients: Vec<Client> = (0..CLIENTS).map(|_| asks(&proxy)).collect();
            // The servers are not read any more either.
            let stands = wait_for(PATIENCE, || {
                let so_far = sent.load(Ordering::Relaxed);
                thread::sleep(Duration::from_millis(300));
                (so_far > 0 && so_far == sent.load(Ordering::Relaxed)).then_some(())
            });
            assert!(stands.is_some(), "{} bytes, and no end", sent.load(Ordering::Relaxed));
            let grown = proxy.memory_peak_kib().saturating_sub(before);
            assert!(grown < GROWTH_KIB_MAX, "{grown} KiB for {CLIENTS} clients that do not read");
            // Who reads on gets on, and may leave in the middle; so may all others.
            let mut rows = 0;
            let said = clients[0].until(|message| {
                rows += u32::from(message.tag == b'D');
                rows == 20_000
            });
            assert_eq!((said.end, rows), (End::Reached, 20_000));
            for (number, client) in clients.into_iter().enumerate() {
                if number % 2 == 0 {
                    client.reset_when_dropped();
                }
            }
            assert!(wait_for(PATIENCE, || (hostile.open() == 0).then_some(())).is_some(), "{} are left open", hostile.open());
        },
    );
    let longest = beside.unwrap_or_else(|fault| panic!("{fault}\n{}", tail(&proxy.log())));
    assert!(longest < BYSTANDER_PATIENCE, "a session that has nothing to do with it waited for {longest:?}");
    let grown = proxy.memory_peak_kib().saturating_sub(before);
    assert!(grown < GROWTH_KIB_MAX, "{grown} KiB for {CLIENTS} clients");
}

/// A server that begins an answer and does not go on.
fn silent() -> FakeServer {
    server(|with| {
        with.send(&[columns(), row("x")].concat())?;
        with.until_closed()
    })
}

#[test]
fn a_client_that_leaves_a_silent_server_leaves_nothing_there() {
    if available(io_uring()).is_none() {
        return;
    }
    let (hostile, good) = (silent(), good_server(None));
    let proxy = proxy(&hostile, &good, "");
    let mut clients: Vec<Client> = (0..CLIENTS).map(|_| asks(&proxy)).collect();
    for client in &mut clients {
        assert_eq!(brief(&client.until(|message| message.tag == b'D')), "T answer / D x");
    }
    drop(clients);
    assert!(wait_for(PATIENCE, || (hostile.open() == 0).then_some(())).is_some(), "{} are left open", hostile.open());
}

/// It is cancelled, of which a silent server takes no notice, and then it is over.
#[test]
fn a_server_that_goes_silent_is_waited_for_as_long_as_a_statement_may_take() {
    if available(io_uring()).is_none() {
        return;
    }
    let (hostile, good) = (silent(), good_server(None));
    let proxy = proxy(&hostile, &good, "[limits]\nquery_timeout = \"500ms\"\n");
    let mut client = asks(&proxy);
    assert_eq!(brief(&client.until(|_| false)), "T answer / D x / F 57014 / closed");
    assert!(wait_for(PATIENCE, || (hostile.open() == 0).then_some(())).is_some(), "{} are left open", hostile.open());
    drop(client_of(&proxy, "good", "demo"));
}
