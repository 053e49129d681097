//! What holds whatever a client of the console sends.

use proptest::prelude::*;

use super::*;

/// A message of any type, with a body that may be one of its own, or nonsense.
fn message() -> impl Strategy<Value = Vec<u8>> {
    let text = prop_oneof![Just("SHOW LISTS"), Just("PAUSE x"), Just(""), Just("RESUME"), Just("nonsense")];
    prop_oneof![
        text.clone().prop_map(|text| query(text).to_vec()),
        (text, "[ab]?").prop_map(|(text, name)| frontend::parse(name.as_bytes(), text.as_bytes(), &[]).to_vec()),
        ("[ab]?", "[ab]?").prop_map(|(portal, statement)| frontend::bind(portal.as_bytes(), statement.as_bytes()).to_vec()),
        ("[ab]?", 0..3_i32).prop_map(|(portal, rows)| frontend::execute(portal.as_bytes(), rows).to_vec()),
        "[ab]?".prop_map(|name| frontend::describe_statement(name.as_bytes()).to_vec()),
        "[ab]?".prop_map(|name| frontend::describe_portal(name.as_bytes()).to_vec()),
        "[ab]?".prop_map(|name| frontend::close_portal(name.as_bytes()).to_vec()),
        Just(frontend::sync().to_vec()),
        Just(frontend::flush().to_vec()),
        prop::collection::vec(any::<u8>(), 0..12),
    ]
}

proptest! {
    #[test]
    fn whatever_a_client_sends_is_answered_the_same_however_it_is_cut(
        messages in prop::collection::vec(message(), 0..20),
        at in any::<prop::sample::Index>(),
        may_everything in any::<bool>(),
    ) {
        let rights = if may_everything { Rights::Admin } else { Rights::Stats };
        let bytes = messages.concat();
        let (one, other) = bytes.split_at(at.index(bytes.len() + 1));
        prop_assert_eq!(play(rights, &[&bytes]), play(rights, &[one, other]));
    }

    #[test]
    fn no_text_makes_reading_a_command_panic(text in "\\PC*|[a-zA-Z \"';=/*-]*") {
        if let Err(fault) = Command::parse(text.as_bytes()) {
            prop_assert!(fault.message.len() < 1000);
        }
    }
}
