//! The socket: bound to the loopback interface, served by one thread with a runtime of its own.
//!
//! Bounded: connections at once, time for the head of a request, time for all of it, bytes of the head. Each connection
//! carries one request.

#![allow(
    clippy::disallowed_methods,
    reason = "the thread of the endpoint steps no task of a job"
)]

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use keybed_format::{Code, Error, Result};
use std::{
    io::ErrorKind,
    net::{SocketAddr, TcpListener},
    sync::Arc,
    thread::JoinHandle,
    time::Duration,
};
use tokio::{
    net::TcpStream,
    sync::{Notify, Semaphore},
};

/// Connections at once; more wait in the system's queue.
const CONNECTIONS_MAX: u32 = 64;
/// Longest time for the head of a request.
const HEAD_TIME_MAX: Duration = Duration::from_secs(10);
/// Longest time for a connection.
const CONNECTION_TIME_MAX: Duration = Duration::from_secs(120);
/// Longest head.
const HEAD_BYTES_MAX: usize = 64 << 10;
/// After a stop: for answers that are being sent.
const STOP_TIME_MAX: Duration = Duration::from_secs(2);
/// After a failure to accept: descriptors may have run out.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A socket on `address`, or on one of the ports above it if that one is taken; `ports` are tried.
///
/// # Errors
/// `InvalidArgument` if the address is not one of the loopback interface; `Busy` if all ports are taken; `IoFailed`.
pub(super) fn bind(address: SocketAddr, ports: u16) -> Result<TcpListener> {
    if !address.ip().is_loopback() {
        return Err(
            Error::invalid("the control endpoint listens on the loopback interface only")
                .with("address", address),
        );
    }
    let failed =
        |at: SocketAddr, e: &std::io::Error| Error::new(Code::IoFailed, format!("listen on {at}: {e}"));
    for n in 0..ports.max(1) {
        let Some(port) = address.port().checked_add(n) else {
            break;
        };
        let at = SocketAddr::new(address.ip(), port);
        match TcpListener::bind(at) {
            Ok(listener) => {
                listener.set_nonblocking(true).map_err(|e| failed(at, &e))?;
                return Ok(listener);
            }
            Err(e) if e.kind() == ErrorKind::AddrInUse => {}
            Err(e) => return Err(failed(at, &e)),
        }
    }
    Err(
        Error::new(Code::Busy, "the port of the control endpoint is taken")
            .with("address", address)
            .with("ports", ports),
    )
}

/// The running thread.
pub(super) struct Serving {
    stop: Arc<Notify>,
    thread: Option<JoinHandle<()>>,
}

impl Serving {
    /// Serves in a thread until it is stopped.
    ///
    /// # Errors
    /// `IoFailed` if the system gives no thread or no poller.
    pub(super) fn begin(listener: TcpListener, router: Router) -> Result<Serving> {
        let failed =
            |e: std::io::Error| Error::new(Code::IoFailed, format!("start the control endpoint: {e}"));
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_io()
            .enable_time()
            .max_blocking_threads(4)
            .build()
            .map_err(failed)?;
        let listener = {
            let _inside = runtime.enter();
            tokio::net::TcpListener::from_std(listener).map_err(failed)?
        };
        let stop = Arc::new(Notify::new());
        let stopped = stop.clone();
        let serve = move || {
            runtime.block_on(async move {
                let free = Arc::new(Semaphore::new(CONNECTIONS_MAX as usize));
                let accepting = tokio::spawn(accept(listener, router, free.clone()));
                stopped.notified().await;
                accepting.abort();
                // Whoever is not done by then is cut off.
                let _ = tokio::time::timeout(STOP_TIME_MAX, free.acquire_many(CONNECTIONS_MAX)).await;
            });
        };
        let thread = std::thread::Builder::new().name("keybed-control".into());
        let thread = Some(thread.spawn(serve).map_err(failed)?);
        Ok(Serving { stop, thread })
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        self.stop.notify_one();
        if let Some(thread) = self.thread.take() {
            // A panic in it was reported by the panic hook, and there is nobody left to serve.
            let _ = thread.join();
        }
    }
}

async fn accept(listener: tokio::net::TcpListener, router: Router, free: Arc<Semaphore>) {
    loop {
        let Ok(place) = free.clone().acquire_owned().await else {
            return;
        };
        match listener.accept().await {
            Ok((stream, _)) => {
                let router = router.clone();
                tokio::spawn(async move {
                    let _ = tokio::time::timeout(CONNECTION_TIME_MAX, converse(stream, router)).await;
                    drop(place);
                });
            }
            Err(_) => tokio::time::sleep(ACCEPT_PAUSE).await,
        }
    }
}

/// What goes wrong on a connection is the client's to notice.
async fn converse(stream: TcpStream, router: Router) {
    let _ = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIME_MAX)
        .max_buf_size(HEAD_BYTES_MAX)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router))
        .await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_taken_port_gives_the_next_one_unless_it_was_meant() {
        let first = bind("127.0.0.1:0".parse().unwrap(), 1).unwrap();
        let taken = first.local_addr().unwrap();
        assert_eq!(bind(taken, 1).unwrap_err().code(), Code::Busy);
        let next = bind(taken, 100).unwrap().local_addr().unwrap();
        assert!(next.port() > taken.port());
    }

    #[test]
    fn nothing_but_loopback_is_bound() {
        for address in ["0.0.0.0:0", "[::]:0", "192.168.0.1:0"] {
            let error = bind(address.parse().unwrap(), 1).unwrap_err();
            assert_eq!(error.code(), Code::InvalidArgument, "{address}");
        }
    }
}
