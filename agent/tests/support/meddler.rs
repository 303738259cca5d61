//! A proxy that does harm to what passes: a byte is another, or an answer never comes.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};

use super::recorder::request_of;

/// What is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Harm {
    /// A byte of the request is another, in the first piece that has this text in it.
    Request(&'static str),
    /// The same in the answer.
    Answer(&'static str),
    /// The answer stays here.
    Silence,
}

/// A proxy; it ends with its test's runtime.
#[derive(Debug)]
pub struct Meddler {
    port: u16,
    plan: Arc<Plan>,
}

#[derive(Debug)]
struct Plan {
    /// What method and path of a harmed request begin with.
    to: &'static str,
    harm: Harm,
    times: usize,
    done: AtomicUsize,
}

impl Meddler {
    /// In front of the server at `url`: harms as many requests that begin with `to`.
    pub async fn before(url: &str, to: &'static str, harm: Harm, times: usize) -> Self {
        let server = url.trim_start_matches("http://").to_owned();
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let plan = Arc::new(Plan { to, harm, times, done: AtomicUsize::new(0) });
        let of_all = Arc::clone(&plan);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let server = TcpStream::connect(&server).await.expect("the server");
                let ((answers, requests), (asking, answered)) = (server.into_split(), client.into_split());
                let asked = Arc::new(Mutex::new(String::new()));
                let (there, back) = (Way::of(&of_all, &asked, true), Way::of(&of_all, &asked, false));
                tokio::spawn(there.pass(asking, requests));
                tokio::spawn(back.pass(answers, answered));
            }
        });
        Self { port, plan }
    }

    /// Its address.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// How many were harmed so far.
    pub fn done(&self) -> usize {
        self.plan.done.load(Ordering::SeqCst)
    }
}

/// One direction of a connection.
struct Way {
    plan: Arc<Plan>,
    /// The last request of the connection.
    asked: Arc<Mutex<String>>,
    is_there: bool,
}

impl Way {
    fn of(plan: &Arc<Plan>, asked: &Arc<Mutex<String>>, is_there: bool) -> Self {
        Self { plan: Arc::clone(plan), asked: Arc::clone(asked), is_there }
    }

    async fn pass(self, mut from: OwnedReadHalf, mut to: OwnedWriteHalf) {
        let mut piece = vec![0; 1 << 16];
        while let Ok(length @ 1..) = from.read(&mut piece).await {
            let piece = &mut piece[..length];
            if let Some(request) = request_of(piece).filter(|_| self.is_there) {
                *self.asked.lock().expect("a lock") = request;
            }
            let is_meant = self.asked.lock().expect("a lock").starts_with(self.plan.to);
            match self.plan.harm {
                Harm::Request(mark) if is_meant && self.is_there => self.change(piece, mark),
                Harm::Answer(mark) if is_meant && !self.is_there => self.change(piece, mark),
                Harm::Silence if is_meant && !self.is_there && self.is_next() => return std::future::pending().await,
                _ => {}
            }
            if to.write_all(piece).await.is_err() {
                break;
            }
        }
        let _ = to.shutdown().await;
    }

    fn change(&self, piece: &mut [u8], mark: &str) {
        let found = piece.windows(mark.len()).position(|w| w == mark.as_bytes());
        if let Some(at) = found.filter(|_| self.is_next()) {
            piece[at] ^= 1;
        }
    }

    /// Whether one more is to be harmed.
    fn is_next(&self) -> bool {
        let more = |done: usize| (done < self.plan.times).then_some(done + 1);
        self.plan.done.fetch_update(Ordering::SeqCst, Ordering::SeqCst, more).is_ok()
    }
}
