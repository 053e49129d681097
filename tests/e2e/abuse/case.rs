//! What a case is: a name, what a hostile client does, and what PostgreSQL answers to it.

use super::peer::{Peer, Target};

/// What a client does.
type Script = Box<dyn Fn(&mut Peer<'_>) + Send + Sync>;

/// What PostgreSQL does where the proxy has to differ, or can not be compared.
enum Direct {
    /// The same.
    Same,
    /// Something else, for a reason.
    Differs { expected: &'static str, why: &'static str },
    /// It is not asked, for a reason.
    Skipped { why: &'static str },
}

/// One case.
pub struct Case {
    pub name: String,
    /// See [`Peer::outcome`]. Ways out that are as good stand with ` | ` between them.
    expected: &'static str,
    direct: Direct,
    /// It is about what comes before encryption, or is answered otherwise behind it.
    pub begins_unencrypted: bool,
    script: Script,
}

impl Case {
    pub fn new(name: impl Into<String>, expected: &'static str, script: impl Fn(&mut Peer<'_>) + Send + Sync + 'static) -> Self {
        Self { name: name.into(), expected, direct: Direct::Same, begins_unencrypted: false, script: Box::new(script) }
    }

    /// A case that begins with a login.
    pub fn within(
        name: impl Into<String>,
        expected: &'static str,
        script: impl Fn(&mut Peer<'_>) + Send + Sync + 'static,
    ) -> Self {
        Self::new(name, expected, move |peer| {
            peer.login();
            script(peer);
        })
    }

    /// A case that sends these bytes as its first.
    pub fn bytes(name: impl Into<String>, expected: &'static str, bytes: impl Into<Vec<u8>>) -> Self {
        let bytes = bytes.into();
        Self::new(name, expected, move |peer| peer.send(&bytes))
    }

    /// A case that sends these bytes after its login.
    pub fn sends(name: impl Into<String>, expected: &'static str, bytes: impl Into<Vec<u8>>) -> Self {
        let bytes = bytes.into();
        Self::within(name, expected, move |peer| peer.send(&bytes))
    }

    /// It is not played where the connection is encrypted already.
    pub fn unencrypted(self) -> Self {
        Self { begins_unencrypted: true, ..self }
    }

    /// PostgreSQL answers otherwise.
    pub fn directly(self, expected: &'static str, why: &'static str) -> Self {
        Self { direct: Direct::Differs { expected, why }, ..self }
    }

    /// PostgreSQL is not asked.
    pub fn not_directly(self, why: &'static str) -> Self {
        Self { direct: Direct::Skipped { why }, ..self }
    }

    /// Plays it through the proxy: what is wrong, if anything.
    pub fn through_proxy(&self, target: Target<'_>) -> Option<String> {
        self.play(target, self.expected)
    }

    /// Plays it against PostgreSQL: what is wrong, if anything.
    pub fn against_postgresql(&self, target: Target<'_>) -> Option<String> {
        let (expected, why) = match &self.direct {
            Direct::Same => (self.expected, ""),
            Direct::Differs { expected, why } => (*expected, *why),
            Direct::Skipped { why } => {
                assert!(!why.is_empty(), "{} does not say why PostgreSQL is not asked", self.name);
                return None;
            }
        };
        let wrong = self.play(target, expected)?;
        Some(if why.is_empty() { wrong } else { format!("{wrong} (it should differ from the proxy: {why})") })
    }

    fn play(&self, target: Target<'_>, expected: &str) -> Option<String> {
        let mut peer = match Peer::connect(target) {
            Ok(peer) => peer,
            Err(error) => return Some(format!("{}: no connection: {error}", self.name)),
        };
        (self.script)(&mut peer);
        let ways: Vec<&str> = expected.split(" | ").collect();
        let said = peer.outcome(ways[0]);
        (!ways.contains(&said.as_str())).then(|| format!("{}: expected {expected:?}, was {said:?}", self.name))
    }
}
