//! Remembers what was read from a text, within fixed bounds of entries and of bytes.
//!
//! Two generations: what is new or asked for again is young; when the young are too many, the old are forgotten and the young
//! become old. So every operation takes constant time (but for the forgetting, which is spread over as many insertions), nothing
//! is ever searched for a victim, and a text that keeps coming back stays.

use std::collections::HashMap;
use std::mem;

use super::facts::{Reading, Statement};
use crate::limits::{SQL_CACHE_BYTES_MAX, SQL_CACHE_ENTRIES_MAX, SQL_CACHED_TEXT_BYTES_MAX};

/// What the texts of one worker were found to say.
pub(super) struct Cache {
    young: Generation,
    old: Generation,
}

#[derive(Default)]
struct Generation {
    readings: HashMap<Box<[u8]>, Reading>,
    bytes: usize,
}

impl Cache {
    pub(super) fn new() -> Self {
        Self { young: Generation::new(), old: Generation::new() }
    }

    /// What is known of `text`. Takes no memory.
    pub(super) fn get(&mut self, text: &[u8]) -> Option<&Reading> {
        if !self.young.readings.contains_key(text) {
            let (text, reading) = self.old.readings.remove_entry(text)?;
            self.old.bytes = self.old.bytes.saturating_sub(cost(&text, &reading));
            self.insert_young(text, reading);
        }
        self.young.readings.get(text)
    }

    /// Remembers what `text` says, unless it is too long to be worth it.
    pub(super) fn insert(&mut self, text: &[u8], reading: &Reading) {
        if text.len() <= SQL_CACHED_TEXT_BYTES_MAX && cost(text, reading) <= GENERATION_BYTES_MAX / 16 {
            self.insert_young(text.into(), reading.clone());
        }
    }

    fn insert_young(&mut self, text: Box<[u8]>, reading: Reading) {
        let cost = cost(&text, &reading);
        if self.young.readings.len() >= GENERATION_ENTRIES_MAX || self.young.bytes + cost > GENERATION_BYTES_MAX {
            mem::swap(&mut self.young, &mut self.old);
            self.young.readings.clear();
            self.young.bytes = 0;
        }
        self.young.bytes += cost;
        self.young.readings.insert(text, reading);
    }
}

impl Generation {
    fn new() -> Self {
        Self { readings: HashMap::with_capacity(GENERATION_ENTRIES_MAX), bytes: 0 }
    }
}

/// Bytes that an entry holds, roughly: the names and values in the facts are parts of the text.
fn cost(text: &[u8], reading: &Reading) -> usize {
    let statements = match reading {
        Reading::Known(facts) => facts.statements.len(),
        Reading::Plain | Reading::Refused(_) => 1,
    };
    2 * text.len() + statements * size_of::<Statement>()
}

const GENERATION_ENTRIES_MAX: usize = SQL_CACHE_ENTRIES_MAX / 2;
const GENERATION_BYTES_MAX: usize = SQL_CACHE_BYTES_MAX / 2;

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(message: &str) -> Reading {
        Reading::Refused(crate::sql::SyntaxRefusal {
            sqlstate: crate::wire::SqlState::SYNTAX_ERROR,
            message: message.into(),
            detail: None,
            position: None,
        })
    }

    #[test]
    fn what_is_asked_for_stays_and_the_rest_is_forgotten() {
        let mut cache = Cache::new();
        cache.insert(b"kept", &refused("kept"));
        for number in 0..4 * SQL_CACHE_ENTRIES_MAX {
            cache.insert(number.to_string().as_bytes(), &refused(""));
            assert_eq!(cache.get(b"kept"), Some(&refused("kept")));
            assert!(cache.young.readings.len() <= GENERATION_ENTRIES_MAX && cache.old.readings.len() <= GENERATION_ENTRIES_MAX);
        }
        assert_eq!(cache.get(b"0"), None);
    }

    #[test]
    fn bytes_are_bounded() {
        let mut cache = Cache::new();
        for number in 0..2 * SQL_CACHE_BYTES_MAX / SQL_CACHED_TEXT_BYTES_MAX {
            let text = format!("{number:0width$}", width = SQL_CACHED_TEXT_BYTES_MAX);
            cache.insert(text.as_bytes(), &refused(""));
            cache.get(format!("{:0width$}", number / 2, width = SQL_CACHED_TEXT_BYTES_MAX).as_bytes());
            assert!(cache.young.bytes + cache.old.bytes <= SQL_CACHE_BYTES_MAX);
        }
        let held = |generation: &Generation| generation.readings.iter().map(|(text, reading)| cost(text, reading)).sum::<usize>();
        assert_eq!((held(&cache.young), held(&cache.old)), (cache.young.bytes, cache.old.bytes));
        let long = vec![b'x'; SQL_CACHED_TEXT_BYTES_MAX + 1];
        cache.insert(&long, &refused(""));
        assert_eq!(cache.get(&long), None);
    }
}
