//! Where Domicile's time goes in a query: a flame graph, where perf(1) is to be had.

use std::process::Command;
use std::thread;
use std::time::Duration;

use domicile_tests::process::Scratch;
use domicile_tests::program;

use crate::answers::Work;
use crate::outcome::Protocol;
use crate::report::{Flame, Frame};
use crate::stage::{Asked, Stage};
use crate::subjects::{Programs, Subject};

/// Of short queries of 64 clients.
///
/// # Errors
/// perf is lacking, or may not look.
pub fn run(stage: &mut Stage<'_>) -> Result<(), String> {
    let subject = stage.domicile(stage.server())?;
    for &protocol in stage.depth.choose(&[Protocol::Simple][..], &[Protocol::Simple, Protocol::Prepared], &ALL) {
        (stage.told)(&format!("profile, {}", protocol.name()));
        let graph = record(&stage.programs, &subject, protocol)?;
        stage.report.flames.push(Flame { title: format!("query/row100, {}, 64 clients", protocol.name()), graph });
    }
    Ok(())
}

const ALL: [Protocol; 3] = [Protocol::Simple, Protocol::Extended, Protocol::Prepared];

fn record(programs: &Programs, subject: &Subject, protocol: Protocol) -> Result<Frame, String> {
    let process = subject.process.ok_or("no process")?;
    let perf = program::find("perf").ok_or("there is no flame graph: that needs perf (Debian: apt-get install linux-perf)")?;
    let directory = Scratch::new().map_err(|error| error.to_string())?;
    let file = directory.path().join("perf.data");
    let asked = Asked { work: Work::Row100, protocol, clients: 64, rate: None, window: Duration::from_millis(3500) };
    let perf = |arguments: &[&str]| {
        let mut command = Command::new(&perf);
        command.args(arguments);
        let output = program::run(command, "", Duration::from_secs(60)).map_err(|error| format!("perf: {error}"))?;
        if output.status.success() {
            Ok(output)
        } else {
            Err(format!("there is no flame graph: {}", program::both(&output).trim()))
        }
    };
    let (file, process) = (file.display().to_string(), process.to_string());
    thread::scope(|scope| {
        let load = scope.spawn(|| programs.load(subject, &asked));
        thread::sleep(Duration::from_millis(700));
        // The clock is there in every virtual machine; the product is built without frame pointers.
        let how = ["record", "-q", "-F", "999", "-e", "cpu-clock", "--call-graph", "dwarf,16384"];
        perf(&[&how[..], &["-p", &process, "-o", &file, "--", "sleep", "2"]].concat())?;
        load.join().map_err(|_| "the load panicked".to_owned())?
    })?;
    let said = perf(&["script", "-i", &file, "--no-inline", "-F", "ip,sym"])?;
    Ok(Frame::read("domicile", &String::from_utf8_lossy(&said.stdout), "domicile::"))
}
