//! A watch of one object, which goes on for ever.

use std::fmt::{Debug, Display};

use futures::future::ready;
use futures::{Stream, StreamExt as _};
use kube::runtime::{WatchStreamExt as _, watcher};
use kube::{Api, Resource, ResourceExt as _};
use serde::de::DeserializeOwned;

/// How much of a fault is said, in characters. An answer that is no answer is quoted in it.
const LONGEST_FAULT: usize = 300;

/// What a watch of one object shows.
#[derive(Debug)]
pub(crate) enum Seen<K> {
    Present(K),
    Absent,
    /// The watch fails, for this reason, and goes on later.
    Failed(Fault),
}

/// Why a watch fails.
#[derive(Debug)]
pub(crate) struct Fault {
    /// In one line.
    pub(crate) why: String,
    /// Whether the API server knows no such kind of object.
    pub(crate) kind_is_unknown: bool,
}

/// Watches the object `name`. After a failure the next attempt comes after 0.8 s at first and after 30 s later.
pub(crate) fn one<K>(api: Api<K>, name: &str) -> impl Stream<Item = Seen<K>> + Send + use<K>
where
    K: Resource + Clone + Debug + DeserializeOwned + Send + 'static,
{
    let wanted = name.to_owned();
    let seen = watcher::watch_object(api, name).default_backoff();
    seen.filter_map(move |seen| {
        ready(match seen {
            // A server that ignores the selector shows others, too.
            Ok(Some(object)) if object.name_any() != wanted => None,
            Ok(Some(object)) => Some(Seen::Present(object)),
            Ok(None) => Some(Seen::Absent),
            Err(fault) => Some(Seen::Failed(Fault::of(&fault))),
        })
    })
}

/// The next item of a stream that does not end.
pub(crate) async fn next<T>(stream: &mut (impl Stream<Item = T> + Unpin)) -> T {
    match stream.next().await {
        Some(item) => item,
        None => std::future::pending().await,
    }
}

impl Fault {
    fn of(fault: &watcher::Error) -> Self {
        let kind_is_unknown = match fault {
            watcher::Error::InitialListFailed(kube::Error::Api(status)) => status.code == 404,
            _ => false,
        };
        Self { why: one_line(fault), kind_is_unknown }
    }
}

/// An error of kube in one line. Its text has that of its causes.
pub(crate) fn one_line(fault: &impl Display) -> String {
    let why: String = fault.to_string().chars().take(LONGEST_FAULT).collect();
    why.replace(char::is_control, " ")
}
