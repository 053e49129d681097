//! A server that is none: it lets everybody in, knows the statements of the load, and answers them from memory.

use std::collections::HashMap;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use domicile_bench::answers::{Answers, BLOCKS, Work, greeting};
use domicile_tests::fake::{columns, complete, ready, row};
use domicile_tests::message::message;
use rustls::{ServerConfig, ServerConnection};

use crate::engine::{self, Engine, Event, Side};
use crate::sealed;

/// Serves whoever connects to `listener`; ends only with an error.
pub fn run(listener: OwnedFd, tls: Option<&Arc<ServerConfig>>) -> io::Result<()> {
    let mut uring = engine::open()?;
    let mut engine = Engine::new(&mut uring)?;
    engine.listen(listener);
    let answers = Answers::make();
    let greeting = greeting();
    let mut sessions: Vec<Session> = Vec::new();
    let (mut out, mut text) = (Vec::new(), Vec::new());
    loop {
        engine.turn()?;
        while let Some(event) = engine.next()? {
            match event {
                Event::Accepted(client) => {
                    let index = engine.admit(client, Side::Frontend);
                    sessions.resize_with(index + 1, Session::default);
                    sessions[index].offers_tls = tls.is_some();
                }
                Event::Received(index, span) => {
                    let session = &mut sessions[index];
                    out.clear();
                    let large = if let Some(tls) = &mut session.tls {
                        text.clear();
                        if sealed::open(tls, engine.bytes(&span), &mut text).is_err() {
                            session.is_over = true;
                        }
                        session.received(&text, &answers, &greeting, &mut out)
                    } else {
                        session.received(engine.bytes(&span), &answers, &greeting, &mut out)
                    };
                    engine.release(span);
                    session.send(&mut engine, index, &out)?;
                    if let Some(work) = large {
                        let answer = answers.of(work);
                        for _ in 0..BLOCKS {
                            session.send_lasting(&mut engine, index, answer.block.unwrap_or_default())?;
                        }
                        session.send(&mut engine, index, &[answer.complete, &ready(b'I')].concat())?;
                    }
                    // The answer to the request itself was not encrypted.
                    if std::mem::take(&mut session.wants_tls)
                        && let Some(config) = tls
                    {
                        session.tls = Some(Box::new(ServerConnection::new(Arc::clone(config)).map_err(io::Error::other)?));
                    }
                    if session.is_over {
                        engine.close(index);
                    }
                }
                Event::Closed(index) => {
                    engine.close(index);
                    sessions[index] = Session::default();
                }
                Event::Sent(_) | Event::Timer => {}
            }
        }
    }
}

/// What is known of one connection.
#[derive(Default)]
struct Session {
    has_begun: bool,
    is_over: bool,
    /// The beginning of a message whose end has not come.
    partial: Vec<u8>,
    /// Bytes of CopyData that are still to come.
    skip: usize,
    /// Which work a prepared statement is.
    statements: HashMap<Vec<u8>, Option<Work>>,
    /// That of the portal.
    portal: Option<Work>,
    /// Whether it may be encrypted.
    offers_tls: bool,
    /// From now on it is.
    wants_tls: bool,
    tls: Option<Box<ServerConnection>>,
}

impl Session {
    fn send(&mut self, engine: &mut Engine<'_>, index: usize, bytes: &[u8]) -> io::Result<()> {
        let sealed = self.tls.as_mut().map(|tls| sealed::seal(tls, bytes)).transpose()?;
        let bytes = sealed.as_deref().unwrap_or(bytes);
        if !bytes.is_empty() {
            engine.send(index, bytes);
        }
        Ok(())
    }

    fn send_lasting(&mut self, engine: &mut Engine<'_>, index: usize, bytes: &'static [u8]) -> io::Result<()> {
        if self.tls.is_some() {
            return self.send(engine, index, bytes);
        }
        engine.send_lasting(index, bytes);
        Ok(())
    }

    /// Answers what has come. A large result is sent by the caller, who gets to know which.
    fn received(&mut self, bytes: &[u8], answers: &Answers, greeting: &[u8], out: &mut Vec<u8>) -> Option<Work> {
        let skipped = self.skip.min(bytes.len());
        self.skip -= skipped;
        let joined;
        let mut bytes = &bytes[skipped..];
        if !self.partial.is_empty() {
            joined = [&self.partial, bytes].concat();
            self.partial.clear();
            bytes = &joined;
        }
        let mut large = None;
        while let Some(length) = self.length(bytes) {
            // Whatever COPY brings is not looked at.
            if self.has_begun && bytes[0] == b'd' {
                let here = length.min(bytes.len());
                (self.skip, bytes) = (length - here, &bytes[here..]);
                continue;
            }
            if bytes.len() < length {
                break;
            }
            let (whole, rest) = bytes.split_at(length);
            bytes = rest;
            if self.has_begun {
                large = self.message(whole[0], &whole[5..], answers, out).or(large);
            } else {
                self.packet(whole, greeting, out);
            }
        }
        self.partial.extend_from_slice(bytes);
        large
    }

    /// The length of the message that begins here, as far as it can be told.
    fn length(&self, bytes: &[u8]) -> Option<usize> {
        let tag = usize::from(self.has_begun);
        let length: [u8; 4] = bytes.get(tag..tag + 4)?.try_into().ok()?;
        Some(u32::from_be_bytes(length) as usize + tag)
    }

    fn packet(&mut self, packet: &[u8], greeting: &[u8], out: &mut Vec<u8>) {
        match packet.get(4..8) {
            Some([0x04, 0xd2, 0x16, 0x2f]) if self.offers_tls => {
                self.wants_tls = true;
                out.push(b'S');
            }
            // SSLRequest, GSSENCRequest.
            Some([0x04, 0xd2, 0x16, 0x2f | 0x30]) => out.push(b'N'),
            Some([0, 3, ..]) => {
                self.has_begun = true;
                out.extend_from_slice(greeting);
            }
            _ => self.is_over = true,
        }
    }

    fn message(&mut self, tag: u8, body: &[u8], answers: &Answers, out: &mut Vec<u8>) -> Option<Work> {
        let string = |body: &[u8]| body.split(|byte| *byte == 0).next().unwrap_or_default().to_vec();
        match tag {
            b'Q' => return self.query(body, answers, out),
            b'P' => {
                let name = string(body);
                let text = &body[name.len() + 1..];
                self.statements.insert(name, Work::of(text));
                out.extend_from_slice(&message(b'1', b""));
            }
            b'B' => {
                let portal = string(body);
                let name = string(&body[portal.len() + 1..]);
                self.portal = self.statements.get(&name).copied().flatten();
                out.extend_from_slice(&[b'2', 0, 0, 0, 4]);
            }
            b'D' => match self.portal {
                Some(work) => out.extend_from_slice(answers.of(work).description),
                None => out.extend_from_slice(&message(b'n', b"")),
            },
            b'E' => match self.portal {
                Some(work) => {
                    let answer = answers.of(work);
                    out.extend_from_slice(answer.rows);
                    out.extend_from_slice(answer.complete);
                }
                None => out.extend_from_slice(&complete("SET")),
            },
            b'C' => out.extend_from_slice(&message(b'3', b"")),
            b'S' => out.extend_from_slice(&[b'Z', 0, 0, 0, 5, b'I']),
            b'c' => out.extend_from_slice(&[answers.of(Work::CopyIn).complete, &ready(b'I')].concat()),
            b'X' => self.is_over = true,
            _ => {}
        }
        None
    }

    fn query(&mut self, text: &[u8], answers: &Answers, out: &mut Vec<u8>) -> Option<Work> {
        let Some(work) = Work::of(text) else {
            out.extend_from_slice(&other(text));
            return None;
        };
        let answer = answers.of(work);
        out.extend_from_slice(answer.description);
        if answer.block.is_some() {
            return Some(work);
        }
        if work != Work::CopyIn {
            out.extend_from_slice(answer.rows);
            out.extend_from_slice(answer.complete);
            out.extend_from_slice(&[b'Z', 0, 0, 0, 5, b'I']);
        }
        None
    }
}

/// What proxies say of their own accord: a result or none, as it looks like.
fn other(text: &[u8]) -> Vec<u8> {
    let text = String::from_utf8_lossy(text).into_owned();
    let statement = |text: &str| {
        let word = text.split([' ', '\0']).next().unwrap_or_default().to_ascii_uppercase();
        if word == "SELECT" || word == "SHOW" {
            [columns(), row("off"), complete(&format!("{word} 1"))].concat()
        } else {
            complete(&word)
        }
    };
    let texts = text.split(';').map(|text| text.trim_matches([' ', '\0'])).filter(|text| !text.is_empty());
    texts.flat_map(statement).chain(ready(b'I')).collect()
}
