//! For tests: an API server that serves list, get, watch, create and patch from memory, and that can
//! misbehave. It must not know what the objects mean.
//!
//! A collection is the path of its list, such as `/api/v1/nodes`. `PUT /_sim/object?collection=…` and `DELETE
//! /_sim/object?collection=…&name=…` change objects, `PUT /_sim/mood` takes a [`Mood`] in words, `PUT /_sim/token` the only token
//! that is accepted, and `PUT /_sim/forbidden` the beginning of the paths that are refused with 403.

mod serve;
mod store;
mod tls;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::Value;
use tokio::net::TcpListener;
use tokio::sync::watch;

use store::Store;

/// How the server answers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Mood {
    /// Well.
    #[default]
    Well,
    /// With this status: 401, 403, 500.
    Refusing(u16),
    /// It takes requests and never answers.
    Silent,
    /// Well, after this time.
    Slow(Duration),
    /// With bytes that are no JSON.
    Garbled,
    /// It has forgotten old versions: watches end with 410.
    Forgetful,
    /// Well, but watches that run neither end nor say anything more, as if somebody had cut their connections without a word.
    Cut,
}

impl Mood {
    /// The mood in words: `well`, `silent`, `garbled`, `forgetful`, `cut`, `refusing 401`, `slow 500` (milliseconds).
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (word, number) = text.split_once(' ').unwrap_or((text, ""));
        match word {
            "well" => Some(Mood::Well),
            "silent" => Some(Mood::Silent),
            "garbled" => Some(Mood::Garbled),
            "forgetful" => Some(Mood::Forgetful),
            "cut" => Some(Mood::Cut),
            "refusing" => number.parse().ok().map(Mood::Refusing),
            "slow" => number.parse().ok().map(|ms| Mood::Slow(Duration::from_millis(ms))),
            _ => None,
        }
    }
}

/// A server. Clones are the same server.
#[derive(Debug, Clone)]
pub struct KubeSim(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    /// Changes with each change of an object or of the mood.
    changed: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct State {
    store: Store,
    mood: Mood,
    /// Counts changes of the mood. A watch ends when it is another one than at its start.
    n_moods: u64,
    /// The only token that is accepted; `None`: any, or none.
    token: Option<String>,
    /// Paths that begin with it are refused with 403.
    forbidden: Option<String>,
    requests: Vec<String>,
}

impl Default for KubeSim {
    fn default() -> Self {
        Self(Arc::new(Shared { state: Mutex::default(), changed: watch::channel(0).0 }))
    }
}

impl KubeSim {
    /// Starts a server on `address`, port 0 for any, and returns where it listens. It runs as long as the runtime.
    ///
    /// # Errors
    /// If it cannot listen there.
    pub async fn listen(&self, address: SocketAddr) -> std::io::Result<SocketAddr> {
        let listener = TcpListener::bind(address).await?;
        let address = listener.local_addr()?;
        let routes = serve::routes(self.clone());
        tokio::spawn(async move { axum::serve(listener, routes).await });
        Ok(address)
    }

    /// As [`listen`](Self::listen), by TLS. Each connection gets the certificate that `tls.crt` and `tls.key` in `directory`
    /// have by then.
    ///
    /// # Errors
    /// If it cannot listen there.
    pub async fn listen_by_tls(
        &self,
        address: SocketAddr,
        directory: PathBuf,
    ) -> std::io::Result<SocketAddr> {
        let listener = tls::SecuredListener::bind(address, directory).await?;
        let address = listener.address();
        let routes = serve::routes(self.clone());
        tokio::spawn(async move { axum::serve(listener, routes).await });
        Ok(address)
    }

    /// From now on accepts this token alone; an empty one stands for any.
    pub fn accept_token(&self, token: &str) {
        self.state().token = Some(token.to_owned()).filter(|token| !token.is_empty());
    }

    /// From now on refuses paths that begin with `path`, for want of permission; an empty one stands for none.
    pub fn forbid(&self, path: &str) {
        self.state().forbidden = Some(path.to_owned()).filter(|path| !path.is_empty());
    }

    /// Creates or replaces an object, by its `metadata.name`.
    pub fn put(&self, collection: &str, object: Value) {
        self.state().store.put(collection, object);
        self.wake();
    }

    /// Removes an object, if it is there.
    pub fn delete(&self, collection: &str, name: &str) {
        self.state().store.delete(collection, name);
        self.wake();
    }

    /// The objects of a collection, by name.
    #[must_use]
    pub fn objects(&self, collection: &str) -> Vec<Value> {
        self.state().store.list(collection, "")
    }

    /// Answers like this from now on. Watches that run end.
    pub fn set_mood(&self, mood: Mood) {
        let mut state = self.state();
        state.mood = mood;
        state.n_moods += 1;
        drop(state);
        self.wake();
    }

    /// `METHOD path?query` of each request so far.
    #[must_use]
    pub fn requests(&self) -> Vec<String> {
        self.state().requests.clone()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wake(&self) {
        self.0.changed.send_modify(|n| *n += 1);
    }
}
