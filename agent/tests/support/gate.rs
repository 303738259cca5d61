//! Doors in front of servers, each of which opens for a certain request only when such a request stands before all of them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Barrier, OnceCell};

/// A door lets the request through after this, alone, so that its test ends and can say what did not happen.
const PATIENCE: Duration = Duration::from_secs(60);

/// Requests that have to come at the same time.
#[derive(Debug)]
pub struct Meeting {
    everybody: Barrier,
    took_place: AtomicBool,
}

impl Meeting {
    /// So many doors open together.
    pub fn of(doors: usize) -> Arc<Self> {
        Arc::new(Self { everybody: Barrier::new(doors), took_place: AtomicBool::new(false) })
    }

    /// Whether such requests stood before all doors at the same time.
    pub fn took_place(&self) -> bool {
        self.took_place.load(Ordering::SeqCst)
    }

    /// Puts a door in front of the server that listens at this port of the loopback interface, and gives the door's port. It stays
    /// shut once, for the first request with this word in it.
    pub async fn door(self: &Arc<Self>, server: u16, word: &'static str) -> u16 {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let (meeting, met) = (Arc::clone(self), Arc::new(OnceCell::new()));
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                // Without a server the client sees a connection that ends.
                let Ok(server) = TcpStream::connect(("127.0.0.1", server)).await else { continue };
                let ((asking, hearing), (answering, asked)) = (client.into_split(), server.into_split());
                let (meeting, met) = (Arc::clone(&meeting), Arc::clone(&met));
                tokio::spawn(pass(asking, asked, Some(Door { word, meeting, met })));
                tokio::spawn(pass(answering, hearing, None));
            }
        });
        port
    }
}

/// What one connection has to pass.
struct Door {
    word: &'static str,
    meeting: Arc<Meeting>,
    met: Arc<OnceCell<()>>,
}

impl Door {
    async fn hold(&self, bytes: &[u8]) {
        if bytes.windows(self.word.len()).any(|w| w == self.word.as_bytes()) {
            let together = async {
                if tokio::time::timeout(PATIENCE, self.meeting.everybody.wait()).await.is_ok() {
                    self.meeting.took_place.store(true, Ordering::SeqCst);
                }
            };
            self.met.get_or_init(|| together).await;
        }
    }
}

/// Passes on what comes, through the door where there is one.
async fn pass(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, door: Option<Door>) {
    let mut bytes = vec![0; 64 << 10];
    while let Ok(read @ 1..) = from.read(&mut bytes).await {
        if let Some(door) = &door {
            door.hold(&bytes[..read]).await;
        }
        if to.write_all(&bytes[..read]).await.is_err() {
            break;
        }
    }
    let _ = to.shutdown().await;
}
