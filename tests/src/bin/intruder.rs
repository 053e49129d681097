//! `domicile-intruder [--cgroup DIRECTORY] [--unprivileged] ATTEMPT…`: tries to open connections as a proxy that has been taken over
//! would, and says what became of each.
//!
//! An attempt is `<what>=<address>`, with the number of a region before it where the socket is to be tagged: `connect=10.0.0.1:5432`,
//! `7:connect=10.0.0.1:5432`. `connect`, `uring` (io_uring), `mapped` (an IPv4 address through an IPv6 socket), `fastopen`, `udp`,
//! `mptcp`, `cost` (CPU time of a connection), `retag` (a second tag, of the region one higher), `late` (a socket that is tagged after somebody has connected to it, at
//! this address, and then sends). `unix` takes a path instead of an address.

use std::io::{self, Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpListener, UdpSocket};
use std::os::fd::AsRawFd;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use io_uring::{IoUring, opcode, types};
use nix::unistd::{Gid, Uid, setgid, setgroups, setuid};
use socket2::{Domain, Protocol, SockAddr, SockRef, Socket, Type};

/// Of ebpf/abi, said once more: an intruder has not read our source.
const TAG_LEVEL: i32 = 0x444f;
const TAG_NAME: i32 = 1;
const IPPROTO_MPTCP: i32 = 262;

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("domicile-intruder: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> io::Result<()> {
    let mut arguments = std::env::args().skip(1).peekable();
    while let Some(option) = arguments.next_if(|argument| argument.starts_with("--")) {
        match option.as_str() {
            "--cgroup" => {
                let cgroup = arguments.next().ok_or_else(|| io::Error::other("--cgroup takes a directory"))?;
                std::fs::write(Path::new(&cgroup).join("cgroup.procs"), "0")?;
            }
            "--unprivileged" => become_nobody()?,
            other => return Err(io::Error::other(format!("there is no {other}"))),
        }
    }
    for attempt in arguments {
        let became = match attempt.split_once('=') {
            Some((what, address)) => {
                let (region, what) = what.split_once(':').map_or((None, what), |(region, what)| (region.parse().ok(), what));
                if what == "unix" {
                    by_path(region, address)
                } else {
                    let address = address.parse().map_err(|_| io::Error::other(format!("{address} is no address")))?;
                    try_one(region, what, address)
                }
            }
            None => return Err(io::Error::other(format!("{attempt} is no attempt"))),
        };
        let shown = became.unwrap_or_else(|error| name(&error));
        println!("{}: {shown}", attempt.replace('=', " "));
        io::stdout().flush()?;
    }
    Ok(())
}

fn try_one(region: Option<u32>, what: &str, address: SocketAddr) -> io::Result<String> {
    let tcp = |address: SocketAddr| Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP));
    let tagged = |socket: Socket| region.map_or(Ok(()), |region| tag(&socket, region)).map(|()| socket);
    let patience = Duration::from_secs(3);
    match what {
        "connect" => tagged(tcp(address)?)?.connect_timeout(&address.into(), patience)?,
        "mapped" => {
            let IpAddr::V4(inner) = address.ip() else { return Err(io::Error::other("mapped takes an IPv4 address")) };
            let mapped = SocketAddr::new(inner.to_ipv6_mapped().into(), address.port());
            let socket = tcp(mapped)?;
            socket.set_only_v6(false)?;
            tagged(socket)?.connect_timeout(&mapped.into(), patience)?;
        }
        "uring" => by_uring(&tagged(tcp(address)?)?, address)?,
        "fastopen" => {
            tagged(tcp(address)?)?.send_to_with_flags(b"row", &address.into(), libc::MSG_FASTOPEN)?;
        }
        "udp" => {
            let any: IpAddr = if address.is_ipv4() { [0; 4].into() } else { [0_u16; 8].into() };
            UdpSocket::bind((any, 0))?.send_to(b"row", address)?;
        }
        "mptcp" => {
            let protocol = Protocol::from(IPPROTO_MPTCP);
            let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(protocol));
            tagged(socket.map_err(|error| io::Error::new(error.kind(), format!("socket: {}", name(&error))))?)?
                .connect_timeout(&address.into(), patience)?;
        }
        "retag" => {
            let socket = tagged(tcp(address)?)?;
            tag(&socket, region.unwrap_or(0) + 1)?;
        }
        "cost" => return cost(region, address),
        "late" => return late(region.unwrap_or(0), address),
        _ => return Err(io::Error::other(format!("there is no attempt {what}"))),
    }
    Ok("done".to_owned())
}

/// Waits for somebody to connect, tags that socket, and sends. Whoever connected sends back what it has got.
fn late(region: u32, address: SocketAddr) -> io::Result<String> {
    let listener = TcpListener::bind(address)?;
    println!("listening");
    io::stdout().flush()?;
    // As long as a receive may take, an accept may.
    SockRef::from(&listener).set_read_timeout(Some(Duration::from_secs(20)))?;
    let (mut stream, _) = listener.accept()?;
    tag(&stream, region)?;
    stream.write_all(b"row")?;
    stream.set_read_timeout(Some(Duration::from_secs(2)))?;
    let mut answer = [0; 3];
    Ok(match stream.read(&mut answer) {
        Ok(0) => "the peer is gone".to_owned(),
        Ok(_) => "the peer has got it".to_owned(),
        Err(_) => "nothing arrived".to_owned(),
    })
}

/// CPU time of this thread for making, tagging, connecting and closing a socket, in nanoseconds.
fn cost(region: Option<u32>, address: SocketAddr) -> io::Result<String> {
    const TIMES: u32 = 20_000;
    let now = || rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    let (address, before) = (SockAddr::from(address), now());
    for _ in 0..TIMES {
        let socket = Socket::new(address.domain(), Type::STREAM, Some(Protocol::TCP))?;
        if let Some(region) = region {
            tag(&socket, region)?;
        }
        socket.connect(&address)?;
        // Without this, what is left of 20 000 connections would be in TIME_WAIT, and no port would be free.
        socket.set_linger(Some(Duration::ZERO))?;
    }
    let after = now();
    let nanoseconds = (after.tv_sec - before.tv_sec) * 1_000_000_000 + after.tv_nsec - before.tv_nsec;
    Ok((nanoseconds / i64::from(TIMES)).to_string())
}

fn by_path(region: Option<u32>, path: &str) -> io::Result<String> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    if let Some(region) = region {
        tag(&socket, region)?;
    }
    socket.connect(&SockAddr::unix(path)?).map(|()| "done".to_owned())
}

fn by_uring(socket: &Socket, address: SocketAddr) -> io::Result<()> {
    let mut ring = IoUring::new(2)?;
    let address = SockAddr::from(address);
    let connect = opcode::Connect::new(types::Fd(socket.as_raw_fd()), address.as_ptr().cast(), address.len()).build();
    // SAFETY: the address lives until the operation has completed, which is waited for.
    unsafe { ring.submission().push(&connect) }.map_err(io::Error::other)?;
    ring.submit_and_wait(1)?;
    match ring.completion().next().map(|completion| completion.result()) {
        Some(0) => Ok(()),
        Some(error) => Err(io::Error::from_raw_os_error(-error)),
        None => Err(io::Error::other("the ring says nothing")),
    }
}

fn tag(socket: &impl AsRawFd, region: u32) -> io::Result<()> {
    let tag = [region, 0, u32::MAX, 0, 0, 0];
    let length = libc::socklen_t::try_from(size_of_val(&tag)).unwrap_or_default();
    // SAFETY: the pointer and the length are those of a value that lives longer than the call.
    let result = unsafe { libc::setsockopt(socket.as_raw_fd(), TAG_LEVEL, TAG_NAME, tag.as_ptr().cast(), length) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

fn become_nobody() -> io::Result<()> {
    const NOBODY: u32 = 65_534;
    setgroups(&[])?;
    setgid(Gid::from_raw(NOBODY))?;
    Ok(setuid(Uid::from_raw(NOBODY))?)
}

/// An error as the system's header files name it, where it is one that is looked for.
fn name(error: &io::Error) -> String {
    match error.raw_os_error() {
        Some(libc::EPERM) => "EPERM".to_owned(),
        Some(libc::ECONNREFUSED) => "ECONNREFUSED".to_owned(),
        Some(libc::ENOPROTOOPT) => "ENOPROTOOPT".to_owned(),
        _ => error.to_string(),
    }
}
