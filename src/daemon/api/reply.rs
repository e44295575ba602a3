//! How requests are answered: one JSON value, a stream of them, or a stream of bytes.
//!
//! A stream is made by a thread that may block (the store reads disks) and goes to the client through a bounded channel: a
//! client that reads slowly slows the thread, and one that has gone stops it at its next word. What fails before the
//! first word is a plain error (status 500 and kubo's JSON); what fails later can only be said at the end of the stream:
//! in the trailer `X-Stream-Error` where the client takes trailers, else by cutting the connection, so that a broken answer
//! never looks whole.

use std::fmt::Write as _;
use std::io::Write;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Instant;

use axum::body::Body;
use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::{Bytes, BytesMut};
use hyper::body::Frame;
use serde::Serialize;
use serde_json::json;
use tokio::sync::mpsc;

use super::query::Query;
use crate::limits::{API_PIECE_BYTES, API_STREAM_DEPTH};

/// The trailer that says why a stream broke off.
pub const STREAM_ERROR: &str = "x-stream-error";

/// A request that failed, as kubo tells it.
#[derive(Clone, Debug)]
pub struct ApiError {
    status: StatusCode,
    message: String,
}

impl ApiError {
    /// What was asked could not be done.
    pub fn new(message: impl Into<String>) -> ApiError {
        ApiError { status: StatusCode::INTERNAL_SERVER_ERROR, message: message.into() }
    }

    /// What was asked makes no sense.
    pub fn usage(message: impl Into<String>) -> ApiError {
        ApiError { status: StatusCode::BAD_REQUEST, message: message.into() }
    }

    /// The client has gone: nobody reads this.
    fn gone() -> ApiError {
        ApiError::new("the client has gone")
    }

    /// The time that the client gave is over; the words are those of kubo, which clients look for.
    pub(super) fn timeout() -> ApiError {
        ApiError::new("context deadline exceeded")
    }

    /// The whole message.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// Puts what was being done before the message.
    #[must_use]
    pub fn context(self, what: impl std::fmt::Display) -> ApiError {
        ApiError { message: format!("{what}: {}", self.message), ..self }
    }
}

/// Any error of a floor below, with its causes on one line.
impl<E: std::error::Error> From<E> for ApiError {
    fn from(error: E) -> ApiError {
        let mut message = error.to_string();
        let mut cause = error.source();
        while let Some(error) = cause {
            let text = error.to_string();
            // Some errors repeat their cause in their own words.
            if !message.ends_with(&text) {
                let _ = write!(message, ": {text}");
            }
            cause = error.source();
        }
        ApiError::new(message)
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        if self.status == StatusCode::BAD_REQUEST {
            // kubo answers what it cannot parse in plain text.
            return (self.status, [(header::CONTENT_TYPE, "text/plain; charset=utf-8")], self.message + "\n")
                .into_response();
        }
        let body = json!({ "Message": self.message, "Code": 0, "Type": "error" }).to_string() + "\n";
        (self.status, [(header::CONTENT_TYPE, "application/json")], body).into_response()
    }
}

/// Runs `work` where it may block.
pub async fn blocking<T, F>(work: F) -> Result<T, ApiError>
where
    T: Send + 'static,
    F: FnOnce() -> Result<T, ApiError> + Send + 'static,
{
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => Err(ApiError::new(format!("internal error: {error}"))),
    }
}

/// One JSON value, made where it may block.
pub async fn json<T, F>(work: F) -> Result<Response, ApiError>
where
    T: Serialize + Send + 'static,
    F: FnOnce() -> Result<T, ApiError> + Send + 'static,
{
    let value = blocking(work).await?;
    Ok(json_response(&value))
}

/// An answer of one JSON value.
pub fn json_response<T: Serialize>(value: &T) -> Response {
    ([(header::CONTENT_TYPE, "application/json")], line(value)).into_response()
}

fn line<T: Serialize>(value: &T) -> Bytes {
    // The types that are sent are maps with text keys, which always serialise.
    let mut line = serde_json::to_vec(value).unwrap_or_default();
    line.push(b'\n');
    line.into()
}

/// The writing end of a streamed answer.
#[derive(Clone)]
pub struct Emit {
    sender: mpsc::Sender<Result<Bytes, ApiError>>,
    deadline: Option<Instant>,
}

impl Emit {
    /// Sends one JSON value as a line of its own. Blocks while the client is behind; fails when it has gone.
    pub fn json<T: Serialize>(&self, value: &T) -> Result<(), ApiError> {
        self.bytes(line(value))
    }

    /// Sends bytes. Blocks while the client is behind; fails when it has gone.
    pub fn bytes(&self, bytes: Bytes) -> Result<(), ApiError> {
        if self.deadline.is_some_and(|deadline| Instant::now() >= deadline) {
            return Err(ApiError::timeout());
        }
        wait(self.sender.send(Ok(bytes))).map_err(|_| ApiError::gone())
    }

    /// Returns when nobody reads any more.
    pub async fn gone(&self) {
        self.sender.closed().await;
    }

    /// Whether nobody reads any more: long work that says little asks now and then.
    pub fn is_gone(&self) -> bool {
        self.sender.is_closed()
    }
}

/// Waits on a thread that may block. Unlike the runtime's own waiting this may be done from within a future that such a thread
/// drives, as a walk of a DAG is whose progress is told. That future may tell of more than the runtime grants one task
/// before it must give way; here there is nobody to give way to, and it would wait for ever: so nothing is counted.
fn wait<F: Future>(future: F) -> F::Output {
    struct Unpark(std::thread::Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    let mut future = std::pin::pin!(tokio::task::unconstrained(future));
    loop {
        match future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(output) => return output,
            Poll::Pending => std::thread::park(),
        }
    }
}

/// What a stream is made of: decides the headers that kubo sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    /// JSON values, a line each.
    Json,
    /// The bytes of a file, which kubo calls text.
    Text,
    /// A tar file.
    Tar,
    /// Something compressed.
    Gzip,
    /// A CAR file.
    Car,
    /// A block.
    Block,
}

/// What a streamed answer must know of its request.
#[derive(Clone, Copy, Debug)]
pub struct Caller {
    /// Whether the client takes trailers.
    trailers: bool,
    /// When the client wants it over (`timeout=10s`).
    deadline: Option<Instant>,
}

impl<S: Send + Sync> FromRequestParts<S> for Caller {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Caller, ApiError> {
        let timeout = Query::from_request_parts(parts, state).await?.timeout()?;
        let te = parts.headers.get(header::TE).and_then(|te| te.to_str().ok());
        Ok(Caller {
            trailers: te.is_some_and(|te| te.contains("trailers")),
            deadline: timeout.map(|timeout| Instant::now() + timeout),
        })
    }
}

/// A streamed answer to `caller`: `work` runs where it may block and writes through [`Emit`].
pub async fn stream<F>(kind: Stream, caller: Caller, work: F) -> Result<Response, ApiError>
where
    F: FnOnce(&Emit) -> Result<(), ApiError> + Send + 'static,
{
    stream_of(kind, None, caller, work).await
}

/// [`stream`], of a known number of bytes.
pub async fn stream_of<F>(kind: Stream, length: Option<u64>, caller: Caller, work: F) -> Result<Response, ApiError>
where
    F: FnOnce(&Emit) -> Result<(), ApiError> + Send + 'static,
{
    let (sender, mut receiver) = mpsc::channel(API_STREAM_DEPTH);
    let emit = Emit { sender, deadline: caller.deadline };
    let finished = Arc::new(AtomicBool::new(false));
    let done = finished.clone();
    tokio::task::spawn_blocking(move || {
        if let Err(error) = work(&emit) {
            // Where the client has gone there is nobody to tell.
            let _ = emit.sender.blocking_send(Err(error));
        }
        done.store(true, Ordering::Release);
    });
    // The first word decides between an answer and an error.
    let first = match receiver.recv().await {
        Some(Err(error)) => return Err(error),
        Some(Ok(bytes)) => Some(bytes),
        None => None,
    };
    let mut response =
        Body::new(Streamed { first, receiver, trailers: caller.trailers, finished, done: false }).into_response();
    let (content, marker) = match kind {
        Stream::Json => ("application/json", "x-chunked-output"),
        Stream::Text => ("text/plain", "x-stream-output"),
        Stream::Tar => ("application/x-tar", "x-stream-output"),
        Stream::Gzip => ("application/gzip", "x-stream-output"),
        Stream::Car => ("application/vnd.ipld.car", "x-stream-output"),
        Stream::Block => ("application/vnd.ipld.raw", "x-stream-output"),
    };
    let out = response.headers_mut();
    out.insert(header::CONTENT_TYPE, HeaderValue::from_static(content));
    out.insert(HeaderName::from_static(marker), HeaderValue::from_static("1"));
    if let Some(length) = length {
        out.insert(HeaderName::from_static("x-content-length"), HeaderValue::from(length));
    }
    out.insert(header::TRAILER, HeaderValue::from_static("X-Stream-Error"));
    Ok(response)
}

struct Streamed {
    first: Option<Bytes>,
    receiver: mpsc::Receiver<Result<Bytes, ApiError>>,
    trailers: bool,
    /// Set by the thread that writes, once it came to its end: where it did not, the answer is not whole.
    finished: Arc<AtomicBool>,
    done: bool,
}

impl hyper::body::Body for Streamed {
    type Data = Bytes;
    type Error = std::io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, std::io::Error>>> {
        if let Some(first) = self.first.take() {
            return Poll::Ready(Some(Ok(Frame::data(first))));
        }
        if self.done {
            return Poll::Ready(None);
        }
        let next = match std::task::ready!(self.receiver.poll_recv(cx)) {
            Some(next) => next,
            None if self.finished.load(Ordering::Acquire) => {
                self.done = true;
                return Poll::Ready(None);
            }
            None => Err(ApiError::new("internal error: the thread that made the answer broke off")),
        };
        Poll::Ready(Some(match next {
            Ok(bytes) => Ok(Frame::data(bytes)),
            Err(error) => {
                self.done = true;
                self.receiver.close();
                tracing::warn!(error = error.message(), "an answer broke off");
                if self.trailers {
                    let mut trailers = HeaderMap::new();
                    let text = error.message.replace(['\r', '\n'], " ");
                    let value = HeaderValue::from_bytes(text.as_bytes())
                        .unwrap_or(HeaderValue::from_static("the answer broke off"));
                    trailers.insert(HeaderName::from_static(STREAM_ERROR), value);
                    Ok(Frame::trailers(trailers))
                } else {
                    Err(std::io::Error::other(error.message))
                }
            }
        }))
    }
}

/// Gathers small writes into pieces of a stream.
pub struct Pieces<'a> {
    emit: &'a Emit,
    buffer: BytesMut,
}

impl<'a> Pieces<'a> {
    /// Into the stream of `emit`. What is left is written by a flush.
    pub fn new(emit: &'a Emit) -> Pieces<'a> {
        Pieces { emit, buffer: BytesMut::with_capacity(API_PIECE_BYTES) }
    }
}

impl Write for Pieces<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.buffer.extend_from_slice(bytes);
        if self.buffer.len() >= API_PIECE_BYTES {
            self.flush()?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        let piece = self.buffer.split().freeze();
        self.emit.bytes(piece).map_err(|error| std::io::Error::other(error.message().to_owned()))
    }
}
