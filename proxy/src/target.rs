//! Which servers of its region a session is served by, in libpq's words (PostgreSQL's manual, "Connection Strings",
//! `target_session_attrs`).
//!
//! Here is only what the words mean. Which node is which is known to [`crate::login`]; a bind rule says which of them its logins
//! get. None of them ever leads out of the region.

use std::fmt;

/// Which servers a session may have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum TargetSessionAttrs {
    /// Any.
    Any,
    /// One that is no standby; rather one whose transactions are not read-only by default.
    #[default]
    ReadWrite,
    /// One whose sessions cannot write unless they ask to: a standby, or one with `default_transaction_read_only = on`.
    ReadOnly,
    /// One that is no standby.
    Primary,
    /// A standby.
    Standby,
    /// A standby if there is one, else any.
    PreferStandby,
}

/// What a server has reported of itself when it was logged in to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ServerState {
    /// `in_hot_standby`; servers older than PostgreSQL 14 do not report it.
    pub standby: Option<bool>,
    /// `default_transaction_read_only`, unless the client has asked for it itself.
    pub read_only: bool,
}

/// How well a server fits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fit {
    /// It is what is wanted.
    Good,
    /// It will do if the region has none that is.
    SecondBest,
    /// It must not be used.
    None,
}

impl TargetSessionAttrs {
    /// All of them, with their names.
    pub const ALL: [(&'static str, Self); 6] = [
        ("any", Self::Any),
        ("read-write", Self::ReadWrite),
        ("read-only", Self::ReadOnly),
        ("primary", Self::Primary),
        ("standby", Self::Standby),
        ("prefer-standby", Self::PreferStandby),
    ];

    /// Its name in the configuration.
    pub fn as_str(self) -> &'static str {
        Self::ALL.iter().find(|(_, known)| *known == self).map_or("", |(name, _)| name)
    }

    /// Its place in [`Self::ALL`].
    pub fn index(self) -> usize {
        Self::ALL.iter().position(|(_, known)| *known == self).unwrap_or(0)
    }

    /// Whether a replica can be the first choice.
    pub fn is_for_standbys(self) -> bool {
        match self {
            Self::ReadOnly | Self::Standby | Self::PreferStandby => true,
            Self::Any | Self::ReadWrite | Self::Primary => false,
        }
    }

    /// How well a server fits that is a standby or not, and whose transactions are read-only by default or not.
    ///
    /// One thing is not libpq's: a primary that is read-only by default is the second choice for `read-write` and not excluded,
    /// because a role may have that setting of its own, and the server refuses its writes by itself.
    pub fn fit(self, standby: bool, read_only: bool) -> Fit {
        let only = |fits: bool| if fits { Fit::Good } else { Fit::None };
        match self {
            Self::Any => Fit::Good,
            Self::ReadWrite if !standby && read_only => Fit::SecondBest,
            Self::ReadWrite | Self::Primary => only(!standby),
            Self::ReadOnly => only(standby || read_only),
            Self::Standby => only(standby),
            Self::PreferStandby if standby => Fit::Good,
            Self::PreferStandby => Fit::SecondBest,
        }
    }
}

impl fmt::Display for TargetSessionAttrs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_fits_is_what_libpq_takes() {
        // A primary, one that is read-only by default, a standby.
        let fits = |(name, wanted): (&str, TargetSessionAttrs)| {
            format!("{name} {:?} {:?} {:?}", wanted.fit(false, false), wanted.fit(false, true), wanted.fit(true, false))
        };
        let expected = [
            "any Good Good Good",
            "read-write Good SecondBest None",
            "read-only None Good Good",
            "primary Good Good None",
            "standby None None Good",
            "prefer-standby SecondBest SecondBest Good",
        ];
        assert_eq!(TargetSessionAttrs::ALL.map(fits), expected);
    }

    #[test]
    fn names_and_places_agree() {
        for (place, (name, wanted)) in TargetSessionAttrs::ALL.into_iter().enumerate() {
            assert_eq!((wanted.as_str(), wanted.index()), (name, place));
        }
    }
}
