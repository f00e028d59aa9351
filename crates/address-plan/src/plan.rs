//! The model, as clients, Regions and an operator see it.

use std::collections::BTreeMap;
use std::time::Duration;

use ec2_api::schedule::Schedule;
use ec2_api::{ApiError, Delay, Rng, SimTime};

use crate::block::Block;
use crate::config::Config;
use crate::id::{Account, DiscoveryId, IpamId, PoolCidrId, PoolId, Region, ScopeId};
use crate::request::{Action, Request, Tier};
use crate::resource::{Sample, Shown};
use crate::response::Response;
use crate::store::{Organization, Store};

/// Who calls, where and when.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// The account owns what the call creates.
    pub account: Account,
    /// The Region of the endpoint.
    pub region: Region,
    /// Must not be earlier than in the previous call.
    pub now: SimTime,
    /// `DryRun`: the call is checked for its rights alone, and does nothing.
    pub dry_run: bool,
}

/// One scheduled state change. It does nothing if its object no longer exists by then.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Due {
    /// The operation on an IPAM is done.
    Ipam(IpamId),
    /// The operation on a scope is done.
    Scope(ScopeId),
    /// The operation on a pool is done.
    Pool(PoolId),
    /// The operation on a discovery is done.
    Discovery(DiscoveryId),
    /// The operation on a CIDR of a pool is done.
    PoolCidr(PoolId, PoolCidrId),
    /// A released range may be allocated again.
    RestOver(PoolId, Block),
    /// The API shows the oldest sample of the place that it does not show yet.
    ShowSample(Account, Region),
}

/// Amazon VPC IPAM of all accounts and Regions.
#[derive(Debug)]
pub struct AddressPlan {
    pub(crate) config: Config,
    pub(crate) rng: Rng,
    pub(crate) store: Store,
    pub(crate) schedule: Schedule<Due>,
    /// The first request and answer for each client token.
    tokens: BTreeMap<(Account, Region, Action, String), (Request, Response)>,
    /// Samples that the API does not show yet, oldest first. The last is always the newest.
    pub(crate) unseen: BTreeMap<(Account, Region), Vec<Shown>>,
    last_sample: BTreeMap<(Account, Region), SimTime>,
}

impl AddressPlan {
    /// A world without IPAM.
    #[must_use]
    pub fn new(config: Config) -> Self {
        Self {
            rng: Rng::with_stream(config.seed, 0),
            config,
            store: Store::default(),
            schedule: Schedule::default(),
            tokens: BTreeMap::new(),
            unseen: BTreeMap::new(),
            last_sample: BTreeMap::new(),
        }
    }

    /// The current configuration.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Replaces the configuration from now on, but for the seed. What is under way keeps its delay.
    pub fn reconfigure(&mut self, config: Config) {
        self.config = Config { seed: self.config.seed, ..config };
    }

    /// Handles one call.
    ///
    /// # Errors
    /// The error that the API answers. Then nothing has changed.
    pub fn call(
        &mut self,
        caller: &Caller,
        request: impl Into<Request>,
    ) -> Result<Response, ApiError> {
        let request = request.into();
        self.advance(caller.now);
        if caller.dry_run {
            let text = "Request would have succeeded, but DryRun flag is set.";
            return Err(ApiError::new("DryRunOperation", text));
        }
        let result = self.perform(caller, request);
        self.store.count();
        self.advance(caller.now);
        result
    }

    fn perform(&mut self, caller: &Caller, request: Request) -> Result<Response, ApiError> {
        let Some(token) = request.client_token() else { return self.operate(caller, &request) };
        let (account, region) = (caller.account.clone(), caller.region.clone());
        let key = (account, region, request.action(), token.to_owned());
        match self.tokens.get(&key) {
            Some((before, response)) if *before == request => Ok(response.clone()),
            Some(_) => Err(ApiError::new(
                "IdempotentParameterMismatch",
                "Arguments on this idempotent request are inconsistent with arguments used in \
                 previous request(s).",
            )),
            None => {
                let response = self.operate(caller, &request)?;
                self.tokens.insert(key, (request, response.clone()));
                Ok(response)
            }
        }
    }

    /// Applies all state changes scheduled until `now`. Every method that takes a time does this
    /// first.
    pub fn advance(&mut self, now: SimTime) {
        while let Some((at, due)) = self.schedule.pop(now) {
            self.apply(due, at);
        }
        self.store.reveal(now);
    }

    /// The time of the next scheduled state change.
    #[must_use]
    pub fn wake_at(&self) -> Option<SimTime> {
        self.schedule.next_at()
    }

    /// Takes in what exists in an account and Region. The API shows it after the discovery's lag.
    /// Then allocations of resources that are gone are released, and pools import what they should.
    pub fn observe(&mut self, account: &Account, region: &Region, sample: Sample, now: SimTime) {
        self.advance(now);
        let place = (account.clone(), region.clone());
        let shown_at = now + self.config.discovery.lag.sample(&mut self.rng);
        self.unseen.entry(place.clone()).or_default().push(Shown { sample, taken_at: now });
        self.schedule.schedule(shown_at, Due::ShowSample(place.0.clone(), place.1.clone()));
        self.last_sample.insert(place, now);
        self.advance(now);
    }

    /// Whether a discovery looks into an account and Region. Nobody asks for samples of other places.
    #[must_use]
    pub fn watches(&self, account: &Account, region: &Region) -> bool {
        let place = (account.clone(), region.clone());
        self.store.discoveries.values().any(|it| self.store.places_of(it).contains(&place))
    }

    /// When the next sample of a place is due: at once if there was none.
    #[must_use]
    pub fn next_sample_at(&self, account: &Account, region: &Region) -> SimTime {
        let last = self.last_sample.get(&(account.clone(), region.clone()));
        last.map_or_else(SimTime::default, |last| *last + self.config.discovery.period())
    }

    /// Says which accounts belong together. Without it each account is alone.
    pub fn set_organization(&mut self, organization: Organization) {
        self.store.organization = Some(organization);
    }

    /// Whether there is a pool or a resource discovery with this id, of any account and Region.
    #[must_use]
    pub fn can_share(&self, id: &str) -> bool {
        self.store.pools.keys().any(|it| it.as_str() == id)
            || self.store.discoveries.keys().any(|it| it.as_str() == id)
    }

    /// Shares a pool or a resource discovery with an account, as AWS Resource Access Manager does.
    pub fn share(&mut self, id: &str, account: &Account) {
        self.store.shares.insert((id.to_owned(), account.clone()));
    }

    /// Ends a share. Allocations that the account has made stay.
    pub fn unshare(&mut self, id: &str, account: &Account) {
        self.store.shares.remove(&(id.to_owned(), account.clone()));
    }

    /// A random number for a new id. EC2's ids begin with a 0.
    pub(crate) fn next_id(&mut self) -> u128 {
        u128::from(self.rng.next())
    }

    /// A random number for an id of 33 digits.
    pub(crate) fn next_long_id(&mut self) -> u128 {
        self.rng.next_wide()
    }

    /// Schedules the end of an operation on an object.
    pub(crate) fn finish_after(&mut self, now: SimTime, delay: Delay, due: Due) {
        let at = now + delay.sample(&mut self.rng);
        self.schedule.schedule(at, due);
    }

    /// Hides a new object for a while, as often as the configuration says.
    pub(crate) fn maybe_hide(&mut self, id: &str, now: SimTime) {
        let consistency = &self.config.consistency;
        if self.rng.chance(consistency.hidden_permille) {
            let until = now + consistency.hidden.sample(&mut self.rng);
            self.store.hide(id.to_owned(), until);
        }
    }

    /// How long ranges that are released from a pool of this IPAM rest.
    pub(crate) fn rest(&mut self, ipam: &IpamId) -> Duration {
        let tier = self.store.ipams.get(ipam).map(|ipam| ipam.tier);
        let delay = match tier {
            Some(Tier::Free) => self.config.rest.free,
            Some(Tier::Advanced) | None => self.config.rest.advanced,
        };
        delay.sample(&mut self.rng)
    }
}
