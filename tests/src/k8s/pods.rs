//! The cluster's pods as they are now, and when each was bound and became ready: by a watch, so that waiting costs nothing.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use http_body_util::BodyExt as _;
use serde_json::Value;
use tokio::time::Instant;

use super::api::Api;

/// How long after the loss of a watch the next one begins.
const RETRY: Duration = Duration::from_millis(200);

/// A pod, as the API server has it.
#[derive(Debug, Clone)]
pub struct Pod {
    object: Value,
    bound: Option<Instant>,
    ready: Option<Instant>,
}

/// All pods that there are, by their uid.
#[derive(Debug, Clone, Default)]
pub struct Pods(Arc<Mutex<BTreeMap<String, Pod>>>);

impl Pod {
    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        self.object["metadata"]["name"].as_str().unwrap_or_default()
    }

    /// What tells it from a later pod of its name.
    #[must_use]
    pub fn uid(&self) -> &str {
        self.object["metadata"]["uid"].as_str().unwrap_or_default()
    }

    /// Its path at the API server.
    #[must_use]
    pub fn path(&self) -> String {
        let namespace = self.object["metadata"]["namespace"].as_str().unwrap_or_default();
        format!("/api/v1/namespaces/{namespace}/pods/{}", self.name())
    }

    /// The name of its node; empty until it is bound.
    #[must_use]
    pub fn node(&self) -> &str {
        self.object["spec"]["nodeName"].as_str().unwrap_or_default()
    }

    /// Its address; empty until it has one.
    #[must_use]
    pub fn ip(&self) -> &str {
        self.object["status"]["podIP"].as_str().unwrap_or_default()
    }

    /// How often its containers have been started again.
    #[must_use]
    pub fn restarts(&self) -> u64 {
        let containers =
            self.object["status"]["containerStatuses"].as_array().into_iter().flatten();
        containers.filter_map(|container| container["restartCount"].as_u64()).sum()
    }

    /// Whether it is ready and stays.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        let conditions = self.object["status"]["conditions"].as_array().into_iter().flatten();
        let mut ready = conditions.filter(|condition| condition["type"] == "Ready");
        let stays = self.object["metadata"]["deletionTimestamp"].is_null();
        stays && ready.any(|condition| condition["status"] == "True")
    }

    /// From its binding to a node until it was ready, as the watch has shown both.
    #[must_use]
    pub fn start(&self) -> Option<Duration> {
        Some(self.ready?.duration_since(self.bound?))
    }

    fn is_labelled(&self, app: &str) -> bool {
        self.object["metadata"]["labels"]["app"] == app
    }

    /// What a person wants to know of a pod that is not as it should be.
    fn brief(&self) -> String {
        let status = &self.object["status"];
        let containers = status["containerStatuses"].as_array().into_iter().flatten();
        let states: Vec<_> = containers.map(|container| container["state"].to_string()).collect();
        let deleted = &self.object["metadata"]["deletionTimestamp"];
        let (phase, states) = (&status["phase"], states.join(" "));
        format!("{} on {}: {phase}, deleted {deleted}, {states}", self.name(), self.node())
    }
}

impl Pods {
    /// The pods with the label `app`, by name.
    #[must_use]
    pub fn of(&self, app: &str) -> Vec<Pod> {
        let mut pods: Vec<_> =
            self.lock().values().filter(|pod| pod.is_labelled(app)).cloned().collect();
        pods.sort_by(|one, other| one.name().cmp(other.name()));
        pods
    }

    /// The pods of `app`, if there are `count`, all ready.
    ///
    /// # Errors
    ///
    /// If there are not; the error describes them.
    pub fn ready(&self, app: &str, count: usize) -> Result<Vec<Pod>> {
        let pods = self.of(app);
        if pods.len() != count || !pods.iter().all(Pod::is_ready) {
            let n_ready = pods.iter().filter(|pod| pod.is_ready()).count();
            let briefs = pods.iter().filter(|pod| !pod.is_ready()).map(Pod::brief);
            let briefs: Vec<_> = briefs.collect();
            bail!("{n_ready} of {count} pods of {app} are ready; not: {}", briefs.join("\n"));
        }
        Ok(pods)
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Pod>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes note of a pod as it is now.
    fn see(&self, object: Value) {
        let uid = object["metadata"]["uid"].as_str().unwrap_or_default().to_owned();
        let mut pods = self.lock();
        let before = pods.remove(&uid);
        let (bound, ready) = before.map_or((None, None), |pod| (pod.bound, pod.ready));
        let mut pod = Pod { object, bound, ready };
        let now = Instant::now();
        pod.bound = bound.or_else(|| (!pod.node().is_empty()).then_some(now));
        pod.ready = ready.or_else(|| pod.is_ready().then_some(now));
        pods.insert(uid, pod);
    }

    /// Follows the API server for ever.
    pub(super) async fn follow(self, api: Api) {
        loop {
            // Its end says nothing: the API server comes and goes.
            self.follow_once(&api).await.ok();
            tokio::time::sleep(RETRY).await;
        }
    }

    async fn follow_once(&self, api: &Api) -> Result<()> {
        let mut list = api.get("/api/v1/pods").await?;
        let version =
            list["metadata"]["resourceVersion"].as_str().context("no version")?.to_owned();
        let items: Vec<Value> = serde_json::from_value(list["items"].take())?;
        let is_there =
            |uid: &String| items.iter().any(|item| item["metadata"]["uid"] == uid.as_str());
        self.lock().retain(|uid, _| is_there(uid));
        items.into_iter().for_each(|item| self.see(item));
        let mut body =
            api.stream(&format!("/api/v1/pods?watch=1&resourceVersion={version}")).await?;
        let mut unread = vec![];
        while let Some(frame) = body.frame().await {
            unread.extend(frame?.into_data().unwrap_or_default());
            while let Some(end) = unread.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = unread.drain(..=end).collect();
                self.take(serde_json::from_slice(&line)?)?;
            }
        }
        Ok(())
    }

    fn take(&self, mut event: Value) -> Result<()> {
        let object = event["object"].take();
        match event["type"].as_str() {
            Some("ADDED" | "MODIFIED") => self.see(object),
            Some("DELETED") => {
                self.lock().remove(object["metadata"]["uid"].as_str().unwrap_or_default());
            }
            _ => bail!("the watch ends: {object}"),
        }
        Ok(())
    }
}
