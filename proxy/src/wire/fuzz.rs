//! Entry points of the fuzzers in `tests/fuzz`: each takes any bytes and panics where a property of this module does not hold.
//!
//! The unit tests run them too, over the fuzzers' seeds and over generated input. Nothing else calls them.

use bytes::Bytes;

use super::frame::{Frame, Malformed, Mode, Splitter, body};
use super::startup::{self, StartupPacket};
use super::{backend, error, frontend, tag};
use crate::limits::STARTUP_PACKET_BYTES_MAX;

/// The packets before login.
///
/// Properties: the answer depends on the packet's own bytes alone, is there with the last of them at the latest, and is the same
/// whatever follows; a reading has what its types promise; written again, for a backend, it is read as the same.
pub fn startup(data: &[u8]) {
    let answer = startup::parse(data);
    let decided = (0..=data.len()).map(|end| (end, startup::parse(&data[..end]))).find(|(_, early)| *early != Ok(None));
    match decided {
        None => assert_eq!(answer, Ok(None)),
        Some((end, early)) => {
            assert_eq!(early, answer);
            assert!(end <= STARTUP_PACKET_BYTES_MAX);
            assert!(answer.as_ref().is_err() || matches!(&answer, Ok(Some((_, bytes))) if *bytes == end));
        }
    }
    match answer {
        Err(error) => assert!(!error.to_string().is_empty()),
        Ok(Some((StartupPacket::Cancel(request), bytes))) => {
            assert_eq!(startup::encode_cancel(request.process_id, request.secret.bytes()), data[..bytes]);
        }
        Ok(Some((StartupPacket::Startup(message), _))) => {
            assert!((1..=63).contains(&message.user.len()) && (1..=63).contains(&message.database.len()));
            let packet = startup::encode_startup(0, &message.user, &message.database, message.replication, &message.parameters);
            if packet.len() <= STARTUP_PACKET_BYTES_MAX {
                let Ok(Some((StartupPacket::Startup(again), bytes))) = startup::parse(&packet) else { panic!("{packet:?}") };
                assert_eq!(bytes, packet.len());
                assert_eq!(
                    (&again.user, &again.database, again.replication, &again.parameters),
                    (&message.user, &message.database, message.replication, &message.parameters)
                );
            }
        }
        Ok(None | Some((StartupPacket::Ssl | StartupPacket::Gss, _))) => {}
    }
}

/// What clients send: see `frames` for the form of `data`. Every decoder accepts exactly what its encoder writes.
pub fn frontend_frames(data: &[u8]) {
    for message in frames(data) {
        frontend_message(&message);
    }
}

/// What servers send: see `frames` for the form of `data`. Every decoder accepts exactly what its encoder writes.
pub fn backend_frames(data: &[u8]) {
    for message in frames(data) {
        backend_message(&message);
    }
}

/// Splits a stream that comes in pieces, and returns its complete messages.
///
/// `data` is a number of plan bytes (the low four bits of the first byte), the plan, and the stream. The plan, over and over
/// again, gives the sizes of the pieces and what is done with each message.
///
/// Properties: the messages are those of a splitter that sees the whole stream at once; each is delivered in parts that follow
/// its mode and the rules of [`Frame`]; the mode is asked once a message; nothing is lost, doubled or held back.
fn frames(data: &[u8]) -> Vec<Vec<u8>> {
    let Some((count, rest)) = data.split_first() else { return Vec::new() };
    let (plan, stream) = rest.split_at(usize::from(count & 15).min(rest.len()));
    let expected = Reference::split(stream);

    let mut splitter = Splitter::default();
    let mut delivery = Delivery::default();
    let mut asked = Vec::new();
    let mut failure = None;
    let mut left = stream;
    let mut sizes = plan.iter().cycle();
    'stream: while !left.is_empty() {
        let size = sizes.next().map_or(left.len(), |byte| usize::from(*byte) + 1).min(left.len());
        let (input, later) = left.split_at(size);
        left = later;
        let mut at = 0;
        loop {
            let before = at;
            let frame = splitter.next(input, &mut at, |tag, body_len| {
                asked.push((tag, body_len));
                Ok::<_, Malformed>(mode_of(plan, asked.len() - 1))
            });
            assert!(before <= at && at <= input.len());
            match frame {
                Ok(Some(frame)) => {
                    let mode = asked.len().checked_sub(1).map(|index| mode_of(plan, index));
                    delivery.take(input, frame, mode);
                }
                Ok(None) => {
                    assert_eq!(at, input.len(), "input is left over");
                    break;
                }
                Err(error) => {
                    failure = Some(error);
                    break 'stream;
                }
            }
        }
    }

    assert_eq!(delivery.messages, expected.messages);
    assert_eq!(failure, expected.failure);
    assert!(expected.tail.starts_with(&delivery.open));
    if failure.is_none() {
        assert_eq!(splitter.at_boundary(), expected.tail.is_empty());
        let headers: Vec<_> = expected.messages.iter().map(Vec::as_slice).chain([expected.tail]).filter_map(header).collect();
        assert_eq!(asked, headers);
    }
    delivery.messages
}

fn mode_of(plan: &[u8], message: usize) -> Mode {
    let byte = plan.get(message % plan.len().max(1)).copied().unwrap_or(0);
    match byte % 3 {
        0 => Mode::Gather,
        1 => Mode::Stream,
        _ => Mode::StreamAfter(usize::from(byte / 3)),
    }
}

/// Tag and body length of the message that `bytes` begins with.
fn header(bytes: &[u8]) -> Option<(u8, usize)> {
    let (&[tag, a, b, c, d], _) = bytes.split_first_chunk()?;
    Some((tag, usize::try_from(i32::from_be_bytes([a, b, c, d])).ok()?.checked_sub(4)?))
}

/// The plainest splitter there is.
struct Reference<'a> {
    messages: Vec<Vec<u8>>,
    tail: &'a [u8],
    failure: Option<Malformed>,
}

impl<'a> Reference<'a> {
    fn split(stream: &'a [u8]) -> Self {
        let mut reference = Self { messages: Vec::new(), tail: stream, failure: None };
        while let Some((&[tag, a, b, c, d], _)) = reference.tail.split_first_chunk() {
            let Some((_, body_len)) = header(reference.tail) else {
                reference.failure = Some(Malformed::LengthBelowHeader { tag, length: u32::from_be_bytes([a, b, c, d]) });
                break;
            };
            let Some((message, tail)) = reference.tail.split_at_checked(5 + body_len) else { break };
            reference.messages.push(message.to_vec());
            reference.tail = tail;
        }
        reference
    }
}

/// Puts messages together from frames and checks that the frames keep their promises.
#[derive(Default)]
struct Delivery {
    messages: Vec<Vec<u8>>,
    /// What has been delivered of a message that is not complete.
    open: Vec<u8>,
}

impl Delivery {
    fn take(&mut self, input: &[u8], frame: Frame, mode: Option<Mode>) {
        match frame {
            Frame::Whole { tag, range } => self.whole(tag, &input[range]),
            Frame::Gathered { tag, bytes } => self.whole(tag, &bytes),
            Frame::Head { tag, body_len, range } => self.head(tag, body_len, &input[range], mode),
            Frame::GatheredHead { tag, body_len, bytes } => self.head(tag, body_len, &bytes, mode),
            Frame::Body { tag, range, last } => {
                assert!(!range.is_empty() && self.open.first() == Some(&tag));
                self.open.extend_from_slice(&input[range]);
                let complete = header(&self.open).is_some_and(|(_, body_len)| self.open.len() == 5 + body_len);
                assert_eq!(complete, last);
                if last {
                    self.messages.push(std::mem::take(&mut self.open));
                }
            }
        }
    }

    fn whole(&mut self, tag: u8, bytes: &[u8]) {
        assert!(self.open.is_empty());
        assert_eq!(header(bytes), Some((tag, bytes.len() - 5)));
        self.messages.push(bytes.to_vec());
    }

    fn head(&mut self, tag: u8, body_len: usize, bytes: &[u8], mode: Option<Mode>) {
        assert!(self.open.is_empty());
        assert_eq!(header(bytes), Some((tag, body_len)));
        let waited_for = match mode {
            Some(Mode::Stream) => 0,
            Some(Mode::StreamAfter(bytes)) => bytes,
            Some(Mode::Gather) | None => panic!("a head of a message that is to be gathered"),
        };
        assert!(body(bytes).len() >= waited_for && body(bytes).len() < body_len);
        self.open.extend_from_slice(bytes);
    }
}

/// Decodes a client's message and, where that works, writes it again.
fn frontend_message(message: &[u8]) {
    let Some((tag, _)) = header(message) else { return };
    let fields = body(message);
    let again = match tag {
        tag::frontend::QUERY => frontend::query_text(fields).ok().map(frontend::query),
        tag::frontend::PARSE => frontend::parse_fields(fields).ok().map(|parse| {
            let types: Vec<u32> = parse.types.iter().map(|oid| u32::from_be_bytes(*oid)).collect();
            frontend::parse(parse.name, parse.text, &types)
        }),
        tag::frontend::BIND => {
            let names = frontend::bind_names(fields);
            let counts = frontend::bind_counts(fields).ok();
            if let Some(names) = &names {
                assert_eq!(frontend::bind_names(&fields[..names.len]), Some(*names));
                assert_eq!(frontend::bind_names(&fields[..names.len - 1]), None);
            }
            if let Some(bind) = &counts {
                assert_eq!(names.map(|names| (names.portal, names.statement)), Some((bind.portal, bind.statement)));
            }
            counts.map(|bind| frontend::bind(bind.portal, bind.statement)).filter(|again| again.len() == message.len())
        }
        tag::frontend::DESCRIBE => frontend::describe_fields(fields).ok().map(|(target, name)| match target {
            frontend::Target::Statement => frontend::describe_statement(name),
            frontend::Target::Portal => frontend::describe_portal(name),
        }),
        tag::frontend::CLOSE => frontend::close_fields(fields).ok().map(|(target, name)| match target {
            frontend::Target::Statement => frontend::close_statement(name),
            frontend::Target::Portal => frontend::close_portal(name),
        }),
        tag::frontend::EXECUTE => frontend::execute_fields(fields).ok().map(|(portal, rows)| frontend::execute(portal, rows)),
        tag::frontend::SYNC => frontend::no_fields(tag, fields).ok().map(|()| frontend::sync()),
        tag::frontend::FLUSH => frontend::no_fields(tag, fields).ok().map(|()| frontend::flush()),
        tag::frontend::PASSWORD => {
            if let Ok((mechanism, Some(data))) = frontend::sasl_initial_fields(fields)
                && let Ok(mechanism) = str::from_utf8(mechanism)
            {
                assert_eq!(frontend::sasl_initial(mechanism, data), message);
            }
            assert_eq!(frontend::sasl_response(fields), message);
            frontend::password_text(fields).ok().map(frontend::password)
        }
        _ => None,
    };
    assert_same(again, message);
}

/// Decodes a server's message and, where that works, writes it again.
fn backend_message(message: &[u8]) {
    let Some((tag, _)) = header(message) else { return };
    let fields = body(message);
    let again = match tag {
        tag::backend::READY_FOR_QUERY => backend::ready_for_query_status(fields).map(backend::ready_for_query),
        tag::backend::PARAMETER_STATUS => backend::parameter_status_fields(fields)
            .and_then(|(name, value)| Some(backend::parameter_status(str::from_utf8(name).ok()?, str::from_utf8(value).ok()?))),
        tag::backend::COMMAND_COMPLETE => backend::command_complete_tag(fields)
            .and_then(|command| Some(backend::command_complete(str::from_utf8(command).ok()?))),
        tag::backend::BACKEND_KEY_DATA => {
            backend::backend_key_data_fields(fields).map(|(process_id, secret)| backend::backend_key_data(process_id, secret))
        }
        tag::backend::AUTHENTICATION => match backend::Authentication::parse(fields) {
            Some(backend::Authentication::Ok) => Some(backend::authentication_ok()),
            Some(backend::Authentication::Cleartext) => Some(backend::authentication_cleartext()),
            Some(backend::Authentication::Md5(salt)) => Some(backend::authentication_md5(salt)),
            Some(backend::Authentication::Sasl(mechanisms)) => Some(backend::authentication_sasl(&mechanisms)),
            Some(backend::Authentication::SaslContinue(data)) => Some(backend::authentication_sasl_continue(data)),
            Some(backend::Authentication::SaslFinal(data)) => Some(backend::authentication_sasl_final(data)),
            Some(backend::Authentication::Other(_)) | None => None,
        },
        tag::backend::ERROR_RESPONSE | tag::backend::NOTICE_RESPONSE => {
            if let Some(fields) = error::parse_error(fields) {
                assert!(!fields.severity.contains('\0') && !fields.message.contains('\0'));
            }
            None
        }
        _ => None,
    };
    assert_same(again, message);
}

fn assert_same(again: Option<Bytes>, message: &[u8]) {
    if let Some(again) = again {
        assert_eq!(again.escape_ascii().to_string(), message.escape_ascii().to_string());
    }
}

/// Runs an entry point over the seeds of its target, which are written by hand.
#[cfg(test)]
pub(crate) fn run_seeds(target: &str, run: impl Fn(&[u8])) {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fuzz/seeds").join(target);
    let mut count = 0;
    for entry in std::fs::read_dir(&folder).unwrap() {
        run(&std::fs::read(entry.unwrap().path()).unwrap());
        count += 1;
    }
    assert!(count > 0, "{} is empty", folder.display());
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_seeds_hold() {
        run_seeds("startup", startup);
        run_seeds("frontend_frames", frontend_frames);
        run_seeds("backend_frames", backend_frames);
    }

    /// A plan and a stream of messages, most of them with a tag that has a decoder, perhaps cut at the end.
    fn stream() -> impl Strategy<Value = Vec<u8>> {
        let tag = prop_oneof![prop::sample::select(&b"QPBDECSHpRSKZCEN"[..]), any::<u8>()];
        let body = prop_oneof![
            prop::collection::vec(any::<u8>(), 0..12),
            prop::collection::vec(prop::sample::select(&b"\0\0\0\x01\xffab"[..]), 0..40),
            prop::collection::vec(any::<u8>(), 200..700),
        ];
        let plan = prop::collection::vec(any::<u8>(), 0..16);
        (plan, prop::collection::vec((tag, body), 0..12), 0_usize..4).prop_map(|(plan, messages, cut)| {
            let mut data = vec![u8::try_from(plan.len()).unwrap()];
            data.extend(plan);
            for (tag, body) in messages {
                data.push(tag);
                data.extend(u32::try_from(body.len() + 4).unwrap().to_be_bytes());
                data.extend(body);
            }
            data.truncate(data.len().saturating_sub(cut).max(1));
            data
        })
    }

    const STARTUP_WORDS: &[&str] =
        &["user", "database", "options", "replication", "_pq_.", "\0", "\0", "\0", "-c", "--", " ", "\\", "=", "a", "on", "é"];

    proptest! {
        #[test]
        fn any_split_of_a_stream_gives_the_same_messages(data in stream()) {
            frontend_frames(&data);
            backend_frames(&data);
        }

        #[test]
        fn any_bytes_are_survived(data in prop::collection::vec(any::<u8>(), 0..300)) {
            startup(&data);
            frontend_frames(&data);
            backend_frames(&data);
        }

        #[test]
        fn any_startup_parameters_are_survived(
            words in prop::collection::vec(prop::sample::select(STARTUP_WORDS), 0..40),
        ) {
            let body = words.concat().into_bytes();
            let mut data = u32::try_from(body.len() + 8).unwrap().to_be_bytes().to_vec();
            data.extend([0, 3, 0, 0]);
            data.extend(body);
            startup(&data);
        }
    }
}
