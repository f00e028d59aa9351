//! `aws-cni`, the executable that the container runtime starts for each pod and verb.
//!
//! It reads the request (`cni`), asks `ipamd` over gRPC (`proto`), makes or removes the pod's link
//! (`datapath`), and prints the result. It keeps nothing between two calls, and must not know pools or
//! EC2. It writes nothing but the result to stdout.

mod add;
mod check;
mod daemon;
mod del;
mod failure;
mod gc;
mod ipvlan;
mod log;
mod loopback;
mod note;
mod pending;
mod pod;
mod ports;
mod shaping;
mod status;
mod stdin;
mod stopwatch;
mod trace;

use std::io::{self, Write as _};
use std::process::ExitCode;

use cni::{
    CniError, Environment, ErrorCode, NetConf, Request, Version, requested_version,
    version_document,
};
#[cfg(target_env = "musl")]
use dlmalloc::GlobalDlmalloc;

/// musl's own asks the kernel for each small group of pages.
#[cfg(target_env = "musl")]
#[global_allocator]
static ALLOCATOR: GlobalDlmalloc = GlobalDlmalloc;

fn main() -> ExitCode {
    let environment = Environment::from_vars(std::env::vars_os());
    if !environment.has_command() {
        return hint();
    }
    let stdin = stdin::read();
    let answer = stdin.as_ref().map_err(Clone::clone).and_then(|stdin| answer(&environment, stdin));
    match answer {
        Ok(document) => print(&document, ExitCode::SUCCESS),
        Err(error) => {
            let version = requested_version(stdin.as_deref().unwrap_or_default());
            print(&error.to_json(&version), ExitCode::FAILURE)
        }
    }
}

/// Tells a person who has started the plugin by hand what it is.
fn hint() -> ExitCode {
    let versions = Version::ALL.map(Version::as_str).join(", ");
    eprintln!(
        "aws-cni {}: a CNI plugin that gives pods addresses of the VPC.",
        env!("CARGO_PKG_VERSION")
    );
    eprintln!("A container runtime starts it with CNI_COMMAND set and a configuration on stdin.");
    eprintln!("CNI protocol versions supported: {versions}");
    ExitCode::SUCCESS
}

/// The document for stdout; empty if the verb has none.
fn answer(environment: &Environment, stdin: &[u8]) -> Result<String, CniError> {
    let request = Request::parse(environment, stdin)?;
    let conf = match &request {
        Request::Version(requested) => return Ok(version_document(requested)),
        Request::Add(add) => &add.conf,
        Request::Del(del) => &del.conf,
        Request::Check(check) => &check.conf,
        Request::Status(conf) => conf,
        Request::Gc(gc) => &gc.conf,
    };
    log::start(conf);
    let span = log::span(&request);
    // One thread does it all, so every event is in this span.
    let _entered = span.enter();
    let version = conf.version;
    let outcome = run(request, version);
    match &outcome {
        Ok(_) => tracing::debug!("done"),
        Err(error) => tracing::warn!(code = error.code.number(), %error, "failed"),
    }
    outcome
}

fn run(request: Request, version: Version) -> Result<String, CniError> {
    let is_loopback = loopback::is_asked();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime
        .map_err(|e| CniError::new(ErrorCode::Io, "cannot start the event loop", e.to_string()))?;
    runtime.block_on(async {
        if is_loopback {
            return loopback::answer(request).await;
        }
        match request {
            Request::Add(add) => {
                let result = add::add(add).await?;
                failpoint::pass("add", "printing");
                return Ok(result.to_json(version));
            }
            Request::Del(del) => del::del(&del).await?,
            Request::Check(check) => check::check(&check).await?,
            Request::Status(conf) => status::status(&conf).await?,
            Request::Gc(gc) => gc::gc(&gc).await?,
            Request::Version(_) => {}
        }
        Ok(String::new())
    })
}

/// A fault in writing shows in the exit status only: a runtime without the result sends a DEL.
fn print(document: &str, code: ExitCode) -> ExitCode {
    match io::stdout().write_all(document.as_bytes()) {
        Ok(()) => code,
        Err(_) => ExitCode::FAILURE,
    }
}

/// The daemon's socket.
fn socket(conf: &NetConf) -> &std::path::Path {
    conf.ipamd_socket.as_deref().unwrap_or_else(|| proto::DEFAULT_SOCKET.as_ref())
}
