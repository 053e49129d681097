//! The files that a configuration names, and the files of `configs/`.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use expect_test::{Expect, expect};

use super::super::*;
use super::{MINIMAL, environment, found, read};

fn configs() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../configs")
}

#[test]
fn passwords() {
    let directory = tempfile::tempdir().unwrap();
    let (empty, good) = (directory.path().join("empty"), directory.path().join("good"));
    fs::write(&empty, "\n").unwrap();
    fs::write(&good, "from a file\r\n").unwrap();
    let node = |password: &str| {
        read(&format!("{MINIMAL}password = {password}")).map(|config| {
            let password = config.nodes[0].password.as_ref().map(Password::reveal);
            password.map(str::to_owned)
        })
    };
    assert_eq!(node("\"in \\\"line\"").unwrap().as_deref(), Some("in \"line"));
    assert_eq!(node("{ env = \"PG_EU\" }").unwrap().as_deref(), Some("from the environment"));
    assert_eq!(node(&format!("{{ file = {good:?} }}")).unwrap().as_deref(), Some("from a file"));

    let wrong = [
        "5",
        "\"\"",
        "\"a\\u0000b\"",
        "{}",
        "{ env = \"PG_EU\", file = \"x\" }",
        "{ env = \"PG_US\" }",
        "{ env = \"EMPTY\" }",
        "{ env = 5 }",
        "{ enw = \"PG_EU\" }",
        "{ file = \"missing.txt\" }",
        &format!("{{ file = {empty:?} }}"),
    ];
    let found: String = wrong.iter().map(|password| format!("{}\n", node(password).unwrap_err())).collect();
    expect![[r#"
        d.toml:9: nodes[0].password must be a text, { env = "VARIABLE" } or { file = "path" }
        d.toml:9: nodes[0].password is empty, which PostgreSQL never accepts
        d.toml:9: nodes[0].password contains a NUL character, which PostgreSQL never accepts
        d.toml:9: nodes[0].password must be a text, { env = "VARIABLE" } or { file = "path" }
        d.toml:9: nodes[0].password must be a text, { env = "VARIABLE" } or { file = "path" }
        d.toml:9: nodes[0].password: environment variable PG_US is not set where domicile runs
        d.toml:9: nodes[0].password is empty, which PostgreSQL never accepts
        d.toml:9: nodes[0].password.env must be a text between quotes that is not empty, not 5
        d.toml:9: unknown key "nodes[0].password.enw": did you mean "env"?
        d.toml:9: nodes[0].password must be a text, { env = "VARIABLE" } or { file = "path" }
        d.toml:9: nodes[0].password: missing.txt cannot be read: No such file or directory (os error 2)
        d.toml:9: nodes[0].password is empty, which PostgreSQL never accepts
    "#]]
    .assert_eq(&found);
}

/// Writes a configuration and its users file, both with a mode, and says what `load` finds. `…` stands for the directory.
fn check_files(configuration: &str, users: Option<&[u8]>, mode: u32, expected: Expect) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("d.toml");
    fs::write(&path, configuration).unwrap();
    if let Some(users) = users {
        let path = directory.path().join("users.txt");
        fs::write(&path, users).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
    }
    fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
    let found = found(load(&path, &environment));
    expected.assert_eq(&found.replace(directory.path().to_str().unwrap(), "…"));
}

#[test]
fn users_files() {
    let scram = MINIMAL.replace("auth.method = \"trust\"", "auth.users = \"users.txt\"");
    check_files(&scram, Some(b"\"alice\" \"secret\""), 0o600, expect![[""]]);
    check_files(
        &scram,
        Some(b"\"alice\" \"secret\""),
        0o644,
        expect![[r#"
            warning: …/users.txt: everyone on this host can read the passwords in it (mode 0644): chmod o-r …/users.txt
        "#]],
    );
    check_files(
        &scram,
        Some(b"\"a\" \"md50123456789abcdef0123456789abcdef\""),
        0o600,
        expect![[r#"
            warning: …/users.txt: 1 of the users have an md5 secret, with which they cannot log in by scram-sha-256: set their passwords anew, or use method "md5"
        "#]],
    );
    check_files(
        &scram,
        Some(b"; comment\n\"a\" \"\xff\""),
        0o600,
        expect![[r#"
            …/d.toml:2: auth.users: …/users.txt cannot be read: line 2 is not UTF-8
        "#]],
    );
    check_files(
        &scram,
        Some(b"; comment\nalice secret"),
        0o600,
        expect![[r#"
            …/users.txt:2: a user is "name" "password", each between double quotes (a quote inside is written twice)
        "#]],
    );
    check_files(
        &scram,
        None,
        0o600,
        expect![[r#"
            …/d.toml:2: auth.users: …/users.txt cannot be read: No such file or directory (os error 2)
        "#]],
    );
    check_files(
        "",
        None,
        0o600,
        expect![[r#"
            …/d.toml:1: auth.users is missing: add users = "users.txt", or [auth.query] (only method "trust" needs no users)
        "#]],
    );
    let with_password = format!("{MINIMAL}password = \"secret\"");
    check_files(
        &with_password,
        None,
        0o644,
        expect![[r#"
            warning: …/d.toml: everyone on this host can read the passwords in it (mode 0644): chmod o-r …/d.toml
        "#]],
    );
}

#[test]
fn rules_that_nobody_matches_and_keys_that_everybody_reads() {
    let rules = "host all a all trust\nhostssl all b all trust\nlocal all c trust\nhostnossl all d all trust\n";
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let check = |tls: &str, expected: Expect| {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("d.toml");
        let text = MINIMAL.replace("auth.method = \"trust\"", "auth.hba_file = \"hba.conf\"") + tls;
        let (certificate, key) = (made.cert.pem(), made.signing_key.serialize_pem());
        for (name, text) in [("d.toml", text.as_str()), ("hba.conf", rules), ("server.crt", &certificate), ("server.key", &key)] {
            fs::write(directory.path().join(name), text).unwrap();
            fs::set_permissions(directory.path().join(name), fs::Permissions::from_mode(0o644)).unwrap();
        }
        expected.assert_eq(&found(load(&path, &environment)).replace(directory.path().to_str().unwrap(), "…"));
    };
    check(
        "",
        expect![[r#"
        warning: …/hba.conf:2: hostssl matches nothing, because connections are not encrypted: set tls.mode, or remove the line
    "#]],
    );
    let tls = |mode: &str| format!("[tls]\nmode = \"{mode}\"\ncertificate = \"server.crt\"\nkey = \"server.key\"\n");
    check(
        &tls("allow"),
        expect![[r#"
        warning: …/server.key: everyone on this host can read the private key in it (mode 0644): chmod o-r …/server.key
    "#]],
    );
    check(
        &tls("require"),
        expect![[r#"
        warning: …/hba.conf:4: hostnossl matches nothing, because tls.mode = "require" refuses who does not encrypt: remove the line
        warning: …/server.key: everyone on this host can read the private key in it (mode 0644): chmod o-r …/server.key
    "#]],
    );
}

#[test]
fn users_of_the_console() {
    let scram = MINIMAL.replace("auth.method = \"trust\"", "auth.users = \"users.txt\"");
    check_files(
        &format!("{scram}[admin]\nusers = [\"alice\", \"alcie\"]\nstats_users = [\"bob\"]\n"),
        Some(b"\"alice\" \"secret\"\n\"bob\" \"secret\"\n"),
        0o600,
        expect![[r#"
            warning: …/d.toml:10: admin.users[1]: there is no such user in the users file, so nobody can log in as that
        "#]],
    );
    check_files(
        &format!("{MINIMAL}[admin]\nusers = [\"anybody\", 1, \"\"]\nstats_users = \"bob\"\n"),
        None,
        0o600,
        expect![[r#"
            …/d.toml:10: admin.users[1] must be a text between quotes that is not empty, not 1
            …/d.toml:10: admin.users[2] must be a text between quotes that is not empty, not ""
            …/d.toml:11: admin.stats_users must be a list of users, not "bob"
        "#]],
    );
}

#[test]
fn files_that_cannot_be_read() {
    let mistakes = load(Path::new("does/not/exist.toml"), &environment).unwrap_err();
    expect!["does/not/exist.toml: cannot be read: No such file or directory (os error 2)"].assert_eq(&mistakes.to_string());
    assert_eq!(mistakes.iter().count(), 1);
}

#[test]
fn the_files_of_the_project_are_right() {
    let mut names = Vec::new();
    for file in fs::read_dir(configs()).unwrap() {
        let path = file.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "toml") {
            let config = load(&path, &|_| Some("secret".to_owned())).unwrap_or_else(|mistakes| panic!("{mistakes}"));
            crate::policy::Policy::compile(&config.policy_source(), None).unwrap();
            names.push(path.file_name().unwrap().to_owned());
        }
    }
    names.sort();
    assert_eq!(names, ["demo.toml", "domicile.toml"]);

    let demo = load(&configs().join("demo.toml"), &|_| None).unwrap();
    assert_eq!(demo.auth.users.get("postgres"), Some(&Secret::Plain(Password::new("postgres".to_owned()))));
}

/// Every key that the code reads stands in `domicile.toml`, in its own section; optional ones behind a `#`.
#[test]
fn the_reference_has_every_option() {
    let text = "zzzzzzzz = 1\n[auth]\nmethod = \"trust\"\nzzzzzzzz = 1\n[auth.jwt]\nzzzzzzzz = 1\n[auth.query]\nzzzzzzzz = 1\n[residency]\nzzzzzzzz = 1\n[residency.guards]\nzzzzzzzz = 1\n[[residency.bind]]\nzzzzzzzz = 1\n\
                [regions.x]\nzzzzzzzz = 1\n[[nodes]]\nzzzzzzzz = 1\n[pools]\nzzzzzzzz = 1\n[limits]\nzzzzzzzz = 1\n[admin]\nzzzzzzzz = 1\n[engine]\nzzzzzzzz = 1\n\
                [http]\nzzzzzzzz = 1\n[log]\nzzzzzzzz = 1\n[audit]\nzzzzzzzz = 1\n[tls]\nzzzzzzzz = 1\n";
    let mistakes = read(text).unwrap_err().to_string();
    let known: BTreeSet<&str> = mistakes
        .lines()
        .filter_map(|line| line.split_once("the keys here are "))
        .flat_map(|(_, keys)| keys.split(", "))
        .collect();
    assert!(known.len() > 40, "{known:?}");

    let reference = fs::read_to_string(configs().join("domicile.toml")).unwrap();
    let written = |key: &str| {
        reference.lines().map(|line| line.trim_start_matches("# ")).any(|line| {
            line.strip_prefix(key).is_some_and(|rest| rest.starts_with(" = "))
                || line
                    .strip_prefix('[')
                    .is_some_and(|header| header.trim_start_matches('[').split([']', '.']).any(|name| name == key))
        })
    };
    let missing: Vec<_> = known.into_iter().filter(|key| !written(key)).collect();
    assert!(missing.is_empty(), "domicile.toml does not explain {missing:?}");
}

/// What `domicile.toml` shows as a default is one.
#[test]
fn the_reference_shows_the_defaults() {
    let reference = load(&configs().join("domicile.toml"), &|_| Some("secret".to_owned())).unwrap();
    let minimal = read(MINIMAL).unwrap();
    assert_eq!(reference.listen, minimal.listen);
    assert_eq!((reference.workers, reference.pool_mode), (minimal.workers, minimal.pool_mode));
    assert_eq!((&reference.pools, &reference.limits), (&minimal.pools, &minimal.limits));
    assert_eq!(reference.admin, minimal.admin);
    assert_eq!((&reference.engine, &reference.log), (&minimal.engine, &minimal.log));
    assert_eq!(reference.parameters, minimal.parameters);
    assert_eq!((reference.auth.method, reference.auth.backend_cleartext), (AuthMethod::ScramSha256, false));
    let (written, default) = (&reference.residency, &minimal.residency);
    assert_eq!(
        (&written.parameters, written.no_region, written.enforce),
        (&default.parameters, default.no_region, default.enforce)
    );
    assert_eq!((&written.block_message, written.block_sqlstate), (&default.block_message, default.block_sqlstate));
    assert_eq!((&written.unbound, written.guards), (&Unbound::Block, default.guards));
}
