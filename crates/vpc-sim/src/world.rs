//! All that is simulated: an EC2 model for each place, and one address plan that spans them.
//!
//! This module knows neither clock nor HTTP. It decides which model serves whom, and when the plan
//! gets a sample.

use std::collections::BTreeMap;
use std::fmt;

use address_plan::AddressPlan;
use address_plan::id::{Account, Region};
use ec2_model::request::Request;
use ec2_model::{ApiError, Context, Model, Reply, SimTime};

/// An account in a Region.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    /// The account.
    pub account: Account,
    /// The Region.
    pub region: Region,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} in {}", self.account, self.region)
    }
}

/// The models, and who is served by which.
#[derive(Debug)]
pub struct World {
    models: BTreeMap<Place, Model>,
    /// The place whose model serves each place. Places of one Region may share a model.
    served_by: BTreeMap<Place, Place>,
    /// The place of the topology's VPCs and instances. It has a model.
    home: Place,
    plan: AddressPlan,
}

const HOME: &str = "the home place has a model";

impl World {
    /// A world with one model, which serves its own account.
    #[must_use]
    pub fn new(home: Place, model: Model, plan: AddressPlan) -> Self {
        Self {
            models: BTreeMap::from([(home.clone(), model)]),
            served_by: BTreeMap::from([(home.clone(), home.clone())]),
            home,
            plan,
        }
    }

    /// Adds the model of another place.
    pub fn add_model(&mut self, place: Place, model: Model) {
        self.served_by.insert(place.clone(), place.clone());
        self.models.insert(place, model);
    }

    /// Lets an account share the model of another one in the same Region.
    pub fn share_model(&mut self, account: Account, of: &Place) {
        let place = Place { account, region: of.region.clone() };
        self.served_by.entry(place).or_insert_with(|| of.clone());
    }

    /// The model of the topology's VPCs and instances.
    #[must_use]
    pub fn home(&self) -> &Model {
        self.models.get(&self.home).expect(HOME)
    }

    /// As [`World::home`].
    pub fn home_mut(&mut self) -> &mut Model {
        self.models.get_mut(&self.home).expect(HOME)
    }

    /// The place of the topology's VPCs and instances.
    #[must_use]
    pub fn home_place(&self) -> &Place {
        &self.home
    }

    /// The model that serves a place. `None` if the topology does not have the place.
    pub fn model_mut(&mut self, place: &Place) -> Option<&mut Model> {
        self.models.get_mut(self.served_by.get(place)?)
    }

    /// All models by place.
    pub fn models(&self) -> impl Iterator<Item = (&Place, &Model)> {
        self.models.iter()
    }

    /// As [`World::models`].
    pub fn models_mut(&mut self) -> impl Iterator<Item = &mut Model> {
        self.models.values_mut()
    }

    /// The address plan.
    #[must_use]
    pub fn plan(&self) -> &AddressPlan {
        &self.plan
    }

    /// As [`World::plan`].
    pub fn plan_mut(&mut self) -> &mut AddressPlan {
        &mut self.plan
    }

    /// The place whose model serves a place: the home place for an unknown one.
    #[must_use]
    pub fn server_of(&self, place: &Place) -> &Place {
        self.served_by.get(place).unwrap_or(&self.home)
    }

    /// The model at a place that serves.
    #[must_use]
    pub fn model_at(&self, server: &Place) -> &Model {
        self.models.get(server).unwrap_or_else(|| self.home())
    }

    /// Handles one call. `request` is an error if the server could not decode it.
    pub fn call(
        &mut self,
        context: &Context,
        place: &Place,
        action: &str,
        request: Result<Request, ApiError>,
    ) -> Reply {
        if matches!(request, Ok(Request::Plan(_))) {
            self.observe(context.now);
        }
        let changes = request.as_ref().is_ok_and(|request| !request.action().only_reads());
        let server = self.server_of(place).clone();
        let model = self.models.get_mut(&server).expect("every server has a model");
        let reply = match request {
            Ok(request) => model.call_with(&mut self.plan, context, request),
            Err(error) => model.refuse(context, action, error),
        };
        if changes {
            self.observe(context.now);
        }
        reply
    }

    /// Applies all changes that are due, in the models and in the plan.
    pub fn advance(&mut self, now: SimTime) {
        self.models.values_mut().for_each(|model| model.advance(now));
        self.plan.advance(now);
    }

    /// Shows the plan what exists in each place, if it watches the place and a sample is due. What
    /// nobody watches costs nothing.
    pub fn observe(&mut self, now: SimTime) {
        for (Place { account, region }, server) in &self.served_by {
            if self.plan.watches(account, region)
                && self.plan.next_sample_at(account, region) <= now
            {
                let model = self.models.get_mut(server).expect("every server has a model");
                let sample = model.sample(account.as_str(), now);
                self.plan.observe(account, region, sample, now);
            }
        }
    }

    /// The time of the next change that happens without a call.
    #[must_use]
    pub fn wake_at(&self) -> Option<SimTime> {
        let models = self.models.values().filter_map(Model::wake_at);
        models.chain(self.plan.wake_at()).chain(self.next_sample_at()).min()
    }

    /// The time of the next sample. Without a period samples are taken at each use alone.
    fn next_sample_at(&self) -> Option<SimTime> {
        if self.plan.config().discovery.period().is_zero() {
            return None;
        }
        let watched = self.served_by.keys().filter(|it| self.plan.watches(&it.account, &it.region));
        watched.map(|it| self.plan.next_sample_at(&it.account, &it.region)).min()
    }
}
