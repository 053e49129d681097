//! `[[nodes]]`: which PostgreSQL servers there are, and how to log in to them.

use std::net::IpAddr;

use ipnet::IpNet;
use toml::de::DeValue;

use super::document::{Entry, Section};
use super::read::Environment;
use super::value::{Address, is_name, network, path_beside};
use super::{Node, NodeTls, Password, Region, Role, files, require_auth, residency, tls};

/// Reads the nodes, in the order of the file.
pub(super) fn read(root: &Section<'_>, regions: &[Region], environment: Environment<'_>) -> Vec<Node> {
    let mut nodes: Vec<Node> = Vec::new();
    root.sections("nodes", |section| {
        let Some(node) = node(section, regions, environment) else { return };
        if nodes.iter().any(|other| other.name == node.name) {
            section.mistake(format!("there are two nodes named \"{}\": rename one", node.name));
        }
        if let Some(other) = nodes.iter().find(|other| other.address == node.address && other.region != node.region) {
            section.warning(format!(
                "node \"{}\" of region \"{}\" and node \"{}\" of region \"{}\" are the same server, {}: nothing keeps their rows apart",
                other.name, other.region, node.name, node.region, node.address
            ));
        }
        nodes.push(node);
    });
    if nodes.is_empty() {
        root.warning("there are no [[nodes]]: every statement that needs a server will be denied");
    }
    nodes
}

/// One node, or none if a key that it must have is missing or wrong.
fn node(section: &Section<'_>, regions: &[Region], environment: Environment<'_>) -> Option<Node> {
    let text = |key: &'static str| section.entry(key).and_then(|entry| entry.text()).map(str::to_owned);
    let form = format!("a name of {}", residency::NAME_FORM);
    let name = section.required("name", "\"pg-eu-west\"", |entry| entry.parsed(&form, |text| is_name(text).then_some(text)));
    let region = section.required("region", "\"eu-west\"", |entry| residency::declared(entry, regions));
    let address = section.required("address", "\"127.0.0.1:5432\"", |entry| {
        entry.parsed("\"host:port\" or the absolute path of a unix socket directory", Address::parse)
    });
    let roles = [("primary", Role::Primary), ("replica", Role::Replica)];
    let role = section.entry("role").and_then(|entry| entry.word(&roles)).unwrap_or(Role::Primary);
    let (user, database) = (text("user"), text("database"));
    let password = section.entry("password").and_then(|entry| password(&entry, environment));
    let networks = networks(section, address.as_ref());
    let require_auth = section.entry("require_auth").map(|entry| require_auth::read(&entry)).unwrap_or_default();
    let tls = section.entry("tls").and_then(|entry| tls(&entry, address.as_ref()));
    Some(Node {
        name: name?.to_owned(),
        region: region?,
        address: address?,
        role,
        user,
        password,
        database,
        networks,
        require_auth,
        tls,
    })
}

/// How the connections of a node are encrypted. Those of a Unix socket are not: they stay on this host.
fn tls(entry: &Entry<'_>, address: Option<&Address>) -> Option<NodeTls> {
    let tls = tls::node(entry)?;
    if let Some(Address::Unix { .. }) = address {
        entry.mistake(format!("{} is for nodes that are reached over TCP: PostgreSQL does not encrypt Unix sockets", entry.name));
    }
    Some(tls)
}

/// Where the name of a node may lead.
fn networks(section: &Section<'_>, address: Option<&Address>) -> Vec<IpNet> {
    let Some(entry) = section.entry("networks") else { return Vec::new() };
    let what = "an address or a network, such as \"10.0.0.0/8\"";
    let elements = entry.elements("networks such as \"10.0.0.0/8\"").unwrap_or_default();
    let networks: Vec<IpNet> = elements.iter().filter_map(|element| element.parsed(what, network)).collect();
    match address {
        Some(Address::Tcp { host, .. }) => {
            let literal = host.parse::<IpAddr>().ok();
            if let Some(address) = literal.filter(|address| !networks.iter().any(|network| network.contains(address))) {
                entry.mistake(format!("{} does not contain the node's own address {address}", entry.name));
            }
        }
        Some(Address::Unix { .. }) => {
            entry.mistake(format!("{} is for nodes with a host name, not for unix sockets", entry.name))
        }
        None => {}
    }
    networks
}

/// A password, from the file itself, a variable of the environment or another file. Its text is never repeated.
pub(super) fn password(entry: &Entry<'_>, environment: Environment<'_>) -> Option<Password> {
    let form = " must be a text, { env = \"VARIABLE\" } or { file = \"path\" }";
    let configuration = entry.document.path;
    let found = match entry.value {
        DeValue::String(text) => {
            files::warn_if_public(configuration, "passwords", entry.document.findings);
            Ok(text.clone().into_owned())
        }
        DeValue::Table(_) => {
            let section = entry.section()?;
            section.read(|section| match (section.entry("env"), section.entry("file")) {
                (Some(variable), None) => {
                    let name = variable.text()?;
                    Some(environment(name).ok_or_else(|| format!(": environment variable {name} is not set where domicile runs")))
                }
                (None, Some(file)) => {
                    let path = path_beside(configuration, file.text()?);
                    files::warn_if_public(&path, "password", entry.document.findings);
                    let text = files::text(&path).map_err(|why| format!(": {} {why}", path.display()));
                    // Editors end the last line; that is not part of the password.
                    Some(text.map(|text| text.trim_end_matches(['\r', '\n']).to_owned()))
                }
                (Some(_), Some(_)) | (None, None) => Some(Err(form.to_owned())),
            })?
        }
        _ => Err(form.to_owned()),
    };
    let checked = found.and_then(|text| match text.as_str() {
        "" => Err(" is empty, which PostgreSQL never accepts".to_owned()),
        text if text.contains('\0') => Err(" contains a NUL character, which PostgreSQL never accepts".to_owned()),
        _ => Ok(Password::new(text)),
    });
    checked.map_err(|why| entry.mistake(format!("{}{why}", entry.name))).ok()
}
