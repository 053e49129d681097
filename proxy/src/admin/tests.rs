//! HTTP as tools speak it, over a real socket.

use std::io::{Read as _, Write as _};
use std::net::TcpStream as StdTcpStream;
use std::sync::mpsc::channel;

use expect_test::{Expect, expect};

use super::*;
use crate::observe::{FenceSample, LoginCounters};
use crate::session::Memory;

struct Fixed(Option<&'static str>);

impl View for Fixed {
    fn metrics(&self) -> Snapshot {
        Snapshot::take(
            &[],
            &crate::observe::any_policy(),
            &LoginCounters::default(),
            [],
            &Memory::default(),
            &FenceSample::default(),
        )
    }

    fn obstacle(&self) -> Option<String> {
        self.0.map(str::to_owned)
    }

    fn remark(&self) -> Option<String> {
        None
    }
}

/// Status line and body of the answer to a request.
fn ask(view: Fixed, request: &'static str) -> String {
    let listener = StdTcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (tell, told) = channel();
    let client = std::thread::spawn(move || {
        let mut stream = StdTcpStream::connect(address).unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        tell.send(answer).unwrap();
    });
    tokio_uring::start(async {
        tokio_uring::spawn(async move { drop(serve(listener, Rc::new(view)).await) });
        while !client.is_finished() {
            sleep(Duration::from_millis(5)).await;
        }
    });
    let answer = told.recv().unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    format!("{}\n{body}", head.lines().next().unwrap())
}

fn check(view: Fixed, request: &'static str, expected: &Expect) {
    expected.assert_eq(&ask(view, request));
}

#[test]
fn tools_are_answered() {
    let get = |path: &str| -> &'static str { format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").leak() };
    check(
        Fixed(None),
        get("/healthz"),
        &expect![[r#"
        HTTP/1.1 200 OK
        alive
    "#]],
    );
    check(
        Fixed(None),
        get("/readyz"),
        &expect![[r#"
        HTTP/1.1 200 OK
        ready
    "#]],
    );
    check(
        Fixed(Some("no node is up in: eu-west")),
        get("/readyz"),
        &expect![[r#"
        HTTP/1.1 503 Service Unavailable
        no node is up in: eu-west
    "#]],
    );
    check(
        Fixed(None),
        get("/"),
        &expect![[r#"
        HTTP/1.1 404 Not Found
        there are /metrics, /healthz and /readyz
    "#]],
    );
    assert!(ask(Fixed(None), get("/metrics")).ends_with("# EOF\n"));
}

#[test]
fn nothing_can_be_changed() {
    check(
        Fixed(None),
        "POST /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 0\r\n\r\n",
        &expect![[r#"
        HTTP/1.1 405 Method Not Allowed
        only GET and HEAD
    "#]],
    );
}

#[test]
fn heads_are_bounded() {
    let request = format!("GET /healthz HTTP/1.1\r\nHost: x\r\nX: {}\r\n\r\n", "x".repeat(HEAD_BYTES_MAX));
    check(
        Fixed(None),
        request.leak(),
        &expect![[r#"
        HTTP/1.1 431 Request Header Fields Too Large
    "#]],
    );
}
