//! PostgreSQL's MD5 challenge: what both sides compute from password, user and salt.

use md5::{Digest as _, Md5};

/// MD5 of password and user as PostgreSQL stores it, in hexadecimal digits and without the `md5` in front.
pub(super) fn digest(password: &[u8], user: &str) -> [u8; 32] {
    hexadecimal(&[password, user.as_bytes()])
}

/// The answer to a challenge by one who knows the digest.
pub(super) fn answer(digest: &[u8; 32], salt: [u8; 4]) -> Vec<u8> {
    [b"md5".as_slice(), &hexadecimal(&[digest, &salt])].concat()
}

fn hexadecimal(parts: &[&[u8]]) -> [u8; 32] {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut hash = Md5::new();
    parts.iter().for_each(|part| hash.update(part));
    let hash: [u8; 16] = hash.finalize().into();
    std::array::from_fn(|index| {
        let byte = hash[index / 2];
        let digit = if index % 2 == 0 { byte >> 4 } else { byte & 15 };
        DIGITS[usize::from(digit)]
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digest_and_answer_are_those_of_postgresql() {
        // CREATE USER postgres PASSWORD 'postgres' under password_encryption = md5.
        assert_eq!(&digest(b"postgres", "postgres"), b"3175bce1d3201d16594cebf9d7eb3f9d");
        // md5sum of the digest followed by the bytes 1, 2, 3, 4.
        assert_eq!(answer(&digest(b"postgres", "postgres"), [1, 2, 3, 4]), b"md568be9ed08db75f318087ab337aaea044");
    }
}
