//! The ident file: which users somebody may be whose name in another place is known, by map.
//!
//! A line is a map, a name there, and a user here. The name may be a regular expression (`/^(.*)@example\.org$`), and then `\1` in the
//! user stands for what its first group has found; the user may be `all` or a regular expression too.

use std::path::Path;
use std::sync::Arc;

use regex::bytes::Regex;

use super::super::mistake::Findings;
use super::pattern::{self, NamePattern};
use super::tokens::{self, Token};

/// What stands for the first group.
const GROUP: &str = "\\1";

/// The lines of an ident file, in its order.
#[derive(Clone, Debug, Default)]
pub struct IdentMaps(Arc<[IdentLine]>);

/// One line.
#[derive(Clone, Debug)]
struct IdentLine {
    map: String,
    name: Name,
    user: NamePattern,
}

#[derive(Clone, Debug)]
enum Name {
    /// This one.
    Exactly(String),
    /// One in which the expression is found.
    Matching(Regex),
    /// The same; its first group goes into the user, in the place of `\1`.
    Giving(Regex, String),
}

impl IdentMaps {
    /// Whether a map lets somebody who is called `name` be `user`.
    pub fn admit(&self, map: &str, name: &str, user: &str) -> bool {
        self.0.iter().any(|line| line.map == map && line.admits(name, user))
    }

    pub(super) fn has(&self, map: &str) -> bool {
        self.names().any(|name| name == map)
    }

    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|line| line.map.as_str())
    }
}

impl IdentLine {
    fn admits(&self, name: &str, user: &str) -> bool {
        match &self.name {
            Name::Exactly(expected) => expected == name && self.user.admits(user),
            Name::Matching(expression) => expression.is_match(name.as_bytes()) && self.user.admits(user),
            Name::Giving(expression, template) => {
                let found = expression.captures(name.as_bytes()).and_then(|captures| captures.get(1));
                // What is put together is a name and nothing else, even if it reads `all`.
                found.is_some_and(|group| {
                    let (before, behind) = template.split_once(GROUP).unwrap_or((template, ""));
                    user.as_bytes() == [before.as_bytes(), group.as_bytes(), behind.as_bytes()].concat()
                })
            }
        }
    }
}

pub(super) fn parse(path: &Path, text: &str, findings: &Findings) -> IdentMaps {
    let read = |line: tokens::Line| {
        let result = self::line(&line.fields);
        result.map_err(|text| findings.mistake(path, Some(line.number), text)).ok()
    };
    IdentMaps(tokens::lines(path, text, findings).into_iter().filter_map(read).collect())
}

fn line(fields: &[tokens::Field]) -> Result<IdentLine, String> {
    let tokens: Vec<&Token> = fields.iter().flatten().collect();
    if let Some(word) = tokens.first().filter(|word| !word.quoted && word.text.starts_with("include")) {
        return Err(format!("{} is not supported: write the lines here", word.text));
    }
    let [map, name, user] = tokens[..] else {
        return Err("a line is a map, a name and a user: map-name system-username database-username".to_owned());
    };
    if fields.len() != tokens.len() {
        return Err("a list has no place here: write a line for each".to_owned());
    }
    if !user.quoted && user.text.starts_with('+') {
        return Err(format!("\"{}\" is a group, and the members of roles are not known here: name users", user.text));
    }
    let name = match name.text.strip_prefix('/') {
        None => Name::Exactly(name.text.clone()),
        Some(text) => {
            let expression = pattern::expression(text)?;
            match user.text.starts_with('/') || !user.text.contains(GROUP) {
                true => Name::Matching(expression),
                false if expression.captures_len() < 2 => {
                    return Err(format!("\"{}\" has no group that {GROUP} could stand for", name.text));
                }
                false => Name::Giving(expression, user.text.clone()),
            }
        }
    };
    Ok(IdentLine { map: map.text.clone(), name, user: NamePattern::read(user)? })
}
