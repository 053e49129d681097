//! One line of an HBA file: fields in, a rule out, or what is wrong with it.

use std::net::IpAddr;
use std::path::Path;

use ipnet::IpNet;

use super::super::AuthMethod;
use super::super::mistake::{Findings, suggestion};
use super::super::value::shown;
use super::pattern::NamePattern;
use super::tokens::{Field, Line, Token, expanded};
use super::{CertificateName, ClientCertificate, Connection, DatabasePattern, HbaMethod, HbaRule};

/// Methods of PostgreSQL that are not spoken here.
const UNKNOWN_HERE: [&str; 7] = ["gss", "sspi", "ident", "ldap", "radius", "pam", "bsd"];
/// The options that rules may have.
const OPTIONS: [&str; 3] = ["clientcert", "clientname", "map"];
const FORM: &str = "a rule is \"local DATABASE USER METHOD\" or \"host DATABASE USER ADDRESS METHOD\", and options behind it";

/// Reads a line, and reports what is wrong with it.
pub(super) fn read(path: &Path, line: Line, findings: &Findings) -> Option<HbaRule> {
    let number = line.number;
    let wrong = |text: String| findings.mistake(path, Some(number), text);
    let mut fields = line.fields.into_iter();
    let connection = fields.next().ok_or_else(|| FORM.to_owned()).and_then(|field| connection(&field)).map_err(wrong).ok()?;
    let (Some(databases), Some(users)) = (fields.next(), fields.next()) else {
        wrong(FORM.to_owned());
        return None;
    };
    let list = |field| expanded(path, number, field, findings);
    let databases = all_of(list(databases), database).map_err(wrong);
    let users = all_of(list(users), user).map_err(wrong);
    let network = match connection {
        Connection::Local => Ok(None),
        Connection::Host | Connection::HostSsl | Connection::HostNoSsl => network(&mut fields).map_err(wrong),
    };
    let method = fields.next().ok_or_else(|| FORM.to_owned()).and_then(|field| method(&field, connection)).map_err(wrong);
    let (Ok(databases), Ok(users), Ok(network), Ok(method)) = (databases, users, network, method) else { return None };
    let mut rule = HbaRule {
        line: number,
        connection,
        databases,
        users,
        network,
        method,
        map: None,
        client_certificate: ClientCertificate::default(),
        certificate_name: CertificateName::default(),
    };
    for token in fields.flatten() {
        option(&mut rule, &token.text).map_err(wrong).ok()?;
    }
    Some(rule)
}

/// The only token of a field that is no list.
fn single<'a>(field: &'a Field, what: &str) -> Result<&'a Token, String> {
    match &field[..] {
        [token] => Ok(token),
        _ => Err(format!("{what} is one word, not a list")),
    }
}

fn connection(field: &Field) -> Result<Connection, String> {
    let token = single(field, "the type of a connection")?;
    match token.text.as_str() {
        "local" => Ok(Connection::Local),
        // GSSAPI encryption is not spoken, so no connection has it.
        "host" | "hostnogssenc" => Ok(Connection::Host),
        "hostssl" => Ok(Connection::HostSsl),
        "hostnossl" => Ok(Connection::HostNoSsl),
        "hostgssenc" => Err("hostgssenc matches nothing: GSSAPI encryption is not spoken; remove the line".to_owned()),
        "include" | "include_if_exists" | "include_dir" => {
            Err(format!("{} is not supported: write the lines here, or a list of names as @file", token.text))
        }
        other => {
            let near = suggestion(other, ["local", "host", "hostssl", "hostnossl"]);
            Err(format!("a rule begins with local, host, hostssl or hostnossl, not \"{}\"{near}", shown(other)))
        }
    }
}

fn all_of<T>(field: Field, read: impl Fn(&Token) -> Result<T, String>) -> Result<Vec<T>, String> {
    field.iter().map(read).collect()
}

fn database(token: &Token) -> Result<DatabasePattern, String> {
    match token.text.as_str() {
        "samerole" | "samegroup" if !token.quoted => {
            Err(format!("{} asks for the members of roles, which are not known here: name databases", token.text))
        }
        "all" if !token.quoted => Ok(DatabasePattern::All),
        "sameuser" if !token.quoted => Ok(DatabasePattern::SameUser),
        "replication" if !token.quoted => Ok(DatabasePattern::Replication),
        _ => NamePattern::read(token).map(DatabasePattern::Name),
    }
}

fn user(token: &Token) -> Result<NamePattern, String> {
    if !token.quoted && token.text.starts_with('+') {
        let group = shown(&token.text);
        return Err(format!(
            "\"{group}\" is a group, and the members of roles are not known here: name users, or a list of them as @file"
        ));
    }
    NamePattern::read(token)
}

/// Reads the address, and the mask if that stands in a field of its own.
fn network(fields: &mut impl Iterator<Item = Field>) -> Result<Option<IpNet>, String> {
    let field = fields.next().ok_or(FORM)?;
    let token = single(&field, "an address")?;
    let text = token.text.as_str();
    if token.is("all") {
        return Ok(None);
    }
    if token.is("samehost") || token.is("samenet") {
        return Err(format!("{text} is not supported: write the network, such as 10.0.0.0/8"));
    }
    let network = if text.contains('/') {
        text.parse().map_err(|_| format!("\"{}\" is no network: write it like 10.0.0.0/8", shown(text)))?
    } else {
        let Ok(address) = text.parse::<IpAddr>() else {
            return Err(format!(
                "\"{}\" is no address: write a network such as 10.0.0.0/8 (names of hosts are not looked up here), or all",
                shown(text)
            ));
        };
        let mask = fields.next().and_then(|field| single(&field, "a mask").ok()?.text.parse().ok());
        let network = mask.and_then(|mask| IpNet::with_netmask(address, mask).ok());
        network
            .ok_or_else(|| format!("\"{text}\" needs a mask: write it like {address}/8, or a mask such as 255.0.0.0 behind it"))?
    };
    if matches!(network.addr(), IpAddr::V6(address) if address.to_ipv4_mapped().is_some()) {
        return Err(format!("\"{}\" is an IPv4 network inside IPv6: write it as IPv4", shown(text)));
    }
    Ok(Some(network.trunc()))
}

fn method(field: &Field, connection: Connection) -> Result<HbaMethod, String> {
    let token = single(field, "a method")?;
    let text = token.text.as_str();
    match (text, connection) {
        ("reject", _) => return Ok(HbaMethod::Reject),
        // PostgreSQL still takes the one for the other.
        ("peer" | "ident", Connection::Local) => return Ok(HbaMethod::Peer),
        ("peer", _) => return Err("peer is for Unix sockets: write it in a rule that begins with local".to_owned()),
        ("cert", Connection::HostSsl) => return Ok(HbaMethod::Cert),
        ("cert", _) => return Err("cert is for TLS: write it in a rule that begins with hostssl".to_owned()),
        _ => {}
    }
    let known = || AuthMethod::ALL.iter().map(|(name, _)| *name);
    match AuthMethod::ALL.iter().find(|(name, _)| *name == text) {
        Some((_, method)) => Ok(HbaMethod::Ask(*method)),
        None if UNKNOWN_HERE.contains(&text) => Err(format!("the method {text} is not supported")),
        None => {
            let near = suggestion(text, known().chain(["reject", "peer", "cert"]));
            let names: Vec<&str> = known().collect();
            Err(format!("a method is one of {}, reject, peer and cert, not \"{}\"{near}", names.join(", "), shown(text)))
        }
    }
}

/// Reads `name=value` into the rule.
fn option(rule: &mut HbaRule, text: &str) -> Result<(), String> {
    let Some((name, value)) = text.split_once('=') else {
        return Err(format!("an option is name=value, not \"{}\"", shown(text)));
    };
    let is_ssl = rule.connection == Connection::HostSsl;
    match (name, value) {
        ("clientcert" | "clientname", _) if !is_ssl => Err(format!("{name} is for rules that begin with hostssl")),
        ("clientcert", "verify-ca") if rule.method == HbaMethod::Cert => {
            Err("cert always checks the name: write clientcert=verify-full, or nothing".to_owned())
        }
        ("clientcert", "verify-ca") => {
            rule.client_certificate = ClientCertificate::Trusted;
            Ok(())
        }
        ("clientcert", "verify-full") => {
            rule.client_certificate = ClientCertificate::OfUser;
            Ok(())
        }
        ("clientcert", _) => Err(format!("clientcert is verify-ca or verify-full, not \"{}\"", shown(value))),
        ("clientname", "CN") => {
            rule.certificate_name = CertificateName::CommonName;
            Ok(())
        }
        ("clientname", "DN") => {
            rule.certificate_name = CertificateName::DistinguishedName;
            Ok(())
        }
        ("clientname", _) => Err(format!("clientname is CN or DN, not \"{}\"", shown(value))),
        ("map", "") => Err("map= needs the name of a map in the ident file".to_owned()),
        ("map", map) if rule.method.is_of_foreign_names() => {
            rule.map = Some(map.to_owned());
            Ok(())
        }
        ("map", _) => Err("map is for the methods peer, cert, jwt and oauth".to_owned()),
        (other, _) => {
            let near = suggestion(other, OPTIONS);
            Err(format!("unknown option \"{}\"{near}; the options here are {}", shown(other), OPTIONS.join(", ")))
        }
    }
}
