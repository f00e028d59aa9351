//! An `ipamd` with memory: the whole contract over a real socket, with a handful of addresses and no
//! engine behind it.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::Duration;

use proto::v1::ipam_server::{Ipam, IpamServer};
use proto::v1::{self, Attachment, PodAddress, Refused, add_reply::Outcome};
use tokio::net::UnixListener;
use tokio::sync::oneshot;
use tokio_stream::wrappers::UnixListenerStream;
use tonic::{Request, Response, Status};

/// How the daemon behaves; changed at any time.
#[derive(Debug, Clone, Default)]
pub(crate) enum Mode {
    /// As it should.
    #[default]
    Serving,
    /// Add waits that long before it grants.
    Slow(Duration),
    /// Takes every call and never answers.
    Hung,
    /// Has an error for every call.
    Failing(tonic::Code),
    /// Add is refused, Ready says so.
    Refusing(Refused),
    /// Add grants just this.
    Granting(String),
    /// Ready says that it is of another version.
    Version(String),
}

/// What an attachment holds.
#[derive(Debug, Clone)]
pub(crate) struct Record {
    pub(crate) pod: v1::Pod,
    pub(crate) addresses: Vec<PodAddress>,
}

/// (network, container id, interface name).
pub(crate) type Key = (String, String, String);

#[derive(Debug, Default)]
pub(crate) struct Memory {
    pub(crate) mode: Mode,
    pub(crate) records: BTreeMap<Key, Record>,
    /// The name of every method called, in order.
    pub(crate) calls: Vec<&'static str>,
    given: u8,
}

/// A running daemon; it ends when dropped.
#[derive(Debug)]
pub(crate) struct FakeIpamd {
    memory: Arc<Mutex<Memory>>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl FakeIpamd {
    /// Listens at `socket` when this returns.
    pub(crate) fn start(socket: &Path) -> Self {
        Self::resume(socket, Arc::default())
    }

    /// The same daemon started again, with what it had on record.
    pub(crate) fn restart(mut self, socket: &Path) -> Self {
        self.stop();
        Self::resume(socket, Arc::clone(&self.memory))
    }

    fn resume(socket: &Path, memory: Arc<Mutex<Memory>>) -> Self {
        let (stop, stopped) = oneshot::channel();
        let service = Service(Arc::clone(&memory));
        let listener = std::os::unix::net::UnixListener::bind(socket).unwrap();
        listener.set_nonblocking(true).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let thread = std::thread::spawn(move || {
            runtime.block_on(async {
                let incoming = UnixListenerStream::new(UnixListener::from_std(listener).unwrap());
                let serving = tonic::transport::Server::builder()
                    .add_service(IpamServer::new(service))
                    .serve_with_incoming(incoming);
                tokio::select! { done = serving => done.unwrap(), _ = stopped => {} }
            });
        });
        Self { memory, stop: Some(stop), thread: Some(thread) }
    }

    fn stop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }

    pub(crate) fn memory(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock().unwrap()
    }

    pub(crate) fn set(&self, mode: Mode) {
        self.memory().mode = mode;
    }

    /// Every address on record, in the order of the attachments.
    pub(crate) fn held(&self) -> Vec<String> {
        let memory = self.memory();
        let addresses = memory.records.values().flat_map(|record| &record.addresses);
        addresses.map(|address| address.address.clone()).collect()
    }
}

impl Drop for FakeIpamd {
    fn drop(&mut self) {
        self.stop();
    }
}

#[derive(Debug)]
struct Service(Arc<Mutex<Memory>>);

impl Service {
    /// Notes the call and behaves as the mode says before any work is done.
    async fn begin(&self, call: &'static str) -> Result<Mode, Status> {
        let mode = {
            let mut memory = self.0.lock().unwrap();
            memory.calls.push(call);
            memory.mode.clone()
        };
        match &mode {
            Mode::Hung => std::future::pending().await,
            Mode::Failing(code) => Err(Status::new(*code, "as the test wants it")),
            Mode::Slow(time) if call == "Add" => {
                tokio::time::sleep(*time).await;
                Ok(mode)
            }
            _ => Ok(mode),
        }
    }
}

fn key(attachment: Option<Attachment>) -> Key {
    let Attachment { network, container_id, ifname } = attachment.unwrap();
    (network, container_id, ifname)
}

impl Memory {
    /// 10.0.0.1 on the primary ENI, 10.0.0.2 on another one, and so on by turns.
    fn grant(&mut self, address: Option<String>) -> PodAddress {
        self.given += 1;
        let address = address.unwrap_or_else(|| format!("10.0.0.{}", self.given));
        let table = if self.given % 2 == 1 { 254 } else { 2 };
        PodAddress { address, table, eni: "eni-1".to_owned() }
    }
}

#[tonic::async_trait]
impl Ipam for Service {
    async fn add(
        &self,
        request: Request<v1::AddRequest>,
    ) -> Result<Response<v1::AddReply>, Status> {
        let wanted = match self.begin("Add").await? {
            Mode::Refusing(refused) => {
                let outcome = Some(Outcome::Refused(refused));
                return Ok(Response::new(v1::AddReply { outcome }));
            }
            Mode::Granting(address) => Some(address),
            _ => None,
        };
        let request = request.into_inner();
        let mut memory = self.0.lock().unwrap();
        let key = key(request.attachment);
        if !memory.records.contains_key(&key) {
            let addresses = vec![memory.grant(wanted)];
            let pod = request.pod.unwrap_or_default();
            memory.records.insert(key.clone(), Record { pod, addresses });
        }
        let addresses = memory.records[&key].addresses.clone();
        let outcome = Some(Outcome::Granted(v1::Granted { addresses }));
        Ok(Response::new(v1::AddReply { outcome }))
    }

    async fn del(
        &self,
        request: Request<v1::DelRequest>,
    ) -> Result<Response<v1::DelReply>, Status> {
        self.begin("Del").await?;
        let key = key(request.into_inner().attachment);
        let record = self.0.lock().unwrap().records.remove(&key);
        let released = record.map(|record| record.addresses).unwrap_or_default();
        Ok(Response::new(v1::DelReply { released, unrecorded: String::new() }))
    }

    async fn check(
        &self,
        request: Request<v1::CheckRequest>,
    ) -> Result<Response<v1::CheckReply>, Status> {
        self.begin("Check").await?;
        let key = key(request.into_inner().attachment);
        let record = self.0.lock().unwrap().records.get(&key).cloned();
        let addresses = record.map(|record| record.addresses).unwrap_or_default();
        Ok(Response::new(v1::CheckReply { addresses }))
    }

    async fn gc(&self, request: Request<v1::GcRequest>) -> Result<Response<v1::GcReply>, Status> {
        self.begin("Gc").await?;
        let request = request.into_inner();
        let valid = |key: &Key| {
            let same = |v: &Attachment| v.container_id == key.1 && v.ifname == key.2;
            key.0 != request.network || request.valid.iter().any(same)
        };
        let mut memory = self.0.lock().unwrap();
        let (kept, gone) =
            std::mem::take(&mut memory.records).into_iter().partition(|(key, _)| valid(key));
        memory.records = kept;
        let gone: BTreeMap<Key, Record> = gone;
        let collected = gone.into_iter().map(|(key, record)| v1::Collected {
            attachment: Some(Attachment { network: key.0, container_id: key.1, ifname: key.2 }),
            pod: Some(record.pod),
            released: record.addresses,
        });
        Ok(Response::new(v1::GcReply { collected: collected.collect() }))
    }

    async fn ready(
        &self,
        _: Request<v1::ReadyRequest>,
    ) -> Result<Response<v1::ReadyReply>, Status> {
        let mut reply =
            v1::ReadyReply { not_ready: None, server_version: proto::VERSION.to_owned() };
        match self.begin("Ready").await? {
            Mode::Refusing(refused) => reply.not_ready = Some(refused),
            Mode::Version(version) => reply.server_version = version,
            _ => {}
        }
        Ok(Response::new(reply))
    }

    async fn view(&self, _: Request<v1::ViewRequest>) -> Result<Response<v1::ViewReply>, Status> {
        Err(Status::unimplemented("the plugin does not ask for it"))
    }
}
