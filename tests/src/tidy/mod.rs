//! The invariants of ARCHITECTURE.md that the compiler does not keep, checked on the text of the tree.
//!
//! Every finding is `file:line: what is wrong`. Comments and literals are blanked before names are looked for, so a sentence
//! about a module is not a use of it. This is no parser: it finds names, and a name in the wrong place is what it reports.

mod source;

use std::fs;
use std::path::Path;

use source::Source;

/// Modules that name no runtime, socket, clock or randomness.
const PURE: [&str; 6] = ["wire", "sql", "policy", "table", "pool", "session"];
/// Names that reach outside the process, or make time or chance; each with what to do about it.
const IMPURE: [(&str, &str); 21] = [
    ("tokio", "a runtime"),
    ("futures", "a runtime"),
    ("async", "a runtime"),
    ("await", "a runtime"),
    ("hyper", "a runtime"),
    ("socket2", "a socket"),
    ("TcpStream", "a socket"),
    ("TcpListener", "a socket"),
    ("UdpSocket", "a socket"),
    ("UnixStream", "a socket"),
    ("UnixListener", "a socket"),
    ("OwnedFd", "a socket"),
    ("RawFd", "a socket"),
    ("rustix", "the kernel"),
    ("libc", "the kernel"),
    ("std::fs", "the file system"),
    ("std::env", "the environment"),
    ("Instant::now", "the clock; take the time as an argument"),
    ("SystemTime::now", "the clock; take the time as an argument"),
    ("elapsed", "the clock; subtract two arguments"),
    ("getrandom", "chance; take the bytes as an argument"),
];
/// Modules without unsafe code.
const SAFE: [&str; 5] = ["wire", "sql", "policy", "pool", "session"];
/// Crates that only some modules may name.
const ONLY_IN: [(&str, &[&str]); 5] = [
    ("io_uring", &["engine"]),
    ("tokio_uring", &["login", "admin", "observe", "control"]),
    ("aya", &["fence"]),
    ("pg_query", &["sql"]),
    ("rustls", &["tls"]),
];
/// Roots of programs, and of the library: they name what they like.
const PROGRAMS: [&str; 4] = ["lib", "main", "misrouting", "panicking"];
/// Lines of a source file.
const FILE_LINES_MAX: usize = 600;

/// Checks the tree under `root`; no finding means it is tidy.
pub fn check(root: &Path) -> Vec<String> {
    let folders = ["bench", "proxy", "ebpf/abi", "ebpf/programs", "tests", "xtask"];
    let sources: Vec<Source> = folders.iter().flat_map(|folder| source::read(root, folder)).collect();
    let mut findings = Vec::new();
    let order = module_list(root, "lib.rs");
    if order.is_empty() {
        findings.push("proxy/src/lib.rs:1: has no list of modules".to_owned());
    }
    let of_program = module_list(root, "main.rs");
    for source in &sources {
        check_file(source, &mut findings);
        if let Some(module) = source.module() {
            check_names(source, module, &mut findings);
            // The program and its own modules stand below the whole library.
            if !PROGRAMS.contains(&module) && !of_program.iter().any(|own| own == module) {
                check_arrows(source, module, &order, &mut findings);
            }
        }
    }
    SAFE.iter().for_each(|module| check_forbids_unsafe(&sources, module, &mut findings));
    check_reasons_are_tested(&sources, &mut findings);
    findings.sort();
    findings.dedup();
    findings
}

/// The modules that a root file declares, in its order. That of `lib.rs` is the order of dependence: each may name those above it.
fn module_list(root: &Path, file: &str) -> Vec<String> {
    let text = fs::read_to_string(root.join("proxy/src").join(file)).unwrap_or_default();
    let modules = text.lines().filter_map(|line| line.trim_start_matches("pub ").strip_prefix("mod ")?.strip_suffix(';'));
    modules.map(str::to_owned).collect()
}

/// What holds for every source file of the tree.
fn check_file(source: &Source, findings: &mut Vec<String>) {
    if !source.text.starts_with("//!") {
        findings.push(source.at(1, "does not open with `//!`, saying why it exists and what it refuses to do"));
    }
    let lines = source.text.lines().count();
    if lines > FILE_LINES_MAX {
        findings.push(source.at(lines, &format!("has {lines} lines, more than {FILE_LINES_MAX}: split it")));
    }
    for (index, line) in source.text.lines().enumerate() {
        // Put together here, so that this file has none of them.
        for unfinished in [concat!("TO", "DO"), concat!("FIX", "ME"), concat!("to", "do!("), concat!("unimple", "mented!(")] {
            if line.contains(unfinished) {
                findings.push(source.at(index + 1, &format!("has {unfinished}: finish it, or open an issue")));
            }
        }
    }
}

/// A module names only itself and those above it in `lib.rs`.
fn check_arrows(source: &Source, module: &str, order: &[String], findings: &mut Vec<String>) {
    let position = |name: &str| order.iter().position(|known| known == name);
    let Some(own) = position(module) else {
        findings.push(source.at(1, "is not in the module list of lib.rs"));
        return;
    };
    for (line, named) in source.modules_named() {
        if position(&named).is_some_and(|other| other > own) {
            findings.push(source.at(line, &format!("`{module}` names `{named}`, which stands below it in lib.rs")));
        }
    }
}

/// Names that stand only where they may.
fn check_names(source: &Source, module: &str, findings: &mut Vec<String>) {
    for (name, allowed) in ONLY_IN {
        if !allowed.contains(&module) {
            let text = format!("`{name}` may be named only in {}", allowed.join(", "));
            findings.extend(source.uses(name).map(|line| source.at(line, &text)));
        }
    }
    if PURE.contains(&module) {
        for (name, what) in IMPURE {
            // Tests of a pure module may make the times and threads that they hand to it.
            let uses = source.uses(name).filter(|line| !source.is_test(*line));
            findings.extend(uses.map(|line| source.at(line, &format!("`{module}` is pure, and `{name}` is {what}"))));
        }
    }
}

fn check_forbids_unsafe(sources: &[Source], module: &str, findings: &mut Vec<String>) {
    let file = format!("proxy/src/{module}/mod.rs");
    let found = sources.iter().find(|source| source.path == file);
    let forbids = found.is_some_and(|source| source.code.lines().any(|line| line.trim() == "#![forbid(unsafe_code)]"));
    if !forbids {
        findings.push(format!("{file}:1: lacks #![forbid(unsafe_code)]"));
    }
}

/// Every reason for a denial is named by a test.
fn check_reasons_are_tested(sources: &[Source], findings: &mut Vec<String>) {
    let declares = |source: &&Source| source.module() == Some("policy") && source.code.contains("pub enum Reason {");
    let Some(policy) = sources.iter().find(declares) else {
        findings.push("proxy/src/policy/mod.rs:1: has no `pub enum Reason`".to_owned());
        return;
    };
    for (line, reason) in policy.variants("Reason") {
        let name = format!("Reason::{reason}");
        let tested = |source: &Source| source.uses(&name).any(|line| source.is_test(line));
        if !sources.iter().any(tested) {
            findings.push(policy.at(line, &format!("no test names `{name}`")));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn findings(path: &str, text: &str) -> Vec<String> {
        let order = ["limits", "wire", "table", "policy", "engine"].map(str::to_owned);
        let source = Source::new(path.to_owned(), text.to_owned());
        let mut findings = Vec::new();
        check_file(&source, &mut findings);
        if let Some(module) = source.module() {
            check_arrows(&source, module, &order, &mut findings);
            check_names(&source, module, &mut findings);
        }
        findings
    }

    #[test]
    fn a_module_names_only_those_above_it() {
        assert_eq!(findings("proxy/src/wire/frame.rs", "//! Why.\nuse crate::limits;\n// crate::policy is below\n"), [""; 0]);
        assert_eq!(
            findings("proxy/src/wire/frame.rs", "//! Why.\nuse crate::{limits, policy::{Permit, Denial}};\n"),
            ["proxy/src/wire/frame.rs:2: `wire` names `policy`, which stands below it in lib.rs"]
        );
        assert_eq!(findings("proxy/src/other.rs", "//! Why.\n"), ["proxy/src/other.rs:1: is not in the module list of lib.rs"]);
    }

    #[test]
    fn a_pure_module_has_no_clock_except_in_its_tests() {
        let text = "//! Why.\nfn f() { Instant::now(); }\n#[cfg(test)]\nmod tests {\n    fn g() { Instant::now(); }\n}\n";
        let expected =
            ["proxy/src/table/mod.rs:2: `table` is pure, and `Instant::now` is the clock; take the time as an argument"];
        assert_eq!(findings("proxy/src/table/mod.rs", text), expected);
    }

    #[test]
    fn crates_stay_in_their_modules() {
        let text = "//! Why.\nuse io_uring::IoUring;\n";
        assert_eq!(findings("proxy/src/engine/ring.rs", text), [""; 0]);
        assert_eq!(
            findings("proxy/src/policy/mod.rs", text),
            ["proxy/src/policy/mod.rs:2: `io_uring` may be named only in engine"]
        );
        assert_eq!(findings("proxy/src/engine/ring.rs", "//! Why.\nuse tokio_uring::net;\n").len(), 1);
    }

    #[test]
    fn a_file_says_why_it_exists_and_is_finished() {
        let text = concat!("fn f() {}\n// TO", "DO: more\n");
        assert_eq!(
            findings("xtask/src/main.rs", text),
            [
                "xtask/src/main.rs:1: does not open with `//!`, saying why it exists and what it refuses to do",
                concat!("xtask/src/main.rs:2: has TO", "DO: finish it, or open an issue")
            ]
        );
    }
}
