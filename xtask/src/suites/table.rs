//! What the suites found, as a table, and whether it is good enough.

use super::Mode;

/// One suite in one mode.
#[derive(Default)]
pub struct Row {
    /// How many tests passed.
    pub passed: usize,
    /// Those that did not.
    pub failed: Vec<String>,
    /// Why nothing ran.
    skipped: Option<String>,
}

impl Row {
    /// A suite that could not run here.
    pub fn skipped(why: String) -> Self {
        Self { skipped: Some(why), ..Self::default() }
    }

    /// Reads `… NAME … ok …` and `… NAME … FAILED …`, one a line.
    pub fn read(output: &str) -> Self {
        let mut row = Self::default();
        for line in output.lines() {
            let Some((name, result)) = line.split_once(" ... ") else { continue };
            let Some(name) = name.split_whitespace().last() else { continue };
            match result.trim_start() {
                result if result.starts_with("ok") => row.passed += 1,
                _ => row.failed.push(name.to_owned()),
            }
        }
        row
    }
}

/// Prints all rows.
pub fn print(rows: &[(&str, Mode, Row)]) {
    println!("{:<16}{:<13}{:>6} {:>6}", "suite", "mode", "passed", "failed");
    for (suite, mode, row) in rows {
        let more = row.skipped.as_ref().map_or_else(|| row.failed.join(" "), |why| format!("skipped: {why}"));
        println!("{suite:<16}{:<13}{:>6} {:>6}  {more}", mode.name(), row.passed, row.failed.len());
    }
}

/// An error that names what fails through the proxy and passes without it.
pub fn verdict(rows: &[(&str, Mode, Row)]) -> Result<(), String> {
    let mut faults = Vec::new();
    for (suite, mode, row) in rows.iter().filter(|(_, mode, _)| *mode != Mode::Direct) {
        let direct = rows.iter().find(|(other, mode, _)| other == suite && *mode == Mode::Direct).map(|(.., row)| row);
        let known = |name: &&String| direct.is_some_and(|direct| direct.failed.contains(name));
        let worse: Vec<&str> = row.failed.iter().filter(|name| !known(name)).map(String::as_str).collect();
        if !worse.is_empty() {
            faults.push(format!("{suite}, {} mode: fails only through the proxy: {}", mode.name(), worse.join(" ")));
        }
        let all = |row: &Row| row.passed + row.failed.len();
        if direct.is_some_and(|direct| direct.skipped.is_none() && all(direct) > all(row)) {
            let why = row.skipped.as_deref().unwrap_or("not all of its tests were run");
            faults.push(format!("{suite}, {} mode: broke off: {why}", mode.name()));
        }
    }
    if faults.is_empty() { Ok(()) } else { Err(faults.join("\n")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_are_read_from_both_forms_of_lines() {
        let output = "test test_setup                   ... ok          317 ms\n\
                      parallel group (2 tests):  name boolean\n     boolean                      ... ok           61 ms\n\
                      \x20    name                         ... FAILED       42 ms\n 1 of 3 tests failed.\n";
        let row = Row::read(output);
        assert_eq!((row.passed, row.failed), (2, vec!["name".to_owned()]));
    }

    #[test]
    fn only_what_fails_through_the_proxy_alone_is_a_fault() {
        let row = |passed, failed: &[&str]| Row {
            passed,
            failed: failed.iter().map(|name| (*name).to_owned()).collect(),
            skipped: None,
        };
        let same = [("a", Mode::Direct, row(1, &["x"])), ("a", Mode::Session, row(1, &["x"]))];
        assert_eq!(verdict(&same), Ok(()));
        let worse = [("a", Mode::Direct, row(2, &["x"])), ("a", Mode::Session, row(1, &["x", "y"]))];
        assert_eq!(verdict(&worse), Err("a, session mode: fails only through the proxy: y".to_owned()));
        let fewer = [("a", Mode::Direct, row(2, &[])), ("a", Mode::Session, row(1, &[]))];
        assert_eq!(verdict(&fewer), Err("a, session mode: broke off: not all of its tests were run".to_owned()));
        let hung = [("a", Mode::Direct, row(2, &[])), ("a", Mode::Session, Row::skipped("it hangs".to_owned()))];
        assert_eq!(verdict(&hung), Err("a, session mode: broke off: it hangs".to_owned()));
    }
}
