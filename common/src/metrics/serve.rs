//! The endpoint: `/metrics`, `/healthz`, `/readyz`. Answers are small and few, and nothing that asks can hold the
//! program up: a handful of connections, short headers, short waits.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tracing::{debug, info};

use super::Metrics;

/// Connections at once; more wait.
const CONNECTIONS: usize = 16;

/// The most time that a request may take to arrive, and that a connection may last.
const HEADERS: Duration = Duration::from_secs(5);
const CONNECTION: Duration = Duration::from_secs(15);

/// The most bytes of a request's head; hyper asks for at least 8 KiB.
const HEAD: usize = 8 << 10;

const TEXT: &str = "text/plain; charset=utf-8";
const METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// A running endpoint; it ends when this is dropped.
#[derive(Debug)]
pub struct Endpoint {
    /// Where it listens.
    pub at: SocketAddr,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Endpoint {
    fn drop(&mut self) {
        self.task.abort();
    }
}

struct Served {
    metrics: Arc<Metrics>,
    program: &'static str,
    still: Duration,
}

/// Listens at `address` and answers. `still` is how long the program's loop may stand still before `/healthz` says so.
///
/// # Errors
/// When the address cannot be listened on.
pub async fn start(
    address: SocketAddr,
    metrics: Arc<Metrics>,
    program: &'static str,
    still: Duration,
) -> std::io::Result<Endpoint> {
    let listener = TcpListener::bind(address).await?;
    let at = listener.local_addr()?;
    metrics.served.store(true, Ordering::Relaxed);
    metrics.turned();
    info!("metrics at http://{at}/metrics, with /healthz and /readyz");
    let served = Arc::new(Served { metrics, program, still });
    Ok(Endpoint { at, task: tokio::spawn(accept(listener, served)) })
}

async fn accept(listener: TcpListener, served: Arc<Served>) {
    let room = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let Ok(permit) = Arc::clone(&room).acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, _)) => {
                let served = Arc::clone(&served);
                tokio::spawn(async move {
                    connection(stream, served).await;
                    drop(permit);
                });
            }
            Err(error) => {
                // Out of files, mostly: the work goes on, and metrics do when there are some again.
                debug!("a connection for metrics was not accepted: {error}");
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        }
    }
}

async fn connection(stream: TcpStream, served: Arc<Served>) {
    let answer = service_fn(move |request: Request<Incoming>| {
        let answered = answer(&request, &served);
        async move { Ok::<_, Infallible>(answered) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADERS)
        .max_buf_size(HEAD)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), answer);
    match tokio::time::timeout(CONNECTION, connection).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => debug!("a connection for metrics: {error}"),
        Err(_) => debug!("a connection for metrics took too long"),
    }
}

fn answer<B>(request: &Request<B>, served: &Served) -> Response<Full<Bytes>> {
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        return response(StatusCode::METHOD_NOT_ALLOWED, TEXT, "only GET is answered here\n");
    }
    match request.uri().path() {
        "/metrics" => response(StatusCode::OK, METRICS, served.metrics.text(served.program)),
        "/healthz" => {
            let still = served.metrics.still_for();
            if still > served.still {
                let text = format!("the program's loop has not gone round for {} s\n", still.as_secs());
                return response(StatusCode::SERVICE_UNAVAILABLE, TEXT, text);
            }
            response(StatusCode::OK, TEXT, "alive\n")
        }
        "/readyz" => {
            let why = served.metrics.not_ready();
            if why.is_empty() {
                return response(StatusCode::OK, TEXT, "ready\n");
            }
            response(StatusCode::SERVICE_UNAVAILABLE, TEXT, why.join("\n") + "\n")
        }
        _ => response(StatusCode::NOT_FOUND, TEXT, "there are /metrics, /healthz and /readyz\n"),
    }
}

fn response(status: StatusCode, kind: &'static str, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}
