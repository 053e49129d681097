//! Entry point of the fuzzer of texts in `tests/fuzz`: it takes any bytes and panics where a property of this module does not hold.

use super::{Kind, Parameters, Reader, Reading, Statement, StringConstants, blank, facts, prefilter};

/// The text of a Query or Parse message; the first byte says under which setting it is read.
///
/// Properties: a text that passes unread is one ordinary statement at most; the statements of one that is read stand in it one behind
/// the other; what is blanked keeps its length; a reading that is remembered is the one that was made.
pub fn text(data: &[u8]) {
    let Some((first, text)) = data.split_first() else { return };
    let strings = if first & 1 == 0 { StringConstants::Conforming } else { StringConstants::Escaping };
    let names = ["helios.region".to_owned(), "domicile.region".to_owned()];
    let mut reader = Reader::new(&names);
    let reading = reader.read(text, strings);
    assert_eq!(reader.read(text, strings), reading);
    if !reader.is_ambiguous(text) {
        assert_eq!(reader.read(text, StringConstants::Conforming), reader.read(text, StringConstants::Escaping));
    }
    match reading {
        Reading::Plain => {
            assert!(prefilter::is_plain(text));
            // In the likeness of a text that is no UTF-8 a name may look like another one.
            if str::from_utf8(text).is_ok()
                && let Ok(facts) = facts(text, &Parameters::new(&names))
            {
                let is_ordinary = |statement: &Statement| statement.kind == Kind::Other { state: None };
                assert!(facts.statements.len() <= 1 && facts.statements.iter().all(is_ordinary));
            }
        }
        Reading::Known(facts) => {
            let mut end = 0;
            for statement in &facts.statements {
                let range = statement.range.clone();
                assert!(end <= range.start && range.start < range.end && range.end <= text.len());
                end = range.end;
                assert_eq!(blank(text, &[range]).len(), text.len());
            }
        }
        Reading::Refused(refusal) => assert!(!refusal.message.is_empty()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_seeds_hold() {
        crate::wire::fuzz::run_seeds("text", text);
    }
}
