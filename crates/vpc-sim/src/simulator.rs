//! The world, its clock and its fabric, shared by all servers.
//!
//! This is the only place that locks the world and passes it the time. It must not know HTTP.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use address_plan::id::Region;
use ec2_model::calls::CallRecord;
use ec2_model::id::InstanceId;
use ec2_model::request::Request;
use ec2_model::response::Response;
use ec2_model::{ApiError, Context, Delivery, Model, Reply, SimTime};
use serde::Serialize;
use tokio::sync::Notify;

use crate::clock::{Clock, wall};
use crate::fabric_sync::FabricSync;
use crate::world::{Place, World};

/// A simulated world in which time passes.
#[derive(Debug)]
pub struct Simulator {
    inner: Mutex<Inner>,
    clock: Clock,
    /// Notified after each use of the world, because the next scheduled change may be another one.
    used: Notify,
    fabric_sync: Option<FabricSync>,
}

#[derive(Debug)]
struct Inner {
    world: World,
    /// What the models do not know of each logged call, by the place of the model and its number.
    notes: BTreeMap<(Place, u64), Note>,
    n_calls: u64,
}

#[derive(Debug)]
struct Note {
    /// Counts the calls of all places.
    number: u64,
    wall: SimTime,
    region: Region,
    instance: Option<InstanceId>,
}

/// Who makes a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// The account, and the Region that the request was signed for.
    pub place: Place,
    /// The access key that signed the request. `None` if it is not signed.
    pub key_id: Option<String>,
    /// The address that the request came from.
    pub address: Option<IpAddr>,
}

/// A logged call, with the machine's time beside the model's, and with the calling instance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LoggedCall {
    /// The model's record, numbered among the calls of all places.
    #[serde(flatten)]
    pub record: CallRecord,
    /// The Region that the request was signed for.
    pub region: Option<String>,
    /// The instance that called: in the fabric the one with the source address, elsewhere the one
    /// whose IMDS gave out the access key. `None` for a call from outside.
    pub instance: Option<InstanceId>,
    /// The machine's time when the call arrived.
    pub wall: SimTime,
}

/// The answer to a call is lost: the client must not see it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the reply is lost on purpose")]
pub struct ReplyLost;

impl Simulator {
    /// A simulator of `world`, with or without a fabric.
    #[must_use]
    pub fn new(world: World, clock: Clock, fabric_sync: Option<FabricSync>) -> Self {
        let inner = Mutex::new(Inner { world, notes: BTreeMap::new(), n_calls: 0 });
        Self { inner, clock, used: Notify::new(), fabric_sync }
    }

    /// The clock of the world.
    #[must_use]
    pub fn clock(&self) -> &Clock {
        &self.clock
    }

    /// The fabric, if there is one.
    #[must_use]
    pub fn fabric_sync(&self) -> Option<&FabricSync> {
        self.fabric_sync.as_ref()
    }

    /// Calls `act` with the model of the topology's VPCs and instances, advanced to the current
    /// time.
    pub fn with<R>(&self, act: impl FnOnce(&mut Model, SimTime) -> R) -> R {
        self.locked(|inner, now| act(inner.world.home_mut(), now))
    }

    /// As [`Simulator::with`], with the whole world.
    pub fn with_world<R>(&self, act: impl FnOnce(&mut World) -> R) -> R {
        self.locked(|inner, _now| act(&mut inner.world))
    }

    fn locked<R>(&self, act: impl FnOnce(&mut Inner, SimTime) -> R) -> R {
        let result = {
            // A panic in `act` is a bug in one call. The world stays usable.
            let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
            // The time is read under the lock, so that the world never sees time go back.
            let now = self.clock.now();
            inner.world.advance(now);
            act(&mut inner, now)
        };
        self.used.notify_one();
        result
    }

    /// Makes one call. Returns when the client may see the answer; model and kernel have changed by
    /// then. `request` is an error if the server could not decode it. `action` is the name that the
    /// client gave.
    ///
    /// # Errors
    /// If the client must not see the answer.
    pub async fn call(
        self: &Arc<Self>,
        caller: Caller,
        action: &str,
        parameters: BTreeMap<String, String>,
        request: Result<Request, ApiError>,
    ) -> Result<Result<Response, ApiError>, ReplyLost> {
        let changes = request.as_ref().is_ok_and(|request| !request.action().only_reads());
        let (reply, answer_at) = self.locked(|inner, now| {
            let instance = inner.instance_of(&caller, now);
            let place = caller.place;
            let context = Context {
                account: place.account.to_string(),
                region: place.region.to_string(),
                now,
                parameters,
            };
            let reply = inner.world.call(&context, &place, action, request);
            inner.note(&place, instance);
            let answer_at = match reply.delivery {
                Delivery::After(wait) => Some(now + wait),
                Delivery::Lost => None,
            };
            (reply, answer_at)
        });
        if changes {
            self.sync_fabric().await;
        }
        let Reply { result, delivery: _ } = reply;
        self.clock.reach(answer_at.ok_or(ReplyLost)?).await;
        Ok(result)
    }

    /// Makes the kernel match the model. A failure is logged and the next sync retries.
    pub async fn sync_fabric(self: &Arc<Self>) {
        if self.fabric_sync.is_none() {
            return;
        }
        let this = Arc::clone(self);
        // A separate task, because a client that hangs up cancels its own call, but must not cancel
        // this.
        let synced = tokio::spawn(async move {
            let Some(fabric_sync) = &this.fabric_sync else { return };
            let snapshot = || this.with(|model, now| model.fabric(now));
            if let Err(error) = fabric_sync.sync(snapshot).await {
                tracing::error!(error = &error as &dyn std::error::Error, "fabric sync failed");
            }
        });
        if let Err(error) = synced.await {
            tracing::error!(%error, "fabric sync task failed");
        }
    }

    /// Applies each scheduled change of the world at its time, and takes each sample. Never returns.
    pub async fn keep_time(self: &Arc<Self>) {
        loop {
            let wake_at = self.read(|inner| inner.world.wake_at());
            let due = async {
                match wake_at {
                    Some(at) => self.clock.reach(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = due => {
                    self.locked(|inner, now| inner.world.observe(now));
                    self.sync_fabric().await;
                }
                () = self.used.notified() => {}
            }
        }
    }

    /// Reads without a notification.
    fn read<R>(&self, read: impl FnOnce(&Inner) -> R) -> R {
        read(&self.inner.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The latest calls of all places, oldest first.
    #[must_use]
    pub fn calls(&self) -> Vec<LoggedCall> {
        self.read(Inner::calls)
    }
}

impl Inner {
    fn calls(&self) -> Vec<LoggedCall> {
        let logged = |(place, record): (&Place, &CallRecord)| {
            let note = self.notes.get(&(place.clone(), record.number));
            let number = note.map_or(record.number, |note| note.number);
            LoggedCall {
                instance: note.and_then(|note| note.instance.clone()),
                wall: note.map_or(record.at, |note| note.wall),
                region: note.map(|note| note.region.to_string()),
                record: CallRecord { number, ..record.clone() },
            }
        };
        let models = self.world.models();
        let records =
            models.flat_map(|(place, model)| model.log().records().map(move |it| (place, it)));
        let mut calls: Vec<LoggedCall> = records.map(logged).collect();
        calls.sort_by_key(|call| call.record.number);
        calls
    }

    fn instance_of(&mut self, caller: &Caller, now: SimTime) -> Option<InstanceId> {
        let model = self.world.home_mut();
        let by_address = caller.address.and_then(|address| model.instance_of(address, now));
        by_address.or_else(|| model.instance_with_key(caller.key_id.as_deref()?))
    }

    /// Notes the machine's time and the caller of the latest call. Drops the notes of calls that the
    /// log dropped.
    fn note(&mut self, caller: &Place, instance: Option<InstanceId>) {
        let place = self.world.server_of(caller).clone();
        let number = |call: Option<&CallRecord>| call.map(|call| call.number);
        let log = self.world.model_at(&place).log();
        let (oldest, latest) = (number(log.records().next()), number(log.records().next_back()));
        let (Some(oldest), Some(latest)) = (oldest, latest) else { return };
        self.n_calls += 1;
        let region = caller.region.clone();
        let note = Note { number: self.n_calls, wall: wall(), region, instance };
        self.notes.insert((place.clone(), latest), note);
        let dropped = (place.clone(), 0)..(place, oldest);
        while let Some(key) = self.notes.range(dropped.clone()).next().map(|(key, _)| key.clone()) {
            self.notes.remove(&key);
        }
    }
}
