//! The users file, in the format of PgBouncer's `userlist.txt`: who may log in, and what proves it.
//!
//! One user a line, `"user" "secret"`; a quote inside is written twice; what follows behind a space is ignored, as PgBouncer
//! does; lines that begin with `;` or `#` are comments. A secret is what PostgreSQL keeps in `pg_authid.rolpassword`, or the
//! password itself. Here nothing is proved; that is the login's work.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fmt;
use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use zeroize::Zeroizing;

use super::mistake::Findings;
use super::password::Password;
use super::value::shown;

/// What proves that a client is the user. `Debug` tells the kind and nothing else.
#[derive(Clone, PartialEq, Eq)]
pub enum Secret {
    /// The password; every method can be spoken with it, and it also opens backends.
    Plain(Password),
    /// The 32 lower-case hexadecimal digits behind `md5`: MD5 of password and user name.
    Md5(Zeroizing<[u8; 32]>),
    /// A SCRAM-SHA-256 verifier (RFC 5803).
    Scram {
        /// Rounds of PBKDF2; at least 1.
        iterations: u32,
        /// Not empty.
        salt: Vec<u8>,
        /// Proves a client.
        stored_key: Zeroizing<[u8; 32]>,
        /// Proves the server to the client.
        server_key: Zeroizing<[u8; 32]>,
    },
}

impl Secret {
    /// Reads a secret by PostgreSQL's rules: `md5` and 32 hexadecimal digits, `SCRAM-SHA-256$…`, else a password. None for a
    /// broken verifier, which PostgreSQL would take for a password.
    pub fn parse(text: &str) -> Option<Self> {
        if let Some(verifier) = text.strip_prefix("SCRAM-SHA-256$") {
            return scram(verifier);
        }
        let digest = text.strip_prefix("md5").filter(|digest| digest.bytes().all(|byte| byte.is_ascii_hexdigit()));
        if let Some(digest) = digest.and_then(|digest| <[u8; 32]>::try_from(digest.as_bytes()).ok()) {
            return Some(Self::Md5(Zeroizing::new(digest.map(|byte| byte.to_ascii_lowercase()))));
        }
        Some(Self::Plain(Password::new(text.to_owned())))
    }
}

/// Reads `<iterations>:<salt>$<StoredKey>:<ServerKey>`.
fn scram(verifier: &str) -> Option<Secret> {
    let (head, keys) = verifier.split_once('$')?;
    let (iterations, salt) = head.split_once(':')?;
    let (stored_key, server_key) = keys.split_once(':')?;
    let key = |text: &str| -> Option<Zeroizing<[u8; 32]>> {
        let bytes = Zeroizing::new(BASE64.decode(text).ok()?);
        bytes.as_slice().try_into().ok().map(Zeroizing::new)
    };
    Some(Secret::Scram {
        iterations: iterations.parse().ok().filter(|count| *count > 0)?,
        salt: BASE64.decode(salt).ok().filter(|salt| !salt.is_empty())?,
        stored_key: key(stored_key)?,
        server_key: key(server_key)?,
    })
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Plain(_) => "Plain",
            Self::Md5(_) => "Md5",
            Self::Scram { .. } => "Scram",
        })
    }
}

/// The users of the file, by exact name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Users(HashMap<String, Secret>);

impl Users {
    /// What proves that a client is `user`.
    pub fn get(&self, user: &str) -> Option<&Secret> {
        self.0.get(user)
    }

    /// The names of all.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    /// What proves each of them, in any order.
    pub fn secrets(&self) -> impl Iterator<Item = &Secret> {
        self.0.values()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Users whose secret is an MD5 digest, from which SCRAM cannot be spoken.
    pub(super) fn md5_count(&self) -> usize {
        self.0.values().filter(|secret| matches!(secret, Secret::Md5(_))).count()
    }
}

/// Reads a users file, `path` being its name in mistakes.
pub(super) fn parse(path: &Path, text: &str, findings: &Findings) -> Users {
    let mut users = HashMap::new();
    let mut lines_of_users: HashMap<String, usize> = HashMap::new();
    for (number, line) in (1..).zip(text.lines()) {
        let line = line.trim_start();
        if line.is_empty() || line.starts_with([';', '#']) {
            continue;
        }
        let wrong = |text: String| findings.mistake(path, Some(number), text);
        let Some((user, secret)) = fields(line) else {
            wrong("a user is \"name\" \"password\", each between double quotes (a quote inside is written twice)".into());
            continue;
        };
        let name = shown(&user);
        let secret = match secret.as_str() {
            "" => {
                wrong(format!("the password of \"{name}\" is empty, which PostgreSQL never accepts: set one or remove the line"));
                continue;
            }
            text => Secret::parse(text),
        };
        let Some(secret) = secret else {
            wrong(format!(
                "the verifier of \"{name}\" must be SCRAM-SHA-256$<iterations>:<salt>$<StoredKey>:<ServerKey>, copied whole from \
                 pg_authid.rolpassword"
            ));
            continue;
        };
        match lines_of_users.entry(user.clone()) {
            Entry::Occupied(first) => wrong(format!("user \"{name}\" is already on line {}: remove one", first.get())),
            Entry::Vacant(place) => {
                place.insert(number);
                users.insert(user, secret);
            }
        }
    }
    Users(users)
}

/// The first two quoted fields of a line.
fn fields(line: &str) -> Option<(String, Zeroizing<String>)> {
    let (user, rest) = quoted(line)?;
    let (secret, rest) = quoted(rest.trim_start())?;
    let ends = rest.is_empty() || rest.starts_with(char::is_whitespace);
    let is_name = !user.is_empty() && !user.contains('\0') && !secret.contains('\0');
    (ends && is_name).then_some((user.to_string(), secret))
}

/// A text between double quotes at the start of `text`, and what follows it.
fn quoted(text: &str) -> Option<(Zeroizing<String>, &str)> {
    let inside = text.strip_prefix('"')?;
    let mut value = Zeroizing::new(String::with_capacity(inside.len()));
    let mut rest = inside;
    loop {
        let (before, after) = rest.split_once('"')?;
        value.push_str(before);
        let Some(after_second) = after.strip_prefix('"') else {
            return Some((value, after));
        };
        value.push('"');
        rest = after_second;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Users, String> {
        let findings = Findings::default();
        let users = parse(Path::new("users.txt"), text, &findings);
        findings.into_result(Some(users)).map(|(users, _)| users).map_err(|mistakes| mistakes.to_string())
    }

    fn password(text: &str) -> Option<Secret> {
        Some(Secret::Plain(Password::new(text.to_owned())))
    }

    #[test]
    fn every_kind_of_secret_is_read() {
        let text = concat!(
            "; users of the demo\r\n\r\n",
            "# another comment\n",
            "\"alice\" \"se\"\"cret\" ignored \"\"\n",
            "  \"bob\"\t\"md50123456789ABCDEF0123456789abcdef\"\n",
            "\"ca\"\"rol\" \"SCRAM-SHA-256$4096:c2FsdA==$AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=:AgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgI=\"\n",
            "\"dave\" \"md5sum\"",
        );
        let users = read(text).unwrap();
        assert_eq!(users.len(), 4);
        assert!(!users.is_empty());
        assert_eq!(users.get("alice").cloned(), password("se\"cret"));
        assert_eq!(users.get("bob"), Some(&Secret::Md5(Zeroizing::new(*b"0123456789abcdef0123456789abcdef"))));
        let scram = Secret::Scram {
            iterations: 4096,
            salt: b"salt".to_vec(),
            stored_key: Zeroizing::new([1; 32]),
            server_key: Zeroizing::new([2; 32]),
        };
        assert_eq!(users.get("ca\"rol"), Some(&scram));
        assert_eq!(users.get("dave").cloned(), password("md5sum"));
        assert_eq!(users.get("Alice"), None);
        assert_eq!(users.md5_count(), 1);
    }

    #[test]
    fn debug_shows_kinds_and_no_secrets() {
        let users = read("\"alice\" \"hunter2\"").unwrap();
        assert_eq!(format!("{users:?}"), "Users({\"alice\": Plain})");
    }

    #[test]
    fn lines_that_are_no_user_are_mistakes() {
        let form = "a user is \"name\" \"password\", each between double quotes (a quote inside is written twice)";
        for line in
            ["alice secret", "\"alice\"", "\"alice\" \"secret", "\"alice\" \"sec\"ret\"", "\"\" \"secret\"", "\"a\0\" \"x\""]
        {
            assert_eq!(read(&format!("; one\n{line}")).unwrap_err(), format!("users.txt:2: {form}"), "{line}");
        }
    }

    #[test]
    fn users_are_named_once_and_have_passwords() {
        assert_eq!(read("\"a\" \"x\"\n\"a\" \"y\"").unwrap_err(), "users.txt:2: user \"a\" is already on line 1: remove one");
        assert_eq!(
            read("\"a\" \"\"").unwrap_err(),
            "users.txt:1: the password of \"a\" is empty, which PostgreSQL never accepts: set one or remove the line"
        );
    }

    #[test]
    fn broken_verifiers_are_not_taken_for_passwords() {
        let expected = "users.txt:1: the verifier of \"a\" must be \
                        SCRAM-SHA-256$<iterations>:<salt>$<StoredKey>:<ServerKey>, copied whole from pg_authid.rolpassword";
        for verifier in ["", "4096", "0:c2FsdA==$AQ==:AQ==", "4096:c2FsdA==$AQ==:AQ==", "4096:$AQ==:AQ==", "x:c2FsdA==$AQ==:AQ=="]
        {
            let line = format!("\"a\" \"SCRAM-SHA-256${verifier}\"");
            assert_eq!(read(&line).unwrap_err(), expected, "{verifier}");
        }
    }
}
