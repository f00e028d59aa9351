//! The operator's endpoint under `/_sim`: JSON in, JSON out.
//!
//! | call | does |
//! |--|--|
//! | `GET /_sim/calls` | the latest calls, oldest first; of one action with `?action=NAME`, of one instance with `?instance=i-…` |
//! | `GET /_sim/counters` | number of calls by action, then by error code or `Success` |
//! | `POST /_sim/reset` | forgets calls and counters |
//! | `GET /_sim/faults` | the fault rules, each with its id and the number of calls that it hit |
//! | `POST /_sim/faults` | adds a rule ([`FaultRule`]); answers its id |
//! | `DELETE /_sim/faults/{id}` | removes a rule |
//! | `POST /_sim/disturb` | changes something behind the client's back ([`Disturbance`]) |
//! | `GET /_sim/switches` | the switches |
//! | `PATCH /_sim/switches` | changes the named switches |
//! | `PUT /_sim/shares/{id}/{account}` | shares an IPAM pool or resource discovery, as AWS Resource Access Manager does |
//! | `DELETE /_sim/shares/{id}/{account}` | ends that |
//! | `PUT /_sim/imds/{instance}` | changes which requests an instance's IMDS answers, and how far its tokens travel: `{"mode": …, "hop_limit": …, "ipv6": …}`, each if given ([`Changes`]) |
//! | `PUT /_sim/netns/{instance}` | gives an instance that a client has started a namespace of the fabric: `{"netns": "node-a"}` |
//! | `GET /_sim/clock` | virtual time |
//! | `POST /_sim/clock` | advances virtual time: `{"advance_ms": …}` |
//! | `GET /_sim/state` | attachments, faults, switches and time |
//!
//! Fault rules of another place take `?account=…&region=…`.
//!
//! It serves operators and tests. A client of EC2 must not need it.

use std::collections::BTreeMap;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use address_plan::id::{Account, Region};
use axum::body::Bytes;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, post, put};
use axum::{Json, Router};
use ec2_model::fault::{Disturbance, FaultId, FaultRule};
use ec2_model::id::InstanceId;
use ec2_model::{ApiError, Model};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::fabric::NetnsName;
use crate::imds::Changes;
use crate::simulator::{LoggedCall, Simulator};
use crate::switches::Switches;
use crate::world::World;

/// What the endpoint works on.
#[derive(Debug)]
struct AdminState {
    simulator: Arc<Simulator>,
}

/// The endpoint for `simulator`.
pub fn router(simulator: Arc<Simulator>) -> Router {
    Router::new()
        .route("/_sim/calls", get(calls))
        .route("/_sim/counters", get(counters))
        .route("/_sim/reset", post(reset))
        .route("/_sim/faults", get(faults).post(add_fault))
        .route("/_sim/faults/{id}", delete(remove_fault))
        .route("/_sim/disturb", post(disturb))
        .route("/_sim/switches", get(switches).patch(change_switches))
        .route("/_sim/shares/{id}/{account}", put(share).delete(unshare))
        .route("/_sim/imds/{instance}", put(change_imds))
        .route("/_sim/netns/{instance}", put(place))
        .route("/_sim/clock", get(clock).post(advance_clock))
        .route("/_sim/state", get(state))
        .with_state(Arc::new(AdminState { simulator }))
}

/// The error of an operator's call: what is wrong, where, and the fix.
#[derive(Debug, Serialize)]
struct AdminError {
    #[serde(skip)]
    status: StatusCode,
    what: String,
    r#where: String,
    fix: String,
}

impl IntoResponse for AdminError {
    fn into_response(self) -> Response {
        (self.status, Json(json!({ "error": self }))).into_response()
    }
}

fn admin_error(what: impl ToString, r#where: impl ToString, fix: &str) -> AdminError {
    AdminError {
        status: StatusCode::BAD_REQUEST,
        what: what.to_string(),
        r#where: r#where.to_string(),
        fix: fix.to_owned(),
    }
}

type Answer<T = Value> = Result<Json<T>, AdminError>;
type Admin = State<Arc<AdminState>>;

#[derive(Debug, Deserialize)]
struct CallFilter {
    action: Option<String>,
    instance: Option<InstanceId>,
}

async fn calls(State(admin): Admin, Query(filter): Query<CallFilter>) -> Json<Vec<LoggedCall>> {
    let mut calls = admin.simulator.calls();
    if let Some(action) = filter.action {
        calls.retain(|call| call.record.action == action);
    }
    if filter.instance.is_some() {
        calls.retain(|call| call.instance == filter.instance);
    }
    Json(calls)
}

async fn counters(State(admin): Admin) -> Json<Value> {
    let mut sum: BTreeMap<String, BTreeMap<String, u64>> = BTreeMap::new();
    admin.simulator.with_world(|world| {
        for (_, model) in world.models() {
            for (action, by_code) in model.log().counts() {
                for (code, n) in by_code {
                    *sum.entry(action.clone()).or_default().entry(code.clone()).or_default() += n;
                }
            }
        }
    });
    Json(json!(sum))
}

async fn reset(State(admin): Admin) -> Json<Value> {
    let clear = |world: &mut World| world.models_mut().for_each(|model| model.log_mut().clear());
    admin.simulator.with_world(clear);
    Json(json!({}))
}

/// The place whose calls a fault rule hits: the topology's own, as far as it is not named.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct FaultPlace {
    account: Option<String>,
    region: Option<String>,
}

impl FaultPlace {
    /// Calls `act` with the model of the place.
    fn with<R>(
        self,
        simulator: &Simulator,
        act: impl FnOnce(&mut Model) -> R,
    ) -> Result<R, AdminError> {
        let refused = |error: ApiError| admin_error(error, "query", "name an account and a region");
        let account: Option<Account> =
            self.account.map(|it| it.parse()).transpose().map_err(refused)?;
        let region: Option<Region> =
            self.region.map(|it| it.parse()).transpose().map_err(refused)?;
        simulator.with_world(|world| {
            let mut place = world.home_place().clone();
            place.account = account.unwrap_or(place.account);
            place.region = region.unwrap_or(place.region);
            let what = format!("there is no {place}");
            let model = world.model_mut(&place).ok_or_else(|| {
                admin_error(what, "query", "name an account and a region of the topology file")
            })?;
            Ok(act(model))
        })
    }
}

async fn faults(State(admin): Admin, Query(place): Query<FaultPlace>) -> Answer {
    place.with(&admin.simulator, |model| fault_list(model)).map(Json)
}

fn fault_list(model: &Model) -> Value {
    let entry = |(id, rule, hits): (FaultId, &FaultRule, u64)| json!({ "id": id, "rule": rule, "hits": hits });
    model.faults().map(entry).collect()
}

async fn add_fault(State(admin): Admin, Query(place): Query<FaultPlace>, body: Bytes) -> Answer {
    let fix = r#"for example {"action": "AttachNetworkInterface", "when": {"nth": 2}, "effect": {"fail": {"code": "InternalError"}}}"#;
    let rule: FaultRule = read(&body, fix)?;
    let id = place.with(&admin.simulator, |model| model.add_fault(rule))?;
    Ok(Json(json!({ "id": id })))
}

async fn remove_fault(
    State(admin): Admin,
    Path(id): Path<String>,
    Query(place): Query<FaultPlace>,
) -> Answer {
    let there = match id.parse() {
        Ok(id) => place.with(&admin.simulator, |model| model.remove_fault(FaultId(id)))?,
        Err(_) => false,
    };
    let unknown = || AdminError {
        status: StatusCode::NOT_FOUND,
        ..admin_error("no such fault rule", id, "see GET /_sim/faults")
    };
    there.then(|| Json(json!({}))).ok_or_else(unknown)
}

async fn disturb(State(admin): Admin, body: Bytes) -> Answer {
    let fix =
        r#"for example {"detach_eni": {"eni": "eni-…"}} or {"freeze_imds": {"instance": "i-…"}}"#;
    let disturbance: Disturbance = read(&body, fix)?;
    let refused = |error: ApiError| {
        admin_error(error, "body", "name a resource that exists and can be changed")
    };
    admin.simulator.with(|model, now| model.disturb(disturbance, now)).map_err(refused)?;
    admin.simulator.sync_fabric().await;
    Ok(Json(json!({})))
}

async fn switches(State(admin): Admin) -> Json<Switches> {
    Json(admin.simulator.with_world(|world| switches_of(world)))
}

async fn change_switches(State(admin): Admin, body: Bytes) -> Answer<Switches> {
    let fix = "see GET /_sim/switches for all switches";
    let changes: Map<String, Value> = read(&body, fix)?;
    let change = |world: &mut World| {
        let switches = switches_of(world).changed(changes)?;
        for model in world.models_mut() {
            model.reconfigure(switches.set(model.config().clone()));
        }
        let plan = world.plan_mut();
        plan.reconfigure(switches.ipam.set(plan.config().clone()));
        Ok(switches)
    };
    let invalid = |error: serde_json::Error| admin_error(error, "body", fix);
    admin.simulator.with_world(change).map(Json).map_err(invalid)
}

/// All models have the same switches.
fn switches_of(world: &World) -> Switches {
    Switches::of(world.home().config(), world.plan().config())
}

async fn share(State(admin): Admin, Path((id, account)): Path<(String, String)>) -> Answer {
    let account = account_of(&account)?;
    let shared = admin.simulator.with_world(|world| {
        let there = world.plan().can_share(&id);
        if there {
            world.plan_mut().share(&id, &account);
        }
        there
    });
    let unknown = || AdminError {
        status: StatusCode::NOT_FOUND,
        ..admin_error("nothing to share", &id, "name an IPAM pool or a resource discovery")
    };
    shared.then(|| Json(json!({}))).ok_or_else(unknown)
}

async fn unshare(State(admin): Admin, Path((id, account)): Path<(String, String)>) -> Answer {
    let account = account_of(&account)?;
    admin.simulator.with_world(|world| world.plan_mut().unshare(&id, &account));
    Ok(Json(json!({})))
}

fn account_of(text: &str) -> Result<Account, AdminError> {
    text.parse().map_err(|error: ApiError| admin_error(error, "path", "write 12 digits"))
}

async fn change_imds(State(admin): Admin, Path(instance): Path<String>, body: Bytes) -> Answer {
    let fix = r#"PUT {"mode": "tokens-required"}, "tokens-optional" or "disabled", {"hop_limit": 1} or {"ipv6": true} to /_sim/imds/i-… of an instance"#;
    let changes: Changes = read(&body, fix)?;
    let refused = |error: ApiError| admin_error(error, &instance, fix);
    let id = InstanceId::from_str(&instance).map_err(refused)?;
    admin
        .simulator
        .with(|model, _| {
            let options = model.metadata_options(&id).unwrap_or_default();
            model.set_metadata_options(&id, changes.applied_to(options))
        })
        .map_err(refused)?;
    Ok(Json(json!({})))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Placement {
    netns: NetnsName,
}

async fn place(State(admin): Admin, Path(instance): Path<String>, body: Bytes) -> Answer {
    let fix = r#"PUT {"netns": "node-a"} to /_sim/netns/i-… of an instance without a namespace"#;
    let Placement { netns } = read(&body, fix)?;
    let id = InstanceId::from_str(&instance).map_err(|it| admin_error(it, &instance, fix))?;
    let simulator = &admin.simulator;
    if simulator.with(|model, _| model.metadata_options(&id)).is_none() {
        return Err(admin_error("there is no such instance", instance, fix));
    }
    let fabric = simulator.fabric_sync();
    let fabric =
        fabric.ok_or_else(|| admin_error("there is no fabric", "path", "start with --fabric"))?;
    fabric.place(id, netns).map_err(|error| admin_error(error, &instance, fix))?;
    simulator.sync_fabric().await;
    Ok(Json(json!({})))
}

async fn clock(State(admin): Admin) -> Json<Value> {
    Json(clock_value(&admin.simulator))
}

fn clock_value(simulator: &Simulator) -> Value {
    let clock = simulator.clock();
    let now = clock.now();
    json!({ "pace": clock.pace(), "now_ms": now, "now": now.to_string() })
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Advance {
    advance_ms: u64,
}

async fn advance_clock(State(admin): Admin, body: Bytes) -> Answer {
    let Advance { advance_ms } = read(&body, r#"for example {"advance_ms": 1000}"#)?;
    admin.simulator.clock().skip(Duration::from_millis(advance_ms));
    admin.simulator.sync_fabric().await;
    Ok(Json(clock_value(&admin.simulator)))
}

async fn state(State(admin): Admin) -> Json<Value> {
    let simulator = &admin.simulator;
    let switches = simulator.with_world(|world| switches_of(world));
    let (network, faults) =
        simulator.with(|model, now| (json!(model.fabric(now)), fault_list(model)));
    Json(json!({
        "clock": clock_value(simulator),
        "switches": switches,
        "faults": faults,
        "network": network,
    }))
}

fn read<T: DeserializeOwned>(body: &[u8], fix: &str) -> Result<T, AdminError> {
    serde_json::from_slice(body).map_err(|error| {
        let at = format!("body, line {} column {}", error.line(), error.column());
        admin_error(error, at, fix)
    })
}
