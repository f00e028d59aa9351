//! The model: what a client, an operator and the network see of it.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use crate::calls::{CallLog, CallRecord};
use crate::config::{Config, Throttling};
use crate::error::ApiError;
use crate::fabric::Fabric;
use crate::fault::{FaultId, FaultRule, Faults, Verdict};
use crate::id::InstanceId;
use crate::imds::Imds;
use crate::request::{Action, Request};
use crate::resources::Resources;
use crate::response::{AttachmentStatus, InstanceState, Response};
use crate::rng::Rng;
use crate::throttle::Throttle;
use crate::time::SimTime;
use crate::transition::Transitions;
use crate::view::View;
use crate::visibility::Visibility;

/// Who calls, where and when.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Context {
    /// Owner of what the call creates, and of the token buckets that it draws from.
    pub account: String,
    /// The region of the credential scope.
    pub region: String,
    /// Never earlier than in the call before.
    pub now: SimTime,
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

/// EC2's networking of one region, and the IMDS of its instances. Accounts differ only in their
/// token buckets and in whose name is on what they create.
#[derive(Debug)]
pub struct Model {
    pub(crate) config: Config,
    pub(crate) rng: Rng,
    pub(crate) resources: Resources,
    pub(crate) transitions: Transitions,
    pub(crate) imds: Imds,
    pub(crate) visibility: Visibility,
    throttle: Throttle,
    faults: Faults,
    log: CallLog,
    /// What was answered to a client token.
    tokens: BTreeMap<(String, Action, String), (Request, Response)>,
}

/// Who calls and when: what an operation needs to know of its context.
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
            transitions: Transitions::default(),
            imds: Imds::default(),
            visibility: Visibility::default(),
            throttle: Throttle::default(),
            faults: Faults::default(),
            tokens: BTreeMap::new(),
        }
    }

    /// What it was made with.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Replaces the switches from now on; what is under way keeps its course. Seed, region and
    /// the size of the log stay as they were.
    pub fn reconfigure(&mut self, config: Config) {
        let Config { seed, log_capacity, .. } = self.config;
        let region = std::mem::take(&mut self.config.region);
        self.config = Config { seed, log_capacity, region, ..config };
    }

    /// One call: throttling, faults, the operation, the log.
    pub fn call(&mut self, context: &Context, request: Request) -> Reply {
        self.advance(context.now);
        let action = request.action();
        let admitted = self.admit(context, |model| match model.config.throttling {
            Throttling::Off => Ok(()),
            Throttling::Documented => model.throttle.draw(&context.account, &request, context.now),
        });
        let verdict = self.judge(admitted, Some(action));
        let result = match &verdict.failure {
            Some(error) => Err(error.clone()),
            None => self.perform(context, &request),
        };
        self.advance(context.now);
        self.reply(context, action.as_str(), result, &verdict)
    }

    /// One call that could not even be decoded: draws a token as any other, is logged, and
    /// answers `error`. `action` is as the client named it.
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
        let verdict = self.judge(admitted, known);
        let error = verdict.failure.clone().unwrap_or(error);
        self.reply(context, action, Err(error), &verdict)
    }

    /// What is decided before anything else: the region, then the tokens.
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

    /// Fault rules see only what was admitted.
    fn judge(&mut self, admitted: Result<(), ApiError>, action: Option<Action>) -> Verdict {
        match admitted {
            Ok(()) => self.faults.judge(action),
            Err(error) => Verdict { failure: Some(error), ..Verdict::default() },
        }
    }

    fn perform(&mut self, context: &Context, request: &Request) -> Result<Response, ApiError> {
        if request.dry_run() {
            let text = "Request would have succeeded, but DryRun flag is set.";
            return Err(ApiError::new("DryRunOperation", text));
        }
        let caller = Caller { account: &context.account, now: context.now };
        let Some(token) = request.client_token() else { return self.operate(caller, request) };
        let key = (context.account.clone(), request.action(), token.to_owned());
        match self.tokens.get(&key) {
            Some((before, response)) if before == request => Ok(response.clone()),
            Some(_) => Err(ApiError::new(
                "IdempotentParameterMismatch",
                "Arguments on this idempotent request are inconsistent with arguments used in \
                 previous request(s).",
            )),
            None => {
                let response = self.operate(caller, request)?;
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
        verdict: &Verdict,
    ) -> Reply {
        let latency = action.parse().map(|action| self.config.latency.of(action));
        let latency = latency.unwrap_or_default().sample(&mut self.rng) + verdict.delay;
        self.log.push(CallRecord {
            number: 0,
            action: action.to_owned(),
            account: context.account.clone(),
            parameters: context.parameters.clone(),
            error: result.as_ref().err().map(|error| error.code.clone()),
            reply_lost: verdict.lose_reply,
            at: context.now,
            answered_at: context.now + latency,
        });
        let delivery = match verdict.lose_reply {
            true => Delivery::Lost,
            false => Delivery::After(latency),
        };
        Reply { result, delivery }
    }

    /// Lets happen what is due until `now`. Every other method that takes a time does it, too.
    pub fn advance(&mut self, now: SimTime) {
        while let Some((at, due)) = self.transitions.pop(now) {
            self.apply(due, at);
        }
        self.visibility.expire(now);
    }

    /// When something will change of itself next.
    #[must_use]
    pub fn wake_at(&self) -> Option<SimTime> {
        self.transitions.next_at()
    }

    /// What IMDS of an instance answers to a GET of `path` (`/latest/meta-data/mac`), `None` being
    /// 404. Tokens are not its business.
    pub fn imds(&mut self, instance: &InstanceId, path: &str, now: SimTime) -> Option<String> {
        self.advance(now);
        let instance = self.resources.instances.get(instance)?;
        if instance.state == InstanceState::Terminated {
            return None;
        }
        self.imds.get(self.view(), instance, path, now)
    }

    /// What the network has to look like.
    pub fn fabric(&mut self, now: SimTime) -> Fabric {
        self.advance(now);
        let view = self.view();
        let instances = self.resources.instances.values();
        Fabric { instances: instances.filter_map(|it| view.fabric_instance(it)).collect() }
    }

    /// The instance that has this address at `now`, alone or in a prefix, on an attached ENI.
    #[must_use]
    pub fn instance_of(&mut self, address: IpAddr, now: SimTime) -> Option<InstanceId> {
        self.advance(now);
        let attachment = self.resources.eni_with(address)?.attachment()?;
        (attachment.status == AttachmentStatus::Attached).then(|| attachment.instance_id.clone())
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
        self.faults.add(rule)
    }

    /// Drops a rule; false if there is none of this id.
    pub fn remove_fault(&mut self, id: FaultId) -> bool {
        self.faults.remove(id)
    }

    /// The rules, spent ones included, with how many calls each has hit.
    pub fn faults(&self) -> impl Iterator<Item = (FaultId, &FaultRule, u64)> {
        self.faults.iter()
    }

    pub(crate) fn view(&self) -> View<'_> {
        View { resources: &self.resources, config: &self.config }
    }

    /// 64 bits of the 68 that an id has: EC2's begin with a 0.
    pub(crate) fn next_id(&mut self) -> u128 {
        u128::from(self.rng.next())
    }
}
