//! `libpq_pipeline`: what PostgreSQL's own client library expects of pipelines.

use std::fs;
use std::process::Command;
use std::time::Duration;

use domicile_tests::program;

use super::Target;
use super::source::Source;
use super::table::Row;

const PATIENCE: Duration = Duration::from_secs(60);
const LIBRARIES: [&str; 4] = ["-lpq", "-lpgcommon", "-lpgport", "-lm"];

/// Runs each of its tests.
pub fn run(source: &Source, target: &Target) -> Result<Row, String> {
    let file = "src/test/modules/libpq_pipeline/libpq_pipeline.c";
    let program = source.compile(file, "libpq_pipeline", &LIBRARIES)?;
    let said = |output: std::io::Result<std::process::Output>| output.map_err(|error| format!("libpq_pipeline: {error}"));
    let list = said(Command::new(&program).arg("tests").output())?;
    let address = format!("host=127.0.0.1 port={} user=postgres dbname=postgres", target.port());
    let mut row = Row::default();
    let mut output = String::new();
    for test in String::from_utf8_lossy(&list.stdout).split_whitespace() {
        let mut command = program::command(&program);
        command.arg(test).arg(&address);
        let done = program::run(command, "", PATIENCE);
        let passed = done.as_ref().is_ok_and(|done| done.status.success());
        let text = done.as_ref().map_or_else(ToString::to_string, program::both);
        output.push_str(&format!("== {test}: {}\n{text}\n", if passed { "ok" } else { "FAILED" }));
        if passed { row.passed += 1 } else { row.failed.push(test.to_owned()) }
    }
    fs::write(target.results.join("libpq_pipeline.out"), output).ok();
    if row.passed + row.failed.len() == 0 { Err("libpq_pipeline lists no tests".to_owned()) } else { Ok(row) }
}
