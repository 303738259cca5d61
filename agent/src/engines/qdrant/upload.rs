//! Giving the running server a collection: its archive is made again while it is uploaded, always with its checksum.
//!
//! Rejected: an address of our own that the server fetches it from, which a server in a container cannot reach. The server keeps the
//! uploaded file among the collection's snapshots; it is deleted afterwards. One that was refused under a new name stays
//! where REST cannot reach it, and is overwritten by the next try, for its name follows from the restore.

use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use serde_json::Value;
use tokio::sync::mpsc;

use super::client::{Client, Request};
use super::pack::Packed;
use super::scratch::blocking;
use super::{left_over, names};
use crate::engine::{EngineError, Progress, Step};

const BOUNDARY: &str = "perennial-4c6f8e1b-archive";
/// Pieces that wait to be sent.
const WAITING: usize = 8;
const TOLD_EVERY: Duration = Duration::from_millis(500);

/// A collection's snapshot on its way into the server.
#[derive(Clone, Copy)]
pub(super) struct Upload<'a> {
    /// The collection that it becomes.
    pub(super) target: &'a str,
    /// The snapshot's files.
    pub(super) folder: &'a Path,
    /// The restore's tag.
    pub(super) tag: &'a str,
    pub(super) patience: Duration,
    pub(super) progress: Progress<'a>,
}

/// Makes the collection what the snapshot holds, and waits until it is.
pub(super) async fn recover(client: &Client, upload: Upload<'_>) -> Result<(), EngineError> {
    let packed = blocking(upload.folder, |folder| {
        is_complete(folder)?;
        Packed::collection(folder)
    });
    let packed = Arc::new(packed.await?);
    let hashed = Arc::clone(&packed);
    let checksum = blocking(upload.folder, move |_| hashed.sha256()).await?;
    let file = file_name(upload.tag);
    let sent = send(client, upload, packed, &checksum, &file).await;
    let cleaned = left_over::delete(client, upload.target, &file).await;
    sent.map_err(|e| refused(upload.target, e))?;
    cleaned
}

/// What the server calls the uploaded file.
pub(super) fn file_name(tag: &str) -> String {
    format!("perennial-{}.snapshot", names::mark(tag))
}

/// A refusal is about this backup; what is about the connection or the key stays what it is.
fn refused(target: &str, error: EngineError) -> EngineError {
    match error {
        EngineError::Unexpected { status, why, .. } => {
            EngineError::Failed { what: "restore", id: target.into(), why: format!("{status} {why}") }
        }
        other => other,
    }
}

/// A snapshot without its log restores, and brings deletes back or loses the next writes.
fn is_complete(folder: &Path) -> std::io::Result<()> {
    let missing = |what: String| std::io::Error::new(std::io::ErrorKind::InvalidData, format!("{what} is missing"));
    let config: Value = serde_json::from_slice(&std::fs::read(folder.join("config.json"))?)?;
    let shards = config["params"]["shard_number"].as_u64().unwrap_or(1);
    for shard in 0..shards {
        let log = folder.join(shard.to_string()).join("wal");
        let is_log = |n: &str| n.starts_with("open-") || n.starts_with("closed-");
        let mut files = std::fs::read_dir(&log).map_err(|_| missing(format!("the log of shard {shard}")))?;
        if !files.any(|f| f.is_ok_and(|f| is_log(&f.file_name().to_string_lossy()))) {
            return Err(missing(format!("the log of shard {shard}")));
        }
    }
    Ok(())
}

async fn send(
    client: &Client,
    upload: Upload<'_>,
    packed: Arc<Packed>,
    checksum: &str,
    file: &str,
) -> Result<(), EngineError> {
    let (to, pieces) = mpsc::channel(WAITING);
    let head = format!(
        "--{BOUNDARY}\r\nContent-Disposition: form-data; name=\"snapshot\"; filename=\"{file}\"\r\n\
         Content-Type: application/octet-stream\r\n\r\n"
    );
    let tail = format!("\r\n--{BOUNDARY}--\r\n");
    let length = packed.size() + (head.len() + tail.len()) as u64;
    let sent = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&sent);
    let making = tokio::task::spawn_blocking(move || {
        let mut give = |piece: &[u8]| {
            counted.fetch_add(piece.len() as u64, Ordering::Relaxed);
            let gone = |_| std::io::Error::from(std::io::ErrorKind::BrokenPipe);
            to.blocking_send(Ok(Bytes::copy_from_slice(piece))).map_err(gone)
        };
        let made = give(head.as_bytes()).and_then(|()| packed.write(&mut give)).and_then(|()| give(tail.as_bytes()));
        if made.as_ref().is_err_and(|e| e.kind() != std::io::ErrorKind::BrokenPipe) {
            let _ = to.blocking_send(Err(std::io::Error::other("the archive could not be read")));
        }
        made
    });
    let path = ["collections", upload.target, "snapshots", "upload"];
    let query = [("wait", "true"), ("priority", "snapshot"), ("checksum", checksum)];
    let request = Request::upload(&path).query(&query).within(upload.patience);
    let kind = format!("multipart/form-data; boundary={BOUNDARY}");
    let body = reqwest::Body::wrap(Sent { pieces, left: length });
    let mut sending = std::pin::pin!(client.send_body(request, &kind, body));
    let state = format!("restoring {}", upload.target);
    let done = loop {
        (upload.progress)(Step { state: &state, done: Some(sent.load(Ordering::Relaxed)) });
        if let Ok(done) = tokio::time::timeout(TOLD_EVERY, &mut sending).await {
            break done;
        }
    };
    match making.await.unwrap_or_else(|e| Err(e.into())) {
        Err(e) if e.kind() != std::io::ErrorKind::BrokenPipe => Err(EngineError::files(upload.folder, &e)),
        _ => done,
    }
}

/// A body of known length, made while it is sent.
struct Sent {
    pieces: mpsc::Receiver<std::io::Result<Bytes>>,
    left: u64,
}

impl Body for Sent {
    type Data = Bytes;
    type Error = std::io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<std::io::Result<Frame<Bytes>>>> {
        let piece = std::task::ready!(self.pieces.poll_recv(cx));
        if let Some(Ok(piece)) = &piece {
            self.left = self.left.saturating_sub(piece.len() as u64);
        }
        Poll::Ready(piece.map(|piece| piece.map(Frame::data)))
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}
