//! From a node's host to its addresses, anew for every connection.
//!
//! The system's resolver blocks, so it runs on tokio's blocking threads, and nobody waits there longer than its deadline allows. Those
//! who ask for the same name while a look-up is under way share its answer: a name server that is silent holds one thread a name and
//! not one a connection.

use std::cell::RefCell;
use std::collections::HashMap;
use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::rc::Rc;

use tokio::net::lookup_host;
use tokio::sync::watch;

/// Addresses of one name that are tried; the time for a connection is shared among them.
const ADDRESSES_MAX: usize = 16;

/// Looks names up.
pub(super) struct Resolver {
    look_up: fn(String, u16) -> LookUp,
    /// By host and port: what is being looked up.
    under_way: RefCell<HashMap<(String, u16), Pending>>,
}

/// A look-up under way.
pub(super) type LookUp = Pin<Box<dyn Future<Output = io::Result<Vec<SocketAddr>>>>>;

type Answer = Result<Vec<SocketAddr>, String>;
type Pending = watch::Receiver<Option<Answer>>;

impl Default for Resolver {
    /// The system's.
    fn default() -> Self {
        Self::new(|host, port| Box::pin(async move { Ok(lookup_host((host, port)).await?.collect()) }))
    }
}

impl Resolver {
    pub(super) fn new(look_up: fn(String, u16) -> LookUp) -> Self {
        Self { look_up, under_way: RefCell::default() }
    }

    /// The addresses of a host, in the order in which the resolver gives them; at least one.
    ///
    /// # Errors
    /// There is none; the resolver's own words.
    pub(super) async fn resolve(self: &Rc<Self>, host: &str, port: u16) -> Result<Vec<SocketAddr>, String> {
        if let Ok(address) = host.parse::<IpAddr>() {
            return Ok(vec![SocketAddr::new(address, port)]);
        }
        let mut answer = self.ask(host, port);
        let answer = answer.wait_for(Option::is_some).await.map_err(|_| "the look-up was given up".to_owned())?;
        answer.clone().unwrap_or_else(|| Err("the look-up was given up".to_owned()))
    }

    fn ask(self: &Rc<Self>, host: &str, port: u16) -> Pending {
        let name = (host.to_owned(), port);
        if let Some(answer) = self.under_way.borrow().get(&name) {
            return answer.clone();
        }
        let (tell, answer) = watch::channel(None);
        self.under_way.borrow_mut().insert(name.clone(), answer.clone());
        let resolver = Rc::clone(self);
        tokio_uring::spawn(async move {
            let found = (resolver.look_up)(name.0.clone(), name.1).await;
            // Whoever asks from now on gets a newer answer.
            resolver.under_way.borrow_mut().remove(&name);
            let answer = found.map_err(|error| error.to_string()).and_then(|mut found| {
                found.truncate(ADDRESSES_MAX);
                if found.is_empty() { Err("its name has no address".to_owned()) } else { Ok(found) }
            });
            tell.send_replace(Some(answer));
        });
        answer
    }
}
