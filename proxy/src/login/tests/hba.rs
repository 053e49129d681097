//! Which rule of an HBA file a client meets, and what comes of it.

use std::net::{IpAddr, SocketAddr};

use expect_test::{Expect, expect};

use super::super::conversation::{ClientLogin, Step};
use super::super::hba::{Demand, demand};
use super::client::{chance, startup};
use super::*;
use crate::wire::frontend::password;
use crate::wire::startup::{Replication, StartupMessage};

/// The `[auth]` of a configuration with these files.
fn auth(hba: &str, ident: &str) -> crate::config::Auth {
    rules_with(hba, ident).config.auth
}

fn rules_with(hba: &str, ident: &str) -> Rules {
    let files = [("pg_hba.conf", hba), ("pg_ident.conf", ident)];
    super::rules_of("hba_file = \"pg_hba.conf\"\nident_file = \"pg_ident.conf\"", "", &files)
}

fn from(address: &str) -> Transport {
    SocketAddr::new(address.parse::<IpAddr>().unwrap(), 50_000).into()
}

fn by_tls(address: &str, common_name: Option<&str>) -> Transport {
    let certificate = common_name.map(|name| CertificateNames {
        common_name: Some(name.to_owned()),
        distinguished_name: format!("CN={name},O=Example"),
        alternative_names: Vec::new(),
    });
    Transport { tls: Some(TlsPeer { certificate, ..TlsPeer::default() }), ..from(address) }
}

fn by_socket(name: Option<&str>) -> Transport {
    Transport { unix_user: Some(1000), unix_user_name: name.map(str::to_owned), ..Transport::default() }
}

fn hello(user: &str, database: &str, replication: Replication) -> StartupMessage {
    StartupMessage {
        protocol_minor: 0,
        user: user.to_owned(),
        database: database.to_owned(),
        replication,
        parameters: Vec::new(),
        unknown_protocol_options: Vec::new(),
    }
}

/// What a client is asked, or told.
fn asked(auth: &crate::config::Auth, user: &str, database: &str, transport: &Transport) -> String {
    shown(demand(auth, &hello(user, database, Replication::None), transport))
}

fn shown(demand: Result<Demand, super::super::refusal::Refusal>) -> String {
    match demand {
        Ok(Demand { method, doomed: None, .. }) => method.as_str().to_owned(),
        Ok(Demand { method, doomed: Some(why), .. }) => format!("{} in vain: {why}", method.as_str()),
        Err(refusal) => format!("{} {}", refusal.sqlstate, refusal.message),
    }
}

#[test]
fn the_first_rule_that_matches_decides() {
    let auth = auth(
        "local all bob trust\n\
         host shop alice 10.0.0.0/8 password\n\
         host shop alice 10.0.0.0/8 trust\n\
         host sameuser all 10.0.0.0/8 md5\n\
         host all /^a 10.0.0.0/8 scram-sha-256\n\
         host all all ::/0 reject\n\
         hostssl \"all\" all all trust\n",
        "",
    );
    for (user, database, transport, expected) in [
        ("bob", "shop", by_socket(None), "trust"),
        ("alice", "shop", from("10.1.2.3"), "password"),
        ("alice", "shop", from("::ffff:10.1.2.3"), "password"),
        ("alice", "alice", from("10.1.2.3"), "md5"),
        ("alice", "crm", from("10.1.2.3"), "scram-sha-256"),
        ("alice", "crm", by_tls("10.1.2.3", None), "scram-sha-256"),
        (
            "alice",
            "shop",
            from("2001:db8::1"),
            "28000 pg_hba.conf rejects connection for host \"2001:db8::1\", user \"alice\", database \"shop\", no encryption",
        ),
        (
            "alice",
            "shop",
            by_socket(None),
            "28000 no pg_hba.conf entry for host \"[local]\", user \"alice\", database \"shop\", no encryption",
        ),
        (
            "bob",
            "shop",
            by_tls("10.1.2.3", None),
            "28000 no pg_hba.conf entry for host \"10.1.2.3\", user \"bob\", database \"shop\", SSL encryption",
        ),
        (
            "bob",
            "all",
            from("::ffff:10.1.2.3"),
            "28000 no pg_hba.conf entry for host \"10.1.2.3\", user \"bob\", database \"all\", no encryption",
        ),
        ("bob", "all", by_tls("192.0.2.1", None), "trust"),
    ] {
        assert_eq!(asked(&auth, user, database, &transport), expected, "{user} {database}");
    }
}

#[test]
fn encryption_is_a_condition() {
    let auth = auth("hostnossl all all all reject\nhostssl all all all trust", "");
    let refused = "28000 pg_hba.conf rejects connection for host \"10.0.0.1\", user \"bob\", database \"shop\", no encryption";
    assert_eq!(asked(&auth, "bob", "shop", &from("10.0.0.1")), refused);
    assert_eq!(asked(&auth, "bob", "shop", &by_tls("10.0.0.1", None)), "trust");
}

#[test]
fn physical_replication_is_of_no_database() {
    let asked = |hba: &str, replication| shown(demand(&auth(hba, ""), &hello("bob", "bob", replication), &from("10.0.0.1")));
    let none = "28000 no pg_hba.conf entry for replication connection from host \"10.0.0.1\", user \"bob\", no encryption";
    for database in ["all", "sameuser", "bob", "/b", "\"replication\""] {
        let rule = format!("host {database} all all trust");
        assert_eq!(asked(&rule, Replication::Physical), none, "{database}");
    }
    assert_eq!(asked("host replication all all trust", Replication::Physical), "trust");
    let rejected = "28000 pg_hba.conf rejects replication connection for host \"10.0.0.1\", user \"bob\", no encryption";
    assert_eq!(asked("host replication all all reject", Replication::Physical), rejected);
    for replication in [Replication::None, Replication::Database] {
        assert_eq!(asked("host all all all trust", replication), "trust");
        assert!(asked("host replication all all trust", replication).starts_with("28000 no pg_hba.conf entry for host"));
    }
}

#[test]
fn the_system_says_who_a_peer_is() {
    let auth = auth("local all bob peer\nlocal all all peer map=staff", "staff ann alice\nstaff /^(.+)_adm$ \\1\n");
    let asked = |user: &str, peer: Option<&str>| asked(&auth, user, "shop", &by_socket(peer));
    assert_eq!(asked("bob", Some("bob")), "trust");
    assert_eq!(asked("alice", Some("ann")), "trust");
    assert_eq!(asked("carol", Some("carol_adm")), "trust");
    for (user, peer) in [("bob", Some("ann")), ("bob", None), ("alice", Some("alice")), ("carol", Some("dave_adm"))] {
        assert_eq!(asked(user, peer), format!("28000 Peer authentication failed for user \"{user}\""), "{peer:?}");
    }
    let refusal = demand(&auth, &hello("bob", "shop", Replication::None), &by_socket(Some("ann"))).unwrap_err();
    let cause = refusal.cause.unwrap();
    assert!(cause.ends_with("pg_hba.conf:1: at the other end of the socket is the system's user \"ann\""), "{cause}");
}

#[test]
fn a_certificate_says_who_a_client_is() {
    let auth = auth(
        "hostssl cn all all cert\n\
         hostssl map all all cert map=staff\n\
         hostssl dn all all cert map=names clientname=DN\n",
        "staff ann alice\nnames \"/^CN=([a-z]+),O=Example$\" \\1",
    );
    let asked = |database: &str, name: Option<&str>| asked(&auth, "alice", database, &by_tls("10.0.0.1", name));
    assert_eq!(asked("cn", Some("alice")), "trust");
    assert_eq!(asked("map", Some("ann")), "trust");
    assert_eq!(asked("dn", Some("alice")), "trust");
    for (database, name) in [("cn", "ann"), ("cn", "Alice"), ("cn", ""), ("map", "alice"), ("dn", "ann")] {
        let refused = "28000 certificate authentication failed for user \"alice\"";
        assert_eq!(asked(database, Some(name)), refused, "{database} {name}");
    }
    assert_eq!(asked("cn", None), "28000 connection requires a valid client certificate");
}

#[test]
fn a_certificate_may_be_asked_for_besides() {
    let auth = auth(
        "hostssl ca all all trust clientcert=verify-ca\n\
         hostssl full all all trust clientcert=verify-full\n\
         hostssl both all all scram-sha-256 clientcert=verify-full\n",
        "",
    );
    let asked = |database: &str, name: Option<&str>| asked(&auth, "alice", database, &by_tls("10.0.0.1", name));
    assert_eq!(asked("ca", Some("ann")), "trust");
    assert_eq!(asked("full", Some("alice")), "trust");
    assert_eq!(asked("full", Some("ann")), "28000 \"trust\" authentication failed for user \"alice\"");
    assert_eq!(asked("both", Some("alice")), "scram-sha-256");
    assert_eq!(asked("both", Some("ann")), "scram-sha-256 in vain: its certificate is of somebody else");
    for database in ["ca", "full", "both"] {
        assert_eq!(asked(database, None), "28000 connection requires a valid client certificate");
    }
}

/// Logs `user` in with a password, by TLS with a certificate, and tells how it ends.
fn log_in(rules: &Rules, user: &str, secret: &str, transport: Transport) -> String {
    let mut login = ClientLogin::new(transport, chance());
    login.receive(&startup(0, &[("user", user), ("database", "shop")]));
    login.receive(&password(secret.as_bytes()));
    loop {
        match login.step(rules, 0) {
            Step::Send(_) => {}
            Step::Admit(_) => return "admitted".to_owned(),
            Step::Refuse(refused) => return format!("{} {}", refused.refusal.sqlstate, refused.refusal.message),
            step => panic!("{step:?}"),
        }
    }
}

#[test]
fn what_is_proved_in_vain_is_a_wrong_password() {
    let rules = rules_with("hostssl all all all password clientcert=verify-full\nlocal all bob peer", "");
    let wrong = "28P01 password authentication failed for user \"bob\"";
    assert_eq!(log_in(&rules, "bob", "secret", by_tls("10.0.0.1", Some("bob"))), "admitted");
    assert_eq!(log_in(&rules, "bob", "secret", by_tls("10.0.0.1", Some("alice"))), wrong);
    assert_eq!(log_in(&rules, "bob", "wrong", by_tls("10.0.0.1", Some("bob"))), wrong);
    assert_eq!(log_in(&rules, "bob", "", by_socket(Some("bob"))), "admitted");
}

/// All that is wrong with a configuration, or that it is warned of. `…` is its directory.
fn check(auth: &str, hba: &str, ident: &str, expected: Expect) {
    let directory = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(directory.path().join(name), text).unwrap();
    let text = format!(
        "auth = {{ {auth} }}\nresidency.unbound = \"client\"\n[regions.eu]\n[[nodes]]\nname = \"a\"\nregion = \"eu\"\naddress = \"h:1\"\n"
    );
    write("domicile.toml", &text);
    write("pg_hba.conf", hba);
    write("pg_ident.conf", ident);
    let found = match crate::config::load(&directory.path().join("domicile.toml"), &|_| None) {
        Ok(config) => config.warnings.join("\n"),
        Err(mistakes) => mistakes.to_string(),
    };
    expected.assert_eq(&found.replace(directory.path().to_str().unwrap(), "…"));
}

#[test]
fn the_files_belong_to_the_configuration() {
    check("hba_file = \"pg_hba.conf\"", "local all all peer", "", expect![[""]]);
    check(
        "hba_file = \"pg_hba.conf\"",
        "# nobody",
        "",
        expect!["…/domicile.toml:1: …/pg_hba.conf has no rule, so nobody gets in"],
    );
    check(
        "hba_file = \"pg_hba.conf\", method = \"trust\"",
        "local all all md5\nlocal all all peer map=x",
        "",
        expect![[r#"
            …/domicile.toml:1: auth.hba_file says how clients prove who they are: remove auth.method
            …/domicile.toml:1: auth.users is missing: add users = "users.txt", or [auth.query] (rules of the HBA file ask for passwords)"#]],
    );
    check(
        "hba_file = \"nothing.conf\", ident_file = \"nothing.conf\"",
        "",
        "",
        expect![[r#"
            …/domicile.toml:1: auth.ident_file: …/nothing.conf cannot be read: No such file or directory (os error 2)
            …/domicile.toml:1: auth.hba_file: …/nothing.conf cannot be read: No such file or directory (os error 2)"#]],
    );
    check(
        "method = \"trust\", ident_file = \"pg_ident.conf\"",
        "",
        "",
        expect!["…/domicile.toml:1: auth.ident_file is for the maps of auth.hba_file: set that too, or remove it"],
    );
    check(
        "hba_file = \"pg_hba.conf\", ident_file = \"pg_ident.conf\"",
        "local all all peer map=x\nlocal all all nonsense",
        "x a",
        expect![[r#"
            …/pg_hba.conf:2: a method is one of trust, password, md5, scram-sha-256, jwt, oauth, reject, peer and cert, not "nonsense"
            …/pg_ident.conf:1: a line is a map, a name and a user: map-name system-username database-username"#]],
    );
}

#[test]
fn without_a_file_the_method_is_that_of_the_configuration() {
    let auth = super::rules("md5", "").config.auth;
    assert_eq!(shown(demand(&auth, &hello("x", "y", Replication::None), &from("10.0.0.1"))), "md5");
}
