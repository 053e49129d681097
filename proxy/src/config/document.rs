//! A TOML file as sections and entries that know their line and which of their keys have been asked for.
//!
//! A key that nobody asks for is unknown, and unknown keys are mistakes: the list of keys is the code that reads them.
//! Every reading method reports its own mistake and then answers `None`. This module knows no key by name.

use std::cell::RefCell;
use std::ops::RangeInclusive;
use std::path::Path;
use std::time::Duration;

use toml::Spanned;
use toml::de::{DeString, DeTable, DeValue};

use super::mistake::{Findings, suggestion};
use super::value;

/// Lines that are not TOML and are reported: one open bracket or quote breaks all lines below it.
const BROKEN_LINES_MAX: usize = 5;

/// The text of a file and where its lines begin.
pub(super) struct Document<'a> {
    pub(super) path: &'a Path,
    pub(super) findings: &'a Findings,
    lines: Vec<usize>,
}

impl<'a> Document<'a> {
    pub(super) fn new(path: &'a Path, text: &str, findings: &'a Findings) -> Self {
        let lines = std::iter::once(0).chain(text.match_indices('\n').map(|(at, _)| at + 1)).collect();
        Self { path, findings, lines }
    }

    /// The line of a byte, counted from 1.
    fn line(&self, at: usize) -> usize {
        self.lines.partition_point(|start| *start <= at)
    }

    fn mistake(&self, at: usize, text: impl Into<String>) {
        self.findings.mistake(self.path, Some(self.line(at)), text);
    }

    fn warning(&self, at: usize, text: impl Into<String>) {
        self.findings.warning(self.path, Some(self.line(at)), text);
    }
}

/// Parses `text`. Where it is not TOML, the first such lines are reported and nothing is answered: what could be guessed of the
/// rest would only lead to mistakes that are none.
pub(super) fn parse<'t>(document: &Document<'_>, text: &'t str) -> Option<DeTable<'t>> {
    let (table, errors) = DeTable::parse_recoverable(text);
    let mut mistakes: Vec<_> = errors.iter().map(|error| (error.span().map_or(0, |span| span.start), error.message())).collect();
    mistakes.sort_by_key(|(at, _)| *at);
    mistakes.dedup_by_key(|(at, _)| document.line(*at));
    for (at, message) in mistakes.iter().take(BROKEN_LINES_MAX) {
        document.mistake(*at, format!("this is not TOML: {message}"));
    }
    errors.is_empty().then(|| table.into_inner())
}

/// A table of the file, or one that is absent and therefore has no entries.
pub(super) struct Section<'a> {
    document: &'a Document<'a>,
    /// Dotted name with a dot at the end, empty for the file itself.
    prefix: String,
    /// Where the section stands; its beginning for the file itself.
    at: usize,
    table: Option<&'a DeTable<'a>>,
    asked: RefCell<Vec<&'a str>>,
}

impl<'a> Section<'a> {
    /// The file itself. `read` must ask for every key there is: what it has not asked for is then reported.
    pub(super) fn root<T>(document: &'a Document<'a>, table: &'a DeTable<'a>, read: impl FnOnce(&Self) -> T) -> T {
        Self { document, prefix: String::new(), at: 0, table: Some(table), asked: RefCell::default() }.read(read)
    }

    /// The value of `key`, if it is there.
    pub(super) fn entry(&self, key: &'static str) -> Option<Entry<'a>> {
        self.asked.borrow_mut().push(key);
        let (key, value) = self.table?.get_key_value(key)?;
        Some(self.named(key, value))
    }

    /// The table under `key`; an absent one is read all the same and answers its defaults.
    pub(super) fn section<T>(&self, key: &'static str, read: impl FnOnce(&Self) -> T) -> T {
        let entry = self.entry(key);
        let at = entry.as_ref().map_or(self.at, |entry| entry.at);
        let section = entry.and_then(|entry| entry.section());
        let absent = || {
            let prefix = format!("{}{key}.", self.prefix);
            Self { document: self.document, prefix, at, table: None, asked: RefCell::default() }
        };
        section.unwrap_or_else(absent).read(read)
    }

    /// The tables of an array of tables, in the order of the file.
    pub(super) fn sections<T>(&self, key: &'static str, mut read: impl FnMut(&Self) -> T) -> Vec<T> {
        let Some(entry) = self.entry(key) else { return Vec::new() };
        let form = format!("tables, each under [[{}]]", entry.name);
        let tables = entry.elements(&form).unwrap_or_default();
        tables.iter().filter_map(Entry::section).map(|section| section.read(&mut read)).collect()
    }

    /// The value of a key that must be there, read by `read`; `example` shows what to add.
    pub(super) fn required<T>(&self, key: &'static str, example: &str, read: impl FnOnce(&Entry<'a>) -> Option<T>) -> Option<T> {
        let entry = self.entry(key);
        if entry.is_none() {
            self.mistake(format!("{}{key} is missing: add {key} = {example}", self.prefix));
        }
        read(&entry?)
    }

    /// Where mistakes are collected.
    pub(super) fn findings(&self) -> &'a Findings {
        self.document.findings
    }

    /// Reports `text` at the line where the section begins.
    pub(super) fn mistake(&self, text: impl Into<String>) {
        self.document.mistake(self.at, text);
    }

    /// Warns with `text` at the line where the section begins.
    pub(super) fn warning(&self, text: impl Into<String>) {
        self.document.warning(self.at, text);
    }

    /// Asks for every key there is: a table whose keys are names. In the order of the file.
    pub(super) fn all(&self) -> Vec<(&'a str, Entry<'a>)> {
        let entries = self.entries();
        self.asked.borrow_mut().extend(entries.iter().map(|(key, _)| *key));
        entries
    }

    fn entries(&self) -> Vec<(&'a str, Entry<'a>)> {
        let entries = self.table.into_iter().flatten();
        let mut entries: Vec<_> = entries.map(|(key, value)| (key.get_ref().as_ref(), self.named(key, value))).collect();
        entries.sort_by_key(|(_, entry)| entry.at);
        entries
    }

    fn named(&self, key: &Spanned<DeString<'a>>, value: &'a Spanned<DeValue<'a>>) -> Entry<'a> {
        let name = format!("{}{}", self.prefix, value::shown(key.get_ref()));
        Entry { document: self.document, name, at: key.span().start, value: value.get_ref() }
    }

    /// Lets `read` ask for keys; those that it has not asked for are then reported.
    pub(super) fn read<T>(self, read: impl FnOnce(&Self) -> T) -> T {
        let value = read(&self);
        let mut asked = self.asked.take();
        asked.sort_unstable();
        for (key, entry) in self.entries() {
            if asked.contains(&key) {
                continue;
            }
            let mut text = suggestion(key, asked.iter().copied());
            if text.is_empty() {
                text = format!(": the keys here are {}", asked.join(", "));
            }
            entry.mistake(format!("unknown key \"{}\"{text}", entry.name));
        }
        value
    }
}

/// One value with its name and its place.
pub(super) struct Entry<'a> {
    pub(super) document: &'a Document<'a>,
    /// Dotted name, as texts show it.
    pub(super) name: String,
    /// The byte of the file at which it stands.
    at: usize,
    pub(super) value: &'a DeValue<'a>,
}

impl<'a> Entry<'a> {
    /// Reports `text` at the line of the entry.
    pub(super) fn mistake(&self, text: impl Into<String>) {
        self.document.mistake(self.at, text);
    }

    /// Warns with `text` at the line of the entry.
    pub(super) fn warning(&self, text: impl Into<String>) {
        self.document.warning(self.at, text);
    }

    /// Reports that the value is not what it must be.
    pub(super) fn must_be(&self, what: &str) {
        self.mistake(format!("{} must be {what}, not {}", self.name, describe(self.value)));
    }

    /// A text without NUL characters (PostgreSQL's strings end at one) that is not empty.
    pub(super) fn text(&self) -> Option<&'a str> {
        self.parsed("a text between quotes that is not empty", |text| (!text.is_empty()).then_some(text))
    }

    /// A text that `parse` understands, else a mistake saying what it must be.
    pub(super) fn parsed<T>(&self, what: &str, parse: impl FnOnce(&'a str) -> Option<T>) -> Option<T> {
        let parsed = self.value.as_str().filter(|text| !text.contains('\0')).and_then(parse);
        if parsed.is_none() {
            self.must_be(what);
        }
        parsed
    }

    /// One of a few words.
    pub(super) fn word<T: Copy>(&self, words: &[(&str, T)]) -> Option<T> {
        let word = self.value.as_str().unwrap_or_default();
        let found = words.iter().find(|(name, _)| *name == word);
        if found.is_none() {
            let quoted: Vec<String> = words.iter().map(|(name, _)| format!("\"{name}\"")).collect();
            let near = suggestion(word, words.iter().map(|(name, _)| *name));
            self.mistake(format!("{} must be one of {}, not {}{near}", self.name, quoted.join(", "), describe(self.value)));
        }
        found.map(|(_, value)| *value)
    }

    pub(super) fn boolean(&self) -> Option<bool> {
        let found = self.value.as_bool();
        if found.is_none() {
            self.must_be("true or false");
        }
        found
    }

    /// A whole number within bounds.
    pub(super) fn number(&self, bounds: RangeInclusive<u32>) -> Option<u32> {
        let found = integer(self.value).and_then(|number| u32::try_from(number).ok()).filter(|number| bounds.contains(number));
        if found.is_none() {
            self.must_be(&format!("a whole number from {} to {}", bounds.start(), bounds.end()));
        }
        found
    }

    /// A duration within bounds: a text with a unit, or a number of seconds.
    pub(super) fn duration(&self, bounds: RangeInclusive<Duration>) -> Option<Duration> {
        let found = match self.value {
            DeValue::String(text) => value::duration(text),
            other => integer(other).and_then(|seconds| u64::try_from(seconds).ok()).map(Duration::from_secs),
        };
        let Some(duration) = found else {
            self.must_be("a duration such as \"250ms\", \"120s\", \"5min\" or \"1h\" (a bare number means seconds)");
            return None;
        };
        if !bounds.contains(&duration) {
            self.must_be(&format!("from {} to {}", value::shown_duration(*bounds.start()), value::shown_duration(*bounds.end())));
            return None;
        }
        Some(duration)
    }

    /// An amount of memory within bounds: a text with a unit, or a number of bytes.
    pub(super) fn bytes(&self, bounds: RangeInclusive<usize>) -> Option<usize> {
        let found = match self.value {
            DeValue::String(text) => value::bytes(text),
            other => integer(other).and_then(|bytes| usize::try_from(bytes).ok()),
        };
        let found = found.filter(|bytes| bounds.contains(bytes));
        if found.is_none() {
            let (least, most) = (value::shown_bytes(*bounds.start()), value::shown_bytes(*bounds.end()));
            self.must_be(&format!("an amount of memory from \"{least}\" to \"{most}\""));
        }
        found
    }

    /// The elements of an array; `what` says what they must be.
    pub(super) fn elements(&self, what: &str) -> Option<Vec<Self>> {
        let Some(array) = self.value.as_array() else {
            self.must_be(&format!("a list of {what}"));
            return None;
        };
        let element = |(index, value): (usize, &'a Spanned<DeValue<'a>>)| Self {
            document: self.document,
            name: format!("{}[{index}]", self.name),
            at: value.span().start,
            value: value.get_ref(),
        };
        Some(array.iter().enumerate().map(element).collect())
    }

    /// A table.
    pub(super) fn section(&self) -> Option<Section<'a>> {
        let Some(table) = self.value.as_table() else {
            self.must_be("a table");
            return None;
        };
        let prefix = format!("{}.", self.name);
        Some(Section { document: self.document, prefix, at: self.at, table: Some(table), asked: RefCell::default() })
    }
}

fn integer(value: &DeValue<'_>) -> Option<i64> {
    let number = value.as_integer()?;
    i64::from_str_radix(number.as_str(), number.radix()).ok()
}

/// A value as mistakes repeat it. Never called with a secret.
fn describe(value: &DeValue<'_>) -> String {
    match value {
        DeValue::String(text) => format!("\"{}\"", value::shown(text)),
        DeValue::Integer(number) => value::shown(&number.to_string()),
        DeValue::Float(number) => value::shown(number.as_str()),
        DeValue::Boolean(boolean) => boolean.to_string(),
        DeValue::Datetime(_) => "a date".to_owned(),
        DeValue::Array(_) => "a list".to_owned(),
        DeValue::Table(_) => "a table".to_owned(),
    }
}
