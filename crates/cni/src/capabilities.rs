//! The values of capabilities that a plugin may declare: `portMappings` and `bandwidth`, as in CNI's conventions
//! (<https://github.com/containernetworking/cni/blob/main/CONVENTIONS.md>). Case of keys is ignored, since containerd
//! writes them otherwise.

use std::net::IpAddr;
use std::num::{NonZeroU16, NonZeroU64};

use serde_json::{Map, Value};

/// A transport protocol with ports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// SCTP.
    Sctp,
}

/// A port of the node that leads to one of the container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PortMapping {
    /// Of both ports.
    pub protocol: Protocol,
    /// `hostIP`, the address of the node; `None` for all. It may be the unspecified one of a family.
    pub host_ip: Option<IpAddr>,
    /// `hostPort`.
    pub host_port: NonZeroU16,
    /// `containerPort`.
    pub container_port: NonZeroU16,
}

/// What may pass in each direction, as seen from the container.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Bandwidth {
    /// What the container gets.
    pub ingress: Option<Rate>,
    /// What the container sends.
    pub egress: Option<Rate>,
}

/// A limit of one direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// Bits per second, at least 8.
    pub bits_per_second: NonZeroU64,
    /// How many bits may pass at once after a pause, if the runtime has chosen that.
    pub burst_bits: Option<NonZeroU64>,
}

/// What is expected of a list of mappings.
const MAPPINGS: &str = "a list of objects with hostPort and containerPort (1 to 65535), protocol (tcp, udp or sctp) and \
                        perhaps hostIP (an address)";
/// What is expected of limits.
const LIMITS: &str = "rates of at least 8 bits per second, and bursts in bits";

/// The mappings of `portMappings`. One whose host port is 0 asks for nothing: the kubelet lists all of a container's ports.
pub(crate) fn port_mappings(value: &Value) -> Result<Vec<PortMapping>, &'static str> {
    let list = value.as_array().ok_or(MAPPINGS)?;
    let mapped: Option<Vec<_>> = list.iter().map(port_mapping).collect();
    Ok(mapped.ok_or(MAPPINGS)?.into_iter().flatten().collect())
}

/// `None` for a fault, `Some(None)` for a mapping that asks for nothing.
fn port_mapping(value: &Value) -> Option<Option<PortMapping>> {
    let map = value.as_object()?;
    let port = |key| match member(map, key) {
        None | Some(Value::Null) => Some(0),
        Some(value) => u16::try_from(value.as_u64()?).ok(),
    };
    let Some(host_port) = NonZeroU16::new(port("hostPort")?) else { return Some(None) };
    Some(Some(PortMapping {
        protocol: protocol(text(map, "protocol")?)?,
        host_ip: match text(map, "hostIP")? {
            "" => None,
            address => Some(address.parse().ok()?),
        },
        host_port,
        container_port: NonZeroU16::new(port("containerPort")?)?,
    }))
}

/// Empty if the key is absent.
fn text<'a>(map: &'a Map<String, Value>, key: &str) -> Option<&'a str> {
    match member(map, key) {
        None | Some(Value::Null) => Some(""),
        Some(value) => value.as_str(),
    }
}

/// TCP is the default of the kubelet.
fn protocol(name: &str) -> Option<Protocol> {
    match name.to_ascii_lowercase().as_str() {
        "" | "tcp" => Some(Protocol::Tcp),
        "udp" => Some(Protocol::Udp),
        "sctp" => Some(Protocol::Sctp),
        _ => None,
    }
}

/// The limits of `bandwidth`, whose members an entry of a conflist may also have itself.
pub(crate) fn bandwidth(map: &Map<String, Value>) -> Result<Bandwidth, &'static str> {
    Ok(Bandwidth {
        ingress: rate(map, "ingressRate", "ingressBurst")?,
        egress: rate(map, "egressRate", "egressBurst")?,
    })
}

/// Runtimes must send a burst. For want of one, containerd sends 2^32-1 bits and others 2^31-1. At 10 Mbit/s the limit would
/// not show for minutes.
const NO_BURST_CHOSEN: u64 = (1 << 31) - 1;

/// `None` if the rate is 0 or absent.
fn rate(map: &Map<String, Value>, rate: &str, burst: &str) -> Result<Option<Rate>, &'static str> {
    let number = |key| match member(map, key) {
        None | Some(Value::Null) => Ok(0),
        Some(value) => value.as_u64().ok_or(LIMITS),
    };
    let burst_bits = NonZeroU64::new(number(burst)?).filter(|it| it.get() < NO_BURST_CHOSEN);
    match NonZeroU64::new(number(rate)?) {
        Some(bits_per_second) if bits_per_second.get() < 8 => Err(LIMITS),
        Some(bits_per_second) => Ok(Some(Rate { bits_per_second, burst_bits })),
        None => Ok(None),
    }
}

/// The member of this name, in upper or lower case.
pub(crate) fn member<'a>(map: &'a Map<String, Value>, key: &str) -> Option<&'a Value> {
    map.iter().find(|(name, _)| name.eq_ignore_ascii_case(key)).map(|(_, value)| value)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn mappings(list: &Value) -> Vec<String> {
        let text = |mapping: &PortMapping| {
            let PortMapping { protocol, host_ip, host_port, container_port } = mapping;
            format!("{protocol:?} {host_ip:?} {host_port} {container_port}")
        };
        port_mappings(list).unwrap().iter().map(text).collect()
    }

    /// As containerd, CRI-O and podman write them.
    #[test]
    fn mappings_of_each_runtime_are_read() {
        let containerd = json!([
            {"HostPort": 8080, "ContainerPort": 80, "Protocol": "tcp", "HostIP": ""},
            {"HostPort": 53, "ContainerPort": 5353, "Protocol": "udp", "HostIP": "10.0.0.10"},
        ]);
        assert_eq!(mappings(&containerd), ["Tcp None 8080 80", "Udp Some(10.0.0.10) 53 5353"]);
        let others = json!([
            {"hostPort": 1, "containerPort": 65535, "protocol": "SCTP", "hostIP": "::"},
            {"hostPort": 2, "containerPort": 3},
            {"hostPort": 0, "containerPort": 4, "protocol": "tcp"},
            {"containerPort": 5},
        ]);
        assert_eq!(mappings(&others), ["Sctp Some(::) 1 65535", "Tcp None 2 3"]);
        assert!(mappings(&json!([])).is_empty());
    }

    #[test]
    fn mapping_with_any_fault_is_refused() {
        for bad in [
            json!({}),
            json!([1]),
            json!([{"hostPort": 65536, "containerPort": 80}]),
            json!([{"hostPort": -1, "containerPort": 80}]),
            json!([{"hostPort": "80", "containerPort": 80}]),
            json!([{"hostPort": 80}]),
            json!([{"hostPort": 80, "containerPort": 0}]),
            json!([{"hostPort": 80, "containerPort": 80, "protocol": "icmp"}]),
            json!([{"hostPort": 80, "containerPort": 80, "hostIP": "localhost"}]),
        ] {
            assert_eq!(port_mappings(&bad), Err(MAPPINGS), "{bad}");
        }
    }

    fn limits(value: &Value) -> Result<Bandwidth, &'static str> {
        bandwidth(value.as_object().unwrap())
    }

    #[test]
    fn limits_are_read_with_the_bursts_that_were_chosen() {
        let rate = |rate, burst| Rate {
            bits_per_second: NonZeroU64::new(rate).unwrap(),
            burst_bits: NonZeroU64::new(burst),
        };
        let chosen = json!({"ingressRate": 8, "ingressBurst": 4000, "egressRate": 0});
        let expect = Bandwidth { ingress: Some(rate(8, 4000)), egress: None };
        assert_eq!(limits(&chosen), Ok(expect));
        let containerd = json!({"EgressRate": 1_000_000, "EgressBurst": 4_294_967_295_u64});
        let expect = Bandwidth { ingress: None, egress: Some(rate(1_000_000, 0)) };
        assert_eq!(limits(&containerd), Ok(expect));
        assert_eq!(limits(&json!({"type": "aws-cni"})), Ok(Bandwidth::default()));
    }

    #[test]
    fn limit_with_any_fault_is_refused() {
        for bad in [
            json!({"ingressRate": 7}),
            json!({"ingressRate": -8}),
            json!({"egressRate": "1M"}),
            json!({"egressRate": 8, "egressBurst": 0.5}),
        ] {
            assert_eq!(limits(&bad), Err(LIMITS), "{bad}");
        }
    }
}
