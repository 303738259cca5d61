//! Small objects, read whole and once: the index of some gibibytes is tens of pages, and each would be a request.
//!
//! Holds no more than [`ROOM`], whatever is asked for.

use std::collections::HashMap;

use bytes::Bytes;
use tokio::sync::Mutex;

/// Larger objects are read in parts.
const LARGEST: u64 = 2 << 20;
/// All that is held, of a chain of many indexes.
const ROOM: u64 = 8 << 20;

/// The objects that are held, by their numbers.
#[derive(Debug, Default)]
pub(super) struct Small(Mutex<HashMap<u32, Bytes>>);

impl Small {
    /// An object of this size, which is read unless it is held; `None` where it is to be read in parts.
    pub(super) async fn whole<E>(
        &self,
        object: u32,
        size: u64,
        read: impl Future<Output = Result<Bytes, E>>,
    ) -> Result<Option<Bytes>, E> {
        // Locked while it is read: who comes next would only read the same.
        let mut held = self.0.lock().await;
        if let Some(bytes) = held.get(&object) {
            return Ok(Some(bytes.clone()));
        }
        let taken: usize = held.values().map(Bytes::len).sum();
        if size > LARGEST || taken as u64 + size > ROOM {
            return Ok(None);
        }
        let bytes = read.await?;
        held.insert(object, bytes.clone());
        Ok(Some(bytes))
    }

    /// Lets go of everything, so that it is read again.
    pub(super) fn forget(&self) {
        // One that is being read is not damaged yet.
        if let Ok(mut held) = self.0.try_lock() {
            held.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use super::*;

    async fn read(small: &Small, object: u32, size: usize, byte: u8) -> Option<u8> {
        let reading = async { Ok::<_, Infallible>(Bytes::from(vec![byte; size])) };
        let whole = small.whole(object, size as u64, reading).await.expect("infallible");
        whole.map(|bytes| bytes[0])
    }

    #[tokio::test]
    async fn an_object_is_read_once_and_again_when_it_was_forgotten() {
        let small = Small::default();
        assert_eq!(read(&small, 1, 10, 1).await, Some(1));
        assert_eq!(read(&small, 1, 10, 2).await, Some(1));
        small.forget();
        assert_eq!(read(&small, 1, 10, 3).await, Some(3));
    }

    #[tokio::test]
    async fn no_more_is_held_than_there_is_room_for() {
        let small = Small::default();
        assert_eq!(read(&small, 0, 2_100_000, 0).await, None);
        for object in 0..4 {
            assert_eq!(read(&small, object, 2 << 20, 7).await, Some(7));
        }
        assert_eq!(read(&small, 9, 1, 7).await, None);
        assert_eq!(read(&small, 3, 2 << 20, 8).await, Some(7));
    }
}
