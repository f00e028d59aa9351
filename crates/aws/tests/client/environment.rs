//! Where the client finds EC2 and credentials in the process's environment.
//!
//! A test cannot change its own environment while others run. So each test runs this program again as a
//! child process with another environment.

use std::process::{Command, Output};

use aws::{Ec2, Imds};
use ipam::call::Ec2Call;

use super::server::{Answer, Server};
use super::servers::Process;
use super::wire::{id, options};

/// The code of the child process. Alone it is no test.
#[tokio::test]
#[ignore = "the other tests of this file run it as a child process"]
async fn child() {
    let mut options = options("http://unused");
    options.endpoint = None;
    options.credentials = None;
    let client = Ec2::connect(options).await.unwrap();
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
