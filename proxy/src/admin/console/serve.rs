//! Carries the bytes of one session of the console, on the control thread.
//!
//! A command may take as long as a PAUSE does. Meanwhile the connection is watched: a client that leaves takes nothing back of what
//! it has ordered, but nobody waits for it any more.

use std::future::Future;
use std::io;
use std::os::fd::OwnedFd;
use std::rc::Rc;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tracing::{debug, info};

use super::command::Command;
use super::conversation::{Answer, Conversation, Step};
use super::{Fault, Rights, permit};

/// Who has logged in to the console.
#[derive(Clone, Debug)]
pub struct Client {
    /// The user.
    pub user: Box<str>,
    /// What he may do.
    pub rights: Rights,
    /// What he has sent behind his login.
    pub early: Bytes,
}

/// Carries commands out.
pub trait Operator {
    /// What the configuration in force allows to a user. It is asked for every command, so that a reload takes effect at the next.
    fn rights(&self, user: &str) -> Option<Rights>;

    /// Carries one out; those that the client's rights do not cover never get here.
    fn run(&self, command: &Command) -> impl Future<Output = Result<Answer, Fault>>;
}

/// Serves a client until it leaves. `socket` is connected, and its login has been answered.
pub async fn serve(socket: OwnedFd, client: Client, operator: Rc<impl Operator>) {
    let user = client.user.clone();
    match converse(socket, client, &*operator).await {
        Ok(()) => debug!(user = &*user, "a session of the console is over"),
        Err(error) => debug!(user = &*user, %error, "a session of the console was lost"),
    }
}

async fn converse(socket: OwnedFd, client: Client, operator: &impl Operator) -> io::Result<()> {
    // The type only says which system calls are made: reading and writing are the same for every stream socket.
    let socket = std::net::TcpStream::from(socket);
    socket.set_nonblocking(true)?;
    let mut socket = TcpStream::from_std(socket)?;
    let mut conversation = Conversation::new(client.rights);
    conversation.receive(&client.early);
    let mut bytes = BytesMut::new();
    loop {
        match conversation.step() {
            Step::Read => {
                if socket.read_buf(&mut bytes).await? == 0 {
                    return Ok(());
                }
                conversation.receive(&bytes.split());
            }
            Step::Send(answer) => socket.write_all(&answer).await?,
            Step::Run(command) => {
                if let Err(refused) = permit(operator.rights(&client.user), &command) {
                    conversation.answered(Err(refused));
                    continue;
                }
                if !command.only_looks() {
                    info!(user = &*client.user, ?command, "a command of the console");
                }
                let outcome = operator.run(&command);
                tokio::pin!(outcome);
                let outcome = loop {
                    tokio::select! {
                        outcome = &mut outcome => break outcome,
                        read = socket.read_buf(&mut bytes), if !conversation.holds_enough() => {
                            if read? == 0 {
                                return Ok(());
                            }
                            conversation.receive(&bytes.split());
                        }
                    }
                };
                conversation.answered(outcome);
            }
            Step::Close(last_words) => {
                socket.write_all(&last_words).await?;
                return socket.shutdown().await;
            }
        }
    }
}
