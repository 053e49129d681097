//! Guards: what is one, in whatever notation, and what only looks like one.

use super::*;

/// The guards of a text, by name.
fn guards_of(text: &str) -> String {
    match reader().read(text.as_bytes(), StringConstants::Conforming) {
        Reading::Plain => String::new(),
        Reading::Refused(refusal) => panic!("{text}: {refusal:?}"),
        Reading::Known(facts) => {
            let all = facts.statements.iter().fold(GuardSet::NONE, |all, statement| all | statement.guards);
            names(all)
        }
    }
}

fn names(guards: GuardSet) -> String {
    let names = Guard::ALL.into_iter().filter(|guard| guards.contains(*guard)).map(Guard::as_str);
    names.collect::<Vec<_>>().join(" ")
}

fn check_guards(table: &[(&str, &str)]) {
    for (text, expected) in table {
        assert_eq!(guards_of(text), *expected, "{text}");
    }
}

#[test]
fn functions_are_guarded_where_they_can_be_called() {
    check_guards(&[
        ("SELECT dblink('a', 'b')", "dblink"),
        ("SELECT * FROM dblink('a', 'b') AS t(a int)", "dblink"),
        ("select public . DBLINK_connect /* */ ('x')", "dblink"),
        ("SELECT \"dblink_exec\"('a')", "dblink"),
        (r#"SELECT U&"dbl\0069nk"('a')"#, "dblink"),
        (r#"SELECT U&"dbl!0069nk" UESCAPE '!' ('a')"#, "dblink"),
        ("SELECT \"DBLINK\"('a')", ""),
        ("INSERT INTO t SELECT a FROM dblink_get_result('x') AS d(a int)", "dblink"),
        ("WITH a AS (SELECT lo_import('/etc/passwd')) SELECT 1", "large_object_files"),
        ("VALUES (lo_export(1, '/tmp/x'))", "large_object_files"),
        ("UPDATE t SET a = pg_read_file('x') WHERE true", "server_files"),
        ("SELECT pg_read_binary_file('x'), pg_ls_dir('.'), pg_stat_file('x'), pg_file_write('a', 'b', true)", "server_files"),
        ("SELECT pg_ls_waldir()", "server_files"),
        ("SELECT pg_create_logical_replication_slot('a', 'b')", "replication_slots"),
        ("SELECT * FROM pg_logical_slot_get_changes('a', NULL, NULL)", "replication_slots"),
        ("SELECT http_get('http://x'), net.http_post(url := 'x')", "network_extensions"),
        ("SELECT aws_s3.query_export_to_s3('SELECT 1', 'x')", "network_extensions"),
        ("CREATE VIEW v AS SELECT * FROM dblink('a', 'b') AS t(a int)", "dblink"),
        ("CREATE TABLE t (a text DEFAULT pg_read_file('x'))", "server_files"),
        ("CREATE FUNCTION f() RETURNS text RETURN pg_read_file('x')", "server_files"),
        ("CREATE FUNCTION f() RETURNS text BEGIN ATOMIC SELECT 1; SELECT pg_read_file('x'); END", "server_files"),
        ("CREATE TRIGGER t AFTER INSERT ON t EXECUTE FUNCTION dblink_tell()", "dblink"),
        ("CREATE OPERATOR ### (LEFTARG = text, RIGHTARG = text, FUNCTION = dblink_exec)", "dblink"),
        ("CREATE AGGREGATE a (text) (SFUNC = dblink_connect, STYPE = text)", "dblink"),
        ("ALTER FUNCTION dblink_connect RENAME TO harmless", "dblink"),
        ("PREPARE p AS SELECT dblink('a', 'b')", "dblink"),
        ("EXECUTE p(pg_read_file('x'))", "server_files"),
        ("EXPLAIN (ANALYZE) SELECT pg_read_file('x')", "server_files"),
        ("COPY (SELECT pg_read_file('x')) TO STDOUT", "server_files"),
        ("CALL p(pg_read_file('x'))", "server_files"),
        ("SELECT 1; SELECT pg_read_file('x'); COPY t TO PROGRAM 'x'", "copy_program server_files"),
    ]);
}

#[test]
fn attribute_notation_is_a_call() {
    check_guards(&[
        ("SELECT ('x'::text).pg_read_file", "server_files"),
        ("SELECT (x).dblink FROM t", "dblink"),
        ("SELECT a[1].pg_read_file FROM t", "server_files"),
        ("SELECT $1.pg_read_file", "server_files"),
        ("SELECT t.pg_read_file FROM lower('x') t", "server_files"),
        ("SELECT t.pg_read_file FROM lower('x') AS \"t\"", "server_files"),
        ("SELECT data.dblink FROM lower('x') data", "dblink"),
        ("SELECT lower.pg_read_file FROM lower('x')", "server_files"),
        ("SELECT u.dblink_connect FROM current_user u", "dblink"),
        ("SELECT t.dblink FROM t", ""),
        ("SELECT \"t\".\"dblink\" FROM s.t", ""),
        ("SELECT s.t.dblink FROM s.t", ""),
    ]);
}

#[test]
fn what_only_has_such_a_name_is_none() {
    check_guards(&[
        ("SELECT dblink FROM t", ""),
        ("SELECT 'dblink(x)', 'COPY x TO PROGRAM', $$pg_read_file('x')$$", ""),
        ("SELECT 1 /* dblink('x') */ -- pg_read_file('x')", ""),
        ("SELECT \"dblink(\" FROM t", ""),
        ("CREATE TABLE dblink (dblink text, pg_read_file text)", ""),
        ("CREATE TABLE IF NOT EXISTS dblink (a int)", ""),
        ("CREATE VIEW dblink (a) AS SELECT 1", ""),
        ("INSERT INTO dblink (a) VALUES (1)", ""),
        ("SELECT 1 FROM t AS dblink (a)", ""),
        ("WITH dblink (a) AS (SELECT 1), lo_import AS (SELECT 2) SELECT a FROM dblink", ""),
        ("CREATE TABLE t (a int REFERENCES dblink (a))", ""),
        ("SELECT my_dblink('x'), dblinks('x'), pg_read('x')", ""),
        ("DROP FUNCTION IF EXISTS dblink(text)", ""),
        ("REVOKE EXECUTE ON FUNCTION dblink_connect_u(text) FROM PUBLIC", ""),
        ("COMMENT ON FUNCTION pg_read_file(text) IS 'x'", ""),
        ("SELECT * FROM pg_stat_activity, pg_replication_slots, pg_stat_file", ""),
        ("SELECT lo_create(0), lo_get(1)", ""),
    ]);
}

#[test]
fn commands_are_guarded_by_their_words() {
    check_guards(&[
        ("COPY t TO PROGRAM 'cat'", "copy_program"),
        ("/* */ copy t (a) from program $$cat$$", "copy_program"),
        ("COPY (SELECT 'x' FROM t) TO PROGRAM 'cat' WITH (FORMAT csv)", "copy_program"),
        ("COPY t TO '/tmp/x'", "copy_file"),
        ("COPY t FROM E'/tmp/x' WITH CSV", "copy_file"),
        (r"COPY t FROM U&'/tmp/\0078' WITH CSV", "copy_file"),
        ("COPY t FROM STDIN WHERE a IS DISTINCT FROM 'x'", ""),
        ("COPY program TO STDOUT", ""),
        ("COPY t TO STDOUT (DELIMITER ',')", ""),
        ("COPY dblink (a) FROM STDIN", ""),
        ("CREATE SERVER s FOREIGN DATA WRAPPER f", "foreign_data"),
        ("CREATE/**/SERVER IF NOT EXISTS s FOREIGN DATA WRAPPER f", "foreign_data"),
        ("ALTER SERVER s OPTIONS (host 'x')", "foreign_data"),
        ("CREATE USER MAPPING FOR PUBLIC SERVER s", "foreign_data"),
        ("ALTER USER MAPPING FOR a SERVER s OPTIONS (SET password 'x')", "foreign_data"),
        ("CREATE FOREIGN TABLE t (a int) SERVER s", "foreign_data"),
        ("ALTER FOREIGN TABLE t OPTIONS (SET table_name 'x')", "foreign_data"),
        ("ALTER TABLE t OPTIONS (SET table_name 'x')", "foreign_data"),
        ("ALTER TABLE t ADD COLUMN options int", ""),
        ("CREATE FOREIGN DATA WRAPPER f", "foreign_data"),
        ("IMPORT FOREIGN SCHEMA a FROM SERVER s INTO b", "foreign_data"),
        ("DROP SERVER s", ""),
        ("CREATE USER a", ""),
        ("CREATE EXTENSION dblink", "dblink"),
        ("CREATE EXTENSION IF NOT EXISTS \"postgres_fdw\" WITH SCHEMA x", "foreign_data"),
        (r#"CREATE EXTENSION U&"file\005ffdw""#, "foreign_data"),
        ("CREATE EXTENSION plpython3u", "untrusted_languages"),
        ("CREATE EXTENSION hstore_plpython3u CASCADE", "untrusted_languages"),
        ("CREATE EXTENSION http", "network_extensions"),
        ("CREATE EXTENSION adminpack", "server_files"),
        ("CREATE EXTENSION pgcrypto", ""),
        ("CREATE EXTENSION \"uuid-ossp\"", ""),
        ("CREATE SUBSCRIPTION s CONNECTION 'x' PUBLICATION p", "subscriptions"),
        ("ALTER SUBSCRIPTION s CONNECTION 'x'", "subscriptions"),
        ("CREATE PUBLICATION p FOR ALL TABLES", "publications"),
        ("ALTER PUBLICATION p ADD TABLE t", "publications"),
        ("ALTER SYSTEM SET archive_command = 'x'", "alter_system"),
        ("LOAD 'x'", "load"),
        ("CREATE LANGUAGE plpython3u", "untrusted_languages"),
        ("CREATE OR REPLACE TRUSTED PROCEDURAL LANGUAGE plperl HANDLER h", "untrusted_languages"),
        ("CREATE LANGUAGE plperl", ""),
        ("ALTER LANGUAGE plpython3u RENAME TO plperl", "untrusted_languages"),
        ("CREATE FUNCTION f() RETURNS int LANGUAGE c AS 'x', 'y'", "untrusted_languages"),
        ("CREATE FUNCTION f() RETURNS int AS 'x' LANGUAGE 'plpython3u'", "untrusted_languages"),
        (r"CREATE FUNCTION f() RETURNS int AS 'x' LANGUAGE U&'plpyth\006fn3u'", "untrusted_languages"),
        ("CREATE OR REPLACE PROCEDURE f() LANGUAGE plperlu AS ''", "untrusted_languages"),
        ("CREATE FUNCTION f(text) RETURNS text AS 'x' LANGUAGE internal", "untrusted_languages"),
        ("DO LANGUAGE plpython3u $$import os$$", "untrusted_languages"),
        ("DO $$BEGIN END$$ LANGUAGE \"plperlu\"", "untrusted_languages"),
        ("CREATE FUNCTION f() RETURNS int LANGUAGE plpgsql AS 'BEGIN RETURN 1; END'", ""),
        ("CREATE FUNCTION f(language text) RETURNS int BEGIN ATOMIC SELECT language FROM t; END", ""),
        ("ALTER TABLE t ADD COLUMN server text", ""),
        ("CREATE SCHEMA s", ""),
    ]);
}

#[test]
fn bodies_are_searched_as_deep_as_they_are_nested() {
    check_guards(&[
        ("DO $$BEGIN PERFORM dblink_connect('x'); END$$", "dblink"),
        ("DO 'BEGIN COPY t TO PROGRAM ''x''; END'", "copy_program"),
        ("DO $$BEGIN COPY t TO '/tmp/x'; END$$", "copy_file"),
        ("DO $$BEGIN EXECUTE 'COPY t TO ''/tmp/x'''; END$$", "copy_file"),
        ("DO $$BEGIN EXECUTE 'COPY t FROM ' || quote_literal(a); END$$", "copy_file"),
        ("DO $$BEGIN EXECUTE format('COPY t FROM %L', a); END$$", "copy_file"),
        (r"DO $$BEGIN EXECUTE E'SELECT \x64blink(1)'; END$$", "dblink"),
        (r"DO $$BEGIN EXECUTE '\x64blink(1)'; END$$", "dblink"),
        (r"DO $$BEGIN EXECUTE U&'SELECT \0064blink(1)'; END$$", "dblink"),
        (r"DO E'BEGIN PERFORM \x64blink(1); END'", "dblink"),
        (r#"DO $$BEGIN PERFORM U&"dbl\0069nk"(1); END$$"#, "dblink"),
        ("DO $a$BEGIN EXECUTE $b$DO $c$BEGIN EXECUTE 'ALTER SYSTEM SET a = 1'; END$c$ $b$; END$a$", "alter_system"),
        ("DO $$BEGIN CREATE/* x */SERVER s FOREIGN DATA WRAPPER f; END$$", "foreign_data"),
        ("DO $$BEGIN EXECUTE 'CREATE ' || 'SERVER s'; END$$", "foreign_data"),
        ("DO $$BEGIN CREATE SUBSCRIPTION s CONNECTION 'x' PUBLICATION p; END$$", "subscriptions"),
        ("DO $$BEGIN LOAD 'x'; END$$", "load"),
        ("DO $$BEGIN CREATE EXTENSION dblink; CREATE EXTENSION IF NOT EXISTS file_fdw; END$$", "dblink foreign_data"),
        ("DO $$BEGIN EXECUTE 'CREATE FUNCTION f() RETURNS int LANGUAGE plperlu AS ''1'''; END$$", "untrusted_languages"),
        ("CREATE FUNCTION f() RETURNS int LANGUAGE sql AS 'SELECT lo_import(''x'')'", "large_object_files"),
        ("CREATE FUNCTION f() RETURNS int LANGUAGE plperl AS $$ $x--; spi_exec_query(\"SELECT dblink(1)\"); $$", "dblink"),
        ("SELECT query_to_xml('SELECT pg_read_file(''x'')', true, true, '')", "server_files"),
        (r"SELECT query_to_xml(E'SELECT \x64blink(1)', true, true, '')", "dblink"),
        ("SELECT * FROM ts_stat('SELECT dblink(1)')", "dblink"),
        ("DO $$BEGIN /* dblink(1) */ PERFORM 1; -- COPY t TO PROGRAM 'x'\nEND$$", ""),
        ("DO $$BEGIN PERFORM server, language, load, publication FROM t; CREATE TABLE x (server text); END$$", ""),
        ("CREATE FUNCTION f() RETURNS int LANGUAGE plpgsql AS $$BEGIN RAISE NOTICE '50%'; RETURN 1; END$$", ""),
        ("DO ''", ""),
    ]);
}

#[test]
fn bodies_that_cannot_be_searched_are_refused() {
    let nested = |depth: usize| (0..depth).fold("x'".to_owned(), |text, level| format!("$a{level}${text}$a{level}$"));
    assert!(say(format!("DO {}", nested(9))).starts_with("54001"));
    let many = "'a-b',".repeat(180_000);
    assert!(say(format!("DO $$ {many} {} $$", "$b$ $c$'$c$ $b$".repeat(10))).starts_with("54001") || many.len() > 1 << 20);
}

#[test]
fn escapes_of_constants_are_read_as_the_server_reads_them() {
    let guards = |strings| match reader().read(br"DO 'BEGIN PERFORM \x64blink(1); END'", strings) {
        Reading::Known(facts) => names(facts.statements[0].guards),
        other => panic!("{other:?}"),
    };
    assert_eq!(guards(StringConstants::Escaping), "dblink");
    assert!(reader().is_ambiguous(br"SELECT 1, '\'; COPY t TO PROGRAM ''x''; --'"));
}

#[test]
fn texts_that_are_not_read_are_searched() {
    assert_eq!(names(searched(b"COPY t TO PROGRAM 'x'")), "copy_program");
    assert_eq!(names(searched(b"COPY (SELECT 1) TO '/tmp/x'; SELECT pg_read_file('x')")), "copy_file server_files");
    assert_eq!(names(searched(b"START_REPLICATION SLOT s PHYSICAL 0/1")), "");
    assert_eq!(names(searched(b"CREATE_REPLICATION_SLOT s LOGICAL pgoutput")), "");
}

#[test]
fn every_guard_has_a_name_of_its_own() {
    let mut names: Vec<_> = Guard::ALL.iter().map(|guard| guard.as_str()).collect();
    assert!(Guard::ALL.iter().enumerate().all(|(number, guard)| *guard as usize == number));
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), Guard::ALL.len());
    assert_eq!(Guard::of_function_number(765), Some(Guard::LargeObjectFiles));
    assert_eq!(Guard::of_function_number(952), None, "lo_open");
    assert_eq!(Guard::of_function_number(16_384), Some(Guard::FunctionCalls));
}
