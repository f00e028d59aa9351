//! The checkpoint of amazon-vpc-cni-k8s, `vpc-cni-ipam/1`: read and written as text. It must not know
//! files, the kernel or our record; what becomes of the allocations is `migration`'s.
//!
//! ```json
//! {"version":"vpc-cni-ipam/1","allocations":[
//!   {"networkName":"aws-cni","containerID":"4b1c…","ifName":"eth0","ipv4":"10.0.12.34",
//!    "allocationTimestamp":1718000000123456789,
//!    "metadata":{"k8sPodNamespace":"default","k8sPodName":"web-0","interfacesCount":1}}]}
//! ```
//!
//! Like the incumbent's, the reader passes over keys that it does not know, takes what is missing or
//! `null` for empty, and the last of two equal keys. Unlike it, it refuses what would give a pod a
//! wrong address, or none. Source: amazon-vpc-cni-k8s v1.23.1, `pkg/ipamd/datastore/data_store.go`,
//! `CheckpointData`.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipam::id::AttachmentKey;
use serde::Serialize;
use serde_json::{Map, Value};

/// The only version there is.
const VERSION: &str = "vpc-cni-ipam/1";
/// So much is told of what is wrong with a value, in characters: it may be as long as the file.
const TOLD: usize = 200;

/// One address in use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Allocation {
    /// Whose it is.
    pub key: AttachmentKey,
    /// The pod's address; one that a pod can have.
    pub address: IpAddr,
    /// When it was given, in nanoseconds since the epoch; 0 where that is not known.
    pub since_ns: i64,
    /// The pod's namespace, or empty.
    pub namespace: String,
    /// The pod's name, or empty.
    pub pod: String,
    /// On how many network cards the pod has an address; 0 counts as 1.
    pub interfaces: u32,
}

/// Why a checkpoint cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    /// It was cut off, or is something else.
    #[error("it is not JSON")]
    Json(#[source] serde_json::Error),
    /// A value is not what must stand there, or contradicts another.
    #[error("{place}: {problem}")]
    Value {
        /// The entry, counted from 0, and the field: `allocations[3].ipv4`.
        place: String,
        /// What is wrong with it, or the beginning of that.
        problem: String,
    },
}

/// The allocations of a checkpoint in the order of the file, no two with one key or one address.
///
/// # Errors
///
/// [`CheckpointError`], which names entry and field.
pub fn parse(bytes: &[u8]) -> Result<Vec<Allocation>, CheckpointError> {
    let value: Value = serde_json::from_slice(bytes).map_err(CheckpointError::Json)?;
    let file = Fields { place: String::new(), fields: object("the checkpoint", Some(&value))? };
    let version = file.text("version")?;
    if version != VERSION {
        return Err(file.error("version", format!("{version:?} is not {VERSION:?}")));
    }
    let entries = match file.get("allocations") {
        None => &[][..],
        Some(Value::Array(entries)) => entries,
        Some(other) => return Err(file.error("allocations", no("list", other))),
    };
    let numbered = entries.iter().enumerate();
    let allocations: Vec<_> =
        numbered.map(|(n, entry)| allocation(n, entry)).collect::<Result<_, _>>()?;
    refuse_doubles(&allocations)?;
    Ok(allocations)
}

fn allocation(n: usize, entry: &Value) -> Result<Allocation, CheckpointError> {
    let place = format!("allocations[{n}]");
    let entry = Fields { fields: object(&place, Some(entry))?, place: format!("{place}.") };
    let metadata = format!("{place}.metadata");
    let metadata =
        Fields { fields: object(&metadata, entry.get("metadata"))?, place: format!("{metadata}.") };
    let container = entry.text("containerID")?;
    if container.is_empty() {
        return Err(entry.error("containerID", "it is empty, so no DEL would find it".to_owned()));
    }
    let interfaces = metadata.number("interfacesCount")?;
    Ok(Allocation {
        key: AttachmentKey {
            network: entry.text("networkName")?.into(),
            container: container.to_owned(),
            ifname: entry.text("ifName")?.to_owned(),
        },
        address: address(&entry)?,
        since_ns: entry.number("allocationTimestamp")?,
        namespace: metadata.text("k8sPodNamespace")?.to_owned(),
        pod: metadata.text("k8sPodName")?.to_owned(),
        interfaces: u32::try_from(interfaces)
            .map_err(|_| metadata.error("interfacesCount", format!("{interfaces} is no count")))?,
    })
}

fn address(entry: &Fields<'_>) -> Result<IpAddr, CheckpointError> {
    let (field, text) = match (entry.text("ipv4")?, entry.text("ipv6")?) {
        ("", "") => return Err(entry.error("ipv4", "neither it nor ipv6 is there".to_owned())),
        (text, "") => ("ipv4", text),
        ("", text) => ("ipv6", text),
        (_, _) => return Err(entry.error("ipv6", "ipv4 is there too".to_owned())),
    };
    let parsed = match field {
        "ipv4" => text.parse().map(IpAddr::V4),
        _ => text.parse().map(IpAddr::V6),
    };
    let address =
        parsed.map_err(|_| entry.error(field, format!("{text:?} is no address of that family")))?;
    if can_be_a_pods(address) {
        Ok(address)
    } else {
        Err(entry.error(field, format!("{address} cannot be a pod's")))
    }
}

fn can_be_a_pods(address: IpAddr) -> bool {
    let special = match address {
        IpAddr::V4(v4) => v4.is_link_local() || v4.is_broadcast(),
        IpAddr::V6(v6) => v6.is_unicast_link_local() || v6.to_ipv4_mapped().is_some(),
    };
    !(special || address.is_unspecified() || address.is_loopback() || address.is_multicast())
}

/// A sandbox has one interface of a name, whatever the network.
fn refuse_doubles(allocations: &[Allocation]) -> Result<(), CheckpointError> {
    let (mut addresses, mut sandboxes) = (BTreeMap::new(), BTreeMap::new());
    for (n, Allocation { key, address, .. }) in allocations.iter().enumerate() {
        let double = |field: &str, what: String, first: usize| {
            let place = format!("allocations[{n}].{field}");
            wrong(place, format!("{what} is that of allocations[{first}] too"))
        };
        if let Some(first) = addresses.insert(address, n) {
            let field = if address.is_ipv4() { "ipv4" } else { "ipv6" };
            return Err(double(field, address.to_string(), first));
        }
        if let Some(first) = sandboxes.insert(key.mark(), n) {
            return Err(double("containerID", key.mark(), first));
        }
    }
    Ok(())
}

/// The members of an object, and how its place in the file is written.
struct Fields<'a> {
    /// Empty, or with the final dot.
    place: String,
    /// `None` counts as an object without members.
    fields: Option<&'a Map<String, Value>>,
}

impl<'a> Fields<'a> {
    fn get(&self, field: &str) -> Option<&'a Value> {
        self.fields?.get(field).filter(|value| !value.is_null())
    }

    fn text(&self, field: &str) -> Result<&'a str, CheckpointError> {
        match self.get(field) {
            None => Ok(""),
            Some(Value::String(text)) => Ok(text),
            Some(other) => Err(self.error(field, no("text", other))),
        }
    }

    fn number(&self, field: &str) -> Result<i64, CheckpointError> {
        let Some(value) = self.get(field) else { return Ok(0) };
        value.as_i64().ok_or_else(|| self.error(field, no("whole number of 64 bits", value)))
    }

    fn error(&self, field: &str, problem: String) -> CheckpointError {
        wrong(format!("{}{field}", self.place), problem)
    }
}

fn object<'a>(
    place: &str,
    value: Option<&'a Value>,
) -> Result<Option<&'a Map<String, Value>>, CheckpointError> {
    match value {
        None | Some(Value::Null) => Ok(None),
        Some(Value::Object(fields)) => Ok(Some(fields)),
        Some(other) => Err(wrong(place.to_owned(), no("object", other))),
    }
}

fn wrong(place: String, mut problem: String) -> CheckpointError {
    if let Some((end, _)) = problem.char_indices().nth(TOLD) {
        problem.truncate(end);
        problem.push('…');
    }
    CheckpointError::Value { place, problem }
}

fn no(wanted: &str, found: &Value) -> String {
    format!("{found} is no {wanted}")
}

/// The checkpoint that holds `allocations`, in their order, with a newline at its end.
#[must_use]
pub fn write(allocations: &[Allocation]) -> String {
    let file = File { version: VERSION, allocations: allocations.iter().map(entry).collect() };
    let text = serde_json::to_string(&file).expect("texts and numbers can always be written");
    text + "\n"
}

fn entry(allocation: &Allocation) -> Entry<'_> {
    let Allocation { key, address, since_ns, namespace, pod, interfaces } = allocation;
    Entry {
        network: key.network.clone().into(),
        container: &key.container,
        ifname: &key.ifname,
        ipv4: Some(*address).filter(IpAddr::is_ipv4),
        ipv6: Some(*address).filter(IpAddr::is_ipv6),
        since_ns: *since_ns,
        metadata: Metadata { namespace, pod, interfaces: *interfaces },
    }
}

#[derive(Serialize)]
struct File<'a> {
    version: &'static str,
    allocations: Vec<Entry<'a>>,
}

#[derive(Serialize)]
struct Entry<'a> {
    #[serde(rename = "networkName")]
    network: String,
    #[serde(rename = "containerID")]
    container: &'a str,
    #[serde(rename = "ifName")]
    ifname: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    ipv4: Option<IpAddr>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ipv6: Option<IpAddr>,
    #[serde(rename = "allocationTimestamp")]
    since_ns: i64,
    metadata: Metadata<'a>,
}

#[derive(Serialize)]
struct Metadata<'a> {
    #[serde(rename = "k8sPodNamespace", skip_serializing_if = "str::is_empty")]
    namespace: &'a str,
    #[serde(rename = "k8sPodName", skip_serializing_if = "str::is_empty")]
    pod: &'a str,
    #[serde(rename = "interfacesCount", skip_serializing_if = "is_zero")]
    interfaces: u32,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands out references")]
fn is_zero(n: &u32) -> bool {
    *n == 0
}

#[cfg(test)]
mod fuzz;
#[cfg(test)]
mod tests;
