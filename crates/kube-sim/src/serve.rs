//! The store behind HTTP.

use std::future::{Ready, ready};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Query, State as Shared};
use axum::http::{HeaderMap, Method, StatusCode, Uri, header};
use axum::response::{IntoResponse as _, Response};
use axum::routing::put;
use futures::stream;
use serde_json::{Value, json};

use crate::store::{merge, merge_conditions, name_of};
use crate::{KubeSim, Mood};

/// When a watch ends that nobody has given another time. Source: Kubernetes, `--min-request-timeout`.
const LONGEST_WATCH: u64 = 1800;

pub(crate) fn routes(sim: KubeSim) -> Router {
    Router::new()
        .route("/_sim/object", put(put_object).delete(delete_object))
        .route("/_sim/mood", put(set_mood))
        .route("/_sim/token", put(set_token))
        .route("/_sim/forbidden", put(set_forbidden))
        .fallback(answer)
        .with_state(sim)
}

type Parameters = Vec<(String, String)>;

fn parameter<'a>(parameters: &'a Parameters, name: &str) -> &'a str {
    let found = parameters.iter().find(|(key, _)| key == name);
    found.map_or("", |(_, value)| value.as_str())
}

fn put_object(
    Shared(sim): Shared<KubeSim>,
    Query(parameters): Query<Parameters>,
    body: Bytes,
) -> Ready<StatusCode> {
    let Ok(object) = serde_json::from_slice::<Value>(&body) else {
        return ready(StatusCode::BAD_REQUEST);
    };
    sim.put(parameter(&parameters, "collection"), object);
    ready(StatusCode::OK)
}

fn delete_object(
    Shared(sim): Shared<KubeSim>,
    Query(parameters): Query<Parameters>,
) -> Ready<StatusCode> {
    sim.delete(parameter(&parameters, "collection"), parameter(&parameters, "name"));
    ready(StatusCode::OK)
}

fn set_mood(Shared(sim): Shared<KubeSim>, body: String) -> Ready<StatusCode> {
    let Some(mood) = Mood::parse(body.trim()) else { return ready(StatusCode::BAD_REQUEST) };
    sim.set_mood(mood);
    ready(StatusCode::OK)
}

fn set_token(Shared(sim): Shared<KubeSim>, body: String) -> Ready<StatusCode> {
    sim.accept_token(body.trim());
    ready(StatusCode::OK)
}

fn set_forbidden(Shared(sim): Shared<KubeSim>, body: String) -> Ready<StatusCode> {
    sim.forbid(body.trim());
    ready(StatusCode::OK)
}

async fn answer(
    Shared(sim): Shared<KubeSim>,
    method: Method,
    uri: Uri,
    Query(parameters): Query<Parameters>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let (mood, is_known, is_forbidden) = {
        let mut state = sim.state();
        state.requests.push(format!("{method} {uri}"));
        let sent = headers.get(header::AUTHORIZATION).and_then(|it| it.to_str().ok());
        let sent = sent.and_then(|it| it.strip_prefix("Bearer "));
        let is_known = state.token.is_none() || state.token.as_deref() == sent;
        let forbidden = state.forbidden.as_deref();
        (state.mood, is_known, forbidden.is_some_and(|path| uri.path().starts_with(path)))
    };
    if !is_known {
        return status(401, "Unauthorized");
    }
    if is_forbidden {
        return status(403, "forbidden: the service account may not do this");
    }
    match mood {
        Mood::Well | Mood::Forgetful | Mood::Cut => {}
        Mood::Refusing(code) => return status(code, "the server refuses"),
        Mood::Silent => std::future::pending().await,
        Mood::Slow(pause) => tokio::time::sleep(pause).await,
        Mood::Garbled => return json_text("{\"kind\": \u{0}\u{1} garbage".repeat(9)),
    }
    let path = uri.path();
    let body = serde_json::from_slice(&body).unwrap_or(Value::Null);
    match method.as_str() {
        "GET" if matches!(parameter(&parameters, "watch"), "true" | "1") => {
            watch(sim, path, &parameters, mood)
        }
        "GET" => get(&sim, path, &parameters),
        "POST" => json_text(put_and_wake(&sim, path, body).to_string()),
        "PATCH" => patch(&sim, path, body, is_strategic(&headers)),
        _ => status(405, "no such method"),
    }
}

fn put_and_wake(sim: &KubeSim, collection: &str, object: Value) -> Value {
    let object = sim.state().store.put(collection, object);
    sim.wake();
    object
}

/// A list, or one object if the path ends in its name.
fn get(sim: &KubeSim, path: &str, parameters: &Parameters) -> Response {
    let state = sim.state();
    let (collection, name) = path.rsplit_once('/').unwrap_or((path, ""));
    if let Some(object) = state.store.get(collection, name) {
        return json_text(object.to_string());
    }
    let items = state.store.list(path, parameter(parameters, "fieldSelector"));
    let version = state.store.version().to_string();
    let list = json!({
        "kind": "List", "apiVersion": "v1", "metadata": { "resourceVersion": version }, "items": items,
    });
    json_text(list.to_string())
}

/// Lists of a strategic merge patch are merged by a key.
fn is_strategic(headers: &HeaderMap) -> bool {
    headers
        .get(header::CONTENT_TYPE)
        .is_some_and(|it| it == "application/strategic-merge-patch+json")
}

fn patch(sim: &KubeSim, path: &str, mut patch: Value, is_strategic: bool) -> Response {
    // A subresource is a part of its object.
    let path = path.trim_end_matches("/status");
    let (collection, name) = path.rsplit_once('/').unwrap_or((path, ""));
    let found = sim.state().store.get(collection, name).cloned();
    let Some(mut object) = found else { return status(404, "there is no such object") };
    for key in ["resourceVersion", "uid"] {
        let expected = &patch["metadata"][key];
        if expected.is_string() && *expected != object["metadata"][key] {
            return status(409, "the object is another one by now");
        }
    }
    if is_strategic {
        merge_conditions(&object, &mut patch);
    }
    merge(&mut object, patch);
    if name_of(&object) != name {
        return status(422, "a name cannot change");
    }
    json_text(put_and_wake(sim, collection, object).to_string())
}

/// The changes since a version, one line each, until time is over or the mood changes.
fn watch(sim: KubeSim, collection: &str, parameters: &Parameters, mood: Mood) -> Response {
    if mood == Mood::Forgetful {
        sim.set_mood(Mood::Well);
        let gone =
            json!({ "type": "ERROR", "object": status_object(410, "too old resource version") });
        return json_text(format!("{gone}\n"));
    }
    let seconds = parameter(parameters, "timeoutSeconds").parse().unwrap_or(LONGEST_WATCH);
    let version = parameter(parameters, "resourceVersion").parse().unwrap_or(0);
    let selector = parameter(parameters, "fieldSelector").to_owned();
    let (collection, n_moods) = (collection.to_owned(), sim.state().n_moods);
    let end = tokio::time::Instant::now() + Duration::from_secs(seconds);
    let changed = sim.0.changed.subscribe();
    let lines = stream::unfold((version, changed), move |(version, mut changed)| {
        let (sim, collection, selector) = (sim.clone(), collection.clone(), selector.clone());
        async move {
            loop {
                changed.mark_unchanged();
                let (changes, is_over, mood) = {
                    let state = sim.state();
                    let changes = state.store.changes(&collection, &selector, version);
                    (changes, state.n_moods != n_moods, state.mood)
                };
                if is_over && mood == Mood::Cut {
                    std::future::pending::<()>().await;
                }
                if is_over {
                    return None;
                }
                if let Some(last) = changes.last() {
                    let lines: String = changes
                        .iter()
                        .map(|change| json!({ "type": change.kind, "object": change.object }))
                        .map(|event| format!("{event}\n"))
                        .collect();
                    return Some((Ok::<_, std::io::Error>(lines), (last.version, changed)));
                }
                match tokio::time::timeout_at(end, changed.changed()).await {
                    Ok(Ok(())) => {}
                    Ok(Err(_)) | Err(_) => return None,
                }
            }
        }
    });
    ([(header::CONTENT_TYPE, "application/json")], Body::from_stream(lines)).into_response()
}

fn json_text(text: String) -> Response {
    ([(header::CONTENT_TYPE, "application/json")], text).into_response()
}

fn status(code: u16, message: &str) -> Response {
    let code_of_http = StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    (code_of_http, json_text(status_object(code, message).to_string())).into_response()
}

fn status_object(code: u16, message: &str) -> Value {
    let reason = match code {
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "NotFound",
        409 => "Conflict",
        410 => "Expired",
        _ => "InternalError",
    };
    json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "code": code, "reason": reason, "message": message,
    })
}
