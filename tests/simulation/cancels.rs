//! Cancel requests at any moment: of clients whose statements take their time, with keys that are wrong, and with keys of clients that
//! are gone.
//!
//! A server cancels whatever its process is doing when a request gets there. So whoever is told that it was cancelled must have asked
//! for that, and a server that a request is on its way to is lent to nobody else (I6).

use domicile::pool::BackendKey;
use domicile::session::{Cancel, CancelOrder, SessionKey};
use domicile::wire::CancelSecret;
use domicile::wire::startup::CancelRequest;

use crate::world::World;

/// A request that was sent to a server.
pub struct UnderWay {
    order: CancelOrder,
    session: SessionKey,
    /// It has got there; that the connection it came by has ended is not known yet.
    arrived: bool,
}

impl UnderWay {
    pub fn backend(&self) -> BackendKey {
        self.order.backend
    }

    pub fn session(&self) -> SessionKey {
        self.session
    }
}

impl World {
    /// Somebody shows a key.
    pub fn ask_for_cancel(&mut self) {
        let mut keys: Vec<_> = self.clients.iter().filter(|client| client.open).map(|client| client.key()).collect();
        keys.extend(self.gone.iter().copied().map(Some));
        let Some(Some((process_id, secret))) = (!keys.is_empty()).then(|| keys[self.rng.usize(..keys.len())]) else { return };
        let owner = self.clients.iter().position(|client| client.open && client.key() == Some((process_id, secret)));
        let is_wrong = self.rng.u8(..4) == 0;
        // What is compared with a server of its own must not be disturbed: of these, only wrong keys are shown.
        let is_patient = owner.is_some_and(|at| !self.clients[at].takes_its_time);
        let is_wrong = is_wrong || is_patient;
        let shown = if is_wrong { secret.wrapping_add(1) } else { secret };
        let request = CancelRequest { process_id, secret: CancelSecret::from(&shown.to_be_bytes()[..]) };
        let answer = self.core.cancel(&request, &mut self.out);
        match (owner.filter(|_| !is_wrong), answer) {
            (None, Cancel::Unknown) => {}
            (None, answer) => self.fail(&format!("a key that nobody has leads to {answer:?}"), None),
            (Some(_), Cancel::Unknown) => self.fail("a client's key is not known", None),
            (Some(at), Cancel::Done) => self.clients[at].cancels += 1,
            (Some(at), Cancel::Send(order)) => {
                self.clients[at].cancels += 1;
                let session = self.clients[at].session;
                self.cancels.push(UnderWay { order, session, arrived: false });
            }
        }
        self.carry_out(&[]);
    }

    /// A request goes on: to its server, or to its end.
    pub fn deliver_cancel(&mut self) {
        if self.cancels.is_empty() {
            return;
        }
        let at = self.rng.usize(..self.cancels.len());
        let key = self.cancels[at].order.backend;
        if !self.cancels[at].arrived {
            self.cancels[at].arrived = true;
            if let Some((_, backend)) = self.backends.get_mut(&(key.index, key.generation)) {
                backend.is_cancelled();
            }
            return;
        }
        let under_way = self.cancels.swap_remove(at);
        // Now and then the connection breaks, and nobody knows what has become of the request.
        let is_over = self.rng.u8(..8) != 0;
        if let Some(order) = self.core.cancel_over(key, is_over, &mut self.out) {
            self.cancels.push(UnderWay { order, session: under_way.session, arrived: false });
        }
        self.carry_out(&[]);
    }

    /// A server that a request is on its way to serves the one who asked, or nobody.
    pub fn judge_loan(&self, key: BackendKey, owner: SessionKey) {
        if self.cancels.iter().any(|under_way| under_way.backend() == key && under_way.session() != owner) {
            self.fail("a server is lent while a request to cancel somebody else is on its way to it", None);
        }
    }
}
