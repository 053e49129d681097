//! The replies a backend still owes, in the order in which it will give them.
//!
//! PostgreSQL answers strictly in order, so a queue says for every message that arrives whose it is and what becomes of it.
//! Entries name their session: today one session has a backend at a time, but nothing here assumes it. The queue knows which
//! messages end which reply and how an error empties it up to the next Sync (protocol chapter, "Message Flow"); it never
//! looks at the contents of a message.

use std::collections::VecDeque;

use bytes::Bytes;

use super::answer::Answer;
use super::key::SessionKey;
use crate::region::SessionRegion;
use crate::wire::tag::backend as tag;

/// What was asked of the backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Query: anything up to ReadyForQuery, with data in both directions where it begins a replication stream.
    Query,
    /// FunctionCall: FunctionCallResponse or an error, then ReadyForQuery.
    FunctionCall,
    /// Parse: ParseComplete.
    Parse,
    /// Bind: BindComplete.
    Bind,
    /// Describe: \[ParameterDescription\] RowDescription or NoData.
    Describe,
    /// Execute: rows or COPY data, then CommandComplete, EmptyQueryResponse or PortalSuspended.
    Execute,
    /// Close: CloseComplete.
    Close,
    /// Sync: ReadyForQuery.
    Sync,
    /// CopyDone or CopyFail: no reply of its own; it marks where COPY ends in the stream of requests.
    CopyEnd,
    /// Nothing was asked: the proxy's own answer to a message that stood here in the client's stream.
    Local,
}

/// What becomes of a reply.
#[derive(Clone, Debug)]
pub enum Rule {
    /// It goes to the session.
    Forward,
    /// It was caused by the proxy and is dropped. An ErrorResponse in the extended protocol still goes to the session.
    Swallow,
    /// It goes to the session, and things happen between the statements' completions.
    Follow(Box<Script>),
    /// It is an error that the proxy provoked; the session gets this ErrorResponse in its place.
    Instead(Bytes),
    /// For [`Kind::Local`]: what the session gets when its turn comes.
    Emit(Bytes),
}

/// What happens when the statements of one Query (or the one of an Execute) complete.
#[derive(Clone, Debug, Default)]
pub struct Script {
    /// CommandCompletes seen so far.
    pub completed: usize,
    /// Replies of the proxy that follow the n-th completion.
    pub inserts: Vec<(usize, Bytes)>,
    /// Consequences of the n-th completion.
    pub effects: Vec<(usize, Effect)>,
}

/// What the completion of a transaction command means for the session's own variables.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// COMMIT, ROLLBACK or PREPARE TRANSACTION; the CommandComplete says which of them it was.
    End,
    /// SAVEPOINT.
    Savepoint(Box<str>),
    /// RELEASE.
    Release(Box<str>),
    /// ROLLBACK TO.
    RollbackTo(Box<str>),
    /// A SET of the region that stands behind the statement: the region, and whether it is SET LOCAL.
    Set(SessionRegion, bool),
    /// DEALLOCATE of a statement that the session has from the proxy; `None`: of all.
    Deallocate(Option<Box<str>>),
}

/// One owed reply.
#[derive(Clone, Debug)]
pub struct Reply {
    /// Who asked; `None` for what the pool asks for itself (the reset).
    pub session: Option<SessionKey>,
    /// What was asked.
    pub kind: Kind,
    /// What becomes of the answer.
    pub rule: Rule,
    /// Whoever asked has made a note that stands or falls with the answer.
    pub noted: bool,
}

/// What a message of the backend means for the queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// It belongs to the reply at the front, which goes on.
    Within,
    /// It ends the reply at the front.
    Ends,
    /// It ends a statement inside the reply at the front, which goes on (CommandComplete and its like inside a Query).
    Completes,
    /// An error: the reply at the front is over, and those behind it up to the next Sync will not come.
    Fails,
    /// It may come at any time and belongs to nothing.
    Asynchronous,
}

/// A message that cannot come now: the backend does not keep to the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unexpected(pub u8);

/// The queue.
#[derive(Debug, Default)]
pub struct OwedReplies {
    queue: VecDeque<Reply>,
    /// How far the reply at the front has come.
    answer: Answer,
    /// The backend skips everything up to the next Sync, and that Sync has not been sent yet.
    skipping: bool,
    /// A COPY FROM STDIN is open whose end has not been sent yet: the backend ignores Sync and Flush.
    copying_in: bool,
    /// A replication stream is open: data goes in both directions.
    streaming: bool,
}

impl OwedReplies {
    /// Whether nothing is owed.
    pub fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// How many replies are owed.
    pub fn len(&self) -> usize {
        self.queue.len()
    }

    /// Whether the backend discards what it is sent until a Sync.
    pub fn is_skipping(&self) -> bool {
        self.skipping
    }

    /// Whether the backend is reading COPY data.
    pub fn is_copying_in(&self) -> bool {
        self.copying_in
    }

    /// Whether a replication stream is open, which ends when one of the two sides wants it to.
    pub fn is_streaming(&self) -> bool {
        self.streaming
    }

    /// The reply that comes next.
    pub fn front(&mut self) -> Option<&mut Reply> {
        self.queue.front_mut()
    }

    /// Takes the reply at the front off.
    pub fn pop(&mut self) -> Option<Reply> {
        self.answer = Answer::default();
        self.queue.pop_front()
    }

    /// Notes that a request has been sent. Returns whether it counts: what a skipping backend discards owes nothing, and neither
    /// does a Sync in the middle of COPY data.
    pub fn push(&mut self, reply: Reply) -> bool {
        if self.skipping {
            if reply.kind != Kind::Sync {
                return false;
            }
            self.skipping = false;
        }
        if self.copying_in {
            match reply.kind {
                Kind::Sync => return false,
                Kind::CopyEnd => self.copying_in = false,
                Kind::Query
                | Kind::FunctionCall
                | Kind::Parse
                | Kind::Bind
                | Kind::Describe
                | Kind::Execute
                | Kind::Close
                | Kind::Local => {}
            }
        }
        if reply.kind == Kind::CopyEnd && self.queue.is_empty() {
            return false;
        }
        self.queue.push_back(reply);
        true
    }

    /// What a message of the backend, known by its tag, means now. A message of a reply must be told once.
    pub fn progress(&mut self, received: u8) -> Result<Progress, Unexpected> {
        if matches!(received, tag::NOTICE_RESPONSE | tag::PARAMETER_STATUS | tag::NOTIFICATION_RESPONSE) {
            return Ok(Progress::Asynchronous);
        }
        let Some(front) = self.queue.front() else { return Err(Unexpected(received)) };
        let progress = match (front.kind, received) {
            (Kind::Query, _) => return self.answer.of_query(received).ok_or(Unexpected(received)),
            (Kind::Execute, _) => return self.answer.of_execute(received).ok_or(Unexpected(received)),
            (Kind::FunctionCall | Kind::Sync, tag::READY_FOR_QUERY) => Progress::Ends,
            (Kind::FunctionCall, tag::FUNCTION_CALL_RESPONSE | tag::ERROR_RESPONSE) => Progress::Within,
            (Kind::Parse, tag::PARSE_COMPLETE) | (Kind::Bind, tag::BIND_COMPLETE) | (Kind::Close, tag::CLOSE_COMPLETE) => {
                Progress::Ends
            }
            (Kind::Describe, tag::PARAMETER_DESCRIPTION) => Progress::Within,
            (Kind::Describe, tag::ROW_DESCRIPTION | tag::NO_DATA) => Progress::Ends,
            // An error while Sync is carried out comes from the commit of the implicit transaction; ReadyForQuery follows.
            (Kind::Sync, tag::ERROR_RESPONSE) => Progress::Within,
            (Kind::Parse | Kind::Bind | Kind::Describe | Kind::Close, tag::ERROR_RESPONSE) => Progress::Fails,
            _ => return Err(Unexpected(received)),
        };
        Ok(progress)
    }

    /// The backend asks for COPY data: Syncs that were sent before the data's end are ignored by it and owe nothing. Returns how
    /// many were dropped for each session.
    pub fn copy_in_begins(&mut self) -> Vec<SessionKey> {
        let mut dropped = Vec::new();
        let mut at = 1;
        while let Some(reply) = self.queue.get(at) {
            match reply.kind {
                Kind::CopyEnd => return dropped,
                Kind::Sync => {
                    dropped.extend(reply.session);
                    self.queue.remove(at);
                }
                Kind::Query
                | Kind::FunctionCall
                | Kind::Parse
                | Kind::Bind
                | Kind::Describe
                | Kind::Execute
                | Kind::Close
                | Kind::Local => at += 1,
            }
        }
        self.copying_in = true;
        dropped
    }

    /// The backend has begun a replication stream.
    pub fn stream_begins(&mut self) {
        self.streaming = true;
    }

    /// The reply at the front failed: drops it and what the backend will skip, up to the next Sync. Returns the replies that will
    /// not come, the failed one first.
    pub fn fail(&mut self) -> Vec<Reply> {
        let end = self.queue.iter().position(|reply| reply.kind == Kind::Sync);
        self.skipping = end.is_none();
        self.copying_in = false;
        self.answer = Answer::default();
        self.queue.drain(..end.unwrap_or(self.queue.len())).collect()
    }

    /// A COPY or a stream inside a Query is over, well or not.
    pub fn copy_ended(&mut self) {
        self.copying_in = false;
        self.streaming = false;
    }

    /// The queue's memory is given back when it is large and empty.
    pub fn shrink(&mut self) {
        if self.queue.is_empty() && self.queue.capacity() > 64 {
            self.queue.shrink_to(16);
        }
    }
}
