//! `[auth]`: how clients and backends prove who they are, and the files that it names.

use std::path::PathBuf;
use std::sync::Arc;

use zeroize::Zeroizing;

use super::document::{Entry, Section};
use super::read::Environment;
use super::users::{self, Users};
use super::value::path_beside;
use super::{Auth, AuthMethod, Hba, IdentMaps, Jwt, Region, auth_query, files, hba, jwt};

/// Reads the section.
pub(super) fn read(section: &Section<'_>, regions: &[Region], environment: Environment<'_>) -> Auth {
    let method_entry = section.entry("method");
    let method = match &method_entry {
        Some(entry) => entry.word(&AuthMethod::ALL),
        None => Some(AuthMethod::ScramSha256),
    };
    let hba_entry = section.entry("hba_file");
    let hba = hba(hba_entry.as_ref(), section.entry("ident_file").as_ref());
    if let (Some(_), Some(entry)) = (&hba_entry, &method_entry) {
        entry.mistake("auth.hba_file says how clients prove who they are: remove auth.method");
    }
    let file = section.entry("users");
    let query_entry = section.entry("query");
    match &hba {
        _ if file.is_some() || query_entry.is_some() => {}
        Some(hba) if hba.needs_users() => {
            section.mistake(
                "auth.users is missing: add users = \"users.txt\", or [auth.query] (rules of the HBA file ask for passwords)",
            );
        }
        None if hba_entry.is_none() && method.is_some_and(AuthMethod::needs_users) => {
            section.mistake(
                "auth.users is missing: add users = \"users.txt\", or [auth.query] (only method \"trust\" needs no users)",
            );
        }
        Some(_) | None => {}
    }
    let method = method.unwrap_or(AuthMethod::ScramSha256);
    let jwt_entry = section.entry("jwt");
    let needs_tokens = match &hba {
        Some(hba) => [AuthMethod::Jwt, AuthMethod::OAuth].into_iter().any(|method| hba.asks_for(method)),
        None => method.needs_tokens(),
    };
    if needs_tokens && jwt_entry.is_none() {
        section.mistake("auth.jwt is missing: say by [auth.jwt] whose tokens are good");
    }
    let only_scram = match &hba {
        Some(hba) => hba.asks_for(AuthMethod::ScramSha256) && !hba.asks_for(AuthMethod::Md5),
        None => method == AuthMethod::ScramSha256,
    };
    Auth {
        method,
        hba,
        jwt: match jwt_entry {
            Some(entry) => Some(entry.section().map_or_else(Jwt::stand_in, |section| section.read(jwt::read))),
            None => needs_tokens.then(Jwt::stand_in),
        }
        .map(Arc::new),
        users: file.map(|file| users(&file, only_scram)).unwrap_or_default(),
        query: query_entry.and_then(|entry| entry.section()?.read(|section| auth_query::read(section, regions, environment))),
        backend_cleartext: section.entry("backend_cleartext").and_then(|entry| entry.boolean()).unwrap_or(false),
    }
}

/// The HBA file, and the ident file that goes with it. `None` without one, or if it cannot be read.
fn hba(hba: Option<&Entry<'_>>, ident: Option<&Entry<'_>>) -> Option<Hba> {
    let Some(entry) = hba else {
        if let Some(ident) = ident {
            ident.mistake("auth.ident_file is for the maps of auth.hba_file: set that too, or remove it");
        }
        return None;
    };
    let findings = entry.document.findings;
    let (ident_path, maps) = match ident.map(text_of) {
        None => (None, IdentMaps::default()),
        Some(file) => file.map_or_else(Default::default, |(path, text)| {
            let maps = hba::parse_ident(&path, &text, findings);
            (Some(path), maps)
        }),
    };
    let (path, text) = text_of(entry)?;
    let rules = hba::parse(&path, &text, &maps, findings);
    if rules.is_empty() {
        entry.warning(format!("{} has no rule, so nobody gets in", path.display()));
    }
    Some(Hba { path, rules, ident_path, maps })
}

/// The file that an entry names, and what stands in it.
pub(super) fn text_of(entry: &Entry<'_>) -> Option<(PathBuf, Zeroizing<String>)> {
    let path = path_beside(entry.document.path, entry.text()?);
    match files::text(&path) {
        Ok(text) => Some((path, text)),
        Err(why) => {
            entry.mistake(format!("{}: {} {why}", entry.name, path.display()));
            None
        }
    }
}

fn users(entry: &Entry<'_>, only_scram: bool) -> Users {
    let findings = entry.document.findings;
    let Some((file, text)) = text_of(entry) else { return Users::default() };
    files::warn_if_public(&file, "passwords", findings);
    let users = users::parse(&file, &text, findings);
    let md5 = users.md5_count();
    if only_scram && md5 > 0 {
        let text = format!(
            "{md5} of the users have an md5 secret, with which they cannot log in by scram-sha-256: set their passwords anew, or \
             use method \"md5\""
        );
        findings.warning(&file, None, text);
    }
    users
}
