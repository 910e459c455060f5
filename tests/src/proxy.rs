//! A TCP proxy between a program and a server, to break the line in ways that a server cannot be asked for.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

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

/// What happens to the bytes: of new connections, and of each that there is, by the port from which the server is reached.
#[derive(Debug)]
struct Lines {
    new: Line,
    there: HashMap<u16, watch::Sender<Line>>,
}

impl Lines {
    fn all(&mut self, line: Line) {
        self.new = line;
        self.there.retain(|_, there| !there.is_closed());
        for there in self.there.values() {
            there.send_replace(line);
        }
    }
}

/// A proxy to one server. Gone, with all its connections, when dropped.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    lines: Arc<Mutex<Lines>>,
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
        let lines = Arc::new(Mutex::new(Lines { new: Line::Open, there: HashMap::new() }));
        let (tried, _) = watch::channel(0);
        let accepting = tokio::spawn(accept(listener, server.to_owned(), Arc::clone(&lines), tried.clone()));
        Proxy { address, lines, tried, accepting }
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
        self.all(Line::Frozen);
    }

    /// From now on the server hears the client, but its answers wait.
    pub fn freeze_answers(&self) {
        self.all(Line::AnswersFrozen);
    }

    /// Everything passes again, first what waited.
    pub fn thaw(&self) {
        self.all(Line::Open);
    }

    /// Ends all connections, and lets no new one through until [`Proxy::thaw`].
    pub fn cut(&self) {
        self.all(Line::Cut);
    }

    /// As [`Proxy::freeze_answers`], of the one connection that reaches the server from this port.
    ///
    /// # Panics
    /// When there is no such connection.
    pub fn freeze_answers_of(&self, port: u16) {
        self.one(port, Line::AnswersFrozen);
    }

    /// Ends the one connection that reaches the server from this port.
    ///
    /// # Panics
    /// When there is no such connection.
    pub fn cut_one(&self, port: u16) {
        self.one(port, Line::Cut);
    }

    fn all(&self, line: Line) {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner).all(line);
    }

    fn one(&self, port: u16, line: Line) {
        let lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        lines.there.get(&port).expect("a connection from this port").send_replace(line);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
        self.all(Line::Cut);
    }
}

async fn accept(listener: TcpListener, server: String, lines: Arc<Mutex<Lines>>, tried: watch::Sender<usize>) {
    while let Ok((client, _)) = listener.accept().await {
        tried.send_modify(|tried| *tried += 1);
        if lines.lock().unwrap_or_else(PoisonError::into_inner).new == Line::Cut {
            continue;
        }
        let Ok(server) = TcpStream::connect(&server).await else { continue };
        let Ok(from) = server.local_addr() else { continue };
        let (from_client, to_client) = client.into_split();
        let (from_server, to_server) = server.into_split();
        let mut lines = lines.lock().unwrap_or_else(PoisonError::into_inner);
        let line = watch::Sender::new(lines.new);
        tokio::spawn(pass(from_client, to_server, line.subscribe(), |line| line != Line::Frozen));
        tokio::spawn(pass(from_server, to_client, line.subscribe(), |line| line == Line::Open));
        lines.there.insert(from.port(), line);
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
