//! The command `grpc-health-probe` of amazon-vpc-cni-k8s' image: asks a gRPC server for its health. Manifests and values
//! files name it in their probes, so our image has it as another name of `ipamd`.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use tonic::transport::Endpoint;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

use crate::asking;

const NAME: &str = "grpc-health-probe";

/// Why the server is not healthy. The exit codes are those of the original.
/// Source: grpc-ecosystem/grpc-health-probe v0.4, README.
#[derive(Debug, PartialEq, Eq)]
enum Unhealthy {
    /// The command line is wrong.
    Usage(String),
    /// Nobody listens.
    Connect(String),
    /// The server does not answer, or not in time.
    Call(String),
    /// The server answers that it does not serve.
    NotServing,
}

impl Unhealthy {
    fn exit_code(&self) -> u8 {
        match self {
            Self::Usage(_) => 1,
            Self::Connect(_) => 2,
            Self::Call(_) => 3,
            Self::NotServing => 4,
        }
    }

    fn text(&self) -> &str {
        match self {
            Self::Usage(why) | Self::Connect(why) | Self::Call(why) => why,
            Self::NotServing => "the server does not serve",
        }
    }
}

/// What is asked, and for how long.
#[derive(Debug, PartialEq, Eq)]
struct Question {
    socket: PathBuf,
    service: String,
    connect_timeout: Duration,
    call_timeout: Duration,
}

/// The arguments, if this process was started by the command's name.
pub(crate) fn asked(mut arguments: impl Iterator<Item = OsString>) -> Option<Vec<String>> {
    let name = arguments.next()?;
    let is_asked = Path::new(&name).file_name().is_some_and(|name| name == NAME);
    is_asked.then(|| arguments.map(|text| text.to_string_lossy().into_owned()).collect())
}

/// Asks, and prints one line.
pub(crate) fn run(arguments: Vec<String>) -> ExitCode {
    match question(&arguments).and_then(|question| ask(&question)) {
        Ok(()) => {
            eprintln!("status: SERVING");
            ExitCode::SUCCESS
        }
        Err(unhealthy) => {
            eprintln!("{NAME}: {}", unhealthy.text());
            unhealthy.exit_code().into()
        }
    }
}

/// Reads flags as Go does: `-name=value`, `--name value`.
fn question(arguments: &[String]) -> Result<Question, Unhealthy> {
    let mut socket = None;
    let mut service = String::new();
    let (mut connect_timeout, mut call_timeout) = (Duration::from_secs(1), Duration::from_secs(1));
    let mut words = arguments.iter();
    while let Some(word) = words.next() {
        let usage = |why: &str| Unhealthy::Usage(format!("{word}: {why}"));
        let flag = word.strip_prefix('-').ok_or_else(|| usage("no flag"))?;
        let flag = flag.strip_prefix('-').unwrap_or(flag);
        if flag == "v" {
            continue;
        }
        let (name, value) = match flag.split_once('=') {
            Some(pair) => pair,
            None => (flag, words.next().ok_or_else(|| usage("its value is missing"))?.as_str()),
        };
        let span =
            || humantime::parse_duration(value).map_err(|_| usage("expected a time span like 5s"));
        match name {
            "addr" => {
                let path = value.strip_prefix("unix://").or_else(|| value.strip_prefix("unix:"));
                let path = path.map(PathBuf::from).filter(|path| path.is_absolute());
                socket = Some(path.ok_or_else(|| usage("expected unix:///PATH"))?);
            }
            "service" => value.clone_into(&mut service),
            "connect-timeout" => connect_timeout = span()?,
            "rpc-timeout" => call_timeout = span()?,
            "user-agent" => {}
            _ => return Err(usage("no such flag")),
        }
    }
    let socket = socket.ok_or_else(|| Unhealthy::Usage("-addr is missing".to_owned()))?;
    Ok(Question { socket, service, connect_timeout, call_timeout })
}

fn ask(question: &Question) -> Result<(), Unhealthy> {
    let Question { socket, service, connect_timeout, call_timeout } = question;
    let connect = |why: String| Unhealthy::Connect(format!("{}: {why}", socket.display()));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|fault| connect(fault.to_string()))?;
    runtime.block_on(async {
        let endpoint = Endpoint::from_shared(format!("unix://{}", socket.display()));
        let connecting = async { endpoint?.connect().await };
        let connected = tokio::time::timeout(*connect_timeout, connecting).await;
        let channel = connected
            .map_err(|_late| connect("no connection in time".to_owned()))?
            .map_err(|fault| connect(asking::cause(&fault)))?;
        let request = HealthCheckRequest { service: service.clone() };
        let mut client = HealthClient::new(channel);
        let reply = tokio::time::timeout(*call_timeout, client.check(request)).await;
        let reply = reply
            .map_err(|_late| Unhealthy::Call("no answer in time".to_owned()))?
            .map_err(|status| Unhealthy::Call(status.message().to_owned()))?;
        match reply.into_inner().status() {
            ServingStatus::Serving => Ok(()),
            ServingStatus::Unknown | ServingStatus::NotServing | ServingStatus::ServiceUnknown => {
                Err(Unhealthy::NotServing)
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<String> {
        text.split_whitespace().map(str::to_owned).collect()
    }

    #[test]
    fn command_is_asked_by_its_name_alone() {
        let check = |line: &str, expect: Option<&str>| {
            let found = asked(line.split_whitespace().map(OsString::from));
            assert_eq!(found, expect.map(words), "{line}");
        };
        check("/app/grpc-health-probe -addr=x -v", Some("-addr=x -v"));
        check("grpc-health-probe", Some(""));
        check("/app/ipamd grpc-health-probe", None);
        check("", None);
    }

    #[test]
    fn flags_are_read_as_the_original_reads_them() {
        let expect = Question {
            socket: "/var/run/aws-node/ipamd.sock".into(),
            service: String::new(),
            connect_timeout: Duration::from_secs(5),
            call_timeout: Duration::from_millis(500),
        };
        for line in [
            "-addr=unix:///var/run/aws-node/ipamd.sock -connect-timeout=5s -rpc-timeout=500ms",
            "--addr unix:/var/run/aws-node/ipamd.sock -v -connect-timeout 5s --rpc-timeout=500ms",
        ] {
            assert_eq!(question(&words(line)).as_ref(), Ok(&expect), "{line}");
        }
        let defaults = question(&words("-addr=unix:///x -service=a -user-agent=b")).unwrap();
        let second = Duration::from_secs(1);
        assert_eq!((defaults.connect_timeout, defaults.call_timeout), (second, second));
        assert_eq!(defaults.service, "a");
    }

    #[test]
    fn bad_command_line_ends_with_code_1() {
        let check = |line: &str, expect: &str| {
            let unhealthy = question(&words(line)).unwrap_err();
            assert_eq!((unhealthy.exit_code(), unhealthy.text()), (1, expect), "{line}");
        };
        check("", "-addr is missing");
        check("unix:///x", "unix:///x: no flag");
        check("-addr", "-addr: its value is missing");
        check("-addr=localhost:50051", "-addr=localhost:50051: expected unix:///PATH");
        check("-addr=unix:///x -rpc-timeout=5", "-rpc-timeout=5: expected a time span like 5s");
        check("-tls", "-tls: its value is missing");
        check("-tls=1", "-tls=1: no such flag");
    }

    #[test]
    fn nobody_on_the_socket_is_code_2() {
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("ipamd.sock");
        let line = format!("-addr=unix://{}", socket.display());
        let unhealthy = question(&words(&line)).and_then(|question| ask(&question)).unwrap_err();
        assert_eq!(unhealthy.exit_code(), 2, "{unhealthy:?}");
    }
}
