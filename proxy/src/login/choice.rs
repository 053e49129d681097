//! Which nodes of a region are tried for a session, and in which order. Pure: what is known of the nodes comes in, an order comes out.
//!
//! The configured role says where to look first; what the server has reported says what it is. So a standby that was promoted serves
//! writes without a change of the configuration, and a primary that came back as a standby does not. A node never comes in question
//! because others are down when it does not fit: a write would be refused there, or a region left.

use crate::config::Role;
use crate::target::{Fit, ServerState, TargetSessionAttrs};

/// A node of the region, as far as it matters here.
#[derive(Clone, Copy, Debug)]
pub(super) struct Candidate {
    /// As configured.
    pub(super) role: Role,
    /// What it has reported last.
    pub(super) seen: Option<ServerState>,
    /// That was a moment ago.
    pub(super) fresh: bool,
    /// The last try to reach it has failed.
    pub(super) down: bool,
}

impl Candidate {
    /// How well it fits, and whether its role promised so.
    fn fit(&self, wanted: TargetSessionAttrs) -> (Fit, bool) {
        let by_role = self.role == Role::Replica;
        let reported = self.seen.and_then(|seen| Some((seen.standby?, seen.read_only)));
        let (standby, read_only) = reported.unwrap_or((by_role, false));
        match (wanted.fit(standby, read_only), reported) {
            // That it does not fit is its role only, or may have changed: worth a try when nothing better is there, for it will say
            // what it is.
            (Fit::None, _) if reported.is_none() || !self.fresh => (Fit::SecondBest, false),
            (fit, _) => (fit, wanted.fit(by_role, false) == Fit::Good),
        }
    }
}

/// The places of those that come in question: first those that are up, of these the ones that fit best, of these the ones whose
/// role fits, of these the first.
pub(super) fn order(nodes: &[Candidate], wanted: TargetSessionAttrs) -> Vec<usize> {
    let rank = |(place, node): (usize, &Candidate)| {
        let (fit, promised) = node.fit(wanted);
        (fit != Fit::None).then_some((node.down, fit, !promised, place))
    };
    let mut ranks: Vec<_> = nodes.iter().enumerate().filter_map(rank).collect();
    ranks.sort_unstable();
    ranks.into_iter().map(|(.., place)| place).collect()
}

/// How well a server fits that has just been logged in to. One that does not say whether it is a standby is what its role says.
pub(super) fn fit(wanted: TargetSessionAttrs, role: Role, said: ServerState) -> Fit {
    wanted.fit(said.standby.unwrap_or(role == Role::Replica), said.read_only)
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};

    use super::*;

    /// Nodes in words: `primary`, `replica`; behind a `:` what it is known to be, `standby`, `writable` or `readonly`, with a `?` if
    /// that was long ago; and `!` if it is down.
    fn check(nodes: &str, expect: Expect) {
        let words: Vec<&str> = nodes.split(' ').collect();
        let candidate = |word: &&str| {
            let (word, down) = word.strip_suffix('!').map_or((*word, false), |word| (word, true));
            let (word, fresh) = word.strip_suffix('?').map_or((word, true), |word| (word, false));
            let (role, known) = word.split_once(':').unwrap_or((word, ""));
            let seen = match known {
                "standby" => Some(ServerState { standby: Some(true), read_only: false }),
                "writable" => Some(ServerState { standby: Some(false), read_only: false }),
                "readonly" => Some(ServerState { standby: Some(false), read_only: true }),
                _ => None,
            };
            Candidate { role: if role == "primary" { Role::Primary } else { Role::Replica }, seen, fresh, down }
        };
        let nodes: Vec<Candidate> = words.iter().map(candidate).collect();
        let line = |(name, wanted): (&str, TargetSessionAttrs)| {
            let order: Vec<&str> = order(&nodes, wanted).into_iter().map(|place| words[place]).collect();
            format!("{name:14} {}\n", if order.is_empty() { "nothing".to_owned() } else { order.join(", ") })
        };
        expect.assert_eq(&TargetSessionAttrs::ALL.map(line).concat());
    }

    #[test]
    fn before_anything_is_known_the_roles_say_where_to_look() {
        check(
            "replica primary",
            expect![[r#"
                any            replica, primary
                read-write     primary, replica
                read-only      replica, primary
                primary        primary, replica
                standby        replica, primary
                prefer-standby replica, primary
            "#]],
        );
    }

    #[test]
    fn what_the_servers_are_decides() {
        check(
            "primary:writable replica:standby",
            expect![[r#"
                any            primary:writable, replica:standby
                read-write     primary:writable
                read-only      replica:standby
                primary        primary:writable
                standby        replica:standby
                prefer-standby replica:standby, primary:writable
            "#]],
        );
        // After a switchover.
        check(
            "primary:standby replica:writable",
            expect![[r#"
                any            primary:standby, replica:writable
                read-write     replica:writable
                read-only      primary:standby
                primary        replica:writable
                standby        primary:standby
                prefer-standby primary:standby, replica:writable
            "#]],
        );
    }

    #[test]
    fn what_was_long_ago_may_have_changed() {
        check(
            "primary:writable! replica:standby?",
            expect![[r#"
            any            replica:standby?, primary:writable!
            read-write     replica:standby?, primary:writable!
            read-only      replica:standby?
            primary        replica:standby?, primary:writable!
            standby        replica:standby?
            prefer-standby replica:standby?, primary:writable!
        "#]],
        );
        check(
            "primary:standby? replica:writable?",
            expect![[r#"
            any            primary:standby?, replica:writable?
            read-write     replica:writable?, primary:standby?
            read-only      primary:standby?, replica:writable?
            primary        replica:writable?, primary:standby?
            standby        primary:standby?, replica:writable?
            prefer-standby primary:standby?, replica:writable?
        "#]],
        );
    }

    #[test]
    fn of_two_that_can_be_written_to_the_configured_primary_is_used() {
        check(
            "replica:writable primary:writable",
            expect![[r#"
                any            replica:writable, primary:writable
                read-write     primary:writable, replica:writable
                read-only      nothing
                primary        primary:writable, replica:writable
                standby        nothing
                prefer-standby replica:writable, primary:writable
            "#]],
        );
    }

    #[test]
    fn those_that_are_down_come_last_and_never_make_another_fit() {
        check(
            "primary! replica:standby! replica:standby",
            expect![[r#"
                any            replica:standby, primary!, replica:standby!
                read-write     primary!
                read-only      replica:standby, replica:standby!, primary!
                primary        primary!
                standby        replica:standby, replica:standby!, primary!
                prefer-standby replica:standby, replica:standby!, primary!
            "#]],
        );
        check(
            "primary:writable replica!",
            expect![[r#"
                any            primary:writable, replica!
                read-write     primary:writable, replica!
                read-only      replica!
                primary        primary:writable, replica!
                standby        replica!
                prefer-standby primary:writable, replica!
            "#]],
        );
    }

    #[test]
    fn a_primary_that_is_read_only_by_default_is_for_reads_first() {
        check(
            "primary:readonly primary:writable",
            expect![[r#"
                any            primary:readonly, primary:writable
                read-write     primary:writable, primary:readonly
                read-only      primary:readonly
                primary        primary:readonly, primary:writable
                standby        nothing
                prefer-standby primary:readonly, primary:writable
            "#]],
        );
    }
}
