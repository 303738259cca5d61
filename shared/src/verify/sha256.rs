//! SHA-256, as `sha256sum` prints it.

use sha2::{Digest, Sha256};
use tokio::io::AsyncReadExt;

use crate::store::{Store, StoreError};

/// Of bytes.
pub fn sha256_hex(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}

/// Of a stored object, and its size, streamed: memory does not depend on its size.
pub async fn sha256_of(store: &dyn Store, key: &str) -> Result<(String, u64), StoreError> {
    sha256_while(store, key, |_| ()).await
}

/// The same, telling `told` the bytes of each piece that was hashed.
pub async fn sha256_while(
    store: &dyn Store,
    key: &str,
    mut told: impl FnMut(u64) + Send,
) -> Result<(String, u64), StoreError> {
    let mut reader = store.read(key).await?;
    let (mut hash, mut size, mut buffer) = (Sha256::new(), 0_u64, vec![0; 256 << 10]);
    loop {
        match reader.read(&mut buffer).await {
            Ok(0) => return Ok((hex::encode(hash.finalize()), size)),
            Ok(n) => {
                hash.update(&buffer[..n]);
                size += n as u64;
                told(n as u64);
            }
            Err(e) => return Err(StoreError::from_read(e, key, store.location())),
        }
    }
}
