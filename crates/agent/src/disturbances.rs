//! The kernel's notifications of disturbances, and how soon something is done about them.

use std::time::Duration;

use datapath::disturbances::Disturbance;
use futures::Stream;
use tokio::time::Instant;

/// The pause from a disturbance to its repair. A program that removes rules removes many: they cost one repair.
const AFTER_A_DISTURBANCE: Duration = Duration::from_millis(100);
/// The shortest time between two repairs. Another program may remove things again and again, and each DEL of a
/// pod removes rules too. With the pause and the repair itself it is less than a second, whatever came before.
const BETWEEN: Duration = Duration::from_millis(500);

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

    /// A repair is needed.
    pub(crate) fn need(&mut self) {
        let soon = Instant::now() + AFTER_A_DISTURBANCE;
        self.due.get_or_insert_with(|| soon.max(self.earliest));
    }

    /// Returns when a repair is due; never while none is needed.
    pub(crate) async fn due(&mut self) {
        match self.due {
            Some(due) => tokio::time::sleep_until(due).await,
            None => std::future::pending().await,
        }
        self.due = None;
        self.earliest = Instant::now() + BETWEEN;
    }
}

/// All disturbances in the calling thread's namespace. Empty, with an error line, if they cannot be followed: then the
/// repairs of each minute remain.
pub(crate) fn follow() -> Box<dyn Stream<Item = Disturbance> + Send + Unpin> {
    match datapath::disturbances::disturbances() {
        Ok(disturbances) => Box::new(disturbances),
        Err(fault) => {
            tracing::error!(%fault, "disturbances of routes and rules cannot be followed");
            Box::new(futures::stream::empty())
        }
    }
}
