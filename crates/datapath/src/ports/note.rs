//! The ports of a pod as text, for whoever keeps them: a line with the version, the owner, and a line for each port.

use std::fmt;
use std::net::SocketAddr;
use std::num::NonZeroU16;
use std::str::FromStr;

use super::{AskedTwice, Forward, PodPorts, Protocol};
use crate::OwnerError;

/// The first line.
const VERSION: &str = "tidepool host ports 1";

/// The text is no pod's ports.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoteError {
    /// Another version has written it, or something else.
    #[error("the first line is not {VERSION:?}")]
    Version,
    /// The second line names no owner.
    #[error("the second line names no owner")]
    Owner(#[from] OwnerError),
    /// A line is no port.
    #[error("{0:?} is no forwarded port")]
    Forward(String),
    /// Two lines exclude each other.
    #[error(transparent)]
    AskedTwice(#[from] AskedTwice),
}

impl fmt::Display for PodPorts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{VERSION}\n{}", self.owner)?;
        self.forwards.iter().try_for_each(|forward| writeln!(f, "{forward}"))
    }
}

impl FromStr for PodPorts {
    type Err = NoteError;

    fn from_str(text: &str) -> Result<Self, NoteError> {
        let mut lines = text.lines();
        if lines.next() != Some(VERSION) {
            return Err(NoteError::Version);
        }
        let owner = lines.next().unwrap_or_default().parse()?;
        let read = |line: &str| forward(line).ok_or_else(|| NoteError::Forward(line.to_owned()));
        let forwards: Vec<_> = lines.map(read).collect::<Result<_, _>>()?;
        Ok(Self::of(owner, forwards.into_iter())?)
    }
}

fn forward(line: &str) -> Option<Forward> {
    let [protocol, from, pod] = <[&str; 3]>::try_from(line.split(' ').collect::<Vec<_>>()).ok()?;
    let protocol = Protocol::ALL.into_iter().find(|it| it.to_string() == protocol)?;
    let pod: SocketAddr = pod.parse().ok().filter(|pod: &SocketAddr| pod.port() != 0)?;
    let (host, port) = match from.strip_prefix("*:") {
        Some(port) => (None, port.parse().ok()?),
        None => {
            let from: SocketAddr = from.parse().ok()?;
            (Some(from.ip()), from.port())
        }
    };
    let is_of_its_family = host.is_none_or(|host| host.is_ipv4() == pod.is_ipv4());
    let forward = Forward { protocol, host, host_port: NonZeroU16::new(port)?, pod };
    is_of_its_family.then_some(forward)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOTE: &str = "\
tidepool host ports 1
c1/eth0
tcp *:8080 10.0.0.20:80
tcp 10.0.0.10:8443 10.0.0.20:443
udp [fd00::10]:53 [fd00::20]:53
sctp *:7 [fd00::20]:7
";

    #[test]
    fn note_is_read_as_it_was_written() {
        let ports: PodPorts = NOTE.parse().unwrap();
        assert_eq!((ports.owner().as_str(), ports.forwards().len()), ("c1/eth0", 4));
        let text = ports.to_string();
        assert_eq!(text.parse(), Ok(ports));
        let sorted = |text: &str| {
            let mut lines: Vec<_> = text.lines().map(str::to_owned).collect();
            lines.sort_unstable();
            lines
        };
        assert_eq!(sorted(&text), sorted(NOTE));
    }

    #[test]
    fn note_with_any_damage_is_refused() {
        let with = |line: &str| format!("{VERSION}\nc1/eth0\n{line}\n").parse::<PodPorts>();
        for bad in [
            "",
            "tcp",
            "tcp *:8080",
            "icmp *:8080 10.0.0.20:80",
            "tcp *:0 10.0.0.20:80",
            "tcp *:8080 10.0.0.20:0",
            "tcp *:65536 10.0.0.20:80",
            "tcp [::1]:8080 10.0.0.20:80",
            "tcp *:8080 10.0.0.20:80 more",
        ] {
            assert_eq!(with(bad), Err(NoteError::Forward(bad.to_owned())), "{bad}");
        }
        let twice = with("tcp *:8080 10.0.0.20:80\ntcp *:8080 10.0.0.20:81");
        assert!(matches!(twice, Err(NoteError::AskedTwice(_))), "{twice:?}");
        let newer = "tidepool host ports 2\nc1/eth0\n".parse::<PodPorts>();
        assert_eq!(newer, Err(NoteError::Version));
        assert!(matches!(format!("{VERSION}\n").parse::<PodPorts>(), Err(NoteError::Owner(_))));
    }
}
