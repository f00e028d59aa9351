//! An `ipamd` with a memory: the whole gRPC contract over a real socket, with a few addresses and
//! without an engine.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::Duration;

use proto::v1::ipam_server::{Ipam, IpamServer};
use proto::v1::pod_address::Reach;
use proto::v1::{self, Attachment, PodAddress, Refused, add_reply::Outcome};
use tokio::net::UnixListener;
use tokio::sync::{Notify, oneshot};
use tokio_stream::wrappers::UnixListenerStream;
use tonic::{Request, Response, Status};

/// How the daemon behaves. A test may change it at any time.
#[derive(Debug, Clone, Default)]
pub(crate) enum Mode {
    /// It serves every call.
    #[default]
    Serving,
    /// Add waits this long before it grants.
    Slow(Duration),
    /// This method waits for this before it answers.
    Held(&'static str, Arc<Notify>),
    /// It takes every call and never answers.
    Hung,
    /// It answers every call with this error.
    Failing(tonic::Code),
    /// Add and Ready answer with this refusal.
    Refusing(Refused),
    /// Add grants exactly these.
    Granting(Vec<PodAddress>),
    /// Add grants this node-local address to who takes one.
    NodeLocal(&'static str),
    /// Add grants links of at most this MTU; 0 is the answer of an older daemon.
    Mtu(u32),
    /// Add switches IPv6 off in the pod.
    WithoutIpv6,
    /// The replies of these methods lack `reach`, as those of an older daemon.
    WithoutReach(&'static [&'static str]),
    /// Ready answers with this version.
    Version(String),
    /// Del says that the daemon removes links; an older daemon does not. Nobody does so here.
    RemovingLinks,
}

/// The record of an attachment.
#[derive(Debug, Clone)]
pub(crate) struct Record {
    pub(crate) pod: v1::Pod,
    pub(crate) addresses: Vec<PodAddress>,
    /// Empty for none.
    pub(crate) node_local: String,
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
    /// The daemon listens at `socket` when this returns.
    pub(crate) fn start(socket: &Path) -> Self {
        Self::resume(socket, Arc::default())
    }

    /// Starts the daemon again, with its memory.
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
    /// Notes the call, and does what the mode requires before the call's own work.
    async fn begin(&self, call: &'static str) -> Result<Mode, Status> {
        let mode = {
            let mut memory = self.0.lock().unwrap();
            memory.calls.push(call);
            memory.mode.clone()
        };
        match &mode {
            Mode::Hung => std::future::pending().await,
            Mode::Failing(code) => Err(Status::new(*code, "this mode fails every call")),
            Mode::Slow(time) if call == "Add" => {
                tokio::time::sleep(*time).await;
                Ok(mode)
            }
            Mode::Held(held, go) if call == *held => {
                go.notified().await;
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
    /// 10.0.0.1 on the primary ENI, 10.0.0.2 on the one at device index 1, and so on by turns.
    fn grant(&mut self) -> PodAddress {
        self.given += 1;
        on_eni(&format!("10.0.0.{}", self.given), u32::from(self.given + 1) % 2)
    }
}

/// An address on the ENI at this device index of card 0.
pub(crate) fn on_eni(address: &str, device_index: u32) -> PodAddress {
    let table = if device_index == 0 { 254 } else { device_index + 1 };
    let id = format!("eni-{device_index}");
    let by_eni = v1::EniReach { id: id.clone(), network_card: 0, device_index, table };
    PodAddress { address: address.to_owned(), table, eni: id, reach: Some(Reach::ByEni(by_eni)) }
}

/// The addresses as `call` sends them in this mode.
fn sent(mode: &Mode, call: &str, addresses: Vec<PodAddress>) -> Vec<PodAddress> {
    let bare = |address| PodAddress { reach: None, ..address };
    match mode {
        Mode::WithoutReach(calls) if calls.contains(&call) => {
            addresses.into_iter().map(bare).collect()
        }
        _ => addresses,
    }
}

#[tonic::async_trait]
impl Ipam for Service {
    async fn add(
        &self,
        request: Request<v1::AddRequest>,
    ) -> Result<Response<v1::AddReply>, Status> {
        let mode = self.begin("Add").await?;
        if let Mode::Refusing(refused) = mode {
            let outcome = Some(Outcome::Refused(refused));
            return Ok(Response::new(v1::AddReply { outcome }));
        }
        let request = request.into_inner();
        let mut memory = self.0.lock().unwrap();
        let key = key(request.attachment);
        if !memory.records.contains_key(&key) {
            let addresses = match &mode {
                Mode::Granting(addresses) => addresses.clone(),
                _ => vec![memory.grant()],
            };
            let pod = request.pod.unwrap_or_default();
            let node_local = match &mode {
                Mode::NodeLocal(address) if request.takes_node_local => (*address).to_owned(),
                _ => String::new(),
            };
            memory.records.insert(key.clone(), Record { pod, addresses, node_local });
        }
        let addresses = sent(&mode, "Add", memory.records[&key].addresses.clone());
        let mtu = if let Mode::Mtu(bytes) = mode { bytes } else { 9001 };
        let node_local = memory.records[&key].node_local.clone();
        let disable_ipv6 = matches!(mode, Mode::WithoutIpv6);
        let granted = v1::Granted { addresses, mtu, node_local, disable_ipv6 };
        let outcome = Some(Outcome::Granted(granted));
        Ok(Response::new(v1::AddReply { outcome }))
    }

    async fn del(
        &self,
        request: Request<v1::DelRequest>,
    ) -> Result<Response<v1::DelReply>, Status> {
        let mode = self.begin("Del").await?;
        let key = key(request.into_inner().attachment);
        let record = self.0.lock().unwrap().records.remove(&key);
        let released = record.map(|record| record.addresses).unwrap_or_default();
        let released = sent(&mode, "Del", released);
        let removes_links = matches!(mode, Mode::RemovingLinks);
        Ok(Response::new(v1::DelReply { released, unrecorded: String::new(), removes_links }))
    }

    async fn check(
        &self,
        request: Request<v1::CheckRequest>,
    ) -> Result<Response<v1::CheckReply>, Status> {
        let mode = self.begin("Check").await?;
        let key = key(request.into_inner().attachment);
        let record = self.0.lock().unwrap().records.get(&key).cloned();
        let (addresses, node_local) =
            record.map(|record| (record.addresses, record.node_local)).unwrap_or_default();
        let addresses = sent(&mode, "Check", addresses);
        let ipv6_is_off = matches!(mode, Mode::WithoutIpv6);
        Ok(Response::new(v1::CheckReply { addresses, node_local, ipv6_is_off }))
    }

    async fn gc(&self, request: Request<v1::GcRequest>) -> Result<Response<v1::GcReply>, Status> {
        let mode = self.begin("Gc").await?;
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
            released: sent(&mode, "Gc", record.addresses),
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
        Err(Status::unimplemented("the plugin does not call it"))
    }

    async fn why(&self, _: Request<v1::WhyRequest>) -> Result<Response<v1::WhyReply>, Status> {
        Err(Status::unimplemented("the plugin does not call it"))
    }

    async fn subnets(
        &self,
        _: Request<v1::SubnetsRequest>,
    ) -> Result<Response<v1::SubnetsReply>, Status> {
        Err(Status::unimplemented("the plugin does not call it"))
    }

    async fn differences(
        &self,
        _: Request<v1::DifferencesRequest>,
    ) -> Result<Response<v1::DifferencesReply>, Status> {
        Err(Status::unimplemented("the plugin does not call it"))
    }
}
