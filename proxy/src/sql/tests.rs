//! Tables of texts and what they say, and the hiding places that were thought of.

mod bounds;
mod guards;
mod properties;

use super::*;

/// What a text says, in a few words: one line a statement.
fn say(text: impl AsRef<[u8]>) -> String {
    match reader().read(text.as_ref(), StringConstants::Conforming) {
        Reading::Plain => "plain".to_owned(),
        Reading::Refused(refusal) => format!("{} {}", refusal.sqlstate, refusal.message),
        Reading::Known(facts) => facts.statements.iter().map(|statement| kind(&statement.kind)).collect::<Vec<_>>().join(" | "),
    }
}

fn reader() -> Reader {
    Reader::new(&["domicile.region".to_owned(), "helios.region".to_owned()])
}

fn kind(kind: &Kind) -> String {
    let scope = |local: &bool| if *local { " local" } else { "" };
    let chained = |chain: &bool| if *chain { " and chain" } else { "" };
    match kind {
        Kind::SetRegion { value, local } => format!("region{} {value:?}", scope(local)),
        Kind::ResetRegion { local } => format!("reset region{}", scope(local)),
        Kind::ResetAll => "reset all".to_owned(),
        Kind::DiscardAll => "discard all".to_owned(),
        Kind::ShowRegion { column } => format!("show {column}"),
        Kind::ShowNode { column } => format!("show node {column}"),
        Kind::SetConfigRegion { value, local, column } => format!("set_config{} {value:?} as {column}", scope(local)),
        Kind::Begin => "begin".to_owned(),
        Kind::Commit { chain } => format!("commit{}", chained(chain)),
        Kind::Rollback { chain } => format!("rollback{}", chained(chain)),
        Kind::RollbackTo { name } => format!("rollback to {name}"),
        Kind::Savepoint { name } => format!("savepoint {name}"),
        Kind::Release { name } => format!("release {name}"),
        Kind::PrepareTransaction => "prepare transaction".to_owned(),
        Kind::SetTransaction => "set transaction".to_owned(),
        Kind::SetOther { name, extent } => {
            let extent = match extent {
                Extent::Session => "",
                Extent::Transaction => " (local)",
                Extent::Start => " (back)",
            };
            format!("set {name}{extent}")
        }
        Kind::Deallocate { name } => format!("deallocate {}", name.as_deref().unwrap_or("ALL")),
        Kind::Refused(refusal) => format!("refused {}", refusal.sqlstate),
        Kind::Other { state: None } => "other".to_owned(),
        Kind::Other { state: Some(state) } => format!("other, {state:?}"),
    }
}

fn check(table: &[(&str, &str)]) {
    for (text, expected) in table {
        assert_eq!(say(text), *expected, "{text}");
    }
}

#[test]
fn the_region_is_set_shown_and_reset() {
    check(&[
        ("SET helios.region = 'eu-west'", r#"region "eu-west""#),
        ("SET helios.region TO 'eu-west';", r#"region "eu-west""#),
        ("set session helios.region = 'eu-west'", r#"region "eu-west""#),
        ("SET LOCAL helios.region = 'eu-west'", r#"region local "eu-west""#),
        ("SET domicile.region = 'us'", r#"region "us""#),
        ("SET helios.region = ''", r#"region """#),
        ("SET helios.region = eu", r#"region "eu""#),
        ("SET helios.region = EU", r#"region "eu""#),
        (r#"SET helios.region = "EU""#, r#"region "EU""#),
        ("SET helios.region = on", r#"region "on""#),
        ("SET helios.region = TRUE", r#"region "true""#),
        ("SET helios.region = 007", r#"region "7""#),
        ("SET helios.region = -5", r#"region "-5""#),
        ("SET helios.region = +5", r#"region "5""#),
        ("SET helios.region = 1.50", r#"region "1.50""#),
        ("SET helios.region = -99999999999", r#"region "-99999999999""#),
        ("SET helios.region = E'eu\\x2dwest'", r#"region "eu-west""#),
        (r"SET helios.region = U&'eu\002dwest'", r#"region "eu-west""#),
        ("SET helios.region = U&'eu!002dwest' UESCAPE '!'", r#"region "eu-west""#),
        ("SET helios.region = $$eu-west$$", r#"region "eu-west""#),
        ("SET helios.region = 'eu-' \n 'west'", r#"region "eu-west""#),
        (r"SET helios.region = 'eu\x2d'", r#"region "eu\\x2d""#),
        ("SET helios.region = 'it''s'", r#"region "it's""#),
        ("SET Helios.REGION = 'eu'", r#"region "eu""#),
        (r#"SET "helios"."region" = 'eu'"#, r#"region "eu""#),
        (r#"SET "helios.region" = 'eu'"#, r#"region "eu""#),
        (r#"SET "Helios"."Region" = 'eu'"#, r#"region "eu""#),
        (r#"SET U&"h\0065lios".region = 'eu'"#, r#"region "eu""#),
        (r#"SET U&"h!0065lios.region" UESCAPE '!' = 'eu'"#, r#"region "eu""#),
        ("SET helios . region = 'eu'", r#"region "eu""#),
        ("SET helios.region TO DEFAULT", "reset region"),
        ("SET LOCAL helios.region = DEFAULT", "reset region local"),
        ("RESET helios.region", "reset region"),
        (r#"RESET "HELIOS.region""#, "reset region"),
        ("RESET ALL", "reset all"),
        ("DISCARD ALL", "discard all"),
        ("SHOW helios.region", "show helios.region"),
        ("SHOW Helios.Region", "show helios.region"),
        (r#"SHOW "DOMICILE.region""#, "show domicile.region"),
        ("SHOW domicile.node", "show node domicile.node"),
        ("SHOW Domicile.NODE", "show node domicile.node"),
        ("SET helios.region = 'a', 'b'", "refused 22023"),
        ("SET helios.region = $1", "refused 42601"),
        ("SET helios.region FROM CURRENT", "refused 0A000"),
        ("SET helios.region", "42601 syntax error at end of input"),
        ("SET helios.region = NULL", "42601 syntax error at or near \"NULL\""),
        ("SET helios.region = 'a' || 'b'", "42601 syntax error at or near \"||\""),
    ]);
}

#[test]
fn statements_that_begin_like_ours_are_not_ours() {
    check(&[
        ("SET helios.regions = 'x'", "set helios.regions"),
        ("SET region = 'x'", "set region"),
        ("SET helios.region.x = 'x'", "set helios.region.x"),
        (r#"SET "helios".region."x" = 'x'"#, "set helios.region.x"),
        ("SET LOCAL statement_timeout = 5", "set statement_timeout (local)"),
        ("SET x FROM CURRENT", "set x"),
        ("SET LOCAL x FROM CURRENT", "set x (local)"),
        ("RESET statement_timeout", "set statement_timeout (back)"),
        ("RESET ROLE", "set role (back)"),
        ("RESET SESSION AUTHORIZATION", "set session_authorization (back)"),
        ("RESET TIME ZONE", "set timezone (back)"),
        ("SET ROLE alice", "set role"),
        ("SET LOCAL ROLE NONE", "set role (local)"),
        ("SET SESSION AUTHORIZATION alice", "set session_authorization"),
        ("SET TIME ZONE 'UTC'", "set timezone"),
        ("SET TIME ZONE INTERVAL '1' HOUR TO MINUTE", "set timezone"),
        ("SET XML OPTION CONTENT", "set xmloption"),
        ("SET SCHEMA 'a'", "set search_path"),
        ("SET search_path = a, b", "set search_path"),
        ("SET search_path = pg_temp", "other, TemporaryTable"),
        ("SET LOCAL search_path = a, PG_TEMP", "other, TemporaryTable"),
        ("SET SCHEMA 'pg_temp'", "other, TemporaryTable"),
        ("SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY", "set "),
        ("SET TRANSACTION ISOLATION LEVEL SERIALIZABLE", "set transaction"),
        ("SET LOCAL TRANSACTION READ ONLY", "set transaction"),
        ("SET SESSION TRANSACTION READ WRITE, DEFERRABLE", "set transaction"),
        ("SET transaction_isolation = 'serializable'", "set transaction_isolation"),
        ("SET TRANSACTION SNAPSHOT '00-1'", "other"),
        ("SET CONSTRAINTS ALL DEFERRED", "other"),
        ("SHOW ALL", "other"),
        ("SHOW statement_timeout", "other"),
        ("SHOW TRANSACTION ISOLATION LEVEL", "other"),
        ("SHOW SESSION AUTHORIZATION", "other"),
        ("DISCARD PLANS", "other"),
        ("DISCARD TEMP", "other"),
        ("DISCARD TEMPORARY", "other"),
        ("DISCARD SEQUENCES", "other"),
        ("ALTER SYSTEM SET helios.region = 'eu'", "other"),
        ("ALTER ROLE alice SET helios.region = 'eu'", "other"),
        ("UPDATE t SET a = 1", "plain"),
        ("UPDATE t SET reset = 1, show = 2 WHERE discard", "plain"),
    ]);
}

#[test]
fn transactions_are_told_apart() {
    check(&[
        ("BEGIN", "begin"),
        ("begin work", "begin"),
        ("BEGIN TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY, NOT DEFERRABLE", "begin"),
        ("START TRANSACTION READ ONLY", "begin"),
        ("COMMIT", "commit"),
        ("END", "commit"),
        ("END WORK", "commit"),
        ("COMMIT AND CHAIN", "commit and chain"),
        ("END TRANSACTION AND NO CHAIN", "commit"),
        ("ROLLBACK", "rollback"),
        ("ABORT", "rollback"),
        ("ABORT AND CHAIN", "rollback and chain"),
        ("ROLLBACK TO a", "rollback to a"),
        ("ROLLBACK WORK TO SAVEPOINT A", "rollback to a"),
        (r#"SAVEPOINT "A b""#, "savepoint A b"),
        (r#"SAVEPOINT U&"\0061""#, "savepoint a"),
        ("RELEASE a", "release a"),
        ("RELEASE SAVEPOINT a", "release a"),
        ("PREPARE TRANSACTION 'x'", "prepare transaction"),
        ("PREPARE TRANSACTION U&'x'", "prepare transaction"),
        ("PREPARE /* p */ TRANSACTION E'x'", "prepare transaction"),
        ("COMMIT PREPARED 'x'", "other"),
        ("ROLLBACK PREPARED 'x'", "other"),
        ("COMMIT; BEGIN", "commit | begin"),
        ("BEGIN; SET LOCAL helios.region = 'eu'; SELECT 1; COMMIT", r#"begin | region local "eu" | other | commit"#),
        ("START", "42601 syntax error at end of input"),
        ("COMMITS", "42601 syntax error at or near \"COMMITS\""),
    ]);
}

#[test]
fn what_stays_in_a_session_is_noticed() {
    check(&[
        ("PREPARE p AS SELECT 1", "other, Prepare"),
        ("PREPARE transaction AS SELECT 1", "other, Prepare"),
        ("PREPARE transaction (int) AS SELECT 1", "other, Prepare"),
        ("EXECUTE p", "other, Prepare"),
        ("DEALLOCATE ALL", "deallocate ALL"),
        ("EXPLAIN EXECUTE p", "other, Prepare"),
        ("EXPLAIN ANALYZE VERBOSE EXECUTE p(1)", "other, Prepare"),
        ("EXPLAIN (ANALYZE, FORMAT json, SERIALIZE text) EXECUTE p", "other, Prepare"),
        ("CREATE TABLE t AS EXECUTE p", "other, Prepare"),
        ("CREATE UNLOGGED TABLE IF NOT EXISTS t (a, b) AS /* x */ EXECUTE p WITH NO DATA", "other, Prepare"),
        ("EXPLAIN ANALYZE CREATE TABLE t AS EXECUTE p", "other, Prepare"),
        ("CREATE VIEW v AS SELECT a AS execute FROM t", "other"),
        ("CREATE TRIGGER x AFTER INSERT ON t EXECUTE FUNCTION f()", "other"),
        ("GRANT EXECUTE ON FUNCTION f() TO alice", "plain"),
        ("SELECT executed_at FROM t", "plain"),
        ("EXPLAIN SELECT 1", "plain"),
        ("LISTEN a", "other, Listen"),
        ("UNLISTEN *", "other, Listen"),
        ("NOTIFY a, 'listen'", "plain"),
        ("DO $$ BEGIN PERFORM 1; END $$", "other, Setting"),
        ("DECLARE c CURSOR WITH HOLD FOR SELECT 1", "other, HeldCursor"),
        ("DECLARE cursor BINARY NO SCROLL CURSOR WITH HOLD FOR SELECT 1", "other, HeldCursor"),
        ("DECLARE c CURSOR FOR SELECT 1", "other"),
        ("DECLARE c CURSOR WITHOUT HOLD FOR SELECT cursor FROM x", "other"),
        ("DECLARE c CURSOR FOR WITH hold AS (SELECT 1) SELECT 1", "other"),
        ("CREATE TEMP TABLE t (a int)", "other, TemporaryTable"),
        ("create temporary sequence s", "other, TemporaryTable"),
        ("CREATE LOCAL TEMP TABLE t AS SELECT 1", "other, TemporaryTable"),
        ("CREATE GLOBAL TEMPORARY TABLE t (a int)", "other, TemporaryTable"),
        ("CREATE OR REPLACE TEMP VIEW v AS SELECT 1", "other, TemporaryTable"),
        ("CREATE TEMP RECURSIVE VIEW v (a) AS SELECT 1", "other, TemporaryTable"),
        ("CREATE/**/TEMP/**/TABLE t (a int)", "other, TemporaryTable"),
        ("EXPLAIN ANALYZE CREATE TEMP TABLE t AS SELECT 1", "other, TemporaryTable"),
        ("SELECT 1 INTO TEMP t", "other, TemporaryTable"),
        ("SELECT 1 INTO TEMPORARY TABLE t", "other, TemporaryTable"),
        ("WITH a AS (SELECT 1) SELECT * INTO LOCAL TEMP t FROM a", "other, TemporaryTable"),
        ("CREATE TABLE pg_temp.t (a int)", "other, TemporaryTable"),
        (r#"CREATE TABLE "pg_temp" . t (a int)"#, "other, TemporaryTable"),
        ("CREATE TABLE PG_TEMP_12.t (a int)", "other, TemporaryTable"),
        (r#"CREATE FUNCTION U&"pg\005ftemp".f() RETURNS int RETURN 1"#, "other, TemporaryTable"),
        ("INSERT INTO temp VALUES (1)", "other"),
        ("INSERT INTO temp t VALUES (1)", "42601 syntax error at or near \"t\""),
        ("INSERT INTO temp AS t VALUES (1)", "other"),
        ("SELECT 1 INTO temp FROM x", "other"),
        ("SELECT 1 INTO temp", "other"),
        ("MERGE INTO temp t USING s ON true WHEN MATCHED THEN DO NOTHING", "other"),
        ("SELECT temp FROM temperature", "other"),
        ("SELECT temperature, temp_max, attempt FROM t", "plain"),
        ("SELECT 'CREATE TEMP TABLE'", "other"),
        ("SELECT pg_advisory_lock(1)", "other, AdvisoryLock"),
        ("SELECT pg_catalog.PG_TRY_ADVISORY_LOCK_SHARED(1, 2)", "other, AdvisoryLock"),
        (r#"SELECT 1 WHERE "pg_advisory_unlock" (1)"#, "other, AdvisoryLock"),
        ("WITH a AS (SELECT pg_advisory_unlock_all()) SELECT 1", "other, AdvisoryLock"),
        ("SELECT pg_advisory_xact_lock(1), pg_try_advisory_xact_lock_shared(2)", "other"),
        ("SELECT pg_advisory_lock FROM t", "other"),
        ("SELECT 'pg_advisory_lock(1)'", "other"),
    ]);
}

#[test]
fn set_config_is_seen_wherever_it_stands() {
    check(&[
        ("SELECT set_config('helios.region', 'eu', false)", r#"set_config Some("eu") as set_config"#),
        ("SELECT SET_CONFIG('Helios.Region', 'eu', TRUE) AS x;", r#"set_config local Some("eu") as x"#),
        (r#"SELECT pg_catalog . "set_config"('domicile.region', 'eu', false) "X y""#, r#"set_config Some("eu") as X y"#),
        (r#"SELECT U&"set!005fconfig" UESCAPE '!' ('helios.region', 'eu', false)"#, r#"set_config Some("eu") as set_config"#),
        (
            concat!(
                r#"SELECT U&"\0070g_catalog" UESCAPE '\' . U&"set!005fconfig" UESCAPE '!' "#,
                r#"(U&'!0068elios.region' UESCAPE '!', U&'e!0075' UESCAPE '!', false) AS U&"!0061" UESCAPE '!'"#
            ),
            r#"set_config Some("eu") as a"#,
        ),
        ("SELECT set_config(E'helios\\x2eregion', $$eu$$, false) AS select", r#"set_config Some("eu") as select"#),
        ("SELECT set_config($q$helios.region$q$, NULL, false)", "set_config None as set_config"),
        ("SELECT set_config('helios.region', '', false)", r#"set_config Some("") as set_config"#),
        ("SELECT (set_config('helios.region', 'eu', false))", r#"set_config Some("eu") as set_config"#),
        ("SELECT set_config('helios.region', $1, false)", "refused 0A000"),
        ("SELECT set_config('helios.region', 'eu', 'f')", "refused 0A000"),
        ("SELECT set_config('helios.region', 'eu'::text, false)", "refused 0A000"),
        ("SELECT set_config(CAST('helios.region' AS text), 'eu', false)", "refused 0A000"),
        ("SELECT set_config(setting_name => 'helios.region', new_value => 'eu', is_local => false)", "refused 0A000"),
        ("SELECT set_config(new_value := 'eu', is_local := false, setting_name := 'helios.region')", "refused 0A000"),
        ("SELECT set_config('helios.region', 'eu', false), 1", "refused 0A000"),
        ("SELECT 1, set_config('helios.region', 'eu', false)", "refused 0A000"),
        ("SELECT set_config('helios.region', 'eu', false) FROM t", "refused 0A000"),
        ("SELECT set_config('helios.region', 'eu', false) WHERE true", "refused 0A000"),
        ("SELECT set_config('helios.region', 'eu', false) LIMIT 0", "refused 0A000"),
        ("SELECT set_config('helios.region', 'eu', false) ISNULL", "refused 0A000"),
        ("SELECT set_config('helios.region', 'eu', false) INTO x", "refused 0A000"),
        ("SELECT DISTINCT set_config('helios.region', 'eu', false)", "refused 0A000"),
        ("SELECT set_config('helios.region', 'eu', false) UNION SELECT 1", "refused 0A000"),
        ("SELECT NOT set_config('helios.region', 'eu', false)", "refused 0A000"),
        ("SELECT set_config('helios.region', 'eu', false) OVER ()", "refused 0A000"),
        ("SELECT set_config(DISTINCT 'helios.region', 'eu', false)", "refused 0A000"),
        ("SELECT x.set_config('helios.region', 'eu', false)", "refused 0A000"),
        ("(SELECT set_config('helios.region', 'eu', false))", "refused 0A000"),
        ("VALUES (set_config('helios.region', 'eu', false))", "refused 0A000"),
        ("SELECT * FROM set_config('helios.region', 'eu', false)", "refused 0A000"),
        ("WITH a AS (SELECT set_config('helios.region', 'eu', false)) SELECT 1", "refused 0A000"),
        ("SELECT 1 WHERE set_config('helios.region', 'eu', false) = ''", "refused 0A000"),
        ("SELECT set_config('a.b', set_config('helios.region', 'eu', false), false)", "refused 0A000"),
        ("INSERT INTO t VALUES (set_config('helios.region', 'eu', true))", "refused 0A000"),
        ("UPDATE t SET a = set_config('helios.region', 'eu', true)", "refused 0A000"),
        ("CREATE TABLE t (a text DEFAULT set_config('helios.region', 'eu', true))", "refused 0A000"),
        ("CREATE FUNCTION f() RETURNS text RETURN set_config('helios.region', 'eu', true)", "refused 0A000"),
        ("PREPARE p AS SELECT set_config('helios.region', 'eu', true)", "refused 0A000"),
        ("EXPLAIN ANALYZE SELECT set_config('helios.region', 'eu', false)", "refused 0A000"),
        ("COPY (SELECT set_config('helios.region', 'eu', false)) TO STDOUT", "refused 0A000"),
        ("DECLARE c CURSOR WITH HOLD FOR SELECT set_config('helios.region', 'eu', false)", "refused 0A000"),
        ("SELECT set_config(/* ( , */ 'helios.region' -- )\n, 'eu', false), 1", "refused 0A000"),
        ("SELECT set_config('a.b', 'c', false)", "other, Setting"),
        ("SELECT set_config(a, b, false) FROM t", "other, Setting"),
        ("SELECT set_config('helios' || '.region', 'eu', false)", "other, Setting"),
        ("SELECT set_config('a.b', current_setting('helios.region'), false)", "other, Setting"),
        ("SELECT set_config FROM t", "other"),
        ("SELECT 'set_config(''helios.region'', ''eu'', false)'", "other"),
        ("SELECT /* set_config('helios.region','eu',false) */ 1", "other"),
        ("SELECT xset_config('helios.region', 'eu', false)", "other"),
    ]);
}

#[test]
fn settings_that_change_how_texts_are_read_are_refused() {
    check(&[
        ("SET standard_conforming_strings = off", "set standard_conforming_strings"),
        ("SET standard_conforming_strings = on", "set standard_conforming_strings"),
        ("SET standard_conforming_strings TO DEFAULT", "set standard_conforming_strings (back)"),
        ("SET NAMES 'SJIS'", "refused 22023"),
        ("SET NAMES 'UTF8'", "set client_encoding"),
        ("SET NAMES", "set client_encoding (back)"),
        ("SET client_encoding = big5", "refused 22023"),
        ("SET client_encoding TO 'Shift_JIS_2004'", "refused 22023"),
        ("SET client_encoding TO latin1", "set client_encoding"),
        ("SELECT set_config('client_encoding', 'GBK', false)", "refused 22023"),
        ("SELECT set_config('client_encoding', U&'GB!004b' UESCAPE '!', false)", "refused 22023"),
        ("SELECT set_config('client_encoding', 'UTF8', false)", "other, Setting"),
        ("SELECT set_config('client_encoding', x, false) FROM t", "refused 22023"),
        ("SELECT set_config('client_encoding', 'UTF8' || y, false)", "refused 22023"),
        ("SELECT set_config('standard_conforming_strings', 'off', true)", "other"),
        ("SET backslash_quote = on", "set backslash_quote"),
    ]);
}

#[test]
fn nothing_hides_in_the_text() {
    check(&[
        ("", ""),
        (" \t\r\n\x0c\x0b", ""),
        (";; ;", ""),
        ("-- SET helios.region = 'eu'", ""),
        ("/* SET helios.region = 'eu'; */ ;", ""),
        ("/**/SET/**/helios/**/./**/region/**/=/**/'eu'/**/", r#"region "eu""#),
        ("-- x\nSET helios.region = 'eu'", r#"region "eu""#),
        ("-- x\rSET helios.region = 'eu'", r#"region "eu""#),
        ("/* /* */ */ SET helios.region = 'eu'", r#"region "eu""#),
        ("/* /* */ SET helios.region = 'eu'; */ SELECT 1", "other"),
        ("/* ' */ SET helios.region = 'eu' /* ' */", r#"region "eu""#),
        ("\x0cSET\x0bhelios.region\r=\t'eu'", r#"region "eu""#),
        ("sEt HELIOS.region = 'eu'", r#"region "eu""#),
        ("S/**/ET helios.region = 'eu'", "42601 syntax error at or near \"S\""),
        ("\u{feff}SET helios.region = 'eu'", "42601 syntax error at or near \"\u{feff}SET\""),
        ("SET\u{a0}helios.region = 'eu'", "42601 syntax error at or near \"SET\u{a0}helios\""),
        ("\u{a0}SELECT 1", "42601 syntax error at or near \"\u{a0}SELECT\""),
        ("SET helios.reg\u{131}on = 'eu'", "set helios.reg\u{131}on"),
        ("SELECT a\u{ff1b} SET helios.region = 'eu'", "plain"),
        ("SELECT ';SET helios.region = 1;'", "other"),
        (r"SELECT '\'; SET helios.region = 'eu'", r#"other | region "eu""#),
        (r"SELECT E'\'; SET helios.region = ''eu'", "other"),
        (r"SELECT E'\\'; SET helios.region = 'eu'", r#"other | region "eu""#),
        ("SELECT ''';SET helios.region = ''eu''';", "other"),
        (r#"SELECT ";SET helios.region";"#, "other"),
        (r#"SELECT """;SET helios.region" FROM t"#, "other"),
        ("SELECT $$;SET helios.region = 'eu';$$", "other"),
        ("SELECT $a$;$b$;SET x = 1;$a;$a$; RESET ALL", "other | reset all"),
        ("SELECT $é$;SET x = 1;$é$; RESET ALL", "other | reset all"),
        ("SELECT a$$; RESET ALL; --$$", "other | reset all"),
        ("SELECT 1$$; RESET ALL; --$$", "42601 syntax error at or near \"$$; RESET ALL; --$$\""),
        ("SELECT 1a$$; RESET ALL; --$$", "42601 trailing junk after numeric literal at or near \"1a$$\""),
        ("SELECT $1; RESET ALL", "other | reset all"),
        ("SELECT U&'\\0027; RESET ALL; --'", "other"),
        ("SELECT U&'!' UESCAPE '!'; RESET ALL", "42601 invalid Unicode escape"),
        ("SELECT B'1'; RESET ALL", "other | reset all"),
        ("SELECT N'x;' 'y'", "42601 syntax error at or near \"'y'\""),
        ("SELECT 'a' -- ;\n';'; RESET ALL", "other | reset all"),
        ("SELECT 1 -- ; RESET ALL", "other"),
        ("SELECT 1 --\\\n; RESET ALL", "other | reset all"),
        ("SELECT 1; SET helios.region = 'eu'; SELECT 2", r#"other | region "eu" | other"#),
        ("SET helios.region = 'eu' -- x\n; SET x = 1 /* ; */; SELECT 1", r#"region "eu" | set x | other"#),
        ("CREATE RULE r AS ON INSERT TO t DO (SELECT 1; SELECT 2); RESET ALL", "other | reset all"),
        ("CREATE FUNCTION f() RETURNS int BEGIN ATOMIC SELECT 1; SELECT 2; END; RESET ALL", "other | reset all"),
        ("CREATE FUNCTION f() RETURNS int LANGUAGE sql SET helios.region = 'eu' AS 'SELECT 1'", "other"),
        ("WITH x AS (SELECT 1) SELECT 1; BEGIN", "other | begin"),
        ("(SELECT 1)", "other"),
        ("SELECT 1;", "plain"),
        ("SELECT 1 ;;\n ; ", "plain"),
        ("SELECT'a'", "plain"),
        ("SELECT\"a\"", "plain"),
        ("select*from t", "plain"),
        ("selects", "42601 syntax error at or near \"selects\""),
        ("SELECT é; x", "42601 syntax error at or near \"x\""),
        ("SELECT 'x; SELECT 1", "42601 unterminated quoted string at or near \"'x; SELECT 1\""),
        ("SELECT /* ; SELECT 1", "42601 unterminated /* comment at or near \"/* ; SELECT 1\""),
        ("SELECT $x$; SELECT 1", "42601 unterminated dollar-quoted string at or near \"$x$; SELECT 1\""),
        ("SET x = 1\0; SELECT 1", "42601 statement contains a zero byte"),
    ]);
}

#[test]
fn other_encodings_move_nothing_and_make_no_keyword() {
    assert_eq!(say(b"SELECT 'caf\xe9;'; RESET ALL"), "other | reset all");
    assert_eq!(say(b"SELECT caf\xe9; RESET ALL"), "other | reset all");
    assert_eq!(say(b"SET\xa0helios.region = 'eu'"), "42601 syntax error at or near \"SET_helios\"");
    assert_eq!(say(b"\xa0SELECT 1"), "42601 syntax error at or near \"_SELECT\"");
    assert_eq!(say(b"SELECT $\xe9$;$\xe9$; RESET ALL"), "other | reset all");
    assert_eq!(say(b"SET application_name = 'caf\xe9'"), "set application_name");
    // What only looks like ours is not taken for it.
    assert_eq!(say(b"SET helios.region = 'eu\xe9'"), "refused 22021");
    assert_eq!(say(b"SET helios.region = 'eu' /* \xe9 */; SELECT 1"), "refused 22021 | other");
    assert_eq!(say(b"SELECT set_config('helios.region', 'eu\xe9', false)"), "refused 22021");
    assert_eq!(say(b"SAVEPOINT caf\xe9"), "refused 22021");
    assert_eq!(say(b"SELECT '\xe9'; SAVEPOINT a"), "other | savepoint a");
    assert_eq!(Reader::new(&["a_b.region".to_owned()]).read(b"SET a\xe9b.region = 'eu'", StringConstants::Conforming), {
        let refused = Kind::Refused(Refusal {
            sqlstate: SqlState::CHARACTER_NOT_IN_REPERTOIRE,
            message: "invalid byte sequence for encoding \"UTF8\"".into(),
            hint: Some("Names and values that the proxy has to understand are read as UTF-8."),
        });
        Reading::Known(Rc::new(Facts { statements: [Statement { range: 0..21, kind: refused, guards: GuardSet::NONE }].into() }))
    });
}

#[test]
fn refusals_tell_where() {
    let position = |text: &str| match reader().read(text.as_bytes(), StringConstants::Conforming) {
        Reading::Refused(refusal) => refusal.position,
        other => panic!("{text}: {other:?}"),
    };
    assert_eq!(position("selec 1"), Some(1));
    assert_eq!(position("SELECT 1; selec 1"), Some(11));
    assert_eq!(position("SELECT 'é'; x"), Some(13));
    assert_eq!(position("SELECT x; x x x"), Some(11));
    assert_eq!(position("SELECT a.b(a); SELECT a b a"), Some(27));
    assert_eq!(position("CREATE TEMP TABLE t (a int NOT NULL, b int NOT NUL)"), Some(48));
    assert_eq!(position("SET x ="), Some(8));
    assert_eq!(position("SELECT 1; SELECT 'abc"), Some(18));
    assert_eq!(position("SELECT ) ; )"), Some(8));
    assert_eq!(position("SET x = 1\0"), None);
}

#[test]
fn ranges_are_those_of_the_grammar() {
    let ranges = |text: &str| match reader().read(text.as_bytes(), StringConstants::Conforming) {
        Reading::Known(facts) => {
            facts.statements.iter().map(|statement| text[statement.range.clone()].to_owned()).collect::<Vec<_>>()
        }
        other => panic!("{text}: {other:?}"),
    };
    assert_eq!(
        ranges(" /* a */ SET x = 1 ; ;SELECT 'é' -- ;\n;  INSERT INTO t VALUES (1); "),
        ["SET x = 1 ", "SELECT 'é' -- ;\n", "INSERT INTO t VALUES (1)"]
    );
    assert_eq!(ranges("BEGIN;WITH a AS (SELECT 1) SELECT 2 ; -- end"), ["BEGIN", "WITH a AS (SELECT 1) SELECT 2 "]);
    assert_eq!(ranges("RESET ALL; SELECT 1 \n-- end"), ["RESET ALL", "SELECT 1 \n-- end"]);
}

#[test]
fn blanking_keeps_the_place_of_every_other_character() {
    let blanked = |text: &str| {
        let Reading::Known(facts) = reader().read(text.as_bytes(), StringConstants::Conforming) else { panic!("{text}") };
        let is_set = |statement: &&Statement| !matches!(statement.kind, Kind::Other { .. });
        let ranges: Vec<_> = facts.statements.iter().filter(is_set).map(|statement| statement.range.clone()).collect();
        String::from_utf8(blank(text.as_bytes(), &ranges)).unwrap()
    };
    assert_eq!(blanked("SET x = 1; SELECT 1"), "         ; SELECT 1");
    assert_eq!(blanked("SET x = 'é'; SELECT 'ü'"), "           ; SELECT 'ü' ");
    assert_eq!(blanked("SELECT 'ü'; SET x = '🙂'; SELECT 2; RESET ALL"), "SELECT 'ü';            ; SELECT 2;             ");
    assert_eq!(blank(b"SET '\xe9\xff'; SELECT '\xe9'; SET", &[0..8, 22..25]), b"        ; SELECT '\xe9';    ");
    assert_eq!(blank(b"SELECT 1", &[]), b"SELECT 1");
    assert_eq!(blank("é".as_bytes(), &[0..9, 1..2]), b"  ");
}

#[test]
fn a_known_text_is_not_read_twice() {
    let mut reader = reader();
    let Reading::Known(first) = reader.read(b"SET helios.region = 'eu'; SELECT 1", StringConstants::Conforming) else {
        panic!("known")
    };
    let Reading::Known(second) = reader.read(b"SET helios.region = 'eu'; SELECT 1", StringConstants::Conforming) else {
        panic!("known")
    };
    assert!(Rc::ptr_eq(&first, &second));
    assert_eq!(reader.read(b"SELEC", StringConstants::Conforming), reader.read(b"SELEC", StringConstants::Conforming));
}
