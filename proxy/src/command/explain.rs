//! `domicile explain`: the policy's answer for one login, and the pool behind it.

use std::collections::BTreeMap;
use std::error::Error;
use std::fmt::Write as _;
use std::io::Write as _;
use std::net::IpAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use domicile::config::{Config, Node, Role};
use domicile::policy::{self, CertificateNames, Claims, Decision, Proven, Subject};
use domicile::target::TargetSessionAttrs;

/// The exit code of a denial.
const DENIED: u8 = 2;

/// A login, and what it has proved.
#[derive(Args)]
pub(crate) struct Login {
    /// The configuration file
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// Who logs in
    #[arg(long)]
    user: String,
    /// To which database
    #[arg(long)]
    database: String,
    /// From which IP address
    #[arg(long, value_name = "IP")]
    from: IpAddr,
    /// The region that the client names, at startup or with SET
    #[arg(long)]
    region: Option<String>,
    /// What its token claims; a list by one option for each value
    #[arg(long = "claim", value_name = "NAME=VALUE", value_parser = claim)]
    claims: Vec<(String, String)>,
    /// A name in its certificate: the common name, or a subject alternative name
    #[arg(long = "certificate", value_name = "NAME")]
    certificates: Vec<String>,
}

/// Prints what would happen to the login.
pub(crate) fn explain(login: &Login) -> ExitCode {
    // No password is used, so that a policy can be explained where the variables that hold passwords are not set.
    let (config, policy) = match super::load(&login.config, &|_| Some("unused".to_owned())) {
        Ok(loaded) => loaded,
        Err(error) => return super::failure(error.as_ref()),
    };
    let proven = match proven(login, &config) {
        Ok(proven) => proven,
        Err(why) => return super::failure(Box::<dyn Error>::from(why).as_ref()),
    };
    let Login { user, database, from, .. } = login;
    let region = login.region.as_deref();
    let subject = Subject { user, database, address: Some(*from), proven: &proven };
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

/// Reads `name=value`.
fn claim(text: &str) -> Result<(String, String), String> {
    let claim = text.split_once('=').filter(|(name, _)| !name.is_empty());
    claim.map(|(name, value)| (name.to_owned(), value.to_owned())).ok_or_else(|| "a claim is NAME=VALUE".to_owned())
}

/// What the login has proved: by a token that is good, if it claims something, and by a certificate that is trusted, if it has names.
fn proven(login: &Login, config: &Config) -> Result<Proven, String> {
    let certificate = (!login.certificates.is_empty())
        .then(|| CertificateNames { alternative_names: login.certificates.clone(), ..CertificateNames::default() });
    if certificate.is_some() && config.tls.context.is_none() {
        return Err("--certificate: nobody can show one, because connections are not encrypted (tls.mode)".to_owned());
    }
    if login.claims.is_empty() {
        return Ok(Proven { certificate, claims: None });
    }
    let jwt = config.auth.jwt.as_ref().ok_or("--claim: no tokens are good, because there is no [auth.jwt]")?;
    let mut texts = BTreeMap::<String, Vec<String>>::new();
    for (name, value) in &login.claims {
        texts.entry(name.clone()).or_default().push(value.clone());
    }
    texts.entry(jwt.user_claim.clone()).or_insert_with(|| vec![login.user.clone()]);
    let regions = match &jwt.regions_claim {
        Some(name) => Some(texts.get(name).cloned().ok_or_else(|| {
            format!(
                "--claim: a token without the claim \"{name}\" is refused (auth.jwt.regions_claim): add --claim {name}=REGION"
            )
        })?),
        None => None,
    };
    Ok(Proven { certificate, claims: Some(Claims { regions, texts }) })
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
    #[test]
    fn what_cannot_be_proved_is_told() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let keys = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/keys/es256.pub.pem");
        let proven = |auth: &str, claims: &[&str], certificates: &[&str]| {
            let text = format!("[auth]\nmethod = \"trust\"\n{auth}\n[residency]\nunbound = \"client\"\n[regions.eu]\n");
            std::fs::write(file.path(), text).unwrap();
            let config = super::super::load(file.path(), &|_| None).unwrap().0;
            let login = Login {
                config: PathBuf::new(),
                user: "alice".to_owned(),
                database: "shop".to_owned(),
                from: [10, 0, 0, 1].into(),
                region: None,
                claims: claims.iter().map(|text| claim(text).unwrap()).collect(),
                certificates: certificates.iter().copied().map(str::to_owned).collect(),
            };
            super::proven(&login, &config).map(|proven| proven.claims)
        };
        let jwt = format!("jwt = {{ keys = {keys:?}, audience = \"a\", user_claim = \"who\", regions_claim = \"at\" }}");
        assert_eq!(proven(&jwt, &[], &[]), Ok(None));
        let claims = proven(&jwt, &["at=us", "at=eu", "tenant=a=b"], &[]).unwrap().unwrap();
        assert_eq!(claims.regions, Some(vec!["us".to_owned(), "eu".to_owned()]));
        assert_eq!(claims.texts["tenant"], ["a=b"]);
        assert_eq!(claims.texts["who"], ["alice"]);
        let why = |result: Result<_, String>| result.unwrap_err();
        assert!(why(proven(&jwt, &["tenant=a"], &[])).ends_with("add --claim at=REGION"));
        assert_eq!(why(proven("", &["tenant=a"], &[])), "--claim: no tokens are good, because there is no [auth.jwt]");
        assert!(why(proven("", &[], &["ops"])).starts_with("--certificate: nobody can show one"));
    }
}
