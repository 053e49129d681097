//! HBA and ident files: what is read, what is refused and in which words, and texts that nobody would write.

use std::fmt::Write as _;
use std::fs;

use expect_test::{Expect, expect};
use proptest::prelude::*;

use super::super::mistake::{Findings, Mistakes};
use super::*;

const FILE: &str = "pg_hba.conf";

fn read(text: &str) -> Result<(Vec<HbaRule>, Vec<String>), Mistakes> {
    let findings = Findings::default();
    let maps = parse_ident(Path::new("pg_ident.conf"), "staff a b", &findings);
    let rules = parse(Path::new(FILE), text, &maps, &findings);
    findings.into_result(Some(rules))
}

/// A rule a line, or all that is wrong.
fn check(text: &str, expected: Expect) {
    let mut found = String::new();
    match read(text) {
        Ok((rules, warnings)) => {
            for rule in &rules {
                let HbaRule { line, connection, databases, users, network, method, .. } = rule;
                let network = network.map_or("any".to_owned(), |network| network.to_string());
                write!(found, "{line}: {connection:?} {databases:?} {users:?} {network} {method:?}").unwrap();
                let HbaRule { map, client_certificate, certificate_name, .. } = rule;
                if map.is_some()
                    || *client_certificate != ClientCertificate::Any
                    || *certificate_name != CertificateName::CommonName
                {
                    write!(found, " {map:?} {client_certificate:?} {certificate_name:?}").unwrap();
                }
                found.push('\n');
            }
            warnings.iter().for_each(|warning| writeln!(found, "warning: {warning}").unwrap());
        }
        Err(mistakes) => writeln!(found, "{mistakes}").unwrap(),
    }
    expected.assert_eq(&found);
}

#[test]
fn every_kind_of_rule_is_read() {
    check(
        "# TYPE  DATABASE  USER  ADDRESS  METHOD\r\n\
         local all postgres peer map=staff\n\
         \n\
         host all all 127.0.0.1/32 scram-sha-256 # behind it\n\
         host shop,\"all\",sameuser alice,/^a.*$ 10.1.2.3 255.0.0.0 md5\n\
         hostssl replication all ::1/128 cert clientname=DN clientcert=verify-full map=staff\n\
         hostssl all all all password clientcert=verify-ca\n\
         hostnossl all all 0.0.0.0/0 reject\n\
         local all \\\n all ident\n\
         hostnogssenc all all 2001:db8::1 ffff:ffff:: trust\n\
         host all all all jwt map=staff\n\
         host all all all oauth map=staff\n",
        expect![[r#"
            2: Local [All] [Exactly("postgres")] any Peer Some("staff") Any CommonName
            4: Host [All] [All] 127.0.0.1/32 Ask(ScramSha256)
            5: Host [Name(Exactly("shop")), Name(Exactly("all")), SameUser] [Exactly("alice"), Matching(Regex("^a.*$"))] 10.0.0.0/8 Ask(Md5)
            6: HostSsl [Replication] [All] ::1/128 Cert Some("staff") OfUser DistinguishedName
            7: HostSsl [All] [All] any Ask(Password) None Trusted CommonName
            8: HostNoSsl [All] [All] 0.0.0.0/0 Reject
            9: Local [All] [All] any Peer
            11: Host [All] [All] 2001:db8::/32 Ask(Trust)
            12: Host [All] [All] any Ask(Jwt) Some("staff") Any CommonName
            13: Host [All] [All] any Ask(OAuth) Some("staff") Any CommonName
        "#]],
    );
}

#[test]
fn quotes_and_commas_are_those_of_postgresql() {
    check(
        "local \"a b\",\"c\"\"d\" , e\"f g\"h \"+x\",\"@y\" trust\n\
         local a, b c#d\n trust\n\
         local a ,b trust\n",
        expect![[r#"
            pg_hba.conf:1: a method is one word, not a list
            pg_hba.conf:2: a rule is "local DATABASE USER METHOD" or "host DATABASE USER ADDRESS METHOD", and options behind it
            pg_hba.conf:3: a rule begins with local, host, hostssl or hostnossl, not "trust"
        "#]],
    );
    check(
        "local \"a b\",\"c\"\"d\", e\"f g\"h \"+x\",\"@y\" trust\nlocal a ,b trust\nlocal \"#\" \"\" trust#x",
        expect![[r##"
            1: Local [Name(Exactly("a b")), Name(Exactly("c\"d")), Name(Exactly("ef gh"))] [Exactly("+x"), Exactly("@y")] any Ask(Trust)
            2: Local [Name(Exactly("a"))] [Exactly("b")] any Ask(Trust)
            3: Local [Name(Exactly("#"))] [Exactly("")] any Ask(Trust)
        "##]],
    );
}

#[test]
fn what_is_wrong_is_told_with_its_line() {
    check(
        "locl all all trust\n\
         host all all trust\n\
         host all all 10.0.0.0 md5\n\
         host all all 10.0.0.0 255.0.255.0 md5\n\
         host all all 10.0.0.0/33 md5\n\
         host all all example.org md5\n\
         host all all samenet md5\n\
         host all all ::ffff:10.0.0.0/104 md5\n\
         host all all all scram\n\
         host all all all ldap ldapserver=x\n\
         host all all all peer\n\
         host all all all cert\n\
         hostgssenc all all all trust\n\
         local samerole all trust\n\
         local all +admins trust\n\
         local all /( trust\n\
         local all all\n\
         local all\n\
         local all all trust map=staff\n\
         local all all peer map=\n\
         local all all peer clientcert=verify-ca\n\
         hostssl all all all cert clientcert=verify-ca\n\
         hostssl all all all md5 clientcert=1 \n\
         hostssl all all all md5 clientname=SAN\n\
         local all all peer maps=staff\n\
         local all all peer staff\n\
         local all \"all trust\n\
         local,host all all trust\n\
         include other.conf\n",
        expect![[r#"
            pg_hba.conf:1: a rule begins with local, host, hostssl or hostnossl, not "locl": did you mean "local"?
            pg_hba.conf:2: "trust" is no address: write a network such as 10.0.0.0/8 (names of hosts are not looked up here), or all
            pg_hba.conf:2: a rule is "local DATABASE USER METHOD" or "host DATABASE USER ADDRESS METHOD", and options behind it
            pg_hba.conf:3: "10.0.0.0" needs a mask: write it like 10.0.0.0/8, or a mask such as 255.0.0.0 behind it
            pg_hba.conf:3: a rule is "local DATABASE USER METHOD" or "host DATABASE USER ADDRESS METHOD", and options behind it
            pg_hba.conf:4: "10.0.0.0" needs a mask: write it like 10.0.0.0/8, or a mask such as 255.0.0.0 behind it
            pg_hba.conf:5: "10.0.0.0/33" is no network: write it like 10.0.0.0/8
            pg_hba.conf:6: "example.org" is no address: write a network such as 10.0.0.0/8 (names of hosts are not looked up here), or all
            pg_hba.conf:7: samenet is not supported: write the network, such as 10.0.0.0/8
            pg_hba.conf:8: "::ffff:10.0.0.0/104" is an IPv4 network inside IPv6: write it as IPv4
            pg_hba.conf:9: a method is one of trust, password, md5, scram-sha-256, jwt, oauth, reject, peer and cert, not "scram": did you mean "scram-sha-256"?
            pg_hba.conf:10: the method ldap is not supported
            pg_hba.conf:11: peer is for Unix sockets: write it in a rule that begins with local
            pg_hba.conf:12: cert is for TLS: write it in a rule that begins with hostssl
            pg_hba.conf:13: hostgssenc matches nothing: GSSAPI encryption is not spoken; remove the line
            pg_hba.conf:14: samerole asks for the members of roles, which are not known here: name databases
            pg_hba.conf:15: "+admins" is a group, and the members of roles are not known here: name users, or a list of them as @file
            pg_hba.conf:16: "/(" is not a regular expression: unclosed group
            pg_hba.conf:17: a rule is "local DATABASE USER METHOD" or "host DATABASE USER ADDRESS METHOD", and options behind it
            pg_hba.conf:18: a rule is "local DATABASE USER METHOD" or "host DATABASE USER ADDRESS METHOD", and options behind it
            pg_hba.conf:19: map is for the methods peer, cert, jwt and oauth
            pg_hba.conf:20: map= needs the name of a map in the ident file
            pg_hba.conf:21: clientcert is for rules that begin with hostssl
            pg_hba.conf:22: cert always checks the name: write clientcert=verify-full, or nothing
            pg_hba.conf:23: clientcert is verify-ca or verify-full, not "1"
            pg_hba.conf:24: clientname is CN or DN, not "SAN"
            pg_hba.conf:25: unknown option "maps": did you mean "map"?; the options here are clientcert, clientname, map
            pg_hba.conf:26: an option is name=value, not "staff"
            pg_hba.conf:27: a double quote is not closed before the end of the line
            pg_hba.conf:28: the type of a connection is one word, not a list
            pg_hba.conf:29: include is not supported: write the lines here, or a list of names as @file
        "#]],
    );
    check(
        "local all all peer map=stuff",
        expect![[r#"
            1: Local [All] [All] any Peer Some("stuff") Any CommonName
            warning: pg_hba.conf:1: the ident file has no map "stuff", so nobody gets in by this rule: did you mean "staff"?
        "#]],
    );
}

#[test]
fn lists_stand_in_files_of_their_own() {
    let directory = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| fs::write(directory.path().join(name), text).unwrap();
    write("names", "alice, bob # two of them\n\"@carol\"\n@more\n");
    write("more", "/^d\n");
    write("endless", "@endless");
    let read = |text: &str| {
        let findings = Findings::default();
        let rules = parse(&directory.path().join(FILE), text, &IdentMaps::default(), &findings);
        let users = |rule: &HbaRule| format!("{:?} {:?}", rule.databases, rule.users);
        let found = findings.into_result(Some(rules)).map(|(rules, _)| rules.iter().map(users).collect::<String>());
        let found = found.unwrap_or_else(|mistakes| mistakes.to_string());
        found.replace(directory.path().to_str().unwrap(), "…")
    };
    let names = r#"Exactly("alice"), Exactly("bob"), Exactly("@carol"), Matching(Regex("^d"))"#;
    assert_eq!(read("local all zoe,@names trust"), format!("[All] [Exactly(\"zoe\"), {names}]"));
    assert_eq!(read("local \"@names\" all trust"), "[Name(Exactly(\"@names\"))] [All]");
    let missing = "…/pg_hba.conf:2: …/nobody cannot be read: No such file or directory (os error 2)";
    assert_eq!(read("\nlocal all @nobody trust"), missing);
    assert_eq!(read("local @endless all trust"), "…/endless:1: @endless: more than 10 files name one another");
}

#[test]
fn maps_say_who_may_be_whom() {
    let text = "# MAP NAME USER\n\
                staff ann alice\n\
                staff \"all\" bob\n\
                staff /^(.*)@example\\.org$ \\1\n\
                staff /^(all)$ \\1\n\
                staff root all\n\
                staff ops /^db_\n\
                other /^(x)?y$ u\\1\n\
                \"my map\" a a\n";
    let findings = Findings::default();
    let maps = parse_ident(Path::new("pg_ident.conf"), text, &findings);
    findings.into_result(Some(())).unwrap();
    for (map, name, user) in [
        ("staff", "ann", "alice"),
        ("staff", "all", "bob"),
        ("staff", "all", "all"),
        ("staff", "carol@example.org", "carol"),
        ("staff", "root", "anybody"),
        ("staff", "ops", "db_owner"),
        ("other", "xy", "ux"),
        ("my map", "a", "a"),
    ] {
        assert!(maps.admit(map, name, user), "{map} {name} {user}");
    }
    for (map, name, user) in [
        ("other", "ann", "alice"),
        ("staff", "ann", "ann"),
        ("staff", "Ann", "alice"),
        ("staff", "all", "carol"),
        ("staff", "carol@example.org", "dave"),
        ("staff", "carol@example.org.uk", "carol"),
        ("staff", "ops", "my_db_owner"),
        ("other", "y", "u"),
        ("nobody", "a", "a"),
    ] {
        assert!(!maps.admit(map, name, user), "{map} {name} {user}");
    }
}

#[test]
fn what_is_wrong_with_maps_is_told() {
    let text = "staff a\nstaff a b c\nstaff a b,c\nstaff a +b\nstaff /( b\nstaff /a \\1\nstaff a /(\ninclude x\n";
    let findings = Findings::default();
    parse_ident(Path::new("pg_ident.conf"), text, &findings);
    let mistakes = findings.into_result(Some(())).unwrap_err().to_string();
    expect![[r#"
        pg_ident.conf:1: a line is a map, a name and a user: map-name system-username database-username
        pg_ident.conf:2: a line is a map, a name and a user: map-name system-username database-username
        pg_ident.conf:3: a line is a map, a name and a user: map-name system-username database-username
        pg_ident.conf:4: "+b" is a group, and the members of roles are not known here: name users
        pg_ident.conf:5: "/(" is not a regular expression: unclosed group
        pg_ident.conf:6: "/a" has no group that \1 could stand for
        pg_ident.conf:7: "/(" is not a regular expression: unclosed group
        pg_ident.conf:8: include is not supported: write the lines here"#]]
    .assert_eq(&mistakes);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn any_text_is_read_or_refused(text in "(local|host|hostssl|all|reject|10\\.0\\.0\\.0/8|[a-z@/+\"#,\\\\\\\\= \\n\\t(]|\\PC)*") {
        drop(read(&text));
        parse_ident(Path::new("i"), &text, &Findings::default());
    }

    #[test]
    fn a_quoted_word_is_that_word(word in "[^\"\\n\\r/]{1,20}[^\"\\n\\r\\\\]") {
        let (rules, _) = read(&format!("local \"{word}\" all trust")).unwrap();
        let DatabasePattern::Name(NamePattern::Exactly(found)) = &rules[0].databases[0] else { panic!("{rules:?}") };
        prop_assert_eq!(found, &word);
    }
}
