//! The client of the metadata service, with valid and invalid answers.

use std::error::Error;

use aws::{Imds, ImdsError, NodeFacts};

use super::server::{Answer, Server};
use super::wire::id;

const DOCUMENT: &str = r#"{
  "accountId" : "111122223333",
  "architecture" : "x86_64",
  "availabilityZone" : "us-east-1a",
  "billingProducts" : null,
  "imageId" : "ami-0123456789abcdef0",
  "instanceId" : "i-0123456789abcdef1",
  "instanceType" : "m5.large",
  "marketplaceProductCodes" : [ "1abc" ],
  "pendingTime" : "2026-01-01T00:00:00Z",
  "privateIp" : "10.0.2.157",
  "region" : "us-east-1",
  "version" : "2017-09-30"
}"#;
const VPC: &str = "vpc-0123456789abcdef2";

/// In the order of the requests, after the token.
const FACTS: [(&str, &str); 3] = [
    ("dynamic/instance-identity/document", DOCUMENT),
    ("meta-data/mac", "02:74:B0:72:79:61"),
    ("meta-data/network/interfaces/macs/02:74:b0:72:79:61/vpc-id", VPC),
];

/// The node can do without it.
const RANGE: (&str, &str) =
    ("meta-data/network/interfaces/macs/02:74:b0:72:79:61/subnet-ipv4-cidr-block", "10.0.2.0/24");

/// The answers with the facts, after the token.
pub(crate) fn facts_answers() -> Vec<Answer> {
    let all = FACTS.iter().chain([&RANGE]);
    all.map(|(_, text)| Answer::Send(200, (*text).to_owned())).collect()
}

/// A service that answers with the facts, but at the `broken`th with `answer`.
async fn service(broken: usize, answer: Answer) -> (Server, Imds) {
    let mut answers = facts_answers();
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
async fn node_facts_are_read_with_a_token() {
    let (server, imds) = service(usize::MAX, Answer::Hang).await;
    let facts = imds.node_facts().await.unwrap();
    let seen = server.seen();
    assert_eq!(seen[0].line, "PUT /latest/api/token HTTP/1.1");
    for (request, (path, _)) in seen[1..].iter().zip(FACTS.into_iter().chain([RANGE])) {
        assert_eq!(request.line, format!("GET /latest/{path} HTTP/1.1"));
        assert_eq!(request.header("x-aws-ec2-metadata-token"), Some("a-token"));
    }
    assert_eq!(seen.len(), 5);
    assert_eq!(facts.subnet_cidr, Some("10.0.2.0/24".parse().unwrap()));
    assert_eq!((facts.instance, facts.vpc), (id("i-0123456789abcdef1"), id(VPC)));
    assert_eq!((&*facts.region, &*facts.availability_zone), ("us-east-1", "us-east-1a"));
    assert_eq!(
        (&*facts.instance_type, facts.primary_mac.to_string()),
        ("m5.large", "02:74:b0:72:79:61".to_owned())
    );
}

#[tokio::test]
async fn failed_request_names_its_path() {
    for (n, (path, _)) in FACTS.into_iter().enumerate() {
        let (_server, imds) = service(n, Answer::Send(404, "<html>".to_owned())).await;
        let error = imds.node_facts().await.unwrap_err();
        assert!(error.to_string().contains(&format!("/latest/{path} ")), "{error}");
        assert!(error.source().unwrap().to_string().contains("404"), "{:?}", error.source());

        let (_server, imds) = service(n, Answer::Send(200, " \n".to_owned())).await;
        let error = imds.node_facts().await.unwrap_err();
        assert!(matches!(error, ImdsError::Malformed { .. }), "{error}");
        assert!(error.to_string().contains(path), "{error}");
    }
}

#[tokio::test]
async fn invalid_answer_is_an_error() {
    for (n, (path, _)) in FACTS.into_iter().enumerate() {
        let (_server, imds) = service(n, Answer::Send(200, "a b\nc/d".to_owned())).await;
        let error = imds.node_facts().await.unwrap_err();
        assert!(matches!(error, ImdsError::Malformed { .. }), "{path}: {error}");
        assert!(error.to_string().contains(path), "{error}");
    }
}

/// A truncated answer is refused whole, so the node never takes itself for another. Only a truncated VPC id may
/// pass for an old id of eight digits; EC2's answer corrects it.
#[tokio::test]
async fn truncated_answer_is_refused_whole() {
    let (_server, imds) = service(usize::MAX, Answer::Hang).await;
    let whole = imds.node_facts().await.unwrap();
    // The service of this test ends at the truncated answer, so it shows no range.
    let of_old_vpc = NodeFacts { vpc: id(&VPC[..12]), subnet_cidr: None, ..whole.clone() };
    for (n, (path, text)) in FACTS.into_iter().enumerate() {
        for end in 0..text.len() {
            let (_server, imds) = service(n, Answer::Send(200, text[..end].to_owned())).await;
            match imds.node_facts().await {
                Ok(facts) => assert_eq!(facts, of_old_vpc, "{path}"),
                Err(error) => assert!(error.to_string().contains(path), "{error}"),
            }
        }
    }
}

/// The range has two digits after the slash, so its beginning is no range. The node starts without it.
#[tokio::test]
async fn missing_or_invalid_range_is_left_out() {
    let bad = ["<html>", "10.0.2.0", "10.0.2.0/2", "10.0.2.0/33", "10.0.2.9/24", "10.0.0.0/8"];
    let bad = bad.into_iter().map(|text| (200, text)).chain([(404, "")]);
    for (status, text) in bad {
        let (_server, imds) = service(FACTS.len(), Answer::Send(status, text.to_owned())).await;
        let facts = imds.node_facts().await.unwrap();
        assert_eq!(facts.subnet_cidr, None, "{text}");
    }
}

/// The ranges of a VPC, or no ranges at all: a page in their stead, a range that was cut off, one of another kind.
#[tokio::test]
async fn vpc_ranges_are_read_whole_or_not_at_all() {
    let read = async |status, text: &str| {
        let token = Answer::Send(200, "a-token".to_owned());
        let server = Server::start(vec![token, Answer::Send(status, text.to_owned())]).await;
        let imds = Imds::connect_to(&server.url()).expect("a URL");
        let ranges = imds.vpc_ranges("02:74:b0:72:79:61".parse().unwrap()).await;
        (ranges, server.seen()[1].line.clone())
    };
    let (ranges, line) = read(200, "10.0.0.0/16\n100.64.0.0/16\n").await;
    assert!(line.starts_with(
        "GET /latest/meta-data/network/interfaces/macs/02:74:b0:72:79:61/vpc-ipv4-cidr-blocks "
    ));
    let ranges: Vec<_> = ranges.unwrap().iter().map(ToString::to_string).collect();
    assert_eq!(ranges, ["10.0.0.0/16", "100.64.0.0/16"]);
    for text in [
        "<html>",
        "10.0.0.0/16\n100.64.0.0/1",
        "10.0.0.0/16\n100.64",
        "0.0.0.0/0",
        "fd00::/56",
        " ",
    ] {
        let (ranges, _) = read(200, text).await;
        assert!(ranges.unwrap_err().to_string().contains("vpc-ipv4-cidr-blocks"), "{text}");
    }
    assert!(read(404, "").await.0.is_err());
}

#[tokio::test]
async fn document_with_an_invalid_value_is_an_error() {
    for (word, bad) in [
        ("i-0123456789abcdef1", "i-0123456789abcde"),
        ("i-0123456789abcdef1", "i-0123456789abcdeg1"),
        ("\"m5.large\"", "\"\""),
        ("\"m5.large\"", "null"),
        ("us-east-1a", "<html>"),
        ("\"us-east-1\"", "\"us east 1\""),
        ("instanceType", "instancetype"),
    ] {
        let text = DOCUMENT.replace(word, bad);
        assert_ne!(text, DOCUMENT);
        let (_server, imds) = service(0, Answer::Send(200, text)).await;
        let error = imds.node_facts().await.unwrap_err();
        assert!(matches!(error, ImdsError::Malformed { .. }), "{bad}: {error}");
    }
}

#[tokio::test]
async fn long_invalid_answer_is_shown_in_part() {
    let page = format!("<html>{}</html>", "é".repeat(20_000));
    for n in 0..FACTS.len() {
        let (_server, imds) = service(n, Answer::Send(200, page.clone())).await;
        let error = imds.node_facts().await.unwrap_err().to_string();
        assert!(error.contains("<html>é") && error.len() < 1_000, "{error}");
    }
}

#[tokio::test]
async fn transient_failure_is_retried() {
    let down = Answer::Send(503, String::new());
    let mut answers = vec![Answer::Send(200, "a-token".to_owned()), down];
    answers.extend(facts_answers());
    let server = Server::start(answers).await;
    let facts = Imds::connect_to(&server.url()).unwrap().node_facts().await.unwrap();
    assert_eq!(facts.instance, id("i-0123456789abcdef1"));
}

#[tokio::test]
async fn imds_endpoint_that_is_no_url_is_refused() {
    for bad in ["", "localhost:1338", "https://localhost", "http://", "http:///x", "http://a b"] {
        assert!(matches!(Imds::connect_to(bad), Err(ImdsError::InvalidEndpoint(_))), "{bad}");
    }
}

/// An ENI with only its primary address on an older service, and an ENI with everything.
const ENIS: [(&str, u16, &str); 13] = [
    ("", 200, "02:74:b0:72:79:61/\n02:74:b0:72:79:62/"),
    ("02:74:b0:72:79:61/interface-id", 200, "eni-00000001"),
    ("02:74:b0:72:79:61/device-number", 200, "0"),
    ("02:74:b0:72:79:61/network-card", 404, ""),
    ("02:74:b0:72:79:61/local-ipv4s", 200, "10.0.2.157"),
    ("02:74:b0:72:79:61/ipv4-prefix", 404, ""),
    ("02:74:b0:72:79:61/ipv6-prefix", 404, ""),
    ("02:74:b0:72:79:62/interface-id", 200, "eni-00000002"),
    ("02:74:b0:72:79:62/device-number", 200, "3"),
    ("02:74:b0:72:79:62/network-card", 200, "1"),
    ("02:74:b0:72:79:62/local-ipv4s", 200, "10.0.2.158\n10.0.2.159"),
    ("02:74:b0:72:79:62/ipv4-prefix", 200, "10.0.2.16/28"),
    ("02:74:b0:72:79:62/ipv6-prefix", 200, "2001:db8:0:0:1::/80"),
];

/// The answers with the ENIs, after the token.
pub(crate) fn enis_answers() -> Vec<Answer> {
    ENIS.iter().map(|(_, status, text)| Answer::Send(*status, (*text).to_owned())).collect()
}

/// A service that answers with those ENIs, but at the `broken`th request with `answer`.
async fn service_of_enis(broken: usize, (status, text): (u16, &str)) -> (Server, Imds) {
    let mut answers = enis_answers();
    if broken < answers.len() {
        answers[broken] = Answer::Send(status, text.to_owned());
    }
    answers.insert(0, Answer::Send(200, "a-token".to_owned()));
    let server = Server::start(answers).await;
    let imds = Imds::connect_to(&server.url()).expect("a URL");
    (server, imds)
}

#[tokio::test]
async fn enis_are_listed_with_their_blocks() {
    let (server, imds) = service_of_enis(usize::MAX, (0, "")).await;
    let listed = imds.enis().await.unwrap().into_iter().map(|eni| {
        let blocks = eni.blocks.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ");
        format!("{} {}/{} {blocks}", eni.id, eni.network_card, eni.device_index)
    });
    let expect = [
        "eni-00000001 0/0 10.0.2.157/32",
        "eni-00000002 1/3 10.0.2.158/32 10.0.2.159/32 10.0.2.16/28 2001:db8:0:0:1::/80",
    ];
    assert_eq!(listed.collect::<Vec<_>>(), expect);
    for (request, (path, ..)) in server.seen()[1..].iter().zip(ENIS) {
        let macs = "/latest/meta-data/network/interfaces/macs";
        assert_eq!(request.line, format!("GET {macs}/{path} HTTP/1.1"));
    }
}

#[tokio::test]
async fn invalid_value_of_an_eni_is_named() {
    for (n, (path, ..)) in ENIS.into_iter().enumerate() {
        let (_server, imds) = service_of_enis(n, (200, "a b\nc/d")).await;
        let error = imds.enis().await.unwrap_err();
        assert!(matches!(error, ImdsError::Malformed { .. }), "{path}: {error}");
        assert!(error.to_string().contains(path), "{error}");
    }
}
