//! The numbers by which the kernel knows regions and nodes.

use sha2::{Digest as _, Sha256};

use domicile_ebpf_abi::CONTROL;

/// The number of a region or a node: the first four bytes of its name's SHA-256, so that whoever has the configuration knows it, and it
/// stays the same whatever else the configuration says.
pub fn number(name: &str) -> u32 {
    let digest = Sha256::digest(name);
    let number = digest.first_chunk().map_or(CONTROL, |bytes| u32::from_be_bytes(*bytes));
    // One name in four thousand million would have the number that says "none".
    if number == CONTROL { u32::MAX } else { number }
}

/// The first of these names that has the number of one before it, and that one.
pub(super) fn clash<'n>(names: impl Iterator<Item = &'n str>) -> Option<(&'n str, &'n str)> {
    let mut known = std::collections::HashMap::new();
    for name in names {
        match known.insert(number(name), name) {
            Some(other) if other != name => return Some((other, name)),
            Some(_) | None => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_the_beginning_of_a_digest() {
        // printf eu-west | sha256sum
        assert_eq!(format!("{:08x}", number("eu-west")), "50121d09");
        assert_ne!(number("eu-west"), number("us-east"));
    }

    #[test]
    fn names_of_one_number_are_found() {
        assert_eq!(clash(["eu-west", "us-east", "eu-west"].into_iter()), None);
        let names: Vec<String> = (0..200_000).map(|name| name.to_string()).collect();
        let (one, other) = clash(names.iter().map(String::as_str)).unwrap();
        assert!(one != other && number(one) == number(other));
    }
}
