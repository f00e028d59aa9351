//! Where the introspection is served, and what it shows of the settings. Names, shapes and types are those of
//! amazon-vpc-cni-k8s. No value with a password is among them.
//!
//! Source: amazon-vpc-cni-k8s v1.23.1, `pkg/ipamd/introspect.go`, `GetConfigForDebug` in `pkg/ipamd` and
//! `pkg/networkutils`.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;

use ipam::policy::SourcePorts;
use ipnet::Ipv4Net;
use serde_json::{Value, json};

use crate::registry::{
    AWS_EXTERNAL_SERVICE_CIDRS, AWS_MANAGE_ENIS_NON_SCHEDULABLE, AWS_VPC_CNI_NODE_PORT_SUPPORT,
    AWS_VPC_ENI_MTU, AWS_VPC_K8S_CNI_CUSTOM_NETWORK_CFG, AWS_VPC_K8S_CNI_EXCLUDE_SNAT_CIDRS,
    AWS_VPC_K8S_CNI_EXTERNALSNAT, AWS_VPC_K8S_CNI_VETHPREFIX, DISABLE_INTROSPECTION,
    ENABLE_SUBNET_DISCOVERY, INTROSPECTION_BIND_ADDRESS, WARM_ENI_TARGET, WARM_IP_TARGET,
};
use crate::{SettingError, Variables, nat};

/// Where the introspection is served.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BindAddress {
    /// A loopback address and a port.
    Loopback(SocketAddr),
    /// The absolute path of a Unix socket.
    Unix(PathBuf),
}

/// The address, and a warning if it is not the one that is asked for. `None` if no introspection is served.
pub(crate) fn address(
    variables: &Variables,
) -> Result<(Option<BindAddress>, Option<String>), SettingError> {
    let setting = &INTROSPECTION_BIND_ADDRESS;
    let text = variables.text(setting).unwrap_or_default();
    let (address, warning) = parse(text).ok_or_else(|| {
        variables.error(setting, "expected 127.0.0.1:PORT, [::1]:PORT or unix:/PATH")
    })?;
    match variables.boolean(&DISABLE_INTROSPECTION)? {
        true => Ok((None, None)),
        false => Ok((Some(address), warning)),
    }
}

/// Whoever asks learns which pods run here, and nobody is asked for a password. So no other machine gets an answer.
fn parse(text: &str) -> Option<(BindAddress, Option<String>)> {
    if let Some(path) = text.strip_prefix("unix:") {
        let path = PathBuf::from(path);
        return path.is_absolute().then_some((BindAddress::Unix(path), None));
    }
    let (host, port) = text.rsplit_once(':')?;
    let port: u16 = port.parse().ok().filter(|port| *port > 0)?;
    let asked: IpAddr = match host {
        "localhost" => Ipv4Addr::LOCALHOST.into(),
        // Go takes an empty host for all addresses.
        "" => Ipv4Addr::UNSPECIFIED.into(),
        _ => text.parse::<SocketAddr>().ok()?.ip(),
    };
    if asked.is_loopback() {
        return Some((BindAddress::Loopback(SocketAddr::new(asked, port)), None));
    }
    let here: IpAddr = match asked {
        IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
    };
    let served = SocketAddr::new(here, port);
    let name = INTROSPECTION_BIND_ADDRESS.name;
    let warning =
        format!("{name}: introspection is for this machine alone; it is served on {served}");
    Some((BindAddress::Loopback(served), Some(warning)))
}

/// The settings of the pool, as `/v1/ipamd-env-settings` shows them.
///
/// # Errors
/// For the first bad value; settings in force have none.
pub fn ipamd_settings(variables: &Variables) -> Result<Value, SettingError> {
    let number = |setting| variables.number(setting, 0, u32::MAX);
    let boolean = |setting| variables.boolean(setting);
    Ok(json!({
        WARM_IP_TARGET.name: number(&WARM_IP_TARGET)?,
        WARM_ENI_TARGET.name: number(&WARM_ENI_TARGET)?,
        AWS_VPC_K8S_CNI_CUSTOM_NETWORK_CFG.name: boolean(&AWS_VPC_K8S_CNI_CUSTOM_NETWORK_CFG)?,
        AWS_MANAGE_ENIS_NON_SCHEDULABLE.name: boolean(&AWS_MANAGE_ENIS_NON_SCHEDULABLE)?,
        ENABLE_SUBNET_DISCOVERY.name: boolean(&ENABLE_SUBNET_DISCOVERY)?,
    }))
}

/// The settings of the host network, as `/v1/networkutils-env-settings` shows them.
///
/// # Errors
/// For the first bad value; settings in force have none.
pub fn network_settings(variables: &Variables) -> Result<Value, SettingError> {
    let ranges = |setting| nat::ranges(variables, setting, 0).map(list);
    let boolean = |setting| variables.boolean(setting);
    // The numbers of amazon-vpc-cni-k8s's enumeration.
    let ports = match nat::ports(variables)? {
        SourcePorts::Kept => 0,
        SourcePorts::Hashed => 1,
        SourcePorts::Random => 2,
    };
    Ok(json!({
        "AWS_VPC_K8S_CNI_CONNMARK": nat::mark(variables)?,
        AWS_VPC_K8S_CNI_EXCLUDE_SNAT_CIDRS.name: ranges(&AWS_VPC_K8S_CNI_EXCLUDE_SNAT_CIDRS)?,
        AWS_VPC_K8S_CNI_EXTERNALSNAT.name: boolean(&AWS_VPC_K8S_CNI_EXTERNALSNAT)?,
        AWS_EXTERNAL_SERVICE_CIDRS.name: ranges(&AWS_EXTERNAL_SERVICE_CIDRS)?,
        AWS_VPC_ENI_MTU.name: variables.number(&AWS_VPC_ENI_MTU, 0, u16::MAX)?,
        AWS_VPC_K8S_CNI_VETHPREFIX.name: variables.text(&AWS_VPC_K8S_CNI_VETHPREFIX),
        AWS_VPC_CNI_NODE_PORT_SUPPORT.name: boolean(&AWS_VPC_CNI_NODE_PORT_SUPPORT)?,
        "AWS_VPC_K8S_CNI_RANDOMIZESNAT": ports,
    }))
}

/// No range is `null`, as Go writes a list that nobody has made.
fn list(ranges: BTreeSet<Ipv4Net>) -> Value {
    let texts: Vec<_> = ranges.iter().map(ToString::to_string).collect();
    if texts.is_empty() { Value::Null } else { texts.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn variables(set: &[(&str, &str)]) -> Variables {
        set.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn introspection_stays_on_this_machine() {
        let check = |text: &str, expect: Option<&str>, is_warned: bool| {
            let found = address(&variables(&[("INTROSPECTION_BIND_ADDRESS", text)]));
            let Some(expect) = expect else {
                let error = found.unwrap_err().to_string();
                assert!(error.contains("expected 127.0.0.1:PORT"), "{text}: {error}");
                return;
            };
            let (address, warning) = found.unwrap();
            let address = match address.unwrap() {
                BindAddress::Loopback(address) => address.to_string(),
                BindAddress::Unix(path) => path.display().to_string(),
            };
            assert_eq!((&*address, warning.is_some()), (expect, is_warned), "{text}: {warning:?}");
        };
        check("", Some("127.0.0.1:61679"), false);
        check("127.0.0.2:80", Some("127.0.0.2:80"), false);
        check("localhost:80", Some("127.0.0.1:80"), false);
        check("[::1]:80", Some("[::1]:80"), false);
        check("unix:/run/a.sock", Some("/run/a.sock"), false);
        check("0.0.0.0:80", Some("127.0.0.1:80"), true);
        check(":80", Some("127.0.0.1:80"), true);
        check("10.0.0.1:80", Some("127.0.0.1:80"), true);
        check("[::]:80", Some("[::1]:80"), true);
        for bad in ["80", "127.0.0.1", "127.0.0.1:0", "127.0.0.1:99999", "unix:a.sock", "node:80"] {
            check(bad, None, false);
        }
        let off =
            variables(&[("DISABLE_INTROSPECTION", "true"), ("INTROSPECTION_BIND_ADDRESS", ":1")]);
        assert_eq!(address(&off), Ok((None, None)));
    }

    #[test]
    fn shown_settings_have_the_shapes_of_the_incumbent() {
        let set = variables(&[
            ("WARM_IP_TARGET", "3"),
            ("AWS_VPC_K8S_CNI_EXCLUDE_SNAT_CIDRS", "10.1.0.0/16, 10.2.0.0/16"),
            ("HTTPS_PROXY", "http://user:secret@proxy:3128"),
        ]);
        let pool = json!({
            "WARM_IP_TARGET": 3,
            "WARM_ENI_TARGET": 1,
            "AWS_VPC_K8S_CNI_CUSTOM_NETWORK_CFG": false,
            "AWS_MANAGE_ENIS_NON_SCHEDULABLE": false,
            "ENABLE_SUBNET_DISCOVERY": true,
        });
        assert_eq!(ipamd_settings(&set), Ok(pool));
        let network = json!({
            "AWS_VPC_K8S_CNI_CONNMARK": 128,
            "AWS_VPC_K8S_CNI_EXCLUDE_SNAT_CIDRS": ["10.1.0.0/16", "10.2.0.0/16"],
            "AWS_VPC_K8S_CNI_EXTERNALSNAT": false,
            "AWS_EXTERNAL_SERVICE_CIDRS": null,
            "AWS_VPC_ENI_MTU": 9001,
            "AWS_VPC_K8S_CNI_VETHPREFIX": "eni",
            "AWS_VPC_CNI_NODE_PORT_SUPPORT": true,
            "AWS_VPC_K8S_CNI_RANDOMIZESNAT": 2,
        });
        assert_eq!(network_settings(&set), Ok(network));
    }
}
