//! The plugin `loopback`, which container runtimes run for each pod beside the pod's network. Under that name this
//! program sets `lo` up, and asks no daemon: a node needs no further plugin to start pods.

use std::path::Path;

use cni::{Add, AddResult, Check, CniError, ErrorCode, Interface, IpConfig, Request};
use datapath::netns::Netns;
use datapath::pod::{loopback_is_up, raise_loopback};

use crate::failure::{Failure, error_chain};

/// The name, as runtimes have it in them. Source: containerd 1.6 to 2.1, `pkg/cri/sbserver/service_linux.go`.
const NAME: &str = "loopback";
/// As the kernel sets them.
const ADDRESSES: [&str; 2] = ["127.0.0.1/8", "::1/128"];
/// Of `lo`, which has no hardware address; in bytes.
const MTU: u32 = 65_536;

/// Whether this process was started as `loopback`.
pub(crate) fn is_asked() -> bool {
    let program = std::env::args_os().next();
    program.is_some_and(|program| Path::new(&program).file_name().is_some_and(|name| name == NAME))
}

/// The document for stdout; empty if the verb has none.
///
/// # Errors
///
/// Code 4, 151 or 153.
pub(crate) async fn answer(request: Request) -> Result<String, CniError> {
    match request {
        Request::Add(add) => {
            let version = add.conf.version;
            let netns = open(&add.netns)?;
            let raised = raise_loopback(&netns).await;
            raised.map_err(|e| Failure::LinkSetup.error(error_chain(&e)))?;
            Ok(result(add).to_json(version))
        }
        Request::Check(Check { netns, .. }) => {
            let is_up = loopback_is_up(&open(&netns)?).await;
            match is_up.map_err(|e| Failure::LinkChanged.error(error_chain(&e)))? {
                true => Ok(String::new()),
                false => Err(Failure::LinkChanged.error("lo is down".to_owned())),
            }
        }
        // `lo` goes with its namespace, and no state is kept.
        Request::Del(_) | Request::Status(_) | Request::Gc(_) | Request::Version(_) => {
            Ok(String::new())
        }
    }
}

fn open(path: &Path) -> Result<Netns, CniError> {
    let bad = |e| {
        CniError::new(ErrorCode::InvalidEnvironment, "CNI_NETNS cannot be used", error_chain(&e))
    };
    Netns::open(path).map_err(bad)
}

fn result(add: Add) -> AddResult {
    let mut result = add.prev_result;
    let sandbox = add.netns.to_string_lossy().into_owned();
    let place = result.interfaces.len();
    let mac = "00:00:00:00:00:00".to_owned();
    result.interfaces.push(Interface::in_sandbox("lo".to_owned(), mac, MTU, sandbox));
    let address = |text: &str| text.parse().expect("it is an address with a length");
    result.ips.extend(ADDRESSES.map(|text| IpConfig::in_network(place, address(text), None)));
    result
}
