//! The prepared statements of one backend, as far as the proxy has made them: which are there, which are on their way, which to
//! give up when there are too many.
//!
//! A statement is known by a digest of everything that decides what it means, so two sessions that prepare the same text share it.
//! A Parse that has been sent counts for what follows it up to the next Sync, because a server that fails it also skips that. What
//! is sent behind that Sync must wait until the Parse is answered. Nothing here knows messages or texts.

use lru::LruCache;

use crate::limits::BACKEND_STATEMENTS_BYTES_MAX;

/// Names a prepared statement by what it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct StatementDigest(pub [u8; 16]);

/// A number for the rows that a statement returns; two statements that return other columns have other numbers.
pub type Description = u64;

/// What is known of a statement of a backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It is not there.
    Absent,
    /// It is there, or will be when what is sent next arrives.
    Ready,
    /// A Parse is on its way whose outcome is not known yet.
    Uncertain,
    /// It is there, and must be made anew: what it refers to has changed.
    Stale,
}

/// One statement.
#[derive(Clone, Debug)]
pub struct PreparedStatement {
    /// The unit (up to a Sync) in which its Parse was sent; `None` once it is answered.
    sent_in: Option<u32>,
    /// Bytes of its text and types.
    bytes: usize,
    /// What it returns, once it has been described.
    pub description: Option<Description>,
    stale: bool,
}

/// The statements of one backend.
#[derive(Debug)]
pub struct PreparedStatements {
    named: LruCache<StatementDigest, PreparedStatement>,
    bytes: usize,
    unnamed: Option<UnnamedStatement>,
    /// Syncs and Queries that have been sent: units of the extended protocol are numbered by them.
    unit: u32,
}

impl Default for PreparedStatements {
    fn default() -> Self {
        Self { named: LruCache::unbounded(), bytes: 0, unnamed: None, unit: 0 }
    }
}

/// The unnamed statement of a backend.
#[derive(Clone, Copy, Debug)]
pub struct UnnamedStatement {
    digest: StatementDigest,
    sent_in: Option<u32>,
}

/// The standing of a statement whose Parse was sent in a unit; `None`: and answered.
fn standing(sent_in: Option<u32>, unit: u32) -> Standing {
    if sent_in.is_none_or(|sent_in| sent_in == unit) { Standing::Ready } else { Standing::Uncertain }
}

impl PreparedStatements {
    /// What is known of a named statement; it counts as used.
    pub fn standing(&mut self, digest: StatementDigest) -> Standing {
        match self.named.get(&digest) {
            None => Standing::Absent,
            Some(statement) if statement.stale && statement.sent_in.is_none() => Standing::Stale,
            Some(statement) => standing(statement.sent_in, self.unit),
        }
    }

    /// What is known of the unnamed statement.
    pub fn unnamed_standing(&self, digest: StatementDigest) -> Standing {
        match &self.unnamed {
            Some(UnnamedStatement { digest: known, sent_in }) if *known == digest => standing(*sent_in, self.unit),
            Some(_) | None => Standing::Absent,
        }
    }

    /// A named statement.
    pub fn get(&mut self, digest: StatementDigest) -> Option<&mut PreparedStatement> {
        self.named.get_mut(&digest)
    }

    /// The statement that has to be closed before one more of `bytes` is made, if there are `count_max`, or too many bytes. Taken out
    /// already; [`Self::restore`] puts it back.
    pub fn evict(&mut self, bytes: usize, count_max: usize) -> Option<(StatementDigest, PreparedStatement)> {
        let full = self.named.len() >= count_max || self.bytes + bytes > BACKEND_STATEMENTS_BYTES_MAX;
        let (digest, statement) = if full { self.named.pop_lru()? } else { return None };
        self.bytes = self.bytes.saturating_sub(statement.bytes);
        Some((digest, statement))
    }

    /// A statement is where it was: what was to take it away has not been carried out, so its own Parse has been.
    pub fn restore(&mut self, digest: StatementDigest, statement: PreparedStatement) {
        self.put(digest, PreparedStatement { sent_in: None, ..statement });
    }

    fn put(&mut self, digest: StatementDigest, statement: PreparedStatement) {
        self.bytes += statement.bytes;
        if let Some(replaced) = self.named.put(digest, statement) {
            self.bytes = self.bytes.saturating_sub(replaced.bytes);
        }
    }

    /// A Parse of a named statement has been sent.
    pub fn sent(&mut self, digest: StatementDigest, bytes: usize) {
        self.put(digest, PreparedStatement { sent_in: Some(self.unit), bytes, description: None, stale: false });
    }

    /// A Parse of the unnamed statement has been sent. Returns the one that it replaces, for [`Self::restore_unnamed`].
    pub fn sent_unnamed(&mut self, digest: StatementDigest) -> Option<UnnamedStatement> {
        self.unnamed.replace(UnnamedStatement { digest, sent_in: Some(self.unit) })
    }

    /// The unnamed statement is the one that was there before: the Parse of another has not been carried out.
    pub fn restore_unnamed(&mut self, statement: Option<UnnamedStatement>) {
        self.unnamed = statement.map(|statement| UnnamedStatement { sent_in: None, ..statement });
    }

    /// The Parse of a named statement has been answered.
    pub fn parsed(&mut self, digest: StatementDigest) {
        if let Some(statement) = self.named.peek_mut(&digest) {
            statement.sent_in = None;
        }
    }

    /// The Parse of the unnamed statement has been answered.
    pub fn parsed_unnamed(&mut self, digest: StatementDigest) {
        if let Some(statement) = self.unnamed.as_mut().filter(|statement| statement.digest == digest) {
            statement.sent_in = None;
        }
    }

    /// A named statement is not there: its Parse failed or was skipped, or it has been closed. [`Self::restore`] puts it back.
    pub fn forget(&mut self, digest: StatementDigest) -> Option<PreparedStatement> {
        let forgotten = self.named.pop(&digest)?;
        self.bytes = self.bytes.saturating_sub(forgotten.bytes);
        Some(forgotten)
    }

    /// What the unnamed statement is, is not known any more.
    pub fn forget_unnamed(&mut self) {
        self.unnamed = None;
    }

    /// Something has changed that makes the server refuse a statement: each is made anew before its next use.
    pub fn doubt(&mut self) {
        self.named.iter_mut().for_each(|(_, statement)| statement.stale = true);
        self.unnamed = None;
    }

    /// All statements are gone (DEALLOCATE ALL, DISCARD ALL).
    pub fn clear(&mut self) {
        self.named.clear();
        self.bytes = 0;
        self.unnamed = None;
    }

    /// A Sync has been sent, or a Query, which ends a unit too and the unnamed statement with it.
    pub fn unit_ends(&mut self, with_query: bool) {
        self.unit = self.unit.wrapping_add(1);
        if with_query {
            self.unnamed = None;
        }
    }

    /// How many named statements there are.
    pub fn len(&self) -> usize {
        self.named.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.named.is_empty() && self.unnamed.is_none()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest(number: u8) -> StatementDigest {
        StatementDigest([number; 16])
    }

    #[test]
    fn a_parse_counts_up_to_the_next_sync_and_again_when_it_is_answered() {
        let mut statements = PreparedStatements::default();
        assert_eq!(statements.standing(digest(1)), Standing::Absent);
        statements.sent(digest(1), 10);
        assert_eq!(statements.standing(digest(1)), Standing::Ready);
        statements.unit_ends(false);
        assert_eq!(statements.standing(digest(1)), Standing::Uncertain);
        statements.parsed(digest(1));
        assert_eq!(statements.standing(digest(1)), Standing::Ready);
        statements.forget(digest(1));
        assert_eq!((statements.standing(digest(1)), statements.bytes), (Standing::Absent, 0));
    }

    #[test]
    fn the_unnamed_statement_is_the_one_that_was_parsed_last_and_ends_with_a_query() {
        let mut statements = PreparedStatements::default();
        assert!(statements.sent_unnamed(digest(1)).is_none());
        statements.parsed_unnamed(digest(1));
        assert_eq!(statements.unnamed_standing(digest(1)), Standing::Ready);
        assert_eq!(statements.unnamed_standing(digest(2)), Standing::Absent);
        statements.unit_ends(false);
        assert_eq!(statements.unnamed_standing(digest(1)), Standing::Ready);
        statements.unit_ends(true);
        assert_eq!(statements.unnamed_standing(digest(1)), Standing::Absent);
    }

    #[test]
    fn what_is_in_doubt_is_made_anew() {
        let mut statements = PreparedStatements::default();
        statements.sent(digest(1), 10);
        statements.parsed(digest(1));
        statements.doubt();
        assert_eq!(statements.standing(digest(1)), Standing::Stale);
        statements.forget(digest(1));
        statements.sent(digest(1), 10);
        assert_eq!(statements.standing(digest(1)), Standing::Ready);
    }

    #[test]
    fn the_one_that_was_not_used_for_longest_goes_when_there_are_too_many_or_too_many_bytes() {
        let mut statements = PreparedStatements::default();
        for number in 1..=3 {
            assert!(statements.evict(10, 3).is_none());
            statements.sent(digest(number), 10);
        }
        statements.standing(digest(1));
        let (evicted, statement) = statements.evict(10, 3).unwrap();
        assert_eq!(evicted, digest(2));
        statements.restore(evicted, statement);
        assert_eq!(statements.len(), 3);
        let (evicted, _) = statements.evict(BACKEND_STATEMENTS_BYTES_MAX, 10).unwrap();
        assert_eq!((evicted, statements.bytes), (digest(3), 20));
    }
}
