//! `domicile explain`: the policy's answer for one login, and the pool behind it.

use std::fmt::Write as _;
use std::io::Write as _;
use std::net::IpAddr;
use std::path::Path;
use std::process::ExitCode;

use domicile::config::{Config, Node, Role};
use domicile::policy::{self, Decision, Proven, Subject};
use domicile::target::TargetSessionAttrs;

/// The exit code of a denial.
const DENIED: u8 = 2;

/// Prints what would happen to the login.
pub(crate) fn explain(path: &Path, user: &str, database: &str, from: IpAddr, region: Option<&str>) -> ExitCode {
    // No password is used, so that a policy can be explained where the variables that hold passwords are not set.
    let (config, policy) = match super::load(path, &|_| Some("unused".to_owned())) {
        Ok(loaded) => loaded,
        Err(error) => return super::failure(error.as_ref()),
    };
    let subject = Subject { user, database, address: Some(from), proven: Proven::NOTHING };
    let target = policy.grant(&subject).map(|grant| grant.target()).unwrap_or_default();
    let explanation = policy::explain(&policy, &subject, region);
    let (pool, code) = match &explanation.decision {
        Decision::Permit { name, .. } => (pool(&config, name, target, user, database), ExitCode::SUCCESS),
        Decision::Denial { .. } => ("none".to_owned(), ExitCode::from(DENIED)),
    };
    match writeln!(std::io::stdout(), "{explanation}\npool       {pool}") {
        Ok(()) => code,
        Err(error) => super::failure(&error),
    }
}

/// The pool of a region: which of its servers may serve, its nodes, and as whom they are logged in to.
fn pool(config: &Config, region: &str, target: TargetSessionAttrs, user: &str, database: &str) -> String {
    let mut line = format!("{region}, {target}:");
    for (index, node) in config.nodes_of(region).enumerate() {
        let Node { name, address, role, .. } = node;
        let role = match role {
            Role::Primary => "primary",
            Role::Replica => "replica",
        };
        let separator = if index == 0 { "" } else { "," };
        let user = node.user.as_deref().unwrap_or(user);
        let database = node.database.as_deref().unwrap_or(database);
        // Writing to a String cannot fail.
        write!(line, "{separator} {name} ({role} at {address}, user \"{user}\", database \"{database}\")").unwrap_or_default();
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pool_names_nodes_and_logins() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let text = r#"
            auth.method = "trust"
            residency.unbound = "client"
            [regions.eu]
            [regions.us]
            [[nodes]]
            name = "a"
            region = "eu"
            address = "127.0.0.1:5433"
            [[nodes]]
            name = "b"
            region = "eu"
            address = "/run/pg"
            role = "replica"
            user = "app"
            database = "shop"
            password = { env = "NOT_SET" }
        "#;
        std::fs::write(file.path(), text).unwrap();
        let (config, _) = super::super::load(file.path(), &|_| Some("unused".to_owned())).unwrap();
        assert_eq!(
            pool(&config, "eu", TargetSessionAttrs::PreferStandby, "alice", "crm"),
            "eu, prefer-standby: a (primary at 127.0.0.1:5433, user \"alice\", database \"crm\"), b (replica at /run/pg:5432, user \"app\", database \"shop\")"
        );
    }
}
