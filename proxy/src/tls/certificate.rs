//! What a certificate says: the names in it, and the hash that channel binding is made of. Whether it is to be believed has been
//! checked before.

use rustls::pki_types::CertificateDer;
use sha2::{Digest as _, Sha256, Sha384, Sha512};
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::oid_registry::{
    OID_PKCS1_MD5WITHRSAENC, OID_PKCS1_SHA1WITHRSA, OID_PKCS1_SHA256WITHRSA, OID_PKCS1_SHA384WITHRSA, OID_PKCS1_SHA512WITHRSA,
    OID_SIG_ECDSA_WITH_SHA256, OID_SIG_ECDSA_WITH_SHA384, OID_SIG_ECDSA_WITH_SHA512,
};
use x509_parser::prelude::FromDer as _;

use crate::policy::CertificateNames;

/// What a certificate says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CertificateFacts {
    /// Whom it names.
    pub names: CertificateNames,
    /// The organizational units (OU) of its subject.
    pub organizational_units: Vec<String>,
}

impl CertificateFacts {
    /// Reads a certificate in DER. `None`: it is not one.
    pub(super) fn read(certificate: &CertificateDer<'_>) -> Option<Self> {
        let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
        let subject = parsed.subject();
        let text = |attribute: &x509_parser::x509::AttributeTypeAndValue<'_>| attribute.as_str().ok().map(str::to_owned);
        let alternative = parsed.subject_alternative_name().ok().flatten();
        let names = alternative.iter().flat_map(|extension| &extension.value.general_names);
        Some(Self {
            names: CertificateNames {
                common_name: subject.iter_common_name().filter_map(text).last(),
                distinguished_name: distinguished_name(&parsed),
                alternative_names: names.filter_map(shown).collect(),
            },
            organizational_units: subject.iter_organizational_unit().filter_map(text).collect(),
        })
    }
}

/// The subject in the form of RFC 2253: the most specific part first.
fn distinguished_name(certificate: &X509Certificate<'_>) -> String {
    let registry = x509_parser::oid_registry::OidRegistry::default().with_x509();
    let mut parts: Vec<String> = Vec::new();
    for set in certificate.subject().iter_rdn() {
        let attributes: Vec<String> = set
            .iter()
            .map(|attribute| {
                let oid = attribute.attr_type();
                let name = registry.get(oid).map_or_else(|| oid.to_id_string(), |entry| short_name(entry.sn()).to_owned());
                format!("{name}={}", escaped(attribute.as_str().unwrap_or_default()))
            })
            .collect();
        parts.push(attributes.join("+"));
    }
    parts.reverse();
    parts.join(",")
}

/// The name that RFC 2253, section 2.3, gives an attribute, and that OpenSSL prints.
fn short_name(name: &str) -> &str {
    match name {
        "commonName" => "CN",
        "localityName" => "L",
        "stateOrProvinceName" => "ST",
        "organizationName" => "O",
        "organizationalUnit" | "organizationalUnitName" => "OU",
        "countryName" => "C",
        "streetAddress" => "street",
        "domainComponent" => "DC",
        "userId" => "UID",
        other => other,
    }
}

/// A value with what RFC 2253, section 2.4, escapes.
fn escaped(value: &str) -> String {
    let last = value.chars().count().saturating_sub(1);
    let mut text = String::with_capacity(value.len());
    for (at, character) in value.chars().enumerate() {
        let special = matches!(character, ',' | '+' | '"' | '\\' | '<' | '>' | ';');
        if special || (character == '#' && at == 0) || (character == ' ' && (at == 0 || at == last)) {
            text.push('\\');
        }
        text.push(character);
    }
    text
}

fn shown(name: &GeneralName<'_>) -> Option<String> {
    match name {
        GeneralName::DNSName(name) | GeneralName::RFC822Name(name) | GeneralName::URI(name) => Some((*name).to_owned()),
        GeneralName::IPAddress(bytes) => match *bytes {
            [a, b, c, d] => Some(std::net::Ipv4Addr::new(*a, *b, *c, *d).to_string()),
            bytes => <[u8; 16]>::try_from(bytes).ok().map(|bytes| std::net::Ipv6Addr::from(bytes).to_string()),
        },
        _ => None,
    }
}

/// `tls-server-end-point` (RFC 5929, section 4.1): the certificate's hash by its signature's hash function, MD5 and SHA-1 replaced by
/// SHA-256. `None` where the signature does not name one, as with Ed25519 and RSASSA-PSS: then channel binding is not to be had.
pub(super) fn end_point(certificate: &CertificateDer<'_>) -> Option<Box<[u8]>> {
    let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
    let algorithm = &parsed.signature_algorithm.algorithm;
    let is_one_of = |known: &[x509_parser::oid_registry::Oid<'_>]| known.contains(algorithm);
    // 1.2.840.10045.4.1 is ecdsa-with-SHA1, which the registry does not have.
    let is_old_ecdsa = algorithm.to_id_string() == "1.2.840.10045.4.1";
    let sha256 = [OID_PKCS1_MD5WITHRSAENC, OID_PKCS1_SHA1WITHRSA, OID_PKCS1_SHA256WITHRSA, OID_SIG_ECDSA_WITH_SHA256];
    if is_old_ecdsa || is_one_of(&sha256) {
        Some(Sha256::digest(certificate).as_slice().into())
    } else if is_one_of(&[OID_PKCS1_SHA384WITHRSA, OID_SIG_ECDSA_WITH_SHA384]) {
        Some(Sha384::digest(certificate).as_slice().into())
    } else if is_one_of(&[OID_PKCS1_SHA512WITHRSA, OID_SIG_ECDSA_WITH_SHA512]) {
        Some(Sha512::digest(certificate).as_slice().into())
    } else {
        None
    }
}
