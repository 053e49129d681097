//! Carries out what the pools order: binds those whose turn has come, and tells those who waited in vain.

use std::sync::Arc;

use super::client::{Session, Wait};
use super::output::{Output, Outputs, tell};
use super::{Core, Refusal};
use crate::pool::{BackendKey, OpenError, Order, SessionKey, WaitFailure};
use crate::wire::SqlState;

impl Core {
    pub(super) fn carry_out_orders(&mut self, out: &mut Outputs) {
        for order in self.common.pools.take_orders() {
            match order {
                Order::Open(ticket, request) => out.push(Output::OpenBackend(ticket, request)),
                Order::Close(backend, farewell) => {
                    self.common.counters.backends_closed_total.add(1);
                    out.push(Output::CloseBackend(backend, farewell));
                }
                Order::Reset(backend) => {
                    if let Some(found) = self.common.pools.get(backend) {
                        found.unflushed = true;
                        out.push(Output::ToBackend(backend, super::backend::reset_message()));
                    }
                }
                Order::Bind(session, backend) => self.bind_waiter(session, backend),
                Order::Fail(session, failure) => self.fail_waiter(session, failure, out),
                Order::Move(backend, to_worker, moved) => out.push(Output::MoveBackend { backend, to_worker, moved }),
                Order::QuotaChanged(to_worker) => out.push(Output::QuotaChanged { to_worker }),
            }
        }
    }

    fn bind_waiter(&mut self, key: SessionKey, backend: BackendKey) {
        match self.sessions.get(key) {
            // It broke in the moment in which it was lent: nothing of this session has been there.
            Some(session) if session.wait == Wait::Backend && self.common.pools.get(backend).is_none() => {
                self.common.wake(session)
            }
            Some(session) if session.wait == Wait::Backend => {
                session.backend = Some(backend);
                session.unmet = true;
                self.common.lent(session, backend);
                self.common.wake(session);
            }
            // It left in the meantime.
            Some(_) | None => self.common.pools.release(backend, self.common.now),
        }
    }

    fn fail_waiter(&mut self, key: SessionKey, failure: WaitFailure, out: &mut Outputs) {
        let Some(session) = self.sessions.get(key).filter(|session| session.wait == Wait::Backend) else { return };
        let refusal = match failure {
            WaitFailure::TimedOut => {
                self.common.counters.timeouts_wait_total.add(1);
                timed_out(session, self.common.settings.pools.wait_timeout.as_secs())
            }
            WaitFailure::Open(error) => match explain(&error, &region_of(&self.common, session)) {
                Ok(refusal) => refusal,
                Err(message) => {
                    // The server's own last word on the client's startup values.
                    tell(key, message, out);
                    out.push(Output::CloseFrontend(key));
                    return self.end_session(key, out);
                }
            },
        };
        session.failure = Some(refusal.into());
        self.common.wake(session);
    }
}

fn region_of(common: &super::Common, session: &Session) -> String {
    let policy = common.policy.snapshot();
    session.pool.map_or_else(String::new, |(region, _)| policy.name(region).to_owned())
}

fn timed_out(session: &Session, seconds: u64) -> Refusal {
    let identity = &session.identity;
    let text = format!(
        "no server connection for user \"{}\" and database \"{}\" became free within {seconds} s",
        identity.user, identity.database
    );
    Refusal::new(SqlState::TOO_MANY_CONNECTIONS, text).with_hint("Raise pools.size, or shorten transactions.")
}

/// A client that gets this may think of looking elsewhere.
const NEVER_ELSEWHERE: &str = "The session is served again when its region is; no other region stands in.";

/// What a client is told when its region's server could not be reached; `Err`: the server's own FATAL, which ends the session.
fn explain(error: &Arc<OpenError>, region: &str) -> Result<Refusal, bytes::Bytes> {
    let failed = |text: String| Ok(Refusal::new(SqlState::CONNECTION_FAILURE, text).with_hint(NEVER_ELSEWHERE));
    match &**error {
        OpenError::NoneFits { wanted } => {
            let text = format!("region \"{region}\" has no server for target_session_attrs = \"{wanted}\" at the moment");
            Ok(Refusal::new(SqlState::CONNECTION_FAILURE, text)
                .with_hint("The bind rule of this login says which servers of its region it may have."))
        }
        OpenError::NoNode => failed(format!("region \"{region}\" has no node any more")),
        OpenError::Refused { node } => failed(format!("node \"{node}\" of region \"{region}\" refused the connection")),
        OpenError::TimedOut { node } => failed(format!("node \"{node}\" of region \"{region}\" did not answer in time")),
        OpenError::Unreachable { node, text } => {
            failed(format!("node \"{node}\" of region \"{region}\" cannot be reached: {text}"))
        }
        OpenError::Insecure { node, text } => {
            let text = format!("node \"{node}\" of region \"{region}\" cannot be reached securely: {text}");
            Ok(Refusal::new(SqlState::CLIENT_UNABLE_TO_ESTABLISH_CONNECTION, text).with_hint(NEVER_ELSEWHERE))
        }
        OpenError::Protocol { node, text } => failed(format!("login at node \"{node}\" of region \"{region}\" failed: {text}")),
        OpenError::LoginFailed { error, fatal_for_client: true, .. } => Err(error.clone()),
        OpenError::LoginFailed { error, sqlstate, .. } => {
            let text = crate::wire::parse_error(error.get(5..).unwrap_or_default()).map(|fields| fields.message);
            let sqlstate = sqlstate.unwrap_or(SqlState::CONNECTION_FAILURE);
            let refusal = Refusal::new(sqlstate, text.unwrap_or_else(|| "login at the server failed".to_owned()));
            // Class 57: the server is on its way up or down.
            let is_down = sqlstate.as_str().starts_with("57");
            Ok(if is_down { refusal.with_hint(NEVER_ELSEWHERE) } else { refusal })
        }
    }
}
