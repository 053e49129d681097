//! Network namespaces joined by veth pairs: an edge, where the proxy is, and a namespace for each region.
//!
//! A namespace has no name: a process that sleeps holds it, and it is gone, with its interfaces, when that process is. What is done
//! within [`Namespace::inside`], connecting or starting a process, is done in that namespace.

use std::cell::RefCell;
use std::fs::File;
use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::process::{Command, Stdio};

use rustix::process::Signal;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::process::Process;
use crate::program;

thread_local! {
    /// The namespace that this thread has entered, if it has.
    static ENTERED: RefCell<Option<OwnedFd>> = const { RefCell::new(None) };
}

/// The namespace that this thread has entered by [`Namespace::inside`].
pub(crate) fn entered() -> Option<OwnedFd> {
    let current = |entered: &RefCell<Option<OwnedFd>>| entered.borrow().as_ref()?.try_clone().ok();
    // A process that is started elsewhere is started in the namespace of all.
    ENTERED.with(current).or_else(|| File::open("/proc/self/ns/net").ok().map(OwnedFd::from))
}

/// Moves this thread.
pub(crate) fn enter(namespace: impl AsFd) -> io::Result<()> {
    Ok(move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))?)
}

/// The site's end of its cable.
const UPLINK: &str = "uplink";

/// A network namespace.
pub struct Namespace {
    holder: Process,
    handle: OwnedFd,
}

impl Namespace {
    /// A new one, with nothing in it but its loopback interface.
    ///
    /// # Errors
    /// What is lacking: root, or a program.
    pub fn new() -> Result<Self, String> {
        if !rustix::process::geteuid().is_root() {
            return Err("root, to make network namespaces".to_owned());
        }
        let unshare = program::need("unshare")?;
        program::need("ip")?;
        let mut command = Command::new(unshare);
        command.args(["--net", "--", "sleep", "infinity"]).stdin(Stdio::null());
        let holder = Process::start(command, Signal::KILL).map_err(|error| format!("unshare: {error}"))?;
        let own = PathBuf::from("/proc/self/ns/net").read_link().map_err(|error| error.to_string())?;
        let path = PathBuf::from(format!("/proc/{}/ns/net", holder.id()));
        // It is another one as soon as unshare(1) has called unshare(2).
        let handle = crate::process::wait_for(std::time::Duration::from_secs(5), || {
            (path.read_link().ok()? != own).then(|| File::open(&path).ok().map(OwnedFd::from)).flatten()
        });
        let handle = handle.ok_or("network namespaces (unshare --net does not work here)")?;
        let namespace = Self { holder, handle };
        namespace.must_run(&["link", "set", "lo", "up"]);
        Ok(namespace)
    }

    /// Does something on this thread, in this namespace.
    ///
    /// # Panics
    /// If the namespace cannot be entered or left.
    pub fn inside<T>(&self, work: impl FnOnce() -> T) -> T {
        struct Home(OwnedFd, Option<OwnedFd>);
        impl Drop for Home {
            fn drop(&mut self) {
                ENTERED.with(|entered| entered.replace(self.1.take()));
                if let Err(error) = enter(&self.0) {
                    eprintln!("a thread cannot go back to its network namespace: {error}");
                    std::process::abort();
                }
            }
        }
        let home = File::open("/proc/thread-self/ns/net").expect("this thread's network namespace");
        let here = self.handle.try_clone().expect("a descriptor");
        let _home = Home(home.into(), ENTERED.with(|entered| entered.replace(Some(here))));
        enter(&self.handle).expect("entering a network namespace");
        work()
    }

    /// Runs a program in it; what it says, if it succeeds.
    pub fn run(&self, name: &str, arguments: &[&str]) -> Result<String, String> {
        let mut command = Command::new(program::need(name)?);
        command.args(arguments);
        let output = self.inside(|| command.output()).map_err(|error| format!("{name}: {error}"))?;
        let said = program::both(&output);
        if output.status.success() { Ok(said) } else { Err(format!("{name} {}: {}", arguments.join(" "), said.trim())) }
    }

    /// Sets something up with ip(8).
    fn must_run(&self, arguments: &[&str]) {
        if let Err(error) = self.run("ip", arguments) {
            panic!("{error}");
        }
    }

    /// What an interface has counted: (bytes received, bytes sent, packets received, packets sent).
    pub fn counted(&self, interface: &str) -> Result<[u64; 4], String> {
        let text = self.run("cat", &["/proc/thread-self/net/dev"])?;
        let numbers = text.lines().find_map(|line| line.trim().strip_prefix(interface)?.strip_prefix(':'));
        let numbers: Vec<u64> = numbers.unwrap_or_default().split_whitespace().filter_map(|word| word.parse().ok()).collect();
        match numbers[..] {
            [received, received_packets, _, _, _, _, _, _, sent, sent_packets, ..] => {
                Ok([received, sent, received_packets, sent_packets])
            }
            _ => Err(format!("there is no interface {interface}: {text}")),
        }
    }
}

/// A region's namespace and the cable to it.
pub struct Site {
    /// Where its servers are.
    pub namespace: Namespace,
    /// The addresses of its end of the cable.
    pub addresses: [IpAddr; 2],
    /// The name of the edge's end.
    pub interface: String,
}

/// An edge and a site for each region.
pub struct Network {
    /// Where the proxy is.
    pub edge: Namespace,
    /// In the order of their numbers.
    pub sites: Vec<Site>,
}

impl Network {
    /// An edge with `sites` sites, each with an IPv4 and an IPv6 address: 10.77.n.2 and fd77:n::2; the edge's end has 1.
    ///
    /// # Errors
    /// What is lacking.
    ///
    /// # Panics
    /// If an interface cannot be set up.
    pub fn new(sites: usize) -> Result<Self, String> {
        let edge = Namespace::new()?;
        let mut network = Self { edge, sites: Vec::new() };
        for number in 1..=sites {
            let namespace = Namespace::new()?;
            let (interface, holder) = (format!("site{number}"), namespace.holder.id().to_string());
            let edge = &network.edge;
            edge.must_run(&["link", "add", &interface, "type", "veth", "peer", "name", UPLINK, "netns", &holder]);
            for (at, name, host) in [(edge, interface.as_str(), 1), (&namespace, UPLINK, 2)] {
                at.must_run(&["address", "add", &format!("10.77.{number}.{host}/24"), "dev", name]);
                // Without duplicate address detection the address can be used at once.
                at.must_run(&["address", "add", &format!("fd77:{number}::{host}/64"), "dev", name, "nodad"]);
                at.must_run(&["link", "set", name, "up"]);
            }
            let addresses = [format!("10.77.{number}.2"), format!("fd77:{number}::2")];
            let addresses = addresses.map(|address| address.parse().unwrap_or(IpAddr::from([0, 0, 0, 0])));
            network.sites.push(Site { namespace, addresses, interface });
        }
        Ok(network)
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::net::{TcpListener, TcpStream};

    use super::*;

    #[test]
    fn sites_are_reached_from_the_edge_and_not_from_each_other() {
        let Some(network) = crate::skip::available(Network::new(2)) else { return };
        let [one, two] = &network.sites[..] else { panic!("two were asked for") };
        for address in one.addresses {
            let listener = one.namespace.inside(|| TcpListener::bind((address, 0))).unwrap();
            let target = listener.local_addr().unwrap();
            let mut client = network.edge.inside(|| TcpStream::connect(target)).unwrap();
            client.write_all(b"hello").unwrap();
            let mut received = [0; 5];
            listener.accept().unwrap().0.read_exact(&mut received).unwrap();
            assert_eq!(&received, b"hello");
            assert!(two.namespace.inside(|| TcpStream::connect(target)).is_err());
        }
        let [received, sent, ..] = network.edge.counted(&one.interface).unwrap();
        assert!(received > 0 && sent > 0);
    }
}
