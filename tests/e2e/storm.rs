//! A storm of logins, some of them wrong, while somebody who is logged in goes on with his work.

use std::thread;
use std::time::Duration;

use domicile_tests::client::{Client, Login};
use domicile_tests::message as m;
use domicile_tests::process::{now, wait_for};
use domicile_tests::proxy::{Configuration, Proxy};

use crate::world::{start, tail, while_running, world};

const THREADS: usize = 16;
const LOGINS_EACH: usize = 250;
/// Every tenth has a wrong password, and every fifth of the others asks something before it leaves.
const WRONG_EVERY: usize = 10;
const ASKS_EVERY: usize = 5;
/// What a query may take beyond the slowest of the logins: it stands in no queue with them, but on the same processors.
const BEYOND_A_LOGIN: Duration = Duration::from_secs(1);

/// What one of those who come and go has seen.
#[derive(Default)]
struct Visits {
    admitted: usize,
    refused: usize,
    longest_login: Duration,
    wrong: Vec<String>,
}

fn come_and_go(proxy: &Proxy) -> Visits {
    let mut visits = Visits::default();
    for number in 0..LOGINS_EACH {
        let is_wrong = number % WRONG_EVERY == 0;
        let password = if is_wrong { "wrong" } else { "alice" };
        let since = now();
        let said = proxy.login(&Login { user: "alice", password, ..Login::default() });
        visits.longest_login = visits.longest_login.max(now().duration_since(since));
        match said {
            Ok(mut client) if !is_wrong => {
                visits.admitted += 1;
                if number % ASKS_EVERY == 1 {
                    let said = client.query("SELECT 'storm'").replies().to_string();
                    visits.wrong.extend((said != "T ?column? / D storm / C SELECT 1 / Z I").then_some(said));
                }
                client.send(&m::terminate());
                client.until(|_| false);
            }
            Ok(_) => visits.wrong.push("a wrong password was let in".to_owned()),
            Err(said) if is_wrong && said.sqlstate() == "28P01" => visits.refused += 1,
            Err(said) => visits.wrong.push(said.to_string()),
        }
    }
    visits
}

/// Asks until it is told to stop: how often, and the longest time that an answer took.
fn work(client: &mut Client, goes_on: &dyn Fn() -> bool) -> Result<(usize, Duration), String> {
    let (mut count, mut longest) = (0, Duration::ZERO);
    while goes_on() {
        let since = now();
        let said = client.query("SELECT 'work'").replies().to_string();
        longest = longest.max(now().duration_since(since));
        if said != "T ?column? / D work / C SELECT 1 / Z I" {
            return Err(said);
        }
        count += 1;
        thread::sleep(Duration::from_millis(2));
    }
    Ok((count, longest))
}

fn metric(proxy: &Proxy, name: &str) -> usize {
    let (_, text) = proxy.http("/metrics").expect("metrics");
    text.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok()).expect(name)
}

#[test]
fn thousands_of_logins_stand_in_nobodys_way() {
    let Some(world) = world() else { return };
    // Wrong passwords are not slowed down here: that is another test's, and would leave none of the storm.
    let more = "[limits]\nfailed_logins = 1000000\n".to_owned();
    let proxy = start(&Configuration { more, ..world.residency("unbound = \"eu-west\"") });
    let mut worker = proxy.connect();
    let (admitted, password) = ("domicile_logins_total{outcome=\"admitted\"}", "domicile_logins_total{outcome=\"password\"}");
    let before = [admitted, password].map(|name| metric(&proxy, name));
    let (worked, visits) = while_running(
        |goes_on| work(&mut worker, goes_on),
        || {
            thread::scope(|scope| {
                let storm: Vec<_> = (0..THREADS).map(|_| scope.spawn(|| come_and_go(&proxy))).collect();
                storm.into_iter().map(|one| one.join().expect("a client")).collect::<Vec<Visits>>()
            })
        },
    );
    let wrong: Vec<&String> = visits.iter().flat_map(|visit| &visit.wrong).take(5).collect();
    assert!(wrong.is_empty(), "{wrong:?}\n{}", tail(&proxy.log()));
    let sum = |count: fn(&Visits) -> usize| visits.iter().map(count).sum::<usize>();
    let expected = [THREADS * (LOGINS_EACH - LOGINS_EACH / WRONG_EVERY), THREADS * LOGINS_EACH / WRONG_EVERY];
    assert_eq!([sum(|visits| visits.admitted), sum(|visits| visits.refused)], expected);
    let after = [admitted, password].map(|name| metric(&proxy, name));
    assert_eq!([after[0] - before[0], after[1] - before[1]], expected);
    let (count, longest) = worked.unwrap_or_else(|said| panic!("{said}\n{}", tail(&proxy.log())));
    let longest_login = visits.iter().map(|visits| visits.longest_login).max().unwrap_or_default();
    assert!(longest <= longest_login + BEYOND_A_LOGIN, "{longest:?} for a query, {longest_login:?} for a login");
    assert!(count > 50, "{count} queries");
    // All of them have gone but the one who works.
    let gone = wait_for(Duration::from_secs(10), || (metric(&proxy, "domicile_sessions ") == 1).then_some(()));
    assert!(gone.is_some(), "{} sessions", metric(&proxy, "domicile_sessions "));
}
