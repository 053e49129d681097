//! What became of the connections that clients made. The control thread counts; nobody else does.

use std::cell::Cell;

/// How the login of one connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LoginOutcome {
    /// The client is a session now.
    Admitted,
    /// It was a CancelRequest.
    Cancel,
    /// The client went away.
    Disconnected,
    /// The login was not over at its deadline.
    TimedOut,
    /// The bytes were not those of the protocol.
    Malformed,
    /// The client asked for something that is not to be had: a protocol version, replication, a setting.
    Unsupported,
    /// The connection is not encrypted as it has to be, or its encryption came to nothing.
    Tls,
    /// The password is wrong, or there is no such user.
    Password,
    /// No rule of the HBA file lets it in, or its connection does not prove what the rule asks.
    Unauthorized,
    /// The residency policy does not admit it.
    Denied,
    /// There are too many clients, or too many logins at once.
    TooMany,
    /// The proxy failed.
    Failed,
}

impl LoginOutcome {
    /// Every outcome.
    pub const ALL: [Self; 12] = [
        Self::Admitted,
        Self::Cancel,
        Self::Disconnected,
        Self::TimedOut,
        Self::Malformed,
        Self::Unsupported,
        Self::Tls,
        Self::Password,
        Self::Unauthorized,
        Self::Denied,
        Self::TooMany,
        Self::Failed,
    ];

    /// The outcome as a metric label.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Admitted => "admitted",
            Self::Cancel => "cancel",
            Self::Disconnected => "disconnected",
            Self::TimedOut => "timed_out",
            Self::Malformed => "malformed",
            Self::Unsupported => "unsupported",
            Self::Tls => "tls",
            Self::Password => "password",
            Self::Unauthorized => "unauthorized",
            Self::Denied => "denied",
            Self::TooMany => "too_many",
            Self::Failed => "failed",
        }
    }
}

/// A bound of the clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// All clients.
    Clients,
    /// Those of a user.
    ClientsPerUser,
    /// Those of a database.
    ClientsPerDatabase,
    /// Those of a region.
    ClientsPerRegion,
    /// Logins at once.
    Logins,
    /// Tries to log in that wait because others have failed.
    FailedLogins,
    /// Memory of the process.
    Memory,
}

impl Limit {
    /// Every bound.
    pub const ALL: [Self; 7] = [
        Self::Clients,
        Self::ClientsPerUser,
        Self::ClientsPerDatabase,
        Self::ClientsPerRegion,
        Self::Logins,
        Self::FailedLogins,
        Self::Memory,
    ];

    /// Its option, which is also its metric label.
    pub fn option(self) -> &'static str {
        match self {
            Self::Clients => "max_clients",
            Self::ClientsPerUser => "max_clients_per_user",
            Self::ClientsPerDatabase => "max_clients_per_database",
            Self::ClientsPerRegion => "max_clients_per_region",
            Self::Logins => "max_logins",
            Self::FailedLogins => "failed_logins",
            Self::Memory => "memory_limit",
        }
    }
}

/// Logins by outcome.
#[derive(Debug, Default)]
pub struct LoginCounters {
    outcomes: [Cell<u64>; LoginOutcome::ALL.len()],
    cancels_unknown: Cell<u64>,
    refused: [Cell<u64>; Limit::ALL.len()],
    delayed: Cell<u64>,
}

impl LoginCounters {
    /// Counts one login.
    pub fn count(&self, outcome: LoginOutcome) {
        if let Some(counter) = self.outcomes.get(outcome as usize) {
            counter.set(counter.get() + 1);
        }
    }

    /// Counts a cancel request that names no session.
    pub fn count_unknown_cancel(&self) {
        self.cancels_unknown.set(self.cancels_unknown.get() + 1);
    }

    /// Cancel requests that named no session.
    pub fn cancels_unknown(&self) -> u64 {
        self.cancels_unknown.get()
    }

    /// Counts a login that a bound has refused.
    pub fn count_refused(&self, limit: Limit) {
        if let Some(counter) = self.refused.get(limit as usize) {
            counter.set(counter.get() + 1);
        }
    }

    /// All bounds and how many logins each has refused.
    pub fn refused(&self) -> impl Iterator<Item = (Limit, u64)> {
        Limit::ALL.into_iter().zip(self.refused.iter().map(Cell::get))
    }

    /// Counts a login that waits because others have failed.
    pub fn count_delayed(&self) {
        self.delayed.set(self.delayed.get() + 1);
    }

    /// Logins that had to wait.
    pub fn delayed(&self) -> u64 {
        self.delayed.get()
    }

    /// All outcomes and how often each was counted.
    pub fn all(&self) -> impl Iterator<Item = (LoginOutcome, u64)> {
        LoginOutcome::ALL.into_iter().zip(self.outcomes.iter().map(Cell::get))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_outcome_has_its_own_counter() {
        let counters = LoginCounters::default();
        LoginOutcome::ALL.into_iter().for_each(|outcome| counters.count(outcome));
        assert!(counters.all().all(|(_, count)| count == 1));
        Limit::ALL.into_iter().for_each(|limit| counters.count_refused(limit));
        assert!(counters.refused().all(|(_, count)| count == 1));
    }
}
