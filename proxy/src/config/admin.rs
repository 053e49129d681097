//! `[admin]`: who may use the administration console.

use super::document::Section;
use super::{Admin, Auth, AuthMethod};

/// Reads the two lists. A user who could not log in at all is most likely misspelt.
pub(super) fn read(section: &Section<'_>, auth: &Auth) -> Admin {
    let users = |key: &'static str| {
        let Some(entry) = section.entry(key) else { return Vec::new() };
        let mut users = Vec::new();
        for element in entry.elements("users").unwrap_or_default() {
            let Some(user) = element.text() else { continue };
            if auth.method != AuthMethod::Trust && auth.users.get(user).is_none() {
                element
                    .warning(format!("{}: there is no such user in the users file, so nobody can log in as that", element.name));
            }
            users.push(user.to_owned());
        }
        users
    };
    let admin = Admin { users: users("users"), stats_users: users("stats_users") };
    if auth.method == AuthMethod::Trust && !admin.users.is_empty() {
        section.warning("auth.method = \"trust\" lets anyone who can connect be one of admin.users, who may end all sessions");
    }
    admin
}
