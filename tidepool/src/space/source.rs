//! Where an inventory comes from, a file or EC2, and where it is saved.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use address_space::Pods;
use address_space::inventory::Inventory;
use anyhow::{Context as _, anyhow};
use aws::{Caller, Identity, Proxies, Roots};
use command_line::{Exit, Failure};
use serde::Deserialize;
use service_url::ServiceUrl;
use settings::Settings;

/// Bytes of an inventory: some hundred thousand interfaces. The answer of `tidepool cluster` is shorter.
const LONGEST: u64 = 256 << 20;

/// Where an inventory comes from.
#[derive(Debug, clap::Args)]
pub(crate) struct Source {
    /// Read the inventory from this file, and ask EC2 nothing.
    #[arg(long, value_name = "FILE",
          conflicts_with_all = ["profile", "role", "region", "endpoint", "save"])]
    from: Option<PathBuf>,
    /// Write the inventory to this file, for --from.
    #[arg(long, value_name = "FILE")]
    save: Option<PathBuf>,
    /// Read the account of this profile of the AWS configuration; may be repeated.
    #[arg(long, value_name = "NAME")]
    profile: Vec<String>,
    /// Assume this role and read its account; may be repeated.
    #[arg(long, value_name = "ARN")]
    role: Vec<String>,
    /// Read this Region of each account; may be repeated. By default that of environment or profile.
    #[arg(long, value_name = "REGION")]
    region: Vec<String>,
    /// Where EC2 listens if not at the Region's own address, such as that of vpc-sim.
    #[arg(long, value_name = "URL")]
    endpoint: Option<String>,
}

/// An account, in several Regions.
pub(crate) struct OneAccount {
    /// Where what is there is read.
    pub(crate) read: Vec<Caller>,
    /// Where something may be made.
    pub(crate) write: Vec<Caller>,
}

/// How many pods use addresses of a node. EC2 does not know.
#[derive(Debug, clap::Args)]
pub(crate) struct PodCounts {
    /// Take the pods of each node from this file: what `tidepool cluster --output json` prints; may be repeated.
    #[arg(long, value_name = "FILE")]
    cluster_status: Vec<PathBuf>,
    /// Take this many pods for each node that no file names.
    #[arg(long, value_name = "N")]
    pods_per_node: Option<u64>,
}

impl Source {
    /// Whether anything says where the inventory comes from.
    pub(crate) fn is_given(&self) -> bool {
        let Self { from, save, profile, role, region, endpoint } = self;
        let lists = [profile, role, region];
        from.is_some()
            || save.is_some()
            || endpoint.is_some()
            || lists.iter().any(|list| !list.is_empty())
    }

    /// The inventory, which is saved if that is asked for.
    pub(crate) fn inventory(&self) -> Result<Inventory, Failure> {
        if let Some(file) = &self.from {
            let path = file.display();
            let text = read(file, LONGEST).with_context(|| format!("read {path}"))?;
            let inventory = Inventory::parse(&text).with_context(|| format!("read {path}"))?;
            return Ok(inventory);
        }
        let inventory = aws_inventory::read(&self.callers()?).map_err(anyhow::Error::new)?;
        if let Some(file) = &self.save {
            let text = inventory.to_json().context("write the inventory as JSON")?;
            fs::write(file, text).with_context(|| format!("write {}", file.display()))?;
        }
        Ok(inventory)
    }

    /// Each account in each Region.
    fn callers(&self) -> Result<Vec<Caller>, Failure> {
        let regions = self.region.iter().cloned().map(Some);
        let regions: Vec<_> = regions.collect();
        self.callers_in(if regions.is_empty() { vec![None] } else { regions })
    }

    /// The one account in each of these Regions, to change it. `--region` adds to what is read alone.
    ///
    /// # Errors
    /// If several accounts are named, or a setting is wrong.
    pub(crate) fn one_account(&self, regions: &BTreeSet<String>) -> Result<OneAccount, Failure> {
        if self.profile.len() + self.role.len() > 1 {
            let why = "--apply works in one account: give one --profile or one --role";
            return Err(Failure::new(Exit::Usage, why.to_owned()));
        }
        let all: BTreeSet<_> = self.region.iter().chain(regions).cloned().collect();
        let callers =
            |regions: BTreeSet<String>| self.callers_in(regions.into_iter().map(Some).collect());
        Ok(OneAccount { read: callers(all)?, write: callers(regions.clone())? })
    }

    fn callers_in(&self, regions: Vec<Option<String>>) -> Result<Vec<Caller>, Failure> {
        let settings = Settings::from_process()?;
        let endpoint = self.endpoint.as_deref().map(|text| {
            let wrong =
                |fault| Failure::new(Exit::Usage, format!("--endpoint {text:?}: {fault:#}"));
            ServiceUrl::parse(text).map_err(|fault| wrong(anyhow!(fault)))
        });
        let endpoint = endpoint.transpose()?.or(settings.ec2_endpoint);
        let proxies = Proxies {
            http: settings.http_proxy,
            https: settings.https_proxy,
            except: settings.no_proxy,
        };
        let roots = Roots::of(settings.ca_bundle);
        let profiles = self.profile.iter().cloned().map(Identity::Profile);
        let roles = self.role.iter().cloned().map(Identity::Role);
        let mut identities: Vec<_> = profiles.chain(roles).collect();
        if identities.is_empty() {
            identities.push(Identity::Default);
        }
        let caller = |identity: &Identity, region: Option<String>| Caller {
            identity: identity.clone(),
            region,
            endpoint: endpoint.clone(),
            proxies: proxies.clone(),
            roots: roots.clone(),
            http_timeout: settings.http_timeout,
        };
        let each = identities
            .iter()
            .flat_map(|identity| regions.iter().map(move |region| (identity, region.clone())));
        Ok(each.map(|(identity, region)| caller(identity, region)).collect())
    }
}

/// The text of `file`, of at most so many bytes.
pub(crate) fn read(file: &Path, longest: u64) -> io::Result<String> {
    let mut text = String::new();
    File::open(file)?.take(longest + 1).read_to_string(&mut text)?;
    match text.len() as u64 > longest {
        true => Err(io::Error::other(format!("it has more than {longest} bytes"))),
        false => Ok(text),
    }
}

#[derive(Deserialize)]
struct ClusterStatus {
    nodes: Vec<NodeStatus>,
}

#[derive(Deserialize)]
struct NodeStatus {
    node: String,
    /// Why it has not answered.
    fault: Option<String>,
    used: u64,
}

impl PodCounts {
    /// The pods by node. A node that has not answered is not in it.
    pub(crate) fn read(&self) -> Result<Pods, Failure> {
        let mut pods = Pods { otherwise: self.pods_per_node, ..Pods::default() };
        for file in &self.cluster_status {
            let path = file.display();
            let text = read(file, LONGEST).with_context(|| format!("read {path}"))?;
            let ClusterStatus { nodes } = serde_json::from_str(&text)
                .with_context(|| format!("read {path} as JSON of `tidepool cluster`"))?;
            let answers = nodes.into_iter().filter(|node| node.fault.is_none());
            pods.by_node.extend(answers.map(|node| (node.node, node.used)));
        }
        Ok(pods)
    }
}
