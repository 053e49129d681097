//! PostgreSQL's regression suite: SQL scripts and what `psql` must print for them.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use domicile_tests::process::Scratch;
use domicile_tests::{cluster, program};

use super::source::Source;
use super::table::Row;
use super::{Target, as_server, quietly};

/// What the suite may take; it is a minute or two on an idle machine.
const PATIENCE: Duration = Duration::from_secs(1200);

/// Runs all of its parallel schedule.
pub fn run(source: &Source, target: &Target) -> Result<Row, String> {
    let pg_regress = source.pg_regress()?;
    let library = source.compile("src/test/regress/regress.c", "regress.so", &["-shared", "-fPIC"])?;
    // The server reads and writes beside the scripts, and it may be another user.
    let scratch = Scratch::new().map_err(|error| error.to_string())?;
    let input = scratch.path().join("regress");
    copy(&source.path("src/test/regress"), &input)?;
    for module in [library, source.modules().join("refint.so"), source.modules().join("autoinc.so")] {
        copy(&module, scratch.path())?;
    }
    give_away(scratch.path())?;

    let psql = program::need("psql")?;
    let mut command = as_server(&pg_regress);
    command.current_dir(scratch.path());
    command.arg("--bindir").arg(psql.parent().unwrap_or(Path::new("/usr/bin")));
    command.arg("--inputdir").arg(&input).arg("--outputdir").arg(scratch.path()).arg("--dlpath").arg(scratch.path());
    command.arg("--schedule").arg(input.join("parallel_schedule"));
    command.args(["--host=127.0.0.1", "--user=postgres", "--max-concurrent-tests=20"]).arg(format!("--port={}", target.port()));
    println!("regress, {} mode …", target.mode.name());
    let output = program::run_together(command, "", PATIENCE);
    for name in ["regression.diffs", "regression.out"] {
        let kept = target.results.join(name);
        fs::remove_file(&kept).ok();
        fs::copy(scratch.path().join(name), kept).ok();
    }
    target.keep_logs();
    let output = output.map_err(|error| format!("pg_regress: {error}"))?;
    match Row::read(&output) {
        row if row.passed + row.failed.len() == 0 => Err(format!("pg_regress: {}", output.trim())),
        row => Ok(row),
    }
}

fn copy(from: &Path, to: &Path) -> Result<(), String> {
    quietly(Command::new("cp").arg("--recursive").arg(from).arg(to))
}

fn give_away(directory: &Path) -> Result<(), String> {
    match domicile_tests::process::unprivileged_user() {
        Some((user, group)) => quietly(Command::new("chown").arg("--recursive").arg(format!("{user}:{group}")).arg(directory)),
        None => cluster::give_away(directory).map_err(|error| error.to_string()),
    }
}
