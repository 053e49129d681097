//! The `options` of a StartupMessage: switches of the server's command line, in one text.
//!
//! Read as PostgreSQL's `pg_split_opts` and the switch loop of its backends do, for the switches that name a setting
//! (`-c name=value`, `-cname=value`, `--name=value`). What else its command line knows is refused by name, not passed on.

use super::StartupError;

/// Switches that a PostgreSQL backend knows and that are not settings by name.
const OTHER_SWITCHES: &str = "BbCDdEeFfhijklNnOPprSsTtvW";

/// The settings, in the order in which they stand, names written with `_` for `-`.
pub(super) fn settings(options: &str) -> Result<Vec<(String, String)>, StartupError> {
    let mut settings = Vec::new();
    let mut words = split(options).into_iter();
    while let Some(word) = words.next() {
        let setting = if word == "--" {
            // The end of the switches: PostgreSQL refuses what follows, if something does.
            match words.next() {
                Some(word) => return Err(StartupError::InvalidOption(word)),
                None => break,
            }
        } else if let Some(long) = word.strip_prefix("--") {
            setting(long).ok_or_else(|| StartupError::OptionWithoutValue(format!("--{long}")))?
        } else if let Some(short) = word.strip_prefix("-c") {
            let argument = match short {
                "" => words.next().ok_or_else(|| StartupError::InvalidOption(word.clone()))?,
                joined => joined.to_owned(),
            };
            setting(&argument).ok_or_else(|| StartupError::OptionWithoutValue(format!("-c {argument}")))?
        } else {
            return Err(match word.strip_prefix('-').and_then(|switch| switch.chars().next()) {
                Some(switch) if OTHER_SWITCHES.contains(switch) => StartupError::UnsupportedOption(switch),
                Some(_) | None => StartupError::InvalidOption(word),
            });
        };
        settings.push(setting);
    }
    Ok(settings)
}

fn setting(argument: &str) -> Option<(String, String)> {
    let (name, value) = argument.split_once('=')?;
    Some((name.replace('-', "_"), value.to_owned()))
}

/// Splits at ASCII white space. A backslash makes the next character, whatever it is, part of the word; one at the end is dropped.
fn split(options: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut characters = options.chars();
    while let Some(character) = characters.next() {
        match character {
            ' ' | '\t' | '\n' | '\x0b' | '\x0c' | '\r' => words.extend(word.take()),
            '\\' => word.get_or_insert_default().extend(characters.next()),
            other => word.get_or_insert_default().push(other),
        }
    }
    words.extend(word);
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_end_at_white_space_that_no_backslash_guards() {
        let check = |options, words: &[&str]| assert_eq!(split(options), words, "{options:?}");
        check("", &[]);
        check(" \t\n\x0b\x0c\r ", &[]);
        check("  a b\tc  ", &["a", "b", "c"]);
        check(r"a\ b c\\d e\f", &["a b", r"c\d", "ef"]);
        check("a\\", &["a"]);
        check("\\", &[""]);
        check("a\u{a0}b", &["a\u{a0}b"]);
    }

    #[test]
    fn settings_come_in_three_forms() {
        let check = |options, name: &str, value: &str| {
            assert_eq!(settings(options), Ok(vec![(name.to_owned(), value.to_owned())]), "{options:?}");
        };
        check("-c helios.region=eu-west", "helios.region", "eu-west");
        check("-chelios.region=eu-west", "helios.region", "eu-west");
        check("--helios.region=eu-west", "helios.region", "eu-west");
        check("--statement-timeout=5s", "statement_timeout", "5s");
        check("-c a=", "a", "");
        check("-c a=b=c", "a", "b=c");
        check(r"-c a=b\ c", "a", "b c");
        check("-c a=1 --", "a", "1");
        check("-c --a=1", "__a", "1");
        check("-c =1", "", "1");
        assert_eq!(settings("-c a=1 -c a=2").map(|settings| settings.len()), Ok(2));
    }

    #[test]
    fn all_else_is_refused_by_name() {
        let check = |options, error| assert_eq!(settings(options), Err(error), "{options:?}");
        check("geqo=off", StartupError::InvalidOption("geqo=off".into()));
        check("-", StartupError::InvalidOption("-".into()));
        check("\\", StartupError::InvalidOption(String::new()));
        check("-c", StartupError::InvalidOption("-c".into()));
        check("-c a=1 -- b", StartupError::InvalidOption("b".into()));
        check("-x", StartupError::InvalidOption("-x".into()));
        check("-é", StartupError::InvalidOption("-é".into()));
        check("-S 1024", StartupError::UnsupportedOption('S'));
        check("-e -c a=1", StartupError::UnsupportedOption('e'));
        check("-c a", StartupError::OptionWithoutValue("-c a".into()));
        check("-ca", StartupError::OptionWithoutValue("-c a".into()));
        check("--a", StartupError::OptionWithoutValue("--a".into()));
    }
}
