//! What a login has proved besides its user, as bind rules see it: the names of its certificate, and what its token claims.
//!
//! Here nothing is checked; that has been done where the client logged in.

use std::collections::BTreeMap;

use super::CertificateNames;

/// What a login has proved besides its user.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Proven {
    /// The names of its certificate.
    pub certificate: Option<CertificateNames>,
    /// What its token claims.
    pub claims: Option<Claims>,
}

/// The claims of a token that was checked.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Claims {
    /// The regions that it grants, the first being where a session starts; `None` if tokens say nothing about regions.
    pub regions: Option<Vec<String>>,
    /// Its claims that are texts or lists of texts, by name.
    pub texts: BTreeMap<String, Vec<String>>,
}

/// What a bind rule asks a login to have proved.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Proof {
    /// A certificate that has this name, as its common name or as one of the alternatives.
    Certificate(String),
    /// A token with this claim: the text, or a list that has it.
    Claim {
        /// The claim.
        name: String,
        /// Its value.
        value: String,
    },
    /// A token that grants regions.
    ClaimedRegions,
}

impl Proven {
    /// Nothing at all.
    pub const NOTHING: &'static Self = &Self { certificate: None, claims: None };

    /// Whether it has proved this.
    pub(super) fn has(&self, proof: &Proof) -> bool {
        self.proofs().any(|known| known == *proof)
    }

    /// All that a rule could ask.
    pub(super) fn proofs(&self) -> impl Iterator<Item = Proof> + '_ {
        let names = self.certificate.iter().flat_map(|names| names.common_name.iter().chain(&names.alternative_names));
        let claims = self.claims.iter().flat_map(|claims| &claims.texts);
        let claims = claims
            .flat_map(|(name, values)| values.iter().map(|value| Proof::Claim { name: name.clone(), value: value.clone() }));
        let regions = self.claims.as_ref().and_then(|claims| claims.regions.as_ref()).map(|_| Proof::ClaimedRegions);
        names.cloned().map(Proof::Certificate).chain(claims).chain(regions)
    }

    /// The regions that its token grants, if tokens do.
    pub(super) fn claimed_regions(&self) -> Option<&[String]> {
        self.claims.as_ref()?.regions.as_deref()
    }
}
