//! The model, its clock and its fabric, shared by all servers.
//!
//! This is the only place that locks the model and passes it the time. It must not know HTTP.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use ec2_model::calls::CallRecord;
use ec2_model::id::InstanceId;
use ec2_model::request::{Action, Request};
use ec2_model::response::Response;
use ec2_model::{ApiError, Context, Delivery, Model, Reply, SimTime};
use serde::Serialize;
use tokio::sync::Notify;

use crate::clock::{Clock, wall};
use crate::fabric_sync::FabricSync;

/// One simulated region.
#[derive(Debug)]
pub struct Simulator {
    inner: Mutex<Inner>,
    clock: Clock,
    /// Notified after each use of the model, because the next scheduled change may be another one.
    used: Notify,
    fabric_sync: Option<FabricSync>,
}

#[derive(Debug)]
struct Inner {
    model: Model,
    /// What the model does not know of each logged call, by its number.
    notes: BTreeMap<u64, Note>,
}

#[derive(Debug)]
struct Note {
    wall: SimTime,
    instance: Option<InstanceId>,
}

/// Who makes a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// 12 digits.
    pub account: String,
    /// The region that the request was signed for.
    pub region: String,
    /// The access key that signed the request. `None` if it is not signed.
    pub key_id: Option<String>,
    /// The address that the request came from.
    pub address: Option<IpAddr>,
}

/// A logged call, with the machine's time beside the model's, and with the calling instance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LoggedCall {
    /// The model's record.
    #[serde(flatten)]
    pub record: CallRecord,
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
    /// A simulator of `model`, with or without a fabric.
    #[must_use]
    pub fn new(model: Model, clock: Clock, fabric_sync: Option<FabricSync>) -> Self {
        let inner = Mutex::new(Inner { model, notes: BTreeMap::new() });
        Self { inner, clock, used: Notify::new(), fabric_sync }
    }

    /// The clock of the model.
    #[must_use]
    pub fn clock(&self) -> &Clock {
        &self.clock
    }

    /// The fabric, if there is one.
    #[must_use]
    pub fn fabric_sync(&self) -> Option<&FabricSync> {
        self.fabric_sync.as_ref()
    }

    /// Calls `act` with the model, advanced to the current time.
    pub fn with<R>(&self, act: impl FnOnce(&mut Model, SimTime) -> R) -> R {
        self.locked(|inner, now| act(&mut inner.model, now))
    }

    fn locked<R>(&self, act: impl FnOnce(&mut Inner, SimTime) -> R) -> R {
        let result = {
            // A panic in `act` is a bug in one call. The model stays usable.
            let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
            // The time is read under the lock, so that the model never sees time go back.
            let now = self.clock.now();
            inner.model.advance(now);
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
        let changes = request.as_ref().is_ok_and(|request| is_mutation(request.action()));
        let (reply, answer_at) = self.locked(|inner, now| {
            let instance = inner.instance_of(&caller, now);
            let Caller { account, region, key_id: _, address: _ } = caller;
            let context = Context { account, region, now, parameters };
            let reply = match request {
                Ok(request) => inner.model.call(&context, request),
                Err(error) => inner.model.refuse(&context, action, error),
            };
            inner.note(instance);
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

    /// Applies each scheduled change of the model at its time. Never returns.
    pub async fn keep_time(self: &Arc<Self>) {
        loop {
            let wake_at = self.read_model(|model| model.wake_at());
            let due = async {
                match wake_at {
                    Some(at) => self.clock.reach(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = due => {
                    self.with(Model::advance);
                    self.sync_fabric().await;
                }
                () = self.used.notified() => {}
            }
        }
    }

    /// Reads the model without a notification.
    fn read_model<R>(&self, read: impl FnOnce(&Model) -> R) -> R {
        read(&self.inner.lock().unwrap_or_else(PoisonError::into_inner).model)
    }

    /// The latest calls, oldest first.
    #[must_use]
    pub fn calls(&self) -> Vec<LoggedCall> {
        let inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let logged = |record: &CallRecord| {
            let note = inner.notes.get(&record.number);
            LoggedCall {
                instance: note.and_then(|note| note.instance.clone()),
                wall: note.map_or(record.at, |note| note.wall),
                record: record.clone(),
            }
        };
        inner.model.log().records().map(logged).collect()
    }
}

impl Inner {
    fn instance_of(&mut self, caller: &Caller, now: SimTime) -> Option<InstanceId> {
        let by_address = caller.address.and_then(|address| self.model.instance_of(address, now));
        by_address.or_else(|| self.model.instance_with_key(caller.key_id.as_deref()?))
    }

    /// Notes the machine's time and the caller of the latest call. Drops the notes of calls that the
    /// log dropped.
    fn note(&mut self, instance: Option<InstanceId>) {
        let number = |call: Option<&CallRecord>| call.map(|call| call.number);
        let log = self.model.log();
        let (oldest, latest) = (number(log.records().next()), number(log.records().next_back()));
        let (Some(oldest), Some(latest)) = (oldest, latest) else { return };
        self.notes.insert(latest, Note { wall: wall(), instance });
        while self.notes.first_key_value().is_some_and(|(number, _)| *number < oldest) {
            self.notes.pop_first();
        }
    }
}

/// Whether a call of `action` may change the network.
fn is_mutation(action: Action) -> bool {
    let name = action.as_str();
    !name.starts_with("Describe") && !name.starts_with("Get")
}
