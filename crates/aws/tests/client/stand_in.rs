//! The metadata service's answers in place of EC2's.

use aws::Imds;
use ipam::block::BlockKind;
use ipam::call::{CallErrorKind, CallOutput, Ec2Call, EniFacts, EniKind};

use super::imds::enis_answers;
use super::server::{Answer, Server};
use super::wire::id;

/// A service that sends these after the token.
async fn service(answers: Vec<Answer>) -> (Server, Imds) {
    let token = Answer::Send(200, "a-token".to_owned());
    let server = Server::start([vec![token], answers].concat()).await;
    let imds = Imds::connect_to(&server.url()).expect("a URL");
    (server, imds)
}

fn text(status: u16, text: &str) -> Answer {
    Answer::Send(status, text.to_owned())
}

fn eni_text(eni: &EniFacts) -> String {
    let blocks = eni.blocks.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ");
    let place = eni.attachment.as_ref().map(|it| (it.network_card, it.device_index));
    let EniFacts { id, subnet, primary_address, kind, .. } = eni;
    format!("{id} {place:?} {subnet} {primary_address} {kind:?} [{blocks}]")
}

#[tokio::test]
async fn attached_enis_have_the_form_of_a_describe() {
    let mut answers = enis_answers();
    answers.extend([text(200, "subnet-00000001"), text(404, "")]);
    answers.extend([text(200, "subnet-00000002"), text(200, "2001:db8::5\n2001:db8::6")]);
    let (_server, imds) = service(answers).await;
    let Ok(CallOutput::Enis(enis)) = imds.describe(&Ec2Call::DescribeEnis).await else {
        panic!("no ENIs")
    };
    let expect = [
        "eni-00000001 Some((0, 0)) subnet-00000001 10.0.2.157 Interface []",
        "eni-00000002 Some((1, 3)) subnet-00000002 10.0.2.158 Interface [10.0.2.16/28 10.0.2.159/32 2001:db8:0:0:1::/80]",
    ];
    assert_eq!(enis.iter().map(eni_text).collect::<Vec<_>>(), expect);
    assert!(enis.iter().all(|eni| eni.tags.is_empty()));
}

/// An ENI in a subnet without IPv4 has an IPv6 address of its own, and is of no use to pods on IPv4.
#[tokio::test]
async fn eni_without_ipv4_has_its_ipv6_address() {
    let answers = [
        text(200, "02:74:b0:72:79:61/"),
        text(200, "eni-00000001"),
        text(200, "0"),
        text(404, ""),
        text(404, ""),
        text(404, ""),
        text(200, "2001:db8:0:0:1::/80"),
        text(404, ""),
        text(200, "subnet-00000001"),
        text(200, "2001:db8::5"),
    ];
    let (_server, imds) = service(answers.into()).await;
    let Ok(CallOutput::Enis(enis)) = imds.describe(&Ec2Call::DescribeEnis).await else {
        panic!("no ENIs")
    };
    assert_eq!(
        (enis[0].primary_address.to_string(), enis[0].kind),
        ("2001:db8::5".into(), EniKind::Other)
    );
}

#[tokio::test]
async fn subnets_of_attached_enis_have_their_ranges() {
    let answers = [
        text(200, "02:74:b0:72:79:61/\n02:74:b0:72:79:62/\n02:74:b0:72:79:63/"),
        text(200, "subnet-00000001"),
        text(200, "10.0.2.0/24"),
        text(200, "subnet-00000001"),
        text(200, "10.0.2.0/24"),
        text(200, "subnet-00000002"),
        text(404, ""),
        text(200, "2001:db8::/64"),
    ];
    let (_server, imds) = service(answers.into()).await;
    let Ok(CallOutput::Subnets(subnets)) = imds.describe(&Ec2Call::DescribeSubnets).await else {
        panic!("no subnets")
    };
    let shown = subnets.iter().map(|it| format!("{} {} {:?}", it.id, it.cidr, it.free_addresses));
    let expect = ["subnet-00000001 10.0.2.0/24 None", "subnet-00000002 2001:db8::/64 None"];
    assert_eq!(shown.collect::<Vec<_>>(), expect);
}

#[tokio::test]
async fn bad_answer_is_named_and_may_pass() {
    let mut answers = enis_answers();
    answers.extend([text(200, "no subnet")]);
    let (_server, imds) = service(answers).await;
    let error = imds.describe(&Ec2Call::DescribeEnis).await.unwrap_err();
    assert_eq!((error.kind, &*error.code), (CallErrorKind::OutcomeUnknown, "MetadataAway"));
    assert!(error.message.contains("subnet-id"), "{error}");
}

#[tokio::test]
async fn call_that_changes_something_is_refused_unasked() {
    let (server, imds) = service(Vec::new()).await;
    let assign = Ec2Call::Assign { eni: id("eni-00000001"), blocks: BlockKind::V4Address.times(1) };
    let error = imds.describe(&assign).await.unwrap_err();
    assert_eq!(error.kind, CallErrorKind::Rejected);
    assert!(server.seen().is_empty());
}
