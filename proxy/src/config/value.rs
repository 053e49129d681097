//! Texts that mean something: durations, addresses, names. Text in, type out; where it stands is not known here.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use ipnet::IpNet;

/// PostgreSQL's port.
const PORT: u16 = 5432;
/// What a socket's path may have, its last NUL not counted (`sun_path` in unix(7)).
const SOCKET_PATH_BYTES_MAX: usize = 107;
/// Names of regions and nodes; they stand in logs, metrics and startup packets.
const NAME_BYTES_MAX: usize = 63;

/// Where a node listens.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Address {
    /// A host name or an IP address (IPv6 without brackets) and a port.
    Tcp {
        /// Resolved when a connection is opened.
        host: String,
        /// Never 0.
        port: u16,
    },
    /// The directory of a PostgreSQL server's unix socket.
    Unix {
        /// Absolute.
        directory: PathBuf,
        /// Part of the socket's name; never 0.
        port: u16,
    },
}

impl Address {
    /// Reads `host:port`, `[IPv6]:port`, `/directory` or `/directory:port`.
    pub(super) fn parse(text: &str) -> Option<Self> {
        if text.starts_with('/') {
            let (directory, port) = match text.rsplit_once(':') {
                Some((directory, port)) => (directory, port_number(port)?),
                None => (text, PORT),
            };
            let address = Self::Unix { directory: PathBuf::from(directory), port };
            return (address.socket_path()?.as_os_str().len() <= SOCKET_PATH_BYTES_MAX).then_some(address);
        }
        let (host, port) = text.rsplit_once(':')?;
        let port = port_number(port)?;
        let host = match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
            Some(inner) => inner.parse::<Ipv6Addr>().is_ok().then_some(inner)?,
            None => is_host_name(host).then_some(host)?,
        };
        Some(Self::Tcp { host: host.to_owned(), port })
    }

    /// The socket's file, for an address that is one: `/run/postgresql/.s.PGSQL.5432`.
    pub fn socket_path(&self) -> Option<PathBuf> {
        match self {
            Self::Tcp { .. } => None,
            Self::Unix { directory, port } => Some(directory.join(format!(".s.PGSQL.{port}"))),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { host, port } if host.contains(':') => write!(f, "[{host}]:{port}"),
            Self::Tcp { host, port } => write!(f, "{host}:{port}"),
            Self::Unix { directory, port } => write!(f, "{}:{port}", directory.display()),
        }
    }
}

fn port_number(text: &str) -> Option<u16> {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|port| digits && *port != 0)
}

fn is_host_name(text: &str) -> bool {
    let ordinary = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_');
    !text.is_empty() && text.bytes().all(ordinary)
}

/// A network such as `10.0.0.0/8`, or one address. Bits behind the prefix are dropped.
pub(super) fn network(text: &str) -> Option<IpNet> {
    match text.parse::<IpNet>() {
        Ok(network) => Some(network.trunc()),
        Err(_) => text.parse::<IpAddr>().ok().map(IpNet::from),
    }
}

/// A number with one of PostgreSQL's units: ms, s, min, h, d.
pub(super) fn duration(text: &str) -> Option<Duration> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at_checked(digits)?;
    let number: u64 = number.parse().ok()?;
    let seconds = match unit.trim_start() {
        "ms" => return Some(Duration::from_millis(number)),
        "s" => 1,
        "min" => 60,
        "h" => 3600,
        "d" => 86_400,
        _ => return None,
    };
    number.checked_mul(seconds).map(Duration::from_secs)
}

/// A number with one of PostgreSQL's units of memory: B, kB, MB, GB, TB, each 1024 times the last.
pub(super) fn bytes(text: &str) -> Option<usize> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at_checked(digits)?;
    let power = UNITS.iter().position(|known| *known == unit.trim_start())?;
    number.parse::<usize>().ok()?.checked_mul(1024usize.checked_pow(u32::try_from(power).ok()?)?)
}

/// An amount of memory as it could stand in the file.
pub fn shown_bytes(bytes: usize) -> String {
    let (mut number, mut power) = (bytes, 0);
    while number >= 1024 && number % 1024 == 0 && power + 1 < UNITS.len() {
        (number, power) = (number / 1024, power + 1);
    }
    format!("{number}{}", UNITS.get(power).unwrap_or(&"B"))
}

const UNITS: [&str; 5] = ["B", "kB", "MB", "GB", "TB"];

/// A duration as it could stand in the file.
pub(super) fn shown_duration(duration: Duration) -> String {
    match duration.as_secs() {
        days if days >= 86_400 && days % 86_400 == 0 => format!("\"{}d\"", days / 86_400),
        seconds if u128::from(seconds) * 1000 == duration.as_millis() => format!("\"{seconds}s\""),
        _ => format!("\"{}ms\"", duration.as_millis()),
    }
}

/// Whether a text may name a region or a node: letters, digits, `-`, `_` and `.`, so that it means the same in a log line,
/// a metric's label, a shell and a startup packet.
pub(super) fn is_name(text: &str) -> bool {
    is_host_name(text) && text.len() <= NAME_BYTES_MAX
}

/// Whether PostgreSQL would take the text as the name of a custom setting: words with a dot between them.
pub(super) fn is_custom_setting(text: &str) -> bool {
    let is_word = |word: &str| {
        let ordinary = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
        word.bytes().all(ordinary) && !word.is_empty() && !word.starts_with(|first: char| first.is_ascii_digit())
    };
    text.len() <= NAME_BYTES_MAX && text.contains('.') && text.split('.').all(is_word)
}

/// A text from the file as a mistake repeats it: on one line, and not all of it if it is long.
pub(super) fn shown(text: &str) -> String {
    const SHOWN_CHARACTERS_MAX: usize = 60;
    let mut shown: String = text.chars().take(SHOWN_CHARACTERS_MAX).flat_map(char::escape_debug).collect();
    if text.chars().nth(SHOWN_CHARACTERS_MAX).is_some() {
        shown.push('…');
    }
    shown
}

/// A path of the configuration: relative ones are relative to the directory of the configuration file.
pub(super) fn path_beside(configuration: &Path, path: &str) -> PathBuf {
    configuration.parent().unwrap_or(Path::new("")).join(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_units() {
        assert_eq!(duration("250ms"), Some(Duration::from_millis(250)));
        assert_eq!(duration("120 s"), Some(Duration::from_secs(120)));
        assert_eq!(duration("5min"), Some(Duration::from_secs(300)));
        assert_eq!(duration("1h"), Some(Duration::from_secs(3600)));
        assert_eq!(duration("2d"), Some(Duration::from_secs(172_800)));
        for wrong in ["", "s", "5", "5m", "-1s", "1.5s", "5 fortnights", "18446744073709551615h", "é"] {
            assert_eq!(duration(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn memory_has_postgresqls_units() {
        for (text, amount) in [("0B", 0), ("512B", 512), ("1 kB", 1024), ("3MB", 3 << 20), ("2GB", 2 << 30), ("1TB", 1 << 40)] {
            assert_eq!(bytes(text), Some(amount), "{text}");
            assert_eq!(shown_bytes(amount), text.replace(' ', ""));
        }
        for wrong in ["", "5", "MB", "1mb", "1MiB", "-1MB", "99999999999TB", "é"] {
            assert_eq!(bytes(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn durations_are_shown_as_they_could_be_written() {
        for text in ["1ms", "250ms", "120s", "365d"] {
            assert_eq!(duration(text).map(shown_duration), Some(format!("\"{text}\"")));
        }
    }

    #[test]
    fn addresses_are_read_and_shown() {
        for text in ["127.0.0.1:5433", "db-1.example.org:5432", "[::1]:5432", "/run/postgresql:5433"] {
            assert_eq!(Address::parse(text).unwrap().to_string(), text);
        }
        let socket = Address::parse("/run/postgresql").unwrap();
        assert_eq!(socket.to_string(), "/run/postgresql:5432");
        assert_eq!(socket.socket_path(), Some(PathBuf::from("/run/postgresql/.s.PGSQL.5432")));
        let long = format!("/{}", "x".repeat(100));
        for wrong in [
            "",
            "host",
            "host:",
            "host:0",
            "host:+5",
            "host:65536",
            ":5432",
            "::1:5432",
            "[host]:1",
            "run/pg",
            "a b:1",
            "/x:y",
            &long,
        ] {
            assert_eq!(Address::parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn networks_are_masked() {
        assert_eq!(network("10.1.2.3/8").unwrap().to_string(), "10.0.0.0/8");
        assert_eq!(network("10.1.2.3").unwrap().to_string(), "10.1.2.3/32");
        assert_eq!(network("2001:db8::/32").unwrap().to_string(), "2001:db8::/32");
        assert_eq!(network("10.0.0.0/33"), None);
    }

    #[test]
    fn names_are_ordinary_words() {
        assert!(is_name("eu-west") && is_name("pg_1.eu") && is_custom_setting("helios.region"));
        for wrong in ["", "eu west", "eu\"west", "région", &"x".repeat(64)] {
            assert!(!is_name(wrong), "{wrong}");
        }
        for wrong in ["", "region", "helios.", ".region", "helios.2", "helios.re-gion"] {
            assert!(!is_custom_setting(wrong), "{wrong}");
        }
    }

    #[test]
    fn paths_are_beside_the_file() {
        assert_eq!(path_beside(Path::new("configs/demo.toml"), "users.txt"), Path::new("configs/users.txt"));
        assert_eq!(path_beside(Path::new("demo.toml"), "users.txt"), Path::new("users.txt"));
        assert_eq!(path_beside(Path::new("demo.toml"), "/etc/users.txt"), Path::new("/etc/users.txt"));
    }
}
