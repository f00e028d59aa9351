//! Whatever the metadata service answers with, there soon are facts that make sense, or an error that
//! names the path.

use std::time::Duration;

use aws::Imds;
use mangle::{Document, hostile};
use proptest::prelude::*;
use proptest::sample::Index;

use super::imds::{told_enis, told_facts};
use super::server::{Answer, Server};

/// Far above what it takes.
const BOUND: Duration = Duration::from_secs(20);
/// However much the service answers with.
const LONGEST_ERROR: usize = 1_000;
const PAGE: &str = "<!DOCTYPE html>\n<html><body>Sign in to the network</body></html>\n";

/// Texts of the service, each of them hostile; now and then a huge one.
fn answer() -> impl Strategy<Value = Document> {
    let texts = told_facts().into_iter().chain(told_enis()).filter_map(|answer| match answer {
        Answer::Send(200, text) => Some(text.into_bytes()),
        _ => None,
    });
    let texts: Vec<_> = texts.chain([PAGE.as_bytes().to_vec()]).collect();
    let huge = (hostile(texts.clone()), 1_000..20_000_usize)
        .prop_map(|(text, times)| Document(text.repeat(times)));
    prop_oneof![30 => hostile(texts), 1 => huge]
}

/// A service that answers with `good`, the token before it, but with the `damaged` in their places.
async fn service(good: Vec<Answer>, damaged: Vec<(Index, Document)>) -> Imds {
    let token = Answer::Send(200, "a-token".to_owned());
    let mut answers: Vec<_> = std::iter::once(token).chain(good).collect();
    for (place, Document(bytes)) in damaged {
        let place = place.index(answers.len());
        answers[place] = Answer::Bytes(bytes);
    }
    let server = Server::start(answers).await;
    Imds::connect_to(&server.url()).expect("a URL")
}

fn check<T>(told: Result<T, aws::ImdsError>) -> Result<Option<T>, TestCaseError> {
    let Err(error) = told else { return Ok(told.ok()) };
    let text = error.to_string();
    prop_assert!(text.contains("/latest/"), "{text}");
    prop_assert!(text.len() < LONGEST_ERROR, "{text}");
    Ok(None)
}

fn soon<T>(ask: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.expect("a runtime");
    runtime.block_on(async { tokio::time::timeout(BOUND, ask).await.expect("an end") })
}

proptest! {
    #[test]
    fn fuzz_node_facts(damaged in prop::collection::vec((any::<Index>(), answer()), 1..4)) {
        let told = soon(async { service(told_facts(), damaged).await.node_facts().await });
        let Some(facts) = check(told)? else { return Ok(()) };
        prop_assert_eq!(facts.primary_mac.len(), 17);
        for name in [&facts.region, &facts.availability_zone, &facts.instance_type] {
            let fits = name.bytes().all(|byte| byte.is_ascii_graphic());
            prop_assert!(fits && !name.is_empty(), "{name:?}");
        }
        let kept = serde_json::to_string(&facts).expect("JSON");
        prop_assert_eq!(serde_json::from_str::<aws::NodeFacts>(&kept).expect("facts"), facts);
    }

    #[test]
    fn fuzz_enis(damaged in prop::collection::vec((any::<Index>(), answer()), 1..4)) {
        check(soon(async { service(told_enis(), damaged).await.enis().await }))?;
    }
}
