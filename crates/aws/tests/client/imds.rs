//! The metadata service as the client sees it, right and wrong.

use std::error::Error;

use aws::{Imds, ImdsError};

use super::server::{Answer, Server};
use super::wire::id;

/// In the order in which they are asked for, after the token.
const FACTS: [(&str, &str); 12] = [
    ("mac", "02:74:B0:72:79:61"),
    ("instance-id", "i-1"),
    ("instance-type", "m5.large"),
    ("placement/region", "us-east-1"),
    ("placement/availability-zone", "us-east-1a"),
    ("network/interfaces/macs/02:74:b0:72:79:61/vpc-id", "vpc-1"),
    ("network/interfaces/macs/02:74:b0:72:79:61/subnet-id", "subnet-1"),
    ("network/interfaces/macs/02:74:b0:72:79:61/security-group-ids", "sg-2\nsg-1"),
    ("network/interfaces/macs/02:74:b0:72:79:61/interface-id", "eni-1"),
    ("local-ipv4", "10.0.2.157"),
    ("network/interfaces/macs/02:74:b0:72:79:61/subnet-ipv4-cidr-block", "10.0.2.0/24"),
    (
        "network/interfaces/macs/02:74:b0:72:79:61/vpc-ipv4-cidr-blocks",
        "10.0.0.0/16\n100.64.0.0/16",
    ),
];

/// A service that answers with the facts, but at the `broken`th with `answer`.
async fn service(broken: usize, answer: Answer) -> (Server, Imds) {
    let mut answers: Vec<_> =
        FACTS.iter().map(|(_, text)| Answer::Send(200, (*text).to_owned())).collect();
    if broken < answers.len() {
        answers[broken] = answer;
        answers.truncate(broken + 1);
    }
    answers.insert(0, Answer::Send(200, "a-token".to_owned()));
    let server = Server::start(answers).await;
    let imds = Imds::connect_to(&server.url()).expect("a URL");
    (server, imds)
}

#[tokio::test]
async fn the_node_knows_who_and_where_it_is() {
    let (server, imds) = service(usize::MAX, Answer::Hang).await;
    let facts = imds.node_facts().await.unwrap();
    let seen = server.seen();
    assert_eq!(seen[0].line, "PUT /latest/api/token HTTP/1.1");
    for (request, (path, _)) in seen[1..].iter().zip(FACTS) {
        assert_eq!(request.line, format!("GET /latest/meta-data/{path} HTTP/1.1"));
        assert_eq!(request.header("x-aws-ec2-metadata-token"), Some("a-token"));
    }
    assert_eq!(seen.len(), 13);
    assert_eq!((facts.instance, facts.vpc), (id("i-1"), id("vpc-1")));
    assert_eq!((&*facts.region, &*facts.availability_zone), ("us-east-1", "us-east-1a"));
    assert_eq!((&*facts.instance_type, &*facts.primary_mac), ("m5.large", "02:74:b0:72:79:61"));
    assert_eq!((facts.subnet, facts.primary_eni), (id("subnet-1"), id("eni-1")));
    assert_eq!(facts.security_groups, [id("sg-1"), id("sg-2")].into());
    assert_eq!(facts.primary_address.to_string(), "10.0.2.157");
    assert_eq!(facts.subnet_cidr.to_string(), "10.0.2.0/24");
    let vpc_cidrs: Vec<_> = facts.vpc_cidrs.iter().map(ToString::to_string).collect();
    assert_eq!(vpc_cidrs, ["10.0.0.0/16", "100.64.0.0/16"]);
}

#[tokio::test]
async fn each_path_that_fails_is_named() {
    for (n, (path, _)) in FACTS.into_iter().enumerate() {
        let (_server, imds) = service(n, Answer::Send(404, "<html>".to_owned())).await;
        let error = imds.node_facts().await.unwrap_err();
        assert!(error.to_string().contains(&format!("/latest/meta-data/{path} ")), "{error}");
        assert!(error.source().unwrap().to_string().contains("404"), "{:?}", error.source());

        let (_server, imds) = service(n, Answer::Send(200, " \n".to_owned())).await;
        let error = imds.node_facts().await.unwrap_err();
        assert!(matches!(error, ImdsError::Malformed { .. }), "{error}");
        assert!(error.to_string().contains(path), "{error}");
    }
}

/// What the service may say of them is free text, so nothing but emptiness is wrong.
const NAMES: [&str; 3] = ["instance-type", "placement/region", "placement/availability-zone"];

#[tokio::test]
async fn garbage_is_an_error() {
    for (n, (path, _)) in FACTS.into_iter().enumerate().filter(|(_, (p, _))| !NAMES.contains(p)) {
        let (_server, imds) = service(n, Answer::Send(200, "a b\nc/d".to_owned())).await;
        let error = imds.node_facts().await.unwrap_err();
        assert!(matches!(error, ImdsError::Malformed { .. }), "{path}: {error}");
        assert!(error.to_string().contains(path), "{error}");
    }
}

#[tokio::test]
async fn a_passing_failure_is_repeated() {
    let down = Answer::Send(503, String::new());
    let mut answers = vec![Answer::Send(200, "a-token".to_owned()), down];
    answers.extend(FACTS.iter().map(|(_, text)| Answer::Send(200, (*text).to_owned())));
    let server = Server::start(answers).await;
    let facts = Imds::connect_to(&server.url()).unwrap().node_facts().await.unwrap();
    assert_eq!(facts.instance, id("i-1"));
}

#[tokio::test]
async fn an_endpoint_that_is_no_url_is_refused_at_once() {
    for bad in ["", "localhost:1338", "https://localhost", "http://", "http:///x", "http://a b"] {
        assert!(matches!(Imds::connect_to(bad), Err(ImdsError::InvalidEndpoint(_))), "{bad}");
    }
}
