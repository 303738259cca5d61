//! A proxy that writes down what is asked of a server, in order.

use std::sync::{Arc, Mutex};
use std::time::Instant;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// A proxy; it ends with its test's runtime.
#[derive(Debug)]
pub struct Recorder {
    port: u16,
    asked: Asked,
}

/// Method and path of each request, and when it came.
type Asked = Arc<Mutex<Vec<(String, Instant)>>>;

impl Recorder {
    /// In front of the server at `url`.
    pub async fn before(url: &str) -> Self {
        let server = url.trim_start_matches("http://").to_owned();
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let asked = Arc::new(Mutex::new(vec![]));
        let seen = Arc::clone(&asked);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let server = TcpStream::connect(&server).await.expect("the server");
                let (mut answers, requests) = server.into_split();
                let (asking, mut answered) = client.into_split();
                tokio::spawn(forward(asking, requests, Arc::clone(&seen)));
                tokio::spawn(async move { tokio::io::copy(&mut answers, &mut answered).await });
            }
        });
        Self { port, asked }
    }

    /// Its address.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Method and path of each request so far, each written down before the server got it.
    pub fn asked(&self) -> Vec<String> {
        self.asked.lock().expect("a lock").iter().map(|(request, _)| request.clone()).collect()
    }

    /// When the requests came whose method and path begin and end like this.
    pub fn times_of(&self, begin: &str, end: &str) -> Vec<Instant> {
        let is_one = |request: &str| request.starts_with(begin) && request.ends_with(end);
        self.asked.lock().expect("a lock").iter().filter(|(r, _)| is_one(r)).map(|(_, at)| *at).collect()
    }
}

async fn forward(mut from: tokio::net::tcp::OwnedReadHalf, mut to: tokio::net::tcp::OwnedWriteHalf, seen: Asked) {
    let mut piece = vec![0; 1 << 16];
    while let Ok(length @ 1..) = from.read(&mut piece).await {
        seen.lock().expect("a lock").extend(request_of(&piece[..length]).map(|r| (r, Instant::now())));
        if to.write_all(&piece[..length]).await.is_err() {
            return;
        }
    }
}

/// Method and path, where this is the begin of a request. A client waits for the answer before it sends another on the same
/// connection, so what is read never begins with the end of the one before.
pub(super) fn request_of(piece: &[u8]) -> Option<String> {
    let line = std::str::from_utf8(piece.split(|byte| *byte == b'\r').next()?).ok()?;
    line.strip_suffix(" HTTP/1.1").map(ToOwned::to_owned)
}
