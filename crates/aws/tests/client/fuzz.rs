//! For any answers of the metadata service the client soon returns valid facts, or an error that names the
//! path.

use std::time::Duration;

use aws::Imds;
use mangle::{Document, hostile};
use proptest::prelude::*;
use proptest::sample::Index;

use super::imds::{enis_answers, facts_answers};
use super::server::{Answer, Server};

/// When a request counts as hung.
const HANG: Duration = Duration::from_secs(60);
/// In bytes, for answers of any length.
const LONGEST_ERROR: usize = 1_000;
const PAGE: &str = "<!DOCTYPE html>\n<html><body>Sign in to the network</body></html>\n";

/// Hostile variants of the service's texts. Some are huge.
fn answer() -> impl Strategy<Value = Document> {
    let texts =
        facts_answers().into_iter().chain(enis_answers()).filter_map(|answer| match answer {
            Answer::Send(200, text) => Some(text.into_bytes()),
            _ => None,
        });
    let texts: Vec<_> = texts.chain([PAGE.as_bytes().to_vec()]).collect();
    let huge = (hostile(texts.clone()), 1_000..20_000_usize)
        .prop_map(|(text, times)| Document(text.repeat(times)));
    prop_oneof![30 => hostile(texts), 1 => huge]
}

/// A service that sends a token and then `good`. The `damaged` replace some of these answers.
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

fn check<T>(result: Result<T, aws::ImdsError>) -> Result<Option<T>, TestCaseError> {
    let Err(error) = result else { return Ok(result.ok()) };
    let text = error.to_string();
    prop_assert!(text.contains("/latest/"), "{text}");
    prop_assert!(text.len() < LONGEST_ERROR, "{text}");
    Ok(None)
}

fn soon<T>(ask: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.expect("a runtime");
    runtime.block_on(async { tokio::time::timeout(HANG, ask).await.expect("an end") })
}

proptest! {
    #[test]
    fn fuzz_node_facts(damaged in prop::collection::vec((any::<Index>(), answer()), 1..4)) {
        let result = soon(async { service(facts_answers(), damaged).await.node_facts().await });
        let Some(facts) = check(result)? else { return Ok(()) };
        prop_assert_eq!(facts.primary_mac.to_string().len(), 17);
        for name in [&facts.region, &facts.availability_zone, &facts.instance_type] {
            let fits = name.bytes().all(|byte| byte.is_ascii_graphic());
            prop_assert!(fits && !name.is_empty(), "{name:?}");
        }
        let kept = serde_json::to_string(&facts).expect("JSON");
        prop_assert_eq!(serde_json::from_str::<aws::NodeFacts>(&kept).expect("facts"), facts);
    }

    #[test]
    fn fuzz_enis(damaged in prop::collection::vec((any::<Index>(), answer()), 1..4)) {
        check(soon(async { service(enis_answers(), damaged).await.enis().await }))?;
    }
}
