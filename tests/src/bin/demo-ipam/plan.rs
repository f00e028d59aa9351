//! Step 1: the address plan. One IPAM, a pool for everything, and below it a pool for each Region.

use anyhow::{Result, ensure};
use tests::sim::element;

use crate::organization::{AWAY, HOME, NETWORK, Organization, SHOP};

/// The range of the whole organisation.
const SPACE: &str = "10.0.0.0/8";

/// The pools of the Regions.
#[derive(Debug)]
pub(crate) struct Pools {
    /// That of the cluster's Region, which is shared with its account.
    pub(crate) home: String,
    /// That of the other Region.
    pub(crate) away: String,
}

/// Makes IPAM and pools.
pub(crate) async fn make(organization: &Organization<'_>) -> Result<Pools> {
    let story = organization.story;
    story.act("1. an empty organisation: two accounts, two Regions, no VPC. An IPAM with pools");
    let administrator = [("DelegatedAdminAccountId", NETWORK.id)];
    organization.call(SHOP, HOME, "EnableIpamOrganizationAdminAccount", &administrator).await?;
    let regions = [("OperatingRegion.1.RegionName", HOME), ("OperatingRegion.2.RegionName", AWAY)];
    let ipam = organization.call(NETWORK, HOME, "CreateIpam", &regions).await?;
    let scope = element(&ipam, "privateDefaultScopeId")?;
    let top = create(organization, &[("IpamScopeId", &scope)]).await?;
    provision(organization, &top, ("Cidr", SPACE), SPACE).await?;
    let home = regional(organization, (&scope, &top), HOME, "10.0.0.0/12").await?;
    let away = regional(organization, (&scope, &top), AWAY, "10.16.0.0/12").await?;
    organization.sim.share(&home, SHOP.id).await?;
    let seen = organization.call(SHOP, HOME, "DescribeIpamPools", &[]).await?;
    ensure!(seen.contains(&home) && !seen.contains(&away), "shop does not see its pool: {seen}");
    story.good(&format!("{home} is shared with the account shop, which sees no other pool"));
    Ok(Pools { home, away })
}

/// Makes the pool of a Region in a scope, out of another pool, and checks which range it gets.
async fn regional(
    organization: &Organization<'_>,
    (scope, source): (&str, &str),
    region: &str,
    expect: &str,
) -> Result<String> {
    let parameters = [("IpamScopeId", scope), ("SourceIpamPoolId", source), ("Locale", region)];
    let pool = create(organization, &parameters).await?;
    provision(organization, &pool, ("NetmaskLength", "12"), expect).await?;
    Ok(pool)
}

async fn create(organization: &Organization<'_>, parameters: &[(&str, &str)]) -> Result<String> {
    let parameters = [parameters, &[("AddressFamily", "ipv4")]].concat();
    let made = organization.call(NETWORK, HOME, "CreateIpamPool", &parameters).await?;
    element(&made, "ipamPoolId")
}

/// Gives a pool a range, and checks which.
async fn provision(
    organization: &Organization<'_>,
    pool: &str,
    wanted: (&str, &str),
    expect: &str,
) -> Result<()> {
    let parameters = [("IpamPoolId", pool), wanted];
    organization.call(NETWORK, HOME, "ProvisionIpamPoolCidr", &parameters).await?;
    let parameters = [("IpamPoolId", pool)];
    let cidrs = organization.call(NETWORK, HOME, "GetIpamPoolCidrs", &parameters).await?;
    let (cidr, state) = (element(&cidrs, "cidr")?, element(&cidrs, "state")?);
    ensure!((cidr.as_str(), state.as_str()) == (expect, "provisioned"), "{cidrs}");
    organization.story.good(&format!("{pool} has {cidr}"));
    Ok(())
}
