//! Watches that go on for ever.

use std::error::Error;
use std::fmt::Debug;

use std::time::Duration;

use futures::future::ready;
use futures::{Stream, StreamExt as _};
use kube::runtime::utils::Backoff as _;
use kube::runtime::watcher;
use kube::runtime::watcher::{DefaultBackoff, Event};
use kube::{Api, Resource, ResourceExt as _};
use rustls::CertificateError;
use serde::de::DeserializeOwned;

/// How much of a fault is said, in characters. An answer that is no answer is quoted in it.
const LONGEST_FAULT: usize = 300;
/// The pause after many failures.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// What a watch of one object shows.
#[derive(Debug)]
pub(crate) enum Seen<K> {
    Present(K),
    Absent,
    /// The watch fails, for this reason, and goes on later.
    Failed(Fault),
}

/// Why a watch fails.
#[derive(Debug, Clone)]
pub(crate) struct Fault {
    /// In one line.
    pub(crate) why: String,
    /// Whether the API server knows no such kind of object.
    pub(crate) kind_is_unknown: bool,
    /// Whether the service account may not do this.
    pub(crate) is_forbidden: bool,
}

/// Watches the object `name`. After a failure the next attempt comes after 0.8 s at first and after 30 s later.
pub(crate) fn one<K>(watched: Watched<K>, name: &str) -> impl Stream<Item = Seen<K>> + Send + use<K>
where
    K: Resource + Clone + Debug + DeserializeOwned + Send + 'static,
{
    let wanted = name.to_owned();
    let selected = watcher::Config::default().fields(&format!("metadata.name={name}"));
    let mut is_listed = false;
    events(watched, selected).filter_map(move |event| {
        ready(match event {
            Ok(Event::Init) => {
                is_listed = false;
                None
            }
            // A server that ignores the selector shows others, too.
            Ok(Event::Apply(object) | Event::InitApply(object) | Event::Delete(object))
                if object.name_any() != wanted =>
            {
                None
            }
            Ok(Event::Apply(object) | Event::InitApply(object)) => {
                is_listed = true;
                Some(Seen::Present(object))
            }
            Ok(Event::InitDone) => (!is_listed).then_some(Seen::Absent),
            Ok(Event::Delete(_)) => Some(Seen::Absent),
            Err(fault) => Some(Seen::Failed(Fault::of(&fault))),
        })
    })
}

/// Objects to watch, and how.
#[derive(Debug, Clone)]
pub(crate) struct Watched<K> {
    pub(crate) api: Api<K>,
    /// How long one watch lasts. A connection that is silent for five seconds more is given up.
    pub(crate) watch_for: Duration,
}

/// The events of a watch, for ever. After a failure it begins anew with a list, so an event says that it goes on. The next
/// attempt comes after 0.8 s at first and after 30 s later.
pub(crate) fn events<K>(
    Watched { api, watch_for }: Watched<K>,
    selected: watcher::Config,
) -> impl Stream<Item = watcher::Result<Event<K>>> + Send + use<K>
where
    K: Resource + Clone + Debug + DeserializeOwned + Send + 'static,
{
    let seconds = u32::try_from(watch_for.as_secs()).unwrap_or(u32::MAX);
    let config = selected.timeout(seconds.max(1));
    let begin = move || Box::pin(watcher(api.clone(), config.clone()));
    let running = begin();
    let attempts = (running, begin, DefaultBackoff::default(), None);
    futures::stream::unfold(attempts, async |(mut running, begin, mut backoff, pause)| {
        if let Some(pause) = pause {
            tokio::time::sleep(pause).await;
            running = begin();
        }
        let event = next(&mut running).await;
        let pause = match &event {
            Ok(_) => {
                backoff.reset();
                None
            }
            Err(_) => Some(backoff.next().unwrap_or(LONGEST_PAUSE)),
        };
        Some((event, (running, begin, backoff, pause)))
    })
}

/// The next item of a stream that does not end.
pub(crate) async fn next<T>(stream: &mut (impl Stream<Item = T> + Unpin)) -> T {
    match stream.next().await {
        Some(item) => item,
        None => std::future::pending().await,
    }
}

impl From<Fault> for crate::Fault {
    fn from(Fault { why, is_forbidden, .. }: Fault) -> Self {
        Self { why, is_forbidden }
    }
}

impl Fault {
    pub(crate) fn of(fault: &watcher::Error) -> Self {
        let code = match fault {
            watcher::Error::InitialListFailed(kube::Error::Api(status))
            | watcher::Error::WatchStartFailed(kube::Error::Api(status)) => status.code,
            _ => 0,
        };
        let kind_is_unknown = code == 404 && matches!(fault, watcher::Error::InitialListFailed(_));
        Self { why: one_line(fault), kind_is_unknown, is_forbidden: code == 403 }
    }
}

/// Why a request has failed.
pub(crate) fn fault_of(fault: &kube::Error) -> crate::Fault {
    let is_forbidden = matches!(fault, kube::Error::Api(status) if status.code == 403);
    crate::Fault { why: one_line(fault), is_forbidden }
}

/// An error of kube in one line, with those causes that its text does not have. It begins with what a person can do about
/// it, if that is known.
pub(crate) fn one_line(fault: &(dyn Error + 'static)) -> String {
    let advice = advice(fault).map_or_else(String::new, |advice| format!("{advice}: "));
    let mut text = format!("{advice}{fault}");
    let mut next = fault.source();
    while let Some(cause) = next {
        let why = cause.to_string();
        if !text.contains(&why) {
            text = format!("{text}: {why}");
        }
        next = cause.source();
    }
    let why: String = text.chars().take(LONGEST_FAULT).collect();
    why.replace(char::is_control, " ")
}

/// What is wrong with the API server's certificate or our token, and what helps.
fn advice(fault: &(dyn Error + 'static)) -> Option<&'static str> {
    let mut next = Some(fault);
    while let Some(fault) = next {
        if let Some(kube::Error::Api(status)) = fault.downcast_ref()
            && status.code == 401
        {
            return Some(
                "the API server does not accept the token of the service account, which is read again each minute",
            );
        }
        if let Some(rustls::Error::InvalidCertificate(fault)) = fault.downcast_ref() {
            return about_certificate(fault);
        }
        // An I/O error has its cause inside, and names the cause of that as its own.
        let inside = fault.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
        next = match inside {
            Some(inside) => Some(inside),
            None => fault.source(),
        };
    }
    None
}

fn about_certificate(fault: &CertificateError) -> Option<&'static str> {
    match fault {
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => Some(
            "the API server's certificate has expired, or this node's clock is wrong; renew the certificate",
        ),
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            Some("the API server's certificate is not valid yet, or this node's clock is wrong")
        }
        // An authority of the same name that is another one, as after a cluster has been made anew.
        CertificateError::UnknownIssuer | CertificateError::BadSignature => Some(
            "ca.crt of the service account has not issued the API server's certificate; it is read again each minute",
        ),
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            Some(
                "the API server's certificate is for another name or address than the one that is used",
            )
        }
        _ => None,
    }
}
