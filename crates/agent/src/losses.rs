//! The kernel's notifications of losses, and how soon something is done about them.

use std::time::Duration;

use datapath::losses::Loss;
use futures::Stream;
use tokio::time::Instant;

/// The pause from a loss to its repair. A program that takes rules takes many: they cost one repair.
const AFTER_A_LOSS: Duration = Duration::from_millis(100);
/// The shortest time between two repairs. Another program may take things again and again, and each DEL of a pod
/// removes rules too.
const BETWEEN: Duration = Duration::from_secs(1);

/// When the next repair is due.
#[derive(Debug)]
pub(crate) struct Repairs {
    due: Option<Instant>,
    earliest: Instant,
}

impl Repairs {
    /// None is due.
    pub(crate) fn new() -> Self {
        Self { due: None, earliest: Instant::now() }
    }

    /// Something has been lost.
    pub(crate) fn need(&mut self) {
        let soon = Instant::now() + AFTER_A_LOSS;
        self.due.get_or_insert_with(|| soon.max(self.earliest));
    }

    /// Returns when a repair is due; never if nothing has been lost.
    pub(crate) async fn due(&mut self) {
        match self.due {
            Some(due) => tokio::time::sleep_until(due).await,
            None => std::future::pending().await,
        }
        self.due = None;
        self.earliest = Instant::now() + BETWEEN;
    }
}

/// All losses in the calling thread's namespace. Empty, with an error line, if they cannot be followed: then the
/// repairs of each minute remain.
pub(crate) fn follow() -> Box<dyn Stream<Item = Loss> + Send + Unpin> {
    match datapath::losses::losses() {
        Ok(losses) => Box::new(losses),
        Err(fault) => {
            tracing::error!(%fault, "the kernel's losses of routes and rules cannot be followed");
            Box::new(futures::stream::empty())
        }
    }
}
