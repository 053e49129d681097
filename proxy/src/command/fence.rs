//! `domicile fence …`: setting the fence up and taking it away, and what it says.

use std::collections::BTreeMap;
use std::error::Error;
use std::io::{self, IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::Subcommand;
use domicile::config::{self, Config};
use domicile::fence::{self, Onlooker, Reading, shown_digest};

/// Where the maps are if no configuration says so.
const PINS: &str = "/sys/fs/bpf/domicile";
/// How often it is looked for something new.
const LOOKS: Duration = Duration::from_millis(200);

#[derive(Subcommand)]
pub(crate) enum Command {
    /// Set the fence up for a configuration, or bring it up to it (root, or CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON). While a proxy runs
    /// in it, what was allowed before stays allowed until `narrow`
    Install {
        /// The configuration file
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
    },
    /// Allow nothing any more but what the configuration says: after a reload, once the servers that it has lost are not used any more
    Narrow {
        /// The configuration file
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
    },
    /// Take the fence away, with its counters
    Remove {
        /// The configuration file
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
    },
    /// Show what the kernel has let through and what it has stopped
    Status {
        /// The configuration file; without it, what is pinned in /sys/fs/bpf/domicile
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
    },
    /// Show what the kernel stops, as it happens
    Watch {
        /// The configuration file; without it, what is pinned in /sys/fs/bpf/domicile
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
    },
    /// Change the list for the proxy that has started this process, when it says so on standard input
    #[command(hide = true)]
    Keep {
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
    },
}

pub(crate) fn run(command: Command) -> ExitCode {
    let done = match command {
        Command::Install { config } => install(&config),
        Command::Narrow { config } => narrow(&config),
        Command::Remove { config } => remove(&config),
        Command::Status { config } => status(config.as_deref()),
        Command::Watch { config } => watch(config.as_deref()),
        Command::Keep { config } => fence::keep(&config).map_err(Into::into),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => super::failure(error.as_ref()),
    }
}

fn load(path: &Path) -> Result<Config, Box<dyn Error>> {
    Ok(config::load(path, &|name| std::env::var(name).ok())?)
}

fn install(path: &Path) -> Result<(), Box<dyn Error>> {
    let config = load(path)?;
    let installed = fence::install(&config)?;
    let (cgroup, pins) = (installed.cgroup.display(), installed.pins.display());
    let how = if installed.replaced == 0 { "installed" } else { "brought up to date" };
    println!("The fence is {how}: whatever runs in {cgroup} reaches {} addresses.", installed.addresses);
    println!("Its maps are in {pins}; `domicile fence status` shows them in words.");
    if let Ok(reading) = Reading::take(&installed.pins)
        && reading.widened
    {
        println!(
            "Something runs in it, so what was allowed before still is: `domicile fence narrow --config {}` ends that.",
            path.display()
        );
    }
    Ok(())
}

fn narrow(path: &Path) -> Result<(), Box<dyn Error>> {
    fence::narrow(&load(path)?)?;
    println!("The fence allows what {} says, and nothing else.", path.display());
    Ok(())
}

fn remove(path: &Path) -> Result<(), Box<dyn Error>> {
    let config = load(path)?;
    let is_cgroup_gone = fence::remove(&config)?;
    println!("The fence is gone, and its counters with it.");
    if !is_cgroup_gone {
        println!("Its cgroup is not: something runs in it.");
    }
    Ok(())
}

fn pins(config: Option<&Path>) -> Result<PathBuf, Box<dyn Error>> {
    Ok(match config {
        Some(path) => load(path)?.kernel.pins,
        None => PINS.into(),
    })
}

fn status(config: Option<&Path>) -> Result<(), Box<dyn Error>> {
    let pins = pins(config)?;
    let reading = Reading::take(&pins).map_err(|error| not_there(&pins, &error))?;
    print!("{}", in_words(&pins, &reading));
    Ok(())
}

fn not_there(pins: &Path, error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => format!("no fence is pinned in {}: `domicile fence install` sets one up", pins.display()),
        io::ErrorKind::PermissionDenied => format!("{error}: ask as root, or as a member of the proxy's group"),
        _ => error.to_string(),
    }
}

/// The maps in words: totals of each region, what was denied, the nodes.
fn in_words(pins: &Path, reading: &Reading) -> String {
    let mut text = format!("Fence in {}\n", pins.display());
    let digest = shown_digest(&reading.digest);
    let wide = if reading.widened { ", and more, until it is narrowed" } else { "" };
    text += &format!(
        "  list {} of the configuration {}…: {} addresses{wide}\n",
        reading.generation,
        &digest[..12],
        reading.addresses
    );

    // What one region has sent, received, opened, and was not let through with.
    let mut totals = BTreeMap::<&str, [u64; 6]>::new();
    for (name, flow) in &reading.flows {
        let sums = totals.entry(&name.region).or_default();
        match (name.direction, name.verdict) {
            ("connect", "passed") => sums[0] += flow.flows,
            ("connect", _) => sums[1] += flow.flows,
            ("egress", "passed") => (sums[2], sums[3]) = (sums[2] + flow.packets, sums[3] + flow.bytes),
            ("egress", _) => sums[4] += flow.packets,
            _ => sums[5] += flow.bytes,
        }
    }
    text += "\nRegions\n";
    let heads = ["region", "connections", "refused", "packets sent", "bytes sent", "bytes received", "packets dropped"];
    let rows = totals.iter().map(|(region, [opened, refused, packets, sent, dropped, received])| {
        let numbers = [opened, refused, packets, sent, received, dropped];
        std::iter::once((*region).to_owned()).chain(numbers.iter().map(|number| number.to_string())).collect()
    });
    text += &table(&heads, rows);

    text += "\nStatements and logins denied by the proxy\n";
    let heads = ["region", "no region", "no node", "not granted", "unbound", "guarded", "stale grant", "would block"];
    let rows = reading.denials.iter().map(|(region, denials)| {
        let numbers = [
            denials.no_region,
            denials.no_node,
            denials.not_granted,
            denials.unbound,
            denials.guarded,
            denials.stale_grant,
            denials.would_block,
        ];
        let region = if region.is_empty() { "(none)".to_owned() } else { region.clone() };
        std::iter::once(region).chain(numbers.iter().map(ToString::to_string)).collect()
    });
    text += &table(&heads, rows);

    text += "\nNodes\n";
    let rows = reading.nodes.iter().map(|((region, node), counts)| {
        let open = counts.established.saturating_sub(counts.closed);
        let trip = if counts.srtt_us == 0 { "-".to_owned() } else { format!("{} µs", counts.srtt_us) };
        vec![node.clone(), region.clone(), open.to_string(), counts.established.to_string(), counts.closed.to_string(), trip]
    });
    text + &table(&["node", "region", "open", "established", "closed", "round trip"], rows)
}

/// Rows under their heads: the first columns to the left, numbers to the right.
fn table(heads: &[&str], rows: impl Iterator<Item = Vec<String>>) -> String {
    let rows: Vec<Vec<String>> = rows.collect();
    if rows.is_empty() {
        return "  (none)\n".to_owned();
    }
    let all = || std::iter::once(heads.iter().map(|head| (*head).to_owned()).collect()).chain(rows.iter().cloned());
    let width =
        |column: usize| all().map(|row: Vec<String>| row.get(column).map_or(0, |cell| cell.chars().count())).max().unwrap_or(0);
    let widths: Vec<usize> = (0..heads.len()).map(width).collect();
    let is_text = |column: usize| rows.iter().all(|row| row.get(column).is_some_and(|cell| cell.parse::<u64>().is_err()));
    let line = |row: Vec<String>| {
        let cells =
            row.iter().zip(&widths).enumerate().map(|(column, (cell, width))| {
                if is_text(column) { format!("{cell:<width$}") } else { format!("{cell:>width$}") }
            });
        format!("  {}\n", cells.collect::<Vec<_>>().join("  ").trim_end())
    };
    all().map(line).collect()
}

fn watch(config: Option<&Path>) -> Result<(), Box<dyn Error>> {
    let pins = pins(config)?;
    let mut onlooker = Onlooker::open(&pins).map_err(|error| not_there(&pins, &error))?;
    if io::stderr().is_terminal() {
        eprintln!("What the fence stops is shown as it happens; ^C ends it.");
    }
    loop {
        for violation in onlooker.look() {
            writeln!(io::stdout(), "{violation}")?;
        }
        std::thread::sleep(LOOKS);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_stand_in_columns() {
        let rows = [["eu-west", "12"], ["us", "3"]].map(|row| row.map(str::to_owned).to_vec());
        assert_eq!(table(&["region", "n"], rows.into_iter()), "  region    n\n  eu-west  12\n  us        3\n");
        assert_eq!(table(&["region"], std::iter::empty()), "  (none)\n");
    }
}
