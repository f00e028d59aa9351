//! EC2 for one node, in memory: it executes each call of an engine at once.
//!
//! For tests of the programs around an engine. A simulation uses [`cloud`](crate::cloud), whose
//! calls take time. Errors, latency and lost answers are the caller's to add.

use ec2_model::config::{AddressChoice, Consistency, Latency, Throttling};
use ec2_model::id::InstanceId;
use ec2_model::response::Response;
use ipam::call::{CallError, CallOutput, Ec2Call};
use ipam::time::Timestamp;

use crate::cloud::{Cloud, SetupError, Site};
use crate::ec2;
use crate::spec::{NodeSpec, VpcSpec};

/// A VPC with one subnet, 10.0.0.0/16, and one running instance. EC2 has its limits, and neither
/// throttling nor delays nor staleness.
#[derive(Debug)]
pub struct NodeEc2 {
    cloud: Cloud,
    site: Site,
}

impl NodeEc2 {
    /// An instance with this id and its primary ENI.
    ///
    /// # Errors
    ///
    /// If the instance type is unknown.
    pub fn new(instance: InstanceId, spec: &NodeSpec) -> Result<Self, SetupError> {
        let vpc = VpcSpec {
            throttling: Throttling::Off,
            latency: Latency::default(),
            consistency: Consistency::default(),
            address_choice: AddressChoice::Random,
            ..VpcSpec::wide()
        };
        let mut cloud = Cloud::new(&vpc, 0)?;
        let site = cloud.join_as(Some(instance), spec, Timestamp::default())?;
        Ok(Self { cloud, site })
    }

    /// The instance and its place in the VPC.
    #[must_use]
    pub fn site(&self) -> &Site {
        &self.site
    }

    /// Executes a call. A call with several requests executes them in order.
    ///
    /// # Errors
    ///
    /// EC2's error, classified as the engine needs it.
    pub fn execute(&mut self, call: &Ec2Call) -> Result<CallOutput, CallError> {
        let instance = &self.site.instance;
        let (mut enis, mut last) = (Vec::new(), None);
        for request in ec2::requests(call, &self.site) {
            if let Some(Response::NetworkInterfaces(page)) = last {
                enis.extend(ec2::enis_of(&page.items, instance));
            }
            // Nothing takes time, so time need not pass.
            let (result, _) = self.cloud.call(instance, &request, Timestamp::default());
            last = Some(*result.map_err(ec2::error)?);
        }
        ec2::output(last.expect("each call has a request"), enis, instance)
    }

    /// How many requests of this action arrived, successful or not. `action` is EC2's name, for
    /// example `CreateNetworkInterface`.
    #[must_use]
    pub fn n_requests(&self, action: &str) -> u64 {
        let counts = self.cloud.calls().iter().find(|(it, _)| it.as_str() == action);
        counts.map_or(0, |(_, counts)| counts.granted + counts.throttled + counts.refused)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use ipam::block::BlockKind;
    use ipam::call::CallErrorKind;
    use ipam::connection_tracking::ConnectionTracking;

    use super::*;
    use crate::scenario::{Scenario, Size};

    fn ec2() -> NodeEc2 {
        let setup = Scenario::named("scale-in").unwrap().cases(Size::Small).remove(0).setup;
        NodeEc2::new(InstanceId::from_number(1), &setup.node_specs[0]).unwrap()
    }

    #[test]
    fn eni_lives_from_creation_to_deletion() {
        let mut ec2 = ec2();
        let create = Ec2Call::CreateEni {
            subnet: ec2::ipam_id(ec2.site().subnet.as_str()),
            security_groups: BTreeSet::new(),
            connection_tracking: ConnectionTracking::default(),
            blocks: BlockKind::V4Address.times(2),
            description: String::new(),
            tags: BTreeMap::new(),
            client_token: "token".to_owned(),
        };
        let created = ec2.execute(&create).unwrap();
        assert_eq!(ec2.execute(&create), Ok(created.clone()), "the token makes it one ENI");
        let CallOutput::Created(eni) = created else { panic!("{created:?}") };
        assert_eq!(eni.blocks.len(), 2);
        let attach = Ec2Call::AttachEni { eni: eni.id.clone(), device_index: 1 };
        let CallOutput::Attached(attachment) = ec2.execute(&attach).unwrap() else { panic!() };
        let CallOutput::Enis(enis) = ec2.execute(&Ec2Call::DescribeEnis).unwrap() else { panic!() };
        assert_eq!(enis.len(), 2);
        let delete = Ec2Call::DeleteEni { eni: eni.id.clone() };
        assert_eq!(ec2.execute(&delete).unwrap_err().kind, CallErrorKind::InUse);
        ec2.execute(&Ec2Call::DetachEni { eni: eni.id, attachment }).unwrap();
        assert_eq!(ec2.execute(&delete), Ok(CallOutput::Done));
        assert_eq!(ec2.execute(&delete).unwrap_err().kind, CallErrorKind::NotFound);
        assert_eq!(ec2.n_requests("CreateNetworkInterface"), 2);
    }

    #[test]
    fn instance_type_limits_addresses() {
        let mut ec2 = ec2();
        let eni = ec2::ipam_id(ec2.site().primary_eni.as_str());
        let assign = |n| Ec2Call::Assign {
            eni: ipam::id::EniId::clone(&eni),
            blocks: BlockKind::V4Address.times(n),
        };
        assert!(ec2.execute(&assign(14)).is_ok());
        assert_eq!(ec2.execute(&assign(1)).unwrap_err().kind, CallErrorKind::AddressLimit);
    }

    #[test]
    fn unattached_enis_are_found_by_cluster() {
        let mut ec2 = ec2();
        let call = Ec2Call::DescribeUnattached { cluster: "ours".to_owned() };
        assert_eq!(ec2.execute(&call), Ok(CallOutput::Enis(Vec::new())));
    }
}
