//! Commands that take long: what they print becomes one line that says how far they are, and is shown whole only if they fail.

use std::io::{BufRead, BufReader, IsTerminal, Read, Write};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use domicile_tests::process::now;

/// Off a terminal, a line this often shows that something still happens.
const HEARTBEAT: Duration = Duration::from_secs(20);
/// What takes less is not worth a line.
const NOTEWORTHY: Duration = Duration::from_secs(2);

/// What a command printed, and how it ended.
pub struct Outcome {
    /// Standard output and standard error, line by line as they came.
    pub output: String,
    /// Whether it ended well.
    pub success: bool,
    /// How long it took.
    pub took: Duration,
}

/// Runs a command to its end; one that fails is an error that holds all it printed.
pub fn run(what: &str, command: Command) -> Result<String, String> {
    let Outcome { output, success, took } = watch(what, command)?;
    if !success {
        return Err(format!("{output}\n{what}: failed"));
    }
    if took >= NOTEWORTHY {
        println!("{what}: done in {}", seconds(took));
    }
    Ok(output)
}

/// Runs a command to its end and tells meanwhile how far it is.
pub fn watch(what: &str, mut command: Command) -> Result<Outcome, String> {
    let started = now();
    let program = command.get_program().to_string_lossy().into_owned();
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| format!("{program}: {error}"))?;
    let (sender, lines) = mpsc::channel();
    if let Some(stdout) = child.stdout.take() {
        read_lines(stdout, sender.clone());
    }
    if let Some(stderr) = child.stderr.take() {
        read_lines(stderr, sender);
    }

    let mut teller = Teller { what, started, told: started, terminal: std::io::stdout().is_terminal() };
    let mut output = String::new();
    let mut last = String::new();
    loop {
        match lines.recv_timeout(Duration::from_millis(200)) {
            Ok(line) => {
                output.push_str(&line);
                output.push('\n');
                last = line;
            }
            Err(mpsc::RecvTimeoutError::Timeout) => {}
            Err(mpsc::RecvTimeoutError::Disconnected) => break,
        }
        teller.tell(&last);
    }
    let status = child.wait().map_err(|error| format!("{program}: {error}"))?;
    teller.clear();
    Ok(Outcome { output, success: status.success(), took: now() - started })
}

fn read_lines(from: impl Read + Send + 'static, to: mpsc::Sender<String>) {
    thread::spawn(move || {
        let mut reader = BufReader::new(from);
        let mut line = Vec::new();
        while reader.read_until(b'\n', &mut line).is_ok_and(|length| length > 0) {
            let text = String::from_utf8_lossy(&line).trim_end().to_owned();
            line.clear();
            if to.send(text).is_err() {
                return;
            }
        }
    });
}

/// One line on a terminal, written over and over; a line now and then elsewhere.
struct Teller<'a> {
    what: &'a str,
    started: Instant,
    told: Instant,
    terminal: bool,
}

impl Teller<'_> {
    fn tell(&mut self, last: &str) {
        let pause = if self.terminal { Duration::from_millis(200) } else { HEARTBEAT };
        let now = now();
        if now - self.told < pause {
            return;
        }
        self.told = now;
        let elapsed = seconds(now - self.started);
        let line: String = format!("{} … {elapsed}  {}", self.what, last.trim()).chars().take(78).collect();
        if self.terminal {
            print!("\r\x1b[K{line}");
        } else {
            println!("{line}");
        }
        std::io::stdout().flush().ok();
    }

    fn clear(&self) {
        if self.terminal {
            print!("\r\x1b[K");
            std::io::stdout().flush().ok();
        }
    }
}

/// A duration for people.
pub fn seconds(duration: Duration) -> String {
    if duration < Duration::from_secs(10) {
        format!("{:.1} s", duration.as_secs_f32())
    } else {
        format!("{} s", duration.as_secs())
    }
}
