//! One source file, as the checks look at it: its text, and its code with comments and literals blanked.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

pub struct Source {
    /// Relative to the root, with `/`.
    pub path: String,
    pub text: String,
    /// The text with every comment and literal blanked; lines are kept.
    pub code: String,
    /// The first line of the tests at the bottom of the file.
    tests_from: usize,
}

/// Every Rust file of a folder, build output and fuzz targets left out.
pub fn read(root: &Path, folder: &str) -> Vec<Source> {
    let mut sources = Vec::new();
    let mut folders = vec![root.join(folder)];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            let path = entry.path();
            let relative = path.strip_prefix(root).unwrap_or(&path).to_string_lossy().into_owned();
            if path.is_dir() {
                if !path.ends_with("target") && relative != "tests/fuzz" {
                    folders.push(path);
                }
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                sources.push(Source::new(relative, fs::read_to_string(&path).unwrap_or_default()));
            }
        }
    }
    sources
}

impl Source {
    pub fn new(path: String, text: String) -> Self {
        let code = blank(&text);
        let in_tests_folder = path.ends_with("/tests.rs") || path.contains("/tests/") || path.starts_with("tests/");
        let bottom = code.lines().position(|line| line.trim_start().starts_with("#[cfg(") && line.contains("test"));
        let tests_from = if in_tests_folder { 1 } else { bottom.map_or(usize::MAX, |index| index + 1) };
        Self { path, text, code, tests_from }
    }

    /// The top module of the proxy that the file belongs to.
    pub fn module(&self) -> Option<&str> {
        let rest = self.path.strip_prefix("proxy/src/")?;
        rest.split('/').next()?.split('.').next()
    }

    pub fn at(&self, line: usize, what: &str) -> String {
        format!("{}:{line}: {what}", self.path)
    }

    pub fn is_test(&self, line: usize) -> bool {
        line >= self.tests_from
    }

    /// The lines where `name` stands as a whole word (or a path of whole words).
    pub fn uses<'a>(&'a self, name: &'a str) -> impl Iterator<Item = usize> + 'a {
        let lines = self.code.lines().enumerate();
        lines.filter(move |(_, line)| words(line, name).next().is_some()).map(|(index, _)| index + 1)
    }

    /// The modules that follow a `crate::`, with their lines; `crate::{a::b, c}` names two.
    pub fn modules_named(&self) -> BTreeSet<(usize, String)> {
        let mut named = BTreeSet::new();
        for at in words(&self.code, "crate").collect::<Vec<_>>() {
            let Some(rest) = self.code[at..].strip_prefix("crate").and_then(|rest| rest.trim_start().strip_prefix("::")) else {
                continue;
            };
            let line = 1 + self.code[..at].matches('\n').count();
            let rest = rest.trim_start();
            let heads = rest.strip_prefix('{').map_or_else(|| vec![rest], first_names_of_group);
            let names = heads.into_iter().map(identifier).filter(|name| !name.is_empty());
            named.extend(names.map(|name| (line, name.to_owned())));
        }
        named
    }

    /// The variants of an enum, with their lines.
    pub fn variants(&self, name: &str) -> Vec<(usize, String)> {
        let start = format!("pub enum {name} {{");
        let body = self.code.lines().enumerate().skip_while(|(_, line)| !line.contains(&start)).skip(1);
        let body = body.take_while(|(_, line)| line.trim_end() != "}");
        let variants = body.map(|(index, line)| (index + 1, identifier(line.trim_start()).to_owned()));
        variants.filter(|(_, variant)| variant.starts_with(char::is_uppercase)).collect()
    }
}

/// The text after each `{` and `,` that stands directly inside a group.
fn first_names_of_group(inside: &str) -> Vec<&str> {
    let mut depth = 0;
    let mut heads = vec![inside.trim_start()];
    for (index, byte) in inside.bytes().enumerate() {
        match byte {
            b'{' => depth += 1,
            b'}' if depth == 0 => break,
            b'}' => depth -= 1,
            b',' if depth == 0 => heads.push(inside[index + 1..].trim_start()),
            _ => {}
        }
    }
    heads
}

fn identifier(text: &str) -> &str {
    let end = text.find(|letter: char| !is_word(letter)).unwrap_or(text.len());
    &text[..end]
}

fn is_word(letter: char) -> bool {
    letter.is_alphanumeric() || letter == '_'
}

/// Where `name` stands in `text` with no letter on either side.
fn words<'a>(text: &'a str, name: &'a str) -> impl Iterator<Item = usize> + 'a {
    text.match_indices(name).map(|(at, _)| at).filter(move |at| {
        let before = text[..*at].chars().next_back();
        let after = text[at + name.len()..].chars().next();
        !before.is_some_and(is_word) && !after.is_some_and(is_word)
    })
}

/// Puts spaces in place of comments, strings and characters.
fn blank(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut code = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let end = literal_end(bytes, at);
        if end > at {
            code.extend(bytes[at..end].iter().map(|byte| if *byte == b'\n' { b'\n' } else { b' ' }));
            at = end;
        } else {
            code.push(bytes[at]);
            at += 1;
        }
    }
    String::from_utf8_lossy(&code).into_owned()
}

/// Where the comment or literal that begins at `at` ends; `at` when none begins there.
fn literal_end(bytes: &[u8], at: usize) -> usize {
    let rest = &bytes[at..];
    let find = |needle: &[u8], from: usize| {
        rest[from..].windows(needle.len()).position(|window| window == needle).map_or(bytes.len(), |index| at + from + index)
    };
    let after_word = at > 0 && (bytes[at - 1].is_ascii_alphanumeric() || bytes[at - 1] == b'_');
    match rest {
        [b'/', b'/', ..] => find(b"\n", 2),
        [b'/', b'*', ..] => (find(b"*/", 2) + 2).min(bytes.len()),
        [b'"', ..] => quoted_end(bytes, at + 1, b'"'),
        [b'r', b'"' | b'#', ..] if !after_word => {
            let hashes = rest[1..].iter().take_while(|byte| **byte == b'#').count();
            if rest.get(1 + hashes) != Some(&b'"') {
                return at;
            }
            let close = [&b"\""[..], &b"#".repeat(hashes)].concat();
            (find(&close, 2 + hashes) + close.len()).min(bytes.len())
        }
        // A lifetime has no second quote after its first letter.
        [b'\'', b'\\', ..] => quoted_end(bytes, at + 1, b'\''),
        [b'\'', _, b'\'', ..] => at + 3,
        _ => at,
    }
}

fn quoted_end(bytes: &[u8], mut at: usize, quote: u8) -> usize {
    while at < bytes.len() && bytes[at] != quote {
        at += if bytes[at] == b'\\' { 2 } else { 1 };
    }
    (at + 1).min(bytes.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_and_literals_are_blanked_and_lines_kept() {
        let text = "a // crate::b\n\"c\\\" // d\" e\nr#\"f\"g\"# h 'i' '\\'' j /* k\nl */ m<'n>";
        let code = blank(text);
        let kept: Vec<_> = code.split_whitespace().collect();
        assert_eq!(kept, ["a", "e", "h", "j", "m<'n>"]);
        assert_eq!(code.lines().count(), text.lines().count());
    }

    #[test]
    fn modules_are_found_in_paths_and_groups() {
        let source = Source::new(
            String::new(),
            "use crate::a::B;\nuse crate::{\n    c::{D, E},\n    f,\n};\npub(crate) fn g() {}\n".to_owned(),
        );
        let named: Vec<_> = source.modules_named().into_iter().collect();
        assert_eq!(named, [(1, "a".to_owned()), (2, "c".to_owned()), (2, "f".to_owned())]);
    }

    #[test]
    fn words_are_whole_words() {
        let source = Source::new(String::new(), "use tokio_uring::x;\nlet tokio = 1;\n".to_owned());
        assert_eq!(source.uses("tokio").collect::<Vec<_>>(), [2]);
        assert_eq!(source.uses("io_uring").count(), 0);
    }

    #[test]
    fn variants_are_read_from_the_declaration() {
        let text =
            "pub enum Reason {\n    /// Why.\n    NoRegion,\n    #[x]\n    NoNode { a: u8 },\n}\nenum Other {\n    No,\n}\n";
        let source = Source::new(String::new(), text.to_owned());
        assert_eq!(source.variants("Reason"), [(3, "NoRegion".to_owned()), (5, "NoNode".to_owned())]);
    }
}
