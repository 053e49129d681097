//! How far the answer to a Query or an Execute has come, and so what may come next.
//!
//! A server that breaks the order of its messages is found out here, before a client is told of rows that nothing describes, or a
//! pool is given a server that has not finished. It looks at no contents and knows no statement: that a SELECT is answered as if it
//! were an INSERT does not show.

use super::owed::Progress;
use crate::wire::tag::backend as tag;

/// How far it has come. The states of an Execute are among those of a Query, which goes on behind a statement.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Answer {
    /// Nothing of a statement's answer is here, or only data of a COPY, which are complete.
    #[default]
    Begun,
    /// A result is described (in an Execute, its rows have begun), and not complete.
    Rows,
    /// Data of a COPY are waited for; the server says nothing more before it has them.
    CopyIn,
    /// Data of a COPY, or of a replication stream, are coming.
    CopyOut,
    /// A statement of a Query is complete: another one may follow, or ReadyForQuery.
    Between,
    /// A Query has failed: ReadyForQuery follows.
    Failed,
}

impl Answer {
    /// Takes a message of the answer to a Query in. `None`: it cannot come now.
    pub(super) fn of_query(&mut self, received: u8) -> Option<Progress> {
        let (next, progress) = match (*self, received) {
            (Self::Between | Self::Failed, tag::READY_FOR_QUERY) => (Self::Begun, Progress::Ends),
            // A second one is FATAL: the server is told to stop before it was ready again.
            (_, tag::ERROR_RESPONSE) => (Self::Failed, Progress::Within),
            (Self::Failed, _) => return None,
            // Of one statement too: a rule may add queries to it, whose results come before its completion.
            (Self::Begun | Self::Between | Self::Rows, tag::ROW_DESCRIPTION) | (Self::Rows, tag::DATA_ROW) => {
                (Self::Rows, Progress::Within)
            }
            (Self::Begun | Self::Between | Self::Rows | Self::CopyIn, tag::COMMAND_COMPLETE)
            | (Self::Begun | Self::Between, tag::EMPTY_QUERY_RESPONSE) => (Self::Between, Progress::Completes),
            (Self::Begun | Self::Between, tag::COPY_BOTH_RESPONSE) => (Self::CopyOut, Progress::Within),
            (Self::Between, _) => (Self::Begun.copy(received)?, Progress::Within),
            (state, _) => (state.copy(received)?, Progress::Within),
        };
        *self = next;
        Some(progress)
    }

    /// Takes a message of the answer to an Execute in. `None`: it cannot come now.
    pub(super) fn of_execute(&mut self, received: u8) -> Option<Progress> {
        let (next, progress) = match (*self, received) {
            (_, tag::ERROR_RESPONSE) => (Self::Begun, Progress::Fails),
            // What they are, a Describe has told, if anybody wanted to know.
            (Self::Begun | Self::Rows, tag::DATA_ROW) => (Self::Rows, Progress::Within),
            (Self::Begun | Self::Rows | Self::CopyIn, tag::COMMAND_COMPLETE)
            | (Self::Begun | Self::Rows, tag::PORTAL_SUSPENDED)
            | (Self::Begun, tag::EMPTY_QUERY_RESPONSE) => (Self::Begun, Progress::Ends),
            (state, _) => (state.copy(received)?, Progress::Within),
        };
        *self = next;
        Some(progress)
    }

    /// Takes a message of a COPY in.
    fn copy(self, received: u8) -> Option<Self> {
        match (self, received) {
            (Self::Begun, tag::COPY_IN_RESPONSE) => Some(Self::CopyIn),
            (Self::Begun, tag::COPY_OUT_RESPONSE) | (Self::CopyOut, tag::COPY_DATA) => Some(Self::CopyOut),
            // A base backup is several of them; behind a replication stream come the rows that tell of the next timeline.
            (Self::CopyOut, tag::COPY_DONE) => Some(Self::Begun),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The messages of an answer up to and with the first that cannot come.
    fn taken(messages: &str, mut take: impl FnMut(u8) -> Option<Progress>) -> String {
        let refused = messages.bytes().position(|message| take(message).is_none());
        refused.map_or_else(|| messages.to_owned(), |at| format!("{} not {}", &messages[..at], &messages[at..=at]))
    }

    #[track_caller]
    fn query(messages: &str, expected: &str) {
        let mut answer = Answer::default();
        assert_eq!(taken(messages, |message| answer.of_query(message)), expected);
    }

    #[track_caller]
    fn execute(messages: &str, expected: &str) {
        let mut answer = Answer::default();
        assert_eq!(taken(messages, |message| answer.of_execute(message)), expected);
    }

    #[test]
    fn what_servers_answer_to_a_query() {
        for messages in [
            "TDDCZ",
            "TCZ",
            "CZ",
            "IZ",
            "EZ",
            "CCCZ",
            "TDCTDCCZ",
            "TDEZ",
            "CEZ",
            "EEZ",
            // INSERT with a rule that adds a SELECT.
            "TDTDCZ", // COPY in both directions, and between other statements.
            "GCZ",
            "GEZ",
            "CGCTDCZ",
            "HddcCZ",
            "HcCZ",
            "HdEZ",
            "CHdcCCZ",
            // A replication stream whose timeline ends; a base backup before and since PostgreSQL 15.
            "WddcTDCCZ",
            "WcCZ",
            "WdEZ",
            "TDCTDCHdcHdcTDCCZ",
            "TDCTDCHddcTDCCZ",
        ] {
            query(messages, messages);
        }
    }

    #[test]
    fn what_can_not_come_in_the_answer_to_a_query() {
        query("Z", " not Z");
        query("DCZ", " not D");
        query("CDCZ", "C not D");
        query("TDZ", "TD not Z");
        query("GZ", "G not Z");
        query("GT", "G not T");
        query("Gd", "G not d");
        query("d", " not d");
        query("c", " not c");
        query("HdCZ", "Hd not C");
        query("HcdC", "Hc not d");
        query("HcZ", "Hc not Z");
        query("TG", "T not G");
        query("ECZ", "E not C");
        query("ETDCZ", "E not T");
        query("W", "W");
        for message in "123nstVRKvX?".bytes() {
            let mut answer = Answer::default();
            assert_eq!(answer.of_query(message), None, "{}", message.escape_ascii());
        }
    }

    #[test]
    fn what_servers_answer_to_an_execute() {
        for messages in ["DDC", "C", "I", "s", "DDs", "E", "DE", "GC", "GE", "HddcC", "HdE"] {
            execute(messages, messages);
        }
        execute("T", " not T");
        execute("Z", " not Z");
        execute("d", " not d");
        execute("DI", "D not I");
        execute("HC", "H not C");
        execute("HcD", "HcD");
        execute("Gs", "G not s");
        execute("W", " not W");
        execute("n", " not n");
    }
}
