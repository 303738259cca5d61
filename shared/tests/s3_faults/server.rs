//! A server that answers S3 requests from a script, and keeps what it was asked.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};

/// One canned answer.
#[derive(Clone, Debug)]
pub(crate) struct Reply {
    status: u16,
    headers: Vec<(&'static str, String)>,
    body: Vec<u8>,
    /// How many bytes the head promises, where that is not the truth.
    promised: Option<usize>,
    /// How long it takes.
    pub(crate) late: Duration,
}

impl Reply {
    /// An answer with a body.
    pub(crate) fn new(status: u16, body: impl Into<Vec<u8>>) -> Self {
        Self { status, headers: Vec::new(), body: body.into(), promised: None, late: Duration::ZERO }
    }

    /// An error as S3 sends it.
    pub(crate) fn error(status: u16, code: &str) -> Self {
        let body = format!("<?xml version=\"1.0\"?><Error><Code>{code}</Code><Message>scripted</Message></Error>");
        Self::new(status, body).header("x-amz-request-id", "R1")
    }

    /// An object.
    pub(crate) fn object(body: &str, etag: &str) -> Self {
        Self::new(200, body).header("ETag", etag).header("Last-Modified", "Sat, 21 Nov 2026 10:55:01 GMT")
    }

    /// One more header.
    pub(crate) fn header(mut self, name: &'static str, value: &str) -> Self {
        self.headers.push((name, value.to_owned()));
        self
    }

    /// The connection ends before these many bytes came.
    pub(crate) fn promising(mut self, bytes: usize) -> Self {
        self.promised = Some(bytes);
        self
    }
}

/// What was asked.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    /// `PUT /bucket/key`
    pub line: String,
    /// Lower-case names.
    pub headers: BTreeMap<String, String>,
    pub body: Vec<u8>,
}

impl Request {
    /// A header's value, or nothing.
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }
}

/// Runs until its runtime ends.
#[derive(Debug)]
pub(crate) struct Server {
    address: SocketAddr,
    requests: Arc<Mutex<Vec<Request>>>,
    replies: Arc<Mutex<VecDeque<Reply>>>,
}

impl Server {
    /// Gives these answers, in order; an unexpected request gets no answer at all.
    pub(crate) async fn start(replies: impl IntoIterator<Item = Reply>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let server = Self {
            address: listener.local_addr().expect("an address"),
            requests: Arc::default(),
            replies: Arc::new(Mutex::new(replies.into_iter().collect())),
        };
        let (requests, replies) = (server.requests.clone(), server.replies.clone());
        tokio::spawn(async move {
            while let Ok((connection, _)) = listener.accept().await {
                tokio::spawn(serve(connection, requests.clone(), replies.clone()));
            }
        });
        server
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Every request so far; the whole script must have been used by then.
    pub(crate) fn requests(&self) -> Vec<Request> {
        let unused = self.replies.lock().expect("no panic").len();
        assert_eq!(unused, 0, "replies that nobody asked for, after {:?}", self.requests);
        self.requests.lock().expect("no panic").clone()
    }
}

async fn serve(mut connection: TcpStream, requests: Arc<Mutex<Vec<Request>>>, replies: Arc<Mutex<VecDeque<Reply>>>) {
    let request = receive(&mut connection).await;
    let head_only = request.line.starts_with("HEAD ");
    requests.lock().expect("no panic").push(request);
    let Some(reply) = replies.lock().expect("no panic").pop_front() else { return };
    tokio::time::sleep(reply.late).await;

    let length = reply.promised.unwrap_or(reply.body.len());
    let mut head = format!("HTTP/1.1 {} Scripted\r\nContent-Length: {length}\r\nConnection: close\r\n", reply.status);
    for (name, value) in &reply.headers {
        head.extend([name, ": ", value, "\r\n"]);
    }
    head.push_str("\r\n");
    // A client that went away has seen what it wanted.
    let _ = connection.write_all(head.as_bytes()).await;
    if !head_only {
        let _ = connection.write_all(&reply.body).await;
    }
    let _ = connection.shutdown().await;
}

async fn receive(connection: &mut TcpStream) -> Request {
    let mut lines = BufReader::new(connection);
    let mut line = String::new();
    lines.read_line(&mut line).await.expect("a request line");
    let line = line.trim_end().trim_end_matches(" HTTP/1.1").to_owned();
    let mut headers = BTreeMap::new();
    loop {
        let mut header = String::new();
        lines.read_line(&mut header).await.expect("a header");
        let Some((name, value)) = header.trim_end().split_once(": ") else { break };
        headers.insert(name.to_lowercase(), value.to_owned());
    }
    let length = headers.get("content-length").map_or(0, |length| length.parse().expect("a number"));
    let mut body = vec![0; length];
    lines.read_exact(&mut body).await.expect("the body");
    Request { line, headers, body }
}
