//! The secret half of a cancellation key: BackendKeyData gives it, CancelRequest shows it again.
//!
//! Whoever knows it can cancel, so it is never printed, and comparing it tells nothing by the time it takes.

use std::fmt;

use smallvec::SmallVec;
use subtle::ConstantTimeEq as _;

/// Bytes of a secret before protocol 3.2.
const SHORT_BYTES: usize = 4;
/// The first minor version of the protocol whose keys may be longer.
const LONG_SINCE_MINOR: u16 = 2;

/// A secret, up to 256 bytes (protocol 3.2).
#[derive(Clone, Default, PartialEq, Eq)]
pub struct CancelSecret(SmallVec<[u8; 32]>);

impl CancelSecret {
    /// Bytes of the secrets that the proxy gives to clients that take long ones.
    pub const DRAWN_BYTES: usize = 32;

    /// What a client of protocol 3.`minor` gets of `drawn`, which is random: before 3.2 a key has four bytes.
    pub fn of_client(drawn: &[u8; Self::DRAWN_BYTES], minor: u16) -> Self {
        let bytes = if minor >= LONG_SINCE_MINOR { &drawn[..] } else { &drawn[..SHORT_BYTES] };
        Self(bytes.into())
    }

    /// Whether `shown` is this secret. The time it takes does not depend on where they differ.
    pub fn is_shown_by(&self, shown: &Self) -> bool {
        !self.0.is_empty() && bool::from(self.0.as_slice().ct_eq(&shown.0))
    }

    /// Its bytes, for the wire.
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }
}

impl From<&[u8]> for CancelSecret {
    fn from(bytes: &[u8]) -> Self {
        Self(bytes.into())
    }
}

impl fmt::Debug for CancelSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CancelSecret(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_whole_secret_is_one() {
        let drawn: [u8; 32] = std::array::from_fn(|at| u8::try_from(at).unwrap());
        let (short, long) = (CancelSecret::of_client(&drawn, 1), CancelSecret::of_client(&drawn, 2));
        assert_eq!((short.bytes(), long.bytes()), (&[0, 1, 2, 3][..], &drawn[..]));
        assert!(short.is_shown_by(&short.clone()) && long.is_shown_by(&long.clone()));
        assert!(!long.is_shown_by(&short) && !short.is_shown_by(&long));
        assert!(!short.is_shown_by(&b"\0\x01\x02\x02"[..].into()));
        // No secret is no key.
        assert!(!CancelSecret::default().is_shown_by(&CancelSecret::default()));
        assert_eq!(format!("{long:?}"), "CancelSecret(..)");
    }
}
