//! An API server by TLS: certificates that are not to be trusted, and a token that is rotated.

#![expect(clippy::unwrap_used, reason = "in a test a panic is the report")]

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use k8s::{Access, Cluster, News, Wanted, follow};
use kube_sim::KubeSim;
use serde_json::json;
use tempfile::TempDir;
use tokio::sync::mpsc;

const NODES: &str = "/api/v1/nodes";
/// Longer than a minute, after which token and certificates are read again.
const PATIENCE: Duration = Duration::from_secs(100);

fn openssl(dir: &Path, arguments: &str) {
    let made =
        Command::new("openssl").current_dir(dir).args(arguments.split(' ')).output().unwrap();
    assert!(made.status.success(), "{arguments}: {}", String::from_utf8_lossy(&made.stderr));
}

/// An authority `NAME.crt`.
fn authority(dir: &Path, name: &str) {
    let configuration = "[req]\ndistinguished_name=subject\n[subject]\n";
    std::fs::write(dir.join("openssl.cnf"), configuration).unwrap();
    openssl(
        dir,
        &format!(
            "req -x509 -config openssl.cnf -days 30 -nodes -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 \
             -keyout {name}.key -out {name}.crt -subj /CN={name} -addext basicConstraints=critical,CA:TRUE"
        ),
    );
}

/// The server's certificate from now on, by an authority and for some days; a negative number makes one that has expired.
fn serve_certificate(dir: &Path, by: &str, days: i32) {
    openssl(
        dir,
        "req -new -config openssl.cnf -nodes -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -keyout tls.key \
         -out tls.csr -subj /CN=api -addext subjectAltName=IP:127.0.0.1 -addext basicConstraints=critical,CA:FALSE",
    );
    openssl(
        dir,
        &format!(
            "x509 -req -in tls.csr -CA {by}.crt -CAkey {by}.key -days {days} -copy_extensions copy -out tls.crt"
        ),
    );
}

/// A follower of node `n1` at a server by TLS. Its service account and the server's files are in one directory.
struct Following {
    sim: KubeSim,
    dir: TempDir,
    news: mpsc::UnboundedReceiver<News>,
}

impl Following {
    async fn start(by: &str, days: i32) -> Self {
        let dir = tempfile::tempdir().unwrap();
        authority(dir.path(), "ca");
        authority(dir.path(), "other");
        serve_certificate(dir.path(), by, days);
        std::fs::write(dir.path().join("token"), "first").unwrap();
        let sim = KubeSim::default();
        sim.put(NODES, json!({ "kind": "Node", "apiVersion": "v1", "metadata": { "name": "n1" } }));
        let address =
            sim.listen_by_tls("127.0.0.1:0".parse().unwrap(), dir.path().to_owned()).await.unwrap();
        let access = Access {
            url: format!("https://{address}"),
            service_account: dir.path().to_owned(),
            answer_within: Duration::from_secs(5),
            watch_for: Duration::from_secs(2),
        };
        let cluster = Cluster::connect(&access).unwrap();
        let (tell, news) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            let wanted = Wanted { eni_config: None, settings: None };
            match follow(&cluster, "n1", &wanted, |news| drop(tell.send(news))).await {}
        });
        Self { sim, dir, news }
    }

    /// Waits until the watch of the Node works, or fails with all of `texts`.
    async fn until(&mut self, texts: Option<&[&str]>) {
        let mut last = None;
        let waiting = async {
            loop {
                let News::Health { fault, .. } = self.news.recv().await.unwrap() else { continue };
                let is_met = match (&fault, texts) {
                    (None, None) => true,
                    (Some(fault), Some(texts)) => texts.iter().all(|it| fault.why.contains(it)),
                    (None, Some(_)) | (Some(_), None) => false,
                };
                last = Some(fault);
                if is_met {
                    return;
                }
            }
        };
        let in_time = tokio::time::timeout(PATIENCE, waiting).await;
        assert!(in_time.is_ok(), "{texts:?} are expected, not {last:?}");
    }
}

#[tokio::test]
async fn expired_certificate_is_named_and_a_new_one_is_used() {
    let mut following = Following::start("ca", -1).await;
    following.until(Some(&["has expired", "clock"])).await;
    serve_certificate(following.dir.path(), "ca", 30);
    following.until(None).await;
}

#[tokio::test]
async fn certificate_of_an_unknown_authority_is_named() {
    let mut following = Following::start("other", 30).await;
    following.until(Some(&["ca.crt", "has not issued"])).await;
    // The cluster's authority has changed, and its certificate comes a little later.
    std::fs::copy(following.dir.path().join("other.crt"), following.dir.path().join("ca.crt"))
        .unwrap();
    following.until(None).await;
}

#[tokio::test]
async fn token_rotated_on_disk_is_used() {
    let mut following = Following::start("ca", 30).await;
    following.sim.accept_token("first");
    following.until(None).await;
    following.sim.accept_token("second");
    following.until(Some(&["does not accept the token"])).await;
    std::fs::write(following.dir.path().join("token"), "second").unwrap();
    following.until(None).await;
}
