//! Scheduled state changes: operations end, rests end, samples are shown.

use ec2_api::SimTime;
use ipnet::IpNet;

use crate::block::Block;
use crate::id::{IpamId, PoolCidrId, PoolId};
use crate::plan::{AddressPlan, Due};
use crate::pool::Outcome;
use crate::response::PoolCidrState;

impl AddressPlan {
    /// Applies one scheduled change, if its object still exists.
    pub(crate) fn apply(&mut self, due: Due, at: SimTime) {
        match due {
            Due::Ipam(id) => self.finish_ipam(&id),
            Due::Scope(id) => {
                if let Some(scope) = self.store.scopes.get_mut(&id) {
                    match scope.state.completed() {
                        Some(state) => scope.state = state,
                        None => drop(self.store.scopes.remove(&id)),
                    }
                }
            }
            Due::Pool(id) => {
                if let Some(record) = self.store.pools.get_mut(&id) {
                    match record.pool.state.completed() {
                        Some(state) => record.pool.state = state,
                        None => drop(self.store.pools.remove(&id)),
                    }
                }
            }
            Due::Discovery(id) => {
                if let Some(discovery) = self.store.discoveries.get_mut(&id) {
                    match discovery.state.completed() {
                        Some(state) => discovery.state = state,
                        None => drop(self.store.discoveries.remove(&id)),
                    }
                }
            }
            Due::PoolCidr(pool, id) => self.finish_pool_cidr(&pool, &id, at),
            Due::RestOver(pool, block) => {
                if let Some(record) = self.store.pools.get_mut(&pool) {
                    record.end_rest(block, at);
                }
            }
            Due::ShowSample(account, region) => self.show_sample((account, region), at),
        }
        self.store.count();
    }

    /// An IPAM goes with its scopes, its discovery and all that was decided for it.
    fn finish_ipam(&mut self, id: &IpamId) {
        let Some(ipam) = self.store.ipams.get_mut(id) else { return };
        if let Some(state) = ipam.state.completed() {
            ipam.state = state;
            return;
        }
        let discovery = ipam.default_discovery.clone();
        let store = &mut self.store;
        store.ipams.remove(id);
        store.discoveries.remove(&discovery);
        store.associations.retain(|_, it| it.ipam != *id);
        store.scopes.retain(|_, it| it.ipam != *id);
        store.decisions.retain(|(ipam, ..), _| ipam != id);
        let scopes = &store.scopes;
        store.history.retain(|(scope, _), _| scopes.contains_key(scope));
    }

    fn finish_pool_cidr(&mut self, pool: &PoolId, id: &PoolCidrId, at: SimTime) {
        let Some(record) = self.store.pools.get_mut(pool) else { return };
        let Some(outcome) = record.outcomes.remove(id) else { return };
        let mut gone: Option<IpNet> = None;
        match outcome {
            Outcome::Provisioned => {
                let pool_cidr = record.cidrs.get_mut(id).expect("an outcome has its CIDR");
                pool_cidr.state = PoolCidrState::Provisioned;
                let cidr = pool_cidr.cidr.expect("what is provisioned has a CIDR");
                let fits = record.provision(Block::from(cidr));
                debug_assert!(fits, "the source gives no range twice");
            }
            Outcome::ProvisionFailed(code, text) => {
                let pool_cidr = record.cidrs.get_mut(id).expect("an outcome has its CIDR");
                pool_cidr.state = PoolCidrState::FailedProvision(code, text);
            }
            Outcome::DeprovisionFailed(text) => {
                let pool_cidr = record.cidrs.get_mut(id).expect("an outcome has its CIDR");
                pool_cidr.state = PoolCidrState::FailedDeprovision(text);
            }
            Outcome::Deprovisioned => gone = record.cidrs.remove(id).and_then(|it| it.cidr),
            Outcome::Forgotten => drop(record.cidrs.remove(id)),
        }
        if let Some(cidr) = gone {
            self.give_back(pool, cidr, at);
        }
    }
}
