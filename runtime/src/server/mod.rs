//! The control endpoint of a running job: HTTP on the loopback interface, in the shapes of Flink's REST interface.
//! Page: docs/control.md.
//!
//! ```text
//!   socket ─▶ guard ─▶ routes ─▶ request ─▶ place ─▶ control ─▶ job
//!                                                     │  ▲
//!                        record (disk) ◀── trigger ───╯  ╰── outcome, told when somebody asks
//! ```
//!
//! | file | idea |
//! |---|---|
//! | `listen` | the socket and its bounds |
//! | `guard` | who may ask (pure) |
//! | `routes` | what can be asked |
//! | `request` | bodies (pure) |
//! | `place` | locations, and where requests may write |
//! | `control` | the life of a request |
//! | `trigger` | what was asked for and what came of it (pure) |
//! | `record` | the same on disk |
//! | `controlled` | what is needed of a job |
//! | `shapes`, `answer` | the JSON of answers and errors (pure) |

mod answer;
mod control;
mod controlled;
mod guard;
mod listen;
mod place;
mod record;
mod request;
mod routes;
mod shapes;
#[cfg(test)]
mod tests;
mod trigger;

pub use record::recorded_request;

use crate::job::JobHandle;
use control::Control;
use controlled::Controlled;
use keybed_env::random::Ids;
use keybed_format::{Error, Result};
use listen::Serving;
use parking_lot::{Condvar, Mutex};
use place::Roots;
use record::Records;
use shapes::Facts;
use std::{
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};
use trigger::Triggers;

/// The port that clients of Flink ask first.
pub const DEFAULT_PORT: u16 = 8081;
/// How many ports are tried from the first one on, unless somebody wants a certain one.
pub const DEFAULT_PORTS: u16 = 100;

/// How a job is served.
#[derive(Clone)]
pub struct ServeOptions {
    /// The job's name, as people call it.
    pub job_name: String,
    /// Where to listen: an address of the loopback interface. Port 0: any free one. Default: 127.0.0.1:8081.
    pub address: SocketAddr,
    /// How many ports are tried, from that of `address` upwards, at least 1. Default: 100.
    pub ports: u16,
    /// What clients must send as `Authorization: Bearer …`. Default: nothing; then every program of this machine, whoever
    /// runs it, may control the job.
    pub token: Option<String>,
    /// Directories below which requests may have savepoints written and disposed of, beside the savepoint directory and the
    /// checkpoint root of the job. Default: the working directory of the process.
    pub allowed_roots: Vec<PathBuf>,
    /// Where outcomes of requests are recorded, to be read when the job is over. Default: nowhere.
    pub requests_dir: Option<PathBuf>,
}

impl ServeOptions {
    /// The defaults.
    pub fn new(job_name: impl Into<String>) -> Self {
        ServeOptions {
            job_name: job_name.into(),
            address: SocketAddr::from((Ipv4Addr::LOCALHOST, DEFAULT_PORT)),
            ports: DEFAULT_PORTS,
            token: None,
            allowed_roots: vec![PathBuf::from(".")],
            requests_dir: None,
        }
    }
}

impl std::fmt::Debug for ServeOptions {
    /// Without the token.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ServeOptions")
            .field("job_name", &self.job_name)
            .field("address", &self.address)
            .field("ports", &self.ports)
            .field("allowed_roots", &self.allowed_roots)
            .field("requests_dir", &self.requests_dir)
            .finish_non_exhaustive()
    }
}

/// A socket that was bound before its job is started, so that a taken port is found out first.
#[derive(Debug)]
pub struct ControlSocket {
    listener: std::net::TcpListener,
    options: ServeOptions,
}

impl ControlSocket {
    /// Binds the socket. Nobody is answered yet.
    ///
    /// # Errors
    /// `InvalidArgument` if the address is not of the loopback interface or the token cannot be sent in a header; `Busy`
    /// if all ports are taken; `IoFailed`.
    pub fn bind(options: ServeOptions) -> Result<ControlSocket> {
        let sendable = |token: &String| !token.is_empty() && token.bytes().all(|b| b.is_ascii_graphic());
        if !options.token.as_ref().is_none_or(sendable) {
            return Err(Error::invalid("a token is one word of visible ASCII characters"));
        }
        let listener = listen::bind(options.address, options.ports)?;
        Ok(ControlSocket { listener, options })
    }

    /// Serves a job from now on.
    ///
    /// # Errors
    /// `IoFailed` if the system gives no thread; errors of the requests' directory.
    pub fn serve(self, job: JobHandle) -> Result<ControlServer> {
        let ControlSocket { listener, options } = self;
        let own = job.options();
        let (fs, clock) = (own.fs.clone(), own.clock.clone());
        let mut allowed = options.allowed_roots;
        allowed.extend(own.savepoint_dir.clone());
        allowed.extend(own.checkpoints.as_ref().map(|c| c.root.clone()));
        let here = std::env::current_dir().map_err(|e| Error::io("find the working directory", ".", e))?;
        let report = job.status();
        let now = clock.wall_millis();
        let records = options.requests_dir.map(|directory| Records {
            fs: fs.clone(),
            directory,
            job: report.job,
        });
        let before = records.as_ref().map(|records| records.load(now)).transpose()?;
        let since = u64::try_from(report.duration.as_millis()).unwrap_or(u64::MAX);
        let facts = Facts {
            name: options.job_name,
            start_ms: now.saturating_sub(since),
            parallelism: own.parallelism,
        };
        let control = Control {
            facts,
            roots: Roots { here, allowed },
            token: options.token,
            fs,
            clock,
            ids: Mutex::new(Ids::Entropy),
            records,
            triggers: Mutex::new(Triggers::with(before.unwrap_or_default())),
            told: Condvar::new(),
            job: Arc::new(job) as Arc<dyn Controlled>,
        };
        ControlServer::begin(listener, control)
    }
}

/// Serves a job by the control endpoint; the same as [`ControlSocket::bind`] and [`ControlSocket::serve`].
///
/// # Errors
/// Those of the two.
pub fn serve(job: JobHandle, options: ServeOptions) -> Result<ControlServer> {
    ControlSocket::bind(options)?.serve(job)
}

/// The endpoint. Dropping it ends it, after answers that are being sent.
pub struct ControlServer {
    address: SocketAddr,
    control: Arc<Control>,
    serving: Serving,
}

impl ControlServer {
    fn begin(listener: std::net::TcpListener, control: Control) -> Result<ControlServer> {
        let address = listener.local_addr().map_err(|e| {
            Error::new(
                keybed_format::Code::IoFailed,
                format!("the control endpoint's address: {e}"),
            )
        })?;
        let control = Arc::new(control);
        let serving = Serving::begin(listener, routes::router(control.clone()))?;
        Ok(ControlServer {
            address,
            control,
            serving,
        })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Whether somebody asked for something whose outcome nobody was told of yet.
    pub fn has_untold(&self) -> bool {
        self.control.triggers.lock().untold() > 0
    }

    /// Waits until the outcomes of all requests were told, at most that long; whether they were. For the end of the
    /// job: clients that asked for a stop come back for its outcome.
    pub fn linger(&self, at_most: Duration) -> bool {
        self.control.linger(at_most)
    }

    /// Ends the endpoint.
    pub fn shutdown(self) {
        drop(self.serving);
    }
}
