//! The model, as a client, an operator and the network see it.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use address_plan::AddressPlan;
use address_plan::resource::Sample;
use ec2_api::schedule::Schedule;

use crate::calls::{CallLog, CallRecord};
use crate::config::{Config, Throttling};
use crate::error::ApiError;
use crate::fabric::Fabric;
use crate::fault::{FaultId, FaultRule, Faults, RuleEffects};
use crate::id::InstanceId;
use crate::imds::{self, Imds};
use crate::metadata_options::MetadataOptions;
use crate::request::{Action, Request};
use crate::resources::{Resources, no_such_instances};
use crate::response::{AttachmentStatus, InstanceState, Response};
use crate::rng::Rng;
use crate::throttle::Throttle;
use crate::time::SimTime;
use crate::transition::Transition;
use crate::view::View;
use crate::visibility::Visibility;

/// The caller, the region and the time of a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Context {
    /// The account owns what the call creates, and its token buckets pay for the call.
    pub account: String,
    /// The region of the credential scope.
    pub region: String,
    /// Must not be earlier than in the previous call.
    pub now: SimTime,
    /// The parameters as the client sent them. Only the log uses them.
    pub parameters: BTreeMap<String, String>,
}

/// When the client gets the answer, if at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Delivery {
    /// The client may see the answer after this time. It is zero unless latency is switched on.
    After(Duration),
    /// The client never sees the answer: the server closes the connection.
    Lost,
}

/// The answer to a call. The effects of the call have already happened.
#[derive(Debug, Clone, PartialEq)]
pub struct Reply {
    /// What EC2 answers.
    pub result: Result<Response, ApiError>,
    /// When the client gets the result, if at all.
    pub delivery: Delivery,
}

/// EC2's networking in one region, and the IMDS of its instances. All accounts see the same
/// resources. They differ in their token buckets and in the owner of what they create.
#[derive(Debug)]
pub struct Model {
    pub(crate) config: Config,
    pub(crate) rng: Rng,
    pub(crate) resources: Resources,
    pub(crate) transitions: Schedule<Transition>,
    pub(crate) imds: Imds,
    pub(crate) visibility: Visibility,
    throttle: Throttle,
    faults: Faults,
    log: CallLog,
    /// The first request and answer for each client token.
    tokens: BTreeMap<(String, Action, String), (Request, Response)>,
}

/// The part of [`Context`] that an operation needs.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Caller<'a> {
    pub(crate) account: &'a str,
    pub(crate) now: SimTime,
}

impl Model {
    /// An empty region.
    #[must_use]
    pub fn new(config: Config) -> Self {
        Self {
            rng: Rng::new(config.seed),
            log: CallLog::new(config.log_capacity),
            config,
            resources: Resources::default(),
            transitions: Schedule::default(),
            imds: Imds::default(),
            visibility: Visibility::default(),
            throttle: Throttle::default(),
            faults: Faults::default(),
            tokens: BTreeMap::new(),
        }
    }

    /// The current configuration.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Replaces the switches from now on. Operations already under way keep their delays. Seed,
    /// region and log capacity stay unchanged.
    pub fn reconfigure(&mut self, config: Config) {
        let Config { seed, log_capacity, .. } = self.config;
        let region = std::mem::take(&mut self.config.region);
        self.config = Config { seed, log_capacity, region, ..config };
    }

    /// As [`Model::call_with`], in a world without Amazon VPC IPAM.
    pub fn call(&mut self, context: &Context, request: Request) -> Reply {
        let mut nothing = AddressPlan::new(address_plan::config::Config::default());
        self.call_with(&mut nothing, context, request)
    }

    /// Handles one call: throttling, fault rules, the operation, the log. The plan executes the
    /// operations of Amazon VPC IPAM, and gives blocks to VPCs and subnets.
    pub fn call_with(
        &mut self,
        plan: &mut AddressPlan,
        context: &Context,
        request: Request,
    ) -> Reply {
        self.advance(context.now);
        let action = request.action();
        let admitted = self.admit(context, |model| match model.config.throttling {
            Throttling::Off => Ok(()),
            Throttling::Documented => model.throttle.draw(&context.account, &request, context.now),
        });
        let effects = self.apply_fault_rules(admitted, Some(action));
        let result = match &effects.failure {
            Some(error) => Err(error.clone()),
            None => self.perform(plan, context, &effects.executed(request)),
        };
        self.advance(context.now);
        self.reply(context, action.as_str(), result, &effects)
    }

    /// Handles a call that the server could not decode. It takes a token, passes the fault rules,
    /// is logged and answers `error`. `action` is the name that the client gave.
    pub fn refuse(&mut self, context: &Context, action: &str, error: ApiError) -> Reply {
        self.advance(context.now);
        let known: Option<Action> = action.parse().ok();
        let (account, now) = (&context.account, context.now);
        let admitted = self.admit(context, |model| match (model.config.throttling, known) {
            (Throttling::Documented, Some(action)) => {
                model.throttle.draw_undecoded(account, action, now)
            }
            (Throttling::Documented, None) | (Throttling::Off, _) => Ok(()),
        });
        let effects = self.apply_fault_rules(admitted, known);
        let error = effects.failure.clone().unwrap_or(error);
        self.reply(context, action, Err(error), &effects)
    }

    /// Checks the region, then takes the tokens.
    fn admit(
        &mut self,
        context: &Context,
        draw: impl FnOnce(&mut Self) -> Result<(), ApiError>,
    ) -> Result<(), ApiError> {
        if context.region != self.config.region {
            let text = "Credential should be scoped to a valid region.";
            return Err(ApiError::new("AuthFailure", text));
        }
        draw(self)
    }

    /// Applies the fault rules. They see only calls that got their tokens.
    fn apply_fault_rules(
        &mut self,
        admitted: Result<(), ApiError>,
        action: Option<Action>,
    ) -> RuleEffects {
        match admitted {
            Ok(()) => self.faults.effects_on(action),
            Err(error) => RuleEffects { failure: Some(error), ..RuleEffects::default() },
        }
    }

    fn perform(
        &mut self,
        plan: &mut AddressPlan,
        context: &Context,
        request: &Request,
    ) -> Result<Response, ApiError> {
        if request.dry_run() {
            let text = "Request would have succeeded, but DryRun flag is set.";
            return Err(ApiError::new("DryRunOperation", text));
        }
        let caller = Caller { account: &context.account, now: context.now };
        let Some(token) = request.client_token() else {
            return self.operate(plan, caller, request);
        };
        let key = (context.account.clone(), request.action(), token.to_owned());
        match self.tokens.get(&key) {
            Some((before, response)) if before == request => Ok(response.clone()),
            Some(_) => Err(ApiError::new(
                "IdempotentParameterMismatch",
                "Arguments on this idempotent request are inconsistent with arguments used in \
                 previous request(s).",
            )),
            None => {
                let response = self.operate(plan, caller, request)?;
                self.tokens.insert(key, (request.clone(), response.clone()));
                Ok(response)
            }
        }
    }

    fn reply(
        &mut self,
        context: &Context,
        action: &str,
        result: Result<Response, ApiError>,
        effects: &RuleEffects,
    ) -> Reply {
        let latency = action.parse().map(|action| self.config.latency.of(action));
        let latency = latency.unwrap_or_default().sample(&mut self.rng) + effects.delay;
        self.log.push(CallRecord {
            number: 0,
            action: action.to_owned(),
            account: context.account.clone(),
            parameters: context.parameters.clone(),
            error: result.as_ref().err().map(|error| error.code.clone()),
            reply_lost: effects.lose_reply,
            at: context.now,
            answered_at: context.now + latency,
        });
        let delivery = match effects.lose_reply {
            true => Delivery::Lost,
            false => Delivery::After(latency),
        };
        Reply { result, delivery }
    }

    /// Applies all state changes scheduled until `now`. Every method that takes a time does this
    /// first.
    pub fn advance(&mut self, now: SimTime) {
        while let Some((at, due)) = self.transitions.pop(now) {
            self.apply(due, at);
        }
        self.visibility.expire(now);
    }

    /// The time of the next scheduled state change.
    #[must_use]
    pub fn wake_at(&self) -> Option<SimTime> {
        self.transitions.next_at()
    }

    /// As [`Model::imds_bytes`], for everything but user data: all else is text.
    pub fn imds(&mut self, instance: &InstanceId, path: &str, now: SimTime) -> Option<String> {
        String::from_utf8(self.imds_bytes(instance, path, now)?).ok()
    }

    /// The answer of an instance's IMDS to a GET of `path` (for example `/latest/meta-data/mac`).
    /// `None` means 404. The server checks session tokens.
    pub fn imds_bytes(
        &mut self,
        instance: &InstanceId,
        path: &str,
        now: SimTime,
    ) -> Option<Vec<u8>> {
        self.advance(now);
        let instance = self.resources.instances.get(instance)?;
        if instance.state == InstanceState::Terminated {
            return None;
        }
        self.imds.get(self.view(), instance, path, now)
    }

    /// Which requests the IMDS of an instance answers, and how far its tokens travel. The server
    /// acts on it. `None` if there is no such instance.
    #[must_use]
    pub fn metadata_options(&self, instance: &InstanceId) -> Option<MetadataOptions> {
        self.resources.instances.get(instance).map(|instance| instance.metadata_options)
    }

    /// Replaces the metadata options of an instance.
    ///
    /// # Errors
    /// `InvalidInstanceID.NotFound`.
    pub fn set_metadata_options(
        &mut self,
        id: &InstanceId,
        options: MetadataOptions,
    ) -> Result<(), ApiError> {
        let instance = self.resources.instances.get_mut(id);
        let instance = instance.ok_or_else(|| no_such_instances(&[id]))?;
        instance.metadata_options = options;
        Ok(())
    }

    /// The devices and addresses that the network must have at `now`.
    pub fn fabric(&mut self, now: SimTime) -> Fabric {
        self.advance(now);
        let view = self.view();
        let instances = self.resources.instances.values();
        Fabric {
            instances: instances.filter_map(|it| view.fabric_instance(it)).collect(),
            vpcs: view.fabric_vpcs(),
        }
    }

    /// The instance whose attached ENI has this address at `now`, alone or in a prefix.
    #[must_use]
    pub fn instance_of(&mut self, address: IpAddr, now: SimTime) -> Option<InstanceId> {
        self.advance(now);
        let attachment = self.resources.eni_with(address)?.attachment()?;
        (attachment.status == AttachmentStatus::Attached).then(|| attachment.instance_id.clone())
    }

    /// The instance whose IMDS has given out the access key with this id.
    #[must_use]
    pub fn instance_with_key(&self, key_id: &str) -> Option<InstanceId> {
        let mut ids = self.resources.instances.keys();
        ids.find(|id| imds::access_key_id(id) == key_id).cloned()
    }

    /// What Amazon VPC IPAM finds in the region at `now`: all resources of an account.
    pub fn sample(&mut self, account: &str, now: SimTime) -> Sample {
        self.advance(now);
        self.view().sample(account)
    }

    /// The log of all calls.
    #[must_use]
    pub fn log(&self) -> &CallLog {
        &self.log
    }

    /// The log, to clear it.
    pub fn log_mut(&mut self) -> &mut CallLog {
        &mut self.log
    }

    /// Adds a fault rule. If several rules hit one call, all apply; of several failures the oldest
    /// rule's is answered.
    pub fn add_fault(&mut self, rule: FaultRule) -> FaultId {
        self.faults.add(rule)
    }

    /// Removes a rule. Returns false if there is no rule with this id.
    pub fn remove_fault(&mut self, id: FaultId) -> bool {
        self.faults.remove(id)
    }

    /// All rules, each with the number of calls that it hit. Rules that hit no further call are
    /// included.
    pub fn faults(&self) -> impl Iterator<Item = (FaultId, &FaultRule, u64)> {
        self.faults.iter()
    }

    pub(crate) fn view(&self) -> View<'_> {
        View { resources: &self.resources, config: &self.config }
    }

    /// The caller, as the address plan knows it.
    pub(crate) fn plan_caller(&self, caller: Caller<'_>) -> Result<address_plan::Caller, ApiError> {
        Ok(address_plan::Caller {
            account: caller.account.parse()?,
            region: self.config.region.parse()?,
            now: caller.now,
            dry_run: false,
        })
    }

    /// A random number for a new id. It has 64 of an id's 68 bits, since EC2's ids begin with a 0.
    pub(crate) fn next_id(&mut self) -> u128 {
        u128::from(self.rng.next())
    }
}
