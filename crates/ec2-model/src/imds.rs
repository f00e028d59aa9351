//! Instance metadata (IMDS) of each instance, which may lag behind the API.
//!
//! Paths and formats:
//! <https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/ec2-instance-metadata.html>. The server
//! handles session tokens, status codes and the identity of the caller.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::json;

use crate::allocate::Holdings;
use crate::id::{EniId, InstanceId, SecurityGroupId};
use crate::launch_options::InstanceProfile;
use crate::metadata_options::Toggle;
use crate::request::InterfaceType;
use crate::resources::{Eni, Instance, Slot};
use crate::response::CidrState;
use crate::time::SimTime;
use crate::view::View;
use crate::zone;

/// The dated versions beside `latest`, a subset of AWS's. Older versions have fewer keys.
const VERSIONS: [&str; 5] = ["2019-10-01", "2020-10-27", "2020-11-01", "2021-01-03", "2022-09-24"];
/// The first version with `network-card`.
const NETWORK_CARD_SINCE: &str = "2020-11-01";
/// The first version with the instance's tags.
const TAGS_SINCE: &str = "2021-03-23";
/// The first version with the top-level `ipv6`.
const IPV6_SINCE: &str = "2021-01-03";
const LATEST: &str = "latest";
const HOUR_MS: u64 = 3_600_000;
/// EC2's credentials are valid for about six hours. EC2 renews them well before they expire.
const CREDENTIALS_LIVE_MS: u64 = 6 * HOUR_MS;

/// An ENI as IMDS shows it. It may be older than the ENI, or outlive it.
#[derive(Debug, Clone)]
struct ShownEni {
    slot: Slot,
    eni: Eni,
}

impl ShownEni {
    /// The ENI with its primary address alone.
    fn bare(eni: &Eni, slot: Slot) -> Self {
        let eni = Eni { v4: Holdings::default(), v6: Holdings::default(), ..eni.clone() };
        Self { slot, eni }
    }

    fn complete(eni: &Eni, slot: Slot) -> Self {
        Self { slot, eni: eni.clone() }
    }
}

/// The slot of an ENI that is attached to `instance`.
fn slot_on(eni: &Eni, instance: &InstanceId) -> Option<Slot> {
    let attachment = eni.attachment().filter(|_| eni.is_on(instance))?;
    Some(attachment.slot())
}

/// The id of the access key that IMDS gives an instance. It has the length of real ids, so it lacks
/// the last of the instance's 17 digits.
pub(crate) fn access_key_id(instance: &InstanceId) -> String {
    let digits = instance.as_str().trim_start_matches("i-").to_uppercase();
    format!("ASIA{digits:0<16.16}")
}

/// The ENIs that IMDS shows to each instance.
#[derive(Debug, Default)]
pub(crate) struct Imds {
    shown: BTreeMap<InstanceId, BTreeMap<EniId, ShownEni>>,
    frozen: BTreeSet<InstanceId>,
}

impl Imds {
    /// Adds an ENI that is attached, without its secondary addresses, or removes one that is not.
    pub(crate) fn show_interface(&mut self, instance: &InstanceId, id: &EniId, eni: Option<&Eni>) {
        if self.frozen.contains(instance) {
            return;
        }
        let shown = self.shown.entry(instance.clone()).or_default();
        let there = eni.and_then(|eni| Some((eni, slot_on(eni, instance)?)));
        if let Some((eni, slot)) = there {
            shown.entry(id.clone()).or_insert_with(|| ShownEni::bare(eni, slot));
        } else {
            shown.remove(id);
        }
    }

    /// Updates the addresses and groups of an ENI that IMDS shows.
    pub(crate) fn show_addresses(&mut self, instance: &InstanceId, eni: &Eni) {
        if self.frozen.contains(instance) {
            return;
        }
        let shown = self.shown.get_mut(instance).and_then(|enis| enis.get_mut(&eni.id));
        if let (Some(shown), Some(slot)) = (shown, slot_on(eni, instance)) {
            *shown = ShownEni::complete(eni, slot);
        }
    }

    /// Updates all ENIs at once.
    pub(crate) fn show_all<'a>(
        &mut self,
        instance: &InstanceId,
        enis: impl Iterator<Item = &'a Eni>,
    ) {
        let show = |eni: &Eni| {
            let slot = slot_on(eni, instance)?;
            Some((eni.id.clone(), ShownEni::complete(eni, slot)))
        };
        self.shown.insert(instance.clone(), enis.filter_map(show).collect());
    }

    pub(crate) fn freeze(&mut self, instance: &InstanceId) {
        self.frozen.insert(instance.clone());
    }

    pub(crate) fn thaw(&mut self, instance: &InstanceId) {
        self.frozen.remove(instance);
    }

    /// Drops the data of a terminated instance.
    pub(crate) fn forget(&mut self, instance: &InstanceId) {
        self.shown.remove(instance);
        self.frozen.remove(instance);
    }

    /// The answer to a GET of `path`. `None` means 404.
    pub(crate) fn get(
        &self,
        view: View<'_>,
        instance: &Instance,
        path: &str,
        now: SimTime,
    ) -> Option<Vec<u8>> {
        let path = path.trim_matches('/');
        if path.is_empty() {
            let mut versions = VERSIONS.to_vec();
            versions.push(LATEST);
            return Some(versions.join("\n").into());
        }
        let (version, path) = path.split_once('/').unwrap_or((path, ""));
        if version != LATEST && !VERSIONS.contains(&version) {
            return None;
        }
        let empty = BTreeMap::new();
        let enis = self.shown.get(&instance.id).unwrap_or(&empty);
        Document { view, instance, enis, version, now }.tree().get(path)
    }
}

/// Values by path. Paths have no slash at either end.
#[derive(Debug, Default)]
struct Tree(BTreeMap<String, Vec<u8>>);

impl Tree {
    fn put(&mut self, path: &str, value: impl ToString) {
        self.0.insert(path.to_owned(), value.to_string().into());
    }

    /// One value per line. Without values the key does not exist.
    fn put_lines(&mut self, path: &str, values: impl IntoIterator<Item = impl ToString>) {
        let lines: Vec<String> = values.into_iter().map(|value| value.to_string()).collect();
        if !lines.is_empty() {
            self.put(path, lines.join("\n"));
        }
    }

    /// The value of a leaf, or the names in a directory. Names of directories end with a slash.
    fn get(&self, path: &str) -> Option<Vec<u8>> {
        if let Some(leaf) = self.0.get(path) {
            return Some(leaf.clone());
        }
        let below = if path.is_empty() { String::new() } else { format!("{path}/") };
        let names: BTreeSet<String> = self
            .0
            .range(below.clone()..)
            .map_while(|(leaf, _)| leaf.strip_prefix(&below))
            .map(|rest| match rest.split_once('/') {
                Some((directory, _)) => format!("{directory}/"),
                None => rest.to_owned(),
            })
            .collect();
        let names: Vec<String> = names.into_iter().collect();
        (!names.is_empty()).then(|| names.join("\n").into())
    }
}

/// All metadata that one instance can read.
#[derive(Debug, Clone, Copy)]
struct Document<'a> {
    view: View<'a>,
    instance: &'a Instance,
    enis: &'a BTreeMap<EniId, ShownEni>,
    version: &'a str,
    now: SimTime,
}

impl<'a> Document<'a> {
    fn tree(self) -> Tree {
        let mut tree = Tree::default();
        self.put_instance(&mut tree);
        self.put_role(&mut tree);
        self.put_tags(&mut tree);
        if let Some(data) = &self.instance.user_data {
            tree.0.insert("user-data".to_owned(), data.clone());
        }
        for shown in self.enis.values() {
            self.put_interface(&mut tree, shown);
        }
        tree
    }

    /// Whether the requested version has a key. Versions compare as text, and `latest` sorts last.
    fn has(self, since: &str) -> bool {
        self.version >= since
    }

    fn primary(self) -> Option<&'a Eni> {
        self.enis.values().find(|shown| shown.slot == self.instance.primary).map(|shown| &shown.eni)
    }

    fn zone(self) -> char {
        self.view.resources.subnets.get(&self.instance.subnet).map_or('a', |subnet| subnet.zone)
    }

    fn put_instance(self, tree: &mut Tree) {
        let region = &self.view.config.region;
        let instance = self.instance;
        let mut put = |key: &str, value: &str| tree.put(&format!("meta-data/{key}"), value);
        put("ami-id", &instance.image_id);
        put("ami-launch-index", "0");
        put("instance-action", "none");
        put("instance-id", instance.id.as_str());
        put("instance-life-cycle", "on-demand");
        put("instance-type", instance.instance_type.name);
        put("placement/availability-zone", &self.view.zone_name(self.zone()));
        put("placement/availability-zone-id", &self.view.zone_id(self.zone()));
        put("placement/region", region);
        put("profile", "default-hvm");
        put("reservation-id", instance.reservation.as_str());
        put(
            "services/domain",
            if region.starts_with("cn-") { "amazonaws.com.cn" } else { "amazonaws.com" },
        );
        put("services/partition", zone::partition(region));
        if let Some(eni) = self.primary() {
            self.put_primary(tree, eni);
        }
        tree.put("dynamic/instance-identity/document", self.identity());
    }

    fn put_primary(self, tree: &mut Tree, eni: &Eni) {
        let host = self.view.host_name_on(self.instance, eni);
        for key in ["hostname", "local-hostname"] {
            tree.put(&format!("meta-data/{key}"), &host);
        }
        tree.put_lines("meta-data/local-ipv4", eni.primary);
        tree.put("meta-data/mac", eni.mac);
        let public =
            eni.primary.and_then(|private| self.view.public_addresses(eni).remove(&private));
        tree.put_lines("meta-data/public-ipv4", public);
        tree.put_lines("meta-data/security-groups", self.group_names(&eni.groups));
        if self.has(IPV6_SINCE) {
            tree.put_lines("meta-data/ipv6", eni.v6.addresses.first());
        }
    }

    fn group_names(self, ids: &[SecurityGroupId]) -> Vec<String> {
        let groups = ids.iter().filter_map(|id| self.view.resources.groups.get(id));
        groups.map(|group| group.name.clone()).collect()
    }

    fn identity(self) -> String {
        let instance = self.instance;
        let document = json!({
            "accountId": instance.owner,
            "architecture": instance.instance_type.architectures.first().unwrap_or(&"x86_64"),
            "availabilityZone": self.view.zone_name(self.zone()),
            "billingProducts": null,
            "devpayProductCodes": null,
            "marketplaceProductCodes": null,
            "imageId": instance.image_id,
            "instanceId": instance.id,
            "instanceType": instance.instance_type.name,
            "kernelId": null,
            "pendingTime": instance.launch_time.to_seconds_string(),
            "privateIp": self.primary().and_then(|eni| eni.primary).map(|address| address.to_string()),
            "ramdiskId": null,
            "region": self.view.config.region,
            "version": "2017-09-30",
        });
        format!("{document:#}")
    }

    fn put_role(self, tree: &mut Tree) {
        let Some(profile) = &self.instance.profile else { return };
        let role = profile.name();
        let hour = SimTime::from_unix_millis(self.now.unix_millis() / HOUR_MS * HOUR_MS);
        let updated = hour.to_seconds_string();
        let info = json!({
            "Code": "Success",
            "LastUpdated": updated,
            "InstanceProfileArn": profile.arn,
            "InstanceProfileId": InstanceProfile::ID,
        });
        tree.put("meta-data/iam/info", format!("{info:#}"));
        let expires = hour.unix_millis() + CREDENTIALS_LIVE_MS;
        let credentials = json!({
            "Code": "Success",
            "LastUpdated": updated,
            "Type": "AWS-HMAC",
            "AccessKeyId": access_key_id(&self.instance.id),
            "SecretAccessKey": format!("model/{}/{}", self.instance.id, hour.unix_millis()),
            "Token": format!("model-session-{}-{}", self.instance.id, hour.unix_millis()),
            "Expiration": SimTime::from_unix_millis(expires).to_seconds_string(),
        });
        let path = format!("meta-data/iam/security-credentials/{role}");
        tree.put(&path, format!("{credentials:#}"));
    }

    fn put_tags(self, tree: &mut Tree) {
        match self.instance.metadata_options.instance_metadata_tags {
            Toggle::Enabled if self.has(TAGS_SINCE) => {}
            Toggle::Enabled | Toggle::Disabled => return,
        }
        for (key, value) in &self.instance.tags {
            tree.put(&format!("meta-data/tags/instance/{key}"), value);
        }
    }

    fn put_interface(self, tree: &mut Tree, shown: &ShownEni) {
        let ShownEni { slot: (card, device), eni } = shown;
        let at = |key: &str| format!("meta-data/network/interfaces/macs/{}/{key}", eni.mac);
        tree.put(&at("device-number"), device);
        tree.put(&at("interface-id"), &eni.id);
        tree.put(&at("local-hostname"), self.view.host_name_on(self.instance, eni));
        tree.put(&at("mac"), eni.mac);
        tree.put(&at("owner-id"), &eni.owner);
        if self.has(NETWORK_CARD_SINCE) {
            // `network-card-index` is documented; `network-card` is what real instances have.
            tree.put(&at("network-card-index"), card);
            tree.put(&at("network-card"), card);
        }
        tree.put_lines(&at("security-group-ids"), &eni.groups);
        tree.put_lines(&at("security-groups"), self.group_names(&eni.groups));
        if eni.interface_type != InterfaceType::EfaOnly {
            let addresses = eni.primary.iter().chain(&eni.v4.addresses);
            tree.put_lines(&at("local-ipv4s"), addresses);
        }
        let public = self.view.public_addresses(eni);
        tree.put_lines(&at("public-ipv4s"), public.values());
        for (private, public) in public {
            tree.put(&at(&format!("ipv4-associations/{public}")), private);
        }
        tree.put_lines(&at("ipv4-prefix"), &eni.v4.prefixes);
        tree.put_lines(&at("ipv6s"), &eni.v6.addresses);
        tree.put_lines(&at("ipv6-prefix"), &eni.v6.prefixes);
        self.put_surroundings(tree, eni, at);
    }

    fn put_surroundings(self, tree: &mut Tree, eni: &Eni, at: impl Fn(&str) -> String) {
        let subnet = self.view.resources.subnet_of(eni);
        tree.put(&at("subnet-id"), &subnet.id);
        tree.put_lines(&at("subnet-ipv4-cidr-block"), subnet.ipv4_cidr());
        tree.put_lines(&at("subnet-ipv6-cidr-blocks"), subnet.ipv6_cidr());
        tree.put(&at("vpc-id"), &subnet.vpc);
        let Some(vpc) = self.view.resources.vpcs.get(&subnet.vpc) else { return };
        tree.put(&at("vpc-ipv4-cidr-block"), vpc.cidr_block);
        let cidrs = || vpc.associations.iter().filter(|it| it.state == CidrState::Associated);
        let (v4, v6): (Vec<_>, Vec<_>) =
            cidrs().map(|association| association.cidr).partition(|cidr| cidr.addr().is_ipv4());
        tree.put_lines(&at("vpc-ipv4-cidr-blocks"), v4);
        tree.put_lines(&at("vpc-ipv6-cidr-blocks"), v6);
    }
}
