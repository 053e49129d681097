//! The files that hold secrets: read whole, wiped from memory, and looked at for who else may read them.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use zeroize::Zeroizing;

use super::mistake::Findings;

/// The bit of a file's mode that lets everyone read it.
const READABLE_BY_ALL: u32 = 0o004;

/// The text of a file, or why there is none, in words that follow the file's name.
pub(super) fn text(path: &Path) -> Result<Zeroizing<String>, String> {
    let bytes = std::fs::read(path).map_err(|error| format!("cannot be read: {error}"))?;
    String::from_utf8(bytes).map(Zeroizing::new).map_err(|error| {
        let valid = error.utf8_error().valid_up_to();
        let bytes = Zeroizing::new(error.into_bytes());
        let line = 1 + bytes.iter().take(valid).filter(|byte| **byte == b'\n').count();
        format!("cannot be read: line {line} is not UTF-8")
    })
}

/// Warns if everyone on the host may read what a file holds, which is named by `what`.
pub(super) fn warn_if_public(path: &Path, what: &str, findings: &Findings) {
    // A file that cannot be looked at could not be read either, and that is a mistake already.
    let mode = std::fs::metadata(path).map_or(0, |metadata| metadata.permissions().mode() & 0o7777);
    if mode & READABLE_BY_ALL != 0 {
        let text = format!("everyone on this host can read the {what} in it (mode {mode:04o}): chmod o-r {}", path.display());
        findings.warning(path, None, text);
    }
}
