//! The thread that makes changes durable, so that a slow disk delays only the requests that wait for it.
//! The engine sends one save at a time. Changes in the meantime go into the next save.

use std::sync::mpsc::{self, Receiver, Sender};
use std::thread::{self, JoinHandle};

use anyhow::{Context as _, anyhow, bail};
use ipam::event::{Event, SaveSeq};
use ipam::record::Change;

use crate::error_chain;
use crate::state::Store;

/// The changes of one save, in the engine's order.
type Save = (SaveSeq, Vec<Change>);

/// The sending end, and the thread itself.
#[derive(Debug)]
pub(crate) struct Writer {
    saves: Sender<Save>,
    thread: JoinHandle<()>,
}

impl Writer {
    /// Starts the thread. It reports each commit through `done`.
    ///
    /// # Errors
    ///
    /// If the system cannot start a thread.
    pub(crate) fn start(
        store: Store,
        done: impl Fn(Event) + Send + 'static,
    ) -> std::io::Result<Self> {
        let (saves, queue) = mpsc::channel();
        let thread = thread::Builder::new()
            .name("state-writer".to_owned())
            .spawn(move || write_all(store, &queue, done))?;
        Ok(Self { saves, thread })
    }

    /// Queues a save.
    pub(crate) fn save(&self, seq: SaveSeq, changes: Vec<Change>) {
        self.saves.send((seq, changes)).expect("the thread ends only after this sender is dropped");
    }

    /// Returns the thread, to be joined. It ends after it has written all queued saves.
    pub(crate) fn finish(self) -> JoinHandle<()> {
        self.thread
    }
}

fn write_all(mut store: Store, queue: &Receiver<Save>, done: impl Fn(Event)) {
    for (seq, changes) in queue {
        let result = store.commit(&changes).map_err(|fault| error_chain(&fault));
        if let Err(fault) = &result {
            tracing::error!(fault, "state cannot be written");
        }
        done(Event::Saved { seq, result });
        store.compact();
    }
}

/// Waits until `writer` has made every decision durable, or until `patience` ends. What is not on disk then was never
/// answered.
///
/// # Errors
///
/// If `patience` ends first, or if the thread has panicked.
pub(crate) async fn flush(
    writer: JoinHandle<()>,
    patience: impl Future<Output = ()>,
) -> anyhow::Result<()> {
    let joined = tokio::task::spawn_blocking(|| writer.join());
    tokio::select! {
        biased;
        joined = joined => joined
            .context("wait for the writer")?
            .map_err(|_panic| anyhow!("the thread that writes the state has panicked")),
        () = patience => bail!("the disk does not accept the state in time"),
    }
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};

    use super::*;

    /// A writer with a save that the disk accepts when the sender is dropped.
    fn writer() -> (Sender<()>, JoinHandle<()>) {
        let (accept, accepted) = mpsc::channel();
        (accept, thread::spawn(move || accepted.recv().unwrap_or(())))
    }

    #[tokio::test]
    async fn flush_waits_for_the_disk_while_there_is_patience() {
        let (accept, writer) = writer();
        let mut flushing = tokio::spawn(flush(writer, pending()));
        tokio::select! {
            biased;
            ended = &mut flushing => panic!("it has ended before the disk: {ended:?}"),
            () = ready(()) => {}
        }
        drop(accept);
        flushing.await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn flush_names_a_disk_that_takes_too_long() {
        let (_accept, writer) = writer();
        let error = flush(writer, ready(())).await.unwrap_err();
        assert_eq!(error.to_string(), "the disk does not accept the state in time");
    }
}
