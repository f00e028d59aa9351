//! Many connections: nothing is left of those that have gone, and too many at once end nothing.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt as _;
use std::process::Command;
use std::time::Duration;

use rustix::net::{self, AddressFamily, SocketAddrUnix, SocketType};
use rustix::process::{Resource, Rlimit, setrlimit};
use tokio::io::AsyncWriteExt as _;

use crate::node::{TestNode, until};

/// Marks the process that plays the daemon with few descriptors.
const CROWDED: &str = "TIDEPOOL_TEST_CROWDED";
/// What this process, in which many tests run at once, has open at most.
const FEW: usize = 1000;

fn n_descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

/// Waits until what daemons of this process have open is what its tests need.
pub(crate) async fn until_few_descriptors() {
    let few = || async { (n_descriptors() <= FEW).then_some(()) };
    until("descriptors to be closed", few).await;
}

#[tokio::test]
async fn ten_thousand_connections_leave_nothing_behind() {
    let node = TestNode::new();
    let daemon = node.start().await;
    for n in 0..10_000 {
        // While the queue of those who wait to be let in is full, nobody can join it.
        let place = || async { tokio::net::UnixStream::connect(node.socket()).await.ok() };
        let mut connection = until("a place in the queue", place).await;
        if n % 2 == 0 {
            let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
            connection.write_all(preface).await.unwrap();
        }
    }
    until_few_descriptors().await;
    node.client().await.add("c1").await.unwrap();
    daemon.stop().await.unwrap();
}

#[test]
fn a_crowd_neither_ends_the_daemon_nor_keeps_it_busy() {
    // A process of its own: the limit holds for all of it.
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "crowd::the_crowd", "--ignored", "--nocapture"]).env(CROWDED, "1");
    let output = command.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.contains("1 passed"), "{output:?}");
}

#[tokio::test]
#[ignore = "needs a limit of its own, started by the test above"]
async fn the_crowd() {
    assert!(std::env::var_os(CROWDED).is_some(), "this would limit the other tests, too");
    let node = TestNode::new();
    let daemon = node.start().await;
    node.client().await.add("c1").await.unwrap();
    let stat = File::open("/proc/self/stat").unwrap();
    let one = || net::socket(AddressFamily::UNIX, SocketType::STREAM, None).unwrap();
    let crowd: Vec<OwnedFd> = std::iter::repeat_with(one).take(60).collect();
    // A third of them can be let in.
    let limit = Some(n_descriptors() as u64 + 20);
    setrlimit(Resource::Nofile, Rlimit { current: limit, maximum: limit }).unwrap();
    let address = SocketAddrUnix::new(node.socket()).unwrap();
    crowd.iter().for_each(|one| net::connect(one, &address).unwrap());

    let before = cpu_time(&stat);
    tokio::time::sleep(Duration::from_secs(1)).await;
    let spent = cpu_time(&stat) - before;
    assert!(spent < Duration::from_millis(250), "{spent:?} of a second with nothing to do");

    drop(crowd);
    assert_eq!(node.client().await.check("c1").await.len(), 1);
    daemon.stop().await.unwrap();
}

/// What this process has computed so far. Source: proc_pid_stat(5), `utime` and `stime`, in
/// hundredths of a second.
fn cpu_time(stat: &File) -> Duration {
    let mut text = [0; 1024];
    let n = stat.read_at(&mut text, 0).unwrap();
    let text = String::from_utf8_lossy(&text[..n]).into_owned();
    let (_, fields) = text.rsplit_once(") ").unwrap();
    let ticks = fields.split(' ').skip(11).take(2).map(|ticks| ticks.parse::<u64>().unwrap());
    Duration::from_millis(10 * ticks.sum::<u64>())
}
