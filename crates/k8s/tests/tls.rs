//! The API server over TLS: its certificate expires and is renewed, and the token of the service account is rotated.

#![expect(clippy::unwrap_used, reason = "in a test a panic is the report")]

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ipam::eni_config::EniConfigKeys;
use k8s::{Access, Cluster, News, Wanted, follow};
use kube_sim::KubeSim;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use serde_json::json;
use tokio::sync::mpsc;

/// The client reads its token again after a minute.
const PATIENCE: Duration = Duration::from_secs(180);
/// How long one direction of a connection is waited for before the other one has its turn.
const TURN: Duration = Duration::from_millis(5);

fn openssl(directory: &Path, words: &str) {
    let mut command = Command::new("openssl");
    let made = command.args(words.split_whitespace()).current_dir(directory).output().unwrap();
    assert!(made.status.success(), "openssl {words}: {}", String::from_utf8_lossy(&made.stderr));
}

const KEY: &str = "-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -config openssl.cnf";

/// A service account's directory with `ca.crt` and a token, and the key of a server.
fn service_account() -> tempfile::TempDir {
    let made = tempfile::tempdir().unwrap();
    let directory = made.path();
    // Without a file of its own, openssl would add the extensions of the machine's.
    let configuration = "[req]\ndistinguished_name=subject\n[subject]\n";
    std::fs::write(directory.join("openssl.cnf"), configuration).unwrap();
    let authority = "-addext basicConstraints=critical,CA:TRUE -addext keyUsage=keyCertSign";
    openssl(
        directory,
        &format!("req -x509 {KEY} -keyout ca.key -out ca.crt -subj /CN=ca -days 2 {authority}"),
    );
    let serves = "-addext subjectAltName=IP:127.0.0.1";
    openssl(
        directory,
        &format!("req {KEY} -keyout server.key -out server.csr -subj /CN=server {serves}"),
    );
    std::fs::write(directory.join("token"), "one").unwrap();
    made
}

/// A certificate of the server that is valid for so many days; for 0, until now.
fn certificate(directory: &Path, days: u32) -> Arc<ServerConfig> {
    let from = "x509 -req -in server.csr -CA ca.crt -CAkey ca.key -copy_extensions copy";
    openssl(directory, &format!("{from} -days {days} -out server.crt"));
    let chain = CertificateDer::from_pem_file(directory.join("server.crt")).unwrap();
    let key = PrivateKeyDer::from_pem_file(directory.join("server.key")).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider);
    let config = config.with_safe_default_protocol_versions().unwrap().with_no_client_auth();
    Arc::new(config.with_single_cert(vec![chain], key).unwrap())
}

/// Ends TLS before a server. Each connection gets the certificate of its time.
fn listen_with_tls(server: SocketAddr, certificate: Arc<Mutex<Arc<ServerConfig>>>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        while let Ok((client, _)) = listener.accept() {
            let config = Arc::clone(&certificate.lock().unwrap());
            std::thread::spawn(move || pass(client, server, config));
        }
    });
    address
}

/// Passes bytes on in both directions, until one side ends.
fn pass(client: TcpStream, server: SocketAddr, config: Arc<ServerConfig>) -> std::io::Result<()> {
    let mut server = TcpStream::connect(server)?;
    server.set_read_timeout(Some(TURN))?;
    client.set_read_timeout(Some(TURN))?;
    let connection = ServerConnection::new(config).map_err(std::io::Error::other)?;
    let mut client = StreamOwned::new(connection, client);
    while pass_some(&mut client, &mut server)? && pass_some(&mut server, &mut client)? {}
    Ok(())
}

/// Whether the connection goes on.
fn pass_some(from: &mut impl Read, to: &mut impl Write) -> std::io::Result<bool> {
    let mut bytes = [0; 4096];
    match from.read(&mut bytes) {
        Ok(0) => Ok(false),
        Ok(n) => {
            to.write_all(&bytes[..n])?;
            to.flush()?;
            Ok(true)
        }
        Err(late) if matches!(late.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => Ok(true),
        Err(fault) => Err(fault),
    }
}

/// Waits for news whose text has `part`.
async fn until(news: &mut mpsc::UnboundedReceiver<News>, part: &str) {
    let mut seen = Vec::new();
    let waiting = async {
        loop {
            let text = format!("{:?}", news.recv().await.unwrap());
            let is_it = text.contains(part);
            seen.push(text);
            if is_it {
                return;
            }
        }
    };
    let in_time = tokio::time::timeout(PATIENCE, waiting).await;
    assert!(in_time.is_ok(), "no {part} in {seen:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn certificate_and_token_are_renewed_without_a_restart() {
    const CONFIGS: &str = "/apis/crd.k8s.amazonaws.com/v1alpha1/eniconfigs";
    let account = service_account();
    let directory = account.path();
    let sim = KubeSim::default();
    sim.require_token("one");
    sim.put("/api/v1/nodes", json!({ "kind": "Node", "metadata": { "name": "n1" } }));
    let put = |subnet: &str| {
        let spec = json!({ "subnet": subnet });
        sim.put(CONFIGS, json!({ "metadata": { "name": "default" }, "spec": spec }));
    };
    put("subnet-a");
    let shown = Arc::new(Mutex::new(certificate(directory, 0)));
    let behind = sim.listen("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let address = listen_with_tls(behind, Arc::clone(&shown));
    let access = Access {
        url: format!("https://{address}"),
        service_account: directory.to_owned(),
        answer_within: Duration::from_secs(10),
        watch_for: Duration::from_secs(2),
    };
    let cluster = Cluster::connect(&access).unwrap();
    let keys = EniConfigKeys { annotation: "a".to_owned(), label: "a".to_owned() };
    let wanted = Wanted { eni_config: Some(keys), settings: None };
    let (tell, mut news) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        match follow(&cluster, "n1", &wanted, |news| drop(tell.send(news))).await {}
    });
    until(&mut news, "xpired").await;
    *shown.lock().unwrap() = certificate(directory, 2);
    until(&mut news, "subnet-a").await;

    // As the kubelet does it: the file has another token, and the one before is worth nothing any more.
    std::fs::write(directory.join("token"), "two").unwrap();
    sim.require_token("two");
    put("subnet-b");
    until(&mut news, "subnet-b").await;
}
