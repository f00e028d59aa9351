//! Step 2: VPCs. One takes its range from the pool, one is made by hand, and the audit tells them apart.

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};
use tests::sim::element;

use crate::organization::{AWAY, Account, HOME, NETWORK, Organization, SHOP, Tags};
use crate::plan::Pools;

/// The cluster's VPC.
#[derive(Debug)]
pub(crate) struct Vpc {
    pub(crate) id: String,
    /// The subnet of its nodes.
    pub(crate) subnet: String,
}

/// Makes the cluster's VPC from the pool, and its subnets.
pub(crate) async fn take(organization: &Organization<'_>, pools: &Pools) -> Result<Vpc> {
    let story = organization.story;
    story.act(
        "2. the account shop takes a VPC from the pool, by length alone, and cuts it into subnets",
    );
    let (id, range) = vpc_from(organization, SHOP, HOME, &pools.home, "27").await?;
    ensure!(range == "10.0.0.0/27", "{id} has {range}");
    let mut subnets = vec![];
    for (zone, cidr) in [("us-east-1a", "10.0.0.0/28"), ("us-east-1b", "10.0.0.16/28")] {
        let parameters = [("VpcId", id.as_str()), ("AvailabilityZone", zone), ("CidrBlock", cidr)];
        let made = organization.call(SHOP, HOME, "CreateSubnet", &parameters).await?;
        let (subnet, free) =
            (element(&made, "subnetId")?, element(&made, "availableIpAddressCount")?);
        ensure!(free == "11", "{made}");
        story.good(&format!("{subnet} {cidr} in {zone}: {free} addresses"));
        subnets.push(subnet);
    }
    let allocations = [("IpamPoolId", pools.home.as_str())];
    let held = organization.call(NETWORK, HOME, "GetIpamPoolAllocations", &allocations).await?;
    let owner = element(&held, "resourceOwner")?;
    ensure!(element(&held, "resourceId")? == id && owner == SHOP.id, "{held}");
    story.good(&format!("the pool shows the administrator who holds {range}: {id} of {owner}"));
    Ok(Vpc { id, subnet: subnets.swap_remove(0) })
}

/// Makes a VPC that overlaps, finds it, and carries out the cure.
pub(crate) async fn overlap_and_cure(organization: &Organization<'_>, pools: &Pools) -> Result<()> {
    let story = organization.story;
    story.act("a VPC by hand, past the pool, overlaps; the audit finds it, with the cure");
    let tags = Tags { of: "vpc", tags: &[("Name", "by-hand")] };
    let range = [("CidrBlock", "10.0.0.0/20")];
    let made = organization.call_with(NETWORK, AWAY, "CreateVpc", &range, tags).await?;
    let by_hand = element(&made, "vpcId")?;
    let audit = organization.ipam(&["audit", "--save", "before.json"]).await?;
    audit.show();
    let found = findings(organization, "before.json").await?;
    let [finding] = found.as_slice() else { bail!("not one finding: {found:?}") };
    ensure!(finding["code"] == "overlap" && audit.code == 0, "{}: {finding}", audit.code);
    let (what, cure) = (finding["what"].as_str(), finding["cure"].as_str());
    let (what, cure) = (what.context("no text")?, cure.context("no cure")?);
    for part in [what, cure] {
        ensure!(audit.text.contains(part), "the table does not say {part:?}");
    }
    ensure!(what.contains(&by_hand) && cure.contains(&by_hand), "{finding}");
    story.good(&format!("exit code {}, one warning", audit.code));

    organization.call(NETWORK, AWAY, "DeleteVpc", &[("VpcId", &by_hand)]).await?;
    let (_, range) = vpc_from(organization, NETWORK, AWAY, &pools.away, "20").await?;
    ensure!(range == "10.16.0.0/20", "{range}");
    organization.ipam(&["audit", "--save", "after.json"]).await?;
    let found = findings(organization, "after.json").await?;
    ensure!(found.iter().all(|finding| finding["code"] != "overlap"), "{found:?}");
    story.good("no overlap is left");
    Ok(())
}

async fn findings(organization: &Organization<'_>, inventory: &str) -> Result<Vec<Value>> {
    let audit = ["audit", "--from", inventory, "--output", "json"];
    let audit = organization.tidepool(&audit).await?.json()?;
    let findings = audit["findings"].as_array().context("no findings")?;
    Ok(findings.iter().filter(|finding| finding["severity"] != json!("notice")).cloned().collect())
}

/// Makes a VPC of a prefix length from a pool. Gives its id and its range.
async fn vpc_from(
    organization: &Organization<'_>,
    account: Account,
    region: &str,
    pool: &str,
    length: &str,
) -> Result<(String, String)> {
    let parameters = [("Ipv4IpamPoolId", pool), ("Ipv4NetmaskLength", length)];
    let tags = Tags { of: "vpc", tags: &[("Name", account.name)] };
    let made = organization.call_with(account, region, "CreateVpc", &parameters, tags).await?;
    let (id, cidr) = (element(&made, "vpcId")?, element(&made, "cidrBlock")?);
    organization.story.good(&format!("{id} has {cidr}, the lowest that is free"));
    Ok((id, cidr))
}
