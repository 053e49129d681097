//! The settings that an admitted client is told if no backend is asked.
//!
//! They are those that a node of the grant reported at its last probe, or the configured ones, with
//! what the client asked for laid over them as PostgreSQL would print it. Where that is not exact, the session corrects it with
//! the first backend it gets.

use super::admission::{clean_encoding_name, is_surely_on};
use crate::pool::Parameters;

/// The settings a client is told. `reported` are a server's, of a session of `reported_by` if that is known; `settings` are the
/// client's own, names in lower case.
pub fn told(reported: &Parameters, reported_by: Option<&str>, user: &str, settings: &[(Box<str>, Box<str>)]) -> Parameters {
    let asked = |name: &str| settings.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| &**value);
    let tell = |(name, reported): (&str, &str)| {
        let value = match name {
            "application_name" => asked(name).unwrap_or_default().to_owned(),
            "session_authorization" => user.to_owned(),
            // Known of the prober's user only.
            "is_superuser" if reported_by != Some(user) => "off".to_owned(),
            _ => asked(name).and_then(|asked| shown(name, asked, reported)).unwrap_or_else(|| reported.to_owned()),
        };
        (name.to_owned(), value)
    };
    let mut told: Parameters = reported.iter().map(tell).collect();
    for (name, value) in [("session_authorization", user), ("application_name", asked("application_name").unwrap_or_default())] {
        if told.get(name).is_none() {
            told.set(name, value);
        }
    }
    told
}

/// A setting's value as PostgreSQL reports it, after a client has asked for `asked` where `reported` was in force. `None`: it is
/// not for clients to set.
fn shown(name: &str, asked: &str, reported: &str) -> Option<String> {
    match name {
        "client_encoding" => Some(encoding_name(asked)),
        "DateStyle" => Some(date_style(asked, reported)),
        "IntervalStyle" => Some(asked.to_ascii_lowercase()),
        "server_version" | "server_encoding" | "integer_datetimes" | "in_hot_standby" => None,
        "standard_conforming_strings" => Some(if is_surely_on(asked) { "on" } else { "off" }.to_owned()),
        _ => Some(asked.to_owned()),
    }
}

/// PostgreSQL's own name of an encoding. Those that are not met here keep the client's spelling, in capitals.
fn encoding_name(asked: &str) -> String {
    match clean_encoding_name(asked).as_str() {
        "utf8" | "unicode" => "UTF8".to_owned(),
        "sqlascii" => "SQL_ASCII".to_owned(),
        "latin1" | "iso88591" => "LATIN1".to_owned(),
        "latin9" | "iso885915" => "LATIN9".to_owned(),
        _ => asked.to_ascii_uppercase(),
    }
}

/// DateStyle is two values in one, output format and order of day, month and year; who sets one keeps the other.
fn date_style(asked: &str, reported: &str) -> String {
    let (mut style, mut order) = reported.split_once(", ").unwrap_or((reported, "MDY"));
    for word in asked.split(',').map(str::trim) {
        match word.to_ascii_lowercase().as_str() {
            "iso" => style = "ISO",
            "sql" => style = "SQL",
            "postgres" => style = "Postgres",
            "german" => (style, order) = ("German", "DMY"),
            "ymd" => order = "YMD",
            "dmy" | "euro" | "european" => order = "DMY",
            "mdy" | "us" | "noneuro" | "noneuropean" => order = "MDY",
            _ => {}
        }
    }
    format!("{style}, {order}")
}
