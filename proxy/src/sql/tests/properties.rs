//! Properties over generated texts.

use proptest::prelude::*;
use proptest::sample::select;

use super::*;

/// Statements of every kind but [`Kind::Other`] without a state.
const REMARKABLE: &[&str] = &[
    "SET helios.region = 'eu'",
    "SET LOCAL domicile.region TO DEFAULT",
    "RESET helios.region",
    "RESET ALL",
    "DISCARD ALL",
    "SHOW helios.region",
    "SHOW domicile.node",
    "SELECT set_config ( 'helios.region' , 'eu' , false )",
    "SELECT pg_catalog . set_config ( 'helios.region' , 'eu' , true ) AS x",
    "BEGIN",
    "START TRANSACTION",
    "COMMIT",
    "END",
    "ROLLBACK",
    "ABORT",
    "ROLLBACK TO a",
    "SAVEPOINT a",
    "RELEASE a",
    "PREPARE TRANSACTION 'x'",
    "SET TRANSACTION READ ONLY",
    "SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY",
    "SET x = 1",
    "SET ROLE a",
    "RESET SESSION AUTHORIZATION",
    "SET standard_conforming_strings = off",
    "WITH a AS ( SELECT set_config ( 'helios.region' , 'eu' , false ) ) SELECT 1",
    "SELECT set_config ( 'a.b' , 'eu' , false ) , 1",
    "DO 'x'",
    "PREPARE p AS SELECT 1",
    "EXECUTE p",
    "DEALLOCATE p",
    "EXPLAIN ANALYZE EXECUTE p",
    "CREATE TABLE t AS EXECUTE p",
    "DECLARE c CURSOR WITH HOLD FOR SELECT 1",
    "LISTEN a",
    "UNLISTEN a",
    "CREATE TEMP TABLE t ( a int )",
    "CREATE LOCAL TEMPORARY VIEW v AS SELECT 1",
    "CREATE TABLE pg_temp . t ( a int )",
    "SELECT 1 INTO TEMPORARY t",
    "SELECT pg_advisory_lock ( 1 )",
    "UPDATE t SET a = pg_try_advisory_lock_shared ( 1 )",
    "SELECT dblink ( 'a' , 'b' )",
    "SELECT 1 FROM public . dblink_exec ( 'a' )",
    "INSERT INTO t SELECT lo_export ( 1 , 'a' )",
    "SELECT lo_import ( 'a' )",
    "SELECT pg_read_file ( 'a' )",
    "SELECT t . pg_ls_dir FROM lower ( 'a' ) t",
    "SELECT pg_create_logical_replication_slot ( 'a' , 'b' )",
    "COPY t TO PROGRAM 'a'",
    "COPY t FROM '/a'",
    "CREATE SERVER a FOREIGN DATA WRAPPER b",
    "CREATE USER MAPPING FOR a SERVER b",
    "CREATE EXTENSION dblink",
    "IMPORT FOREIGN SCHEMA a FROM SERVER b INTO c",
    "ALTER SYSTEM SET a = 1",
    "ALTER SUBSCRIPTION a DISABLE",
    "CREATE PUBLICATION a",
    "LOAD 'a'",
    "DO LANGUAGE plperlu 'a'",
    "CREATE OR REPLACE FUNCTION f ( ) RETURNS int LANGUAGE c AS 'a'",
];

const GAPS: &[&str] = &[" ", "\n", "\t", "\r\n", "\x0c", "/**/", " /* ; ' */ ", "/* /* */ */", "-- ; '\n", "--\r", " \n "];
const AROUND: &[&str] = &["", " ", "\n", ";", "; ", "/* é */", "-- é\n", ";;", "SELECT 'é;' ;", "INSERT INTO t VALUES ('') ;"];

/// A remarkable statement in random case, with random white space and comments, and things before and after it.
fn remarkable() -> impl Strategy<Value = String> {
    let gaps = prop::collection::vec(select(GAPS), 40);
    (select(REMARKABLE), gaps, any::<u64>(), select(AROUND), select(&["", ";", " ", "\n-- é", ";SELECT 1", "; \n;"][..]))
        .prop_map(|(statement, gaps, cases, before, after)| {
            let mut text = before.to_owned();
            for (number, (word, gap)) in statement.split(' ').zip(gaps).enumerate() {
                text.push_str(if number == 0 { "" } else { gap });
                let is_quoted = word.starts_with('\'');
                text.extend(word.chars().enumerate().map(|(index, letter)| {
                    if !is_quoted && cases >> ((number * 7 + index) % 64) & 1 == 1 { letter.to_ascii_uppercase() } else { letter }
                }));
            }
            text + after
        })
}

/// Any row of what the scanner tells apart.
fn soup() -> impl Strategy<Value = String> {
    const PIECES: &[&str] = &[
        "SET ",
        "RESET ",
        "helios.region",
        "set_config",
        "(",
        ")",
        "'",
        "''",
        "\"",
        "$$",
        "$a$",
        ";",
        "--",
        "/*",
        "*/",
        "\n",
        " ",
        "=",
        "é",
        "🙂",
        "E'",
        "U&'",
        "U&\"",
        "\\",
        "1",
        "a",
        ",",
        "SELECT ",
        "BEGIN",
        "END",
        "TEMP ",
        "INTO ",
        "PREPARE ",
        "AS ",
        "EXECUTE ",
        "EXPLAIN ",
        "UESCAPE ",
        ".",
        "pg_temp",
        "::",
        "=>",
        "+",
        "[",
        "]",
        "$1",
        "CREATE ",
        "WITH ",
        "HOLD ",
        "DECLARE ",
        "CURSOR ",
        "\u{feff}",
        "true",
        "dblink",
        "pg_read_file",
        "COPY ",
        "PROGRAM ",
        "TO ",
    ];
    prop::collection::vec(select(PIECES), 0..30).prop_map(|pieces| pieces.concat())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn the_pre_filter_lets_nothing_remarkable_pass(text in remarkable()) {
        let Reading::Known(facts) = reader().read(text.as_bytes(), StringConstants::Conforming) else { panic!("{text:?} is {}", say(&text)) };
        let is_remarkable =
            |statement: &Statement| statement.kind != (Kind::Other { state: None }) || !statement.guards.is_empty();
        prop_assert!(facts.statements.iter().any(is_remarkable), "{text:?} is {}", say(&text));
    }

    #[test]
    fn any_text_is_answered_and_its_ranges_are_sound(text in soup()) {
        if let Reading::Known(facts) = reader().read(text.as_bytes(), StringConstants::Conforming) {
            let mut end = 0;
            for statement in &facts.statements {
                prop_assert!(statement.range.start >= end && statement.range.start < statement.range.end);
                prop_assert!(text.get(statement.range.clone()).is_some());
                end = statement.range.end;
            }
        }
    }

    #[test]
    fn plain_texts_are_single_ordinary_statements(text in soup()) {
        if prefilter::is_plain(text.as_bytes())
            && let Ok(facts) = facts(text.as_bytes(), &Parameters::new(&["helios.region".to_owned()]))
        {
            prop_assert!(facts.statements.len() <= 1);
            prop_assert!(facts.statements.iter().all(|statement| {
                statement.kind == Kind::Other { state: None } && statement.guards.is_empty()
            }), "{text:?}");
        }
    }

    #[test]
    fn bytes_of_any_encoding_are_answered(
        text in soup(),
        bytes in prop::collection::vec((any::<prop::sample::Index>(), 0x80_u8..), 0..4),
    ) {
        let mut text = text.into_bytes();
        bytes.iter().for_each(|(index, byte)| text.insert(index.index(text.len() + 1), *byte));
        if let Reading::Known(facts) = reader().read(&text, StringConstants::Conforming) {
            prop_assert!(facts.statements.iter().all(|statement| text.get(statement.range.clone()).is_some()));
        }
    }

    #[test]
    fn blanking_keeps_length_and_positions(
        text in "[a-zé🙂;' ]{0,40}",
        from in any::<prop::sample::Index>(),
        to in any::<prop::sample::Index>(),
    ) {
        let places: Vec<usize> = text.char_indices().map(|(at, _)| at).chain([text.len()]).collect();
        let (from, to) = (from.index(places.len()), to.index(places.len()));
        let (from, to) = (from.min(to), from.max(to));
        let range = places[from]..places[to];
        let blanked = String::from_utf8(blank(text.as_bytes(), &[range])).unwrap();
        prop_assert_eq!(blanked.len(), text.len());
        let expected = text.chars().enumerate().map(|(place, one)| if (from..to).contains(&place) { ' ' } else { one });
        prop_assert!(blanked.chars().zip(expected).all(|(one, other)| one == other));
        prop_assert!(blanked.chars().skip(text.chars().count()).all(|rest| rest == ' '));
    }
}
