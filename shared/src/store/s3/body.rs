//! Bodies on their way from S3: complete, undamaged, or an error.
//!
//! A broken connection is [`StoreError::Unavailable`] and says nothing about the object; a wrong checksum, or an end
//! before the announced length, is [`StoreError::Corrupt`].

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use aws_sdk_s3::primitives::ByteStream;
use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncReadExt, ReadBuf};

use crate::store::{Meta, Reader, StoreError};

/// What a server announces beyond this is not believed before it comes.
const LARGEST: u64 = 64 << 20;

/// The whole body.
pub(super) async fn whole(body: ByteStream, meta: &Meta, location: &str) -> Result<Bytes, StoreError> {
    let mut body = stream(body, meta.clone(), location.to_owned());
    // Growing step by step would copy megabytes again and again.
    let mut bytes = Vec::with_capacity(usize::try_from(meta.size.min(LARGEST)).unwrap_or_default());
    match body.read_to_end(&mut bytes).await {
        Ok(_) => Ok(bytes.into()),
        Err(error) => Err(StoreError::from_read(error, &meta.key, location)),
    }
}

/// The body as it comes. Its errors carry a [`StoreError`].
pub(super) fn stream(body: ByteStream, meta: Meta, location: String) -> Reader {
    Box::pin(Checked { inner: Box::pin(body.into_async_read()), read: 0, meta, location })
}

struct Checked {
    inner: Reader,
    read: u64,
    meta: Meta,
    location: String,
}

impl Checked {
    fn explain(&self, error: io::Error) -> io::Error {
        let (key, location) = (&self.meta.key, self.location.clone());
        io::Error::other(if is_checksum_mismatch(&error) {
            StoreError::corrupt(key, location, error)
        } else {
            StoreError::unavailable(key, location, error)
        })
    }

    fn end(&self) -> io::Result<()> {
        let (read, size) = (self.read, self.meta.size);
        if read == size {
            return Ok(());
        }
        let why = format!("{read} bytes came of {size}");
        Err(io::Error::other(StoreError::corrupt(&self.meta.key, self.location.clone(), why)))
    }
}

impl AsyncRead for Checked {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let (before, room) = (buf.filled().len(), buf.remaining());
        match self.inner.as_mut().poll_read(cx, buf) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(Err(error)) => Poll::Ready(Err(self.explain(error))),
            Poll::Ready(Ok(())) if buf.filled().len() == before && room > 0 => Poll::Ready(self.end()),
            Poll::Ready(Ok(())) => {
                self.read += (buf.filled().len() - before) as u64;
                Poll::Ready(Ok(()))
            }
        }
    }
}

/// The SDK's error type for this is in none of the crates it re-exports, so its words have to do; the tests against
/// canned replies notice when they change.
fn is_checksum_mismatch(error: &io::Error) -> bool {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = cause {
        if error.to_string().contains("checksum mismatch") {
            return true;
        }
        cause = error.source();
    }
    false
}
