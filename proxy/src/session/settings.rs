//! The settings that a server reports with ParameterStatus: what the client was told last is what it gets, whichever backend serves
//! it.
//!
//! In transaction mode a backend may have been left with other values by the session before. The difference is restored by one Query
//! that the client never sees, and its answer is awaited: no statement runs under settings that are not its session's. Values are
//! passed to `set_config` as they were reported, and quoted.
//!
//! What a session wants is not known before it has met its first backend: what its greeting told was the word of a probe. The values
//! that this backend had at its login, made with the same startup settings, correct it.

use std::sync::Arc;

use super::Common;
use super::Refusal;
use super::client::{Preamble, Session, Wait};
use super::frontend::Verdict;
use super::gate::Gate;
use super::output::Outputs;
use crate::pool::{BackendKey, Kind, Parameters, PoolMode, Rule};
use crate::sql::GuardSet;
use crate::wire::{SqlState, backend, frontend, parse_error};

/// Whether a setting that servers report can be given back by `set_config`. The others say what the server or the user is.
pub(super) fn is_restorable(name: &str) -> bool {
    !matches!(
        name,
        "server_version" | "server_encoding" | "integer_datetimes" | "in_hot_standby" | "is_superuser" | "session_authorization"
    )
}

/// The setting by which texts are read.
pub(super) const STRINGS: &str = "standard_conforming_strings";

impl Common {
    /// A session and a backend have met: tells the client what it does not know, and returns the statement that gives the backend
    /// what the client was told, if it takes one.
    pub(super) fn meet(&mut self, session: &mut Session, key: BackendKey, out: &mut Outputs) -> Option<String> {
        let told_before = session.told.clone();
        let forgets_sequences = std::mem::take(&mut session.forgets_sequences);
        let found = self.pools.get(key)?;
        let mut wanted = Vec::new();
        if session.start_settings.is_none() {
            let initial = found.initial.clone();
            inform(session, &initial, |_| true, out);
            session.told = initial.clone();
            session.start_settings = Some(initial);
        }
        if !Arc::ptr_eq(&session.told, &found.parameters) {
            let restores = session.mode == PoolMode::Transaction;
            let keeps = |name: &str| restores && is_restorable(name) && session.told.get(name).is_some();
            let differs = |(name, value): &(&str, &str)| session.told.get(name) != Some(*value);
            wanted.extend(found.parameters.iter().filter(differs).filter(|(name, _)| keeps(name)).map(|(name, _)| {
                let value = session.told.get(name).unwrap_or_default();
                format!("pg_catalog.set_config({}, {}, false)", quoted(name), quoted(value))
            }));
            let parameters = found.parameters.clone();
            inform(session, &parameters, |name| !keeps(name), out);
            if wanted.is_empty() {
                session.told = parameters;
            } else {
                let mut told = (*session.told).clone();
                parameters.iter().filter(|(name, _)| !keeps(name)).for_each(|(name, value)| told.set(name, value));
                session.told = told.into();
            }
        }
        if wanted.is_empty() && session.told.get(STRINGS) != told_before.get(STRINGS) {
            // What has led here was read in another way than this backend does. While something is awaited it is kept, and then read anew.
            wanted.push("1".to_owned());
        }
        let restore = (!wanted.is_empty()).then(|| format!("SELECT {}", wanted.join(", ")));
        match (forgets_sequences, restore) {
            (false, restore) => restore,
            (true, None) => Some("DISCARD SEQUENCES".to_owned()),
            (true, Some(restore)) => Some(format!("DISCARD SEQUENCES; {restore}")),
        }
    }

    /// Before a session has met a backend it is a guess how its server reads texts. One that depends on it is kept until they have met.
    pub(super) fn meets_first(
        &mut self,
        session: &mut Session,
        text: &[u8],
        message: &'static str,
        out: &mut Outputs,
    ) -> Option<Verdict> {
        if session.start_settings.is_some() || !session.is_quiet() || session.replicates() || !self.sql.is_ambiguous(text) {
            return None;
        }
        // Where it may not go it is not read by a server either.
        let grant = session.grant.as_ref()?;
        drop(self.policy.snapshot().decide(grant, session.region.current(), GuardSet::NONE).ok()?);
        match self.gate(session, message, out) {
            Gate::Open(key) => {
                self.send(session, key, frontend::query(b"SELECT 1"), Some((Kind::Query, Rule::Swallow)), out);
                Some(Verdict::Hold(Wait::Preamble(Preamble::Restore)))
            }
            Gate::Hold(wait) => Some(Verdict::Hold(wait)),
            Gate::Refuse(_) => None,
        }
    }

    /// What the session's client believes is what its backend has: from now on they are one object, so that the next look is quick.
    pub(super) fn settings_restored(&mut self, session: &mut Session, key: BackendKey, out: &mut Outputs) {
        if let Some(found) = self.pools.get(key) {
            if *found.parameters == *session.told {
                found.parameters = session.told.clone();
            } else {
                // Something has changed on the way.
                let parameters = found.parameters.clone();
                inform(session, &parameters, |_| true, out);
                session.told = parameters;
            }
        }
    }

    /// All settings of the session go back to what it began with, as by RESET ALL: what the client is told of it. Only for a session
    /// without a backend.
    pub(super) fn reset_settings(&self, session: &mut Session, out: &mut Outputs) {
        if let Some(start) = session.start_settings.clone()
            && !Arc::ptr_eq(&start, &session.told)
        {
            inform(session, &start, is_restorable, out);
            session.told = start;
        }
    }
}

/// Tells the client of those of `parameters` that it believes to be different.
fn inform(session: &Session, parameters: &Parameters, concerns: impl Fn(&str) -> bool, out: &mut Outputs) {
    for (name, value) in parameters.iter() {
        if concerns(name) && session.told.get(name) != Some(value) {
            session.tell(backend::parameter_status(name, value), out);
        }
    }
}

/// Why a backend is given up on which the settings of its session could not be restored: `error` is what the server said.
pub(super) fn restore_refusal(error: &[u8]) -> Refusal {
    let error = parse_error(error);
    if let Some(error) = error.as_ref().filter(|error| error.sqlstate == Some(SqlState::QUERY_CANCELED)) {
        // The client's own wish, or a timeout of its own.
        return Refusal::new(SqlState::QUERY_CANCELED, error.message.clone());
    }
    let said = error.map_or_else(String::new, |error| format!(": {}", error.message));
    Refusal::new(SqlState::CONNECTION_FAILURE, format!("the settings of this session could not be restored on its server{said}"))
}

/// A string constant, which reads the same whatever `standard_conforming_strings` is.
pub(super) fn quoted(value: &str) -> String {
    let doubled = value.replace('\'', "''");
    if value.contains('\\') { format!("E'{}'", doubled.replace('\\', "\\\\")) } else { format!("'{doubled}'") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_quoted() {
        assert_eq!(quoted("ISO, MDY"), "'ISO, MDY'");
        assert_eq!(quoted("'; DROP TABLE t; --"), "'''; DROP TABLE t; --'");
        assert_eq!(quoted("a\\'b"), "E'a\\\\''b'");
    }

    #[test]
    fn a_cancelled_restore_is_told_as_the_cancel_that_it_is() {
        let told = |sqlstate| {
            let error = Refusal::new(sqlstate, "so it is").error();
            let refusal = restore_refusal(error.get(5..).unwrap_or_default());
            (refusal.sqlstate, refusal.message.into_owned())
        };
        assert_eq!(told(SqlState::QUERY_CANCELED), (SqlState::QUERY_CANCELED, "so it is".to_owned()));
        let (sqlstate, message) = told(SqlState::INTERNAL_ERROR);
        assert!(sqlstate == SqlState::CONNECTION_FAILURE && message.ends_with(": so it is"), "{message}");
    }
}
