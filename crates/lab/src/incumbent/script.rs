//! A sequence of calls and sleeps in virtual time, written as an async function.
//!
//! There is no executor. A script runs until it needs something from outside, returns that as a
//! wish, and continues once it is given.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use ec2_model::error::ApiError;
use ec2_model::request::Request;
use ec2_model::response::Response;
use ipam::time::Timestamp;

use crate::daemon::MetadataEni;

/// What a script waits for.
#[derive(Debug)]
pub(super) enum Wish {
    Sleep(Duration),
    Call(Box<Request>),
    Metadata,
}

/// What a script continues with.
#[derive(Debug)]
pub(super) enum Given {
    Started,
    Slept,
    Answer(Result<Box<Response>, ApiError>),
    Metadata(Vec<MetadataEni>),
}

/// A script that waits for its wish.
pub(super) struct Script {
    port: Port,
    future: Pin<Box<dyn Future<Output = ()>>>,
}

impl Script {
    pub(super) fn new<F: Future<Output = ()> + 'static>(body: impl FnOnce(Port) -> F) -> Self {
        let port = Port::default();
        Self { future: Box::pin(body(port.clone())), port }
    }

    /// Continues with what was wished for, until the next wish. `None` at the script's end.
    pub(super) fn resume(&mut self, given: Given, now: Timestamp) -> Option<Wish> {
        self.port.0.now.set(now);
        *self.port.0.given.borrow_mut() = Some(given);
        let poll = self.future.as_mut().poll(&mut Context::from_waker(Waker::noop()));
        match poll {
            Poll::Pending => self.port.0.wish.borrow_mut().take(),
            Poll::Ready(()) => None,
        }
    }
}

/// The script's side of the exchange.
#[derive(Debug, Clone, Default)]
pub(super) struct Port(Rc<Exchange>);

#[derive(Debug, Default)]
struct Exchange {
    now: Cell<Timestamp>,
    wish: RefCell<Option<Wish>>,
    given: RefCell<Option<Given>>,
}

impl Port {
    pub(super) fn now(&self) -> Timestamp {
        self.0.now.get()
    }

    pub(super) async fn sleep(&self, span: Duration) {
        self.ask(Wish::Sleep(span)).await;
    }

    pub(super) async fn call(&self, request: impl Into<Request>) -> Result<Response, ApiError> {
        match self.ask(Wish::Call(Box::new(request.into()))).await {
            Given::Answer(answer) => answer.map(|response| *response),
            other => unreachable!("{other:?} is no answer of EC2"),
        }
    }

    pub(super) async fn metadata(&self) -> Vec<MetadataEni> {
        match self.ask(Wish::Metadata).await {
            Given::Metadata(enis) => enis,
            other => unreachable!("{other:?} is no metadata"),
        }
    }

    async fn ask(&self, wish: Wish) -> Given {
        // The input that the script was resumed with is already used.
        self.0.given.borrow_mut().take();
        *self.0.wish.borrow_mut() = Some(wish);
        std::future::poll_fn(|_| match self.0.given.borrow_mut().take() {
            Some(given) => Poll::Ready(given),
            None => Poll::Pending,
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn script_stops_at_each_wish_and_ends() {
        let mut script = Script::new(|port| async move {
            port.sleep(Duration::from_secs(1)).await;
            let woken_at = port.now();
            let n_enis = u64::try_from(port.metadata().await.len()).unwrap();
            port.sleep(Duration::from_millis(woken_at.as_millis() + n_enis)).await;
        });
        let at = Timestamp::from_millis;
        let second = Duration::from_secs(1);
        assert!(
            matches!(script.resume(Given::Started, at(0)), Some(Wish::Sleep(s)) if s == second)
        );
        assert!(matches!(script.resume(Given::Slept, at(7)), Some(Wish::Metadata)));
        let last = script.resume(Given::Metadata(Vec::new()), at(9));
        assert!(matches!(last, Some(Wish::Sleep(s)) if s == Duration::from_millis(7)));
        assert!(script.resume(Given::Slept, at(10)).is_none());
    }
}
