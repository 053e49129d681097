//! The keeper: a process of its own that stays privileged when the proxy gives its privileges up, and changes the allow-list on reload.
//!
//! It reads the configuration file itself and resolves names itself; the proxy, whom it does not trust, only says when. One line asks,
//! one answers:
//!
//! ```text
//!   widen    ▶  ok <SHA-256 of the file>   |  error <why>
//!   narrow   ▶  ok <SHA-256 of the file>   |  error <why>
//! ```
//!
//! It ends when the proxy does. The fence stays.

use std::fmt::Write as _;
use std::io::{self, BufRead as _, BufReader, Write as _};
use std::mem;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _};
use tokio::sync::Mutex;
use tokio::time::timeout;

use super::{Absent, install};
use crate::config::{self, Config};

/// How long it may take: names that are resolved have timeouts of their own, of some seconds each.
const PATIENCE: Duration = Duration::from_secs(30);

/// What the keeper is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wish {
    /// Also allow what the configuration file says now.
    Widen,
    /// Allow what it says, and nothing else.
    Narrow,
}

impl Wish {
    fn word(self) -> &'static str {
        match self {
            Self::Widen => "widen",
            Self::Narrow => "narrow",
        }
    }
}

/// The way to the keeper. One asks at a time; the others wait.
pub struct Keeper {
    way: Mutex<Way>,
    /// Whose end nobody waits for: it ends after us.
    _process: Child,
}

enum Way {
    /// Nobody has asked yet; it is taken into use by the runtime of the one who does.
    New(UnixStream),
    Open(tokio::io::BufReader<tokio::net::UnixStream>),
    /// An answer did not come, so nobody could tell whose the next one is.
    Lost,
}

impl Keeper {
    /// Starts the keeper of a configuration file. It is inside of the fence too, where it can ask name servers.
    ///
    /// # Errors
    /// It cannot be started.
    pub(super) fn start(config: &Path) -> io::Result<Self> {
        let (ours, theirs) = UnixStream::pair()?;
        ours.set_nonblocking(true)?;
        let mut command = Command::new("/proc/self/exe");
        command.arg("fence").arg("keep").arg("--config").arg(std::path::absolute(config)?);
        // What a terminal's ^C ends is not the keeper.
        let process = command.stdin(Stdio::from(OwnedFd::from(theirs))).stdout(Stdio::null()).process_group(0).spawn()?;
        Ok(Self { way: Mutex::new(Way::New(ours)), _process: process })
    }

    /// Asks for a change. The digest of the file that it has read.
    ///
    /// # Errors
    /// Why not, in words.
    pub async fn ask(&self, wish: Wish) -> Result<[u8; 32], String> {
        let mut way = self.way.lock().await;
        let mut stream = match mem::replace(&mut *way, Way::Lost) {
            Way::New(stream) => match tokio::net::UnixStream::from_std(stream) {
                Ok(stream) => tokio::io::BufReader::new(stream),
                Err(error) => return Err(format!("the keeper of the fence cannot be asked: {error}")),
            },
            Way::Open(stream) => stream,
            Way::Lost => return Err("the keeper of the fence is gone: restart domicile".to_owned()),
        };
        let conversation = async {
            stream.get_mut().write_all(format!("{}\n", wish.word()).as_bytes()).await?;
            let mut line = String::new();
            stream.read_line(&mut line).await?;
            Ok::<_, io::Error>(line)
        };
        let line = match timeout(PATIENCE, conversation).await {
            Ok(Ok(line)) if line.ends_with('\n') => line,
            Ok(Ok(_)) => return Err("the keeper of the fence is gone: restart domicile".to_owned()),
            Ok(Err(error)) => return Err(format!("the keeper of the fence cannot be asked: {error}")),
            Err(_) => return Err("the keeper of the fence does not answer: restart domicile".to_owned()),
        };
        *way = Way::Open(stream);
        match line.trim_end().split_once(' ') {
            Some(("ok", digest)) => parse_digest(digest).ok_or_else(|| "the keeper of the fence answers nonsense".to_owned()),
            Some(("error", why)) => Err(why.to_owned()),
            _ => Err("the keeper of the fence answers nonsense".to_owned()),
        }
    }
}

/// The keeper's life: answers on standard input's socket until it is closed.
///
/// # Errors
/// Standard input is no socket.
pub fn keep(config_path: &Path) -> io::Result<()> {
    let socket = UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?);
    let mut answers = socket.try_clone()?;
    for line in BufReader::new(socket).lines() {
        let answer = match answer(config_path, line?.trim()) {
            Ok(config) => format!("ok {}", shown(&config.digest)),
            Err(why) => format!("error {}", why.replace('\n', "; ")),
        };
        writeln!(answers, "{answer}")?;
    }
    Ok(())
}

fn answer(config_path: &Path, wish: &str) -> Result<Config, String> {
    let environment = |name: &str| std::env::var(name).ok();
    let config = config::load(config_path, &environment).map_err(|mistakes| mistakes.to_string())?;
    let done = match wish {
        "widen" => install::widen(&config),
        "narrow" => install::narrow(&config),
        _ => return Err("there are widen and narrow".to_owned()),
    };
    done.map(|()| config).map_err(|error: Absent| error.to_string())
}

/// A digest in hexadecimal.
pub fn shown(digest: &[u8; 32]) -> String {
    digest.iter().fold(String::with_capacity(64), |mut text, byte| {
        // Writing to memory does not fail.
        write!(text, "{byte:02x}").unwrap_or_default();
        text
    })
}

fn parse_digest(text: &str) -> Option<[u8; 32]> {
    let mut digest = [0; 32];
    if text.len() != 64 || !text.is_ascii() {
        return None;
    }
    for (place, byte) in digest.iter_mut().enumerate() {
        *byte = u8::from_str_radix(text.get(2 * place..2 * place + 2)?, 16).ok()?;
    }
    Some(digest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_come_back_from_their_text() {
        let digest: [u8; 32] = std::array::from_fn(|place| u8::try_from(place * 8).unwrap());
        assert_eq!(parse_digest(&shown(&digest)), Some(digest));
        for wrong in ["", "00", &"zz".repeat(32), &"é".repeat(32)] {
            assert_eq!(parse_digest(wrong), None, "{wrong}");
        }
    }
}
