//! What a server may say at any time: notices, notifications and reports of settings.
//!
//! They are for whoever has the backend. The settings are also kept, because what one session has set the next one must not meet.

use std::sync::Arc;

use super::backend::{Event, Route};
use super::client::{Preamble, Wait};
use super::output::Outputs;
use super::pin::Cause;
use super::reading::Broken;
use super::settings::STRINGS;
use super::{Common, Holder, Sessions};
use crate::pool::{BackendKey, Parameters, State};
use crate::sql;
use crate::wire::backend;
use crate::wire::tag::backend as tag;

impl Common {
    /// Notices, notifications and reports of settings: for whoever has the backend.
    pub(super) fn asynchronous(
        &mut self,
        sessions: &mut Sessions,
        key: BackendKey,
        message: u8,
        body: &[u8],
        out: &mut Outputs,
    ) -> Result<(Route, Event), Broken> {
        if message == tag::PARAMETER_STATUS {
            self.reported(sessions, key, body, out)?;
        }
        let Some(found) = self.pools.get(key) else { return Err(Broken) };
        match sessions.holder(found.state()) {
            Holder::Session(owner) => {
                if let Some(session) = sessions.get(owner) {
                    // What the restoring of its settings brings about is no news to the client.
                    session.receiving = session.wait != Wait::Preamble(Preamble::Restore);
                    if !session.receiving {
                        return Ok((Route::Nowhere, Event::None));
                    }
                    if message == tag::PARAMETER_STATUS {
                        session.told = found.parameters.clone();
                    }
                }
                Ok((Route::To(owner), Event::None))
            }
            // A reload of the server's configuration may report a setting at any time, and a reset does.
            Holder::Pool => Ok((Route::Nowhere, Event::None)),
            Holder::Nobody if message == tag::PARAMETER_STATUS => Ok((Route::Nowhere, Event::None)),
            // Whoever is told something while nobody has the backend would be told what another session caused.
            Holder::Nobody => Err(Broken),
        }
    }

    /// The server reports a setting.
    fn reported(&mut self, sessions: &mut Sessions, key: BackendKey, body: &[u8], out: &mut Outputs) -> Result<(), Broken> {
        let Some(found) = self.pools.get(key) else { return Err(Broken) };
        let state = found.state();
        let (name, value) = backend::parameter_status_fields(body).ok_or(Broken)?;
        let name = str::from_utf8(name).map_err(|_| Broken)?;
        let Ok(value) = str::from_utf8(value) else {
            return self.reported_in_another_encoding(sessions, key, name, out);
        };
        // Under some settings the server would read texts in another way than the proxy does.
        if sql::refused_setting(name, value).is_some() {
            return Err(Broken);
        }
        found.is_told(name, value);
        found.parameters = with(&found.parameters, name, value);
        if !found.parameters.are_within_bounds() {
            return Err(Broken);
        }
        if *found.parameters == *found.initial {
            // One object for what is the same, so that the next session sees it at a glance.
            found.parameters = found.initial.clone();
        }
        if state == State::Idle {
            // The server has read its configuration again.
            found.initial = with(&found.initial, name, value);
        }
        Ok(())
    }

    /// A value in the client's encoding, which is not ours. No other backend could be given it, so its session keeps this one.
    fn reported_in_another_encoding(
        &mut self,
        sessions: &mut Sessions,
        key: BackendKey,
        name: &str,
        out: &mut Outputs,
    ) -> Result<(), Broken> {
        // Their values are words of ASCII, and texts are read by them.
        if ["client_encoding", STRINGS].iter().any(|known| name.eq_ignore_ascii_case(known)) {
            return Err(Broken);
        }
        let Some(state) = self.pools.get(key).map(|found| found.state()) else { return Err(Broken) };
        match sessions.holder(state) {
            Holder::Session(owner) => {
                if let Some(session) = sessions.get(owner) {
                    self.leaves_behind(session, key, Cause::Setting, out);
                }
                Ok(())
            }
            // A reset has brought it back to what it was at login.
            Holder::Pool => Ok(()),
            Holder::Nobody => Err(Broken),
        }
    }
}

/// The parameters with one of them changed.
fn with(parameters: &Parameters, name: &str, value: &str) -> Arc<Parameters> {
    let mut parameters = parameters.clone();
    parameters.set(name, value);
    parameters.into()
}
