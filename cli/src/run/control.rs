//! The control endpoint of a run: bound before the job starts, served while it runs, and a while longer for those
//! who asked and have not been told.

use super::record::JobRecord;
use crate::{
    args::{ControlPort, EndpointArgs},
    control::{
        records::{Entered, Record, Records},
        status::REQUESTS,
    },
    say,
};
use keybed::{
    Code, Error, Result,
    env::{Clock, SystemClock},
    runtime::{
        Job, JobReport,
        server::{ControlServer, ControlSocket, DEFAULT_PORT, ServeOptions},
    },
};
use std::{
    net::{Ipv4Addr, SocketAddr},
    path::Path,
    time::Duration,
};

/// How long a job that is over waits for those who asked.
const LINGER: Duration = Duration::from_secs(30);

/// A bound socket, or none.
pub(super) struct Endpoint {
    socket: Option<ControlSocket>,
    token: Option<String>,
}

impl Endpoint {
    /// Binds the socket.
    ///
    /// # Errors
    /// `Busy` if a wanted port is taken; `InvalidArgument` if the token cannot be sent.
    pub(super) fn bind(args: &EndpointArgs, record: &JobRecord, state_dir: &Path) -> Result<Endpoint> {
        let mut options = ServeOptions::new(&record.job);
        options.address = match args.control_port {
            Some(ControlPort::Off) => {
                return Ok(Endpoint {
                    socket: None,
                    token: None,
                });
            }
            None => SocketAddr::from((Ipv4Addr::LOCALHOST, DEFAULT_PORT)),
            Some(ControlPort::Port(port)) => {
                options.ports = 1;
                SocketAddr::from((Ipv4Addr::LOCALHOST, port))
            }
        };
        options.token = args.token.clone();
        if !args.allowed_root.is_empty() {
            options.allowed_roots = args.allowed_root.clone();
        }
        options.requests_dir = Some(state_dir.join(REQUESTS));
        let token = options.token.clone();
        match ControlSocket::bind(options) {
            Ok(socket) => Ok(Endpoint {
                socket: Some(socket),
                token,
            }),
            // Nobody said that he needs it: the job is worth more.
            Err(e) if args.control_port.is_none() && matches!(e.code(), Code::Busy | Code::IoFailed) => {
                say::err(format!("the job runs without a control endpoint: {e}\n"));
                Ok(Endpoint {
                    socket: None,
                    token: None,
                })
            }
            Err(e) if e.code() == Code::Busy => Err(e.context("choose another port with --control-port")),
            Err(e) => Err(e.context("the control endpoint")),
        }
    }

    /// Serves the job, says where, and lets it be found.
    ///
    /// # Errors
    /// `IoFailed` if the system gives no thread; errors of the requests' directory.
    pub(super) fn serve(self, job: &Job, record: &JobRecord, state_dir: &Path) -> Result<Served> {
        let server = self.socket.map(|socket| socket.serve(job.handle())).transpose()?;
        let address = server.as_ref().map(|server| server.address().to_string());
        if let Some(address) = &address {
            say::err(format!("control endpoint http://{address}\n"));
        }
        let entry = Record {
            name: record.job.clone(),
            job_id: record.id.to_string(),
            pid: std::process::id(),
            address,
            token: self.token,
            state_dir: std::path::absolute(state_dir).map_err(|e| Error::io("resolve", state_dir, e))?,
            restored_from: job.status().restored_from,
            start_ms: SystemClock::new().wall_millis(),
            ended: None,
        };
        // A job that cannot be found by its name still runs, and can be asked by its address.
        let entered = Records::of_user().and_then(|records| records.enter(entry));
        let entered = entered
            .map_err(|e| say::err(format!("the job cannot be found by `keybed list`: {e}\n")))
            .ok();
        Ok(Served { server, entered })
    }
}

/// The endpoint of a running job.
pub(super) struct Served {
    server: Option<ControlServer>,
    entered: Option<Entered>,
}

impl Served {
    /// The job is over: says so, and waits for those who asked, but not for ever.
    pub(super) fn end(mut self, report: &JobReport) {
        if let Some(entered) = &mut self.entered {
            // Who looks for the job finds the lock free instead.
            let _ = entered.ended(report.state.as_flink_status(), SystemClock::new().wall_millis());
        }
        if let Some(server) = self.server {
            if server.has_untold() {
                let seconds = LINGER.as_secs();
                say::err(format!(
                    "waiting at most {seconds} s until the outcome of a request is fetched\n"
                ));
                server.linger(LINGER);
            }
            server.shutdown();
        }
    }
}
