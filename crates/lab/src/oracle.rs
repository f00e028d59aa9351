//! A daemon that always has an address. A run with it shows what pods ask of each node if none
//! waits. Its addresses do not exist.

use std::net::Ipv4Addr;
use std::time::Duration;

use ipam::time::Timestamp;

use crate::daemon::{Command, Daemon, Input, Timer};

/// From a daemon's start until its node is ready, as one describe takes. Nodes that join together
/// get ready one after the other, as with other daemons, so the scheduler spreads pods alike.
const START: Duration = Duration::from_millis(100);

/// The daemon of a node.
#[derive(Debug, Default)]
pub(crate) struct Oracle {
    is_ready: bool,
}

impl Daemon for Oracle {
    fn handle(&mut self, input: Input, now: Timestamp) -> Vec<Command> {
        match input {
            Input::Start => vec![Command::Timer { timer: Timer::Tick, at: now + START }],
            Input::Timer(_) => {
                self.is_ready = true;
                Vec::new()
            }
            Input::Add { sandbox, .. } => {
                let address = u32::try_from(sandbox.pod).unwrap_or(u32::MAX);
                let (answer, after) = (Ok(Ipv4Addr::from(address)), Duration::ZERO);
                vec![Command::Answer { sandbox, answer, after }]
            }
            Input::Bound(_)
            | Input::Cancel(_)
            | Input::Del(_)
            | Input::Reply { .. }
            | Input::Device { .. }
            | Input::Metadata { .. } => Vec::new(),
        }
    }

    fn ready(&self, _now: Timestamp) -> bool {
        self.is_ready
    }
}
