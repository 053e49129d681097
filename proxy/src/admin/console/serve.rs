//! Carries the bytes of one session of the console, on the control thread.
//!
//! A command may take as long as a PAUSE does. Meanwhile the connection is watched: a client that leaves takes nothing back of what
//! it has ordered, but nobody waits for it any more.

use std::future::Future;
use std::io;
use std::rc::Rc;

use bytes::{Bytes, BytesMut};
use tracing::{debug, info};

use super::command::Command;
use super::conversation::{Answer, Conversation, Step};
use super::line::Line;
use super::{Fault, Rights, permit};
use crate::tls::Connection;

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

/// Serves a client until it leaves. Its login has been answered.
pub async fn serve(connection: Connection, client: Client, operator: Rc<impl Operator>) {
    let user = client.user.clone();
    match converse(connection, client, &*operator).await {
        Ok(()) => debug!(user = &*user, "a session of the console is over"),
        Err(error) => debug!(user = &*user, %error, "a session of the console was lost"),
    }
}

async fn converse(connection: Connection, client: Client, operator: &impl Operator) -> io::Result<()> {
    let mut line = Line::new(connection)?;
    let mut conversation = Conversation::new(client.rights);
    conversation.receive(&client.early);
    let mut bytes = BytesMut::new();
    loop {
        match conversation.step() {
            Step::Read => {
                if !line.read(&mut bytes).await? {
                    return Ok(());
                }
                conversation.receive(&bytes.split());
            }
            Step::Send(answer) => line.write(&answer).await?,
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
                        read = line.read(&mut bytes), if !conversation.holds_enough() => {
                            if !read? {
                                return Ok(());
                            }
                            conversation.receive(&bytes.split());
                        }
                    }
                };
                conversation.answered(outcome);
            }
            Step::Close(last_words) => {
                line.write(&last_words).await?;
                return line.finish().await;
            }
        }
    }
}
