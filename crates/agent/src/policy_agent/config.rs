//! What the network policy agent asks for at its start.

use std::convert::Infallible;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use futures::stream::{self, Stream};
use ipam::id::InstanceId;
use proto::policy_agent::NetworkPolicyAgentConfigReply;
use proto::policy_agent::config_server_backend_server::{
    ConfigServerBackend, ConfigServerBackendServer,
};
use tokio::net::{TcpListener, TcpStream};
use tonic::transport::Server;
use tonic::{Request, Response, Status};

use super::PolicyAgentConfig;

/// Where the agent's versions 1.2.4 to 1.4.0 ask. Later ones ask at the daemon's socket.
const ADDRESS: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 50051);
/// The pause after a failure. A daemon that ends may still hold the port, and a lack of file descriptors does not pass
/// at once.
const AFTER_FAILURE: Duration = Duration::from_secs(1);
/// The pause after each caller, and how long one may stay. Any program of the machine may call, so these bound the number of
/// open connections.
const BETWEEN_CALLERS: Duration = Duration::from_millis(100);
const STAY: Duration = Duration::from_secs(5);

/// Serves one node's configuration of the agent.
#[derive(Debug, Clone)]
pub(crate) struct ConfigService(NetworkPolicyAgentConfigReply);

impl ConfigService {
    pub(crate) fn new(config: &PolicyAgentConfig, instance: &InstanceId) -> Self {
        Self(NetworkPolicyAgentConfigReply {
            mode: config.mode.as_str().to_owned(),
            multi_nic: false,
            // Versions up to 1.4.3 find them themselves.
            node_ipv4: String::new(),
            node_ipv6: String::new(),
            instance_id: instance.to_string(),
            region: config.region.clone(),
        })
    }
}

#[tonic::async_trait]
impl ConfigServerBackend for ConfigService {
    async fn get_network_policy_configs(
        &self,
        _request: Request<()>,
    ) -> Result<Response<NetworkPolicyAgentConfigReply>, Status> {
        tracing::info!(
            mode = self.0.mode,
            "the network policy agent has asked for its configuration"
        );
        Ok(Response::new(self.0.clone()))
    }
}

/// Serves it by TCP on this machine, whenever the port is free.
pub(crate) async fn serve_forever(service: ConfigService) -> Infallible {
    let mut said = None;
    loop {
        let fault = match TcpListener::bind(ADDRESS).await {
            Ok(listener) => {
                said = None;
                let server = Server::builder().max_connection_age(STAY);
                let mut server = server.max_connection_age_grace(Duration::from_secs(1));
                let service = ConfigServerBackendServer::new(service.clone());
                let served = server.add_service(service);
                let served = served.serve_with_incoming(connections(listener)).await;
                served
                    .map_or_else(|fault| crate::error_chain(&fault), |()| "it has ended".to_owned())
            }
            Err(fault) => fault.to_string(),
        };
        if said.as_ref() != Some(&fault) {
            tracing::warn!(address = %ADDRESS, fault, "network policy agents before 1.4.1 get no configuration");
            said = Some(fault);
        }
        tokio::time::sleep(AFTER_FAILURE).await;
    }
}

fn connections(listener: TcpListener) -> impl Stream<Item = io::Result<TcpStream>> {
    stream::unfold(listener, |listener| async move {
        loop {
            match listener.accept().await {
                Ok((connection, _)) => {
                    tokio::time::sleep(BETWEEN_CALLERS).await;
                    return Some((Ok(connection), listener));
                }
                Err(_lacking) => tokio::time::sleep(AFTER_FAILURE).await,
            }
        }
    })
}
