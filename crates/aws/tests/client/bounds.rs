//! Answers without end, and long texts in answers.

use aws::{Imds, instance_limits};
use ipam::call::{CallErrorKind, Ec2Call};

use super::server::{Answer, Server};

/// In bytes: what the client reads at most, and what the kernel's buffers hold.
const MOST_OF_EC2: usize = 64 << 20;
const MOST_OF_IMDS: usize = 16 << 20;
/// In bytes, for any error.
const LONGEST_ERROR: usize = 5_000;

#[tokio::test]
async fn endless_answer_of_ec2_is_given_up() {
    for status in [200, 403, 500] {
        let server = Server::start([Answer::Endless(status)]).await;
        let error = server.client().await.execute(&Ec2Call::DescribeSubnets).await.unwrap_err();
        let expect = (CallErrorKind::OutcomeUnknown, "AnswerTooLong");
        assert_eq!((error.kind, &*error.code), expect, "{error}");
        assert!(error.message.contains("longer than 33554432 bytes"), "{error}");
        assert!(server.n_endless() < MOST_OF_EC2, "{}", server.n_endless());
    }
    let server = Server::start([Answer::Endless(200)]).await;
    let error = instance_limits(&server.client().await, "m5.large").await.unwrap_err();
    assert_eq!(error.code, "AnswerTooLong");
}

#[tokio::test]
async fn endless_answer_of_imds_is_given_up() {
    for token in [Some(Answer::Send(200, "a-token".to_owned())), None] {
        let answers = token.into_iter().chain([Answer::Endless(200)]);
        let server = Server::start(answers).await;
        let error = Imds::connect_to(&server.url()).unwrap().node_facts().await.unwrap_err();
        assert!(error.to_string().contains("/latest/"), "{error}");
        assert!(format!("{error:?}").contains("AnswerTooLong { longest: 65536 }"), "{error:?}");
        assert!(server.n_endless() < MOST_OF_IMDS, "{}", server.n_endless());
    }
}

/// Each page has a new token.
#[tokio::test]
async fn endless_pages_are_given_up() {
    let subnet = "<item><subnetId>subnet-1</subnetId><cidrBlock>10.0.0.0/24</cidrBlock>\
                  <availableIpAddressCount>9</availableIpAddressCount></item>";
    let page = |n: usize| {
        let set = format!("<subnetSet>{}</subnetSet>", subnet.repeat(1_000));
        Answer::ok("DescribeSubnets", &format!("{set}<nextToken>{n}</nextToken>"))
    };
    let server = Server::start((0..40).map(page)).await;
    let error = server.client().await.execute(&Ec2Call::DescribeSubnets).await.unwrap_err();
    let expect = (CallErrorKind::OutcomeUnknown, "AnswerTooLong");
    assert_eq!((error.kind, &*error.code), expect, "{error}");
    assert_eq!(error.message, "DescribeSubnets: more than 20000 items in all pages");
    assert_eq!(server.seen().len(), 21);
}

#[tokio::test]
async fn long_error_text_is_shortened() {
    let long = "\u{e9}\n\u{1b}[31m".repeat(50_000);
    let check = async |answer: Answer, start: &str| {
        let server = Server::start([answer]).await;
        let error = server.client().await.execute(&Ec2Call::DescribeSubnets).await.unwrap_err();
        let text = error.to_string();
        assert!(text.len() < 2 * LONGEST_ERROR && !text.contains(char::is_control), "{text}");
        assert!(text.starts_with(start) && text.ends_with(" characters more)"), "{text}");
    };
    let message = long.replace('\u{1b}', "");
    check(Answer::error(403, "UnauthorizedOperation", &message), "UnauthorizedOperation: ").await;
    let code = "C".repeat(10_000);
    check(Answer::error(400, &code, &message), "CCCC").await;
    let subnet = format!("<subnetSet><item><cidrBlock>{message}</cidrBlock></item></subnetSet>");
    check(Answer::ok("DescribeSubnets", &subnet), "MalformedAnswer: DescribeSubnets: ").await;
}
