//! The model: what a client, an operator and the network see of it.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use crate::calls::CallLog;
use crate::config::Config;
use crate::error::ApiError;
use crate::fabric::Fabric;
use crate::fault::{Disturbance, FaultId, FaultRule};
use crate::id::{InstanceId, SecurityGroupId, SubnetId, VpcId};
use crate::request::Request;
use crate::response::Response;
use crate::seed::{InstanceSeed, SecurityGroupSeed, SubnetSeed, VpcSeed};
use crate::time::Timestamp;

/// Who calls, where and when.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Context {
    /// Owner of what the call creates, and of the token buckets that it draws from.
    pub account: String,
    /// The region of the credential scope.
    pub region: String,
    /// Never earlier than in the call before.
    pub now: Timestamp,
    /// As the client gave them; for the log only.
    pub parameters: BTreeMap<String, String>,
}

/// What becomes of the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Delivery {
    /// The client may see it so much later; zero unless latency is switched on.
    After(Duration),
    /// The client never sees it: close the connection.
    Lost,
}

/// The answer to a call, whose effects have happened.
#[derive(Debug, Clone, PartialEq)]
pub struct Reply {
    /// What EC2 answers.
    pub result: Result<Response, ApiError>,
    /// When, if at all.
    pub delivery: Delivery,
}

/// EC2's networking of one region, and the IMDS of its instances.
#[derive(Debug)]
pub struct Model {
    config: Config,
    log: CallLog,
}

impl Model {
    /// An empty region.
    #[must_use]
    pub fn new(config: Config) -> Self {
        Self { log: CallLog::new(config.log_capacity), config }
    }

    /// What it was made with.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Replaces the switches from now on; what is under way keeps its course.
    pub fn reconfigure(&mut self, config: Config) {
        self.config = config;
    }

    /// One call: throttling, faults, the operation, the log.
    pub fn call(&mut self, context: &Context, request: Request) -> Reply {
        let error = ApiError::invalid_action(request.action().as_str());
        self.refuse(context, request.action().as_str(), error)
    }

    /// One call that could not even be decoded: draws a token as any other, is logged, and
    /// answers `error`. `action` is as the client named it.
    pub fn refuse(&mut self, context: &Context, action: &str, error: ApiError) -> Reply {
        let _ = (context, action);
        Reply { result: Err(error), delivery: Delivery::After(Duration::ZERO) }
    }

    /// Lets happen what is due until `now`. Every other method that takes a time does it, too.
    pub fn advance(&mut self, now: Timestamp) {
        let _ = now;
    }

    /// When something will change of itself next.
    #[must_use]
    pub fn wake_at(&self) -> Option<Timestamp> {
        None
    }

    /// What IMDS of an instance answers to a GET of `path` (`/latest/meta-data/mac`), `None` being
    /// 404. Tokens are not its business.
    pub fn imds(&mut self, instance: &InstanceId, path: &str, now: Timestamp) -> Option<String> {
        let _ = (instance, path, now);
        None
    }

    /// What the network has to look like.
    pub fn fabric(&mut self, now: Timestamp) -> Fabric {
        self.advance(now);
        Fabric::default()
    }

    /// The instance that has this address, alone or in a prefix, on an attached ENI.
    #[must_use]
    pub fn instance_of(&self, address: IpAddr) -> Option<InstanceId> {
        let _ = address;
        None
    }

    /// The calls so far.
    #[must_use]
    pub fn log(&self) -> &CallLog {
        &self.log
    }

    /// The same, to be cleared.
    pub fn log_mut(&mut self) -> &mut CallLog {
        &mut self.log
    }

    /// From now on calls go wrong by this rule. If several rules hit one call, all count; of
    /// several failures the oldest rule's.
    pub fn add_fault(&mut self, rule: FaultRule) -> FaultId {
        let _ = rule;
        FaultId(0)
    }

    /// Drops a rule; false if there is none of this id.
    pub fn remove_fault(&mut self, id: FaultId) -> bool {
        let _ = id;
        false
    }

    /// The rules, spent ones included, with how many calls each has hit.
    pub fn faults(&self) -> impl Iterator<Item = (FaultId, &FaultRule, u64)> {
        std::iter::empty()
    }

    /// Lets something happen behind the client's back.
    ///
    /// # Errors
    /// As the call that would do the same; then nothing has happened.
    pub fn disturb(&mut self, disturbance: Disturbance, now: Timestamp) -> Result<(), ApiError> {
        let _ = disturbance;
        self.advance(now);
        Ok(())
    }

    /// Adds a VPC with its default security group.
    ///
    /// # Errors
    /// As CreateVpc, or if the id is taken.
    pub fn add_vpc(&mut self, seed: VpcSeed) -> Result<VpcId, ApiError> {
        Ok(seed.id.unwrap_or_else(|| VpcId::from_number(0)))
    }

    /// Adds a subnet.
    ///
    /// # Errors
    /// As CreateSubnet, or if the id is taken, or a used address is outside or reserved.
    pub fn add_subnet(&mut self, seed: SubnetSeed) -> Result<SubnetId, ApiError> {
        Ok(seed.id.unwrap_or_else(|| SubnetId::from_number(0)))
    }

    /// Adds a security group.
    ///
    /// # Errors
    /// If there is no such VPC, or the id or the name is taken.
    pub fn add_security_group(
        &mut self,
        seed: SecurityGroupSeed,
    ) -> Result<SecurityGroupId, ApiError> {
        Ok(seed.id.unwrap_or_else(|| SecurityGroupId::from_number(0)))
    }

    /// Adds a running instance with its primary ENI, which goes with it when it is terminated.
    ///
    /// # Errors
    /// As RunInstances, or if the id is taken.
    pub fn add_instance(
        &mut self,
        seed: InstanceSeed,
        now: Timestamp,
    ) -> Result<InstanceId, ApiError> {
        self.advance(now);
        Ok(seed.id.unwrap_or_else(|| InstanceId::from_number(0)))
    }
}
