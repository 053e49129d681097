//! The sockets of a worker: a slab whose slots are named by index and generation, and the way from the core's keys to it.
//!
//! Finding a socket is index arithmetic. Nothing here talks to the kernel.

use std::os::fd::OwnedFd;

use super::buffers::Side;
use super::ring::{Operation, Token};
use super::send_queue::SendQueue;
use crate::fence::Seat;
use crate::pool::{BackendKey, MovedBackend, SessionKey};
use crate::tls::{Connection, Session};

/// Names one socket of one worker. The generation tells it from a former one in the same slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SocketId {
    index: u32,
    generation: u32,
}

impl SocketId {
    /// The socket that a completion is about.
    pub fn of(token: Token) -> Self {
        Self { index: token.index, generation: token.generation }
    }

    /// The token of an operation on this socket.
    pub fn token(self, operation: Operation) -> Token {
        Token { operation, index: self.index, generation: self.generation }
    }
}

/// Who is at the other end, by the core's name for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner {
    /// A client.
    Frontend(SessionKey),
    /// A backend.
    Backend(BackendKey),
}

impl Owner {
    /// Whose bytes are received here.
    pub fn side(self) -> Side {
        match self {
            Self::Frontend(_) => Side::Frontend,
            Self::Backend(_) => Side::Backend,
        }
    }
}

/// Where a socket is in its life.
pub enum Phase {
    /// In use.
    Open,
    /// The core is done with it; what is queued is still sent, what arrives is dropped.
    Flushing,
    /// Everything has been sent, and our end of the stream. What arrives is dropped until the peer closes too: with unread bytes in it
    /// a socket is reset, and what was sent last is lost.
    Lingering,
    /// Its operations have been cancelled; it is closed when the last of them has completed.
    Closing,
    /// It goes to another worker as soon as its receive has ended.
    Moving(Box<Move>),
}

/// What a socket on its way to another worker takes along.
pub struct Move {
    /// Where to.
    pub to_worker: usize,
    /// The backend.
    pub moved: Box<MovedBackend>,
}

/// One connection.
pub struct Socket {
    /// The descriptor.
    pub fd: OwnedFd,
    /// Who is at the other end.
    pub owner: Owner,
    /// Where it is in its life.
    pub phase: Phase,
    /// Its place among the worker's clients, if it is one.
    pub seat: Seat,
    /// What encrypts it, if anything does.
    pub tls: Option<Box<Session>>,
    /// What waits to be sent.
    pub queue: SendQueue,
    /// The turn in which the send in flight was started.
    pub sending_since_turn: u64,
    /// It stands in the list of sockets whose next send has to be started.
    pub send_is_due: bool,

    /// A receive is in flight. While the socket is open there is one, unless one of the next three says why not.
    pub receiving: bool,
    /// The core wants no more bytes for now.
    pub paused: bool,
    /// What it brings is queued at its `full_destination`, which has too much already; it stands in that one's list `held_back`.
    pub is_held_back: bool,
    /// There was no buffer for it; it stands in the list of its side.
    pub without_buffer: bool,

    /// The last socket to which its bytes went that had too much in its queue then.
    pub full_destination: Option<SocketId>,
    /// Sockets that are not read until this one's queue is shorter.
    pub held_back: Vec<SocketId>,
}

impl Socket {
    /// A socket in use, with nothing in flight.
    pub fn new(connection: Connection, owner: Owner) -> Self {
        Self {
            fd: connection.socket,
            tls: connection.session,
            owner,
            phase: Phase::Open,
            seat: Seat::default(),
            queue: SendQueue::default(),
            sending_since_turn: 0,
            send_is_due: false,
            receiving: false,
            paused: false,
            is_held_back: false,
            without_buffer: false,
            full_destination: None,
            held_back: Vec::new(),
        }
    }

    /// Whether the kernel has nothing of it in hand.
    pub fn is_idle(&self) -> bool {
        !self.receiving && !self.queue.is_in_flight()
    }

    /// The operation by which it receives.
    pub fn receive_operation(&self) -> Operation {
        match self.owner.side() {
            Side::Frontend => Operation::ReceiveFrontend,
            Side::Backend => Operation::ReceiveBackend,
        }
    }
}

/// All sockets of a worker.
#[derive(Default)]
pub struct Sockets {
    slots: Vec<Slot>,
    free: Vec<u32>,
}

#[derive(Default)]
struct Slot {
    generation: u32,
    socket: Option<Socket>,
}

impl Sockets {
    /// Takes a socket in.
    pub fn insert(&mut self, socket: Socket) -> SocketId {
        let index = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot::default());
            // Descriptors are `i32`, so there are never more slots than fit.
            u32::try_from(self.slots.len() - 1).unwrap_or(u32::MAX)
        });
        let slot = &mut self.slots[index as usize];
        slot.socket = Some(socket);
        SocketId { index, generation: slot.generation }
    }

    /// A socket, unless it is gone.
    pub fn get(&mut self, id: SocketId) -> Option<&mut Socket> {
        let slot = self.slots.get_mut(id.index as usize)?;
        if slot.generation == id.generation { slot.socket.as_mut() } else { None }
    }

    /// Takes a socket out. Its slot gets a new generation, so that what still names it finds nothing.
    pub fn remove(&mut self, id: SocketId) -> Option<Socket> {
        self.get(id)?;
        let slot = &mut self.slots[id.index as usize];
        slot.generation = (slot.generation + 1) % Token::GENERATIONS;
        self.free.push(id.index);
        slot.socket.take()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.slots.len() == self.free.len()
    }

    /// All of them.
    pub fn iter(&mut self) -> impl Iterator<Item = (SocketId, &mut Socket)> {
        self.slots.iter_mut().zip(0..).filter_map(|(slot, index)| {
            let id = SocketId { index, generation: slot.generation };
            slot.socket.as_mut().map(|socket| (id, socket))
        })
    }
}

/// Where the sockets of the core's keys are. Keys are dense: index and generation, like our own.
#[derive(Default)]
pub struct Routes(Vec<Option<Route>>);

#[derive(Clone, Copy)]
struct Route {
    generation: u32,
    socket: SocketId,
}

impl Routes {
    /// Notes where the socket of a key is.
    pub fn insert(&mut self, index: u32, generation: u32, socket: SocketId) {
        let index = index as usize;
        if self.0.len() <= index {
            self.0.resize(index + 1, None);
        }
        self.0[index] = Some(Route { generation, socket });
    }

    /// The socket of a key, unless the key is dead.
    pub fn find(&self, index: u32, generation: u32) -> Option<SocketId> {
        let route = (*self.0.get(index as usize)?)?;
        (route.generation == generation).then_some(route.socket)
    }

    /// Forgets a key; its socket, unless the key was dead already.
    pub fn remove(&mut self, index: u32, generation: u32) -> Option<SocketId> {
        let socket = self.find(index, generation)?;
        self.0[index as usize] = None;
        Some(socket)
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use super::*;

    fn socket(index: u32) -> Socket {
        let socket = File::open("/dev/null").unwrap().into();
        Socket::new(Connection { socket, session: None }, Owner::Frontend(SessionKey { index, generation: 0 }))
    }

    #[test]
    fn a_name_dies_with_its_socket() {
        let mut sockets = Sockets::default();
        let first = sockets.insert(socket(0));
        assert!(sockets.get(first).is_some());
        assert!(sockets.remove(first).is_some());
        let second = sockets.insert(socket(1));
        assert_eq!(first.index, second.index);
        assert!(sockets.get(first).is_none() && sockets.remove(first).is_none());
        assert_eq!(SocketId::of(second.token(Operation::Send)), second);
        assert_eq!(sockets.iter().map(|(id, _)| id).collect::<Vec<_>>(), [second]);
    }

    #[test]
    fn a_route_is_for_one_generation() {
        let mut sockets = Sockets::default();
        let mut routes = Routes::default();
        let id = sockets.insert(socket(0));
        routes.insert(3, 7, id);
        assert_eq!((routes.find(3, 7), routes.find(3, 6), routes.find(2, 7), routes.find(9, 7)), (Some(id), None, None, None));
        assert_eq!((routes.remove(3, 8), routes.remove(3, 7), routes.find(3, 7)), (None, Some(id), None));
    }

    #[test]
    fn an_idle_socket_is_small() {
        assert!(size_of::<Socket>() <= 192, "{} bytes", size_of::<Socket>());
    }
}
