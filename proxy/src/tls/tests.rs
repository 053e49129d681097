//! TLS sessions against each other: what passes, what is refused, and that nothing a peer sends brings one down.

use proptest::prelude::*;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};

use super::*;

/// An authority, and what it issues.
struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: Vec<u8>,
}

impl Authority {
    fn new() -> Self {
        let mut parameters = CertificateParams::default();
        parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        parameters.distinguished_name.push(DnType::CommonName, "authority");
        let key = KeyPair::generate().unwrap();
        let pem = parameters.self_signed(&key).unwrap().pem().into_bytes();
        Self { issuer: Issuer::new(parameters, key), pem }
    }

    fn issue(&self, common_name: &str, units: &[&str], names: &[&str]) -> Identity {
        let mut parameters = CertificateParams::new(names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>()).unwrap();
        parameters.distinguished_name = rcgen::DistinguishedName::new();
        parameters.distinguished_name.push(DnType::OrganizationName, "Domicile, Inc.");
        for unit in units {
            parameters.distinguished_name.push(DnType::OrganizationalUnitName, *unit);
        }
        parameters.distinguished_name.push(DnType::CommonName, common_name);
        let key = KeyPair::generate().unwrap();
        let certificate = parameters.signed_by(&key, &self.issuer).unwrap().pem().into_bytes();
        Identity { certificate, key: Zeroizing::new(key.serialize_pem().into_bytes()) }
    }
}

fn server(identity: &Identity) -> ServerContext {
    server_asking(identity, None, ClientCertificate::Optional, MinimumVersion::Tls12)
}

fn server_asking(
    identity: &Identity,
    authority: Option<&Authority>,
    client_certificate: ClientCertificate,
    minimum_version: MinimumVersion,
) -> ServerContext {
    let client_authorities = authority.map(|authority| authority.pem.clone());
    ServerContext::new(&ServerFiles { identity: identity.clone(), client_authorities, client_certificate, minimum_version })
        .unwrap()
}

fn client(verify: Verify, authority: Option<&Authority>, identity: Option<Identity>) -> ClientContext {
    let authorities = authority.map(|authority| authority.pem.clone());
    ClientContext::new(&ClientFiles { verify, authorities, identity, minimum_version: MinimumVersion::Tls12 }).unwrap()
}

/// Two ends of one connection; `step` bytes arrive at once.
struct Pair {
    server: Session,
    client: Session,
    step: usize,
}

impl Pair {
    /// Both ends after their handshake, or why one of them gave up.
    fn new(server: &ServerContext, client: &ClientContext, name: &str, step: usize) -> Result<Self, String> {
        let mut pair = Self { server: server.begin()?, client: client.begin(name)?, step };
        let (mut to_server, mut text) = (Vec::new(), Vec::new());
        pair.client.open(&mut [], &mut text, &mut to_server)?;
        for _ in 0..6 {
            let to_client = deliver(&mut pair.server, &to_server, step, &mut text)?;
            to_server = deliver(&mut pair.client, &to_client, step, &mut text)?;
        }
        assert!(text.is_empty());
        if pair.server.is_handshaking() || pair.client.is_handshaking() { Err("it does not end".to_owned()) } else { Ok(pair) }
    }

    /// What the server gets of a text that the client sends.
    fn send(&mut self, text: &[u8]) -> Vec<u8> {
        let (mut records, mut received) = (Vec::new(), Vec::new());
        self.client.seal(text, &mut records).unwrap();
        deliver(&mut self.server, &records, self.step, &mut received).unwrap();
        received
    }
}

/// Bytes arrive; what is answered.
fn deliver(session: &mut Session, bytes: &[u8], step: usize, text: &mut Vec<u8>) -> Result<Vec<u8>, String> {
    let mut reply = Vec::new();
    for part in bytes.chunks(step) {
        session.open(&mut part.to_vec(), text, &mut reply)?;
    }
    Ok(reply)
}

#[test]
fn text_passes_however_its_records_are_cut() {
    let authority = Authority::new();
    let (server, client) = (server(&authority.issue("db", &[], &["localhost"])), client(Verify::Name, Some(&authority), None));
    for step in [1, 7, 1000, 1 << 20] {
        let mut pair = Pair::new(&server, &client, "localhost", step).unwrap();
        for length in [1, 100, 16_384, 16_385, 100_000] {
            let text: Vec<u8> = (0..length).map(|at: u32| at.to_le_bytes()[0]).collect();
            assert!(pair.send(&text) == text, "{length} bytes in steps of {step}");
        }
        assert!(pair.client.shown().starts_with("TLSv1.3/TLS_"), "{}", pair.client.shown());
        assert_eq!(pair.server.alpn(), Some(ALPN));
    }
}

#[test]
fn a_server_is_believed_as_far_as_it_is_asked_for() {
    let (authority, another) = (Authority::new(), Authority::new());
    let identity = authority.issue("db", &[], &["db.example"]);
    let server = server(&identity);
    let meet = |client: &ClientContext, name: &str| Pair::new(&server, client, name, 4096).map(drop);
    assert_eq!(meet(&client(Verify::Nothing, None, None), "another.example"), Ok(()));
    assert_eq!(meet(&client(Verify::Authority, Some(&authority), None), "another.example"), Ok(()));
    assert_eq!(meet(&client(Verify::Name, Some(&authority), None), "db.example"), Ok(()));
    let wrong_name = meet(&client(Verify::Name, Some(&authority), None), "another.example").unwrap_err();
    assert!(wrong_name.contains("not valid for name"), "{wrong_name}");
    for verify in [Verify::Authority, Verify::Name] {
        let unknown = meet(&client(verify, Some(&another), None), "db.example").unwrap_err();
        assert!(unknown.contains("invalid peer certificate"), "{unknown}");
    }
}

#[test]
fn a_client_shows_a_certificate_of_the_authority_or_is_refused() {
    let (authority, another) = (Authority::new(), Authority::new());
    let identity = authority.issue("db", &[], &["localhost"]);
    let meet = |asked, own: Option<Identity>| {
        let server = server_asking(&identity, Some(&authority), asked, MinimumVersion::Tls12);
        Pair::new(&server, &client(Verify::Nothing, None, own), "localhost", 4096).map(|pair| pair.server.certificate())
    };
    let alice = || Some(authority.issue("alice", &["eu-west"], &["alice.example", "10.0.0.1"]));
    let facts = meet(ClientCertificate::VerifyCa, alice()).unwrap().unwrap();
    assert_eq!(facts.names.common_name.as_deref(), Some("alice"));
    assert_eq!(facts.names.distinguished_name, "CN=alice,OU=eu-west,O=Domicile\\, Inc.");
    assert_eq!(facts.names.alternative_names, ["alice.example", "10.0.0.1"]);
    assert_eq!(facts.organizational_units, ["eu-west"]);
    assert_eq!(meet(ClientCertificate::Optional, None), Ok(None));
    assert!(meet(ClientCertificate::VerifyCa, None).is_err());
    assert!(meet(ClientCertificate::Optional, Some(another.issue("alice", &[], &[]))).is_err());
}

#[test]
fn old_versions_are_spoken_only_if_allowed() {
    let authority = Authority::new();
    let identity = authority.issue("db", &[], &["localhost"]);
    let old = |minimum| {
        let server = server_asking(&identity, None, ClientCertificate::Optional, minimum);
        let mut config = rustls::ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&version::TLS12])
            .unwrap()
            .with_root_certificates(authorities(&authority.pem).unwrap())
            .with_no_client_auth();
        config.alpn_protocols = vec![ALPN.to_vec()];
        let name = "localhost".try_into().unwrap();
        let client = Session::client(rustls::client::UnbufferedClientConnection::new(Arc::new(config), name).unwrap());
        let mut pair = Pair { server: server.begin().unwrap(), client, step: 4096 };
        let (mut to_server, mut text) = (Vec::new(), Vec::new());
        pair.client.open(&mut [], &mut text, &mut to_server)?;
        for _ in 0..4 {
            let to_client = deliver(&mut pair.server, &to_server, 4096, &mut text)?;
            to_server = deliver(&mut pair.client, &to_client, 4096, &mut text)?;
        }
        assert_eq!(pair.send(b"text"), b"text");
        Ok::<_, String>(pair.server.shown())
    };
    assert!(old(MinimumVersion::Tls12).unwrap().starts_with("TLSv1.2/TLS_"));
    assert!(old(MinimumVersion::Tls13).is_err());
}

#[test]
fn the_two_ends_agree_on_what_a_login_is_bound_to() {
    let authority = Authority::new();
    let identity = authority.issue("db", &[], &["localhost"]);
    let server = server(&identity);
    let mut pair = Pair::new(&server, &client(Verify::Nothing, None, None), "localhost", 4096).unwrap();
    let seen = pair.client.server_end_point();
    assert_eq!(seen.as_deref().map(<[u8]>::len), Some(32));
    assert_eq!(seen.as_deref(), server.end_point());
    assert_eq!(pair.server.server_end_point(), None, "only a client sees one");
}

#[test]
fn the_end_is_told_once_and_nothing_is_sealed_behind_it() {
    let authority = Authority::new();
    let server = server(&authority.issue("db", &[], &["localhost"]));
    let mut pair = Pair::new(&server, &client(Verify::Nothing, None, None), "localhost", 4096).unwrap();
    let (mut records, mut text) = (Vec::new(), Vec::new());
    pair.client.seal(b"last", &mut records).unwrap();
    pair.client.seal_end(&mut records);
    let length = records.len();
    pair.client.seal_end(&mut records);
    assert_eq!(records.len(), length);
    assert!(pair.client.seal(b"more", &mut records).is_err());
    assert_eq!(pair.server.open(&mut records, &mut text, &mut Vec::new()), Ok(Some(Closed)));
    assert_eq!(text, b"last");
}

#[test]
fn what_is_not_tls_is_answered_by_an_alert_and_ends_the_session() {
    let authority = Authority::new();
    let server = server(&authority.issue("db", &[], &["localhost"]));
    let mut session = server.begin().unwrap();
    let mut reply = Vec::new();
    assert!(session.open(&mut b"\0\0\0\x08\x04\xd2\x16\x2f".to_vec(), &mut Vec::new(), &mut reply).is_err());
    assert!(reply.is_empty() || reply[0] == 21, "an alert: {reply:?}");
    assert!(session.open(&mut [], &mut Vec::new(), &mut Vec::new()).is_err());
    assert!(session.seal(b"text", &mut Vec::new()).is_err());
}

#[test]
fn unusable_files_are_named() {
    let authority = Authority::new();
    let (one, other) = (authority.issue("db", &[], &["localhost"]), authority.issue("db", &[], &["localhost"]));
    let made = |certificate: &[u8], key: &[u8], authorities: Option<&[u8]>| {
        let identity = Identity { certificate: certificate.to_vec(), key: Zeroizing::new(key.to_vec()) };
        let client_authorities = authorities.map(<[u8]>::to_vec);
        let files = ServerFiles {
            identity,
            client_authorities,
            client_certificate: ClientCertificate::Optional,
            minimum_version: MinimumVersion::Tls12,
        };
        ServerContext::new(&files).map(drop).map_err(|unusable| unusable.file)
    };
    assert_eq!(made(&one.certificate, &one.key, None), Ok(()));
    assert_eq!(made(&one.certificate, &other.key, None), Err(File::Key));
    assert_eq!(made(b"", &one.key, None), Err(File::Certificate));
    assert_eq!(made(&one.certificate, &one.certificate, None), Err(File::Key));
    assert_eq!(made(&one.certificate, &one.key, Some(b"nothing")), Err(File::Authorities));
}

#[test]
fn contexts_of_the_same_files_are_the_same() {
    let (authority, another) = (Authority::new(), Authority::new());
    let of = |authority| client(Verify::Name, Some(authority), None);
    assert_eq!(of(&authority), of(&authority));
    assert_ne!(of(&authority), of(&another));
    assert_ne!(of(&authority), client(Verify::Authority, Some(&authority), None));
}

/// A record of the handshake that holds only a part of a message, as any peer may send it.
#[test]
fn to_seal_between_the_parts_of_a_message_of_the_handshake_is_no_accident() {
    let authority = Authority::new();
    let (server, client) = (server(&authority.issue("db", &[], &["localhost"])), client(Verify::Nothing, None, None));
    let (mut hello, mut reply, mut text) = (Vec::new(), Vec::new(), Vec::new());
    client.begin("localhost").unwrap().open(&mut [], &mut text, &mut hello).unwrap();
    // The same ClientHello in two records.
    let (header, message) = hello.split_at(5);
    let (first, second) = message.split_at(message.len() / 2);
    let record = |part: &[u8]| [&header[..3], &u16::try_from(part.len()).unwrap().to_be_bytes(), part].concat();
    let mut session = server.begin().unwrap();
    assert_eq!(session.open(&mut record(first), &mut text, &mut reply), Ok(None));
    assert!(session.seal(b"text", &mut Vec::new()).is_err());
    assert_eq!(session.open(&mut record(second), &mut text, &mut reply), Ok(None));
    assert_eq!(reply.first(), Some(&22), "it goes on with the handshake");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]
    #[test]
    fn noise_in_a_session_ends_it_and_nothing_else(
        noise in prop::collection::vec(any::<u8>(), 1..200), at in 0..300usize, in_handshake: bool,
    ) {
        let authority = Authority::new();
        let server = server(&authority.issue("db", &[], &["localhost"]));
        let client = client(Verify::Nothing, None, None);
        let mut records = Vec::new();
        let mut session = if in_handshake {
            client.begin("localhost").unwrap().open(&mut [], &mut Vec::new(), &mut records).unwrap();
            server.begin().unwrap()
        } else {
            let mut pair = Pair::new(&server, &client, "localhost", 4096).unwrap();
            pair.client.seal(b"a text of some length, as long as a statement of everyday use", &mut records).unwrap();
            pair.server
        };
        for (index, byte) in noise.iter().enumerate() {
            if let Some(place) = records.get_mut(at + index) {
                *place ^= byte;
            }
        }
        let (mut text, mut reply) = (Vec::new(), Vec::new());
        let mut failed = false;
        for _ in 0..3 {
            failed |= session.open(&mut records.clone(), &mut text, &mut reply).is_err();
        }
        prop_assert!(failed || !in_handshake || session.is_handshaking());
    }
}
