//! What is wrong with a file: where, what, and the nearest word that would be right.
//!
//! Everything that is found is collected, so that one run of `domicile check` shows all of it. Texts never repeat a secret.

use std::cell::RefCell;
use std::fmt;
use std::path::{Path, PathBuf};

/// Letters from which on the start of a word stands for the word.
const START_LETTERS_MIN: usize = 3;

/// One mistake of one file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mistake {
    /// The file, as it was named.
    pub file: PathBuf,
    /// The line, counted from 1; none when the file as a whole is meant (it cannot be read).
    pub line: Option<usize>,
    /// What is wrong and what to do about it.
    pub text: String,
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", self.file.display())?;
        if let Some(line) = self.line {
            write!(f, "{line}:")?;
        }
        write!(f, " {}", self.text)
    }
}

/// All mistakes of a configuration, those of one file in the order of its lines. There is at least one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mistakes(Vec<Mistake>);

impl Mistakes {
    /// The mistakes, one by one.
    pub fn iter(&self) -> impl Iterator<Item = &Mistake> {
        self.0.iter()
    }
}

impl fmt::Display for Mistakes {
    /// One mistake a line, without a line end after the last.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, mistake) in self.0.iter().enumerate() {
            let separator = if index == 0 { "" } else { "\n" };
            write!(f, "{separator}{mistake}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Mistakes {}

/// Collects what the readers of the files find. Readers go on after a mistake, with a value that is never used.
#[derive(Default)]
pub(super) struct Findings {
    mistakes: RefCell<Vec<Mistake>>,
    warnings: RefCell<Vec<Mistake>>,
}

impl Findings {
    pub(super) fn mistake(&self, file: &Path, line: Option<usize>, text: impl Into<String>) {
        self.mistakes.borrow_mut().push(Mistake { file: file.to_owned(), line, text: text.into() });
    }

    /// A warning names its place like a mistake does, but the configuration is used all the same.
    pub(super) fn warning(&self, file: &Path, line: Option<usize>, text: impl Into<String>) {
        self.warnings.borrow_mut().push(Mistake { file: file.to_owned(), line, text: text.into() });
    }

    /// What was read and the warnings, or the mistakes. A reader that has no value to show has reported why.
    pub(super) fn into_result<T>(self, value: Option<T>) -> Result<(T, Vec<String>), Mistakes> {
        let mistakes = in_order(self.mistakes.into_inner());
        match value {
            Some(value) if mistakes.is_empty() => {
                Ok((value, in_order(self.warnings.into_inner()).iter().map(ToString::to_string).collect()))
            }
            Some(_) | None => Err(Mistakes(mistakes)),
        }
    }
}

/// By file and line, each once.
fn in_order(mut places: Vec<Mistake>) -> Vec<Mistake> {
    places.sort_by(|a, b| (&a.file, a.line).cmp(&(&b.file, b.line)));
    places.dedup();
    places
}

/// The candidate that a slip of the fingers, or an ending too many or too few, would explain.
pub(super) fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let word: Vec<char> = word.to_lowercase().chars().collect();
    let edits_max = (word.len() / 3).clamp(1, 3);
    let distance = |candidate: &str| {
        let letters: Vec<char> = candidate.to_lowercase().chars().collect();
        // The test of lengths keeps the table of edits small, whatever stands in the file.
        let edits = (letters.len().abs_diff(word.len()) <= edits_max).then(|| edits(&word, &letters));
        let is_start =
            letters.len().min(word.len()) >= START_LETTERS_MIN && (letters.starts_with(&word) || word.starts_with(&letters));
        edits.filter(|edits| *edits <= edits_max).or(is_start.then_some(usize::MAX))
    };
    let near = candidates.into_iter().filter_map(|candidate| Some((distance(candidate)?, candidate)));
    near.min_by_key(|(distance, _)| *distance).map(|(_, candidate)| candidate)
}

/// `: did you mean "…"?`, or nothing.
pub(super) fn suggestion<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> String {
    nearest(word, candidates).map_or_else(String::new, |candidate| format!(": did you mean \"{candidate}\"?"))
}

/// Insertions, deletions, replacements and swaps of neighbours that lead from `a` to `b` (optimal string alignment).
fn edits(a: &[char], b: &[char]) -> usize {
    let mut before_last = vec![0; b.len() + 1];
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut row = vec![i + 1; b.len() + 1];
        for (j, y) in b.iter().enumerate() {
            row[j + 1] = (last[j] + usize::from(x != y)).min(last[j + 1] + 1).min(row[j] + 1);
            if i > 0 && j > 0 && *x == b[j - 1] && a[i - 1] == *y {
                row[j + 1] = row[j + 1].min(before_last[j - 1] + 1);
            }
        }
        before_last = std::mem::replace(&mut last, row);
    }
    last[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_word_is_one_slip_away() {
        let words = ["method", "users", "backend_cleartext"];
        assert_eq!(nearest("metod", words), Some("method"));
        assert_eq!(nearest("mehtod", words), Some("method"));
        assert_eq!(nearest("Users", words), Some("users"));
        assert_eq!(nearest("backend_clear_text", words), Some("backend_cleartext"));
        assert_eq!(nearest("meth", words), Some("method"));
        assert_eq!(nearest("users_file", words), Some("users"));
        assert_eq!(nearest("me", words), None);
        assert_eq!(nearest("pool", words), None);
        assert_eq!(nearest("", words), None);
        assert_eq!(nearest(&"x".repeat(1 << 20), words), None);
    }

    #[test]
    fn edits_are_counted() {
        let count = |a: &str, b: &str| edits(&a.chars().collect::<Vec<_>>(), &b.chars().collect::<Vec<_>>());
        assert_eq!((count("", "abc"), count("abc", ""), count("abc", "abc")), (3, 3, 0));
        assert_eq!((count("kitten", "sitting"), count("ab", "ba")), (3, 1));
    }
}
