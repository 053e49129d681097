//! `[auth.query]`: where the secrets of users are looked up that the users file does not have.

use super::document::Section;
use super::read::Environment;
use super::{Password, Region, nodes, residency};

/// The query of PostgreSQL's own users: none without LOGIN, and no secret past VALID UNTIL.
const QUERY: &str = "SELECT rolname, CASE WHEN rolvaliduntil <= pg_catalog.now() THEN NULL ELSE rolpassword END \
                     FROM pg_catalog.pg_authid WHERE rolname = $1 AND rolcanlogin";

/// How a user's secret is looked up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuthQuery {
    /// The region whose nodes are asked.
    pub region: String,
    /// The user that asks.
    pub user: String,
    /// Its password; `None`: that of the users file.
    pub password: Option<Password>,
    /// The database that is asked.
    pub database: String,
    /// One statement; `$1` is the user's name. It gives no row, or one: the name and the secret.
    pub query: String,
    /// Connections that ask, at most.
    pub connections: u32,
}

/// Reads the section; `None` if what it must have is missing or wrong.
pub(super) fn read(section: &Section<'_>, regions: &[Region], environment: Environment<'_>) -> Option<AuthQuery> {
    let text = |key: &'static str| section.entry(key).and_then(|entry| entry.text()).map(str::to_owned);
    let region = section.required("region", "\"eu-west\"", |entry| residency::declared(entry, regions));
    let user = section.required("user", "\"domicile_auth\"", |entry| entry.text().map(str::to_owned));
    let password = section.entry("password").and_then(|entry| nodes::password(&entry, environment));
    let database = text("database").unwrap_or_else(|| "postgres".to_owned());
    let query = text("query").unwrap_or_else(|| QUERY.to_owned());
    if !query.contains("$1") {
        let mistake = "auth.query.query must name the user by $1, such as SELECT name, secret FROM auth.secret_of($1)";
        section.entry("query").iter().for_each(|entry| entry.mistake(mistake));
    }
    let connections = section.entry("connections").and_then(|entry| entry.number(1..=100)).unwrap_or(2);
    Some(AuthQuery { region: region?, user: user?, password, database, query, connections })
}
