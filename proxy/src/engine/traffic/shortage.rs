//! What happens when receive buffers run out.
//!
//! Sockets that found none wait in a list and receive again when buffers come back, never by timer. Buffers come back when what is in
//! them has been sent; where a peer does not read, it is moved to the heap, so that nobody can keep buffers. How much that can be is
//! bounded by the length of its queue.

use std::mem;

use super::Traffic;
use crate::engine::buffers::{Side, group};
use crate::engine::ring::Operation;
use crate::engine::sockets::{Phase, SocketId};

impl Traffic<'_> {
    /// There was no buffer for what has arrived: receives again when there is one.
    pub fn wait_for_buffer(&mut self, id: SocketId) {
        if let Some(socket) = self.sockets.get(id)
            && !mem::replace(&mut socket.without_buffer, true)
        {
            self.without_buffer[usize::from(group(socket.owner.side()))].push_back(id);
        }
    }

    /// Receives again at sockets that found no buffer, one for each buffer there is.
    pub(super) fn serve_waiting(&mut self, side: Side, sends_started: bool) {
        let waiting = usize::from(group(side));
        if self.without_buffer[waiting].is_empty() {
            return;
        }
        // Buffers come back first from those whose peers have not read for long, then from all whose send could not be done at once.
        let none = self.groups[side].available() == 0;
        if none && !self.evacuate(side, self.turn_of_tick) && !self.evacuate(side, self.turn) {
            // Or they are with the sends of this very turn. Most are done as soon as the kernel sees them.
            self.look_again |= sends_started;
        }
        for _ in 0..self.groups[side].available() {
            let Some(id) = self.without_buffer[waiting].pop_front() else { return };
            if let Some(socket) = self.sockets.get(id) {
                socket.without_buffer = false;
                self.receive(id);
            }
        }
        // Those may have nothing to receive, while others in the list have.
        self.look_again |= self.groups[side].available() > 0 && !self.without_buffer[waiting].is_empty();
    }

    /// Moves to the heap what waits in buffers of `side` at sockets whose send has been in flight since before a turn: what they hold
    /// would otherwise come back only when their peers read. True: there was some.
    pub(super) fn evacuate(&mut self, side: Side, before_turn: u64) -> bool {
        let mut sockets = 0;
        for (id, socket) in self.sockets.iter() {
            let is_stuck = matches!(socket.phase, Phase::Open | Phase::Flushing)
                && socket.queue.is_in_flight()
                && socket.sending_since_turn < before_turn;
            if is_stuck && socket.queue.holds(side) {
                sockets += 1;
                if socket.queue.evacuate(&mut self.groups) {
                    self.ring.cancel(id.token(Operation::Send));
                }
            }
        }
        if sockets > 0 {
            tracing::trace!(sockets, ?side, "receive buffers are short: what slow peers have not read is moved to the heap");
        }
        sockets > 0
    }
}
