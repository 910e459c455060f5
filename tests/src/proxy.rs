//! A TCP proxy between a program and a server, to break the line in ways that a server cannot be asked for.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// What the line does with bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Line {
    /// Passes both ways.
    Open,
    /// Passes what the client says, holds back what the server answers.
    AnswersFrozen,
    /// Holds back both ways. Connections stay open, new ones are accepted.
    Frozen,
    /// Closes every connection, and refuses new ones by closing them at once.
    Cut,
}

/// A proxy to one server. Gone, with all its connections, when dropped.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    line: watch::Sender<Line>,
    tried: watch::Sender<usize>,
    accepting: JoinHandle<()>,
}

impl Proxy {
    /// A proxy to `server` (`host:port`), on a free port of the loopback interface.
    ///
    /// # Panics
    /// When no port is free.
    pub async fn to(server: &str) -> Proxy {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        let (line, _) = watch::channel(Line::Open);
        let (tried, _) = watch::channel(0);
        let accepting = tokio::spawn(accept(listener, server.to_owned(), line.clone(), tried.clone()));
        Proxy { address, line, tried, accepting }
    }

    /// How many connections have been tried since the beginning.
    pub fn tried(&self) -> usize {
        *self.tried.borrow()
    }

    /// Waits until so many connections, since the beginning, have been tried.
    ///
    /// # Panics
    /// When they are not within [`crate::site::PATIENCE`].
    pub async fn until_tried(&self, times: usize) {
        let mut tried = self.tried.subscribe();
        let enough = tokio::time::timeout(crate::site::PATIENCE, tried.wait_for(|tried| *tried >= times));
        enough.await.expect("somebody tries to connect").expect("the proxy lives");
    }

    /// `host:port` for the client.
    pub fn address(&self) -> String {
        self.address.to_string()
    }

    /// From now on nothing passes, either way; what is sent waits.
    pub fn freeze(&self) {
        self.line.send_replace(Line::Frozen);
    }

    /// From now on the server hears the client, but its answers wait.
    pub fn freeze_answers(&self) {
        self.line.send_replace(Line::AnswersFrozen);
    }

    /// Everything passes again, first what waited.
    pub fn thaw(&self) {
        self.line.send_replace(Line::Open);
    }

    /// Ends all connections, and lets no new one through until [`Proxy::thaw`].
    pub fn cut(&self) {
        self.line.send_replace(Line::Cut);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
        self.line.send_replace(Line::Cut);
    }
}

async fn accept(listener: TcpListener, server: String, line: watch::Sender<Line>, tried: watch::Sender<usize>) {
    while let Ok((client, _)) = listener.accept().await {
        tried.send_modify(|tried| *tried += 1);
        if *line.borrow() == Line::Cut {
            continue;
        }
        let Ok(server) = TcpStream::connect(&server).await else { continue };
        let (from_client, to_client) = client.into_split();
        let (from_server, to_server) = server.into_split();
        tokio::spawn(pass(from_client, to_server, line.subscribe(), |line| line != Line::Frozen));
        tokio::spawn(pass(from_server, to_client, line.subscribe(), |line| line == Line::Open));
    }
}

/// Passes bytes on while `passes` says so, until either end closes or the line is cut.
async fn pass(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    mut line: watch::Receiver<Line>,
    passes: fn(Line) -> bool,
) {
    let mut bytes = vec![0; 16 * 1024];
    let mut cut = line.clone();
    let work = async {
        while let Ok(read @ 1..) = from.read(&mut bytes).await {
            if line.wait_for(|line| passes(*line)).await.is_err() || to.write_all(&bytes[..read]).await.is_err() {
                break;
            }
        }
    };
    tokio::select! {
        () = work => {}
        // Also when the proxy is gone.
        _ = cut.wait_for(|line| *line == Line::Cut) => {}
    }
}
