//! Network ACLs on the wire.

use ec2_model::ApiError;
use ec2_model::request::DescribeNetworkAcls;
use ec2_model::response::NetworkAcl;

use super::{Params, Read, Xml, dry_run, listing};

impl Read for DescribeNetworkAcls {
    fn read(params: &mut Params) -> Result<Self, ApiError> {
        Ok(Self {
            network_acl_ids: params.list("NetworkAclId")?,
            listing: listing(params)?,
            dry_run: dry_run(params)?,
        })
    }
}

/// The rule that lets everything pass, and the last one, which nothing reaches. Those of IPv6
/// follow. <https://docs.aws.amazon.com/vpc/latest/userguide/default-network-acl.html>
const RULES: [(u16, &str, &str, &str); 4] = [
    (100, "allow", "cidrBlock", "0.0.0.0/0"),
    (32_767, "deny", "cidrBlock", "0.0.0.0/0"),
    (101, "allow", "ipv6CidrBlock", "::/0"),
    (32_768, "deny", "ipv6CidrBlock", "::/0"),
];

pub(super) fn network_acl(xml: &mut Xml, acl: &NetworkAcl) {
    xml.text("networkAclId", &acl.id);
    xml.text("vpcId", &acl.vpc_id);
    xml.text("ownerId", &acl.owner_id);
    xml.text("default", true);
    let n_rules = if acl.has_ipv6 { 4 } else { 2 };
    let entries = RULES.iter().take(n_rules).flat_map(|rule| [(rule, true), (rule, false)]);
    xml.set("entrySet", entries, |xml, ((number, action, member, cidr), egress)| {
        xml.text("ruleNumber", number);
        xml.text("protocol", "-1");
        xml.text("ruleAction", action);
        xml.text("egress", egress);
        xml.text(member, cidr);
    });
    xml.set("associationSet", &acl.subnets, |xml, (id, subnet)| {
        xml.text("networkAclAssociationId", id);
        xml.text("networkAclId", &acl.id);
        xml.text("subnetId", subnet);
    });
    xml.node("tagSet", |_none| {});
}
