//! Short queries where the client's connection is encrypted, the server's, or both; the same certificate for everybody.

use std::net::SocketAddr;

use domicile_tests::tls::{Authority, Files};

use crate::answers::Work;
use crate::cell::Cell;
use crate::outcome::Protocol;
use crate::stage::{Asked, Stage};
use crate::subjects::{Login, Programs, Subject};
use crate::workloads::queries::of_query;

/// Where there is TLS.
#[derive(Clone, Copy)]
pub struct Sides {
    /// Between the client and who is measured.
    pub client: bool,
    /// Between that one and the server.
    pub server: bool,
}

/// A certificate for everybody who is measured, and for the server: ECDSA on P-256.
pub struct Certificates {
    authority: Authority,
    files: Files,
}

impl Certificates {
    /// Makes one.
    pub fn issue() -> Self {
        let authority = Authority::new();
        let files = authority.issue("bench", &[], &["localhost"]);
        Self { authority, files }
    }

    /// Its files.
    pub fn files(&self) -> &Files {
        &self.files
    }

    /// Who speaks TLS: Domicile, and each PgBouncer.
    ///
    /// # Errors
    /// One of them does not start.
    pub fn poolers(&self, stage: &mut Stage<'_>, server: SocketAddr, sides: Sides) -> Result<Vec<Subject>, String> {
        let (certificate, key) = (self.files.certificate.display(), self.files.key.display());
        let mut all = vec![stage.domicile_with(server, |configuration| {
            // The first line goes on with the node.
            let node = if sides.server { "tls = \"require\"\n" } else { "" };
            let listener = format!("[tls]\nmode = \"require\"\ncertificate = \"{certificate}\"\nkey = \"{key}\"\n");
            configuration.more = node.to_owned() + if sides.client { &listener } else { "" };
        })?];
        let word = |is_there: bool| if is_there { "require" } else { "disable" };
        let more = format!(
            "client_tls_sslmode = {}\nclient_tls_cert_file = {certificate}\nclient_tls_key_file = {key}\nserver_tls_sslmode = {}\n",
            word(sides.client),
            word(sides.server)
        );
        all.extend(stage.pgbouncers(server, Login::Trust, &more)?);
        Ok(all.into_iter().map(|subject| self.asked(subject, sides)).collect())
    }

    /// Has its clients encrypt, if that is to be.
    pub fn asked(&self, subject: Subject, sides: Sides) -> Subject {
        if sides.client { subject.encrypted(&self.authority.certificate()) } else { subject }
    }
}

/// TLS to the client.
///
/// # Errors
/// A subject does not start.
pub fn client(stage: &mut Stage<'_>) -> Result<(), String> {
    run(stage, "tls/client", Sides { client: true, server: false })
}

/// TLS to the server.
///
/// # Errors
/// A subject does not start.
pub fn server(stage: &mut Stage<'_>) -> Result<(), String> {
    run(stage, "tls/server", Sides { client: false, server: true })
}

/// TLS on both sides.
///
/// # Errors
/// A subject does not start.
pub fn both(stage: &mut Stage<'_>) -> Result<(), String> {
    run(stage, "tls/both", Sides { client: true, server: true })
}

fn run(stage: &mut Stage<'_>, workload: &str, sides: Sides) -> Result<(), String> {
    let certificates = Certificates::issue();
    let stub = stage.programs.stub(Some(certificates.files()))?;
    let mut all = certificates.poolers(stage, stub.address, sides)?;
    // These two leave it to the server to encrypt, or not.
    let without = [stage.programs.floor(stub.address)?, Programs::direct(stub.address)];
    all.extend(without.map(|subject| certificates.asked(subject, sides)));
    let subjects: Vec<&Subject> = all.iter().collect();
    let window = stage.depth.window();
    let cells: &[(Protocol, usize)] = stage.depth.choose(
        &[(Protocol::Simple, 16)],
        &[(Protocol::Simple, 16), (Protocol::Prepared, 16)],
        &[(Protocol::Simple, 16), (Protocol::Extended, 16), (Protocol::Prepared, 16), (Protocol::Simple, 64)],
    );
    for &(protocol, clients) in cells {
        let cell = Cell { workload, protocol: Some(protocol.name()), clients };
        let asked = Asked { work: Work::Row100, protocol, clients, rate: None, window };
        stage.measure(&cell, &subjects, stage.depth.rounds(), |programs, subject| {
            Ok(of_query(&programs.load(subject, &asked)?, subject))
        });
    }
    Ok(())
}
