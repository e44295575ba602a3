//! One way to the control API: over the socket of the daemon where one runs, in this process where none does.
//!
//! Verbs do not know which it is. [`Client::connect`] tries the socket first; where nobody listens it takes the
//! repository's lock and opens the repository here. Where somebody else has the lock (a verb at work, a daemon that
//! starts or ends) it waits a moment for either to change, and then says who it is.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, anyhow};
use axum::body::Body;
use axum::http::{HeaderMap, Method, Request, Response, header};
use bytes::{Buf, Bytes, BytesMut};
use futures::StreamExt;
use http_body_util::BodyExt;
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;
use tokio_util::io::ReaderStream;
use tower::ServiceExt;

use crate::config::Settings;
use crate::daemon::api::reply::STREAM_ERROR;
use crate::daemon::api::{self, Reach};
use crate::daemon::repository::{RepositoryError, socket};
use crate::daemon::server::short_socket_path;
use crate::daemon::{Daemon, Repository, Role};
use crate::limits::{API_PIECE_BYTES, REPOSITORY_WAIT};

/// A way to the control API.
pub struct Client {
    way: Way,
    /// The multibase that answers are to write CIDs in, where not the usual one.
    cid_base: Option<String>,
}

enum Way {
    /// Through the socket of a daemon.
    Socket(PathBuf),
    /// In this process.
    Here(Daemon),
}

/// One request in the making.
pub struct Call<'a> {
    client: &'a Client,
    path: String,
    query: String,
    content_type: Option<String>,
    body: Body,
}

/// An answer whose head is here and whose body may be on its way.
pub struct Reply {
    response: Response<Body>,
}

impl Client {
    /// Finds the daemon of the repository at `path`, or opens the repository here. `purpose` names the verb to others.
    pub async fn connect(path: &Path, settings: &Settings, purpose: &str) -> anyhow::Result<Client> {
        let deadline = Instant::now() + REPOSITORY_WAIT;
        loop {
            if let Some(client) = Client::running(path).await {
                return Ok(client);
            }
            match Repository::lock(path, purpose, Duration::ZERO) {
                Ok(repository) => {
                    let settings = settings.clone();
                    let open = move || Daemon::open(repository, settings, Role::Verb);
                    return Ok(Client::here(tokio::task::spawn_blocking(open).await??));
                }
                // The holder may be about to leave, or to listen; neither is an event that could be awaited.
                Err(RepositoryError::Locked { .. }) if Instant::now() < deadline => {
                    tokio::time::sleep(Duration::from_millis(25)).await;
                }
                Err(error @ RepositoryError::Locked { .. }) => {
                    return Err(anyhow!(
                        "{error}; wait until it has finished, or run `cidfs daemon` so that verbs share the repository"
                    ));
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// The daemon of the repository at `path`, where one runs.
    pub async fn running(path: &Path) -> Option<Client> {
        let socket = socket(path);
        connect(&socket).await.ok().map(|_| Client { way: Way::Socket(socket), cid_base: None })
    }

    /// In this process, by its own daemon.
    pub fn here(daemon: Daemon) -> Client {
        Client { way: Way::Here(daemon), cid_base: None }
    }

    /// Asks that answers write CIDs in this multibase.
    #[must_use]
    pub fn with_cid_base(self, name: &str) -> Client {
        Client { cid_base: Some(name.to_owned()), ..self }
    }

    /// A request for `/api/v0/<path>`.
    pub fn call(&self, path: &str) -> Call<'_> {
        let call = Call {
            client: self,
            path: format!("/api/v0/{path}"),
            query: String::new(),
            content_type: None,
            body: Body::empty(),
        };
        call.maybe("cid-base", self.cid_base.as_ref())
    }

    /// Makes durable what was done, where it was done here.
    pub async fn close(self) -> anyhow::Result<()> {
        if let Way::Here(daemon) = self.way {
            let store = daemon.store().clone();
            tokio::task::spawn_blocking(move || store.finish()).await??;
            // The lock of the repository goes with the process: threads that are still ending may use what it guards.
            std::mem::forget(daemon);
        }
        Ok(())
    }
}

async fn connect(socket: &Path) -> std::io::Result<UnixStream> {
    let (path, _directory) = short_socket_path(socket)?;
    UnixStream::connect(path).await
}

impl Call<'_> {
    /// Adds an argument.
    #[must_use]
    pub fn arg(self, value: impl AsRef<str>) -> Self {
        self.option("arg", value)
    }

    /// Adds arguments.
    #[must_use]
    pub fn args(self, values: impl IntoIterator<Item = impl AsRef<str>>) -> Self {
        values.into_iter().fold(self, Call::arg)
    }

    /// Adds an option.
    #[must_use]
    pub fn option(mut self, name: &str, value: impl AsRef<str>) -> Self {
        self.query.push(if self.query.is_empty() { '?' } else { '&' });
        self.query.push_str(name);
        self.query.push('=');
        encode(value.as_ref(), &mut self.query);
        self
    }

    /// Adds an option that is true or false.
    #[must_use]
    pub fn flag(self, name: &str, value: bool) -> Self {
        self.option(name, if value { "true" } else { "false" })
    }

    /// Adds an option where there is one.
    #[must_use]
    pub fn maybe(self, name: &str, value: Option<impl std::fmt::Display>) -> Self {
        match value {
            Some(value) => self.option(name, value.to_string()),
            None => self,
        }
    }

    /// Sets the body.
    #[must_use]
    pub fn body(self, body: Body) -> Self {
        Call { body, ..self }
    }

    /// Sets the body to one file, as kubo's calls take it: what `content` brings, streamed.
    #[must_use]
    pub fn file(self, content: Body) -> Self {
        // Blocks and archives do not hold this line; a body that does would be cut short, and found out by its hash.
        let boundary = format!("cidfs-{}-{:x}", std::process::id(), std::ptr::from_ref(&self) as usize);
        let head = format!(
            "--{boundary}\r\nContent-Disposition: form-data; name=\"file\"; filename=\"\"\r\n\
             Content-Type: application/octet-stream\r\n\r\n"
        );
        let tail = format!("\r\n--{boundary}--\r\n");
        let frame = |text: String| futures::stream::iter([Ok::<_, axum::Error>(Bytes::from(text))]);
        let body = Body::from_stream(frame(head).chain(content.into_data_stream()).chain(frame(tail)));
        Call { body, content_type: Some(format!("multipart/form-data; boundary={boundary}")), ..self }
    }

    /// Sends the request and waits for the head of the answer. An error of the daemon's is an error here.
    pub async fn send(self) -> anyhow::Result<Reply> {
        let mut request = Request::builder();
        if let Some(kind) = &self.content_type {
            request = request.header(header::CONTENT_TYPE, kind);
        }
        let request = request
            .method(Method::POST)
            .uri(format!("{}{}", self.path, self.query))
            .header(header::HOST, "cidfs")
            .header(header::TE, "trailers")
            .header(header::CONNECTION, "TE")
            .body(self.body)
            .context("the arguments do not fit into one request: give fewer at a time")?;
        let response = match &self.client.way {
            Way::Here(daemon) => {
                let response = api::router(daemon.clone(), Reach::Owner).oneshot(request).await;
                // The router answers every request.
                response.unwrap_or_else(|never| match never {})
            }
            Way::Socket(socket) => {
                let stream = connect(socket)
                    .await
                    .with_context(|| format!("cannot reach the daemon at {}", socket.display()))?;
                let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
                tokio::spawn(connection);
                let response = sender.send_request(request).await.context("the daemon went away")?;
                response.map(Body::new)
            }
        };
        let reply = Reply { response };
        if reply.response.status().is_success() { Ok(reply) } else { Err(reply.error().await) }
    }
}

impl Reply {
    /// The headers.
    pub fn headers(&self) -> &HeaderMap {
        self.response.headers()
    }

    async fn error(self) -> anyhow::Error {
        #[derive(serde::Deserialize)]
        struct Told {
            #[serde(rename = "Message")]
            message: String,
        }
        let status = self.response.status();
        let body = match self.response.into_body().collect().await {
            Ok(body) => body.to_bytes(),
            Err(error) => return anyhow!("the daemon broke off: {error}"),
        };
        if let Ok(told) = serde_json::from_slice::<Told>(&body) {
            return anyhow!(told.message);
        }
        match String::from_utf8_lossy(&body).trim() {
            "" => anyhow!("the daemon answered {status}"),
            text => anyhow!("{text}"),
        }
    }

    /// The one JSON value of the answer.
    pub async fn json<T: DeserializeOwned>(self) -> anyhow::Result<T> {
        let body = self.response.into_body().collect().await.context("the answer broke off")?.to_bytes();
        serde_json::from_slice(&body).context("the answer cannot be read: is the daemon of another version of cidfs?")
    }

    /// The next piece of the answer, `None` at its end. An answer that breaks off is an error.
    pub async fn next(&mut self) -> anyhow::Result<Option<Bytes>> {
        while let Some(frame) = self.response.body_mut().frame().await {
            let frame = frame.map_err(|error| anyhow!(innermost(&error)))?;
            match frame.into_data() {
                Ok(data) => return Ok(Some(data)),
                Err(frame) => {
                    let trailers = frame.into_trailers().unwrap_or_default();
                    if let Some(error) = trailers.get(STREAM_ERROR) {
                        return Err(anyhow!("{}", String::from_utf8_lossy(error.as_bytes())));
                    }
                }
            }
        }
        Ok(None)
    }

    /// Hands each piece of the answer to `take` as it arrives.
    pub async fn pieces(mut self, mut take: impl FnMut(Bytes) -> anyhow::Result<()>) -> anyhow::Result<()> {
        while let Some(piece) = self.next().await? {
            take(piece)?;
        }
        Ok(())
    }

    /// Hands each JSON value of the answer to `take` as it arrives.
    pub async fn each<T: DeserializeOwned>(self, mut take: impl FnMut(T) -> anyhow::Result<()>) -> anyhow::Result<()> {
        let mut pending = BytesMut::new();
        self.pieces(|piece| {
            pending.extend_from_slice(&piece);
            while let Some(end) = pending.iter().position(|byte| *byte == b'\n') {
                let line = pending.split_to(end);
                pending.advance(1);
                if !line.is_empty() {
                    take(serde_json::from_slice(&line).context("the answer cannot be read")?)?;
                }
            }
            Ok(())
        })
        .await?;
        if !pending.is_empty() {
            take(serde_json::from_slice(&pending).context("the answer broke off")?)?;
        }
        Ok(())
    }
}

/// The cause at the bottom, which says what happened: those above say that something did.
fn innermost(error: &dyn std::error::Error) -> String {
    let mut error = error;
    while let Some(cause) = error.source() {
        error = cause;
    }
    error.to_string()
}

fn encode(text: &str, out: &mut String) {
    use std::fmt::Write;
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.~/".contains(&byte) {
            out.push(byte as char);
        } else {
            let _ = write!(out, "%{byte:02X}");
        }
    }
}

/// The bytes of a file, or of standard input where `path` is `-` or absent, as the body of a request.
pub async fn read(path: Option<&Path>) -> anyhow::Result<Body> {
    match path.filter(|path| *path != Path::new("-")) {
        Some(path) => {
            let file = tokio::fs::File::open(path).await.with_context(|| format!("cannot read {}", path.display()))?;
            Ok(Body::from_stream(ReaderStream::with_capacity(file, API_PIECE_BYTES)))
        }
        None => Ok(Body::from_stream(ReaderStream::with_capacity(tokio::io::stdin(), API_PIECE_BYTES))),
    }
}
