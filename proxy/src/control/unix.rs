//! The Unix sockets that clients connect to: made at the start, taken away at the end.
//!
//! A process that was killed leaves its socket's file behind, at which nobody listens any more; such a file is replaced. One at which
//! somebody listens, or that is no socket, is not touched.

use std::fs::{self, Permissions};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use socket2::{Domain, SockAddr, Socket, Type};

use super::listen::BACKLOG;
use crate::config::UnixSockets;

/// Removes what former processes have left behind. Only a socket outside of the fence may ask whether somebody listens, so this comes
/// before the fence is entered.
///
/// # Errors
/// Somebody listens there, or the file is something else; the error names it.
pub(super) fn remove_stale(paths: &[PathBuf]) -> io::Result<()> {
    for path in paths {
        let naming = |error: io::Error| naming(path, &error);
        let file = match fs::symlink_metadata(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(naming(error)),
        };
        if !file.file_type().is_socket() {
            return Err(naming(io::Error::new(io::ErrorKind::AlreadyExists, "there is a file that is not a socket")));
        }
        if !is_deserted(path).map_err(naming)? {
            return Err(naming(io::ErrorKind::AddrInUse.into()));
        }
        fs::remove_file(path).map_err(naming)?;
        tracing::info!(path = %path.display(), "removed a socket at which nobody listens");
    }
    Ok(())
}

/// Whether nobody listens at a socket that exists.
fn is_deserted(path: &Path) -> io::Result<bool> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    // Whoever is busy is not waited for.
    socket.set_nonblocking(true)?;
    let error = socket.connect(&SockAddr::unix(path)?).err();
    Ok(error.is_some_and(|error| matches!(error.kind(), io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound)))
}

/// The listening sockets, in the order of the configuration, and their files, which are gone when what is returned is dropped.
///
/// # Errors
/// One cannot be made; the error names it.
pub(super) fn bind(sockets: &UnixSockets) -> io::Result<(Vec<OwnedFd>, Vec<SocketFile>)> {
    let mut bound = (Vec::new(), Vec::new());
    for path in &sockets.paths {
        let (socket, file) = bind_one(path, sockets.mode).map_err(|error| naming(path, &error))?;
        bound.0.push(socket.into());
        bound.1.push(file);
        tracing::info!(path = %path.display(), "listening");
    }
    Ok(bound)
}

fn bind_one(path: &Path, mode: u32) -> io::Result<(Socket, SocketFile)> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.bind(&SockAddr::unix(path)?)?;
    let made = fs::symlink_metadata(path)?;
    let file = SocketFile { path: path.to_owned(), identity: identity(&made) };
    // Nobody can connect before it listens, so nobody comes in under another mode.
    fs::set_permissions(path, Permissions::from_mode(mode))?;
    socket.listen(BACKLOG)?;
    Ok((socket, file))
}

/// The file of a socket of this process.
#[derive(Debug)]
pub(super) struct SocketFile {
    path: PathBuf,
    /// Another process may have put its own socket there.
    identity: Identity,
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let is_ours = fs::symlink_metadata(&self.path).is_ok_and(|file| identity(&file) == self.identity);
        if is_ours && let Err(error) = fs::remove_file(&self.path) {
            tracing::warn!(path = %self.path.display(), %error, "the socket's file is left behind");
        }
    }
}

/// Device, inode and when it was made, since inodes are used again.
type Identity = (u64, u64, i64, i64);

fn identity(file: &fs::Metadata) -> Identity {
    (file.dev(), file.ino(), file.mtime(), file.mtime_nsec())
}

fn naming(path: &Path, error: &io::Error) -> io::Error {
    let text = match error.kind() {
        io::ErrorKind::AddrInUse => format!("{}: address already in use", path.display()),
        _ => format!("{}: {error}", path.display()),
    };
    io::Error::new(error.kind(), text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sockets(path: &Path) -> UnixSockets {
        UnixSockets { paths: vec![path.to_owned()], mode: 0o640 }
    }

    #[test]
    fn a_deserted_file_is_replaced_and_an_own_one_removed() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(".s.PGSQL.6432");
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        remove_stale(std::slice::from_ref(&path)).unwrap();
        let (listening, files) = bind(&sockets(&path)).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o640);
        assert!(std::os::unix::net::UnixStream::connect(&path).is_ok());
        drop(listening);
        drop(files);
        assert!(!path.exists());
    }

    #[test]
    fn what_somebody_else_has_is_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(".s.PGSQL.6432");
        let listening = std::os::unix::net::UnixListener::bind(&path).unwrap();
        let error = remove_stale(std::slice::from_ref(&path)).unwrap_err();
        assert_eq!(error.to_string(), format!("{}: address already in use", path.display()));
        drop(listening);
        let (_, files) = {
            remove_stale(std::slice::from_ref(&path)).unwrap();
            bind(&sockets(&path)).unwrap()
        };
        // Another one takes its place.
        fs::remove_file(&path).unwrap();
        fs::write(&path, "").unwrap();
        drop(files);
        assert!(path.exists());
        let error = remove_stale(std::slice::from_ref(&path)).unwrap_err();
        assert_eq!(error.to_string(), format!("{}: there is a file that is not a socket", path.display()));
    }
}
