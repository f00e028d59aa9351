//! The ids of Amazon VPC IPAM, accounts, Regions, and ids of resources elsewhere in EC2.

use std::fmt;
use std::str::FromStr;

use ec2_api::{ApiError, id};

id!(
    /// An IPAM.
    IpamId, "ipam", "InvalidIpamId.Malformed"
);
id!(
    /// A scope: one routing domain.
    ScopeId, "ipam-scope", "InvalidIpamScopeId.Malformed"
);
id!(
    /// A pool.
    PoolId, "ipam-pool", "InvalidIpamPoolId.Malformed"
);
id!(
    /// A CIDR provisioned to a pool.
    PoolCidrId, "ipam-pool-cidr", "InvalidIpamPoolCidrId.Malformed", 33
);
id!(
    /// An allocation of a pool. Ids seen in real accounts have 33 digits
    /// (<https://github.com/hashicorp/terraform-provider-aws/issues/28913>).
    AllocationId, "ipam-pool-alloc", "InvalidIpamPoolAllocationId.Malformed", 33
);
id!(
    /// A resource discovery.
    DiscoveryId, "ipam-res-disco", "InvalidIpamResourceDiscoveryId.Malformed"
);
id!(
    /// The association of a resource discovery with an IPAM.
    AssociationId, "ipam-res-disco-assoc", "InvalidIpamResourceDiscoveryAssociationId.Malformed"
);

/// Declares a newtype of text with a check of its form.
macro_rules! text {
    ($(#[$doc:meta])* $name:ident, $parameter:literal, $is_valid:expr) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(String);

        impl $name {
            /// The text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = ApiError;

            fn from_str(text: &str) -> Result<Self, ApiError> {
                let is_valid: fn(&str) -> bool = $is_valid;
                match is_valid(text) {
                    true => Ok(Self(text.to_owned())),
                    false => Err(ApiError::invalid_value(text, $parameter, "")),
                }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

text!(
    /// An AWS account: twelve digits.
    Account, "accountId", |text| text.len() == 12 && text.bytes().all(|byte| byte.is_ascii_digit())
);
text!(
    /// An AWS Region, for example `eu-west-1`.
    Region, "regionName", |text| {
        let mut parts = text.split('-').collect::<Vec<_>>();
        let number = parts.pop().unwrap_or_default();
        let is_word = |part: &&str| {
            !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_lowercase())
        };
        !number.is_empty()
            && number.bytes().all(|byte| byte.is_ascii_digit())
            && parts.len() >= 2
            && parts.iter().all(is_word)
    }
);
text!(
    /// A VPC, subnet, ENI or Elastic IP address, by the id that EC2 gave it.
    ResourceId, "resourceId", |text| {
        let digits = text.rsplit_once('-').map_or("", |(_, digits)| digits);
        text.len() <= 64
            && !digits.is_empty()
            && digits.bytes().all(|byte| byte.is_ascii_hexdigit())
    }
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms_are_checked() {
        let check = |result: Result<(), ApiError>, expect: Result<(), &str>| {
            let got = result.map_err(|error| error.code);
            assert_eq!(got, expect.map_err(str::to_owned));
        };
        let ok = |_: &str| ();
        check("eu-west-1".parse::<Region>().map(|it| ok(it.as_str())), Ok(()));
        check("us-gov-west-1".parse::<Region>().map(|it| ok(it.as_str())), Ok(()));
        for text in ["", "eu", "eu-west", "eu-1", "Eu-West-1", "eu--1", "eu-west-1a"] {
            let got = text.parse::<Region>().map(|it| ok(it.as_str()));
            check(got, Err("InvalidParameterValue"));
        }
        check("111122223333".parse::<Account>().map(|it| ok(it.as_str())), Ok(()));
        check("11112222333".parse::<Account>().map(|_| ()), Err("InvalidParameterValue"));
        check("vpc-0a1b".parse::<ResourceId>().map(|_| ()), Ok(()));
        check("vpc-".parse::<ResourceId>().map(|_| ()), Err("InvalidParameterValue"));
        check("ipam-pool-1".parse::<PoolId>().map(|_| ()), Err("InvalidIpamPoolId.Malformed"));
        let id = AllocationId::from_number(u128::MAX);
        assert_eq!(id.as_str().len(), "ipam-pool-alloc-".len() + 33);
        check(id.as_str().parse::<AllocationId>().map(|_| ()), Ok(()));
    }
}
