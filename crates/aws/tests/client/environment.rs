//! Where the client finds EC2 and credentials in the process's environment.
//!
//! A test cannot change its own environment while others run. So each test runs this program again as a
//! child process with another environment.

use std::process::{Command, Output};

use aws::{Ec2, Imds, Proxies, Roots};
use ipam::call::Ec2Call;
use settings::Settings;

use super::server::{Answer, Server};
use super::servers::Process;
use super::wire::{id, options};

/// The code of the child process. Alone it is no test.
#[tokio::test]
#[ignore = "the other tests of this file run it as a child process"]
async fn child() {
    let mut options = options("http://unused");
    options.credentials = None;
    // As `ipamd` does.
    let settings = Settings::from_process().unwrap();
    options.endpoint = settings.ec2_endpoint;
    let (http, https, except) = (settings.http_proxy, settings.https_proxy, settings.no_proxy);
    options.proxies = Proxies { http, https, except };
    options.roots = Roots::of(settings.ca_bundle);
    let client = match Ec2::connect(options).await {
        Ok(client) => client,
        Err(error) => return println!("no client: {error}"),
    };
    let outcome = client.execute(&Ec2Call::DeleteEni { eni: id("eni-1") }).await;
    println!("EC2 says {outcome:?}");
    if std::env::var_os("TEST_IMDS").is_some() {
        println!("IMDS says {:?}", Imds::connect().node_facts().await.unwrap_err());
    }
}

async fn run_child(environment: &[(&str, &str)]) -> String {
    let program = std::env::current_exe().expect("a running test has a program");
    let mut command = Command::new(program);
    command.args(["--exact", "environment::child", "--ignored", "--nocapture"]).env_clear();
    command.env("AWS_CONFIG_FILE", "/dev/null").env("AWS_SHARED_CREDENTIALS_FILE", "/dev/null");
    command.envs(environment.iter().copied());
    let output = tokio::task::spawn_blocking(move || command.output()).await;
    let Output { status, stdout, stderr } = output.expect("no panic").expect("start the child");
    let text = String::from_utf8_lossy(&stdout).into_owned();
    assert!(status.success(), "{text}{}", String::from_utf8_lossy(&stderr));
    text
}

#[tokio::test]
async fn endpoint_and_keys_in_the_environment_are_used() {
    for variable in ["AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_EC2"] {
        let done = Answer::ok("DeleteNetworkInterface", "<return>true</return>");
        let server = Server::start([done]).await;
        let text = run_child(&[
            (variable, &server.url()),
            ("AWS_ACCESS_KEY_ID", "AKIDOFENV"),
            ("AWS_SECRET_ACCESS_KEY", "secret"),
        ])
        .await;
        assert!(text.contains("EC2 says Ok(Done)"), "{text}");
        let seen = server.seen();
        assert!(seen[0].header("authorization").unwrap().contains("Credential=AKIDOFENV/"));
    }
}

#[tokio::test]
async fn missing_credentials_are_no_lost_connection() {
    let text = run_child(&[
        ("AWS_ENDPOINT_URL", "http://127.0.0.1:9"),
        ("AWS_EC2_METADATA_DISABLED", "true"),
    ])
    .await;
    says_no_credentials(&text);
}

/// The error is the same whatever keeps the credentials away.
fn says_no_credentials(text: &str) {
    let expect = "kind: NoCredentials, code: \"NoCredentials\", message: \"DeleteNetworkInterface: no \
                  credentials yet: ";
    assert!(text.contains(expect) && text.contains("; if that lasts, see that "), "{text}");
}

#[tokio::test]
async fn refusing_metadata_service_means_no_credentials_yet() {
    let text = run_child(&[
        ("AWS_ENDPOINT_URL", "http://127.0.0.1:9"),
        ("AWS_EC2_METADATA_SERVICE_ENDPOINT", "http://127.0.0.1:9"),
    ])
    .await;
    says_no_credentials(&text);
}

/// The environment of a pod whose service account has a role, as EKS sets it.
fn web_identity<'a>(sts: &'a str, token_file: &'a str) -> [(&'a str, &'a str); 5] {
    [
        ("AWS_ROLE_ARN", "arn:aws:iam::111122223333:role/aws-node"),
        ("AWS_WEB_IDENTITY_TOKEN_FILE", token_file),
        ("AWS_STS_REGIONAL_ENDPOINTS", "regional"),
        ("AWS_ENDPOINT_URL_STS", sts),
        // Only STS can give credentials.
        ("AWS_EC2_METADATA_DISABLED", "true"),
    ]
}

fn token_file() -> (tempfile::TempDir, String) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = folder.path().join("token");
    // moto reads the claims in it and does not verify them.
    std::fs::write(&file, "header.claims.signature").expect("write the token");
    let name = file.display().to_string();
    (folder, name)
}

/// moto's STS has other authors, so it checks the SDK's requests independently.
#[tokio::test]
async fn service_account_token_assumes_its_role() {
    let moto = Process::moto().await;
    let (_folder, token_file) = token_file();
    let ec2 = Server::start([Answer::ok("DeleteNetworkInterface", "")]).await;
    let ec2_url = ec2.url();
    let environment =
        [&web_identity(&moto.ready, &token_file)[..], &[("AWS_ENDPOINT_URL_EC2", &ec2_url)]];
    let text = run_child(&environment.concat()).await;
    assert!(text.contains("EC2 says Ok(Done)"), "{text}");
    let seen = ec2.seen();
    // Temporary keys begin with ASIA.
    assert!(seen[0].header("authorization").unwrap().contains("Credential=ASIA"), "{seen:?}");
    assert!(seen[0].header("x-amz-security-token").is_some(), "{seen:?}");
}

#[tokio::test]
async fn refusing_or_silent_sts_means_no_credentials_yet() {
    let refused = "<ErrorResponse><Error><Type>Sender</Type><Code>AccessDenied</Code><Message>Not \
                   authorized to perform sts:AssumeRoleWithWebIdentity</Message></Error></ErrorResponse>";
    for (answer, expect) in [
        (Answer::Send(403, refused.to_owned()), "Not authorized to perform sts:AssumeRole"),
        (Answer::Hang, "timed out"),
    ] {
        let sts = Server::start([answer]).await;
        let (_folder, token_file) = token_file();
        let sts_url = sts.url();
        let environment = [
            &web_identity(&sts_url, &token_file)[..],
            &[("AWS_ENDPOINT_URL_EC2", "http://127.0.0.1:9")],
        ];
        let text = run_child(&environment.concat()).await;
        says_no_credentials(&text);
        assert!(text.contains(expect), "{text}");
        assert!(!sts.seen().is_empty());
    }
}

/// With EKS Pod Identity an agent on the node exchanges the token for keys.
#[tokio::test]
async fn pod_identity_agent_provides_keys() {
    let keys = r#"{"AccessKeyId":"ASIAOFAGENT","SecretAccessKey":"s","Token":"t","Expiration":"2046-11-21T00:00:00Z"}"#;
    let agent = Server::start([Answer::Send(200, keys.to_owned())]).await;
    let ec2 = Server::start([Answer::ok("DeleteNetworkInterface", "")]).await;
    let (_folder, token_file) = token_file();
    let text = run_child(&[
        ("AWS_ENDPOINT_URL", &ec2.url()),
        ("AWS_CONTAINER_CREDENTIALS_FULL_URI", &format!("{}/v1/credentials", agent.url())),
        ("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", &token_file),
    ])
    .await;
    assert!(text.contains("EC2 says Ok(Done)"), "{text}");
    assert!(ec2.seen()[0].header("authorization").unwrap().contains("Credential=ASIAOFAGENT/"));
    assert_eq!(agent.seen()[0].header("authorization"), Some("header.claims.signature"));
}

#[tokio::test]
async fn metadata_service_provides_keys_of_the_instance_role() {
    let role = r#"{"Code":"Success","Type":"AWS-HMAC","AccessKeyId":"AKIDOFROLE","SecretAccessKey":"s",
        "Token":"t","LastUpdated":"2026-11-21T00:00:00Z","Expiration":"2046-11-21T00:00:00Z","AccountId":"111122223333"}"#;
    let metadata = Server::start([
        Answer::Send(200, "token".to_owned()),
        Answer::Send(200, "node-role".to_owned()),
        Answer::Send(200, role.to_owned()),
        Answer::Send(200, "no-document".to_owned()),
    ])
    .await;
    let ec2 = Server::start([Answer::ok("DeleteNetworkInterface", "")]).await;
    let text = run_child(&[
        ("AWS_ENDPOINT_URL", &ec2.url()),
        ("AWS_EC2_METADATA_SERVICE_ENDPOINT", &metadata.url()),
        ("TEST_IMDS", "1"),
    ])
    .await;
    assert!(text.contains("EC2 says Ok(Done)"), "{text}");
    let error = "IMDS says Malformed { path: \"/latest/dynamic/instance-identity/document\"";
    assert!(text.contains(error), "{text}");
    let seen = ec2.seen();
    assert!(seen[0].header("authorization").unwrap().contains("Credential=AKIDOFROLE/"));
}

const KEYS: [(&str, &str); 2] = [("AWS_ACCESS_KEY_ID", "AKID"), ("AWS_SECRET_ACCESS_KEY", "s")];
/// No name server knows it, so only a proxy can reach it.
const EC2: &str = "http://ec2.invalid:8080";

fn done() -> Answer {
    Answer::ok("DeleteNetworkInterface", "<return>true</return>")
}

#[tokio::test]
async fn ec2_is_reached_by_the_proxy_of_the_environment() {
    for name in ["HTTP_PROXY", "http_proxy"] {
        let proxy = Server::start([done()]).await;
        let url = proxy.url().replace("http://", "http://me:se%63ret@");
        let environment = [&KEYS[..], &[("AWS_EC2_ENDPOINT", EC2), (name, &url)]].concat();
        let text = run_child(&environment).await;
        assert!(text.contains("EC2 says Ok(Done)"), "{text}");
        let seen = proxy.seen();
        assert_eq!(seen[0].line, format!("POST {EC2}/ HTTP/1.1"), "{name}");
        // me:secret
        assert_eq!(seen[0].header("proxy-authorization"), Some("Basic bWU6c2VjcmV0"));
    }
}

#[tokio::test]
async fn encrypted_ec2_is_reached_by_a_tunnel() {
    let proxy = Server::start([Answer::Send(403, String::new())]).await;
    let url = proxy.url();
    let environment = [
        &KEYS[..],
        &[
            ("AWS_EC2_ENDPOINT", "https://ec2.invalid"),
            ("HTTPS_PROXY", &url),
            ("HTTP_PROXY", "a.invalid"),
        ],
    ];
    let text = run_child(&environment.concat()).await;
    assert!(text.contains("code: \"ConnectionFailed\""), "{text}");
    assert_eq!(proxy.seen()[0].line, "CONNECT ec2.invalid:443 HTTP/1.1");
}

#[tokio::test]
async fn host_in_no_proxy_is_reached_without_the_proxy() {
    let proxy = Server::start([done()]).await;
    let url = proxy.url();
    for (endpoint, except) in [
        (EC2, "ec2.invalid"),
        (EC2, "x, .invalid:8080"),
        (EC2, "*"),
        ("http://192.0.2.1:1", "192.0.2.0/24"),
    ] {
        let environment = [
            &KEYS[..],
            &[("AWS_EC2_ENDPOINT", endpoint), ("HTTP_PROXY", &url), ("no_proxy", except)],
            &[("HTTP_TIMEOUT", "10")],
        ];
        let text = run_child(&environment.concat()).await;
        assert!(text.contains("EC2 says Err"), "{text}");
        assert!(proxy.seen().is_empty(), "{endpoint} {except}: {:?}", proxy.seen());
    }
}

#[tokio::test]
async fn port_in_no_proxy_is_the_port_that_is_excepted() {
    let proxy = Server::start([done()]).await;
    let url = proxy.url();
    let except = ("NO_PROXY", "ec2.invalid:443,.ec2.invalid,192.0.2.1:8080");
    let environment = [&KEYS[..], &[("AWS_EC2_ENDPOINT", EC2), ("HTTP_PROXY", &url), except]];
    let text = run_child(&environment.concat()).await;
    assert!(text.contains("EC2 says Ok(Done)"), "{text}");
    assert_eq!(proxy.seen().len(), 1);
}

/// Manifests write `value: ""` for what is not set.
#[tokio::test]
async fn empty_endpoint_for_all_services_counts_as_unset() {
    let ec2 = Server::start([done()]).await;
    let url = ec2.url();
    let environment = [&KEYS[..], &[("AWS_ENDPOINT_URL_EC2", &url), ("AWS_ENDPOINT_URL", "")]];
    let text = run_child(&environment.concat()).await;
    assert!(text.contains("EC2 says Ok(Done)"), "{text}");
}

/// A proxy that got such a request would get the node's credentials.
#[tokio::test]
async fn credentials_and_metadata_never_go_by_the_proxy() {
    let proxy = Server::start([done()]).await;
    let keys = r#"{"AccessKeyId":"ASIAOFAGENT","SecretAccessKey":"s","Token":"t","Expiration":"2046-11-21T00:00:00Z"}"#;
    let agent = Server::start([Answer::Send(200, keys.to_owned())]).await;
    let (_folder, token_file) = token_file();
    let proxy_url = proxy.url();
    let text = run_child(&[
        ("AWS_EC2_ENDPOINT", EC2),
        ("AWS_CONTAINER_CREDENTIALS_FULL_URI", &format!("{}/v1/credentials", agent.url())),
        ("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", &token_file),
        ("AWS_EC2_METADATA_SERVICE_ENDPOINT", &agent.url()),
        ("HTTP_PROXY", &proxy_url),
        ("TEST_IMDS", "1"),
    ])
    .await;
    assert!(text.contains("EC2 says Ok(Done)"), "{text}");
    let lines: Vec<_> = proxy.seen().into_iter().map(|request| request.line).collect();
    assert_eq!(lines, [format!("POST {EC2}/ HTTP/1.1")]);
    assert_eq!(agent.seen()[0].line, "GET /v1/credentials HTTP/1.1");
    assert!(agent.seen().iter().any(|request| request.line.contains("/latest/api/token")));
}

#[tokio::test]
async fn sts_is_reached_by_the_proxy() {
    let proxy = Server::start([Answer::Send(403, String::new())]).await;
    let (_folder, token_file) = token_file();
    let url = proxy.url();
    let environment = [
        &web_identity("http://sts.invalid", &token_file)[..],
        &[("AWS_EC2_ENDPOINT", EC2), ("HTTP_PROXY", &url)],
    ];
    says_no_credentials(&run_child(&environment.concat()).await);
    assert!(proxy.seen()[0].line.starts_with("POST http://sts.invalid/"), "{:?}", proxy.seen());
}

/// A server of HTTPS that answers each POST with a success of EC2.
const TLS_SERVER: &str = r#"
import http.server, ssl, sys
class Handler(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        self.rfile.read(int(self.headers["content-length"]))
        body = b"<DeleteNetworkInterfaceResponse><return>true</return></DeleteNetworkInterfaceResponse>"
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(sys.argv[1])
server.socket = context.wrap_socket(server.socket, server_side=True)
print(server.server_address[1], flush=True)
server.serve_forever()
"#;

#[tokio::test]
async fn certificates_in_the_bundle_are_trusted_and_no_others() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = |name: &str| folder.path().join(name).display().to_string();
    let make = |name: &str| {
        let (key, certificate) = (file(&format!("{name}.key")), file(&format!("{name}.pem")));
        let text = format!(
            "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 9000 -subj /CN=ec2 \
             -addext subjectAltName=DNS:localhost -addext basicConstraints=critical,CA:FALSE \
             -keyout {key} -out {certificate}"
        );
        let made = Command::new("openssl").args(text.split_whitespace()).output().expect("openssl");
        assert!(made.status.success(), "{made:?}");
        let both = [&key, &certificate].map(|file| std::fs::read_to_string(file).expect("a file"));
        std::fs::write(file(&format!("{name}.both")), both.concat()).expect("write");
        certificate
    };
    let (ours, other) = (make("ours"), make("other"));
    let server = Process::python(TLS_SERVER, &file("ours.both")).await;
    let endpoint = format!("https://localhost:{}", server.ready.trim());
    let run = async |bundle: &str| {
        let set = [("AWS_EC2_ENDPOINT", &*endpoint), ("AWS_CA_BUNDLE", bundle)];
        run_child(&[&KEYS[..], &set].concat()).await
    };
    let text = run(&ours).await;
    assert!(text.contains("EC2 says Ok(Done)"), "{text}");
    let text = run(&other).await;
    assert!(text.contains("code: \"ConnectionFailed\""), "{text}");
    let whole = std::fs::read_to_string(&ours).expect("a file");
    let damaged =
        [("empty", ""), ("text", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")];
    for (name, text) in damaged.into_iter().chain([("cut", &whole[..whole.len() / 2])]) {
        let bad = file(name);
        std::fs::write(&bad, text).expect("write");
        let text = run(&bad).await;
        assert!(
            text.contains(&format!("no client: {bad} is no list of PEM certificates: ")),
            "{text}"
        );
    }
    let text = run("/nowhere").await;
    assert!(text.contains("no client: read the certificates in /nowhere"), "{text}");
}
