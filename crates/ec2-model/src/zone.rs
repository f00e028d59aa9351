//! Names that follow from the region: zones and their ids, ARNs, host names.

use std::net::Ipv4Addr;

use crate::id::InstanceId;

/// `us-east-1a`
pub(crate) fn zone_name(region: &str, letter: char) -> String {
    format!("{region}{letter}")
}

/// `use1-az1` for `us-east-1` and `a`. In AWS the number differs between accounts.
pub(crate) fn zone_id(region: &str, letter: char) -> String {
    let number = u32::from(letter).saturating_sub(u32::from('a')) + 1;
    format!("{}-az{number}", region_code(region))
}

/// `use1` for `us-east-1`, `apse2` for `ap-southeast-2`.
fn region_code(region: &str) -> String {
    let short = |part: &str| match part {
        "northeast" => "ne".to_owned(),
        "northwest" => "nw".to_owned(),
        "southeast" => "se".to_owned(),
        "southwest" => "sw".to_owned(),
        "north" | "south" | "east" | "west" | "central" | "gov" => part[..1].to_owned(),
        other => other.to_owned(),
    };
    region.split('-').map(short).collect()
}

/// `ip-10-0-2-157.ec2.internal`, or with the region's domain outside us-east-1.
pub(crate) fn host_name(region: &str, address: Ipv4Addr) -> String {
    let [a, b, c, d] = address.octets();
    format!("ip-{a}-{b}-{c}-{d}.{}", domain(region))
}

/// `i-0a1b2c3d.ec2.internal`, the name of an instance without an IPv4 address.
/// <https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/ec2-instance-naming.html>
pub(crate) fn resource_name(region: &str, instance: &InstanceId) -> String {
    format!("{instance}.{}", domain(region))
}

fn domain(region: &str) -> String {
    match region {
        "us-east-1" => "ec2.internal".to_owned(),
        _ => format!("{region}.compute.internal"),
    }
}

/// `aws`, or the name for China and the US government regions.
pub(crate) fn partition(region: &str) -> &'static str {
    match region {
        region if region.starts_with("cn-") => "aws-cn",
        region if region.starts_with("us-gov-") => "aws-us-gov",
        _ => "aws",
    }
}

/// `arn:aws:ec2:us-east-1:111122223333:subnet/subnet-…`
pub(crate) fn arn(region: &str, account: &str, resource: &str, id: &str) -> String {
    format!("arn:{}:ec2:{region}:{account}:{resource}/{id}", partition(region))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn region_determines_names() {
        assert_eq!(zone_name("us-east-1", 'b'), "us-east-1b");
        assert_eq!(zone_id("us-east-1", 'a'), "use1-az1");
        assert_eq!(zone_id("ap-southeast-2", 'c'), "apse2-az3");
        assert_eq!(zone_id("us-gov-west-1", 'a'), "usgw1-az1");
        let host = Ipv4Addr::new(10, 0, 2, 157);
        assert_eq!(host_name("us-east-1", host), "ip-10-0-2-157.ec2.internal");
        assert_eq!(host_name("eu-west-1", host), "ip-10-0-2-157.eu-west-1.compute.internal");
        let instance = InstanceId::from_number(7);
        assert_eq!(resource_name("us-east-1", &instance), format!("{instance}.ec2.internal"));
        assert_eq!(
            arn("cn-north-1", "1", "subnet", "subnet-0a1b2c3d"),
            "arn:aws-cn:ec2:cn-north-1:1:subnet/subnet-0a1b2c3d"
        );
    }
}
