//! The names in a certificate that a client has proved to have. Who may issue one is decided where TLS is spoken.

/// The names of a verified certificate.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct CertificateNames {
    /// The last common name (CN) of the subject.
    pub common_name: Option<String>,
    /// The whole subject in the form of RFC 2253, as PostgreSQL's `clientname=DN` compares it.
    pub distinguished_name: String,
    /// The subject alternative names that are texts: DNS names, mail addresses, URIs; IP addresses as they are usually written.
    pub alternative_names: Vec<String>,
}
