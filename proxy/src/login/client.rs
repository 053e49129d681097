//! Carries a client's login: reads and writes what its [`ClientLogin`] asks for, then hands the socket to its worker.

use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::rc::Rc;

use tokio::time::{Instant, sleep_until, timeout_at};
use tracing::field::display;
use tracing::{debug, info, warn};

use super::attempts::{Turn, Who};
use super::census::Newcomer;
use super::conversation::{Admitted, ClientLogin, Refused, Step};
use super::random::Chance;
use super::refusal::Refusal;
use super::socket::{HandshakeError, Socket, tune};
use super::transport::{TlsPeer, Transport};
use super::{Counted, Desk};
use crate::engine::ToWorker;
use crate::fence::Seat;
use crate::observe::{Limit, LoginOutcome};
use crate::session::{Identity, Pressure};
use crate::tls::ALPN;

impl Desk {
    /// A client has connected to `worker`. Its login runs from here on by itself.
    pub fn accept(self: &Rc<Self>, worker: usize, socket: OwnedFd, peer: Option<SocketAddr>, seat: Seat) {
        if self.is_draining() {
            return;
        }
        let shown = peer.map(display);
        let (worker, seat) = if peer.is_none() { self.next_worker() } else { (worker, seat) };
        let rules = self.rules();
        let limit = if rules.memory.pressure() != Pressure::None {
            Some(Limit::Memory)
        } else {
            (self.in_progress.get() >= rules.config.limits.max_logins as usize).then_some(Limit::Logins)
        };
        if let Some(limit) = limit {
            self.logins.count(LoginOutcome::TooMany);
            self.logins.count_refused(limit);
            // There is no room to wait for anything: what does not fit into the socket's buffer is not sent.
            let farewell = Refusal::limited(limit, "").encode();
            if rustix::net::send(&socket, &farewell, rustix::net::SendFlags::DONTWAIT).is_err() {
                debug!(peer = shown, "a client could not be told that there are too many logins");
            }
            return;
        }
        let counted = Counted::new(&self.in_progress);
        let desk = Rc::clone(self);
        tokio_uring::spawn(async move {
            let outcome = match desk.log_client_in(worker, socket, peer, seat).await {
                Ok(outcome) => outcome,
                Err(error) if error.kind() == io::ErrorKind::TimedOut => {
                    info!(peer = shown, "login timed out");
                    LoginOutcome::TimedOut
                }
                Err(error) => {
                    debug!(peer = shown, %error, "connection lost during login");
                    LoginOutcome::Disconnected
                }
            };
            desk.logins.count(outcome);
            drop(counted);
        });
    }

    /// The worker for a client of a Unix socket. One of them accepts all of these, so they are dealt out in turn.
    fn next_worker(&self) -> (usize, Seat) {
        let worker = (self.last_by_unix_socket.get() + 1) % self.sessions.len().max(1);
        self.last_by_unix_socket.set(worker);
        (worker, self.fence.loads.as_ref().map_or_else(Seat::default, |loads| loads.given(worker)))
    }

    async fn log_client_in(
        &self,
        worker: usize,
        socket: OwnedFd,
        peer: Option<SocketAddr>,
        seat: Seat,
    ) -> io::Result<LoginOutcome> {
        let shown = peer.map(display);
        let deadline = Instant::now() + self.rules().config.limits.login_timeout;
        if peer.is_some() {
            tune(&socket)?;
        }
        let mut transport = Transport::of(&socket, peer);
        if self.rules().config.auth.hba.is_some() {
            timeout_at(deadline, transport.look_up_unix_user()).await?;
        }
        let mut socket = Socket::of_client(socket, deadline).await?;
        let chance = match Chance::draw() {
            Ok(chance) => chance,
            Err(error) => {
                warn!(%error, "the kernel has no randomness to give");
                return Ok(LoginOutcome::Failed);
            }
        };
        let mut conversation = ClientLogin::new(transport, chance);
        let (mut places, mut who) = (Vec::new(), None);
        loop {
            let step = conversation.step(&self.rules(), self.clients());
            let user = conversation.claims_to_be();
            if places.is_empty() && (user.is_some() || matches!(step, Step::Admit(_) | Step::Console(..))) {
                places.push(self.census.take());
            }
            if who.is_none()
                && let Some(user) = user
            {
                let is = *who.insert(self.attempts.borrow().who(peer.map(|peer| peer.ip()), user));
                if !self.await_turn(is, deadline).await {
                    return self
                        .turn_away(&mut socket, &Refused::because(Refusal::limited(Limit::FailedLogins, user)), peer)
                        .await;
                }
            }
            match step {
                Step::Read => {
                    let bytes = socket.read().await?;
                    if bytes.is_empty() {
                        return Ok(LoginOutcome::Disconnected);
                    }
                    conversation.receive(&bytes);
                }
                Step::Send(bytes) => socket.write_all(bytes.into()).await?,
                Step::Encrypt(consent, begun) => {
                    if !consent.is_empty() {
                        socket.write_all(consent.into()).await?;
                    }
                    match self.encrypt(&mut socket, begun.into()).await {
                        Ok((tls, text)) => {
                            conversation.set_tls(tls);
                            conversation.receive(&text);
                        }
                        Err(HandshakeError::Lost(error)) => return Err(error),
                        Err(HandshakeError::Refused(error)) => {
                            info!(peer = shown, error, "TLS handshake failed");
                            return Ok(LoginOutcome::Tls);
                        }
                    }
                }
                Step::LookUp(user) => match self.look_up(&self.rules(), &user, deadline).await {
                    Ok(secret) => conversation.found(secret),
                    Err(_) => {
                        let refusal = Refusal::no_lookup(&user);
                        return self.turn_away(&mut socket, &Refused::because(refusal), peer).await;
                    }
                },
                Step::Stretch(derivation) => conversation.set_keys(timeout_at(deadline, self.stretcher.keys(derivation)).await??),
                Step::Close(outcome) => {
                    debug!(peer = shown, outcome = outcome.as_str(), "connection closed before login");
                    return Ok(outcome);
                }
                Step::Cancel(request) => {
                    // Whoever asked waits for the end of the connection to know that it is done.
                    self.cancel(request).await;
                    return Ok(LoginOutcome::Cancel);
                }
                Step::Refuse(refused) => {
                    if refused.refusal.outcome == LoginOutcome::Password {
                        who.iter().for_each(|who| self.attempts.borrow_mut().failed(*who, Instant::now()));
                    }
                    return self.turn_away(&mut socket, &refused, peer).await;
                }
                Step::Console(greeting, client) => {
                    who.iter().for_each(|who| self.attempts.borrow_mut().succeeded(*who));
                    let Some(counted) = self.claim_console() else {
                        return self.turn_away(&mut socket, &Refused::because(Refusal::too_many_consoles()), peer).await;
                    };
                    socket.write_all(greeting.into()).await?;
                    info!(peer = shown, user = &*client.user, "a session of the console begins");
                    self.begin_console(socket.into_connection(), client, counted);
                    return Ok(LoginOutcome::Admitted);
                }
                Step::Admit(admitted) => {
                    who.iter().for_each(|who| self.attempts.borrow_mut().succeeded(*who));
                    let Admitted { mut login, early, region } = *admitted;
                    let Identity { user, database, .. } = &login.identity;
                    self.known.borrow_mut().keep(user, conversation.take_known());
                    if let Some(refused) = self.refuses_database(user, database) {
                        return self.turn_away(&mut socket, &refused, peer).await;
                    }
                    let rules = self.rules();
                    let region = region.map(|region| (region, rules.policy.name(region)));
                    let newcomer = Newcomer { user, database, region };
                    match self.census.admit(newcomer, &rules.config.limits, &rules.region_places) {
                        Ok((more, region_place)) => {
                            places.extend(more);
                            login.region_place = region_place;
                        }
                        Err(refusal) => {
                            let subject = Some((user.to_string(), database.to_string()));
                            let refused = Refused { subject, ..Refused::because(refusal) };
                            return self.turn_away(&mut socket, &refused, peer).await;
                        }
                    }
                    login.places = places;
                    let login = self.shared.borrow_mut().share(login);
                    let Identity { user, database, .. } = &login.identity;
                    debug!(peer = shown, user = &**user, database = &**database, worker, "client logged in");
                    (self.deliver)(worker, ToWorker::Client { connection: socket.into_connection(), login, early, seat });
                    return Ok(LoginOutcome::Admitted);
                }
            }
        }
    }

    /// A client is about to be asked for a proof: waits, if others of its address and user have failed. False: too many wait already.
    async fn await_turn(&self, who: Who, deadline: Instant) -> bool {
        let (free, longest) = {
            let limits = &self.rules().config.limits;
            (limits.failed_logins, limits.failed_login_delay)
        };
        let turn = self.attempts.borrow_mut().begin(who, free, longest, Instant::now());
        match turn {
            Turn::Now => true,
            Turn::At(at) => {
                self.logins.count_delayed();
                sleep_until(at.min(deadline)).await;
                self.attempts.borrow_mut().has_waited(who);
                true
            }
            Turn::Never => false,
        }
    }

    /// Tells a client why it is not let in.
    async fn turn_away(&self, socket: &mut Socket, refused: &Refused, peer: Option<SocketAddr>) -> io::Result<LoginOutcome> {
        self.tell_of(refused, peer);
        socket.write_all(refused.refusal.encode().into()).await?;
        socket.finish().await?;
        Ok(refused.refusal.outcome)
    }

    /// Encrypts the connection of a client, who has begun the handshake with `begun`: at once, if there is something in that. What the
    /// handshake has shown, and the text that came right behind it.
    async fn encrypt(&self, socket: &mut Socket, begun: Vec<u8>) -> Result<(TlsPeer, Vec<u8>), HandshakeError> {
        let is_direct = !begun.is_empty();
        let refused = |why: &str| HandshakeError::Refused(why.to_owned());
        let rules = self.rules();
        let context = rules.config.tls.context.as_ref().ok_or_else(|| refused("TLS is not offered any more"))?;
        let text = socket.encrypt(context.begin().map_err(HandshakeError::Refused)?, begun).await?;
        let session = socket.session().ok_or_else(|| refused("there is no session"))?;
        if is_direct && session.alpn() != Some(ALPN) {
            return Err(refused("a client that begins with TLS at once must offer ALPN \"postgresql\""));
        }
        let tls = TlsPeer {
            shown: session.shown().into(),
            certificate: session.certificate().map(|facts| facts.names),
            server_end_point: context.end_point().map(Into::into),
        };
        Ok((tls, text))
    }

    /// Logs a refusal, counts it if it was by a bound, and records it if it was a denial.
    fn tell_of(&self, refused: &Refused, peer: Option<SocketAddr>) {
        let Refused { refusal, subject, audit } = refused;
        let (user, database) = subject.as_ref().map(|(user, database)| (user.as_str(), database.as_str())).unzip();
        let (sqlstate, cause) = (refusal.sqlstate.as_str(), refusal.cause.as_deref());
        if let Some(limit) = refusal.limit {
            self.logins.count_refused(limit);
        }
        info!(peer = peer.map(display), user, database, sqlstate, cause, error = refusal.message, "login refused");
        if let Some(record) = audit {
            if let Some(denials) = &self.fence.denials {
                denials.count(record);
            }
            self.audit.write(record, &self.rules().policy);
        }
    }
}
