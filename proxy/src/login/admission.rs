//! What an authenticated client may do here: its grant, its region, and the settings its backends are opened with.
//!
//! Pure: the policy and the StartupMessage come in, an admission or a refusal comes out. Nothing is looked up and nothing is sent.

use std::sync::Arc;

use super::refusal::Refusal;
use crate::observe::LoginOutcome;
use crate::policy::{Denial, Grant, Policy, Subject};
use crate::pool::StartupSettings;
use crate::sql;
use crate::wire::startup::{Replication, StartupMessage};

/// What a login has come to.
#[derive(Debug)]
pub struct Admission {
    /// What it is entitled to.
    pub grant: Grant,
    /// The region that the StartupMessage names; inside the grant.
    pub startup_region: Option<Box<str>>,
    /// The settings of the StartupMessage, those of residency left out: names in lower case, sorted.
    pub settings: StartupSettings,
}

/// Why there is none.
#[derive(Debug)]
pub enum Rejection {
    /// By the residency policy.
    Denied(Denial),
    /// By a setting that can not be had.
    Refused(Refusal),
}

/// Judges a StartupMessage of `subject`. `parameters` are the lower-case names of the setting that is the session region.
///
/// # Errors
/// No rule admits the login (28000), none lets it replicate (0A000), the region it names is outside its grant (42501), or one of its settings would make texts
/// read differently than they are read here (22023).
pub fn admit(
    policy: &Policy,
    parameters: &[String],
    startup: &StartupMessage,
    subject: &Subject<'_>,
) -> Result<Admission, Rejection> {
    let grant = policy.grant(subject).map_err(Rejection::Denied)?;
    if startup.replication != Replication::None && !grant.may_replicate() {
        return Err(Rejection::Refused(Refusal::replication()));
    }

    let mut startup_region = None;
    let mut settings: Vec<(Box<str>, Box<str>)> = Vec::with_capacity(startup.parameters.len());
    for (name, value) in &startup.parameters {
        let name = name.to_ascii_lowercase();
        // All names of the parameter are one value, so the last one counts.
        if parameters.contains(&name) {
            startup_region = Some(value.as_str());
        } else {
            check_setting(&name, value).map_err(Rejection::Refused)?;
            settings.push((name.into(), value.as_str().into()));
        }
    }
    if let Some(name) = startup_region {
        policy.may_choose(&grant, &policy.region(name)).map_err(Rejection::Denied)?;
    }
    settings.sort();
    Ok(Admission { grant, startup_region: startup_region.map(Into::into), settings: Arc::from(settings) })
}

/// Refuses settings under which a text means something else to the server than to our reading of it.
fn check_setting(name: &str, value: &str) -> Result<(), Refusal> {
    let Some(refused) = sql::refused_setting(name, value) else { return Ok(()) };
    let refusal = Refusal::new(LoginOutcome::Unsupported, refused.sqlstate, refused.message.to_string());
    Err(match refused.hint {
        Some(hint) => refusal.with_hint(hint),
        None => refusal,
    })
}

/// The name of an encoding as PostgreSQL compares it: letters and digits only, in lower case.
pub(super) fn clean_encoding_name(name: &str) -> String {
    name.chars().filter(char::is_ascii_alphanumeric).map(|letter| letter.to_ascii_lowercase()).collect()
}

/// One of PostgreSQL's words for true, in full or cut where it is still clear.
pub(super) fn is_surely_on(value: &str) -> bool {
    let value = value.to_ascii_lowercase();
    let cut = |word: &str| !value.is_empty() && word.starts_with(&value);
    value == "1" || value == "on" || cut("true") || cut("yes")
}
