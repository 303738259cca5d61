//! A body on its way from the service, held to the length that was announced.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use futures_util::Stream;
use futures_util::stream::BoxStream;
use object_store::GetResult;
use tokio::io::{AsyncRead, ReadBuf};

use super::refusal;
use crate::store::{Meta, Reader, StoreError};

/// The body as it comes. Its errors carry a [`StoreError`].
pub(super) fn stream(found: GetResult, meta: Meta, location: String) -> Reader {
    Box::pin(Checked { inner: found.into_stream(), piece: Bytes::new(), read: 0, meta, location })
}

struct Checked {
    inner: BoxStream<'static, object_store::Result<Bytes>>,
    piece: Bytes,
    read: u64,
    meta: Meta,
    location: String,
}

impl Checked {
    fn end(&self) -> io::Result<()> {
        let (read, size) = (self.read, self.meta.size);
        if read == size {
            return Ok(());
        }
        let why = format!("{read} bytes came of {size}");
        Err(io::Error::other(StoreError::corrupt(&self.meta.key, &*self.location, why)))
    }
}

impl AsyncRead for Checked {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        while self.piece.is_empty() {
            match ready!(Pin::new(&mut self.inner).poll_next(cx)) {
                None => return Poll::Ready(self.end()),
                Some(Ok(piece)) => {
                    self.read += piece.len() as u64;
                    self.piece = piece;
                }
                Some(Err(error)) => {
                    let explained = refusal::explain(error, &self.meta.key, &self.location);
                    return Poll::Ready(Err(io::Error::other(explained)));
                }
            }
        }
        let count = self.piece.len().min(buf.remaining());
        buf.put_slice(&self.piece[..count]);
        self.piece.advance(count);
        Poll::Ready(Ok(()))
    }
}
