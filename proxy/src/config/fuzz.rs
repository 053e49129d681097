//! Entry point of the fuzzer of files in `tests/fuzz`: it takes any text and panics where a property of this module does not hold.

use std::path::Path;

use super::mistake::Findings;
use super::{hba, read, users};

/// A configuration, users, HBA or ident file, by its first byte.
///
/// Properties: every text is read or refused; a mistake stands in a line that there is, and says something; a users file has no more
/// users than lines.
pub fn file(data: &[u8]) {
    let Some((kind, text)) = data.split_first() else { return };
    // Files that are named in it are not there.
    let text = String::from_utf8_lossy(text).replace('/', "_");
    let path = Path::new("/nonexistent/domicile.toml");
    let findings = Findings::default();
    match kind & 3 {
        0 => drop(read::whole(path, &text, &|_| None, &findings)),
        1 => {
            let read = users::parse(path, &text, &findings);
            assert!(read.len() <= text.lines().count());
        }
        2 => drop(hba::parse(path, &text, &hba::parse_ident(path, "", &findings), &findings)),
        _ => drop(hba::parse_ident(path, &text, &findings)),
    }
    if let Err(mistakes) = findings.into_result(Some(())) {
        let lines = text.split(['\n', '\r']).count();
        for mistake in mistakes.iter() {
            assert!(!mistake.text.is_empty());
            assert!(mistake.line.is_none_or(|line| (1..=lines).contains(&line)), "{mistake}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_seeds_hold() {
        crate::wire::fuzz::run_seeds("files", file);
    }
}
