//! Token buckets, one per account and operation, with the sizes that AWS documents.
//!
//! Source: <https://docs.aws.amazon.com/ec2/latest/devguide/ec2-api-throttling.html>, as of 2026.

use std::collections::BTreeMap;

use crate::error::ApiError;
use crate::request::{Action, Listing, Request};
use crate::time::SimTime;

/// The size of a token bucket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BucketSize {
    /// Tokens in a full bucket. A bucket starts full.
    pub capacity: u64,
    /// Tokens refilled per second.
    pub per_second: u64,
}

impl BucketSize {
    /// The bucket that each call of `action` takes one token from. A Describe call without filter
    /// and page takes from another one.
    #[must_use]
    pub fn of(action: Action) -> Self {
        call_size(action)
    }
}

const fn size(capacity: u64, per_second: u64) -> BucketSize {
    BucketSize { capacity, per_second }
}

/// The bucket's purpose.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Purpose {
    /// One token per call.
    Call,
    /// One token per Describe call without filter and page, for operations with large listings.
    WideCall,
    /// One token per instance that the call starts or terminates.
    Resource,
}

fn size_of(action: Action, purpose: Purpose) -> BucketSize {
    match (action, purpose) {
        (_, Purpose::WideCall) => size(50, 10),
        (Action::RunInstances, Purpose::Resource) => size(1000, 2),
        (_, Purpose::Resource) => size(1000, 20),
        (action, Purpose::Call) => call_size(action),
    }
}

fn call_size(action: Action) -> BucketSize {
    match action {
        Action::DescribeInstances
        | Action::DescribeInstanceTypes
        | Action::DescribeSubnets
        | Action::DescribeVpcs
        | Action::DescribeSecurityGroups
        | Action::DescribeAvailabilityZones
        | Action::DescribeNetworkInterfaces
        | Action::DescribeTags
        | Action::DescribeRouteTables
        | Action::DescribeVpcAttribute
        | Action::DescribeNetworkAcls
        | Action::GetSubnetCidrReservations => size(100, 20),
        Action::Plan(_) if action.only_reads() => size(100, 20),
        Action::AttachNetworkInterface
        | Action::DetachNetworkInterface
        | Action::UnassignIpv6Addresses
        | Action::CreateVpc
        | Action::AllocateAddress
        | Action::AssociateAddress
        | Action::DisassociateAddress
        | Action::CreateSubnet
        | Action::AssociateVpcCidrBlock
        | Action::DeleteVpc
        | Action::DeleteSubnet
        | Action::DisassociateVpcCidrBlock
        | Action::ModifyVpcAttribute
        | Action::ModifySubnetAttribute
        | Action::Plan(_) => size(50, 5),
        Action::AssignPrivateIpAddresses
        | Action::UnassignPrivateIpAddresses
        | Action::AssignIpv6Addresses
        | Action::CreateNetworkInterface
        | Action::DeleteNetworkInterface
        | Action::ModifyNetworkInterfaceAttribute
        | Action::TerminateInstances => size(100, 5),
        Action::CreateTags | Action::DeleteTags => size(100, 10),
        Action::CreateSubnetCidrReservation | Action::DeleteSubnetCidrReservation => size(5, 1),
        Action::RunInstances => size(5, 2),
    }
}

/// The tokens that a request takes, by purpose.
fn draws(request: &Request) -> Vec<(Purpose, u64)> {
    let wide = matches!(request, Request::DescribeInstances(r)
            if r.instance_ids.is_empty() && is_wide(&r.listing))
        || matches!(request, Request::DescribeNetworkInterfaces(r)
            if r.network_interface_ids.is_empty() && is_wide(&r.listing))
        || matches!(request, Request::DescribeSecurityGroups(r)
            if r.group_ids.is_empty() && r.group_names.is_empty() && is_wide(&r.listing));
    let resources = if let Request::RunInstances(r) = request {
        u64::try_from(r.max_count).unwrap_or(0)
    } else if let Request::TerminateInstances(r) = request {
        u64::try_from(r.instance_ids.len()).unwrap_or(u64::MAX)
    } else {
        0
    };
    let call = if wide { Purpose::WideCall } else { Purpose::Call };
    [(call, 1), (Purpose::Resource, resources)].into_iter().filter(|(_, n)| *n > 0).collect()
}

fn is_wide(listing: &Listing) -> bool {
    listing.filters.is_empty() && listing.max_results.is_none() && listing.next_token.is_none()
}

/// Counts thousandths of a token, so that a refill per millisecond loses nothing.
#[derive(Debug, Clone, Copy)]
struct Bucket {
    millitokens: u64,
    filled_at: SimTime,
}

impl Bucket {
    fn refill(&mut self, size: BucketSize, now: SimTime) {
        let elapsed = u64::try_from(now.since(self.filled_at).as_millis()).unwrap_or(u64::MAX);
        let gained = elapsed.saturating_mul(size.per_second);
        self.millitokens = self.millitokens.saturating_add(gained).min(size.capacity * 1000);
        self.filled_at = self.filled_at.max(now);
    }
}

/// The buckets of all accounts.
#[derive(Debug, Default)]
pub(crate) struct Throttle {
    buckets: BTreeMap<(String, Action, Purpose), Bucket>,
}

impl Throttle {
    /// Takes the tokens of a request, all of them or none.
    pub(crate) fn draw(
        &mut self,
        account: &str,
        request: &Request,
        now: SimTime,
    ) -> Result<(), ApiError> {
        self.take(account, request.action(), &draws(request), now)
    }

    /// Takes the token of a request that could not be decoded.
    pub(crate) fn draw_undecoded(
        &mut self,
        account: &str,
        action: Action,
        now: SimTime,
    ) -> Result<(), ApiError> {
        self.take(account, action, &[(Purpose::Call, 1)], now)
    }

    fn take(
        &mut self,
        account: &str,
        action: Action,
        draws: &[(Purpose, u64)],
        now: SimTime,
    ) -> Result<(), ApiError> {
        let enough = draws.iter().all(|(purpose, n)| {
            self.bucket(account, action, *purpose, now).millitokens >= n.saturating_mul(1000)
        });
        if !enough {
            return Err(throttled(account, action));
        }
        for (purpose, n) in draws {
            self.bucket(account, action, *purpose, now).millitokens -= n * 1000;
        }
        Ok(())
    }

    /// The bucket after its refill until `now`. A new bucket is full.
    fn bucket(
        &mut self,
        account: &str,
        action: Action,
        purpose: Purpose,
        now: SimTime,
    ) -> &mut Bucket {
        let size = size_of(action, purpose);
        let full = Bucket { millitokens: size.capacity * 1000, filled_at: now };
        let key = (account.to_owned(), action, purpose);
        let bucket = self.buckets.entry(key).or_insert(full);
        bucket.refill(size, now);
        bucket
    }
}

fn throttled(account: &str, action: Action) -> ApiError {
    let text = format!(
        "Request limit exceeded. Account {account} has been throttled on ec2:{action} because it \
         exceeded its request rate limit."
    );
    ApiError::new("RequestLimitExceeded", text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::InstanceId;
    use crate::request::{
        DescribeNetworkInterfaces, DescribeVpcs, RunInstances, TerminateInstances,
    };

    /// How many calls pass in a burst, and how many more one second later.
    fn burst(request: &Request) -> (usize, usize) {
        let mut throttle = Throttle::default();
        let mut pass = |now: u64| {
            let now = SimTime::from_unix_millis(now);
            (0..2000).filter(|_| throttle.draw("1", request, now).is_ok()).count()
        };
        (pass(1_000), pass(2_000))
    }

    #[test]
    fn buckets_have_documented_sizes() {
        let wide = DescribeNetworkInterfaces::default();
        let listing = Listing { max_results: Some(1000), ..Listing::default() };
        let paged = DescribeNetworkInterfaces { listing, ..wide.clone() };
        let ids = vec![InstanceId::from_number(1); 100];
        assert_eq!(burst(&wide.into()), (50, 10));
        assert_eq!(burst(&paged.into()), (100, 20));
        assert_eq!(burst(&DescribeVpcs::default().into()), (100, 20));
        assert_eq!(burst(&RunInstances { max_count: 1, ..Default::default() }.into()), (5, 2));
        // The bucket for instances limits this: 1,000 tokens, and 20 per second.
        let terminate = TerminateInstances { instance_ids: ids, dry_run: false };
        assert_eq!(burst(&terminate.into()), (10, 0));
    }

    #[test]
    fn accounts_and_actions_have_own_buckets() {
        let mut throttle = Throttle::default();
        let now = SimTime::from_unix_millis(0);
        let reservation = Action::CreateSubnetCidrReservation;
        for _ in 0..5 {
            assert_eq!(throttle.draw_undecoded("1", reservation, now), Ok(()));
        }
        let error = throttle.draw_undecoded("1", reservation, now).unwrap_err();
        assert_eq!((error.code.as_str(), error.status), ("RequestLimitExceeded", 503));
        assert_eq!(throttle.draw_undecoded("2", reservation, now), Ok(()));
        assert_eq!(throttle.draw_undecoded("1", Action::CreateTags, now), Ok(()));
        // Half a token is not enough.
        let later = SimTime::from_unix_millis(999);
        assert!(throttle.draw_undecoded("1", reservation, later).is_err());
        let later = SimTime::from_unix_millis(1000);
        assert_eq!(throttle.draw_undecoded("1", reservation, later), Ok(()));
    }
}
