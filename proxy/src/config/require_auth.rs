//! `require_auth` of a node: how its server may have the proxy prove who it is, in the words of libpq's `require_auth`.

use std::fmt;

use super::document::Entry;

/// How a server may ask who is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BackendMethod {
    /// Not at all.
    None,
    /// For the password, in clear text.
    Password,
    /// For its MD5 hash.
    Md5,
    /// By SCRAM, whose end proves that the server knows the password too.
    ScramSha256,
}

impl BackendMethod {
    const ALL: [Self; 4] = [Self::None, Self::Password, Self::Md5, Self::ScramSha256];

    /// The method in libpq's words.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Password => "password",
            Self::Md5 => "md5",
            Self::ScramSha256 => "scram-sha-256",
        }
    }
}

/// The methods that a server may ask for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequireAuth(Vec<BackendMethod>);

impl Default for RequireAuth {
    /// All of them.
    fn default() -> Self {
        Self(BackendMethod::ALL.to_vec())
    }
}

impl RequireAuth {
    /// Whether it may ask in this way.
    pub fn allows(&self, method: BackendMethod) -> bool {
        self.0.contains(&method)
    }
}

impl fmt::Display for RequireAuth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.iter().map(|method| method.as_str()).collect::<Vec<_>>().join(", "))
    }
}

/// Reads the list. As in libpq, all of it says what is allowed or, behind a `!`, all of it says what is not.
pub(super) fn read(entry: &Entry<'_>) -> RequireAuth {
    let Some(elements) = entry.elements("methods such as \"scram-sha-256\"") else { return RequireAuth::default() };
    let words: Vec<(String, (BackendMethod, bool))> = BackendMethod::ALL
        .into_iter()
        .flat_map(|method| [(method.as_str().to_owned(), (method, true)), (format!("!{}", method.as_str()), (method, false))])
        .collect();
    let words: Vec<_> = words.iter().map(|(word, meaning)| (word.as_str(), *meaning)).collect();
    let named: Vec<(BackendMethod, bool)> = elements.iter().filter_map(|element| element.word(&words)).collect();
    let names = |method| named.iter().any(|(known, _)| *known == method);
    let allows = named.first().is_none_or(|(_, allows)| *allows);
    if named.iter().any(|(_, other)| *other != allows) {
        entry.mistake(format!("{} mixes methods with and without \"!\": say what is allowed, or what is not", entry.name));
    }
    let allowed: Vec<_> = BackendMethod::ALL.into_iter().filter(|method| names(*method) == allows).collect();
    if allowed.is_empty() && named.len() == elements.len() {
        entry.mistake(format!("{} allows no method, so no server could be logged in to", entry.name));
    }
    RequireAuth(allowed)
}
