//! The parts of the engine on real sockets and a real ring.

use std::io::{Read, Write};
use std::num::NonZeroU32;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::thread;
use std::time::Duration;

use io_uring::IoUring;

use super::buffers::{BufferMode, Groups, Side, Span, group};
use super::mailbox::{Mailbox, ToWorker};
use super::ring::{self, Completion, Operation, Ring, Token};
use super::send_queue::SendQueue;

const RECEIVE: Token = Token::lone(Operation::ReceiveFrontend);
const SEND: Token = Token::lone(Operation::Send);

fn uring() -> Option<IoUring> {
    ring::open().inspect_err(|error| eprintln!("skipped: needs io_uring of Linux 6.1 ({error})")).ok()
}

/// Two buffers a side, in every mode that the kernel has.
fn in_every_mode(test: impl Fn(Ring<'_>, Groups)) {
    for mode in [BufferMode::Plain, BufferMode::Incremental] {
        let Some(mut uring) = uring() else { return };
        let ring = Ring::new(&mut uring).unwrap();
        match Groups::new(mode, 1, 1, &ring) {
            Ok(groups) => test(ring, groups),
            Err(error) => eprintln!("skipped: no {mode:?} buffers ({error})"),
        }
    }
}

fn wait(ring: &mut Ring<'_>) -> Completion {
    loop {
        if let Some(completion) = ring.next() {
            return completion;
        }
        ring.wait(1).unwrap();
    }
}

fn receive_once(ring: &mut Ring<'_>, socket: &UnixStream) {
    ring.receive_once(socket.as_fd(), group(Side::Frontend), RECEIVE);
}

fn arrived(groups: &mut Groups, completion: &Completion) -> Option<Span> {
    groups[Side::Frontend].received(completion).unwrap()
}

#[test]
fn what_arrives_is_where_the_kernel_says() {
    in_every_mode(|mut ring, mut groups| {
        let (mut near, far) = UnixStream::pair().unwrap();
        for round in 0..200u8 {
            near.write_all(&[round; 1000]).unwrap();
            let mut received = 0;
            // At the end of a buffer the bytes are in two.
            while received < 1000 {
                receive_once(&mut ring, &far);
                let completion = wait(&mut ring);
                assert!(completion.is_last());
                let span = arrived(&mut groups, &completion).unwrap();
                assert!(groups.bytes(&span).iter().all(|byte| *byte == round));
                received += span.len();
                groups.release(span);
                groups[Side::Frontend].publish();
            }
        }
    });
}

#[test]
fn a_receive_without_buffer_fails_and_works_again_when_there_is_one() {
    in_every_mode(|mut ring, mut groups| {
        let (mut near, far) = UnixStream::pair().unwrap();
        let writer = thread::spawn(move || near.write_all(&[1; 200_000]).is_ok());
        let mut spans = Vec::new();
        loop {
            receive_once(&mut ring, &far);
            let completion = wait(&mut ring);
            match arrived(&mut groups, &completion) {
                Some(span) => spans.push(span),
                None => {
                    assert_eq!((completion.result, completion.is_last()), (-libc::ENOBUFS, true));
                    break;
                }
            }
        }
        assert_eq!(groups[Side::Frontend].available(), 0);
        spans.drain(..).for_each(|span| groups.release(span));
        groups[Side::Frontend].publish();
        receive_once(&mut ring, &far);
        assert!(wait(&mut ring).result > 0);
        drop(far);
        // It may have been left with bytes that nobody reads.
        writer.join().unwrap();
    });
}

#[test]
fn the_end_of_a_stream_costs_no_buffer() {
    in_every_mode(|mut ring, mut groups| {
        for round in 0..100u8 {
            let (mut near, far) = UnixStream::pair().unwrap();
            near.write_all(&[round; 10]).unwrap();
            drop(near);
            receive_once(&mut ring, &far);
            let span = arrived(&mut groups, &wait(&mut ring)).unwrap();
            assert_eq!(groups.bytes(&span).first(), Some(&round));
            assert!(span.len() <= 10);
            let rest = 10 - span.len();
            groups.release(span);
            if rest > 0 {
                receive_once(&mut ring, &far);
                let span = arrived(&mut groups, &wait(&mut ring)).unwrap();
                assert_eq!(span.len(), rest);
                groups.release(span);
            }
            receive_once(&mut ring, &far);
            let end = wait(&mut ring);
            assert_eq!((end.result, end.is_last()), (0, true));
            assert!(arrived(&mut groups, &end).is_none());
            groups[Side::Frontend].publish();
            assert_eq!(groups[Side::Frontend].available(), 2);
        }
    });
}

#[test]
fn a_receive_ends_when_its_credit_is_used_up() {
    in_every_mode(|mut ring, mut groups| {
        let (mut near, far) = UnixStream::pair().unwrap();
        for _ in 0..30 {
            near.write_all(&[0; 3000]).unwrap();
        }
        let credit = NonZeroU32::new(20_000).unwrap();
        ring.receive(far.as_fd(), group(Side::Frontend), credit, RECEIVE);
        let mut received = 0;
        loop {
            let completion = wait(&mut ring);
            if completion.result == -libc::EINVAL {
                eprintln!("skipped: needs Linux 6.17");
                return;
            }
            let span = arrived(&mut groups, &completion).unwrap();
            received += span.len();
            groups.release(span);
            groups[Side::Frontend].publish();
            if completion.is_last() {
                break;
            }
        }
        // The bound is looked at after each buffer.
        assert!((20_000..20_000 + 65_536).contains(&received), "{received}");
    });
}

#[test]
fn a_cancelled_receive_says_so_last() {
    in_every_mode(|mut ring, mut groups| {
        let (_near, far) = UnixStream::pair().unwrap();
        receive_once(&mut ring, &far);
        ring.cancel(RECEIVE);
        let completion = wait(&mut ring);
        assert_eq!((completion.token, completion.result, completion.is_last()), (RECEIVE, -libc::ECANCELED, true));
        assert!(arrived(&mut groups, &completion).is_none());
        // Nothing is left to cancel, and only that is said.
        ring.cancel(RECEIVE);
        assert_eq!(wait(&mut ring).token.operation, Operation::Cancel);
    });
}

#[test]
fn a_send_that_is_cancelled_half_way_loses_nothing() {
    in_every_mode(|mut ring, mut groups| {
        let (mut near, far) = UnixStream::pair().unwrap();
        let bytes: Vec<u8> = (0..3_000_000u32).map(|at| at.to_le_bytes()[0] ^ at.to_le_bytes()[1]).collect();
        let mut queue = SendQueue::default();
        queue.push_bytes(bytes.clone().into());
        let mut cancelled = 0;
        let reader = thread::spawn(move || {
            let mut read = Vec::new();
            let mut part = [0; 50_000];
            loop {
                thread::sleep(Duration::from_millis(1));
                match near.read(&mut part).unwrap() {
                    0 => return read,
                    count => read.extend_from_slice(&part[..count]),
                }
            }
        });
        while let Some((address, length)) = queue.start(&mut groups) {
            // SAFETY: the queue keeps the bytes until `sent`, below.
            unsafe { ring.send(far.as_fd(), address, length, SEND) };
            ring.wait(0).unwrap();
            ring.cancel(SEND);
            let completion = loop {
                let completion = wait(&mut ring);
                if completion.token == SEND {
                    break completion;
                }
            };
            cancelled += usize::from(completion.result != i32::try_from(length).unwrap());
            queue.sent(u32::try_from(completion.result).unwrap_or(0), &mut groups);
        }
        drop(far);
        assert!(reader.join().unwrap() == bytes);
        assert!(cancelled > 0);
    });
}

#[test]
fn more_requests_than_the_queue_holds_all_arrive() {
    let Some(mut uring) = uring() else { return };
    let mut ring = Ring::new(&mut uring).unwrap();
    for _ in 0..20_000 {
        ring.cancel(RECEIVE);
    }
    for _ in 0..20_000 {
        assert_eq!(wait(&mut ring).token.operation, Operation::Cancel);
    }
}

#[test]
fn a_mailbox_wakes_its_worker_once_for_all_that_is_in_it() {
    let Some(mut uring) = uring() else { return };
    let mut ring = Ring::new(&mut uring).unwrap();
    let mailbox = Mailbox::new().unwrap();
    ring.poll(mailbox.event(), Token::lone(Operation::Mailbox));
    let mut taken = Vec::new();
    for round in 0..50 {
        let sender = mailbox.clone();
        let thread = thread::spawn(move || (0..3).for_each(|_| sender.send(ToWorker::QuotaChanged)));
        let mut got = 0;
        while got < 3 {
            let completion = wait(&mut ring);
            assert!(!completion.is_last(), "round {round}");
            mailbox.take(&mut taken);
            got += taken.drain(..).count();
        }
        thread.join().unwrap();
    }
    // Whom nobody reads is sent nothing.
    mailbox.close();
    mailbox.send(ToWorker::QuotaChanged);
    mailbox.take(&mut taken);
    assert!(taken.is_empty());
}
