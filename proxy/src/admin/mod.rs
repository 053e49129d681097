//! The HTTP endpoint for operators and their tools: `/metrics`, `/healthz`, `/readyz`. It shows and never changes anything.
//!
//! It runs on the control thread beside the logins, so it is kept small: few connections at once, no request bodies, a deadline for
//! everything. Who may reach it is decided by the address it listens on.

pub mod console;

use std::convert::Infallible;
use std::io;
use std::net::TcpListener as StdTcpListener;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};
use tracing::{debug, warn};

use crate::observe::{self, Snapshot};

/// Connections at once; further ones wait in the kernel's queue.
const CONNECTIONS_MAX: usize = 16;
/// Bytes of a request's head; the least that hyper takes.
const HEAD_BYTES_MAX: usize = 8 << 10;
/// How long a request's head may take.
const HEAD_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a connection may live.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(60);
/// Until accepting is tried again after it has failed (no descriptor is left).
const ACCEPT_PAUSE: Duration = Duration::from_secs(1);

/// What is shown.
pub trait View {
    /// All that is measured.
    fn metrics(&self) -> Snapshot;
    /// Why clients should go elsewhere for now, if they should.
    fn obstacle(&self) -> Option<String>;
    /// What whoever asks should know although clients are served.
    fn remark(&self) -> Option<String>;
}

/// Serves on `listener` for ever.
///
/// # Errors
/// The listener can not be used by the runtime.
pub async fn serve(listener: StdTcpListener, view: Rc<dyn View>) -> io::Result<()> {
    listener.set_nonblocking(true)?;
    let listener = TcpListener::from_std(listener)?;
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        // The semaphore is never closed, so a place always comes.
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return Ok(()) };
        match listener.accept().await {
            Ok((stream, _)) => {
                let view = Rc::clone(&view);
                tokio_uring::spawn(async move {
                    converse(stream, view).await;
                    drop(place);
                });
            }
            Err(error) => {
                warn!(%error, "no HTTP connection can be accepted");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// One connection, until it ends or its time is over.
async fn converse(stream: TcpStream, view: Rc<dyn View>) {
    let service = service_fn(|request: hyper::Request<hyper::body::Incoming>| {
        let response = respond(&*view, request.method(), request.uri().path());
        std::future::ready(Ok::<_, Infallible>(response))
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(HEAD_BYTES_MAX)
        .serve_connection(TokioIo::new(stream), service);
    match timeout(CONNECTION_TIMEOUT, connection).await {
        Ok(Ok(())) | Err(_) => {}
        Ok(Err(error)) => debug!(%error, "an HTTP connection ended early"),
    }
}

fn respond(view: &dyn View, method: &Method, path: &str) -> Response<Full<Bytes>> {
    const TEXT: &str = "text/plain; charset=utf-8";
    let (status, content_type, text) = match path {
        _ if !matches!(*method, Method::GET | Method::HEAD) => {
            (StatusCode::METHOD_NOT_ALLOWED, TEXT, "only GET and HEAD\n".to_owned())
        }
        "/metrics" => match view.metrics().encode() {
            Ok(text) => (StatusCode::OK, observe::CONTENT_TYPE, text),
            Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, TEXT, format!("{error}\n")),
        },
        // Whoever gets an answer has proved that the control thread lives.
        "/healthz" => (StatusCode::OK, TEXT, "alive\n".to_owned()),
        "/readyz" => match view.obstacle() {
            None => (StatusCode::OK, TEXT, view.remark().map_or("ready\n".to_owned(), |remark| format!("ready; {remark}\n"))),
            Some(obstacle) => (StatusCode::SERVICE_UNAVAILABLE, TEXT, format!("{obstacle}\n")),
        },
        _ => (StatusCode::NOT_FOUND, TEXT, "there are /metrics, /healthz and /readyz\n".to_owned()),
    };
    let mut response = Response::new(Full::new(text.into()));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

#[cfg(test)]
mod tests;
