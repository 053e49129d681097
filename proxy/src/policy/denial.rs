//! Why something was denied, and what the client is told about it.
//!
//! A denial is small and cheap to make: texts are put together only when one is sent. The client's text names the region and
//! never the rule that gave a grant; that is for logs and audit.

use super::{Policy, RuleId};
use crate::region::SessionRegion;
use crate::wire::sqlstate::SqlState;

/// Why a session, a choice or a statement was denied.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reason {
    /// The session has no region, and nothing it may use is the default.
    NoRegion,
    /// No node is configured in the session's region.
    NoNode,
    /// The region is outside the session's grant.
    NotGranted,
    /// No bind rule matches the login, and `unbound = "block"`.
    Unbound,
    /// The statement could have its server move data elsewhere, and a guard denies that.
    Guarded,
    /// The grant was computed by another policy than the one that was asked. The caller broke a rule; nothing was decided.
    StaleGrant,
}

impl Reason {
    /// Every reason.
    pub const ALL: [Self; 6] = [Self::NoRegion, Self::NoNode, Self::NotGranted, Self::Unbound, Self::Guarded, Self::StaleGrant];

    /// The reason as a label of metrics and audit records.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NoRegion => "no_region",
            Self::NoNode => "no_node",
            Self::NotGranted => "not_granted",
            Self::Unbound => "unbound",
            Self::Guarded => "guarded",
            Self::StaleGrant => "stale_grant",
        }
    }

    /// The reason in words, as `{reason}` of the configured `block_message` has it.
    pub fn text(self) -> &'static str {
        match self {
            Self::NoRegion => "no region is set for this session",
            Self::NoNode => "no in-region replica for user",
            Self::NotGranted => "the region is outside the grant",
            Self::Unbound => "no residency rule admits the user",
            Self::Guarded => "the statement could move data elsewhere",
            Self::StaleGrant => "the grant is of another policy",
        }
    }
}

/// A refusal: why, by which rule, and for which region.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Denial {
    /// Why.
    pub reason: Reason,
    /// The rule that gave the grant, or that gave none; the guard that denies.
    pub rule: RuleId,
    /// The region that was asked for; none where that is the reason, or at a login that no rule admits.
    pub region: SessionRegion,
    /// Who was refused, for the one text that names them: `Some` exactly for [`Reason::Unbound`], which happens at logins.
    login: Option<Box<Login>>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Login {
    user: Box<str>,
    database: Box<str>,
}

impl Denial {
    pub(super) fn new(reason: Reason, rule: RuleId, region: &SessionRegion) -> Self {
        Self { reason, rule, region: region.clone(), login: None }
    }

    pub(super) fn unbound(rule: RuleId, user: &str, database: &str) -> Self {
        let login = Box::new(Login { user: user.into(), database: database.into() });
        Self { reason: Reason::Unbound, rule, region: SessionRegion::None, login: Some(login) }
    }

    /// What to do about it, for the client.
    pub fn hint(&self) -> Option<&'static str> {
        (self.reason == Reason::Guarded)
            .then_some("An administrator can allow such statements in [residency.guards] of the proxy.")
    }

    /// The SQLSTATE that the client gets.
    pub fn sqlstate(&self, policy: &Policy) -> SqlState {
        match self.reason {
            Reason::NoRegion | Reason::NoNode => policy.block_sqlstate,
            Reason::NotGranted | Reason::Guarded => SqlState::INSUFFICIENT_PRIVILEGE,
            Reason::Unbound => SqlState::INVALID_AUTHORIZATION_SPECIFICATION,
            Reason::StaleGrant => SqlState::INTERNAL_ERROR,
        }
    }

    /// The message that the client gets.
    pub fn message(&self, policy: &Policy) -> String {
        match self.reason {
            Reason::NoRegion | Reason::NoNode => policy.block_message.replace("{reason}", self.reason.text()),
            Reason::NotGranted => format!("permission denied for region \"{}\"", policy.region_name(&self.region)),
            Reason::Unbound => {
                let (user, database) = self.login.as_ref().map_or(("", ""), |login| (&login.user, &login.database));
                format!("no residency rule admits user \"{user}\" to database \"{database}\"")
            }
            Reason::Guarded => {
                format!("permission denied: this statement could move data out of its region ({})", policy.rule_name(self.rule))
            }
            Reason::StaleGrant => "residency grant does not belong to the policy in force".to_owned(),
        }
    }
}
