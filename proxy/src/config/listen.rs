//! `listen`: where clients connect, over TCP and over Unix sockets.

use std::net::SocketAddr;
use std::path::PathBuf;

use super::document::{Entry, Section};
use super::value::Address;

/// Who may connect, unless the directory keeps them out: as PostgreSQL's `unix_socket_permissions`.
const MODE: u32 = 0o777;

/// Where clients connect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Listen {
    pub(super) addresses: Vec<SocketAddr>,
    pub(super) unix: UnixSockets,
}

/// The Unix sockets that clients connect to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnixSockets {
    /// The files, such as `/run/domicile/.s.PGSQL.6432`; none twice.
    pub paths: Vec<PathBuf>,
    /// The mode of each file: whoever may write to it may connect.
    pub mode: u32,
}

/// Reads `listen` and `unix_socket_mode`.
pub(super) fn read(root: &Section<'_>) -> Listen {
    let mode = root.entry("unix_socket_mode").and_then(|entry| mode(&entry)).unwrap_or(MODE);
    let mut listen = Listen { addresses: Vec::new(), unix: UnixSockets { paths: Vec::new(), mode } };
    let Some(entry) = root.entry("listen") else {
        listen.addresses.push(SocketAddr::from(([127, 0, 0, 1], 6432)));
        return listen;
    };
    let elements = entry.elements("addresses such as \"127.0.0.1:6432\"");
    if elements.as_ref().is_some_and(Vec::is_empty) {
        entry.mistake("listen is empty: give it an address such as \"127.0.0.1:6432\", or remove it for that default");
    }
    let elements = elements.unwrap_or_default();
    let is_directory = |entry: &&Entry<'_>| entry.value.as_str().is_some_and(|text| text.starts_with('/'));
    let (directories, addresses): (Vec<_>, Vec<_>) = elements.iter().partition(is_directory);
    for element in addresses {
        let what = "an IP address and a port, such as \"127.0.0.1:6432\", \"0.0.0.0:6432\" or \"[::]:6432\", or the directory of a \
                    Unix socket, such as \"/run/domicile\"";
        let Some(address) = element.parsed(what, address) else { continue };
        if listen.addresses.contains(&address) {
            element.mistake(format!("{}: {address} is already in the list: remove one", element.name));
        }
        listen.addresses.push(address);
    }
    for element in directories {
        if let Some(path) = socket(element, listen.addresses.first()) {
            if listen.unix.paths.contains(&path) {
                element.mistake(format!("{}: {} is already in the list: remove one", element.name, path.display()));
            }
            listen.unix.paths.push(path);
        }
    }
    listen
}

/// An address that is not chosen by chance.
pub(super) fn address(text: &str) -> Option<SocketAddr> {
    text.parse().ok().filter(|address: &SocketAddr| address.port() != 0)
}

/// The file of a Unix socket; without a port of its own it has that of the first address.
fn socket(entry: &Entry<'_>, first: Option<&SocketAddr>) -> Option<PathBuf> {
    let text = entry.text()?;
    let with_port = match (text.contains(':'), first) {
        (true, _) => text.to_owned(),
        (false, Some(first)) => format!("{text}:{}", first.port()),
        (false, None) => {
            entry.mistake(format!("{} needs a port, since there is no other address: write \"{text}:6432\"", entry.name));
            return None;
        }
    };
    let path = Address::parse(&with_port).and_then(|address| address.socket_path());
    if path.is_none() {
        entry.must_be("an absolute directory whose socket has a path of at most 107 bytes, such as \"/run/domicile\" or \"/run/domicile:6432\"");
    }
    path
}

fn mode(entry: &Entry<'_>) -> Option<u32> {
    let octal = |text: &str| u32::from_str_radix(text, 8).ok().filter(|mode| *mode <= 0o777 && text.len() >= 3);
    entry.parsed("the mode of a file in octal digits, such as \"0777\" or \"0770\"", octal)
}
