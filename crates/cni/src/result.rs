//! The result of an ADD, parsed from any version's shape and written in the requested version's.

use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value, json};

use crate::version::Version;

/// The result of an ADD, or of the chain so far (`prevResult`). Unknown keys are kept.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct AddResult {
    /// The interfaces, in the order of their creation. [`IpConfig::interface`] is an index into this.
    #[serde(default, deserialize_with = "null_is_empty", skip_serializing_if = "Vec::is_empty")]
    pub interfaces: Vec<Interface>,
    /// The addresses.
    #[serde(default, deserialize_with = "null_is_empty", skip_serializing_if = "Vec::is_empty")]
    pub ips: Vec<IpConfig>,
    /// The routes.
    #[serde(default, deserialize_with = "null_is_empty", skip_serializing_if = "Vec::is_empty")]
    pub routes: Vec<Route>,
    /// Resolver settings.
    #[serde(default, deserialize_with = "null_is_empty")]
    pub dns: Dns,
    #[serde(flatten)]
    extra: Map<String, Value>,
}

/// A network interface on the host or in the container.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Interface {
    /// Its name in the kernel.
    pub name: String,
    /// Its hardware address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mac: Option<String>,
    /// Its MTU in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mtu: Option<u32>,
    /// The network namespace's path; `None`, or empty, for an interface on the host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sandbox: Option<String>,
    #[serde(flatten)]
    extra: Map<String, Value>,
}

/// An address of an interface.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct IpConfig {
    /// The index of its interface in [`AddResult::interfaces`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interface: Option<usize>,
    /// The address, with the length of its network: `10.0.2.20/32`.
    pub address: IpNet,
    /// The gateway of that network.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gateway: Option<IpAddr>,
    #[serde(flatten)]
    extra: Map<String, Value>,
}

/// A route in the container.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Route {
    /// The destination.
    pub dst: IpNet,
    /// The router; `None` for a destination on the link itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gw: Option<IpAddr>,
    #[serde(flatten)]
    extra: Map<String, Value>,
}

/// Resolver settings, copied from `prevResult`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Dns(Map<String, Value>);

impl Interface {
    /// An interface on the host.
    #[must_use]
    pub fn on_host(name: String, mac: String, mtu: u32) -> Self {
        Self { name, mac: Some(mac), mtu: Some(mtu), ..Self::default() }
    }

    /// An interface in the namespace at `sandbox`.
    #[must_use]
    pub fn in_sandbox(name: String, mac: String, mtu: u32, sandbox: String) -> Self {
        Self { sandbox: Some(sandbox), ..Self::on_host(name, mac, mtu) }
    }

    /// Whether it is in a container's namespace.
    #[must_use]
    pub fn is_in_sandbox(&self) -> bool {
        self.sandbox.as_ref().is_some_and(|sandbox| !sandbox.is_empty())
    }
}

impl IpConfig {
    /// A `/32` or `/128` of the interface at this index.
    #[must_use]
    pub fn host(interface: usize, address: IpAddr) -> Self {
        Self::in_network(interface, IpNet::from(address), None)
    }

    /// An address of the interface at this index, with its network's length and router.
    #[must_use]
    pub fn in_network(interface: usize, address: IpNet, gateway: Option<IpAddr>) -> Self {
        Self { interface: Some(interface), address, gateway, extra: Map::new() }
    }
}

impl Route {
    /// A route by the router `gw`.
    #[must_use]
    pub fn via(dst: IpNet, gw: IpAddr) -> Self {
        Self { gw: Some(gw), ..Self::on_link(dst) }
    }

    /// A route to what is on the link itself.
    #[must_use]
    pub fn on_link(dst: IpNet) -> Self {
        Self { dst, gw: None, extra: Map::new() }
    }
}

impl AddResult {
    /// The addresses of the container's interface `ifname`. An address without an interface counts as
    /// one of them, as it does for runtimes.
    pub fn addresses_of<'a>(&'a self, ifname: &'a str) -> impl Iterator<Item = IpAddr> + 'a {
        let ours = move |ip: &&IpConfig| match ip.interface {
            None => true,
            Some(place) => {
                self.interfaces.get(place).is_some_and(|at| at.name == ifname && at.is_in_sandbox())
            }
        };
        self.ips.iter().filter(ours).map(|ip| ip.address.addr())
    }

    /// The document for stdout, in the shape of `version`.
    #[must_use]
    pub fn to_json(&self, version: Version) -> String {
        let mut document = serde_json::to_value(self)
            .expect("a result is made of maps with text keys, texts and numbers");
        document["cniVersion"] = version.as_str().into();
        if version < Version::V1_1_0 {
            remove_each(&mut document["interfaces"], &["mtu", "socketPath", "pciID"]);
            remove_each(&mut document["routes"], &["mtu", "advmss", "priority", "table", "scope"]);
        }
        if version < Version::V1_0_0 {
            name_families(&mut document["ips"]);
        } else {
            remove_each(&mut document["ips"], &["version"]);
        }
        drop_empty(&mut document);
        document.to_string()
    }
}

fn members(list: &mut Value) -> impl Iterator<Item = &mut Map<String, Value>> {
    list.as_array_mut().into_iter().flatten().filter_map(Value::as_object_mut)
}

fn remove_each(list: &mut Value, keys: &[&str]) {
    for member in members(list) {
        member.retain(|key, _| !keys.contains(&key.as_str()));
    }
}

/// Up to 0.4.0 each address has its family in `version`.
fn name_families(ips: &mut Value) {
    for ip in members(ips) {
        let v6 = ip.get("address").and_then(Value::as_str).is_some_and(|text| text.contains(':'));
        ip.insert("version".to_owned(), json!(if v6 { "6" } else { "4" }));
    }
}

/// Indexing a document mutably for a missing list leaves a null.
fn drop_empty(document: &mut Value) {
    if let Some(document) = document.as_object_mut() {
        document.retain(|key, value| !value.is_null() && (key != "dns" || *value != json!({})));
    }
}

/// Reads null as empty: Go writes `null` for an empty list.
fn null_is_empty<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(
    deserializer: D,
) -> Result<T, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod() -> AddResult {
        AddResult {
            interfaces: vec![
                Interface::on_host("enicc21c2d7785".into(), "0a:00:00:00:00:01".into(), 9001),
                Interface::in_sandbox(
                    "eth0".into(),
                    "0a:00:00:00:00:02".into(),
                    9001,
                    "/var/run/netns/cni-abc".into(),
                ),
            ],
            ips: vec![IpConfig::host(1, "10.0.2.20".parse().unwrap())],
            routes: vec![Route::via("0.0.0.0/0".parse().unwrap(), "169.254.1.1".parse().unwrap())],
            ..AddResult::default()
        }
    }

    fn json(result: &AddResult, version: Version) -> Value {
        serde_json::from_str(&result.to_json(version)).unwrap()
    }

    #[test]
    fn result_json_in_1_1_0_has_the_newest_shape() {
        assert_eq!(
            json(&pod(), Version::V1_1_0),
            json!({
                "cniVersion": "1.1.0",
                "interfaces": [
                    {"name": "enicc21c2d7785", "mac": "0a:00:00:00:00:01", "mtu": 9001},
                    {"name": "eth0", "mac": "0a:00:00:00:00:02", "mtu": 9001,
                     "sandbox": "/var/run/netns/cni-abc"},
                ],
                "ips": [{"interface": 1, "address": "10.0.2.20/32"}],
                "routes": [{"dst": "0.0.0.0/0", "gw": "169.254.1.1"}],
            })
        );
    }

    #[test]
    fn result_json_in_older_versions_has_their_shape() {
        for version in Version::ALL {
            let document = json(&pod(), version);
            assert_eq!(document["cniVersion"], version.as_str());
            let family = &document["ips"][0]["version"];
            assert_eq!(family == "4", version < Version::V1_0_0, "{document}");
            let mtu = &document["interfaces"][1]["mtu"];
            assert_eq!(mtu == 9001, version == Version::V1_1_0, "{document}");
        }
    }

    #[test]
    fn result_json_in_0_4_0_names_the_ipv6_family() {
        let result = AddResult {
            ips: vec![IpConfig::host(0, "2001:db8::1".parse().unwrap())],
            ..AddResult::default()
        };
        assert_eq!(
            json(&result, Version::V0_4_0),
            json!({
                "cniVersion": "0.4.0",
                "ips": [{"version": "6", "interface": 0, "address": "2001:db8::1/128"}],
            })
        );
    }

    #[test]
    fn result_with_unknown_keys_keeps_them() {
        let document = json!({
            "cniVersion": "1.1.0",
            "interfaces": [{"name": "a", "socketPath": "/s", "pciID": "0", "x": 1}],
            "ips": [{"address": "10.1.0.5/16", "gateway": "10.1.0.1", "y": 2}],
            "routes": [{"dst": "10.0.0.0/8", "mtu": 1400, "z": 3}],
            "dns": {"nameservers": ["10.1.0.1"], "w": 4},
            "v": 5,
        });
        let result: AddResult = serde_json::from_value(document.clone()).unwrap();
        assert_eq!(json(&result, Version::V1_1_0), document);
    }

    #[test]
    fn result_nulls_are_empty_lists() {
        let document = json!({"interfaces": null, "ips": null, "routes": null, "dns": null});
        assert_eq!(serde_json::from_value::<AddResult>(document).unwrap(), AddResult::default());
    }

    #[test]
    fn addresses_of_selects_by_sandbox_interface() {
        let addresses = |result: &AddResult, ifname| -> Vec<String> {
            result.addresses_of(ifname).map(|address| address.to_string()).collect()
        };
        let mut result = pod();
        assert_eq!(addresses(&result, "eth0"), ["10.0.2.20"]);
        assert!(addresses(&result, "net1").is_empty());
        assert!(addresses(&result, "enicc21c2d7785").is_empty(), "that one is on the host");
        result.ips[0].interface = None;
        assert_eq!(addresses(&result, "net1"), ["10.0.2.20"]);
        result.ips[0].interface = Some(7);
        assert!(addresses(&result, "eth0").is_empty());
    }
}
