//! The load: clients that ask one thing over and over, in one thread, on the product's engine so that it is cheaper than what it
//! measures.
//!
//! In a closed loop each client asks again when it has its answer. In an open loop there is a moment for every question, whatever
//! has become of those before it; its latency counts from that moment, also if all clients were busy then.

pub mod idle;
pub mod logins;

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use domicile_bench::answers::{BLOCKS, LARGE_BYTES, Work, last};
use domicile_bench::cpu;
use domicile_bench::outcome::{Latency, Outcome, Protocol};
use domicile_bench::scanner::Scanner;
use domicile_tests::client::{Client, Login};
use domicile_tests::message;
use domicile_tests::process::now;
use domicile_tests::tls::{Stream, trusting};
use hdrhistogram::Histogram;
use rustix::time::{Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec};
use rustls::ClientConnection;
use rustls::client::Resumption;

use crate::engine::{self, Engine, Event, Side};
use crate::sealed;

/// What is to be done.
#[derive(clap::Args)]
pub struct Options {
    /// Where to
    address: SocketAddr,
    /// Clients at once
    #[arg(long, default_value_t = 1)]
    clients: usize,
    /// The way of asking
    #[arg(long, value_enum, default_value_t = Protocol::Simple)]
    protocol: Protocol,
    /// What is asked for
    #[arg(long, value_enum, default_value_t = Work::Row100)]
    work: Work,
    /// Questions a second; without it, each client asks as soon as it has its answer
    #[arg(long)]
    rate: Option<f64>,
    /// Milliseconds before it counts
    #[arg(long, default_value_t = 200)]
    warm_up: u64,
    /// Milliseconds that count
    #[arg(long, default_value_t = 1000)]
    window: u64,
    /// The process whose CPU time is looked at, with all its children
    #[arg(long)]
    process: Option<u32>,
    /// The role
    #[arg(long, default_value = "postgres")]
    user: String,
    #[command(flatten)]
    encrypted: Encrypted,
}

/// Whether connections are encrypted.
#[derive(clap::Args)]
pub struct Encrypted {
    /// Encrypt, and believe this authority
    #[arg(long, value_name = "FILE")]
    authority: Option<PathBuf>,
}

impl Encrypted {
    /// Makes a log in, each with a whole handshake, as libpq does.
    fn door(&self, address: SocketAddr) -> impl Fn(&Login<'_>) -> Result<Client, String> + Sync {
        let config = self.authority.as_deref().map(|authority| {
            let mut config = trusting(authority);
            config.resumption = Resumption::disabled();
            Arc::new(config)
        });
        move |login| {
            let client = match &config {
                None => Client::connect(address),
                Some(config) => Client::connect_encrypted(address, Arc::clone(config), false),
            };
            client.map_err(|error| error.to_string())?.begin(login).map_err(|said| format!("a login failed: {said}"))
        }
    }
}

/// Runs it.
pub fn run(options: &Options) -> Result<Outcome, String> {
    let request = request(options.work, options.protocol);
    let mut streams = Vec::new();
    let log_in = options.encrypted.door(options.address);
    for _ in 0..options.clients {
        let login = Login { user: &options.user, ..Login::default() };
        let mut client = log_in(&login)?;
        if options.protocol == Protocol::Prepared {
            let said = client.ask(&[message::parse("load", options.work.statement()), message::sync()].concat());
            if let Some(error) = said.error() {
                return Err(format!("Parse failed: {error:?}"));
            }
        }
        streams.push(client.into_stream());
    }
    let failed = |error: io::Error| error.to_string();
    let mut uring = engine::open().map_err(failed)?;
    let engine = Engine::new(&mut uring).map_err(failed)?;
    let timer = rustix::time::timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC);
    let timer = timer.map_err(|error| error.to_string())?;
    let mut load = Load::new(engine, streams, request, options, timer);
    load.run()
}

/// What a client sends for one question.
fn request(work: Work, protocol: Protocol) -> &'static [u8] {
    let text = work.statement();
    let prepared = |name| [message::bind("", name, &[]), message::describe_portal(""), message::execute("", 0), message::sync()];
    last(match protocol {
        Protocol::Simple => message::query(text),
        Protocol::Extended => [message::parse("", text), prepared("").concat()].concat(),
        Protocol::Prepared => prepared("load").concat(),
    })
}

/// One client.
struct Asker {
    tls: Option<Box<ClientConnection>>,
    scanner: Scanner,
    /// When what it waits for was to be asked.
    asked_at: Instant,
}

struct Load<'uring> {
    engine: Engine<'uring>,
    askers: Vec<Asker>,
    request: &'static [u8],
    /// What is sent for COPY FROM STDIN once the server is ready for it.
    copied: &'static [u8],
    /// Between two questions of an open loop.
    interval: Option<Duration>,
    /// The moment of the next question.
    next_at: Instant,
    /// Moments that found no client.
    late: VecDeque<Instant>,
    idle: Vec<usize>,
    /// What has come encrypted.
    text: Vec<u8>,
    timer: OwnedFd,
    histogram: Histogram<u64>,
    queries: u64,
    errors: u64,
    error: String,
    warm_up: Duration,
    window: Duration,
    process: Option<u32>,
}

impl<'uring> Load<'uring> {
    fn new(mut engine: Engine<'uring>, streams: Vec<Stream>, request: &'static [u8], options: &Options, timer: OwnedFd) -> Self {
        let began = now();
        let (mut idle, mut askers) = (Vec::new(), Vec::new());
        for stream in streams {
            let (socket, tls) = match stream {
                Stream::Plain(socket) => (socket, None),
                Stream::Accepted(_) => unreachable!("a client's connection"),
                Stream::Encrypted(stream) => {
                    let (tls, socket) = stream.into_parts();
                    (socket, Some(Box::new(tls)))
                }
            };
            idle.push(engine.admit(socket.into(), Side::Backend));
            askers.push(Asker { tls, scanner: Scanner::default(), asked_at: began });
        }
        engine.watch(timer.as_fd());
        let copied = match options.work {
            // As psql sends it: 8 KiB each.
            Work::CopyIn => last(message::copy_data(&"x".repeat(8192 - 5)).repeat(LARGE_BYTES / BLOCKS / 8192)),
            Work::Row100 | Work::Row8192 | Work::Rows64m | Work::CopyOut => b"",
        };
        Self {
            engine,
            askers,
            request,
            copied,
            interval: options.rate.map(|rate| Duration::from_secs_f64(1.0 / rate)),
            next_at: began,
            late: VecDeque::new(),
            idle,
            text: Vec::new(),
            timer,
            histogram: histogram(),
            queries: 0,
            errors: 0,
            error: String::new(),
            warm_up: Duration::from_millis(options.warm_up),
            window: Duration::from_millis(options.window),
            process: options.process,
        }
    }

    fn run(&mut self) -> Result<Outcome, String> {
        let used = |process: Option<u32>| process.map_or(Duration::ZERO, cpu::of_tree);
        self.until(self.warm_up)?;
        (self.queries, self.histogram) = (0, histogram());
        let began = now();
        let (used_before, own_before) = (used(self.process), cpu::of_this_thread());
        self.until(self.window)?;
        let seconds = (now() - began).as_secs_f64();
        let cpu_seconds = (used(self.process) - used_before).as_secs_f64();
        if self.errors > 0 {
            return Err(format!("{} errors, the last: {}", self.errors, self.error));
        }
        Ok(Outcome {
            queries: self.queries,
            seconds,
            cpu_seconds,
            own_cpu_seconds: (cpu::of_this_thread() - own_before).as_secs_f64(),
            latency: Latency::of(&self.histogram),
            late: self.late.len(),
        })
    }

    /// Goes on for a time. What takes longer than that is waited for once.
    fn until(&mut self, duration: Duration) -> Result<(), String> {
        let began = now();
        let mut current = began;
        while current < began + duration || self.queries == 0 {
            self.ask(current).map_err(|error| error.to_string())?;
            self.set_timer(current, began + duration)?;
            self.engine.turn().map_err(|error| error.to_string())?;
            current = now();
            while let Some(event) = self.engine.next().map_err(|error| error.to_string())? {
                match event {
                    Event::Received(index, span) => {
                        self.received(index, span, current).map_err(|error| error.to_string())?;
                    }
                    Event::Closed(_) => return Err(format!("a connection was closed: {}", self.error)),
                    Event::Timer => {
                        rustix::io::read(&self.timer, &mut [0; 8]).ok();
                    }
                    Event::Accepted(_) | Event::Sent(_) => {}
                }
            }
        }
        Ok(())
    }

    /// Asks all that is to be asked by now.
    fn ask(&mut self, current: Instant) -> io::Result<()> {
        let Some(interval) = self.interval else {
            while let Some(index) = self.idle.pop() {
                self.askers[index].asked_at = current;
                self.send(index, self.request)?;
            }
            return Ok(());
        };
        while self.next_at <= current {
            self.late.push_back(self.next_at);
            self.next_at += interval;
        }
        while !self.late.is_empty()
            && let Some(index) = self.idle.pop()
            && let Some(moment) = self.late.pop_front()
        {
            self.askers[index].asked_at = moment;
            self.send(index, self.request)?;
        }
        Ok(())
    }

    fn send(&mut self, index: usize, bytes: &'static [u8]) -> io::Result<()> {
        match &mut self.askers[index].tls {
            None => self.engine.send_lasting(index, bytes),
            Some(tls) => self.engine.send(index, &sealed::seal(tls, bytes)?),
        }
        Ok(())
    }

    /// Sees to it that the next turn ends in time.
    fn set_timer(&self, current: Instant, end: Instant) -> Result<(), String> {
        let next = if self.interval.is_some() { self.next_at.min(end) } else { return self.set_end(current, end) };
        self.fire_in(next.saturating_duration_since(current))
    }

    /// In a closed loop answers end turns; the timer only has to end the last one, so it is set but rarely.
    fn set_end(&self, current: Instant, end: Instant) -> Result<(), String> {
        if self.queries.is_multiple_of(1024) { self.fire_in(end.saturating_duration_since(current)) } else { Ok(()) }
    }

    fn fire_in(&self, wait: Duration) -> Result<(), String> {
        let wait = wait.max(Duration::from_micros(1));
        let value = Timespec { tv_sec: wait.as_secs().cast_signed(), tv_nsec: i64::from(wait.subsec_nanos()) };
        let times = Itimerspec { it_interval: Timespec { tv_sec: 0, tv_nsec: 0 }, it_value: value };
        rustix::time::timerfd_settime(&self.timer, TimerfdTimerFlags::empty(), &times).map_err(|error| error.to_string())?;
        Ok(())
    }

    fn received(&mut self, index: usize, span: engine::Span, current: Instant) -> io::Result<()> {
        let asker = &mut self.askers[index];
        let mut bytes = self.engine.bytes(&span);
        if let Some(tls) = &mut asker.tls {
            self.text.clear();
            sealed::open(tls, bytes, &mut self.text)?;
            bytes = &self.text;
        }
        let (mut ready, mut errors, mut wants_copy) = (false, 0, false);
        asker.scanner.scan(bytes, |tag| match tag {
            b'Z' => ready = true,
            b'E' => errors += 1,
            b'G' => wants_copy = true,
            _ => {}
        });
        self.engine.release(span);
        if errors > 0 {
            self.errors += errors;
            self.error = self.askers[index].scanner.error_text();
        }
        if wants_copy {
            for _ in 0..BLOCKS {
                self.send(index, self.copied)?;
            }
            self.send(index, &[b'c', 0, 0, 0, 4])?;
        }
        if ready {
            self.queries += 1;
            let took = current.saturating_duration_since(self.askers[index].asked_at);
            self.histogram.saturating_record(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX));
            self.idle.push(index);
        }
        Ok(())
    }
}

/// From a microsecond to a minute, in nanoseconds, to three digits.
fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1000, 60_000_000_000, 3).unwrap_or_else(|error| unreachable!("{error}"))
}
