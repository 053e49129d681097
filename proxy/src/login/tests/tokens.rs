//! Logins with tokens: whose are good, what they grant, and that nothing of them is told.

use jsonwebtoken::{Algorithm, EncodingKey, Header, encode, get_current_timestamp};
use serde_json::{Value, json};

use super::super::conversation::Step;
use super::super::oauth;
use super::super::token::check;
use super::client::{Conversation, startup};
use super::*;
use crate::policy::{Claims, Requirement};
use crate::wire::frontend::{password, sasl_initial, sasl_response};

const ES256: &str = include_str!("../../../../tests/keys/es256.pem");
const ES256_PUBLIC: &str = include_str!("../../../../tests/keys/es256.pub.pem");
const RS256: &str = include_str!("../../../../tests/keys/rs256.pem");
const RS256_PUBLIC: &str = include_str!("../../../../tests/keys/rs256.pub.pem");
const OTHER: &str = include_str!("../../../../tests/keys/other.pem");

/// Tokens of alice are signed by either key; regions are their claim `regions`.
fn rules(method: &str) -> Rules {
    let keys = format!("One key:\n{ES256_PUBLIC}\nand another:\n{RS256_PUBLIC}");
    let jwt = "[auth.jwt]\nkeys = \"jwt.pem\"\naudience = \"domicile\"\nissuer = \"https://login.example.org\"\n\
               regions_claim = \"regions\"\n";
    let binds = "[[residency.bind]]\nuser = \"limited\"\nregions = [\"us-east\"]\n\
                 [[residency.bind]]\nclaims = { tenant = \"acme\" }\nregions = [\"us-east\", \"eu-west\"]\n\
                 [[residency.bind]]\ncertificate = \"ops.example.org\"\nregions = [\"us-east\", \"eu-west\"]\n\
                 [[residency.bind]]\nregions = \"claim\"\n";
    rules_of(&format!("method = \"{method}\""), &format!("{jwt}{binds}"), &[("jwt.pem", &keys)])
}

fn now() -> i64 {
    i64::try_from(get_current_timestamp()).unwrap()
}

/// Good claims of alice, with these in their place; `null` takes one away.
fn claims(changed: &Value) -> Value {
    let mut claims = json!({
        "sub": "alice", "aud": "domicile", "iss": "https://login.example.org", "exp": now() + 60, "regions": ["eu-west"],
    });
    for (name, value) in changed.as_object().unwrap() {
        match value {
            Value::Null => drop(claims.as_object_mut().unwrap().remove(name)),
            value => claims[name] = value.clone(),
        }
    }
    claims
}

fn signed(changed: &Value) -> String {
    encode(&Header::new(Algorithm::ES256), &claims(changed), &EncodingKey::from_ec_pem(ES256.as_bytes()).unwrap()).unwrap()
}

fn judged(token: &str) -> Result<Claims, &'static str> {
    check(rules("jwt").config.auth.jwt.as_deref().unwrap(), token.as_bytes(), |name| name == "alice")
}

#[test]
fn a_token_must_be_good_in_every_respect() {
    let good = judged(&signed(&json!({ "tenant": "acme", "groups": ["a", "b"], "admin": true, "mixed": ["a", 1] }))).unwrap();
    assert_eq!(good.regions.unwrap(), ["eu-west"]);
    assert_eq!(
        (&good.texts["tenant"][..], &good.texts["groups"][..]),
        (&["acme".to_owned()][..], &["a".to_owned(), "b".to_owned()][..])
    );
    assert!(!good.texts.contains_key("admin") && !good.texts.contains_key("mixed"));
    assert!(judged(&signed(&json!({ "aud": ["other", "domicile"], "exp": now() - 10, "regions": "us-east" }))).is_ok());
    for (changed, why) in [
        (json!({ "exp": now() - 60 }), "the token has expired"),
        (json!({ "exp": null }), "the token lacks exp, aud or iss"),
        (json!({ "exp": "soon" }), "the token lacks exp, aud or iss"),
        (json!({ "nbf": now() + 60 }), "the token is not good yet"),
        (json!({ "aud": "another" }), "the token is for somebody else (aud)"),
        (json!({ "aud": null }), "the token lacks exp, aud or iss"),
        (json!({ "iss": "https://evil.example.org" }), "the token is from somebody else (iss)"),
        (json!({ "iss": null }), "the token lacks exp, aud or iss"),
        (json!({ "sub": "bob" }), "the token is of another user"),
        (json!({ "sub": null }), "the token is of another user"),
        (json!({ "sub": ["alice", "bob"] }), "the token is malformed"),
        (json!({ "regions": null }), "the token does not say regions"),
        (json!({ "regions": 5 }), "the token does not say regions"),
        (json!({ "regions": ["eu-west", 5] }), "the token does not say regions"),
    ] {
        assert_eq!(judged(&signed(&changed)), Err(why), "{changed}");
    }
}

#[test]
fn only_the_keys_sign() {
    let nothing = json!({});
    let by = |algorithm, key: &EncodingKey| encode(&Header::new(algorithm), &claims(&nothing), key).unwrap();
    assert!(judged(&by(Algorithm::RS256, &EncodingKey::from_rsa_pem(RS256.as_bytes()).unwrap())).is_ok());
    let other = by(Algorithm::ES256, &EncodingKey::from_ec_pem(OTHER.as_bytes()).unwrap());
    assert_eq!(judged(&other), Err("the token is not signed by any of the keys"));
    // A public key is no secret, so it must not be taken for one.
    for key in [ES256_PUBLIC, RS256_PUBLIC] {
        let forged = by(Algorithm::HS256, &EncodingKey::from_secret(key.as_bytes()).unwrap());
        assert_eq!(judged(&forged), Err("the token is signed by no algorithm that a key is for"));
    }
    let rs512 = by(Algorithm::RS512, &EncodingKey::from_rsa_pem(RS256.as_bytes()).unwrap());
    assert_eq!(judged(&rs512), Err("the token is signed by no algorithm that a key is for"));
    let token = signed(&nothing);
    let (message, _) = token.rsplit_once('.').unwrap();
    for forged in [format!("{message}."), message.to_owned(), format!("{token}."), "..".to_owned(), String::new(), "é".to_owned()]
    {
        assert!(judged(&forged).is_err(), "{forged}");
    }
    // {"alg":"none"}
    let unsigned = format!("eyJhbGciOiJub25lIn0.{}.", message.split_once('.').unwrap().1);
    assert!(judged(&unsigned).is_err());
}

/// How a login with a token ends, in words: its regions, its start and its rule.
fn log_in(rules: &Rules, user: &str, token: &str, region: Option<&str>) -> String {
    let mut conversation = Conversation::new(rules);
    let mut parameters = vec![("user", user), ("database", "shop")];
    parameters.extend(region.map(|region| ("helios.region", region)));
    conversation.say(&startup(0, &parameters));
    conversation.say(&password(token.as_bytes()));
    granted(rules, &conversation)
}

fn granted(rules: &Rules, conversation: &Conversation<'_>) -> String {
    match conversation.end() {
        Some(Step::Admit(admitted)) => {
            let crate::session::Identity { user, database, address, proven, .. } = &admitted.login.identity;
            let subject = crate::policy::Subject { user, database, address: *address, proven };
            let grant = rules.policy.grant(&subject).unwrap();
            let regions: Vec<_> =
                rules.policy.granted(&grant).iter().map(|region| rules.policy.name(region).to_owned()).collect();
            let start = grant.start();
            let permit = rules.policy.decide(&grant, &start, crate::sql::GuardSet::NONE).unwrap();
            assert_eq!(permit.requirement(), Requirement::InRegion);
            format!("{} from {} by {}", regions.join(" "), rules.policy.region_name(&start), rules.policy.rule_name(grant.rule()))
        }
        Some(Step::Refuse(refused)) => {
            let rule = refused.audit.as_ref().map(|audit| format!(" by {}", audit.rule)).unwrap_or_default();
            format!("{} {}{rule}", refused.refusal.sqlstate, refused.refusal.message)
        }
        end => panic!("{end:?}"),
    }
}

#[test]
fn a_token_grants_its_regions_and_no_more_than_a_rule_permits() {
    let rules = rules("jwt");
    let token = |user: &str, regions: Value| signed(&json!({ "sub": user, "regions": regions }));
    let log_in = |user: &str, regions: Value, asked| log_in(&rules, user, &token(user, regions), asked);
    assert_eq!(log_in("alice", json!(["eu-west"]), None), "eu-west from eu-west by residency.bind[3]");
    assert_eq!(log_in("alice", json!(["us-east", "eu-west"]), None), "eu-west us-east from us-east by residency.bind[3]");
    assert_eq!(log_in("alice", json!(["mars", "eu-west", "venus"]), None), "eu-west from eu-west by residency.bind[3]");
    assert_eq!(log_in("limited", json!(["eu-west", "us-east"]), None), "us-east from us-east by residency.bind[0]");
    let nothing = |user: &str, rule| {
        format!("28000 no residency rule admits user \"{user}\" to database \"shop\" by residency.bind[{rule}]")
    };
    assert_eq!(log_in("limited", json!(["eu-west"]), None), nothing("limited", 0));
    assert_eq!(log_in("alice", json!([]), None), nothing("alice", 3));
    assert_eq!(log_in("alice", json!(["mars"]), None), nothing("alice", 3));
    let outside = "42501 permission denied for region \"us-east\" by residency.bind[3]";
    assert_eq!(log_in("alice", json!(["eu-west"]), Some("us-east")), outside);
    assert_eq!(log_in("alice", json!(["mars"]), Some("mars")), nothing("alice", 3));
}

#[test]
fn rules_ask_for_claims_and_certificates() {
    let rules = rules("jwt");
    let token = |tenant: Value| signed(&json!({ "tenant": tenant, "regions": ["eu-west", "us-east"] }));
    assert_eq!(log_in(&rules, "alice", &token(json!("acme")), None), "eu-west us-east from us-east by residency.bind[1]");
    assert_eq!(log_in(&rules, "alice", &token(json!(["x", "acme"])), None), "eu-west us-east from us-east by residency.bind[1]");
    for tenant in [json!("other"), json!(null), json!(5), json!(["acme", 5])] {
        assert_eq!(log_in(&rules, "alice", &token(tenant), None), "eu-west us-east from eu-west by residency.bind[3]");
    }
    // Certificates need no token.
    let named = |common: &str, alternative: &str| CertificateNames {
        common_name: Some(common.to_owned()),
        distinguished_name: format!("CN={common}"),
        alternative_names: vec![alternative.to_owned()],
    };
    let rule = |certificate: Option<CertificateNames>| {
        let proven = crate::policy::Proven { certificate, claims: None };
        let subject = crate::policy::Subject { user: "zoe", database: "shop", address: None, proven: &proven };
        rules.policy.rule_name(rules.policy.grant(&subject).unwrap().rule()).to_owned()
    };
    assert_eq!(rule(Some(named("ops.example.org", "x"))), "residency.bind[2]");
    assert_eq!(rule(Some(named("zoe", "ops.example.org"))), "residency.bind[2]");
    assert_eq!(rule(Some(named("zoe", "evil.ops.example.org"))), "residency.unbound");
    assert_eq!(rule(None), "residency.unbound");
}

#[test]
fn a_map_says_who_the_user_of_a_token_may_be() {
    let hba = "host mapped all all jwt map=staff\nhost bearer all all oauth map=staff\nhost all all all jwt\n";
    let ident = "staff /^(.+)@example\\.org$ \\1\nstaff root@example.org bob\n";
    let auth = "hba_file = \"hba.conf\"\nident_file = \"ident.conf\"";
    let jwt = "[auth.jwt]\nkeys = \"jwt.pem\"\naudience = \"domicile\"\n[[residency.bind]]\nregions = [\"eu-west\"]\n";
    let rules = rules_of(auth, jwt, &[("hba.conf", hba), ("ident.conf", ident), ("jwt.pem", ES256_PUBLIC)]);
    let admitted = |name: &str, user: &str, database: &str| {
        let mut conversation = Conversation::new(&rules);
        conversation.say(&startup(0, &[("user", user), ("database", database)]));
        let token = signed(&json!({ "sub": name }));
        if database == "bearer" {
            conversation.say(&sasl_initial(oauth::MECHANISM, &bearer(&token)));
        } else {
            conversation.say(&password(token.as_bytes()));
        }
        // Whoever is refused by OAUTHBEARER has to answer to that first.
        matches!(conversation.end(), Some(Step::Admit(_)))
    };
    for database in ["mapped", "bearer"] {
        assert!(admitted("alice@example.org", "alice", database) && admitted("root@example.org", "bob", database));
        for (name, user) in
            [("alice", "alice"), ("alice@example.org", "bob"), ("alice@example.org", "alice@example.org"), ("bob", "root")]
        {
            assert!(!admitted(name, user, database), "{name} {user} {database}");
        }
    }
    assert!(admitted("alice", "alice", "shop") && !admitted("alice@example.org", "alice", "shop"));
}

#[test]
fn nothing_of_a_token_is_told() {
    let rules = rules("jwt");
    let token = signed(&json!({ "exp": now() - 600 }));
    let mut conversation = Conversation::new(&rules);
    conversation.say(&startup(0, &[("user", "alice")]));
    conversation.say(&password(token.as_bytes()));
    let end = format!("{:?} {}", conversation.end(), conversation.transcript());
    assert!(end.contains("password authentication failed for user \"alice\"") && end.contains("the token has expired"), "{end}");
    assert!(token.split('.').all(|part| !end.contains(part)), "{end}");
}

fn bearer(token: &str) -> Vec<u8> {
    format!("n,,\x01auth=Bearer {token}\x01\x01").into_bytes()
}

#[test]
fn oauthbearer_is_spoken() {
    let rules = rules("oauth");
    let begin = || {
        let mut conversation = Conversation::new(&rules);
        let asked = conversation.say(&startup(0, &[("user", "alice"), ("database", "shop")]));
        assert_eq!(asked, b"R\0\0\0\x15\0\0\0\x0aOAUTHBEARER\0\0");
        conversation
    };
    let good = signed(&json!({}));
    let mut conversation = begin();
    conversation.say(&sasl_initial(oauth::MECHANISM, &bearer(&good)));
    assert_eq!(granted(&rules, &conversation), "eu-west from eu-west by residency.bind[3]");
    // The mechanism first, the message behind an empty challenge.
    let mut conversation = begin();
    conversation.say(b"p\0\0\0\x14OAUTHBEARER\0\xff\xff\xff\xff");
    conversation.say(&sasl_response(&bearer(&good)));
    assert_eq!(granted(&rules, &conversation), "eu-west from eu-west by residency.bind[3]");
    // A token that is not good, and none: the error is told, acknowledged, and then the login is over.
    for message in [bearer(&signed(&json!({ "exp": now() - 600 }))), b"n,,\x01auth=\x01\x01".to_vec()] {
        let mut conversation = begin();
        let told = conversation.say(&sasl_initial(oauth::MECHANISM, &message));
        let error = "{\"openid-configuration\":\"https://login.example.org/.well-known/openid-configuration\",\"status\":\"invalid_token\"}";
        assert_eq!(String::from_utf8_lossy(&told[9..]), error);
        conversation.say(&sasl_response(b"\x01"));
        assert_eq!(granted(&rules, &conversation), "28000 OAuth bearer authentication failed for user \"alice\"");
    }
    let mut conversation = begin();
    conversation.say(&sasl_initial(oauth::MECHANISM, &bearer("x.y.z")));
    conversation.say(&sasl_response(&bearer(&good)));
    assert_eq!(granted(&rules, &conversation), "08P01 malformed OAUTHBEARER message");
    for wrong in [
        &b""[..],
        b"n",
        b"n,,",
        b"n,,\x01",
        b"n,,\x01\x01",
        b"n,,\x01auth=Bearer x\x01",
        b"n,,\x01auth=Bearer x",
        b"n,,\x01auth=Basic x\x01\x01",
        b"n,,\x01auth=Bearer \x01\x01",
        b"n,,\x01auth=Bearer a b\x01\x01",
        b"n,,\x01auth=Bearer x\x01auth=Bearer x\x01\x01",
        b"n,,\x01=x\x01auth=Bearer x\x01\x01",
        b"n,,\x01auth\x01\x01",
        b"n,,\x01host=x\x01\x01",
        b"n,,\x01auth=Bearer x\x01\x01\x01",
        b"p=tls-exporter,,\x01auth=Bearer x\x01\x01",
        b"x,,\x01auth=Bearer x\x01\x01",
    ] {
        let mut conversation = begin();
        conversation.say(&sasl_initial(oauth::MECHANISM, wrong));
        let end = granted(&rules, &conversation);
        assert_eq!(end, "08P01 malformed OAUTHBEARER message", "{}", wrong.escape_ascii());
    }
}

proptest::proptest! {
    #[test]
    fn garbage_is_refused(noise in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..100)) {
        drop(oauth::token(&noise));
        let _refused = judged(&String::from_utf8_lossy(&noise)).unwrap_err();
    }
}
