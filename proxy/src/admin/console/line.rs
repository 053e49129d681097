//! The connection of a console's client, encrypted or not, under tokio.

use std::io;

use bytes::BytesMut;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::tls::{Connection, Session};

/// A connection.
pub(super) struct Line {
    socket: TcpStream,
    session: Option<Box<Session>>,
    arrived: BytesMut,
    /// What TLS itself has to say, with the next answer.
    unsent: Vec<u8>,
}

impl Line {
    pub(super) fn new(connection: Connection) -> io::Result<Self> {
        // The type only says which system calls are made: reading and writing are the same for every stream socket.
        let socket = std::net::TcpStream::from(connection.socket);
        socket.set_nonblocking(true)?;
        let (socket, session) = (TcpStream::from_std(socket)?, connection.session);
        Ok(Self { socket, session, arrived: BytesMut::new(), unsent: Vec::new() })
    }

    /// Appends what has come to `text`. False: nothing more comes. To stop waiting loses nothing.
    pub(super) async fn read(&mut self, text: &mut BytesMut) -> io::Result<bool> {
        loop {
            let Some(session) = &mut self.session else { return Ok(self.socket.read_buf(text).await? > 0) };
            if self.socket.read_buf(&mut self.arrived).await? == 0 {
                return Ok(false);
            }
            let mut opened = Vec::new();
            let result = session.open(&mut self.arrived.split(), &mut opened, &mut self.unsent);
            text.extend_from_slice(&opened);
            match result.map_err(io::Error::other)? {
                Some(_) => return Ok(false),
                None if !opened.is_empty() => return Ok(true),
                None => {}
            }
        }
    }

    /// Sends all of it.
    pub(super) async fn write(&mut self, text: &[u8]) -> io::Result<()> {
        let Some(session) = &mut self.session else { return self.socket.write_all(text).await };
        let mut records = std::mem::take(&mut self.unsent);
        session.seal(text, &mut records).map_err(io::Error::other)?;
        self.socket.write_all(&records).await
    }

    /// Says that nothing more will be written.
    pub(super) async fn finish(&mut self) -> io::Result<()> {
        if let Some(session) = &mut self.session {
            let mut records = Vec::new();
            session.seal_end(&mut records);
            self.socket.write_all(&records).await?;
        }
        self.socket.shutdown().await
    }
}
